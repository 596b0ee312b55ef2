//! The status of the network as the published crate shows it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use calimero_network_primitives::network_status::{
    AutonatEntry, AutonatTestEntry, AutonatTestKind, DirectUpgradeEntry, DirectUpgradeOutcome,
    NetworkStatusSnapshot, ReachabilityKind, RelayEntry, RelayReservationKind, RendezvousEntry,
    RendezvousRegistrationKind,
};
use libp2p::{PeerId, swarm::ConnectionId};
use network::{
    Connection, LastProbe, Path, ProbeOutcome, Reachability, ReachableBecause, Registration,
    Reservation, Status,
};

use crate::convert::{address_to_node, peer_to_node};

/// Peers whose hole punches are remembered: 1,024, the connections that a node has at most by
/// default.
const MAX_UPGRADES: usize = 1024;

/// What the status remembers over time: when each state changed last, and the hole punches.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    relays: Changes<RelayReservationKind>,
    rendezvous: Changes<RendezvousRegistrationKind>,
    upgrades: BTreeMap<PeerId, DirectUpgradeEntry>,
}

impl History {
    /// Notes the states of relays and rendezvous servers. A change has the time of the first call
    /// that sees it.
    pub(crate) fn observe(&self, status: &Status, now: SystemTime) {
        let mut inner = self.lock();
        inner.relays.observe(relays(status), now);
        inner.rendezvous.observe(rendezvous(status), now);
    }

    /// Notes a relayed connection that was replaced by a direct one.
    pub(crate) fn on_direct(&self, connection: &Connection, now: SystemTime) {
        if connection.path != Path::Direct {
            return;
        }
        // The id is a number in this process, on both sides.
        let Ok(id) = connection.id.to_string().parse() else {
            return;
        };
        let connection_id = ConnectionId::new_unchecked(id);
        self.upgrade(
            connection.peer,
            DirectUpgradeOutcome::Succeeded { connection_id },
            now,
        );
    }

    /// Notes a hole punch that did not lead to a direct connection.
    pub(crate) fn on_still_relayed(&self, peer: network::PeerId, now: SystemTime) {
        let reason = "no direct connection was established".to_owned();
        self.upgrade(peer, DirectUpgradeOutcome::Failed { reason }, now);
    }

    fn upgrade(&self, peer: network::PeerId, outcome: DirectUpgradeOutcome, now: SystemTime) {
        let Ok(peer_id) = peer_to_node(&peer) else {
            return;
        };
        let upgrades = &mut self.lock().upgrades;
        if upgrades.len() >= MAX_UPGRADES && !upgrades.contains_key(&peer_id) {
            let oldest = upgrades.values().min_by_key(|entry| entry.last_attempt);
            if let Some(oldest) = oldest.map(|entry| entry.peer_id) {
                upgrades.remove(&oldest);
            }
        }
        let entry = DirectUpgradeEntry {
            peer_id,
            outcome,
            last_attempt: now,
        };
        upgrades.insert(peer_id, entry);
    }

