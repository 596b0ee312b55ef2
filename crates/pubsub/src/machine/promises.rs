//! Messages that were requested after an offer, and the other peers that offer them.
//!
//! A message is requested from one peer at a time. If it does not arrive within [`NEXT_REQUEST`],
//! the next peer that offered it is asked, without waiting for another offer. A peer that let that
//! time pass is *late* until it is the first to send a message that was requested from it: a
//! request to a late peer does not delay one to another peer. So peers that offer messages and send
//! none can delay a node once, not with each message.
//!
//! A late peer has not broken its promise yet. That is counted after [`PROMISE`] and lowers the
//! score (P7 of gossipsub 1.1), unless the message has arrived from another peer by then.
//!
//! A message that has arrived and that this node refuses keeps the promise as well, and is not
//! requested again as long as peers offer it.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use calimero_network_primitives::PeerId;

use super::outbox::MAX_IDS;
use crate::validate::Key;

/// Time in which a peer must send what it offered, the value of the specification.
const PROMISE: Duration = Duration::from_secs(3);

/// Time after which a message that has not arrived is requested from the next peer: 500 ms, more
/// than the round trip of 400 ms between opposite points of the earth over fibre.
const NEXT_REQUEST: Duration = Duration::from_millis(500);

/// Requests for one message after the first one, at most. Each may bring a copy, so over a link
/// that needs longer than [`NEXT_REQUEST`] a message may arrive four times.
const MAX_REQUESTS: usize = 3;

/// Messages that are requested from one peer and have not arrived, at most: as many as may be
/// requested from it in one heartbeat.
const MAX_OPEN: usize = MAX_IDS;

/// Peers that offer one message and were not asked yet, at most: the target size of a large mesh.
const MAX_OTHERS: usize = 8;

/// Messages that are wanted of all peers together, in number, above which each peer has an equal
/// share of [`SHARED_WANTED`]. At most twice as many: 300 bytes each.
const MAX_WANTED: usize = 65_536;

/// Messages of which each peer has an equal share where many are wanted. A quarter, so that
/// hundreds of peers get their share below the bound of twice [`MAX_WANTED`].
const SHARED_WANTED: usize = MAX_WANTED / 4;

/// Messages that this node refuses and does not request again, at most: 1 MiB of keys and times.
const MAX_REFUSED: usize = 16_384;

/// Promises of one peer that were settled in a heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// Messages that the peer did not send in time.
    pub(super) broken: usize,
    /// Messages that the peer has sent.
    pub(super) kept: usize,
}

/// A message that was offered and has not arrived.
#[derive(Debug)]
struct Wanted {
    id: Bytes,
    /// Peers that were asked, and when.
    asked: Vec<(PeerId, Instant)>,
    /// Peers that offer it as well, in the order of their offers.
    others: Vec<PeerId>,
    /// Time at which the next of these is asked, or the asked ones are marked as late. `None` if
    /// nothing remains to be done.
    next_at: Option<Instant>,
}

impl Wanted {
    /// Remembers a peer that offers the message as well. If there are too many, one that answers
    /// takes the place of one that is late.
    fn remember(&mut self, peer: PeerId, late: &HashSet<PeerId>) {
        if self.others.contains(&peer) {
            return;
        }
        if self.others.len() < MAX_OTHERS {
            self.others.push(peer);
        } else if !late.contains(&peer)
            && let Some(replaced) = self.others.iter_mut().find(|other| late.contains(other))
        {
            *replaced = peer;
        }
    }

    /// Removes and returns the next peer to ask: the first that is not late, or the first.
    fn take_next(&mut self, late: &HashSet<PeerId>) -> Option<PeerId> {
        let index = self.others.iter().position(|peer| !late.contains(peer));
        (!self.others.is_empty()).then(|| self.others.remove(index.unwrap_or(0)))
    }
}

/// Messages that were requested after an offer.
///
/// Each message was requested from a peer, and [`MAX_OPEN`] bounds those of one peer.
#[derive(Debug, Default)]
pub(super) struct Promises {
    wanted: HashMap<Key, Wanted>,
    /// Number of the messages that are requested from each peer and have not arrived.
    open: HashMap<PeerId, usize>,
    /// When to look at a message again, in order of time. An entry is stale if the message has
    /// arrived, or has another time.
    due: VecDeque<(Instant, Key)>,
    /// Connected peers that did not send what was requested last.
    late: HashSet<PeerId>,
    /// Promises that each peer has kept since the last heartbeat.
    kept: HashMap<PeerId, usize>,
    /// Messages that are not requested, and until when, the oldest in front of the queue.
    refused: HashSet<Key>,
    refused_until: VecDeque<(Instant, Key)>,
}

