//! Which requester an upload limit is given to next. Pure: time is the distance from any fixed
//! point.
//!
//! Turns are granted in order: protected peers and all others take turns, then origins, then the
//! peers of an origin, each in the order in which it came. A requester that is asked to try again
//! later keeps its position. It does not keep a turn from the others: one that does not return in
//! time is passed over until it does. Where all turns are taken by requesters that are too slow to
//! use the limit, more are granted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use calimero_network_primitives::{BlobId, PeerId, resources::Origin};

/// Requesters that wait, at most: 1,024. One more takes the position of one that is not back in
/// time, or of the last one of an origin with more of them, or gets none.
const MAX_WAITING: usize = 1024;

/// Blobs of one requester that are remembered as asked for again later, at most: 64, more than its
/// transfers at one time.
const MAX_AWAY: usize = 64;

/// Streams of one requester that wait at one time, at most: 64. Each looks at the queue whenever a
/// turn ends.
const MAX_STREAMS: usize = 64;

/// Time after which a requester asks again, however long it has to wait: 30 s. Requesters of older
/// versions wait for the time in the answer, at most 60 s.
pub(super) const RETURN_MAX: Duration = Duration::from_secs(30);

/// Time by which a requester may be late: 5 s, for the round trips of a new stream.
const LATE: Duration = Duration::from_secs(5);

/// Time for which the position of a requester is kept beyond that: 2 min, the longest pause of
/// older requesters twice.
const KEPT: Duration = Duration::from_secs(120);

/// Time for which a free turn is kept for requesters that are expected: 2 s. A turn at the lowest
/// limit takes 16 s, so at most an eighth of it is lost where no other turn uses the limit.
const HOLD: Duration = Duration::from_secs(2);

/// Span over which the use of the limit is measured: 4 s. Half of [`HOLD`] and less is lost in it
/// where requesters are fast.
const SPAN: Duration = Duration::from_secs(4);

/// Weight of the newest turn in the length of a turn, one in this many.
const SMOOTHING: u32 = 4;

/// A peer that asks, as its connection shows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking {
    pub(crate) peer: PeerId,
    pub(crate) origin: Option<Origin>,
    /// Whether it has a share that strangers cannot take: a configured peer, a boot node or a
    /// member.
    pub(crate) protected: bool,
}

/// The requesters that take turns with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Origin(Origin),
    /// A peer whose origin is not known.
    Peer(PeerId),
}

#[derive(Debug)]
struct Waiting {
    group: Group,
    protected: bool,
    /// Orders the peers of a group.
    number: u64,
    /// Streams of the peer that wait.
    streams: usize,
    /// What it was asked to request again later, and when that is not expected any more.
    away: BTreeMap<BlobId, Duration>,
    /// When its position is given up.
    kept: Duration,
}

impl Waiting {
    fn counts(&self, now: Duration) -> bool {
        self.streams > 0 || self.away.values().any(|expected| now < *expected)
    }

    /// Turns that it wants.
    fn wanted(&self, now: Duration) -> usize {
        let away = self.away.values().filter(|expected| now < **expected);
        self.streams + away.count()
    }
}

/// The answer to a stream that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The turn of this number began.
    Granted(u64),
    /// A turn is free, and kept for others until then.
    Held { until: Duration },
    /// The turn is expected after some time.
    Later { after: Duration },
}

/// Turns that are granted beyond those of a limit while it is not used, for all of its queues: each
/// of them measures the same unused time. Clones share what is left.
#[derive(Clone, Debug)]
pub(super) struct Extra(Arc<AtomicUsize>);

impl Extra {
    pub(super) fn new(turns: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(turns)))
    }

    fn take(&self) -> bool {
        let less = |left: usize| left.checked_sub(1);
        let taken = (self.0).fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.is_ok()
    }

    fn give_back(&self, turns: usize) {
        self.0.fetch_add(turns, Ordering::Relaxed);
    }
}

