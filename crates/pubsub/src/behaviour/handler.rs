//! The streams of one connection: gossipsub's handler writes, this one reads.
//!
//! Gossipsub 0.50 checks the signature of every copy of a message where it is decoded. Here a
//! message that was verified before is recognised first, by author and number, and only counted.
//! What is left of an RPC besides its messages is decoded by gossipsub's own codec.
//!
//! It also greets every peer, so that each connection carries a stream of it for as long as it
//! stands, and no connection would ever be idle. Here streams count only for peers with which
//! something is exchanged: a mesh, a common topic, messages.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use calimero_network_primitives::{PeerId, identity::PublicKey};
use libp2p_core::{InboundUpgrade, UpgradeInfo};
use libp2p_gossipsub::TopicHash;
use libp2p_swarm::{
    ConnectionHandler, ConnectionHandlerEvent, Stream, SubstreamProtocol, THandler,
    THandlerInEvent, THandlerOutEvent,
    handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound},
};

use super::{Gossipsub, inbound::Inbound};
use crate::{replay::Replays, rpc::Published};

type Inner = THandler<Gossipsub>;
/// Gossipsub's upgrade, which knows its protocol names and makes its codec.
pub(super) type Protocol = <Inner as ConnectionHandler>::OutboundProtocol;
type ProtocolName = <Protocol as UpgradeInfo>::Info;

/// Inbound streams of one connection, at most: gossipsub needs one, and as many again after it
/// broke.
const MAX_INBOUND_STREAMS: usize = 5;

/// What the behaviour tells a connection.
#[derive(Debug)]
pub enum ToHandler {
    /// What gossipsub tells it.
    Gossipsub(THandlerInEvent<Gossipsub>),
    /// Whether the peer is worth a connection that carries nothing else.
    Keep(bool),
}

/// What a connection tells the behaviour.
#[derive(Debug)]
pub enum FromHandler {
    /// What gossipsub's handler says.
    Gossipsub(THandlerOutEvent<Gossipsub>),
    /// An RPC has arrived. Its messages are verified and were not known when they came.
    Rpc {
        /// As gossipsub's handler would say it.
        event: THandlerOutEvent<Gossipsub>,
        /// Messages that were unsigned, wrongly signed or malformed.
        forged: usize,
        /// Messages that were seen before.
        copies: Vec<CopyOf>,
    },
}

/// A message that was seen before.
#[derive(Debug)]
pub struct CopyOf {
    pub(super) topic: TopicHash,
    pub(super) author: PeerId,
    pub(super) bytes: usize,
    /// Seen so long ago that no way through a mesh explains it.
    pub(super) is_replay: bool,
}

/// Authors whose public key is remembered, in number: some hundred bytes each. Unpacking a key is a
/// tenth of checking a signature.
const MAX_KEYS: usize = 1024;

/// What is known of messages and authors.
#[derive(Debug)]
struct Known {
    replays: Replays,
    keys: HashMap<PeerId, PublicKey>,
}

/// What the connections of one behaviour share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    known: Arc<Mutex<Known>>,
    /// Largest RPC accepted, in bytes.
    pub(super) max_rpc_bytes: usize,
}

impl Shared {
    pub(super) fn new(replays: Replays, max_rpc_bytes: usize) -> Self {
        Self {
            known: Arc::new(Mutex::new(Known {
                replays,
                keys: HashMap::new(),
            })),
            max_rpc_bytes,
        }
    }

    /// Since when a message is known, `None` if it is new: as a copy of it.
    pub(super) fn copy_of(&self, message: &Published) -> Option<CopyOf> {
        let (author, number) = (message.author, message.sequence_number);
        let is_replay = self
            .lock()
            .replays
            .repetition(&author, number, super::now())?;
        Some(CopyOf {
            topic: TopicHash::from_raw(message.topic.clone()),
            author,
            bytes: message.data.len(),
            is_replay,
        })
    }

    /// Takes note of a message that was verified. `false` if it was known.
    pub(super) fn note(&self, author: &PeerId, sequence_number: u64) -> bool {
        self.lock()
            .replays
            .note(author, sequence_number, super::now())
    }

