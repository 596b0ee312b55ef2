//! Peers that fetch the same blob: how they are found, and that they go on reporting what they have.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use calimero_network_primitives::PeerId;

use super::Driver;
use crate::{fetch::session::Ask, plan::Input, swarm::Fetching};

/// Peers that are taken from the reports of one provider, and from all of them. Nothing proves the
/// reports: a provider that invents peers must not displace those that are found in another way.
const TAKEN_OF_ONE: usize = 16;
const TAKEN_IN_ALL: usize = 32;

/// Pause before a provider whose stream has ended is watched again: 1 s.
const WATCH_AGAIN: Duration = Duration::from_secs(1);

/// What providers of 1.1.0 reported.
#[derive(Default)]
pub(super) struct Exchange {
    /// Number of peers that were taken from the reports of each.
    taken: BTreeMap<PeerId, usize>,
    /// Peers that were found by reports, or came for chunks of this transfer.
    found: BTreeSet<PeerId>,
    /// Providers that report which chunks they have, and when those whose stream has ended are
    /// watched again.
    watched: BTreeMap<PeerId, Option<Duration>>,
}

impl Exchange {
    pub(super) fn next_timeout(&self) -> Option<Duration> {
        self.watched.values().copied().flatten().min()
    }

    /// Notes a provider that reports which chunks it has.
    pub(super) fn on_report(&mut self, peer: PeerId) {
        self.watched.insert(peer, None);
    }

    /// Stops watching a provider.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.watched.remove(peer);
    }

    /// Notes that the stream of a provider has ended and the provider has not failed.
    pub(super) fn on_end(&mut self, peer: &PeerId, now: Duration) {
        if let Some(again) = self.watched.get_mut(peer) {
            *again = Some(now + WATCH_AGAIN);
        }
    }
}

impl Driver {
    /// Takes peers that a provider reported.
    pub(super) fn reported(&mut self, by: PeerId, peers: Vec<PeerId>) {
        for peer in peers {
            let taken = self.exchange.taken.entry(by).or_default();
            let local = self.context.identity.peer;
            if *taken >= TAKEN_OF_ONE || peer == local {
                continue;
            }
            *taken += 1;
            self.exchanged(peer);
        }
    }

    /// Takes a peer that fetches the same blob.
    pub(super) fn exchanged(&mut self, peer: PeerId) {
        let found = &mut self.exchange.found;
        if found.contains(&peer) || found.len() < TAKEN_IN_ALL {
            found.insert(peer);
            self.found(peer);
        }
    }

    /// Watches providers again whose streams have ended.
    pub(super) fn watch_again(&mut self) {
        let now = self.now();
        let is_due = |due: &Option<Duration>| due.is_some_and(|due| due <= now);
        if self.done || !self.exchange.watched.values().any(is_due) {
            return;
        }
        let due = self
            .exchange
            .watched
            .iter_mut()
            .filter(|(_, due)| is_due(due));
        let due: Vec<_> = due.map(|(peer, due)| (*peer, due.take())).collect();
        for (peer, _) in due {
            if !self.sessions.contains_key(&peer) && !self.planner.is_left(&peer) {
                self.ask(peer, Ask::Watch);
            }
        }
    }

    /// Reports a verified chunk to the peers that this node serves, and to its provider.
    pub(super) fn offer(&self, from: PeerId, index: u64) {
        if let Some(offered) = &self.offered {
            offered.on_verified(index);
        }
        let session = self.sessions.get(&from);
        if let Some(asks) = session.and_then(|session| session.asks.as_ref())
            && self.exchange.watched.contains_key(&from)
        {
            // It helps the provider to plan, and is left out where the session has enough to do.
            let _ = asks.try_send(Ask::Got(index));
        }
    }

    /// Reports what a provider has to the planner.
    pub(super) fn on_has(&mut self, peer: PeerId, chunks: Vec<std::ops::Range<u64>>) {
        self.exchange.on_report(peer);
        self.plan(Input::Has { peer, chunks });
    }
}

/// The next peer that came for chunks of the transfer. Pending where nothing is offered.
pub(super) async fn next_peer(offered: &mut Option<Fetching>) -> PeerId {
    match offered {
        Some(offered) => offered.next_peer().await,
        None => std::future::pending().await,
    }
}