/// The turns under one limit, and who waits for one.
#[derive(Debug)]
pub(super) struct TurnQueue {
    max_active: usize,
    /// Turns beyond that while the limit is not used, and what is left of them.
    extra: usize,
    extra_left: Extra,
    /// Begin of the span over which the use of the limit is measured, and the unused time until
    /// then.
    measured: (Duration, Duration),
    /// Smoothed length of a turn. `None` where turns differ too much.
    length: Option<Duration>,
    /// When each turn began, by its number.
    active: BTreeMap<u64, Duration>,
    waiting: BTreeMap<PeerId, Waiting>,
    /// Orders the groups: when each came, or had its last turn.
    groups: BTreeMap<Group, u64>,
    /// Whether the last turn was that of a protected peer.
    last_protected: bool,
    next: u64,
    /// When the last turn ended.
    free_since: Duration,
}

impl TurnQueue {
    /// Returns a queue of turns of an expected `length` while all are taken.
    pub(super) fn new(max_active: usize, length: Option<Duration>, extra: &Extra) -> Self {
        Self {
            max_active: max_active.max(1),
            extra: 0,
            extra_left: extra.clone(),
            measured: (Duration::ZERO, Duration::ZERO),
            length,
            active: BTreeMap::new(),
            waiting: BTreeMap::new(),
            groups: BTreeMap::new(),
            last_protected: false,
            next: 0,
            free_since: Duration::ZERO,
        }
    }

    /// Notes a stream that waits from now on, to send something of a blob. Returns `false`, and
    /// notes nothing, where too many streams of the peer wait.
    pub(super) fn join(&mut self, asking: Asking, blob: &BlobId, now: Duration) -> bool {
        let Asking {
            peer,
            origin,
            protected,
        } = asking;
        self.expire(now);
        if let Some(waiting) = self.waiting.get_mut(&peer) {
            if waiting.streams >= MAX_STREAMS {
                return false;
            }
            waiting.streams += 1;
            waiting.protected = protected;
            waiting.away.remove(blob);
            return true;
        }
        let group = origin.map_or(Group::Peer(peer), Group::Origin);
        if self.waiting.len() >= MAX_WAITING && !self.make_space(group, protected, now) {
            return true;
        }
        let number = self.number();
        self.groups.entry(group).or_insert(number);
        let waiting = Waiting {
            group,
            protected,
            number,
            streams: 1,
            away: BTreeMap::new(),
            kept: now,
        };
        self.waiting.insert(peer, waiting);
        true
    }

    /// Takes the time since the beginning in which the limit was not used. Where a fifth of a span
    /// was unused while all turns were taken, and at least 5/8 of the share of a turn, another turn
    /// is allowed. Where a twentieth or less was unused, one is taken back.
    pub(super) fn measure(&mut self, unused: Duration, now: Duration) {
        self.give_extra_back();
        if self.active.len() < self.max_active + self.extra {
            self.measured = (now, unused);
            return;
        }
        let (since, before) = self.measured;
        let (span, unused_in_it) = (now.saturating_sub(since), unused.saturating_sub(before));
        if span < SPAN {
            return;
        }
        self.measured = (now, unused);
        let active = u32::try_from(self.max_active).unwrap_or(u32::MAX);
        if unused_in_it > (span / 5).max(span * 5 / 8 / active) {
            self.extra += usize::from(self.extra_left.take());
        } else if unused_in_it <= span / 20 && self.extra > 0 {
            self.extra -= 1;
            self.extra_left.give_back(1);
        }
    }

    /// Gives back the turns beyond those of the limit where these are not all taken.
    fn give_extra_back(&mut self) {
        if self.active.len() < self.max_active {
            self.extra_left.give_back(std::mem::take(&mut self.extra));
        }
    }

    fn free(&self) -> usize {
        (self.max_active + self.extra).saturating_sub(self.active.len())
    }

    /// Whether a turn is free.
    pub(super) fn has_free(&self) -> bool {
        self.free() > 0
    }

    /// Returns when the use of the limit is to be measured again.
    pub(super) fn next_measure(&self) -> Duration {
        self.measured.0 + SPAN
    }

