//! The handler of one connection: outbound requests and inbound requests being
//! served.

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
    codec::Message,
    config::SpecializedConfig,
    exchange,
    failure::{InboundFailure, OutboundFailure, RespondError},
    message::{NONCE_BYTES, Refusal, SpecializedNodeInviteRequest, SpecializedNodeInviteResponse},
    outbound::OutboundRequestId,
};

/// Largest number of streams of one connection on which refusals are sent at
/// one time. Each needs a few hundred bytes. Further streams are reset without
/// a refusal.
const MAX_REFUSALS: usize = 8;

/// Identifier of an inbound request, unique within one behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InboundRequestId(u64);

impl fmt::Display for InboundRequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The channel for the response to an inbound request. Dropping it sends a
/// refusal to the peer.
#[derive(Debug)]
pub struct ResponseChannel {
    answer: oneshot::Sender<Bytes>,
    limit: usize,
}

impl ResponseChannel {
    /// Sends the response. An [`Event`](crate::Event) with the id of the
    /// request reports whether it was delivered.
    ///
    /// # Errors
    ///
    /// [`RespondError::Response`] if the response is too large; the peer gets a
    /// refusal. [`RespondError::Closed`] if the requester no longer waits.
    pub fn send(self, response: &SpecializedNodeInviteResponse) -> Result<(), RespondError> {
        let wire = response.encode(self.limit)?;
        self.answer.send(wire).map_err(|_| RespondError::Closed)
    }

    /// Returns `true` if the requester still waits for the response.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.answer.is_canceled()
    }
}

/// State that the connections of one behaviour share.
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

/// Commands of the behaviour to a connection handler.
#[derive(Debug)]
pub enum FromBehaviour {
    /// Send the request with this id.
    Send(OutboundRequestId, Bytes),
    /// Stop the exchange of the request.
    Stop(OutboundRequestId),
}

/// Events of a connection handler for the behaviour.
#[derive(Debug)]
pub enum ToBehaviour {
    /// An outbound request ended.
    Answered(
        OutboundRequestId,
        Result<SpecializedNodeInviteResponse, OutboundFailure>,
    ),
    /// An inbound request was received.
    Requested(
        InboundRequestId,
        SpecializedNodeInviteRequest,
        ResponseChannel,
    ),
    /// An inbound request ended.
    Served(InboundRequestId, Result<(), InboundFailure>),
}

/// Result of one step of serving an inbound request.
enum Step {
    /// The request was received; the response is written to the stream.
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
    /// Queue of requests that wait for capacity, and requests with a stream
    /// that is being opened.
    queue: VecDeque<(OutboundRequestId, Bytes)>,
    opening: HashMap<OutboundRequestId, Bytes>,
    /// Requests that wait for their response.
    stops: HashMap<OutboundRequestId, AbortHandle>,
    exchanges: FuturesUnordered<Abortable<BoxFuture<'static, Exchange>>>,
    /// The scopes in which requests of the peer count.
    holder: Holder,
    serving: FuturesUnordered<BoxFuture<'static, Step>>,
    refusing: FuturesUnordered<BoxFuture<'static, ()>>,
    /// At most one event per stream event, taken before the next one is
    /// handled.
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
            queue: VecDeque::new(),
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
        self.queue.retain(|(waiting, _)| *waiting != id);
        self.opening.remove(&id);
        if let Some(stop) = self.stops.remove(&id) {
            stop.abort();
        }
    }

    /// Starts the exchange of request `id` on its open stream.
    fn start_exchange(&mut self, id: OutboundRequestId, stream: Stream) {
        let Some(wire) = self.opening.remove(&id) else {
            // Cancelled while the stream was being opened.
            return;
        };
        let limit = self.shared.config.tuning.max_message_bytes;
        let work = async move { (id, exchange::request(stream, wire, limit).await) };
        let (stop, registration) = AbortHandle::new_pair();
        self.stops.insert(id, stop);
        self.exchanges
            .push(Abortable::new(work.boxed(), registration));
    }

    /// Handles a stream that could not be opened.
    fn on_open_failed(
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

    /// Serves or refuses a request on a new inbound stream.
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

    /// Returns the next exchange that was not stopped.
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

/// Waits for the response of the application and sends it, or sends a refusal.
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
            FromBehaviour::Send(id, wire) => self.queue.push_back((id, wire)),
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
            && let Some((id, wire)) = self.queue.pop_front()
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
        // A response may have arrived together with the end of the connection.
        // Failures are reported as `ConnectionClosed` instead.
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
            }) => self.start_exchange(info, protocol),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                self.on_open_failed(info, error);
            }
            // A failed inbound negotiation has no request to end.
            _ => {}
        }
    }
}
