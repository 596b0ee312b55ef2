//! What holds after any inputs in any order at any times, also times that go back.

use proptest::prelude::*;

use super::{
    check::{
        Checked, model,
        script::{STEP, Step, config},
    },
    *,
};

/// Steps to take, each of bytes of its own, so that a failure shrinks to the steps it needs.
fn any_steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = any::<[u8; STEP]>().prop_map(Step::of);
    prop::collection::vec(step, 1..most)
}

#[expect(clippy::disallowed_methods, reason = "a test has to start somewhere")]
fn checked(variant: u8, seed: u64) -> Checked {
    Checked::new(config(variant), seed, Instant::now())
}

#[test]
fn the_deadlines_of_the_model_are_those_of_the_machine() {
    assert_eq!(model::DIAL_TIMEOUT, dials::DIAL_TIMEOUT);
    assert_eq!(model::SERVER_TIMEOUT, registrations::SERVER_TIMEOUT);
}

/// Checks inside the parts that everything lost is due at some time or has a dial.
fn nothing_is_given_up(machine: &Machine) {
    for boot in machine.boot.keys() {
        let there = machine.connections.is_connected(boot) || machine.blocked.contains(boot);
        let sought = machine.redials.peers().any(|lost| lost == boot);
        assert_ne!(there, sought, "{boot}");
    }
    for lost in machine.redials.peers() {
        let dialled = machine.dials.is_pending(lost);
        assert!(dialled || machine.redials.is_waiting(lost), "{lost}");
    }
    assert!(machine.book.longest() <= machine.config.book.max_addresses_per_peer as usize);
    assert!(machine.prober.len() <= machine.config.reachability.max_candidates as usize);
    let status = machine.status();
    for one in &status.reservations {
        let timed = machine.relays.has_time(&one.relay);
        assert_eq!(timed, one.state != Reservation::Idle, "{one:?}");
        assert!(one.changed_at <= machine.now, "{one:?}");
    }
    let idle = |one: &ReservationStatus| one.state == Reservation::Idle;
    if status.reachability == Reachability::Unreachable && status.reservations.iter().any(idle) {
        let active = |one: &&ReservationStatus| {
            !matches!(one.state, Reservation::Idle | Reservation::Resting { .. })
        };
        let active = status.reservations.iter().filter(active).count();
        let wanted = machine.config.relays as usize;
        assert!(active >= wanted, "{:?}", status.reservations);
    }
    for one in &status.registrations {
        let key = (one.server, one.namespace.clone());
        let timed = machine.registrations.has_time(&key);
        assert_eq!(timed, one.state != Registration::Pending, "{one:?}");
        assert!(one.changed_at <= machine.now, "{one:?}");
        let asks = machine.connections.is_connected(&one.server);
        assert_eq!(machine.discoveries.has_time(&key), asks, "{one:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_inputs_at_any_times_keep_every_promise(
        steps in any_steps(120),
        variant in any::<u8>(),
        seed in any::<u64>(),
    ) {
        let mut checked = checked(variant, seed);
        for step in &steps {
            checked.step(step);
            if !checked.machine.stopped {
                nothing_is_given_up(&checked.machine);
            }
        }
        checked.settle();
    }

    #[test]
    fn no_instant_holds_the_machine_for_ever(steps in any_steps(60), variant in any::<u8>()) {
        let mut checked = checked(variant, 7);
        for step in &steps {
            checked.step(step);
        }
        for _ in 0..50 {
            let Some(at) = checked.machine.next_timeout() else { break };
            for _ in 0..8 {
                checked.tell(Input::Timeout, at);
            }
            prop_assert!(checked.machine.next_timeout().is_some_and(|next| next > at));
        }
    }

    #[test]
    fn the_same_inputs_times_and_seed_give_the_same_effects(steps in any_steps(60)) {
        let mut one = checked(0, 7);
        let start = one.latest;
        let mut other = Checked::new(config(0), 7, start);
        for step in &steps {
            prop_assert_eq!(one.step(step), other.step(step));
        }
        prop_assert_eq!(one.machine.status(), other.machine.status());
    }

    #[test]
    fn nothing_follows_the_end(steps in any_steps(30)) {
        let mut checked = checked(2, 7);
        let end = checked.latest;
        checked.tell(Input::Stop, end);
        for step in &steps {
            prop_assert_eq!(checked.step(step), []);
        }
    }
}