    /// Begins the turn of a stream that waits, if it is the next one.
    pub(super) fn poll(&mut self, peer: &PeerId, now: Duration) -> Answer {
        let order = self.order();
        let before = order.iter().take_while(|other| *other != peer);
        let before: Vec<PeerId> = before.copied().collect();
        let here = |other: &&PeerId| self.waiting.get(other).is_some_and(|one| one.streams > 0);
        let counts = |other: &&PeerId| self.waiting.get(other).is_some_and(|one| one.counts(now));
        let present = before.iter().filter(here).count();
        let ahead = before.iter().filter(counts).count();
        let free = self.free();
        // One without a position is behind all others, and not behind those that are not here.
        if present >= free {
            // The other streams of the peer have their turns in the same round, or in later ones.
            let own = self.waiting.get(peer);
            let others = own.map_or(0, |own| own.wanted(now).saturating_sub(1));
            let ahead = ahead.saturating_add(others.saturating_mul(order.len()));
            return Answer::Later {
                after: self.estimate(ahead, free, now),
            };
        }
        let until = self.free_since + HOLD;
        if ahead >= free && now < until {
            return Answer::Held { until };
        }
        for other in before {
            if let Some(absent) = self.waiting.get_mut(&other) {
                absent
                    .away
                    .values_mut()
                    .for_each(|expected| *expected = now.min(*expected));
            }
        }
        self.grant(peer, now)
    }

    /// Notes that a stream does not wait any more. With `retry_after`, its peer was asked to try
    /// the blob again after that time, and keeps its position.
    pub(super) fn leave(
        &mut self,
        peer: &PeerId,
        blob: &BlobId,
        retry_after: Option<Duration>,
        now: Duration,
    ) {
        let Some(waiting) = self.waiting.get_mut(peer) else {
            return;
        };
        waiting.streams = waiting.streams.saturating_sub(1);
        if let Some(after) = retry_after {
            let expected = now + after.min(RETURN_MAX) + LATE;
            waiting.kept = expected + KEPT;
            waiting.away.retain(|_, expected| now < *expected);
            if waiting.away.len() < MAX_AWAY {
                waiting.away.insert(*blob, expected);
            }
        }
        if waiting.streams == 0 && now >= waiting.kept {
            self.waiting.remove(peer);
            self.drop_groups();
        }
    }

    /// Whether a requester waits for a turn, or is expected to.
    pub(super) fn is_contended(&self, now: Duration) -> bool {
        self.waiting.values().any(|one| one.counts(now))
    }

    /// Begins a turn again that no other requester waits for.
    pub(super) fn renew(&mut self, turn: u64, now: Duration) {
        self.active.insert(turn, now);
    }

