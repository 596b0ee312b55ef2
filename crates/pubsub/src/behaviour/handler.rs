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
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use calimero_network_primitives::{PeerId, identity::PublicKey};
use futures::FutureExt;
use futures_timer::Delay;
use libp2p_core::{InboundUpgrade, UpgradeInfo};
use libp2p_gossipsub::TopicHash;
use libp2p_swarm::{
    ConnectionHandler, ConnectionHandlerEvent, Stream, SubstreamProtocol, THandler,
    THandlerInEvent, THandlerOutEvent,
    handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound},
};

use super::{
    Gossipsub,
    inbound::Inbound,
    line::{Line, Looked},
};
use crate::{ed25519::Verifier, replay::Replays, rpc::Published};

type Inner = THandler<Gossipsub>;
/// Gossipsub's upgrade, which knows its protocol names and makes its codec.
pub(super) type Protocol = <Inner as ConnectionHandler>::OutboundProtocol;
type ProtocolName = <Protocol as UpgradeInfo>::Info;

/// Inbound streams of one connection, at most: gossipsub needs one, and as many again after it
/// broke.
const MAX_INBOUND_STREAMS: usize = 5;

/// Pause between two RPCs of a connection while the queues of others are crowded with what it
/// brings: none of the rest is lost in the time after which they are excused.
const CROWDED_PAUSE: Duration = Duration::from_millis(1);

/// What the behaviour tells a connection.
#[derive(Debug)]
pub enum ToHandler {
    /// What gossipsub tells it.
    Gossipsub(THandlerInEvent<Gossipsub>),
    /// Whether the peer is worth a connection that carries nothing else.
    Keep(bool),
    /// What waits to be written to the peer.
    Line(Arc<Line>),
    /// Look whether that is empty. Being told is being polled.
    Look,
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
    /// All that waited for the peer has been written.
    Drained,
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
const MAX_AUTHORS: usize = 1024;

/// Messages of one author after which tables for his key are made, in number: making them takes as
/// long as checking three signatures, and each check takes half as long with them.
const TABLE_AFTER: u32 = 16;

/// Authors for whose keys there are tables, in number: 40 KiB each.
const MAX_TABLES: usize = 64;

/// The key of an author.
#[derive(Clone, Debug)]
struct Author {
    key: PublicKey,
    /// Messages verified.
    verified: u32,
    verifier: Option<Arc<Verifier>>,
}

/// What is known of messages and authors.
#[derive(Debug)]
struct Known {
    replays: Replays,
    authors: HashMap<PeerId, Author>,
    tables: usize,
}

impl Known {
    /// Forgets all tables but those of one author. Who still writes gets new ones.
    fn forget_tables(&mut self, but: &PeerId) {
        for (id, author) in &mut self.authors {
            if id != but && author.verifier.take().is_some() {
                author.verified = 0;
            }
        }
        self.tables = 1;
    }
}

/// What the connections of one behaviour share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    known: Arc<Mutex<Known>>,
    crowded: Arc<AtomicBool>,
    /// Largest RPC accepted, in bytes.
    pub(super) max_rpc_bytes: usize,
}

impl Shared {
    pub(super) fn new(replays: Replays, max_rpc_bytes: usize) -> Self {
        Self {
            known: Arc::new(Mutex::new(Known {
                replays,
                authors: HashMap::new(),
                tables: 0,
            })),
            crowded: Arc::default(),
            max_rpc_bytes,
        }
    }

    /// Whether messages of others wait for too long to be forwarded.
    pub(super) fn set_crowded(&self, crowded: bool) {
        self.crowded.store(crowded, Relaxed);
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
        let known = self.lock().authors.get(&message.author).cloned();
        let Some(known) = known else {
            return self.verify_first(message);
        };
        // The tables say yes to what the key says yes to; a no is rare enough to be asked twice.
        let verifier = known.verifier.as_deref();
        let signed = verifier.is_some_and(|verifier| message.verify_with(verifier))
            || message.verify(&known.key);
        if signed && known.verifier.is_none() {
            self.count_verified(&message.author);
        }
        signed
    }

    fn verify_first(&self, message: &Published) -> bool {
        let Some(key) = message.public_key() else {
            return false;
        };
        let signed = message.verify(&key);
        if signed {
            let mut known = self.lock();
            if known.authors.len() >= MAX_AUTHORS {
                known.authors.clear();
                known.tables = 0;
            }
            let author = Author {
                key,
                verified: 1,
                verifier: None,
            };
            known.authors.insert(message.author, author);
        }
        signed
    }

    /// Makes tables for an author who writes often.
    fn count_verified(&self, id: &PeerId) {
        let mut known = self.lock();
        let Some(author) = known.authors.get_mut(id) else {
            return;
        };
        author.verified = author.verified.saturating_add(1);
        if author.verified != TABLE_AFTER {
            return;
        }
        let Some(verifier) = Verifier::new(&author.key) else {
            return;
        };
        author.verifier = Some(Arc::new(verifier));
        known.tables += 1;
        if known.tables > MAX_TABLES {
            known.forget_tables(id);
        }
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
    /// Before the next RPC is read.
    pause: Option<Delay>,
    line: Option<Arc<Line>>,
    /// Gossipsub's handler has a stream to write to.
    is_writing: bool,
}

impl Handler {
    pub(super) fn new(inner: Inner, shared: Shared, keep: bool) -> Self {
        Self {
            inner,
            shared,
            keep,
            inbound: None,
            inbound_streams: 0,
            pause: None,
            line: None,
            is_writing: false,
        }
    }

    /// Gossipsub's handler; and whether all that waited for the peer is written.
    fn poll_inner(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Protocol, (), FromHandler>> {
        let event = match (self.inner.poll(cx), &self.line) {
            (Poll::Ready(event), _) => event,
            (Poll::Pending, Some(line)) if self.is_writing => {
                match line.look(cx, |cx| self.inner.poll(cx)) {
                    Looked::Ready(event) => event,
                    Looked::Empty => {
                        let drained = FromHandler::Drained;
                        return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(drained));
                    }
                    Looked::Nothing => return Poll::Pending,
                }
            }
            (Poll::Pending, _) => return Poll::Pending,
        };
        if let ConnectionHandlerEvent::OutboundSubstreamRequest { .. } = event {
            self.is_writing = false;
        }
        Poll::Ready(event.map_custom(FromHandler::Gossipsub))
    }

    /// Lets RPCs in one by one while there is no room for what they bring. Some must come in,
    /// since nodes that wait for each other would do so for ever.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.shared.crowded.load(Relaxed) {
            let pause = self.pause.get_or_insert_with(|| Delay::new(CROWDED_PAUSE));
            ready!(pause.poll_unpin(cx));
        }
        self.pause = None;
        Poll::Ready(())
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
        if self.inbound.is_some() {
            ready!(self.poll_pause(cx));
        }
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
            ToHandler::Line(line) => self.line = Some(line),
            ToHandler::Look => {}
        }
    }

    fn connection_keep_alive(&self) -> bool {
        self.keep || self.inner.connection_keep_alive()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Protocol, (), FromHandler>> {
        if let Poll::Ready(event) = self.poll_inner(cx) {
            return Poll::Ready(event);
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
                self.is_writing = true;
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