impl Promises {
    /// A peer offers a message that this node does not have. Returns `true` if the message is to be
    /// requested from it now, and remembers that it is. Else the peer may be asked later.
    pub(super) fn add(&mut self, key: Key, id: &Bytes, peer: PeerId, now: Instant) -> bool {
        if self.open(&peer) >= self.max_open() || self.refused.contains(&key) {
            return false;
        }
        let wanted = self.wanted.entry(key).or_insert_with(|| Wanted {
            // Copied, because it keeps the RPC in memory that it arrived in.
            id: Bytes::copy_from_slice(id),
            // Most messages are requested once.
            asked: Vec::with_capacity(1),
            others: Vec::new(),
            next_at: None,
        });
        if wanted.asked.iter().any(|(asked, _)| *asked == peer) {
            return false;
        }
        let is_late = |peer: &PeerId| self.late.contains(peer);
        let are_late = wanted.asked.iter().all(|(asked, _)| is_late(asked));
        let may_ask = are_late && !is_late(&peer) && wanted.asked.len() <= MAX_REQUESTS;
        if !wanted.asked.is_empty() && !may_ask {
            wanted.remember(peer, &self.late);
            if wanted.next_at.is_none() {
                self.look_again(key, now);
            }
            return false;
        }
        wanted.others.retain(|other| *other != peer);
        wanted.asked.push((peer, now));
        *self.open.entry(peer).or_default() += 1;
        self.look_again(key, now);
        true
    }

    /// Messages that may be requested from one peer now.
    fn max_open(&self) -> usize {
        match self.wanted.len() {
            0..MAX_WANTED => MAX_OPEN,
            number if number < 2 * MAX_WANTED => {
                MAX_OPEN.min(SHARED_WANTED / (self.open.len() + 1))
            }
            _ => 0,
        }
    }

    /// Returns the number of messages that are requested from `peer` and have not arrived.
    pub(super) fn open(&self, peer: &PeerId) -> usize {
        self.open.get(peer).copied().unwrap_or(0)
    }

    fn look_again(&mut self, key: Key, now: Instant) {
        if let Some(wanted) = self.wanted.get_mut(&key) {
            let at = now + NEXT_REQUEST;
            wanted.next_at = Some(at);
            self.due.push_back((at, key));
        }
    }

