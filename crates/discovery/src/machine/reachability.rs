//! The reachability of this node, which probes by other peers test.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use calimero_network_primitives::{Multiaddr, PeerId, config::ReachabilityTuning};
use rand::rngs::StdRng;

use super::{
    effect::Effect,
    schedule::{Schedule, backoff, jittered},
};

/// Time after which a probe counts as not tried, 60 s.
const PROBE_TIMEOUT: Duration = Duration::from_secs(60);

/// Failed probes in a row after which a reachable address counts as unreachable: 2, because a
/// single prober may be the one that is cut off.
const FAILURES_TO_LOSE: u32 = 2;

/// Observers of a candidate that are stored, 8. More of them prove nothing more.
const MAX_OBSERVERS: usize = 8;

/// The reachability of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reachability {
    /// No probe has ended yet.
    Unknown,
    /// Other peers can reach this node.
    Reachable {
        /// Reason why the node counts as reachable.
        why: ReachableBecause,
    },
    /// Probes have ended, and none reached an address of this node.
    Unreachable,
}

/// The reason why this node counts as reachable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReachableBecause {
    /// The operator configured an external address.
    Configured,
    /// The network is local, and this node listens on it.
    LocalNetwork,
    /// A peer reached this node by a probe.
    Probed {
        /// Address that was reached.
        address: Multiaddr,
        /// Id of the peer that made the probe.
        server: PeerId,
    },
}

/// The result of a probe of an address of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The server reached this node.
    Reached,
    /// The server tried and did not reach this node.
    NotReached,
    /// The server did not try, because it refused or could not be asked. This says nothing about
    /// the address.
    NotTried,
}

/// The latest probe that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastProbe {
    /// Address that was probed.
    pub address: Multiaddr,
    /// Id of the peer that made the probe.
    pub server: PeerId,
    /// Result of the probe.
    pub outcome: ProbeOutcome,
    /// Time at which the probe ended.
    pub at: Instant,
}

#[derive(Clone, Debug, Default)]
struct Candidate {
    /// Peers that observe this node at the address. Empty if no peer reported it.
    observers: BTreeSet<PeerId>,
    /// The peer that reached the address last, while the address counts as reached.
    reached_by: Option<PeerId>,
    /// Probes in a row that did not reach this node.
    failures: u32,
    /// Probes in a row that were not tried.
    untried: u32,
    probing: bool,
    latest: Option<LastProbe>,
}

/// The change of an address after a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Gained,
    Lost,
}

/// Addresses that may be external ones, and the results of their probes. Each is being probed or
/// due to be probed again.
#[derive(Clone, Debug)]
pub(super) struct Prober {
    config: ReachabilityTuning,
    configured: bool,
    /// Whether this node listens on a local network.
    local: bool,
    /// Whether an unknown peer has connected directly since the network last changed.
    visited: bool,
    candidates: BTreeMap<Multiaddr, Candidate>,
    /// Time at which a candidate is probed, or at which its probe counts as not tried.
    due: Schedule<Multiaddr>,
    last: Option<LastProbe>,
}

impl Prober {
    pub(super) fn new(config: ReachabilityTuning, configured: bool) -> Self {
        Self {
            config,
            configured,
            local: false,
            visited: false,
            candidates: BTreeMap::new(),
            due: Schedule::default(),
            last: None,
        }
    }

    /// Adds a candidate that no peer reported. At the limit it replaces another one or is ignored,
    /// as [`observe`](Self::observe) says.
    pub(super) fn add(&mut self, address: Multiaddr, now: Instant) {
        if !self.candidates.contains_key(&address) {
            self.insert(address, Candidate::default(), now);
        }
    }

    /// `observer` observes this node at `address`. An address that it reported before is removed,
    /// unless another peer reported it as well or a probe reached it.
    ///
    /// At the limit the new candidate replaces one that was never reached: the one that failed most
    /// often, but none that another observer reported and no probe has tested. Returns whether the
    /// address is a candidate.
    pub(super) fn observe(&mut self, observer: PeerId, address: Multiaddr, now: Instant) -> bool {
        self.withdraw(&observer, &address);
        let Some(known) = self.candidates.get_mut(&address) else {
            let candidate = Candidate {
                observers: [observer].into(),
                ..Candidate::default()
            };
            return self.insert(address, candidate, now);
        };
        // A candidate without observers is an address that this node knows by itself. It is not
        // removed with an observer.
        if !known.observers.is_empty() && known.observers.len() < MAX_OBSERVERS {
            known.observers.insert(observer);
        }
        true
    }

    /// Removes `observer` from the observers of all addresses but `except`, and the addresses that
    /// were its alone.
    fn withdraw(&mut self, observer: &PeerId, except: &Multiaddr) {
        let due = &mut self.due;
        self.candidates.retain(|address, candidate| {
            let was_observer = address != except && candidate.observers.remove(observer);
            let is_kept =
                !was_observer || !candidate.observers.is_empty() || candidate.reached_by.is_some();
            if !is_kept {
                due.cancel(address);
            }
            is_kept
        });
    }

