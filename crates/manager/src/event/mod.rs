//! What happens without being asked for.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use calimero_network_primitives::{Multiaddr, PeerId};
use calimero_network_stream::{FrameStream, RefuseReason, Substream};
use libp2p::{
    StreamProtocol,
    swarm::{ConnectionId, derive_prelude::ListenerId},
};
use tokio::sync::mpsc;

use crate::status::{Connection, PeerInfo, Shared};

/// Something that happened in the network.
#[derive(Debug)]
#[non_exhaustive]
#[expect(
    clippy::large_enum_variant,
    reason = "an event is moved once, into the queue and out; a box would cost an allocation for each stream"
)]
pub enum NetworkEvent {
    /// An address is listened on from now on. For whoever publishes addresses.
    Listening {
        /// The listener it belongs to.
        listener: ListenerId,
        /// The address.
        address: Multiaddr,
    },
    /// An address is no longer listened on. For whoever publishes addresses.
    NotListening {
        /// The listener it belonged to.
        listener: ListenerId,
        /// The addresses that are gone.
        addresses: Vec<Multiaddr>,
        /// Why the listener closed, if it did so by itself.
        error: Option<std::io::Error>,
    },
    /// A connection stands. A peer can have several.
    Connected(Connection),
    /// A connection is gone.
    Disconnected {
        /// The peer at its other end.
        peer: PeerId,
        /// Its number in this process.
        connection: ConnectionId,
        /// Why it ended.
        reason: CloseReason,
        /// Connections with the same peer that still stand.
        remaining: u32,
    },
    /// A peer said what it is and what it speaks. Again whenever that changes.
    Identified {
        /// The peer.
        peer: PeerId,
        /// What it said; unverified.
        info: Arc<PeerInfo>,
    },
    /// A peer opened a stream of the general protocol. Whoever serves streams owns it now;
    /// dropping it resets it.
    StreamOpened {
        /// The peer.
        peer: PeerId,
        /// The connection that carries it.
        connection: ConnectionId,
        /// The protocol agreed on.
        protocol: StreamProtocol,
        /// The stream, in frames.
        stream: FrameStream<Substream>,
    },
    /// Streams of a peer were refused because a limit was reached. For operators.
    StreamsRefused {
        /// The peer.
        peer: PeerId,
        /// The protocol asked for.
        protocol: StreamProtocol,
        /// Which limit.
        reason: RefuseReason,
        /// How many since the last such event.
        count: u64,
    },
    /// Streams were refused beside those reported: of so many peers and protocols at once that
    /// they are not told apart. For operators.
    OtherStreamsRefused {
        /// How many.
        count: u64,
    },
    /// Events were dropped because nobody read them in time. What they said can be had from
    /// [`status`](crate::NetworkClient::status); streams among them are reset.
    Lagged {
        /// How many were dropped at this place of the sequence.
        missed: u64,
    },
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// This node closed it.
    Local,
    /// It carried no stream for `connections.idle_timeout_ms`.
    Idle,
    /// It left as many pings in a row unanswered as `connections.ping.max_failures`.
    Unresponsive,
    /// The peer closed it, or the link broke.
    Remote {
        /// What the transport said.
        error: std::io::ErrorKind,
    },
}

/// The stream of events. Dropping it is fine: events are then not kept for anybody.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<NetworkEvent>,
}

impl Events {
    /// The next event, or `None` once the manager has stopped and all were read.
    ///
    /// Cancel safe: no event is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<NetworkEvent> {
        self.receiver.recv().await
    }
}

impl futures::Stream for Events {
    type Item = NetworkEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(cx)
    }
}

/// The actor's end: never waits, counts what does not fit, says so as soon as there is room.
pub(crate) struct EventSender {
    sender: mpsc::Sender<NetworkEvent>,
    missed: u64,
    shared: Arc<Shared>,
}

impl EventSender {
    pub(crate) fn new(capacity: usize, shared: Arc<Shared>) -> (Self, Events) {
        let (sender, receiver) = mpsc::channel(capacity);
        let sender = Self {
            sender,
            missed: 0,
            shared,
        };
        (sender, Events { receiver })
    }

    pub(crate) fn send(&mut self, event: NetworkEvent) {
        self.tell_missed();
        if self.missed > 0 {
            return self.miss();
        }
        if let Err(mpsc::error::TrySendError::Full(_)) = self.sender.try_send(event) {
            self.miss();
        }
    }

    /// Waits until the reader has made room, if anything is left to be told.
    pub(crate) async fn room(&self) {
        if self.missed == 0 {
            return std::future::pending().await;
        }
        if self.sender.reserve().await.is_err() {
            std::future::pending().await
        }
    }

    pub(crate) fn tell_missed(&mut self) {
        if self.missed == 0 {
            return;
        }
        let missed = self.missed;
        if self
            .sender
            .try_send(NetworkEvent::Lagged { missed })
            .is_ok()
        {
            self.missed = 0;
        }
    }

    fn miss(&mut self) {
        self.missed += 1;
        self.shared.events_dropped.fetch_add(1, Ordering::Relaxed);
    }
}
