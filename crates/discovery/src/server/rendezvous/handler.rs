//! The requests of one connection.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use calimero_network_primitives::{PeerId, Place, Places, config::RendezvousServerConfig};
use futures::{
    FutureExt as _, StreamExt as _, channel::oneshot, future::BoxFuture, stream::FuturesUnordered,
};
use futures_timer::Delay;
use libp2p_core::upgrade::{DeniedUpgrade, ReadyUpgrade};
use libp2p_swarm::{
    ConnectionHandler, ConnectionHandlerEvent, Stream, StreamProtocol, SubstreamProtocol,
    handler::{ConnectionEvent, FullyNegotiatedInbound},
};

use super::{
    exchange::{self, Failure, REQUEST_OVERHEAD_BYTES},
    record,
    throttle::Throttle,
    wire::{self, AnswerKind, DecodeError, Refusal, Request},
};
use crate::server::now;

/// The protocol's name.
const PROTOCOL: StreamProtocol = StreamProtocol::new("/rendezvous/1.0.0");

/// What the connections of one behaviour share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) config: Arc<RendezvousServerConfig>,
    pub(super) serving: Places,
}

/// Nothing: a behaviour answers through the channel of the request.
pub type FromBehaviour = Infallible;

/// What a connection tells the behaviour.
#[derive(Debug)]
pub enum ToBehaviour {
    /// A peer asks. A record in the request is its own and verified.
    Asked {
        /// What.
        request: Request,
        /// Takes the answer; empty for what has none.
        answer: oneshot::Sender<Bytes>,
    },
    /// A peer was refused before its request came this far.
    Refused {
        /// What it asked for.
        request: AnswerKind,
        /// Why.
        refusal: Refusal,
    },
    /// A stream carried no request, or took no answer.
    Failed(Failure),
}

/// How far a stream has come.
enum Step {
    /// The request is here, and the stream that the answer goes to.
    Received(Request, Box<Served>),
    /// The refusal has been sent.
    Refused(AnswerKind, Refusal),
    Failed(Failure),
    Done,
}

/// A stream being served.
struct Served {
    stream: Stream,
    deadline: Delay,
    after: Duration,
    _places: [Place; 2],
}

/// Serves the requests of one connection.
pub struct Handler {
    peer: PeerId,
    shared: Shared,
    under_way: Places,
    throttle: Throttle,
    serving: FuturesUnordered<BoxFuture<'static, Step>>,
    /// At most one for each stream event, and drained before the next.
    events: VecDeque<ToBehaviour>,
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").finish_non_exhaustive()
    }
}

impl Handler {
    pub(super) fn new(peer: PeerId, shared: Shared) -> Self {
        Self {
            peer,
            throttle: Throttle::new(
                shared.config.request_burst,
                shared.config.requests_per_second,
            ),
            shared,
            under_way: Places::default(),
            serving: FuturesUnordered::new(),
            events: VecDeque::new(),
        }
    }

    /// A peer has opened a stream. What is refused here is reset: there is nothing to answer yet.
    fn accept(&mut self, stream: Stream) {
        let places = match self.admit() {
            Ok(places) => places,
            Err(limit) => return self.fail(Failure::TooMany { limit }),
        };
        let config = &self.shared.config;
        let after = config.request_timeout;
        let Some(wait) = self.throttle.admit(now(), after) else {
            return self.fail(Failure::TooFast);
        };
        let served = Served {
            stream,
            deadline: Delay::new(after),
            after,
            _places: places,
        };
        let limit = config.max_record_bytes + REQUEST_OVERHEAD_BYTES;
        let peer = self.peer;
        self.serving
            .push(receive(served, wait, limit, peer).boxed());
    }

    /// The places of one request, among those of this connection and among all; or the limit that
    /// is reached.
    fn admit(&self) -> Result<[Place; 2], usize> {
        let config = &self.shared.config;
        let take = |places: &Places, limit| places.take(limit).ok_or(limit);
        Ok([
            take(&self.under_way, config.max_requests_per_connection)?,
            take(&self.shared.serving, config.max_requests)?,
        ])
    }

    fn fail(&mut self, failure: Failure) {
        self.events.push_back(ToBehaviour::Failed(failure));
    }

