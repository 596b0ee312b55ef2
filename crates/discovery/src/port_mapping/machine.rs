//! When ports are mapped: a state machine without IO and clock.

use std::{
    collections::BTreeMap,
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use super::{Mapping, Port};

/// Limit of ports that are mapped: a node listens on two, TCP and QUIC, on each interface.
pub const MAX_PORTS: usize = 16;

/// Time after which a request counts as failed, 30 s. The requests of all protocols together end
/// before.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Shortest time between the grant of a mapping and its renewal, 30 s, for routers that grant
/// shorter lifetimes than a mapping needs.
const MIN_RENEWAL: Duration = Duration::from_secs(30);

/// Wait after the first failure, 30 s: a router that restarts needs about that long.
const MIN_BACKOFF: Duration = Duration::from_secs(30);

/// Longest wait after failures, 1 h. Most networks without port mapping never get it.
const MAX_BACKOFF: Duration = Duration::from_secs(3600);

/// An input of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The node listens on a port.
    Listening(Port),
    /// The node no longer listens on a port.
    NotListening(Port),
    /// The router granted or renewed a mapping.
    Mapped(Port, Mapping),
    /// No protocol of the router granted the mapping.
    Failed(Port),
    /// The time that [`Machine::next_timeout`] returned has come.
    Timeout,
    /// The node stops.
    Stop,
}

/// An effect that the caller carries out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Request or renew the mapping of a port.
    Request(Port),
    /// Delete the mapping of a port at the router.
    Withdraw(Port),
    /// Test by probes whether the node can be reached at the external address of a mapping.
    Probe(Port, SocketAddrV4),
    /// Report that a port is mapped, or that its external address changed.
    Mapped(Port, Mapping),
    /// Report that the port has no mapping: the first request failed, or the mapping expired.
    Unmapped(Port),
}

/// The mapping of a port that is held, and the end of its lifetime.
#[derive(Clone, Debug)]
struct Held {
    mapping: Mapping,
    until: Instant,
}

#[derive(Clone, Debug)]
struct State {
    held: Option<Held>,
    /// Failed requests in a row.
    failures: u32,
    /// Whether a request is under way.
    requested: bool,
    /// Time of the next request, or at which the current one counts as failed.
    due: Instant,
}

/// The mappings of a node.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    ports: BTreeMap<Port, State>,
    stopped: bool,
}

impl Machine {
    /// Handles an input at the time `now`, and returns the effects in order.
    #[must_use]
    pub fn handle(&mut self, input: Input, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Listening(port) => self.listening(port, now, &mut effects),
            Input::NotListening(port) => {
                let state = self.ports.remove(&port);
                effects.extend(state.and_then(|state| withdraw(port, &state)));
            }
            Input::Mapped(port, mapping) => self.mapped(port, mapping, now, &mut effects),
            Input::Failed(port) => self.failed(port, now, &mut effects),
            Input::Timeout => self.timeout(now, &mut effects),
            Input::Stop => {
                self.stopped = true;
                let ports = std::mem::take(&mut self.ports);
                let held = ports.into_iter();
                effects.extend(held.filter_map(|(port, state)| withdraw(port, &state)));
            }
        }
        effects
    }

    /// Returns when [`Input::Timeout`] is due.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.ports.values().map(|state| state.due).min()
    }

    /// Returns each port with its mapping, if it has one.
    pub fn mappings(&self) -> impl Iterator<Item = (Port, Option<Mapping>)> {
        let mapping = |state: &State| state.held.as_ref().map(|held| held.mapping);
        (self.ports.iter()).map(move |(port, state)| (*port, mapping(state)))
    }

    fn listening(&mut self, port: Port, now: Instant, effects: &mut Vec<Effect>) {
        if self.stopped || self.ports.contains_key(&port) || self.ports.len() >= MAX_PORTS {
            return;
        }
        let state = State {
            held: None,
            failures: 0,
            requested: true,
            due: now + REQUEST_TIMEOUT,
        };
        self.ports.insert(port, state);
        effects.push(Effect::Request(port));
    }

    fn mapped(&mut self, port: Port, mapping: Mapping, now: Instant, effects: &mut Vec<Effect>) {
        let Some(state) = self.ports.get_mut(&port) else {
            // The node stopped listening while the request was under way.
            effects.push(Effect::Withdraw(port));
            return;
        };
        let before = state.held.as_ref().map(|held| held.mapping);
        state.held = Some(Held {
            mapping,
            until: now + mapping.lifetime,
        });
        state.failures = 0;
        state.requested = false;
        state.due = now + (mapping.lifetime / 2).max(MIN_RENEWAL);
        if before.is_none_or(|before| before.external != mapping.external) {
            effects.push(Effect::Mapped(port, mapping));
            effects.push(Effect::Probe(port, mapping.external));
        }
    }

    fn failed(&mut self, port: Port, now: Instant, effects: &mut Vec<Effect>) {
        let Some(state) = self.ports.get_mut(&port) else {
            return;
        };
        state.requested = false;
        state.failures = state.failures.saturating_add(1);
        let expired = state.held.as_ref().is_some_and(|held| held.until <= now);
        if expired {
            state.held = None;
        }
        if expired || (state.failures == 1 && state.held.is_none()) {
            effects.push(Effect::Unmapped(port));
        }
        let factor = 1_u32.checked_shl(state.failures - 1).unwrap_or(u32::MAX);
        let wait = MIN_BACKOFF.saturating_mul(factor).min(MAX_BACKOFF);
        // A mapping that is about to expire is requested again when it has.
        state.due = match &state.held {
            Some(held) => (now + wait).min(held.until),
            None => now + wait,
        };
    }

    fn timeout(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let due: Vec<Port> = (self.ports.iter())
            .filter(|(_, state)| state.due <= now)
            .map(|(port, _)| *port)
            .collect();
        for port in due {
            let Some(state) = self.ports.get_mut(&port) else {
                continue;
            };
            if state.requested {
                self.failed(port, now, effects);
            } else {
                state.requested = true;
                state.due = now + REQUEST_TIMEOUT;
                effects.push(Effect::Request(port));
            }
        }
    }
}

