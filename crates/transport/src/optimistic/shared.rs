//! State that the streams of one connection share.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

use futures::task::AtomicWaker;

use super::unanswered::Dropped;

/// Number of protocols of a connection that are answered locally, 64. A node of this workspace
/// supports about 20.
pub(super) const MAX_PROTOCOLS: usize = 64;

/// Number of streams of a connection whose answer was not read, 128: as many as a listener with
/// libp2p-swarm negotiates at one time by default. Further streams wait for the answer of the peer.
pub(super) const MAX_UNANSWERED: usize = 128;

/// Time for which an answer may be missing while further streams are opened without waiting, 2 s:
/// longer than a round trip of almost all paths.
pub(super) const OVERDUE: Duration = Duration::from_secs(2);

/// State of one connection.
#[derive(Debug)]
pub(super) struct Shared<S> {
    confirmed: Mutex<Confirmed>,
    /// Number of streams whose answer was not read.
    unanswered: AtomicUsize,
    /// When the last answer was read, or the oldest missing one became so.
    owed_since: Mutex<Instant>,
    /// Streams that were dropped before their answer was read; `None` once the connection has
    /// ended.
    dropped: Mutex<Option<Vec<Dropped<S>>>>,
    /// Waker of the connection.
    waker: AtomicWaker,
}

impl<S> Default for Shared<S> {
    fn default() -> Self {
        Self {
            confirmed: Mutex::default(),
            unanswered: AtomicUsize::new(0),
            owed_since: Mutex::new(Instant::now()),
            dropped: Mutex::new(Some(Vec::new())),
            waker: AtomicWaker::new(),
        }
    }
}

impl<S> Shared<S> {
    /// Returns the line and a permit, if the peer has confirmed the protocol of `line` before, few
    /// answers are missing, and none for long.
    pub(super) fn expect(self: &Arc<Self>, line: &[u8]) -> Option<(Arc<[u8]>, Permit<S>)> {
        let line = lock(&self.confirmed).get(line)?;
        let mut owed_since = lock(&self.owed_since);
        if self.unanswered.load(Ordering::Acquire) == 0 {
            *owed_since = Instant::now();
        } else if owed_since.elapsed() > OVERDUE {
            return None;
        }
        self.unanswered
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
                (count < MAX_UNANSWERED).then_some(count + 1)
            })
            .ok()?;
        Some((line, Permit(Arc::clone(self))))
    }

    /// The answer to a stream was read.
    pub(super) fn answered(&self) {
        *lock(&self.owed_since) = Instant::now();
    }

    /// The peer has confirmed the protocol of `line`.
    pub(super) fn confirm(&self, line: &[u8]) {
        self.answered();
        lock(&self.confirmed).insert(line);
    }

    /// The peer has not confirmed the protocol of `line`. The next stream waits for its answer.
    pub(super) fn withdraw(&self, line: &[u8]) {
        lock(&self.confirmed).remove(line);
    }

    /// Passes a dropped stream to the connection. It is dropped at once if that has ended.
    pub(super) fn hand_over(&self, stream: Dropped<S>) {
        let mut dropped = lock(&self.dropped);
        let Some(streams) = &mut *dropped else {
            drop(dropped);
            drop(stream);
            return;
        };
        streams.push(stream);
        drop(dropped);
        self.waker.wake();
    }

    /// Takes the streams that were passed since the last call.
    ///
    /// `waker` is woken at the next one.
    pub(super) fn take_dropped(&self, waker: &Waker) -> Vec<Dropped<S>> {
        self.waker.register(waker);
        let mut dropped = lock(&self.dropped);
        dropped.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The connection has ended.
    pub(super) fn end(&self) {
        let dropped = lock(&self.dropped).take();
        drop(dropped);
    }
}

#[cfg(test)]
impl<S> Shared<S> {
    /// Moves the time since which an answer is missing into the past.
    pub(super) fn owe_for(&self, time: Duration) {
        *lock(&self.owed_since) = Instant::now().checked_sub(time).unwrap();
    }

    pub(super) fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Acquire)
    }

    pub(super) fn is_confirmed(&self, line: &[u8]) -> bool {
        lock(&self.confirmed).get(line).is_some()
    }
}

/// A permit for a stream whose answer was not read, released on drop.
#[derive(Debug)]
pub(super) struct Permit<S>(Arc<Shared<S>>);

impl<S> Permit<S> {
    pub(super) fn shared(&self) -> &Arc<Shared<S>> {
        &self.0
    }
}

impl<S> Drop for Permit<S> {
    fn drop(&mut self) {
        self.0.unanswered.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The lines of protocols that the peer has confirmed. The first [`MAX_PROTOCOLS`] stay.
#[derive(Debug, Default)]
struct Confirmed(Vec<Arc<[u8]>>);

impl Confirmed {
    fn get(&self, line: &[u8]) -> Option<Arc<[u8]>> {
        self.0.iter().find(|known| ***known == *line).cloned()
    }

    fn insert(&mut self, line: &[u8]) {
        if self.0.len() < MAX_PROTOCOLS && self.get(line).is_none() {
            self.0.push(line.into());
        }
    }

    fn remove(&mut self, line: &[u8]) {
        self.0.retain(|known| **known != *line);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks, so a poisoned lock has consistent data.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