    /// Whether the author has signed the message.
    pub(super) fn verify(&self, message: &Published) -> bool {
        let known = self.lock().keys.get(&message.author).cloned();
        if let Some(key) = known {
            return message.verify(&key);
        }
        let Some(key) = message.public_key() else {
            return false;
        };
        let signed = message.verify(&key);
        if signed {
            let mut known = self.lock();
            if known.keys.len() >= MAX_KEYS {
                known.keys.clear();
            }
            known.keys.insert(message.author, key);
        }
        signed
    }

    /// Held for the time of one look; nothing in there panics.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts streams of gossipsub as they are.
pub struct Accept(Vec<ProtocolName>);

impl UpgradeInfo for Accept {
    type Info = ProtocolName;
    type InfoIter = Vec<ProtocolName>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone()
    }
}

impl InboundUpgrade<Stream> for Accept {
    type Output = (Stream, ProtocolName);
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, stream: Stream, name: ProtocolName) -> Self::Future {
        std::future::ready(Ok((stream, name)))
    }
}

/// Gossipsub's handler, with another way in.
pub struct Handler {
    inner: Inner,
    shared: Shared,
    keep: bool,
    inbound: Option<Inbound>,
    inbound_streams: usize,
}

impl Handler {
    pub(super) fn new(inner: Inner, shared: Shared, keep: bool) -> Self {
        Self {
            inner,
            shared,
            keep,
            inbound: None,
            inbound_streams: 0,
        }
    }

    /// Gossipsub's upgrade, if it still accepts streams.
    fn protocol(&self) -> Option<Protocol> {
        self.inner.listen_protocol().into_upgrade().0.left()
    }

    /// A new stream takes the place of the one before, as in gossipsub.
    fn accept(&mut self, mut stream: Stream, name: ProtocolName) {
        self.inbound_streams += 1;
        if self.inbound_streams > MAX_INBOUND_STREAMS {
            return;
        }
        stream.ignore_for_keep_alive();
        let protocol = self.protocol();
        self.inbound = protocol.and_then(|protocol| Inbound::new(stream, protocol, name));
    }

    fn poll_inbound(&mut self, cx: &mut Context<'_>) -> Poll<FromHandler> {
        let Some(inbound) = &mut self.inbound else {
            return Poll::Pending;
        };
        match ready!(Pin::new(inbound).poll(&self.shared, cx)) {
            Ok(Some(event)) => Poll::Ready(event),
            end => {
                // Dropping it resets it. A peer that is still there opens another.
                self.inbound = None;
                if let Err(error) = end {
                    tracing::debug!(%error, "an inbound stream failed");
                }
                Poll::Pending
            }
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = ToHandler;
    type ToBehaviour = FromHandler;
    type InboundProtocol = Accept;
    type OutboundProtocol = Protocol;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Accept> {
        let names = self.protocol().map(|protocol| protocol.protocol_info());
        SubstreamProtocol::new(Accept(names.unwrap_or_default()), ())
    }

    fn on_behaviour_event(&mut self, event: ToHandler) {
        match event {
            ToHandler::Gossipsub(event) => self.inner.on_behaviour_event(event),
            ToHandler::Keep(keep) => self.keep = keep,
        }
    }

    fn connection_keep_alive(&self) -> bool {
        self.keep || self.inner.connection_keep_alive()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Protocol, (), FromHandler>> {
        if let Poll::Ready(event) = self.inner.poll(cx) {
            return Poll::Ready(event.map_custom(FromHandler::Gossipsub));
        }
        self.poll_inbound(cx)
            .map(ConnectionHandlerEvent::NotifyBehaviour)
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Accept, Protocol>) {
        let event = match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, name),
                ..
            }) => return self.accept(stream, name),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (mut stream, kind),
                info,
            }) => {
                stream.ignore_for_keep_alive();
                ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                    protocol: (stream, kind),
                    info,
                })
            }
            ConnectionEvent::DialUpgradeError(error) => ConnectionEvent::DialUpgradeError(error),
            ConnectionEvent::AddressChange(change) => ConnectionEvent::AddressChange(change),
            ConnectionEvent::LocalProtocolsChange(change) => {
                ConnectionEvent::LocalProtocolsChange(change)
            }
            ConnectionEvent::RemoteProtocolsChange(change) => {
                ConnectionEvent::RemoteProtocolsChange(change)
            }
            _ => return,
        };
        self.inner.on_connection_event(event);
    }
}
