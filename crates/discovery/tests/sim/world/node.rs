//! A node: a machine, the state of its driver, and its NAT.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use calimero_network_discovery::machine::{AttemptId, Machine, Path, RelayListener};
use calimero_network_primitives::Multiaddr;

use super::{boot::Addresses, names::Id};

/// The NAT or firewall of a node. Each kind drops unsolicited packets silently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nat {
    /// No NAT and no firewall.
    None,
    /// Any peer that knows the mapping can connect.
    FullCone,
    /// Addresses that were sent to pass.
    Restricted,
    /// Addresses and ports that were sent to pass.
    PortRestricted,
    /// As before, and each destination sees another mapping.
    Symmetric,
}

impl Nat {
    /// Of a hundred nodes behind one: twenty full cones, twenty restricted, forty port-restricted,
    /// twenty symmetric. A guess; what matters is that each kind is there.
    pub(super) fn of(chance: u32) -> Self {
        match chance % 100 {
            0..=19 => Self::FullCone,
            20..=39 => Self::Restricted,
            40..=79 => Self::PortRestricted,
            _ => Self::Symmetric,
        }
    }

    /// Whether strangers reach who is behind it.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Self::None | Self::FullCone)
    }

    /// Whether both sides reach each other by sending at one time (RFC 5128, section 3.3).
    pub(super) fn can_be_punched(self, other: Self) -> bool {
        let strict = |nat| matches!(nat, Self::Symmetric | Self::PortRestricted);
        let symmetric = self == Self::Symmetric || other == Self::Symmetric;
        !(symmetric && strict(self) && strict(other))
    }
}

/// Connections with one peer: at most one direct, one through a relay, and those of hole punch
/// rounds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Link {
    pub(super) direct: bool,
    /// Relay of the relayed connection, if there is one.
    pub(super) relayed: Option<Id>,
    /// Connections of rounds that are not over.
    pub(super) rounds: u32,
}

impl Link {
    pub(super) fn paths(self) -> impl Iterator<Item = Path> {
        let relayed = self.relayed.map(|_| Path::Relayed);
        let direct = self.direct.then_some(Path::Direct);
        let rounds = (0..self.rounds).map(|_| Path::Relayed);
        relayed.into_iter().chain(direct).chain(rounds)
    }
}

pub(crate) struct Node {
    pub(super) machine: Machine,
    pub(super) up: bool,
    /// Counts restarts, so that what was meant for one life does not reach the next.
    pub(super) life: u32,
    pub(super) nat: Nat,
    /// Side of a partition.
    pub(super) side: u32,
    /// How far its clock is ahead.
    pub(super) ahead: Duration,
    pub(super) address: Multiaddr,
    pub(super) overlays: Vec<u32>,
    /// Overlays without a connected co-member, until there was one in each.
    pub(super) unmet: Vec<u32>,
    /// Its external addresses, as it registers them.
    pub(super) registered: Addresses,
    pub(crate) links: BTreeMap<Id, Link>,
    pub(super) listeners: BTreeMap<RelayListener, Id>,
    pub(super) wake: Option<Duration>,
    /// Times since when connections are unused.
    pub(super) unused: BTreeMap<Id, Duration>,
    /// Attempts of the direct path whose connections are open, with the other end.
    pub(super) attempts: BTreeMap<AttemptId, Id>,
    /// Hole punches that were reported to have failed.
    pub(crate) failed_punches: u64,
    /// Number of dials that were made.
    pub(crate) dials: u64,
    /// Messages sent and received: requests, their answers, dials and connections taken.
    pub(crate) messages: u64,
    pub(crate) joined: Option<Duration>,
}

impl Node {
    pub(super) fn add_external(&mut self, address: Multiaddr) {
        if !self.registered.contains(&address) {
            let all = self.registered.iter().cloned();
            self.registered = all.chain([address]).collect();
        }
    }

    pub(super) fn remove_external(&mut self, address: &Multiaddr) {
        let others = self.registered.iter().filter(|other| *other != address);
        self.registered = others.cloned().collect();
    }

    /// Its clock, when the world's is at `now`.
    pub(super) fn clock(&self, epoch: Instant, now: Duration) -> Instant {
        epoch + now + self.ahead
    }
}
