//! The queue between the actor and the reader of events.
//!
//! Messages are bounded in number and bytes, and the oldest are dropped. Every other event either
//! replaces an unread one about the same subject or is bounded by its emitter, so it always arrives,
//! and the number of unread events is bounded by what exists, however long the reader waits.

use std::{
    collections::HashSet,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    task::{Context, Poll},
};

use calimero_network_primitives::{PeerId, config::HandleConfig};
use calimero_network_pubsub::{EventQueue, Queued};
use futures::task::AtomicWaker;
use libp2p::swarm::ConnectionId;

use super::{Bounded, Class, GossipEvent, Key, NetworkEvent, Subject};
use crate::status::Shared;

/// Unread reports of refusals, each of another peer: 256, some tens of KiB. Peers cause them at
/// will, so further ones are added up in one event.
pub(super) const MAX_REPORTS: usize = 256;

/// Unread events of transfers and announcements: 1,024, at most two of a transfer.
#[cfg(feature = "blobs")]
pub(super) const MAX_TRANSFERS: usize = 1024;

/// The events that are unread, and the counts of those that have a bound of their own.
struct Waiting {
    queue: EventQueue<Key, (Bounded, NetworkEvent), NetworkEvent>,
    next_unique: u64,
    streams: usize,
    reports: usize,
    #[cfg(feature = "invites")]
    answers: usize,
    #[cfg(feature = "blobs")]
    transfers: usize,
    /// Open connections that a dial has returned.
    returned: HashSet<ConnectionId>,
    /// No sender is left.
    ended: bool,
    /// No reader is left.
    unread: bool,
}

/// What the two ends share.
struct Inbox {
    waiting: Mutex<Waiting>,
    reader: AtomicWaker,
    sender: AtomicWaker,
}

impl Inbox {
    /// The lock is held for the time of one push or pop, and nothing in there panics.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stream of events. After it is dropped, events are discarded.
///
/// Events come in the order in which they happened. The node never waits for the reader. The oldest
/// unread messages are dropped, and [`GossipEvent::Lagged`] carries their number. Inbound streams
/// wait in `streams.accept_queue`. Any other unread event is replaced by a newer one about the same
/// connection, peer or request.
pub struct Events {
    inbox: Arc<Inbox>,
}

impl Events {
    /// The next event, or `None` once the manager has stopped and all were read.
    ///
    /// Cancel safe: no event is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<NetworkEvent> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Receives the events that are unread, at most `limit` of them, and appends them to `buffer`.
    /// Waits for one if there is none.
    ///
    /// Returns the number of events that were added: 0 once the manager has stopped and all were
    /// read, or if `limit` is 0. One call locks the queue once for all of them. Memory for `limit`
    /// events is not reserved.
    ///
    /// Cancel safe: when the future is dropped before it has returned, no event was added to
    /// `buffer` and none is lost.
    pub async fn recv_many(&mut self, buffer: &mut Vec<NetworkEvent>, limit: usize) -> usize {
        if limit == 0 {
            return 0;
        }
        let mut many = |waiting: &mut Waiting| {
            let before = buffer.len();
            buffer.extend(std::iter::from_fn(|| waiting.pop()).take(limit));
            let added = buffer.len() - before;
            (added > 0).then_some(added)
        };
        let added = poll_fn(|cx| self.poll_take(cx, &mut many)).await;
        added.unwrap_or_default()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<NetworkEvent>> {
        self.poll_take(cx, Waiting::pop)
    }

    /// Returns what `take` finds, or `None` once the manager has stopped. Registers the task only if
    /// there is nothing to take.
    fn poll_take<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&mut Waiting) -> Option<T>,
    ) -> Poll<Option<T>> {
        for is_registered in [false, true] {
            if is_registered {
                self.inbox.reader.register(cx.waker());
            }
            // After the registration the queue is read again: an event that is pushed in between
            // wakes the task.
            let mut waiting = self.inbox.lock();
            let streams = waiting.streams;
            let taken = take(&mut waiting);
            let has_room = waiting.streams < streams;
            if taken.is_none() && !waiting.ended {
                continue;
            }
            drop(waiting);
            if has_room {
                self.inbox.sender.wake();
            }
            return Poll::Ready(taken);
        }
        Poll::Pending
    }
}

