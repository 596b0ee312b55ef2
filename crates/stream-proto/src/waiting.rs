//! Shares of peers in the queue of streams that wait to be accepted. No IO, no
//! clock.
//!
//! Without shares, a few peers that open streams faster than the program accepts
//! them would fill the queue and shut out all others. The shares belong to one
//! queue of one protocol, so they are no resource of the node with limits in its
//! status.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use calimero_network_primitives::resources::{Holder, Origin};
use libp2p_identity::PeerId;

use crate::admission::RefuseReason;

/// Smallest share of a peer, in streams. A queue below this size has no shares.
const MIN_SHARE: usize = 16;

/// Limits of one queue.
#[derive(Clone, Copy, Debug)]
struct Shares {
    /// Streams of one peer: three eighths. With the default queue these are the
    /// 384 streams that a node of this version opens on one connection, which can
    /// arrive before the program accepts the first.
    peer: usize,
    /// Streams of the unprotected peers of one origin: a half, so that a second
    /// peer behind the same address has a share.
    origin: usize,
    /// Streams of all unprotected peers: all but a sixteenth.
    unprotected: usize,
    /// Streams of all peers.
    all: usize,
}

impl Shares {
    fn new(capacity: usize) -> Self {
        let share = |part: usize| part.max(MIN_SHARE).min(capacity);
        Self {
            peer: share(capacity / 8 * 3),
            origin: share(capacity / 2),
            unprotected: capacity - capacity / 16,
            all: capacity,
        }
    }
}

/// The streams of one protocol that wait to be accepted.
#[derive(Debug)]
pub(crate) struct Waiting {
    shares: Shares,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    peers: HashMap<PeerId, usize>,
    origins: HashMap<Origin, usize>,
}

impl Waiting {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            shares: Shares::new(capacity),
            counts: Mutex::default(),
        }
    }

    /// Takes a permit for one stream of `peer`.
    pub(crate) fn take(
        self: &Arc<Self>,
        peer: PeerId,
        holder: &Holder,
    ) -> Result<WaitPermit, RefuseReason> {
        let (shares, origin) = (self.shares, holder.origin());
        let is_protected = holder.is_protected();
        let mut counts = self.counts();
        if used(&counts.peers, &peer) >= shares.peer {
            return Err(RefuseReason::PeerLimit { limit: shares.peer });
        }
        if let Some(origin) = origin.filter(|_| !is_protected) {
            // Many honest nodes can share a local address.
            let limit = if origin.is_local() {
                (shares.origin * 2).min(shares.unprotected)
            } else {
                shares.origin
            };
            if used(&counts.origins, &origin) >= limit {
                return Err(RefuseReason::OriginLimit { origin, limit });
            }
        }
        let limit = if is_protected {
            shares.all
        } else {
            shares.unprotected
        };
        if counts.all >= limit {
            return Err(RefuseReason::QueueFull { limit });
        }
        counts.all += 1;
        *counts.peers.entry(peer).or_default() += 1;
        if let Some(origin) = origin {
            *counts.origins.entry(origin).or_default() += 1;
        }
        drop(counts);
        Ok(WaitPermit {
            waiting: self.clone(),
            peer,
            origin,
        })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn used<K: Eq + Hash>(counts: &HashMap<K, usize>, key: &K) -> usize {
    counts.get(key).copied().unwrap_or_default()
}

fn release<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// A permit for one stream in the queue, released on drop.
#[derive(Debug)]
pub(crate) struct WaitPermit {
    waiting: Arc<Waiting>,
    peer: PeerId,
    origin: Option<Origin>,
}

impl Drop for WaitPermit {
    fn drop(&mut self) {
        let mut counts = self.waiting.counts();
        counts.all -= 1;
        release(&mut counts.peers, &self.peer);
        if let Some(origin) = &self.origin {
            release(&mut counts.origins, origin);
        }
    }
}

#[cfg(test)]
mod tests;
