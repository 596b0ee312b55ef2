//! The queue between the actor and whoever reads events.
//!
//! Messages of topics are bounded in number and bytes, and the oldest give way. Everything else
//! tells a state: of each connection, peer, stream or request no more waits than its newest, and
//! what began and ended unread is not told at all. So events that are not messages always arrive,
//! and their number is bounded by what exists, however long nobody reads.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    task::{Context, Poll},
};

use calimero_network_discovery::machine::Namespace;
use calimero_network_primitives::{
    BlobId, ContextId, Multiaddr, PeerId, Topic, config::HandleConfig,
};
use calimero_network_pubsub::{EventQueue, Queued};
use calimero_network_specialized::{InboundRequestId, OutboundRequestId};
use calimero_network_stream::RefuseReason;
use futures::task::AtomicWaker;
use libp2p::{
    StreamProtocol,
    swarm::{ConnectionId, derive_prelude::ListenerId},
};

use super::NetworkEvent;
use crate::status::{Direction, Shared};

/// Reports of refusals that wait, each of another peer: 256, some tens of KiB. Strangers cause
/// them, so those beyond are summed.
const MAX_REPORTS: usize = 256;

/// What waits to be read of fetches and announcements: 1,024, of a fetch two at most.
const MAX_TRANSFERS: usize = 1024;

/// What an event is about. A newer event takes the place of an unread one about the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Listening(ListenerId, Multiaddr),
    /// The whole of a listener, or one of its addresses.
    NotListening(ListenerId, Option<Multiaddr>),
    /// A listener that was never listened on.
    NeverListening,
    Connection(ConnectionId),
    /// A connection to a peer that this node dialled, which began and ended unread.
    Lost(PeerId),
    Identity(PeerId),
    Path(PeerId),
    HolePunch(PeerId),
    Phase,
    Reachability,
    External(Multiaddr),
    Relay(PeerId),
    Overlay(Namespace),
    Stream(u64),
    StreamsOf(PeerId, StreamProtocol, RefuseReason),
    OtherStreams,
    Subscription(PeerId, Topic),
    Asked(InboundRequestId),
    InvitesOf(PeerId),
    OtherInvites,
    Answered(OutboundRequestId),
    BlobsOf(PeerId),
    OtherBlobs,
    /// How far a transfer is, or how it ended.
    Blob(ContextId, BlobId),
    Found(ContextId, BlobId),
    Announced(ContextId, BlobId),
}