    /// What a step means for the behaviour.
    fn step(&mut self, step: Step) -> Option<ToBehaviour> {
        match step {
            Step::Received(request, served) => {
                let (answer, awaited) = oneshot::channel();
                self.serving.push(respond(served, awaited).boxed());
                Some(ToBehaviour::Asked { request, answer })
            }
            Step::Refused(request, refusal) => Some(ToBehaviour::Refused { request, refusal }),
            Step::Failed(failure) => Some(ToBehaviour::Failed(failure)),
            Step::Done => None,
        }
    }
}

/// Waits for its turn, reads the request and verifies what can be without the registry.
async fn receive(mut served: Served, wait: Duration, limit: usize, peer: PeerId) -> Step {
    let Served {
        stream,
        deadline,
        after,
        ..
    } = &mut served;
    let read = async {
        if !wait.is_zero() {
            Delay::new(wait).await;
        }
        exchange::read(stream, limit).await
    };
    let message = match exchange::by(deadline, *after, read).await {
        Ok(message) => message,
        Err(failure) => return Step::Failed(failure),
    };
    let (request, refusal) = match wire::decode(&message) {
        Ok(request) => match check(&request, peer) {
            Ok(()) => return Step::Received(request, Box::new(served)),
            Err(refusal) => (kind(&request), refusal),
        },
        Err(DecodeError::Malformed) => return Step::Failed(Failure::Malformed),
        Err(DecodeError::Refused { answer, refusal }) => (answer, refusal),
    };
    let answer = wire::encode_refusal(request, refusal).unwrap_or_default();
    match exchange::by(deadline, *after, exchange::answer(stream, &answer)).await {
        Ok(()) => Step::Refused(request, refusal),
        Err(failure) => Step::Failed(failure),
    }
}

/// Whether a record is the peer's own.
fn check(request: &Request, peer: PeerId) -> Result<(), Refusal> {
    match request {
        Request::Register { record, .. } => match record::verify(record)? {
            signer if signer == peer => Ok(()),
            _ => Err(Refusal::NotAuthorized),
        },
        Request::Unregister { .. } | Request::Discover { .. } => Ok(()),
    }
}

/// Which answer a request has.
pub(super) fn kind(request: &Request) -> AnswerKind {
    match request {
        Request::Register { .. } => AnswerKind::Register,
        Request::Unregister { .. } => AnswerKind::Unregister,
        Request::Discover { .. } => AnswerKind::Discover,
    }
}

/// Waits for the behaviour's answer and sends it.
async fn respond(mut served: Box<Served>, awaited: oneshot::Receiver<Bytes>) -> Step {
    let Served {
        stream,
        deadline,
        after,
        ..
    } = &mut *served;
    let work = async {
        // A behaviour that is gone answers nothing.
        let answer = awaited.await.unwrap_or_default();
        exchange::answer(stream, &answer).await
    };
    match exchange::by(deadline, *after, work).await {
        Ok(()) => Step::Done,
        Err(failure) => Step::Failed(failure),
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = FromBehaviour;
    type ToBehaviour = ToBehaviour;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
            .with_timeout(self.shared.config.request_timeout)
    }

    fn on_behaviour_event(&mut self, never: FromBehaviour) {
        match never {}
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), ToBehaviour>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        while let Poll::Ready(Some(step)) = self.serving.poll_next_unpin(cx) {
            if let Some(event) = self.step(step) {
                return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
            }
        }
        Poll::Pending
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
            protocol: stream,
            ..
        }) = event
        {
            self.accept(stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearer_limit_refuses_and_dropping_frees_both() {
        let shared = Shared {
            config: Arc::new(RendezvousServerConfig {
                max_requests_per_connection: 2,
                max_requests: 3,
                ..RendezvousServerConfig::default()
            }),
            serving: Places::default(),
        };
        let handler = || Handler::new(PeerId::random(), shared.clone());
        let (one, other) = (handler(), handler());
        let first = one.admit().unwrap();
        let _second = one.admit().unwrap();
        assert_eq!(one.admit().unwrap_err(), 2);
        let _third = other.admit().unwrap();
        assert_eq!(other.admit().unwrap_err(), 3);
        drop(first);
        assert_eq!((one.under_way.taken(), shared.serving.taken()), (1, 2));
        let _fourth = other.admit().unwrap();
    }
}