    fn insert(&mut self, address: Multiaddr, candidate: Candidate, now: Instant) -> bool {
        if self.candidates.len() >= self.config.max_candidates as usize {
            let replaceable = |candidate: &Candidate| {
                let is_tested = candidate.failures > 0 || candidate.observers.is_empty();
                candidate.reached_by.is_none() && is_tested
            };
            let worst = self
                .candidates
                .iter()
                .filter(|(_, candidate)| replaceable(candidate))
                .max_by_key(|(_, candidate)| (candidate.failures, candidate.untried))
                .map(|(worst, _)| worst.clone());
            let Some(worst) = worst else {
                return false;
            };
            self.candidates.remove(&worst);
            self.due.cancel(&worst);
        }
        self.candidates.insert(address.clone(), candidate);
        self.due.set(address, now);
        true
    }

    /// Removes a candidate, for example because its interface was removed. Returns whether it
    /// counted as reached.
    pub(super) fn remove(&mut self, address: &Multiaddr) -> bool {
        self.due.cancel(address);
        self.candidates
            .remove(address)
            .is_some_and(|candidate| candidate.reached_by.is_some())
    }

    /// Starts the probes that are due, and ends those that have taken too long.
    pub(super) fn advance(&mut self, now: Instant, rng: &mut StdRng, out: &mut VecDeque<Effect>) {
        while let Some(address) = self.due.pop_due(now) {
            let Some(candidate) = self.candidates.get_mut(&address) else {
                continue;
            };
            if candidate.probing {
                candidate.probing = false;
                candidate.untried = candidate.untried.saturating_add(1);
                let untried = candidate.untried;
                let wait = self.retry_in(untried, rng);
                self.due.set(address, now + wait);
                continue;
            }
            candidate.probing = true;
            let deadline = now + PROBE_TIMEOUT;
            self.due.set(address.clone(), deadline);
            out.push_back(Effect::Probe { address });
        }
    }

    /// A probe ended. The server may have made it without a request.
    pub(super) fn probed(
        &mut self,
        address: &Multiaddr,
        server: PeerId,
        outcome: ProbeOutcome,
        now: Instant,
        rng: &mut StdRng,
    ) -> Option<Change> {
        let candidate = self.candidates.get_mut(address)?;
        candidate.probing = false;
        let probe = LastProbe {
            address: address.clone(),
            server,
            outcome,
            at: now,
        };
        candidate.latest = Some(probe.clone());
        self.last = Some(probe);
        let (change, wait) = match outcome {
            ProbeOutcome::Reached => {
                let gained = candidate.reached_by.replace(server).is_none();
                candidate.failures = 0;
                candidate.untried = 0;
                let wait = jittered(rng, self.config.retest);
                (gained.then_some(Change::Gained), wait)
            }
            ProbeOutcome::NotReached => {
                candidate.untried = 0;
                candidate.failures = candidate.failures.saturating_add(1);
                let lost =
                    candidate.failures >= FAILURES_TO_LOSE && candidate.reached_by.take().is_some();
                let failures = candidate.failures;
                (lost.then_some(Change::Lost), self.retry_in(failures, rng))
            }
            ProbeOutcome::NotTried => {
                candidate.untried = candidate.untried.saturating_add(1);
                let untried = candidate.untried;
                (None, self.retry_in(untried, rng))
            }
        };
        self.due.set(address.clone(), now + wait);
        change
    }

    /// An unknown peer connected directly, so neither NAT nor firewall keeps unknown peers out.
    pub(super) fn visited(&mut self) {
        self.visited = true;
    }

    pub(super) fn is_visited(&self) -> bool {
        self.visited
    }

    /// Probes all candidates at once, as after a change of the network.
    pub(super) fn retry_now(&mut self, now: Instant) {
        self.visited = false;
        for (address, candidate) in &self.candidates {
            if !candidate.probing {
                self.due.set(address.clone(), now);
            }
        }
    }

    pub(super) fn set_local(&mut self, local: bool) {
        self.local = local;
    }

    pub(super) fn reachability(&self) -> Reachability {
        if self.configured {
            let why = ReachableBecause::Configured;
            return Reachability::Reachable { why };
        }
        if self.local {
            let why = ReachableBecause::LocalNetwork;
            return Reachability::Reachable { why };
        }
        let reached = self.candidates.iter().find_map(|(address, candidate)| {
            let server = candidate.reached_by?;
            let address = address.clone();
            Some(ReachableBecause::Probed { address, server })
        });
        let tried = |candidate: &Candidate| candidate.failures > 0;
        match reached {
            Some(why) => Reachability::Reachable { why },
            None if self.candidates.values().any(tried) => Reachability::Unreachable,
            None => Reachability::Unknown,
        }
    }

    pub(super) fn last(&self) -> Option<&LastProbe> {
        self.last.as_ref()
    }

    /// The latest probe of each candidate.
    pub(super) fn latest(&self) -> impl Iterator<Item = &LastProbe> {
        let candidates = self.candidates.values();
        candidates.filter_map(|candidate| candidate.latest.as_ref())
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.due.next()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.candidates.len()
    }

    fn retry_in(&self, attempts: u32, rng: &mut StdRng) -> Duration {
        let (min, max) = (self.config.min_backoff, self.config.max_backoff);
        backoff(rng, min, max, attempts)
    }
}
