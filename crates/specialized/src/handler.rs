//! The streams of one connection: requests that go out, and those that are served.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use calimero_network_primitives::{
    ProtocolId,
    resources::{Holder, Origin, Permit, Resource, Resources},
};
use futures::{
    FutureExt, StreamExt,
    channel::oneshot,
    future::{AbortHandle, Abortable, BoxFuture},
    stream::FuturesUnordered,
};
use libp2p_core::upgrade::ReadyUpgrade;
use libp2p_identity::PeerId;
use libp2p_swarm::{
    ConnectionHandler, ConnectionHandlerEvent, Stream, StreamProtocol, StreamUpgradeError,
    SubstreamProtocol,
    handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
};

use crate::{
    book::OutboundRequestId,
    codec::Message,
    config::SpecializedConfig,
    exchange,
    failure::{InboundFailure, OutboundFailure, RespondError},
    message::{NONCE_BYTES, Refusal, SpecializedNodeInviteRequest, SpecializedNodeInviteResponse},
};

/// Streams of one connection that are being told that they are refused. Each holds some hundred
/// bytes; what comes on top is reset without a word.
const MAX_REFUSALS: usize = 8;

/// Names an inbound request. Unique within one behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InboundRequestId(u64);

impl fmt::Display for InboundRequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The way back to the peer that asked. Dropping it tells the peer that there is no answer.
#[derive(Debug)]
pub struct ResponseChannel {
    answer: oneshot::Sender<Bytes>,
    limit: usize,
}

impl ResponseChannel {
    /// Sends the answer. That it was sent, or why not, is told by an
    /// [`Event`](crate::Event) with the request's id.
    ///
    /// # Errors
    ///
    /// [`RespondError::Response`] if the answer is too large: the peer is told that there is none.
    /// [`RespondError::Gone`] if nobody waits any more.
    pub fn send(self, response: &SpecializedNodeInviteResponse) -> Result<(), RespondError> {
        let wire = response.encode(self.limit)?;
        self.answer.send(wire).map_err(|_| RespondError::Gone)
    }

    /// Whether somebody still waits for the answer.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.answer.is_canceled()
    }
}

/// What the connections of one behaviour share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) config: Arc<SpecializedConfig>,
    pub(crate) resources: Resources,
    next_inbound: Arc<AtomicU64>,
}

impl Shared {
    pub(crate) fn new(config: SpecializedConfig, resources: Resources) -> Self {
        Self {
            config: Arc::new(config),
            resources,
            next_inbound: Arc::default(),
        }
    }
}

/// What the behaviour asks of a connection.
#[derive(Debug)]
pub enum FromBehaviour {
    /// Send a request.
    Send(OutboundRequestId, Bytes),
    /// Stop an exchange.
    Stop(OutboundRequestId),
}

/// What a connection tells the behaviour.
#[derive(Debug)]
pub enum ToBehaviour {
    /// An outbound request ended.
    Answered(
        OutboundRequestId,
        Result<SpecializedNodeInviteResponse, OutboundFailure>,
    ),
    /// A request came in.
    Requested(
        InboundRequestId,
        SpecializedNodeInviteRequest,
        ResponseChannel,
    ),
    /// An inbound request ended.
    Served(InboundRequestId, Result<(), InboundFailure>),
}

/// What serving an inbound request has come to.
enum Step {
    /// The request is here, and the stream that the answer goes to.
    Received(
        InboundRequestId,
        SpecializedNodeInviteRequest,
        Box<Stream>,
        Permit,
    ),
    Ended(InboundRequestId, Result<(), InboundFailure>),
}

type Exchange = (
    OutboundRequestId,
    Result<SpecializedNodeInviteResponse, OutboundFailure>,
);

/// The handler of one connection.
pub struct Handler {
    shared: Shared,
    /// Requests that wait for their turn, and those whose streams are being opened.
    line: VecDeque<(OutboundRequestId, Bytes)>,
    opening: HashMap<OutboundRequestId, Bytes>,
    /// Requests whose answers are awaited.
    stops: HashMap<OutboundRequestId, AbortHandle>,
    exchanges: FuturesUnordered<Abortable<BoxFuture<'static, Exchange>>>,
    /// The scopes in which requests of the peer count.
    holder: Holder,
    serving: FuturesUnordered<BoxFuture<'static, Step>>,
    refusing: FuturesUnordered<BoxFuture<'static, ()>>,
    /// At most one per stream event, and drained before the next.
    events: VecDeque<ToBehaviour>,
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").finish_non_exhaustive()
    }
}

