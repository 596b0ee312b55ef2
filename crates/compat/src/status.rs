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

/// What the status of the manager does not show: the latest hole punch with each peer.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<BTreeMap<PeerId, DirectUpgradeEntry>>);

impl History {
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
        let mut upgrades = self.lock();
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
        let clock = Clock::now();
        let addresses = |addresses: &[network::Multiaddr]| {
            let converted = addresses.iter().map(address_to_node);
            converted.filter_map(Result::ok).collect()
        };
        NetworkStatusSnapshot {
            local_peer_id,
            listen_addrs: addresses(&status.listening),
            external_addrs: addresses(&status.external),
            relays: relays(status, &clock),
            rendezvous: rendezvous(status, &clock),
            direct_upgrades: self.lock().values().cloned().collect(),
            autonat: AutonatEntry {
                reachability: reachability(&status.reachability),
                last_test: status
                    .last_probe
                    .as_ref()
                    .and_then(|probe| test(probe, &clock)),
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerId, DirectUpgradeEntry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One moment on both clocks. The manager reports times of the monotonic clock, the node expects the
/// time of day.
struct Clock {
    monotonic: Instant,
    system: SystemTime,
}

impl Clock {
    fn now() -> Self {
        Self {
            monotonic: Instant::now(),
            system: SystemTime::now(),
        }
    }

    fn time_of_day(&self, at: Instant) -> SystemTime {
        let age = self.monotonic.saturating_duration_since(at);
        self.system.checked_sub(age).unwrap_or(self.system)
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

fn relays(status: &Status, clock: &Clock) -> Vec<RelayEntry> {
    let kind = |reservation: &Reservation| match reservation {
        Reservation::Idle => RelayReservationKind::Discovered,
        Reservation::Requested { .. } => RelayReservationKind::Requested,
        Reservation::Held { .. } => RelayReservationKind::Accepted,
        Reservation::Resting { .. } => RelayReservationKind::Expired,
    };
    let entries = status.reservations.iter().filter_map(|one| {
        Some(RelayEntry {
            peer_id: peer_to_node(&one.relay).ok()?,
            reservation_status: kind(&one.state),
            last_state_change: clock.time_of_day(one.changed_at),
        })
    });
    entries.collect()
}

/// One state for each server: of its registrations the one that got furthest, and of several such
/// ones the one that changed last.
fn rendezvous(status: &Status, clock: &Clock) -> Vec<RendezvousEntry> {
    let mut states = BTreeMap::new();
    for boot_node in &status.boot_nodes {
        let discovered = RendezvousRegistrationKind::Discovered;
        states.insert(boot_node.peer, (discovered, boot_node.changed_at));
    }
    for one in &status.registrations {
        let kind = match one.state {
            Registration::Pending => RendezvousRegistrationKind::Pending,
            Registration::Requested => RendezvousRegistrationKind::Requested,
            Registration::Registered { .. } => RendezvousRegistrationKind::Registered,
            Registration::Retrying { .. } => RendezvousRegistrationKind::Expired,
        };
        let kept = states.entry(one.server).or_insert((kind, one.changed_at));
        if (rank(kind), one.changed_at) > (rank(kept.0), kept.1) {
            *kept = (kind, one.changed_at);
        }
    }
    let entries = states.into_iter().filter_map(|(peer, (kind, changed_at))| {
        Some(RendezvousEntry {
            peer_id: peer_to_node(&peer).ok()?,
            registration_status: kind,
            last_state_change: clock.time_of_day(changed_at),
        })
    });
    entries.collect()
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

fn test(probe: &LastProbe, clock: &Clock) -> Option<AutonatTestEntry> {
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
    Some(AutonatTestEntry {
        tested_addr,
        result,
        at: clock.time_of_day(probe.at),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_of_the_monotonic_clock_becomes_a_time_of_day() {
        let clock = Clock::now();
        let ten = Duration::from_secs(10);
        let later = clock.monotonic + ten;
        let clock = Clock {
            monotonic: later,
            ..clock
        };
        assert_eq!(clock.time_of_day(later), clock.system);
        assert_eq!(clock.time_of_day(later - ten), clock.system - ten);
        // Between the snapshot of the manager and the reading of the clock.
        assert_eq!(clock.time_of_day(later + ten), clock.system);
    }
}
