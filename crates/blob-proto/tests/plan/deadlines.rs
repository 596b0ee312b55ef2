//! Providers that are slow, silent, or send in bursts.

use std::time::Duration;

use calimero_network_blob::plan::{Cause, Effect, Input, Planner, PlannerConfig};

use crate::sim::{CHUNK, End, MIB, default_config, ending, peer, simulate, steady, whole};

/// As a provider of v0 at 52 KB/s that sends each chunk in one burst.
#[test]
fn a_provider_that_sends_in_bursts_is_not_left() {
    let burst = Duration::from_secs(60);
    let config = PlannerConfig {
        window_chunks: 1,
        provider_window_chunks: 1,
        burst,
        floor_span: 2 * burst,
        ..default_config()
    };
    let peer = peer(1);
    let mut planner = Planner::new(config, 0..1);
    planner.handle(Input::Found(peer), Duration::ZERO);
    let received = |bytes| Input::Received { peer, bytes };
    assert_eq!(planner.handle(received(100), Duration::from_secs(1)), []);
    for second in 2..200 {
        let input = match second % 20 {
            0 => received(CHUNK),
            _ => Input::Tick,
        };
        let effects = planner.handle(input, Duration::from_secs(second));
        assert_eq!(effects, [], "after {second} s");
    }
    // One that answers nothing at all is left after the stall timeout.
    let mut silent = Planner::new(default_config(), 0..1);
    silent.handle(Input::Found(peer), Duration::ZERO);
    let left = silent.handle(Input::Tick, default_config().stall_timeout);
    let cause = Cause::Stalled;
    assert!(left.contains(&Effect::Leave { peer, cause }), "{left:?}");
}

#[test]
fn a_silent_provider_rests_and_the_other_finishes() {
    let outcome = simulate(
        &default_config(),
        500,
        &[ending(3, End::Silence), steady(10 * MIB)],
    );
    assert_eq!(outcome.verified, whole(500));
    assert_eq!(outcome.left.first(), Some(&(peer(1), Cause::Stalled)));
}

#[test]
fn a_provider_below_the_floor_is_left() {
    // Bytes come often enough, and far too few.
    let mut planner = Planner::new(default_config(), 0..4);
    let read = planner.handle(Input::Found(peer(1)), Duration::ZERO);
    assert_eq!(
        read,
        [Effect::Read {
            peer: peer(1),
            chunks: 0..2
        }]
    );
    let mut left = Vec::new();
    // The span of 20 s begins with the first byte.
    for second in 1..=21 {
        let received = Input::Received {
            peer: peer(1),
            bytes: 1000,
        };
        left = planner.handle(received, Duration::from_secs(second));
        assert_eq!(left.is_empty(), second < 21);
    }
    assert_eq!(
        left,
        [Effect::Leave {
            peer: peer(1),
            cause: Cause::TooSlow
        }]
    );
    assert_eq!((planner.missing(), planner.in_flight()), (4, 0));
    let rested = planner.next_timeout().unwrap();
    let again = planner.handle(Input::Tick, rested);
    assert!(matches!(again[..], [Effect::Read { .. }]));
}

#[test]
fn a_provider_that_is_being_reached_has_no_deadline() {
    let config = PlannerConfig::default();
    let mut planner = Planner::new(config.clone(), 0..4);
    planner.handle(Input::Found(peer(1)), Duration::ZERO);
    let left = |effects: Vec<Effect>| {
        let mut effects = effects.into_iter();
        effects.any(|effect| matches!(effect, Effect::Leave { .. }))
    };
    // Much longer than both deadlines, with an input every second.
    let mut now = Duration::ZERO;
    while now < 3 * (config.stall_timeout + config.floor_span) {
        now += Duration::from_secs(1);
        assert!(!left(planner.handle(Input::Reaching(peer(1)), now)));
        assert!(planner.is_asked(&peer(1)));
    }
    // Once it is reached they run.
    now += config.stall_timeout;
    assert!(left(planner.handle(Input::Tick, now)));
    assert!(!planner.is_asked(&peer(1)));
    assert!(!planner.is_alone(), "it rests");
}

/// A provider that lets its requester wait for a turn sends at its rate from then on.
#[test]
fn the_rate_is_measured_from_the_first_byte_on() {
    let config = default_config();
    let mut planner = Planner::new(config.clone(), 0..1);
    let peer = peer(1);
    let s = Duration::from_secs;
    planner.handle(Input::Found(peer), s(0));
    // Silent for a while, then a tenth above the floor.
    let begun = config.stall_timeout - s(1);
    let bytes = config.floor_bytes_per_s * 11 / 10;
    for second in 0..60 {
        let effects = planner.handle(Input::Received { peer, bytes }, begun + s(second));
        assert_eq!(effects, [], "{second} s");
    }
    // Below the floor it is left as ever.
    let bytes = config.floor_bytes_per_s * 9 / 10;
    let left = (60..100).any(|second| {
        let effects = planner.handle(Input::Received { peer, bytes }, begun + s(second));
        let cause = Cause::TooSlow;
        effects.contains(&Effect::Leave { peer, cause })
    });
    assert!(left);
}