impl Handler {
    pub(crate) fn new(peer: PeerId, origin: Option<Origin>, shared: Shared) -> Self {
        let holder = shared.resources.holder(Some(peer), origin);
        Self {
            shared,
            line: VecDeque::new(),
            opening: HashMap::new(),
            stops: HashMap::new(),
            exchanges: FuturesUnordered::new(),
            holder,
            serving: FuturesUnordered::new(),
            refusing: FuturesUnordered::new(),
            events: VecDeque::new(),
        }
    }

    fn protocol() -> ReadyUpgrade<StreamProtocol> {
        ReadyUpgrade::new(StreamProtocol::new(
            ProtocolId::SpecializedNodeInvite.as_str(),
        ))
    }

    fn stop(&mut self, id: OutboundRequestId) {
        self.line.retain(|(waiting, _)| *waiting != id);
        self.opening.remove(&id);
        if let Some(stop) = self.stops.remove(&id) {
            stop.abort();
        }
    }

    /// The stream of request `id` is open.
    fn exchange(&mut self, id: OutboundRequestId, stream: Stream) {
        let Some(wire) = self.opening.remove(&id) else {
            // Given up while the stream was being opened.
            return;
        };
        let limit = self.shared.config.tuning.max_message_bytes;
        let work = async move { (id, exchange::request(stream, wire, limit).await) };
        let (stop, registration) = AbortHandle::new_pair();
        self.stops.insert(id, stop);
        self.exchanges
            .push(Abortable::new(work.boxed(), registration));
    }

    /// The stream of request `id` could not be opened.
    fn not_opened(
        &mut self,
        id: OutboundRequestId,
        error: StreamUpgradeError<std::convert::Infallible>,
    ) {
        if self.opening.remove(&id).is_none() {
            return;
        }
        let failure = match error {
            StreamUpgradeError::Timeout => OutboundFailure::Deadline {
                after: self.shared.config.request_timeout,
            },
            StreamUpgradeError::NegotiationFailed => OutboundFailure::Unsupported,
            StreamUpgradeError::Io(error) => OutboundFailure::Io(error),
            StreamUpgradeError::Apply(never) => match never {},
        };
        self.events
            .push_back(ToBehaviour::Answered(id, Err(failure)));
    }

    /// A peer has opened a stream to ask something.
    fn accept(&mut self, stream: Stream) {
        let mut stream = Box::new(stream);
        let id = InboundRequestId(self.shared.next_inbound.fetch_add(1, Ordering::Relaxed));
        let config = &self.shared.config;
        let (limit, time) = (
            config.tuning.max_message_bytes,
            config.tuning.receive_timeout,
        );
        match self.holder.take(Resource::InviteRequests, 1) {
            Ok(permit) => self.serving.push(
                async move {
                    match exchange::receive_request(&mut stream, limit, time).await {
                        Ok(request) => Step::Received(id, request, stream, permit),
                        Err(failure) => Step::Ended(id, Err(failure)),
                    }
                }
                .boxed(),
            ),
            Err(refused) => {
                if self.refusing.len() < MAX_REFUSALS {
                    let refuse = exchange::refuse_request(stream, Refusal::Busy, time);
                    self.refusing.push(refuse.boxed());
                }
                let failure = InboundFailure::TooMany {
                    limit: usize::try_from(refused.limit).unwrap_or(usize::MAX),
                    scope: refused.scope,
                };
                self.events.push_back(ToBehaviour::Served(id, Err(failure)));
            }
        }
    }

    fn step(&mut self, step: Step) -> ToBehaviour {
        match step {
            Step::Received(id, request, stream, permit) => {
                let (answer, awaited) = oneshot::channel();
                let config = self.shared.config.clone();
                let limit = config.tuning.max_message_bytes;
                let nonce = *request.nonce();
                let work = async move {
                    Step::Ended(id, serve(stream, nonce, awaited, permit, &config).await)
                };
                self.serving.push(work.boxed());
                ToBehaviour::Requested(id, request, ResponseChannel { answer, limit })
            }
            Step::Ended(id, result) => ToBehaviour::Served(id, result),
        }
    }

