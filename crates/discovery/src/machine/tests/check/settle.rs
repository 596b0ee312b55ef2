//! Time alone passes: everything asked for comes to nothing, and is asked for again and again,
//! at a pace.

use std::{collections::BTreeMap, time::Duration};

use calimero_network_primitives::{Multiaddr, PeerId};

use super::{
    super::machine::{Effect, Input, Namespace, Reachability, RendezvousFailure, Reservation},
    Checked, Model,
};

/// Longer than anything waits under [`script::config`](super::script::config): the longest are
/// a redial of a boot node after an unanswered dial (35 + 38 s) and a turn of registrations
/// (75 s) at each of two places.
const SETTLE: Duration = Duration::from_secs(300);

/// Wake-ups in [`SETTLE`] above which the machine is busy with itself: a round of upkeep every 4 s
/// or so, and what each of a dozen peers, overlays and addresses is due for.
const MAX_WAKE_UPS: u32 = 2_000;

/// What was asked for while time passed.
#[derive(Default)]
struct Asked {
    dials: BTreeMap<PeerId, u32>,
    registrations: BTreeMap<(PeerId, Namespace), u32>,
    questions: BTreeMap<(PeerId, Namespace), u32>,
    reservations: BTreeMap<PeerId, u32>,
    attempts: BTreeMap<PeerId, u32>,
    probes: Vec<String>,
}

impl Checked {
    /// Lets time pass; whatever the machine asks for fails at once, but a registration, which is
    /// granted.
    pub(crate) fn settle(&mut self) {
        if self.model.stopped {
            return;
        }
        let before = self.machine.status();
        let end = self.latest + SETTLE;
        let mut asked = Asked::default();
        let mut wake_ups = 0;
        while let Some(at) = self.machine.next_timeout().filter(|at| *at <= end) {
            wake_ups += 1;
            assert!(wake_ups < MAX_WAKE_UPS, "busy with itself");
            let mut effects = self.tell(Input::Timeout, at);
            while let Some(effect) = effects.pop() {
                if let Some(input) = asked.end(effect) {
                    effects.extend(self.tell(input, at));
                }
            }
        }
        self.nobody_waits();
        self.lost_things_were_asked_for(&asked);
        for probed in Model::probed(&before.external_addresses) {
            let again = asked.probes.contains(&probed.to_string());
            assert!(again, "{probed} is never tested again");
        }
    }

    /// Every waiter has been ended, and what was lost for good is left alone.
    fn nobody_waits(&self) {
        let status = self.machine.status();
        assert_eq!(status.dials_in_flight, 0, "a dial without an end");
        assert_eq!(status.queued_dials, 0, "a dial that never has its turn");
        let boot = self.model.boot.len();
        assert!(status.lost_peers <= boot, "a redial without an end");
    }

    fn lost_things_were_asked_for(&self, asked: &Asked) {
        let (model, status) = (&self.model, self.machine.status());
        for boot in &model.boot {
            let dials = asked.dials.get(boot).copied().unwrap_or(0);
            if !model.is_stranger(boot) && !model.connected.contains_key(boot) {
                assert!(dials > 0, "boot node {boot} is given up");
            }
        }
        let connected = |server: &&PeerId| model.connected.contains_key(*server);
        for server in model.boot.iter().filter(connected) {
            for namespace in &model.followed {
                let key = (*server, namespace.clone());
                assert!(asked.questions.contains_key(&key), "{namespace} not asked");
                let registered = status
                    .registrations
                    .iter()
                    .any(|one| (&one.server, &one.namespace) == (server, namespace));
                assert!(registered, "{namespace} has no registration");
                // If the server does not accept all of them, they are rotated.
                let waits = self.waits_for_registration(&key);
                let had_its_turn = asked.registrations.contains_key(&key);
                assert!(!waits || had_its_turn, "{namespace} never registered");
            }
        }
        let held = |state: &Reservation| matches!(state, Reservation::Held { .. });
        let slots = status.reservations.iter();
        let slots = slots.filter(|one| held(&one.state)).count();
        if status.reachability == Reachability::Unreachable && slots < self.config.relays as usize {
            for one in &status.reservations {
                let asked = asked.reservations.contains_key(&one.relay);
                assert!(
                    asked || held(&one.state),
                    "{} is never asked again",
                    one.relay
                );
            }
        }
        for (peer, dials) in &asked.dials {
            // Boot nodes: the steps and then one in 11 s or more. Others: the steps, and one
            // after each rest.
            assert!(*dials <= 36, "{dials} dials of {peer}");
        }
        for (peer, attempts) in &asked.attempts {
            // A hole that is awaited, and rounds: the first two 4 s later at least, if the end of
            // the latest was reported, then one in 34 s.
            assert!(
                *attempts <= 12,
                "{attempts} attempts to reach {peer} directly"
            );
        }
        for (key, questions) in &asked.questions {
            assert!(*questions <= 90, "{questions} questions for {key:?}");
        }
    }

    fn waits_for_registration(&self, key: &(PeerId, Namespace)) -> bool {
        let status = self.machine.status();
        let mut all = status.registrations.iter();
        let found = all.find(|one| (&one.server, &one.namespace) == (&key.0, &key.1));
        let held = found.is_some_and(|one| {
            matches!(
                one.state,
                super::super::machine::Registration::Registered { .. }
            )
        });
        !status.external_addresses.is_empty() && !held
    }
}

impl Asked {
    /// Counts what `effect` asks for. Returns how it ends.
    fn end(&mut self, effect: Effect) -> Option<Input> {
        let why = RendezvousFailure::Unavailable;
        match effect {
            Effect::Dial {
                peer, addresses, ..
            } => {
                *self.dials.entry(peer).or_default() += 1;
                let tried = addresses.into_iter().map(Multiaddr::from).collect();
                Some(Input::DialFailed { peer, tried })
            }
            Effect::Attempt { id, peer, .. } => {
                *self.attempts.entry(peer).or_default() += 1;
                Some(Input::AttemptFailed { id })
            }
            Effect::Register {
                server,
                namespace,
                ttl,
            } => {
                let key = (server, namespace.clone());
                *self.registrations.entry(key).or_default() += 1;
                Some(Input::Registered {
                    server,
                    namespace,
                    ttl,
                })
            }
            Effect::Discover {
                server, namespace, ..
            } => {
                let key = (server, namespace.clone());
                *self.questions.entry(key).or_default() += 1;
                Some(Input::DiscoverFailed {
                    server,
                    namespace,
                    why,
                })
            }
            Effect::Reserve {
                listener, relay, ..
            } => {
                *self.reservations.entry(relay).or_default() += 1;
                Some(Input::RelayListenerClosed { listener })
            }
            Effect::Probe { address } => {
                self.probes.push(address.to_string());
                None
            }
            _ => None,
        }
    }
}
