//! What waits to be written to one peer, as far as that can be known.
//!
//! Gossipsub 0.50 holds a queue for each peer, which its behaviour fills and its connection
//! handler empties, and shows neither its length nor that it is full. What can be seen from outside
//! is whether it is empty: a handler that has nothing to do keeps no waker of a second poll, one
//! that waits for its stream keeps it. So what was handed over is counted, and the count starts anew
//! whenever the queue was found empty. It is never less than what is in the queue.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use crate::config::Config;

/// How much may wait for one peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct LineLimits {
    /// Messages from which on own ones are held back.
    pub(super) window_messages: usize,
    /// The same in bytes of payload.
    pub(super) window_bytes: usize,
    /// Messages from which on no more are taken in to be forwarded.
    pub(super) crowd_messages: usize,
    /// The same in bytes of payload.
    pub(super) crowd_bytes: usize,
    /// Bytes of payload at which the peer is closed.
    pub(super) most_bytes: usize,
}

impl LineLimits {
    /// What is forwarded goes beyond the window, to a half of what there may be at most: whoever
    /// publishes waits before those whose messages are under way.
    pub(super) fn new(config: &Config) -> Self {
        let peers = &config.peers;
        Self {
            window_messages: peers.window,
            window_bytes: peers.window_bytes,
            crowd_messages: peers.window.max(peers.queue / 2),
            crowd_bytes: peers.window_bytes.max(peers.queue_bytes / 2),
            most_bytes: peers.queue_bytes,
        }
    }
}

/// What a peer's connections and the behaviour know of its queue.
#[derive(Debug)]
pub struct Line {
    limits: LineLimits,
    messages: AtomicUsize,
    bytes: AtomicUsize,
    /// The behaviour waits to be told that the queue is empty.
    awaited: AtomicBool,
}

impl Line {
    pub(super) fn new(limits: LineLimits) -> Self {
        Self {
            limits,
            messages: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            awaited: AtomicBool::new(false),
        }
    }

    /// A message is about to be put into the queue. `true` where the connection should look
    /// whether those before it have been written.
    pub(super) fn hand(&self, bytes: usize) -> bool {
        let was_due = self.is_due();
        self.messages.fetch_add(1, SeqCst);
        self.bytes.fetch_add(bytes, SeqCst);
        !was_due && self.is_due()
    }

    /// Whether nothing was handed over since the queue was found empty.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.load(SeqCst) == 0
    }

    /// Whether own messages must wait.
    pub(super) fn is_full(&self) -> bool {
        self.holds(self.limits.window_messages, self.limits.window_bytes)
    }

    /// Whether messages of others must wait.
    pub(super) fn is_crowded(&self) -> bool {
        self.holds(self.limits.crowd_messages, self.limits.crowd_bytes)
    }

    /// Whether the peer must be closed.
    pub(super) fn is_over(&self) -> bool {
        self.bytes.load(SeqCst) > self.limits.most_bytes
    }

    /// Asks to be told once the queue is empty. `false` where that was asked before.
    pub(super) fn await_empty(&self) -> bool {
        !self.awaited.swap(true, SeqCst)
    }

    /// Enough has been counted that looking pays.
    fn is_due(&self) -> bool {
        let LineLimits {
            window_messages,
            window_bytes,
            ..
        } = self.limits;
        self.holds(window_messages.div_ceil(4), window_bytes.div_ceil(4))
    }

    fn holds(&self, messages: usize, bytes: usize) -> bool {
        self.messages.load(SeqCst) >= messages || self.bytes.load(SeqCst) >= bytes
    }

    /// Looks whether the queue is empty, if that is worth it. To be called where `poll` of a
    /// handler that has a stream to write to has just returned [`Poll::Pending`]; what it returns
    /// now comes out.
    pub(super) fn look<T>(
        &self,
        cx: &Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Looked<T> {
        if !self.awaited.load(SeqCst) && !self.is_due() {
            return Looked::Nothing;
        }
        // What is added from here on may stay counted.
        let (messages, bytes) = (self.messages.load(SeqCst), self.bytes.load(SeqCst));
        // Something may be added between two polls, which then leaves a waker as well.
        for _ in 0..2 {
            let probe = Arc::new(Probe(cx.waker().clone()));
            let waker = Waker::from(Arc::clone(&probe));
            if let Poll::Ready(result) = poll(&mut Context::from_waker(&waker)) {
                return Looked::Ready(result);
            }
            drop(waker);
            if Arc::strong_count(&probe) == 1 {
                reduce(&self.messages, messages);
                reduce(&self.bytes, bytes);
                if self.awaited.swap(false, SeqCst) {
                    return Looked::Empty;
                }
                return Looked::Nothing;
            }
        }
        Looked::Nothing
    }
}

/// Two connections of one peer may find its queue empty at one time.
fn reduce(counter: &AtomicUsize, by: usize) {
    let _ = counter.fetch_update(SeqCst, SeqCst, |count| Some(count.saturating_sub(by)));
}

/// What came of looking.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Looked<T> {
    /// The handler has done something.
    Ready(T),
    /// The queue is empty, and somebody waits to hear it.
    Empty,
    /// Nothing that anybody need know.
    Nothing,
}

/// A waker of which it is known whether anybody has kept it.
struct Probe(Waker);

impl Wake for Probe {
    fn wake(self: Arc<Self>) {
        self.0.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const LIMITS: LineLimits = LineLimits {
        window_messages: 4,
        window_bytes: 1000,
        crowd_messages: 8,
        crowd_bytes: 4000,
        most_bytes: 8000,
    };

    fn look<T>(line: &Line, poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Looked<T> {
        line.look(&Context::from_waker(Waker::noop()), poll)
    }

    #[test]
    fn a_handler_that_keeps_no_waker_has_an_empty_queue() {
        let line = Line::new(LIMITS);
        assert!(line.hand(1));
        assert!((1..4).all(|_| !line.hand(1)));
        assert!(line.is_full() && !line.is_crowded());
        let mut kept = None;
        let blocked = look::<Infallible>(&line, |cx| {
            kept = Some(cx.waker().clone());
            Poll::Pending
        });
        assert_eq!(blocked, Looked::Nothing);
        assert!(line.is_full());
        assert!(line.await_empty() && !line.await_empty());
        assert_eq!(look::<Infallible>(&line, |_| Poll::Pending), Looked::Empty);
        assert!(!line.is_full());
        // Told once.
        line.hand(1000);
        let idle = look::<Infallible>(&line, |_| Poll::Pending);
        assert_eq!(idle, Looked::Nothing);
        assert!(!line.is_full());
    }

    #[test]
    fn one_that_was_filled_between_two_polls_is_looked_at_again() {
        let line = Line::new(LIMITS);
        line.hand(1000);
        let (mut kept, mut polls) = (None, 0);
        let looked = look::<Infallible>(&line, |cx| {
            polls += 1;
            kept.get_or_insert_with(|| cx.waker().clone());
            Poll::Pending
        });
        assert_eq!((looked, polls), (Looked::Nothing, 2));
        assert!(!line.is_full());
    }

    #[test]
    fn what_a_handler_does_meanwhile_comes_out_and_bytes_count() {
        let line = Line::new(LIMITS);
        line.hand(8001);
        assert!(line.is_full() && line.is_crowded() && line.is_over());
        assert_eq!(look(&line, |_| Poll::Ready(7)), Looked::Ready(7));
        assert!(line.is_full());
    }
}