    /// The next exchange that ended by itself.
    fn poll_exchanges(&mut self, cx: &mut Context<'_>) -> Poll<Option<Exchange>> {
        while let Poll::Ready(Some(ended)) = self.exchanges.poll_next_unpin(cx) {
            if let Ok((id, result)) = ended {
                self.stops.remove(&id);
                return Poll::Ready(Some((id, result)));
            }
        }
        Poll::Pending
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<ToBehaviour> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(event);
        }
        if let Poll::Ready(Some((id, result))) = self.poll_exchanges(cx) {
            return Poll::Ready(ToBehaviour::Answered(id, result));
        }
        if let Poll::Ready(Some(step)) = self.serving.poll_next_unpin(cx) {
            return Poll::Ready(self.step(step));
        }
        while let Poll::Ready(Some(())) = self.refusing.poll_next_unpin(cx) {}
        Poll::Pending
    }
}

/// Waits for the application's answer and sends it, or tells the peer that there is none.
async fn serve(
    mut stream: Box<Stream>,
    nonce: [u8; NONCE_BYTES],
    awaited: oneshot::Receiver<Bytes>,
    permit: Permit,
    config: &SpecializedConfig,
) -> Result<(), InboundFailure> {
    let after = config.answer_timeout;
    let refusal = |refusal| {
        SpecializedNodeInviteResponse::refusal(nonce, refusal)
            .encode(config.tuning.max_message_bytes)
            .unwrap_or_default()
    };
    let (wire, result) = match exchange::within(after, awaited).await {
        Some(Ok(wire)) => (wire, Ok(())),
        Some(Err(oneshot::Canceled)) => {
            let wire = refusal(Refusal::Unanswered);
            (wire, Err(InboundFailure::Unanswered))
        }
        None => (refusal(Refusal::Late), Err(InboundFailure::Late { after })),
    };
    // Released before the peer can read the answer, so that its next request finds a permit.
    let send = exchange::send(&mut stream, &wire, || drop(permit));
    let sent = match exchange::within(after, send).await {
        Some(sent) => sent.map_err(InboundFailure::Io),
        None => Err(InboundFailure::NotTaken { after }),
    };
    result.and(sent)
}

impl ConnectionHandler for Handler {
    type FromBehaviour = FromBehaviour;
    type ToBehaviour = ToBehaviour;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = OutboundRequestId;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(Self::protocol(), ())
            .with_timeout(self.shared.config.tuning.receive_timeout)
    }

    fn on_behaviour_event(&mut self, event: FromBehaviour) {
        match event {
            FromBehaviour::Send(id, wire) => self.line.push_back((id, wire)),
            FromBehaviour::Stop(id) => self.stop(id),
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, OutboundRequestId, ToBehaviour>> {
        if let Poll::Ready(event) = self.poll_event(cx) {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        let config = &self.shared.config;
        let busy = self.opening.len() + self.stops.len();
        if busy < config.tuning.max_outbound_per_connection
            && let Some((id, wire)) = self.line.pop_front()
        {
            let protocol =
                SubstreamProtocol::new(Self::protocol(), id).with_timeout(config.request_timeout);
            self.opening.insert(id, wire);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<ToBehaviour>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(Some(event));
        }
        // An answer may have come with the end of the connection. What failed now failed by it.
        while let Poll::Ready(Some((id, result))) = self.poll_exchanges(cx) {
            if result.is_ok() {
                return Poll::Ready(Some(ToBehaviour::Answered(id, result)));
            }
        }
        Poll::Ready(None)
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            Self::InboundProtocol,
            Self::OutboundProtocol,
            (),
            OutboundRequestId,
        >,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol, ..
            }) => self.accept(protocol),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol,
                info,
            }) => self.exchange(info, protocol),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                self.not_opened(info, error);
            }
            // Nothing was negotiated inbound, so there is nothing to end.
            _ => {}
        }
    }
}
