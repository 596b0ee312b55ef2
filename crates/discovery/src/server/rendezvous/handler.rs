//! The answering side of `/rendezvous/1.0.0` on one connection.

use std::{io, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use calimero_network_exchange::inbound;
use calimero_network_primitives::{
    PeerId,
    config::RendezvousServerConfig,
    resources::{self, Holder, Refused, Resource},
};
use futures::{
    AsyncWriteExt as _,
    channel::oneshot,
    future::{Either, select},
};
use futures_timer::Delay;
use libp2p_swarm::{Stream, StreamProtocol};

use super::{record, throttle::Throttle};
use crate::{
    server::now,
    wire::{
        frame::{self, FrameError},
        rendezvous::{self as wire, AnswerKind, DecodeError, Refusal, Request},
    },
};

/// Bytes of a request besides its record: a namespace (255), a cookie (1,024) and unknown fields.
const REQUEST_OVERHEAD_BYTES: usize = 2048;

/// The handler of one connection.
pub type Handler = inbound::Handler<Server>;

/// The reason why a stream carried no request, or why its answer was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The bytes are not a request.
    #[error("not a request of /rendezvous/1.0.0")]
    Malformed,
    /// The request is longer than any valid request.
    #[error("a request of {claimed} bytes; at most {limit} are accepted")]
    TooLong {
        /// Length that the peer announced, in bytes.
        claimed: usize,
        /// Longest request that is read, in bytes.
        limit: usize,
    },
    /// The deadline of the request passed.
    #[error("not done within {} ms", after.as_millis())]
    Late {
        /// Time that a request has from its stream to its answer.
        after: Duration,
    },
    /// The limit of concurrent requests is reached for the peer, its origin or the node.
    #[error(transparent)]
    TooMany(#[from] Refused),
    /// The peer sends requests above the rate limit, and this one would wait past its deadline.
    #[error("the rate limit of requests is exceeded")]
    TooFast,
    /// The stream failed or was reset.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<FrameError> for Failure {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Length => Self::Malformed,
            FrameError::TooLong { claimed, limit } => Self::TooLong { claimed, limit },
            FrameError::Io(error) => Self::Io(error),
        }
    }
}

/// The reason why a request did not reach the registry, or why its answer did not reach the peer.
#[derive(Debug)]
pub enum NotServed {
    /// The request was answered with a refusal before it reached the registry.
    Refused(AnswerKind, Refusal),
    /// No answer was sent.
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for NotServed {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The state that all connections of one behaviour share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) config: Arc<RendezvousServerConfig>,
    pub(super) ids: inbound::Ids,
}

impl Shared {
    /// The handler of a new connection with `peer`, whose requests count for `holder`.
    pub(super) fn handler(&self, peer: PeerId, holder: Holder) -> Handler {
        inbound::Handler::new(Server::new(peer, holder, self.clone()), self.ids.clone())
    }
}

/// Serves the requests of one connection: admits and throttles them, reads them, and verifies what
/// needs no registry. A record that reaches the registry is signed by the peer itself.
#[derive(Debug)]
pub struct Server {
    peer: PeerId,
    shared: Shared,
    holder: Holder,
    throttle: Throttle,
}

/// What a stream holds until its end: the permit, and the wait that the throttle imposes.
pub struct Permit {
    _permit: resources::Permit,
    wait: Duration,
}

/// A stream whose request has arrived.
pub struct Pending {
    stream: Stream,
    deadline: Delay,
    _permit: Permit,
}

impl Server {
    fn new(peer: PeerId, holder: Holder, shared: Shared) -> Self {
        let config = &shared.config;
        Self {
            peer,
            throttle: Throttle::new(
                config.tuning.request_burst,
                config.tuning.requests_per_second,
            ),
            holder,
            shared,
        }
    }
}

impl inbound::Responder for Server {
    type Request = Request;
    /// Empty for a request that has no answer.
    type Answer = Bytes;
    type Permit = Permit;
    type Pending = Pending;
    type Failure = NotServed;

    fn protocol(&self) -> StreamProtocol {
        StreamProtocol::new(wire::PROTOCOL)
    }

    fn timeout(&self) -> Duration {
        self.shared.config.tuning.request_timeout
    }

    fn admit(&mut self) -> Result<Permit, NotServed> {
        let permit = self.holder.take(Resource::RendezvousRequests, 1);
        let permit = permit.map_err(Failure::TooMany)?;
        let wait = self.throttle.admit(now(), self.timeout());
        Ok(Permit {
            _permit: permit,
            wait: wait.ok_or(Failure::TooFast)?,
        })
    }

    fn receive(
        &self,
        mut stream: Stream,
        permit: Permit,
    ) -> impl Future<Output = Result<(Request, Pending), NotServed>> + Send + 'static {
        let (after, peer) = (self.timeout(), self.peer);
        let limit = self.shared.config.tuning.max_record_bytes + REQUEST_OVERHEAD_BYTES;
        async move {
            // One deadline for the whole exchange, the wait of the throttle included.
            let mut deadline = Delay::new(after);
            let received = async {
                if !permit.wait.is_zero() {
                    Delay::new(permit.wait).await;
                }
                let message = frame::read(&mut stream, limit).await?;
                let refused = match wire::decode(&message) {
                    Ok(request) => match check(&request, peer) {
                        Ok(()) => return Ok(request),
                        Err(refusal) => (request.answer(), refusal),
                    },
                    Err(DecodeError::Malformed(_)) => return Err(Failure::Malformed.into()),
                    Err(DecodeError::Refused { answer, refusal }) => (answer, refusal),
                };
                let (answer, refusal) = refused;
                let refusal_bytes = wire::encode_refusal(answer, refusal).unwrap_or_default();
                send(&mut stream, &refusal_bytes).await?;
                Err(NotServed::Refused(answer, refusal))
            };
            let request = by(&mut deadline, after, received).await?;
            let pending = Pending {
                stream,
                deadline,
                _permit: permit,
            };
            Ok((request, pending))
        }
    }

    fn respond(
        &self,
        pending: Pending,
        answer: oneshot::Receiver<Bytes>,
    ) -> impl Future<Output = Result<(), NotServed>> + Send + 'static {
        let after = self.timeout();
        async move {
            let Pending {
                mut stream,
                mut deadline,
                _permit,
            } = pending;
            let work = async {
                // The behaviour always answers, unless it was dropped.
                let answer = answer.await.unwrap_or_default();
                Ok(send(&mut stream, &answer).await?)
            };
            by(&mut deadline, after, work).await
        }
    }
}

/// Returns whether the record of a registration is the peer's own.
fn check(request: &Request, peer: PeerId) -> Result<(), Refusal> {
    match request {
        Request::Register { record, .. } => match record::verify(record)? {
            signer if signer == peer => Ok(()),
            _ => Err(Refusal::NotAuthorized),
        },
        Request::Unregister { .. } | Request::Discover { .. } => Ok(()),
    }
}

/// Returns the result of `work`, unless `deadline` passes first.
async fn by<T>(
    deadline: &mut Delay,
    after: Duration,
    work: impl Future<Output = Result<T, NotServed>>,
) -> Result<T, NotServed> {
    match select(pin!(work), deadline).await {
        Either::Left((result, _)) => result,
        Either::Right(_) => Err(Failure::Late { after }.into()),
    }
}

/// Sends an answer and ends the stream.
async fn send(stream: &mut Stream, answer: &[u8]) -> io::Result<()> {
    stream.write_all(answer).await?;
    stream.close().await
}