    /// Ends a turn. `whole`: as much was sent as a turn allows.
    pub(super) fn release(&mut self, turn: u64, whole: bool, now: Duration) {
        let began = self.active.remove(&turn);
        self.free_since = now;
        self.give_extra_back();
        if let (Some(began), Some(length), true) = (began, &mut self.length, whole) {
            let took = now.saturating_sub(began);
            *length = *length - *length / SMOOTHING + took / SMOOTHING;
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn grant(&mut self, peer: &PeerId, now: Duration) -> Answer {
        let number = self.number();
        if let Some(waiting) = self.waiting.get_mut(peer) {
            waiting.streams = waiting.streams.saturating_sub(1);
            waiting.number = number;
            self.last_protected = waiting.protected;
            self.groups.insert(waiting.group, number);
            if waiting.streams == 0 && !waiting.counts(now) {
                self.waiting.remove(peer);
                self.drop_groups();
            }
        }
        self.active.insert(number, now);
        Answer::Granted(number)
    }

    /// The peers that wait, in the order of their turns.
    fn order(&self) -> Vec<PeerId> {
        let mut first = self.order_of(!self.last_protected).into_iter();
        let mut second = self.order_of(self.last_protected).into_iter();
        let mut order = Vec::with_capacity(self.waiting.len());
        while order.len() < self.waiting.len() {
            order.extend(first.next());
            order.extend(second.next());
        }
        order
    }

    /// The order of the protected peers, or of all others.
    fn order_of(&self, protected: bool) -> Vec<PeerId> {
        let mut peers: BTreeMap<Group, Vec<(u64, PeerId)>> = BTreeMap::new();
        let waiting = (self.waiting.iter()).filter(|(_, one)| one.protected == protected);
        for (peer, waiting) in waiting {
            let group = peers.entry(waiting.group).or_default();
            group.push((waiting.number, *peer));
        }
        let mut order = Vec::new();
        for (group, mut peers) in peers {
            peers.sort_unstable();
            let of_group = self.groups.get(&group).copied().unwrap_or_default();
            let peers = peers.into_iter().enumerate();
            order.extend(peers.map(|(at, (_, peer))| (at, of_group, peer)));
        }
        order.sort_unstable();
        order.into_iter().map(|(_, _, peer)| peer).collect()
    }

    /// Time until the turn of a requester behind `ahead` others.
    fn estimate(&self, ahead: usize, free: usize, now: Duration) -> Duration {
        let Some(length) = self.length else {
            return Duration::ZERO;
        };
        let took = (self.active.values()).map(|began| now.saturating_sub(*began));
        let took: Vec<Duration> = took.collect();
        // A turn that has taken longer than usual will take as much longer again. Not more: one that
        // ends soon must find the next requester here.
        let ends = took.iter().map(|took| length.abs_diff(*took));
        let mut ends: Vec<Duration> = ends.collect();
        // The turns that run show that turns are longer before the first of them ends.
        let count = u32::try_from(took.len()).unwrap_or(u32::MAX).max(1);
        let lengths = took.iter().map(|took| length.max(*took) / count);
        let length = lengths.sum::<Duration>().max(length);
        ends.extend(std::iter::repeat_n(
            Duration::ZERO,
            free.min(self.max_active),
        ));
        ends.sort_unstable();
        // Each turn that ends is the beginning of another one, so the ends recur.
        let rounds = ahead / ends.len().max(1);
        let first = ends.get(ahead % ends.len().max(1)).copied();
        let round = length.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX));
        first.unwrap_or_default().saturating_add(round)
    }

    /// Gives up the positions of requesters that have not returned.
    fn expire(&mut self, now: Duration) {
        let before = self.waiting.len();
        (self.waiting).retain(|_, waiting| waiting.streams > 0 || now < waiting.kept);
        if self.waiting.len() < before {
            self.drop_groups();
        }
    }

    fn drop_groups(&mut self) {
        let left: BTreeSet<Group> = self.waiting.values().map(|one| one.group).collect();
        self.groups.retain(|group, _| left.contains(group));
    }

    /// Gives up the oldest position of a requester that is not back in time. Otherwise the last
    /// one, if its group has more of them than `group` will have. That of a protected peer only for
    /// another one, where no other peer has a position.
    fn make_space(&mut self, group: Group, protected: bool, now: Duration) -> bool {
        let given_up = self.late(false, now).or_else(|| {
            let mut others = self.order_of(false);
            match others.pop() {
                Some(last) if protected => Some(last),
                Some(last) => self.has_fewer(group, last).then_some(last),
                None if protected => self.late(true, now).or_else(|| {
                    let last = self.order_of(true).pop()?;
                    self.has_fewer(group, last).then_some(last)
                }),
                None => None,
            }
        });
        if let Some(peer) = given_up {
            self.waiting.remove(&peer);
            self.drop_groups();
        }
        given_up.is_some()
    }

    /// The one that is late for the longest time.
    fn late(&self, protected: bool, now: Duration) -> Option<PeerId> {
        let late = self.waiting.iter();
        let late = late.filter(|(_, one)| one.protected == protected && !one.counts(now));
        late.min_by_key(|(_, one)| one.kept).map(|(peer, _)| *peer)
    }

    /// Whether a group has, with one more position, fewer of them than that of `last`.
    fn has_fewer(&self, group: Group, last: PeerId) -> bool {
        let count = |group| {
            self.waiting
                .values()
                .filter(|one| one.group == group)
                .count()
        };
        let of_last = self.waiting.get(&last).map(|one| one.group);
        of_last.is_some_and(|of_last| count(of_last) > count(group) + 1)
    }
}

#[cfg(test)]
mod tests;