impl futures::Stream for Events {
    type Item = NetworkEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut waiting = self.inbox.lock();
        waiting.unread = true;
        // Unread streams and invite requests are released now, not when the manager stops.
        while waiting.pop().is_some() {}
        waiting.returned = HashSet::new();
        drop(waiting);
        self.inbox.sender.wake();
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

/// The sending end, which belongs to the actor. Sending never waits.
pub(crate) struct EventSender {
    inbox: Arc<Inbox>,
    max_streams: usize,
    shared: Arc<Shared>,
    /// The reader is woken by [`wake`](Self::wake), not by each event.
    delays_wake: bool,
}

impl EventSender {
    pub(crate) fn new(config: &HandleConfig, shared: Arc<Shared>) -> (Self, Events) {
        let inbox = Arc::new(Inbox {
            waiting: Mutex::new(Waiting {
                queue: EventQueue::new(config.event_queue, config.event_queue_bytes),
                next_unique: 0,
                streams: 0,
                reports: 0,
                #[cfg(feature = "invites")]
                answers: 0,
                #[cfg(feature = "blobs")]
                transfers: 0,
                returned: HashSet::new(),
                ended: false,
                unread: false,
            }),
            reader: AtomicWaker::new(),
            sender: AtomicWaker::new(),
        });
        let sender = Self {
            inbox: inbox.clone(),
            max_streams: config.event_queue,
            shared,
            delays_wake: false,
        };
        (sender, Events { inbox })
    }

    pub(crate) fn send(&mut self, event: impl Into<NetworkEvent>) {
        let mut waiting = self.inbox.lock();
        if waiting.unread {
            return;
        }
        waiting.push(event.into());
        let dropped = waiting.queue.missed_in_all();
        drop(waiting);
        self.shared.events_dropped.store(dropped, Ordering::Relaxed);
        if !self.delays_wake {
            self.inbox.reader.wake();
        }
    }

    /// A dial has returned this connection, so its end is reported even if its beginning is unread.
    pub(crate) fn returned(&mut self, connection: ConnectionId) {
        let mut waiting = self.inbox.lock();
        if !waiting.unread {
            waiting.returned.insert(connection);
        }
    }

    /// Delays the wake-up of the reader until [`wake`](Self::wake) is called, without an await in
    /// between: a reader that is woken for the first of many events competes for the lock with the
    /// others, and waits again after each.
    pub(crate) fn delay_wake(&mut self) {
        self.delays_wake = true;
    }

    /// Wakes the reader for the events that were sent since [`delay_wake`](Self::delay_wake).
    pub(crate) fn wake(&mut self) {
        self.delays_wake = false;
        self.inbox.reader.wake();
    }

