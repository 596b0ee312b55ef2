//! Both sides of the invite protocol on one connection: what a stream carries,
//! for the request-response handlers of `calimero-network-exchange`.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use calimero_network_exchange::{inbound, outbound, within};
use calimero_network_primitives::{
    ProtocolId,
    resources::{Holder, Permit, Resource},
};
use futures::{
    FutureExt,
    channel::oneshot::{self, Canceled},
    future::BoxFuture,
};
use libp2p_swarm::{ConnectionHandlerSelect, Stream, StreamProtocol};

use crate::{
    codec::Message,
    config::SpecializedConfig,
    exchange,
    failure::{InboundFailure, OutboundFailure, RespondError},
    message::{NONCE_BYTES, Refusal, SpecializedNodeInviteRequest, SpecializedNodeInviteResponse},
};

/// The handler of one connection.
pub(crate) type Handler =
    ConnectionHandlerSelect<inbound::Handler<Server>, outbound::Handler<Client>>;

fn protocol() -> StreamProtocol {
    StreamProtocol::new(ProtocolId::SpecializedNodeInvite.as_str())
}

/// Identifier of an inbound request, unique within one behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InboundRequestId(pub(crate) inbound::RequestId);

impl fmt::Display for InboundRequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The channel for the response to an inbound request. Dropping it sends a
/// refusal to the peer.
#[derive(Debug)]
pub struct ResponseChannel {
    pub(crate) answer: oneshot::Sender<Bytes>,
    pub(crate) limit: usize,
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

/// The requesting side. Requests and responses are encoded outside.
#[derive(Debug)]
pub struct Client(pub(crate) Arc<SpecializedConfig>);

impl outbound::Requester for Client {
    type Request = Bytes;
    type Answer = SpecializedNodeInviteResponse;
    type Error = OutboundFailure;

    fn protocol(&self) -> StreamProtocol {
        protocol()
    }

    fn limits(&self) -> outbound::Limits {
        outbound::Limits {
            max_running: self.0.tuning.max_outbound_per_connection,
            // The behaviour bounds the requests to all peers by the same number.
            max_waiting: self.0.tuning.max_outbound,
            timeout: self.0.request_timeout,
        }
    }

    fn run(
        &self,
        stream: Stream,
        request: Bytes,
    ) -> impl Future<Output = Result<SpecializedNodeInviteResponse, OutboundFailure>> + Send + 'static
    {
        exchange::request(stream, request, self.0.tuning.max_message_bytes)
    }
}

/// The serving side.
#[derive(Debug)]
pub struct Server {
    pub(crate) config: Arc<SpecializedConfig>,
    /// The scopes in which requests of the peer count.
    pub(crate) holder: Holder,
}

/// A stream whose request has arrived.
#[derive(Debug)]
pub struct Pending {
    stream: Box<Stream>,
    nonce: [u8; NONCE_BYTES],
    permit: Permit,
}

impl inbound::Responder for Server {
    type Request = SpecializedNodeInviteRequest;
    type Answer = Bytes;
    type Permit = Permit;
    type Pending = Pending;
    type Failure = InboundFailure;

    fn protocol(&self) -> StreamProtocol {
        protocol()
    }

    fn timeout(&self) -> Duration {
        self.config.tuning.receive_timeout
    }

    fn admit(&mut self) -> Result<Permit, InboundFailure> {
        let permit = self.holder.take(Resource::InviteRequests, 1);
        permit.map_err(|refused| InboundFailure::TooMany {
            limit: usize::try_from(refused.limit).unwrap_or(usize::MAX),
            scope: refused.scope,
        })
    }

    fn refuse(&self, stream: Stream, _: &InboundFailure) -> Option<BoxFuture<'static, ()>> {
        let time = self.config.tuning.receive_timeout;
        Some(exchange::refuse_request(stream, Refusal::Busy, time).boxed())
    }

    fn receive(
        &self,
        stream: Stream,
        permit: Permit,
    ) -> impl Future<Output = Result<(SpecializedNodeInviteRequest, Pending), InboundFailure>>
    + Send
    + 'static {
        let tuning = &self.config.tuning;
        let (limit, time) = (tuning.max_message_bytes, tuning.receive_timeout);
        async move {
            let mut stream = Box::new(stream);
            let request = exchange::receive_request(&mut stream, limit, time).await?;
            let pending = Pending {
                nonce: *request.nonce(),
                stream,
                permit,
            };
            Ok((request, pending))
        }
    }

    fn respond(
        &self,
        pending: Pending,
        answer: oneshot::Receiver<Bytes>,
    ) -> impl Future<Output = Result<(), InboundFailure>> + Send + 'static {
        respond(pending, answer, self.config.clone())
    }
}

/// Waits for the response of the application and sends it, or sends a refusal.
async fn respond(
    mut pending: Pending,
    answer: oneshot::Receiver<Bytes>,
    config: Arc<SpecializedConfig>,
) -> Result<(), InboundFailure> {
    let after = config.answer_timeout;
    let refusal = |refusal| {
        SpecializedNodeInviteResponse::refusal(pending.nonce, refusal)
            .encode(config.tuning.max_message_bytes)
            .unwrap_or_default()
    };
    let (wire, result) = match within(after, answer).await {
        Some(Ok(wire)) => (wire, Ok(())),
        Some(Err(Canceled)) => {
            let wire = refusal(Refusal::Unanswered);
            (wire, Err(InboundFailure::Unanswered))
        }
        None => (refusal(Refusal::Late), Err(InboundFailure::Late { after })),
    };
    // Released before the peer can read the answer, so that its next request finds a permit.
    let permit = pending.permit;
    let send = exchange::send(&mut pending.stream, &wire, || drop(permit));
    let sent = match within(after, send).await {
        Some(sent) => sent.map_err(InboundFailure::Io),
        None => Err(InboundFailure::NotTaken { after }),
    };
    result.and(sent)
}
