//! Whether others can reach us, found out by probes. Its one writer is this file.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use calimero_network_primitives::{Multiaddr, PeerId, config::ReachabilityTuning};
use rand::rngs::StdRng;

use super::{
    effect::Effect,
    schedule::{Schedule, backoff, jittered},
};

/// Time for a probe to end.
const PROBE_TIMEOUT: Duration = Duration::from_secs(60);

/// Failed probes in a row after which a reachable address counts as unreachable: 2, because a single
/// prober may be the one that is cut off.
const FAILURES_TO_LOSE: u32 = 2;

/// Whether others can reach us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reachability {
    /// No probe has ended.
    Unknown,
    /// Others reach us.
    Reachable {
        /// How that is known.
        why: ReachableBecause,
    },
    /// Probes have ended, and none of our addresses was reached.
    Unreachable,
}

/// How it is known that others reach us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReachableBecause {
    /// The operator has configured a public address.
    Configured,
    /// The network is local, and we listen on it.
    LocalNetwork,
    /// `server` has reached us at `address`.
    Probed {
        /// The address it dialled.
        address: Multiaddr,
        /// Who dialled.
        server: PeerId,
    },
}

/// How a probe of one of our addresses ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The server reached us.
    Reached,
    /// The server tried and did not reach us.
    NotReached,
    /// The server did not try: it refused, or could not be asked. It says nothing about us.
    NotTried,
}

/// The last probe that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastProbe {
    /// The address probed.
    pub address: Multiaddr,
    /// Who probed.
    pub server: PeerId,
    /// How it ended.
    pub outcome: ProbeOutcome,
    /// When it ended.
    pub at: Instant,
}

#[derive(Clone, Debug, Default)]
struct Candidate {
    /// Who reached us there last, while it counts as reached.
    reached_by: Option<PeerId>,
    /// Probes in a row that did not reach us.
    failures: u32,
    /// Probes in a row that were not tried.
    untried: u32,
    probing: bool,
}

/// What a probe has changed about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Gained,
    Lost,
}

/// Addresses that may be ours and what probes say of them. Each is always being probed or due
/// to be probed again.
#[derive(Clone, Debug)]
pub(super) struct Prober {
    config: ReachabilityTuning,
    configured: bool,
    /// Whether we listen on a network that is local.
    local: bool,
    /// Whether a stranger has connected directly since the network last changed.
    visited: bool,
    candidates: BTreeMap<Multiaddr, Candidate>,
    /// When a candidate is probed, or its probe taken as not tried.
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

    /// `address` may be ours. Above the bound one that was never reached makes room, the one
    /// that failed most often first.
    pub(super) fn add(&mut self, address: Multiaddr, now: Instant) {
        if self.candidates.contains_key(&address) {
            return;
        }
        if self.candidates.len() >= self.config.max_candidates as usize {
            let worst = self
                .candidates
                .iter()
                .filter(|(_, candidate)| candidate.reached_by.is_none())
                .max_by_key(|(_, candidate)| candidate.failures)
                .map(|(worst, _)| worst.clone());
            let Some(worst) = worst else {
                return;
            };
            self.candidates.remove(&worst);
            self.due.cancel(&worst);
        }
        self.candidates
            .insert(address.clone(), Candidate::default());
        self.due.set(address, now);
    }

    /// `address` is ours no more, for instance because its interface is gone. Returns whether it
    /// counted as reached.
    pub(super) fn remove(&mut self, address: &Multiaddr) -> bool {
        self.due.cancel(address);
        self.candidates
            .remove(address)
            .is_some_and(|candidate| candidate.reached_by.is_some())
    }

    /// Starts the probes that are due and ends those that nobody told the end of.
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

    /// A probe has ended, ours or one that the prober made of itself.
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
        self.last = Some(LastProbe {
            address: address.clone(),
            server,
            outcome,
            at: now,
        });
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

    /// A stranger has connected directly: whatever stands before us lets anybody in.
    pub(super) fn visited(&mut self) {
        self.visited = true;
    }

    pub(super) fn is_visited(&self) -> bool {
        self.visited
    }

    /// Probes everything anew, as after a change of the network.
    pub(super) fn hasten(&mut self, now: Instant) {
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