    /// Waits until the queue takes another inbound stream.
    pub(crate) async fn stream_room(&self) {
        poll_fn(|cx| {
            self.inbox.sender.register(cx.waker());
            let waiting = self.inbox.lock();
            if waiting.streams < self.max_streams || waiting.unread {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Numbers of unread messages and of other unread events.
    #[cfg(feature = "metrics")]
    pub(crate) fn unread(&self) -> (usize, usize) {
        let waiting = self.inbox.lock();
        (waiting.queue.messages(), waiting.queue.controls())
    }

    /// Number of unread ends of invite requests of this node.
    #[cfg(feature = "invites")]
    pub(crate) fn unread_answers(&self) -> usize {
        self.inbox.lock().answers
    }
}

#[cfg(test)]
impl EventSender {
    /// Number of unread events that are not messages.
    pub(super) fn unread_events(&self) -> usize {
        self.inbox.lock().queue.controls()
    }
}

impl Drop for EventSender {
    fn drop(&mut self) {
        self.inbox.lock().ended = true;
        self.inbox.reader.wake();
    }
}

impl Waiting {
    fn count(&mut self, bounded: Bounded) -> Option<&mut usize> {
        match bounded {
            Bounded::Subjects => None,
            Bounded::Streams => Some(&mut self.streams),
            #[cfg(feature = "invites")]
            Bounded::Answers => Some(&mut self.answers),
            Bounded::Reports => Some(&mut self.reports),
            #[cfg(feature = "blobs")]
            Bounded::Transfers => Some(&mut self.transfers),
        }
    }

    /// An event is about to leave the queue.
    fn release(&mut self, (bounded, event): (Bounded, NetworkEvent)) -> NetworkEvent {
        if let Some(count) = self.count(bounded) {
            *count -= 1;
        }
        event
    }

    fn pop(&mut self) -> Option<NetworkEvent> {
        Some(match self.queue.pop()? {
            Queued::Message(event) => event,
            Queued::Control(control) => self.release(control),
            Queued::Lagged { missed } => GossipEvent::Lagged { missed }.into(),
        })
    }

    fn push(&mut self, mut event: NetworkEvent) {
        let (key, bounded) = match event.class(&mut Unread(self)) {
            Class::Message { bytes } => return self.queue.push_message(event, bytes),
            Class::Missed { messages } => return self.queue.miss(messages),
            Class::Void => return,
            Class::State(key) => (key, Bounded::Subjects),
            Class::Report(key) => (key, Bounded::Reports),
            Class::Control(bounded) => {
                self.next_unique += 1;
                let subject = Subject::Unique(self.next_unique);
                (Key::new("control", subject), bounded)
            }
            #[cfg(feature = "blobs")]
            Class::Transfer(key) => {
                if Unread(self).retract(&key).is_none() && self.transfers >= MAX_TRANSFERS {
                    return;
                }
                (key, Bounded::Transfers)
            }
        };
        if let Some(count) = self.count(bounded) {
            *count += 1;
        }
        self.queue.push_control(key, (bounded, event));
    }
}

/// The unread events, as an event sees them that is about to be queued.
pub(super) struct Unread<'a>(&'a mut Waiting);

impl Unread<'_> {
    /// Takes back the event with this key.
    pub(super) fn retract(&mut self, key: &Key) -> Option<NetworkEvent> {
        let control = self.0.queue.retract(key)?;
        Some(self.0.release(control))
    }

    /// Takes back the event with this key if it is the opposite of the new one: to a reader that saw
    /// neither, nothing changed. Returns whether it did.
    pub(super) fn cancels(
        &mut self,
        key: &Key,
        is_opposite: impl FnOnce(&NetworkEvent) -> bool,
    ) -> bool {
        let unread = self.0.queue.control_mut(key);
        unread.is_some_and(|(_, event)| is_opposite(event)) && self.retract(key).is_some()
    }

    /// Whether a dial has returned this connection, which has closed now.
    pub(super) fn was_returned(&mut self, connection: &ConnectionId) -> bool {
        self.0.returned.remove(connection)
    }

    /// Takes back the state of a peer whose last connection has closed.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        // These keys belong to events of `Class::State`, which have no count.
        self.0
            .queue
            .retract_where(|key| key.subject.ends_with(peer));
    }

    /// Adds `count` to the unread event with this key, which counts by `count_of`; without one, the
    /// new event is queued under the key.
    pub(super) fn sum(
        &mut self,
        key: Key,
        count: u64,
        count_of: impl FnOnce(&mut NetworkEvent) -> Option<&mut u64>,
    ) -> Class {
        let unread = self.0.queue.control_mut(&key);
        match unread.and_then(|(_, event)| count_of(event)) {
            Some(sum) => {
                *sum = sum.saturating_add(count);
                Class::Void
            }
            None => Class::State(key),
        }
    }

    /// As [`sum`](Self::sum), for reports of one peer each, whose number is bounded. `None` if the
    /// bound is reached and the peer has no unread report.
    pub(super) fn report(
        &mut self,
        key: Key,
        count: u64,
        count_of: impl FnOnce(&mut NetworkEvent) -> Option<&mut u64>,
    ) -> Option<Class> {
        match self.sum(key, count, count_of) {
            Class::State(key) => (self.0.reports < MAX_REPORTS).then_some(Class::Report(key)),
            class => Some(class),
        }
    }
}