/// The events that wait, and what of them is counted apart.
struct Waiting {
    queue: EventQueue<Key, NetworkEvent, NetworkEvent>,
    next_stream: u64,
    streams: usize,
    reports: usize,
    answers: usize,
    transfers: usize,
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

/// The stream of events. Dropping it is fine: events are then not kept for anybody.
///
/// Events come in the order they happened. Nothing of the node waits for whoever reads: of
/// messages, the oldest are dropped and [`NetworkEvent::Lagged`] says how many; inbound streams
/// wait in `streams.accept_queue`; of all else, an unread event gives way to a newer one about the
/// same connection, peer or request.
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

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<NetworkEvent>> {
        // Registered before the look, so that no event falls between.
        self.inbox.reader.register(cx.waker());
        let mut waiting = self.inbox.lock();
        let event = waiting.pop();
        if event.is_none() && !waiting.ended {
            return Poll::Pending;
        }
        drop(waiting);
        if let Some(NetworkEvent::StreamOpened { .. }) = event {
            self.inbox.sender.wake();
        }
        Poll::Ready(event)
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
        // Streams and invite requests that wait are let go now, not when the manager stops.
        while waiting.pop().is_some() {}
        drop(waiting);
        self.inbox.sender.wake();
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

/// The actor's end, which never waits.
pub(crate) struct EventSender {
    inbox: Arc<Inbox>,
    max_streams: usize,
    shared: Arc<Shared>,
}

impl EventSender {
    pub(crate) fn new(config: &HandleConfig, shared: Arc<Shared>) -> (Self, Events) {
        let inbox = Arc::new(Inbox {
            waiting: Mutex::new(Waiting {
                queue: EventQueue::new(config.event_queue, config.event_queue_bytes),
                next_stream: 0,
                streams: 0,
                reports: 0,
                answers: 0,
                transfers: 0,
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
        };
        (sender, Events { inbox })
    }

    pub(crate) fn send(&mut self, event: NetworkEvent) {
        let mut waiting = self.inbox.lock();
        if waiting.unread {
            return;
        }
        waiting.push(event);
        let dropped = waiting.queue.missed_in_all();
        drop(waiting);
        self.shared.events_dropped.store(dropped, Ordering::Relaxed);
        self.inbox.reader.wake();
    }

    /// Waits until another inbound stream may be handed over.
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

    /// Ends of own invite requests that wait to be read.
    pub(crate) fn unread_answers(&self) -> usize {
        self.inbox.lock().answers
    }
}

impl Drop for EventSender {
    fn drop(&mut self) {
        self.inbox.lock().ended = true;
        self.inbox.reader.wake();
    }
}

impl Waiting {
    fn pop(&mut self) -> Option<NetworkEvent> {
        let event = match self.queue.pop()? {
            Queued::Message(event) | Queued::Control(event) => event,
            Queued::Lagged { missed } => NetworkEvent::Lagged { missed },
        };
        match &event {
            NetworkEvent::StreamOpened { .. } => self.streams -= 1,
            NetworkEvent::StreamsRefused { .. } | NetworkEvent::InvitesRefused { .. } => {
                self.reports -= 1;
            }
            NetworkEvent::BlobRequested { .. } => self.reports -= 1,
            NetworkEvent::BlobAnnounced { .. }
            | NetworkEvent::BlobProvidersFound { .. }
            | NetworkEvent::BlobProgress { .. }
            | NetworkEvent::BlobDownloaded { .. }
            | NetworkEvent::BlobDownloadFailed { .. } => self.transfers -= 1,
            NetworkEvent::InviteResponse { .. } | NetworkEvent::InviteFailed { .. } => {
                self.answers -= 1;
            }
            _ => {}
        }
        Some(event)
    }

    fn push(&mut self, event: NetworkEvent) {
        let key = match &event {
            NetworkEvent::Message(message) => {
                let bytes = message.data.len();
                return self.queue.push_message(event, bytes);
            }
            NetworkEvent::Lagged { missed } => return self.queue.miss(*missed),
            NetworkEvent::Listening { listener, address } => {
                Key::Listening(*listener, address.clone())
            }
            NetworkEvent::NotListening { .. } => return self.push_not_listening(event),
            NetworkEvent::Connected(connection) => Key::Connection(connection.id),
            NetworkEvent::Disconnected {
                peer,
                connection,
                remaining,
                ..
            } => {
                if *remaining == 0 {
                    self.forget_peer(peer);
                }
                let key = Key::Connection(*connection);
                match self.queue.retract(&key) {
                    Some(NetworkEvent::Connected(unread)) => match unread.direction {
                        Direction::Inbound => return,
                        // Whoever dialled knows of it, read or not.
                        Direction::Outbound => Key::Lost(*peer),
                    },
                    _ => key,
                }
            }
            NetworkEvent::Identified { peer, .. } => Key::Identity(*peer),
            NetworkEvent::PathChanged(connection) => Key::Path(connection.peer),
            NetworkEvent::HolePunched { peer, .. } => Key::HolePunch(*peer),
            NetworkEvent::PhaseChanged { .. } => Key::Phase,
            NetworkEvent::ReachabilityChanged { .. } => Key::Reachability,
            NetworkEvent::ExternalAddressConfirmed { address } => Key::External(address.clone()),
            NetworkEvent::ExternalAddressExpired { address } => {
                let key = Key::External(address.clone());
                if self.queue.retract(&key).is_some() {
                    return;
                }
                key
            }
            NetworkEvent::RelayReserved { relay } | NetworkEvent::RelayLost { relay } => {
                Key::Relay(*relay)
            }
            NetworkEvent::OverlayRefused { namespace } => Key::Overlay(namespace.clone()),
            NetworkEvent::StreamOpened { .. } => {
                self.next_stream += 1;
                self.streams += 1;
                Key::Stream(self.next_stream)
            }
            NetworkEvent::StreamsRefused { .. }
            | NetworkEvent::InvitesRefused { .. }
            | NetworkEvent::OtherStreamsRefused { .. }
            | NetworkEvent::OtherInvitesRefused { .. }
            | NetworkEvent::BlobRequested { .. }
            | NetworkEvent::OtherBlobsRequested { .. } => return self.push_report(event),
            NetworkEvent::BlobAnnounced { .. }
            | NetworkEvent::BlobProvidersFound { .. }
            | NetworkEvent::BlobProgress { .. }
            | NetworkEvent::BlobDownloaded { .. }
            | NetworkEvent::BlobDownloadFailed { .. } => return self.push_transfer(event),
            NetworkEvent::Subscribed { peer, topic }
            | NetworkEvent::Unsubscribed { peer, topic } => {
                let key = Key::Subscription(*peer, topic.clone());
                // One is the end of the other, and whoever reads knows neither.
                if self.queue.retract(&key).is_some() {
                    return;
                }
                key
            }
            NetworkEvent::InviteRequest { request_id, .. }
            | NetworkEvent::InviteResponseSent { request_id, .. } => Key::Asked(*request_id),
            NetworkEvent::InviteResponseFailed { request_id, .. } => {
                let key = Key::Asked(*request_id);
                if self.queue.retract(&key).is_some() {
                    return;
                }
                key
            }
            NetworkEvent::InviteResponse { request_id, .. }
            | NetworkEvent::InviteFailed { request_id, .. } => {
                self.answers += 1;
                Key::Answered(*request_id)
            }
        };
        self.queue.push_control(key, event);
    }

    /// What nobody was told to be listened on need not be told to be gone.
    fn push_not_listening(&mut self, mut event: NetworkEvent) {
        let NetworkEvent::NotListening {
            listener,
            addresses,
            error,
        } = &mut event
        else {
            return;
        };
        let listener = *listener;
        let told = addresses.len();
        addresses.retain(|address| {
            let key = Key::Listening(listener, address.clone());
            self.queue.retract(&key).is_none()
        });
        if addresses.is_empty() && (told > 0 || error.is_none()) {
            return;
        }
        let key = match addresses.as_slice() {
            [] => Key::NeverListening,
            [only] if error.is_none() => Key::NotListening(listener, Some(only.clone())),
            _ => Key::NotListening(listener, None),
        };
        self.queue.push_control(key, event);
    }

    /// Adds up what is refused. Beyond some number of peers they are not told apart.
    fn push_report(&mut self, event: NetworkEvent) {
        let (key, count) = match &event {
            NetworkEvent::StreamsRefused {
                peer,
                protocol,
                reason,
                count,
            } => (Key::StreamsOf(*peer, protocol.clone(), *reason), *count),
            NetworkEvent::InvitesRefused { peer, count, .. } => (Key::InvitesOf(*peer), *count),
            NetworkEvent::OtherStreamsRefused { count } => (Key::OtherStreams, *count),
            NetworkEvent::OtherInvitesRefused { count } => (Key::OtherInvites, *count),
            NetworkEvent::BlobRequested { peer, count, .. } => (Key::BlobsOf(*peer), *count),
            NetworkEvent::OtherBlobsRequested { count } => (Key::OtherBlobs, *count),
            _ => return,
        };
        if let Some(
            NetworkEvent::StreamsRefused { count: sum, .. }
            | NetworkEvent::InvitesRefused { count: sum, .. }
            | NetworkEvent::OtherStreamsRefused { count: sum }
            | NetworkEvent::OtherInvitesRefused { count: sum }
            | NetworkEvent::BlobRequested { count: sum, .. }
            | NetworkEvent::OtherBlobsRequested { count: sum },
        ) = self.queue.control_mut(&key)
        {
            *sum += count;
            return;
        }
        match key {
            Key::StreamsOf(..) if self.reports >= MAX_REPORTS => {
                self.push_report(NetworkEvent::OtherStreamsRefused { count });
            }
            Key::InvitesOf(_) if self.reports >= MAX_REPORTS => {
                self.push_report(NetworkEvent::OtherInvitesRefused { count });
            }
            Key::BlobsOf(_) if self.reports >= MAX_REPORTS => {
                self.push_report(NetworkEvent::OtherBlobsRequested { count });
            }
            Key::StreamsOf(..) | Key::InvitesOf(_) | Key::BlobsOf(_) => {
                self.reports += 1;
                self.queue.push_control(key, event);
            }
            _ => self.queue.push_control(key, event),
        }
    }

    /// Of each fetch the newest. Beyond some number the handle of the fetch alone tells.
    fn push_transfer(&mut self, event: NetworkEvent) {
        let key = match &event {
            NetworkEvent::BlobAnnounced {
                context_id,
                blob_id,
            } => Key::Announced(*context_id, *blob_id),
            NetworkEvent::BlobProvidersFound {
                context_id,
                blob_id,
                ..
            } => Key::Found(*context_id, *blob_id),
            NetworkEvent::BlobProgress {
                context_id,
                blob_id,
                ..
            }
            | NetworkEvent::BlobDownloaded {
                context_id,
                blob_id,
                ..
            }
            | NetworkEvent::BlobDownloadFailed {
                context_id,
                blob_id,
                ..
            } => Key::Blob(*context_id, *blob_id),
            _ => return,
        };
        if self.queue.retract(&key).is_none() {
            if self.transfers >= MAX_TRANSFERS {
                return;
            }
            self.transfers += 1;
        }
        self.queue.push_control(key, event);
    }

    /// What a peer said of itself is void once it has left.
    fn forget_peer(&mut self, peer: &PeerId) {
        for key in [Key::Identity, Key::Path, Key::HolePunch] {
            self.queue.retract(&key(*peer));
        }
        self.queue
            .retract_where(|key| matches!(key, Key::Subscription(of, _) if of == peer));
    }
}