/// Returns the effect that deletes the mapping of a port, if it has one. The answer to a request
/// under way is withdrawn when it arrives.
fn withdraw(port: Port, state: &State) -> Option<Effect> {
    state.held.as_ref().map(|_| Effect::Withdraw(port))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{
        port_mapping::{Protocol, Transport},
        server::now,
    };

    const SECOND: Duration = Duration::from_secs(1);
    const LIFETIME: Duration = Duration::from_secs(1200);

    fn port(number: u16) -> Port {
        Port {
            transport: Transport::Tcp,
            socket: SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 2), number),
        }
    }

    fn mapping(number: u16) -> Mapping {
        Mapping {
            external: SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), number),
            protocol: Protocol::Pcp,
            lifetime: LIFETIME,
        }
    }

    #[test]
    fn a_mapping_is_renewed_at_half_of_its_lifetime() {
        let (mut machine, start) = (Machine::default(), now());
        let requested = machine.handle(Input::Listening(port(1)), start);
        assert_eq!(requested, [Effect::Request(port(1))]);
        let effects = machine.handle(Input::Mapped(port(1), mapping(9)), start);
        let external = mapping(9).external;
        assert_eq!(
            effects,
            [
                Effect::Mapped(port(1), mapping(9)),
                Effect::Probe(port(1), external)
            ]
        );
        let due = machine.next_timeout().unwrap();
        assert_eq!(due, start + LIFETIME / 2);
        assert_eq!(machine.handle(Input::Timeout, due - SECOND), []);
        assert_eq!(
            machine.handle(Input::Timeout, due),
            [Effect::Request(port(1))]
        );
        // The same address again is nothing new.
        assert_eq!(machine.handle(Input::Mapped(port(1), mapping(9)), due), []);
        // Another one is.
        let effects = machine.handle(Input::Mapped(port(1), mapping(10)), due);
        assert!(effects.contains(&Effect::Probe(port(1), mapping(10).external)));
    }

    #[test]
    fn a_mapping_counts_until_it_expires_although_its_renewal_fails() {
        let (mut machine, start) = (Machine::default(), now());
        let _ = machine.handle(Input::Listening(port(1)), start);
        let _ = machine.handle(Input::Mapped(port(1), mapping(9)), start);
        let mut unmapped = None;
        while let Some(due) = machine.next_timeout()
            && unmapped.is_none()
        {
            for effect in machine.handle(Input::Timeout, due) {
                assert_eq!(effect, Effect::Request(port(1)));
                if machine.handle(Input::Failed(port(1)), due) == [Effect::Unmapped(port(1))] {
                    unmapped = Some(due);
                }
            }
        }
        assert_eq!(unmapped, Some(start + LIFETIME));
        assert_eq!(machine.mappings().next(), Some((port(1), None)));
    }

    #[test]
    fn failures_are_reported_once_and_double_the_wait() {
        let (mut machine, start) = (Machine::default(), now());
        let _ = machine.handle(Input::Listening(port(1)), start);
        let failed = machine.handle(Input::Failed(port(1)), start);
        assert_eq!(failed, [Effect::Unmapped(port(1))]);
        let (mut at, mut waits) = (start, Vec::new());
        for _ in 0..40 {
            let due = machine.next_timeout().unwrap();
            waits.push(due - at);
            at = due;
            assert_eq!(
                machine.handle(Input::Timeout, at),
                [Effect::Request(port(1))]
            );
            assert_eq!(machine.handle(Input::Failed(port(1)), at), []);
        }
        assert_eq!(waits[..3], [MIN_BACKOFF, 2 * MIN_BACKOFF, 4 * MIN_BACKOFF]);
        assert_eq!(waits.last(), Some(&MAX_BACKOFF));
    }

    #[test]
    fn a_request_without_an_answer_counts_as_failed() {
        let (mut machine, start) = (Machine::default(), now());
        let _ = machine.handle(Input::Listening(port(1)), start);
        let due = machine.next_timeout().unwrap();
        assert_eq!(
            machine.handle(Input::Timeout, due),
            [Effect::Unmapped(port(1))]
        );
        assert_eq!(machine.next_timeout(), Some(due + MIN_BACKOFF));
    }

    #[test]
    fn the_end_of_a_listener_and_of_the_node_withdraws_mappings() {
        let (mut machine, start) = (Machine::default(), now());
        for number in 1..=4 {
            let _ = machine.handle(Input::Listening(port(number)), start);
        }
        for number in 1..=3 {
            let _ = machine.handle(Input::Mapped(port(number), mapping(number)), start);
        }
        assert_eq!(
            machine.handle(Input::NotListening(port(1)), start),
            [Effect::Withdraw(port(1))]
        );
        assert_eq!(
            machine.handle(Input::Stop, start),
            [Effect::Withdraw(port(2)), Effect::Withdraw(port(3))]
        );
        // A mapping that is granted late.
        assert_eq!(
            machine.handle(Input::Mapped(port(4), mapping(4)), start),
            [Effect::Withdraw(port(4))]
        );
        assert_eq!(machine.handle(Input::Listening(port(5)), start), []);
        assert_eq!(machine.next_timeout(), None);
    }

    #[test]
    fn a_short_lifetime_does_not_make_it_ask_without_pause() {
        let (mut machine, start) = (Machine::default(), now());
        let _ = machine.handle(Input::Listening(port(1)), start);
        let short = Mapping {
            lifetime: Duration::ZERO,
            ..mapping(9)
        };
        let _ = machine.handle(Input::Mapped(port(1), short), start);
        assert_eq!(machine.next_timeout(), Some(start + MIN_RENEWAL));
    }

    fn input() -> impl Strategy<Value = Input> {
        let number = || 0_u16..20;
        prop_oneof![
            number().prop_map(|n| Input::Listening(port(n))),
            number().prop_map(|n| Input::NotListening(port(n))),
            (number(), any::<u16>()).prop_map(|(n, at)| Input::Mapped(port(n), mapping(at))),
            number().prop_map(|n| Input::Failed(port(n))),
            Just(Input::Timeout),
        ]
    }

    proptest! {
        /// Whatever happens, ports are bounded, each has a time in the future, and the stop
        /// withdraws every mapping that is held.
        #[test]
        fn nothing_is_forgotten(inputs in vec((input(), 0_u64..2000), 0..80)) {
            let (mut machine, mut at) = (Machine::default(), now());
            for (input, seconds) in inputs {
                at += Duration::from_secs(seconds);
                let _ = machine.handle(input, at);
                let _ = machine.handle(Input::Timeout, at);
                prop_assert!(machine.ports.len() <= MAX_PORTS);
                prop_assert!(machine.next_timeout().is_none_or(|due| due > at));
            }
            let held = machine.mappings().filter(|(_, mapping)| mapping.is_some()).count();
            prop_assert_eq!(machine.handle(Input::Stop, at).len(), held);
            prop_assert_eq!(machine.next_timeout(), None);
        }
    }
}