    /// The snapshot for the node.
    pub(crate) fn snapshot(&self, local_peer_id: PeerId, status: &Status) -> NetworkStatusSnapshot {
        let now = SystemTime::now();
        self.observe(status, now);
        let inner = self.lock();
        let machine = &status.discovery.discovery;
        let addresses = |addresses: &[network::Multiaddr]| {
            let converted = addresses.iter().map(address_to_node);
            converted.filter_map(Result::ok).collect()
        };
        NetworkStatusSnapshot {
            local_peer_id,
            listen_addrs: addresses(&status.listening),
            external_addrs: addresses(&status.external),
            relays: inner
                .relays
                .entries()
                .map(
                    |(peer_id, reservation_status, last_state_change)| RelayEntry {
                        peer_id,
                        reservation_status,
                        last_state_change,
                    },
                )
                .collect(),
            rendezvous: inner
                .rendezvous
                .entries()
                .map(
                    |(peer_id, registration_status, last_state_change)| RendezvousEntry {
                        peer_id,
                        registration_status,
                        last_state_change,
                    },
                )
                .collect(),
            direct_upgrades: inner.upgrades.values().cloned().collect(),
            autonat: AutonatEntry {
                reachability: reachability(&machine.reachability),
                last_test: machine
                    .last_probe
                    .as_ref()
                    .and_then(|probe| test(probe, now)),
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The snapshot after the end of the network.
pub(crate) fn stopped(local_peer_id: PeerId) -> NetworkStatusSnapshot {
    NetworkStatusSnapshot {
        local_peer_id,
        listen_addrs: Vec::new(),
        external_addrs: Vec::new(),
        relays: Vec::new(),
        rendezvous: Vec::new(),
        direct_upgrades: Vec::new(),
        autonat: AutonatEntry {
            reachability: ReachabilityKind::Unknown,
            last_test: None,
        },
    }
}

/// The state of each peer, and when it changed last.
#[derive(Debug)]
struct Changes<S>(BTreeMap<PeerId, (S, SystemTime)>);

impl<S> Default for Changes<S> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<S: Copy + PartialEq> Changes<S> {
    /// Takes the states that hold now. Peers without one are forgotten.
    fn observe(&mut self, states: BTreeMap<PeerId, S>, now: SystemTime) {
        self.0.retain(|peer, _| states.contains_key(peer));
        for (peer, state) in states {
            let (kept, since) = self.0.entry(peer).or_insert((state, now));
            if *kept != state {
                (*kept, *since) = (state, now);
            }
        }
    }

    fn entries(&self) -> impl Iterator<Item = (PeerId, S, SystemTime)> + '_ {
        self.0
            .iter()
            .map(|(peer, (state, since))| (*peer, *state, *since))
    }
}

fn relays(status: &Status) -> BTreeMap<PeerId, RelayReservationKind> {
    let reservations = &status.discovery.discovery.reservations;
    let kind = |reservation: &Reservation| match reservation {
        Reservation::Idle => RelayReservationKind::Discovered,
        Reservation::Requested { .. } => RelayReservationKind::Requested,
        Reservation::Held { .. } => RelayReservationKind::Accepted,
        Reservation::Resting { .. } => RelayReservationKind::Expired,
    };
    let states = reservations.iter();
    states
        .filter_map(|(peer, state)| Some((peer_to_node(peer).ok()?, kind(state))))
        .collect()
}

/// One state for each server: of its registrations the one that got furthest.
fn rendezvous(status: &Status) -> BTreeMap<PeerId, RendezvousRegistrationKind> {
    let machine = &status.discovery.discovery;
    let mut states = BTreeMap::new();
    for (peer, _) in &machine.boot_nodes {
        if let Ok(peer) = peer_to_node(peer) {
            states.insert(peer, RendezvousRegistrationKind::Discovered);
        }
    }
    for (peer, _, registration) in &machine.registrations {
        let Ok(peer) = peer_to_node(peer) else {
            continue;
        };
        let kind = match registration {
            Registration::Pending => RendezvousRegistrationKind::Pending,
            Registration::Requested => RendezvousRegistrationKind::Requested,
            Registration::Registered { .. } => RendezvousRegistrationKind::Registered,
            Registration::Retrying { .. } => RendezvousRegistrationKind::Expired,
        };
        let kept = states.entry(peer).or_insert(kind);
        if rank(kind) > rank(*kept) {
            *kept = kind;
        }
    }
    states
}

fn rank(kind: RendezvousRegistrationKind) -> u8 {
    match kind {
        RendezvousRegistrationKind::Discovered => 0,
        RendezvousRegistrationKind::Pending => 1,
        RendezvousRegistrationKind::Expired => 2,
        RendezvousRegistrationKind::Requested => 3,
        RendezvousRegistrationKind::Registered => 4,
    }
}

/// Reachable on a local network says nothing about the internet, which is what the node asks for.
fn reachability(reachability: &Reachability) -> ReachabilityKind {
    match reachability {
        Reachability::Unknown
        | Reachability::Reachable {
            why: ReachableBecause::LocalNetwork,
        } => ReachabilityKind::Unknown,
        Reachability::Reachable { .. } => ReachabilityKind::Public,
        Reachability::Unreachable => ReachabilityKind::Private,
    }
}

fn test(probe: &LastProbe, now: SystemTime) -> Option<AutonatTestEntry> {
    let tested_addr = address_to_node(&probe.address).ok()?;
    let addr = tested_addr.clone();
    let result = match probe.outcome {
        ProbeOutcome::Reached => AutonatTestKind::Reachable { addr },
        ProbeOutcome::NotReached => AutonatTestKind::Failed {
            reason: format!("{} did not reach the address", probe.server),
        },
        ProbeOutcome::NotTried => AutonatTestKind::Failed {
            reason: format!("{} did not try to reach the address", probe.server),
        },
    };
    let age = Instant::now().saturating_duration_since(probe.at);
    let at = now.checked_sub(age).unwrap_or(now);
    Some(AutonatTestEntry {
        tested_addr,
        result,
        at,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_state_keeps_the_time_of_its_last_change() {
        let (peer, other) = (PeerId::random(), PeerId::random());
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut changes = Changes::default();
        changes.observe(BTreeMap::from([(peer, 1), (other, 1)]), at(10));
        changes.observe(BTreeMap::from([(peer, 1)]), at(20));
        assert_eq!(changes.entries().collect::<Vec<_>>(), [(peer, 1, at(10))]);
        changes.observe(BTreeMap::from([(peer, 2)]), at(30));
        assert_eq!(changes.entries().collect::<Vec<_>>(), [(peer, 2, at(30))]);
    }
}