    /// When [`next_requests`](Self::next_requests) has something to do.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.due.front().map(|(at, _)| *at)
    }

    fn pop_due(&mut self, now: Instant) -> Option<(Instant, Key)> {
        let is_due = self.next_timeout().is_some_and(|at| at <= now);
        is_due.then(|| self.due.pop_front()).flatten()
    }

    /// Peers that are to be asked now for a message that another peer has not sent, and its id.
    /// Peers that `may_ask` excludes are not asked for that message any more.
    pub(super) fn next_requests(
        &mut self,
        now: Instant,
        mut may_ask: impl FnMut(&PeerId) -> bool,
    ) -> Vec<(PeerId, Bytes)> {
        let mut requests = Vec::new();
        while let Some((at, key)) = self.pop_due(now) {
            let wanted = self.wanted.get_mut(&key);
            let Some(wanted) = wanted.filter(|wanted| wanted.next_at == Some(at)) else {
                continue;
            };
            let before = wanted.asked.len();
            let overdue = wanted
                .asked
                .iter()
                .filter(|(_, at)| *at + NEXT_REQUEST <= now);
            self.late.extend(overdue.map(|(peer, _)| *peer));
            while wanted.asked.len() <= MAX_REQUESTS
                && let Some(peer) = wanted.take_next(&self.late)
            {
                let open = self.open.get(&peer).copied().unwrap_or(0);
                if open < MAX_OPEN && may_ask(&peer) {
                    self.open.insert(peer, open + 1);
                    wanted.asked.push((peer, now));
                    requests.push((peer, wanted.id.clone()));
                    break;
                }
            }
            // Again and again, until those that were asked have broken their promises.
            if wanted.asked.is_empty() {
                self.wanted.remove(&key);
            } else if wanted.asked.len() > before || !wanted.others.is_empty() {
                self.look_again(key, now);
            } else {
                wanted.next_at = None;
            }
        }
        requests
    }

    /// A peer has sent a message.
    pub(super) fn fulfilled(&mut self, key: Key, from: &PeerId) {
        if self.wanted.is_empty() {
            return;
        }
        let asked = self.wanted.remove(&key).map_or(Vec::new(), |it| it.asked);
        for (peer, _) in asked {
            if peer == *from {
                self.late.remove(from);
                *self.kept.entry(peer).or_default() += 1;
            }
            close(&mut self.open, &peer);
        }
        while let Some((_, key)) = self.due.front()
            && !self.wanted.contains_key(key)
        {
            self.due.pop_front();
        }
    }

    /// Returns `true` if the message was requested from `peer` and has not arrived.
    pub(super) fn is_asked(&self, key: Key, peer: &PeerId) -> bool {
        let wanted = self.wanted.get(&key);
        wanted.is_some_and(|wanted| wanted.asked.iter().any(|(asked, _)| asked == peer))
    }

    /// A peer has sent a message that is valid, and that this node refuses. It is not requested
    /// again until `until`.
    pub(super) fn refused(&mut self, key: Key, from: &PeerId, until: Instant) {
        self.fulfilled(key, from);
        if self.refused.insert(key) {
            self.refused_until.push_back((until, key));
        }
        if self.refused_until.len() > MAX_REFUSED
            && let Some((_, oldest)) = self.refused_until.pop_front()
        {
            self.refused.remove(&oldest);
        }
    }

    /// Peers that have not sent what they offered, or have, since the last heartbeat. Ones that are
    /// disconnected are not blamed.
    pub(super) fn settle(&mut self, now: Instant) -> BTreeMap<PeerId, Settled> {
        let mut settled: BTreeMap<PeerId, Settled> = BTreeMap::new();
        for (peer, kept) in self.kept.drain() {
            settled.entry(peer).or_default().kept = kept;
        }
        self.wanted.retain(|_, wanted| {
            wanted.asked.retain(|(peer, at)| {
                let is_broken = *at + PROMISE <= now;
                if is_broken {
                    close(&mut self.open, peer);
                    settled.entry(*peer).or_default().broken += 1;
                }
                !is_broken
            });
            !wanted.asked.is_empty() || !wanted.others.is_empty()
        });
        while let Some((until, key)) = self.refused_until.front()
            && *until <= now
        {
            self.refused.remove(key);
            self.refused_until.pop_front();
        }
        settled
    }

    /// A connection with a peer failed, and there is another one: requests or what was sent because
    /// of them may be lost. The peer is asked again, and has not broken its promises.
    pub(super) fn ask_again(&mut self, peer: PeerId, now: Instant) {
        let asked = self.open.remove(&peer).unwrap_or(0);
        if asked == 0 {
            return;
        }
        let mut unasked = Vec::new();
        for (key, wanted) in &mut self.wanted {
            let at = wanted.asked.iter().position(|(id, _)| *id == peer);
            let Some(at) = at.map(|index| wanted.asked.remove(index).1) else {
                continue;
            };
            wanted.others.insert(0, peer);
            wanted.others.truncate(MAX_OTHERS);
            if wanted.asked.is_empty() {
                wanted.next_at = Some(now);
                unasked.push((at, *key));
            } else if wanted.next_at.is_none() {
                wanted.next_at = Some(now + NEXT_REQUEST);
                self.due.push_back((now + NEXT_REQUEST, *key));
            }
        }
        // In the order in which they were asked for, the earliest in front.
        unasked.sort_by_key(|(at, _)| *at);
        for (_, key) in unasked.into_iter().rev() {
            self.due.push_front((now, key));
        }
    }

    /// A peer is disconnected. The next peers are asked at once for what only this peer was asked
    /// for.
    pub(super) fn forget(&mut self, peer: &PeerId, now: Instant) {
        self.late.remove(peer);
        self.open.remove(peer);
        self.kept.remove(peer);
        let mut unasked = HashSet::new();
        self.wanted.retain(|key, wanted| {
            let before = wanted.asked.len();
            wanted.asked.retain(|(id, _)| id != peer);
            wanted.others.retain(|id| id != peer);
            if wanted.asked.is_empty() && before > 0 && !wanted.others.is_empty() {
                unasked.insert(*key);
            }
            !wanted.asked.is_empty() || !wanted.others.is_empty()
        });
        if unasked.is_empty() {
            return;
        }
        // In the order in which they were to be looked at, the earliest in front.
        let due = self.due.iter().map(|(_, key)| *key);
        let ordered: Vec<_> = due.filter(|key| unasked.remove(key)).collect();
        for key in ordered.into_iter().rev() {
            if let Some(wanted) = self.wanted.get_mut(&key) {
                wanted.next_at = Some(now);
                self.due.push_front((now, key));
            }
        }
    }
}

/// A message that was requested from `peer` is not awaited from it any more.
fn close(open: &mut HashMap<PeerId, usize>, peer: &PeerId) {
    if let Some(left) = open.get_mut(peer) {
        *left = left.saturating_sub(1);
        if *left == 0 {
            open.remove(peer);
        }
    }
}

#[cfg(test)]
mod tests;
