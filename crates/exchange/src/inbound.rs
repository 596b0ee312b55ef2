//! The side that answers: a permit before the first byte is read, then the request, then the
//! answer of the behaviour.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    FutureExt as _, StreamExt as _, channel::oneshot, future::BoxFuture, stream::FuturesUnordered,
};
use libp2p_core::upgrade::{DeniedUpgrade, ReadyUpgrade};
use libp2p_swarm::{
    ConnectionHandler, ConnectionHandlerEvent, Stream, StreamProtocol, SubstreamProtocol,
    handler::{ConnectionEvent, FullyNegotiatedInbound},
};

/// Streams of one connection on which a refusal is being sent. Each holds some hundred
/// bytes; a refused stream above this number is reset without a reason.
const MAX_REFUSALS: usize = 8;

/// Names a request. Unique among the requests of all handlers that share one [`Ids`].
pub type RequestId = u64;

/// The source of request ids. Clones share one counter.
#[derive(Clone, Debug, Default)]
pub struct Ids(Arc<AtomicU64>);

impl Ids {
    fn next(&self) -> RequestId {
        // The counter orders nothing but itself.
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// The answering side of a protocol.
pub trait Responder: fmt::Debug + Send + 'static {
    /// What a peer sends.
    type Request: fmt::Debug + Send + 'static;
    /// What the behaviour gives back.
    type Answer: fmt::Debug + Send + 'static;
    /// What a stream holds from its first byte to its last, for instance permits.
    type Permit: Send + 'static;
    /// A stream whose request has arrived, with what it holds.
    type Pending: Send + 'static;
    /// Why a stream was refused or not served.
    type Failure: fmt::Debug + Send + 'static;

    /// Name of the protocol that is negotiated for each stream.
    fn protocol(&self) -> StreamProtocol;

    /// Time that a peer has to negotiate the protocol of a stream.
    fn timeout(&self) -> Duration;

    /// Decides whether another stream is served, before anything of it is read.
    ///
    /// # Errors
    ///
    /// The reason why not. The stream is then passed to [`refuse`](Self::refuse).
    fn admit(&mut self) -> Result<Self::Permit, Self::Failure>;

    /// Sends the reason why a stream is refused. `None`, the default, resets the stream.
    fn refuse(&self, stream: Stream, failure: &Self::Failure) -> Option<BoxFuture<'static, ()>> {
        let _ = (stream, failure);
        None
    }

    /// Reads a request. Must end within a deadline of its own.
    fn receive(
        &self,
        stream: Stream,
        permit: Self::Permit,
    ) -> impl Future<Output = Result<(Self::Request, Self::Pending), Self::Failure>> + Send + 'static;

    /// Waits for the behaviour's answer and sends it. Must end within a deadline of its own.
    ///
    /// `answer` is cancelled where the behaviour dropped the other end.
    fn respond(
        &self,
        pending: Self::Pending,
        answer: oneshot::Receiver<Self::Answer>,
    ) -> impl Future<Output = Result<(), Self::Failure>> + Send + 'static;
}

/// What a [`Handler`] reports to its behaviour. Each stream ends in exactly one
/// [`Ended`](Self::Ended), unless the connection closes before.
#[derive(Debug)]
pub enum Event<P: Responder> {
    /// A request of the peer arrived.
    Request {
        /// Id of the request in the event that ends it.
        id: RequestId,
        /// The request, as [`Responder::receive`] read it.
        request: P::Request,
        /// Takes the answer, from any task.
        answer: oneshot::Sender<P::Answer>,
    },
    /// The answer was sent, or a stream was refused or not served. A stream without a request
    /// before is one that was refused or not understood.
    Ended {
        /// Id of the request.
        id: RequestId,
        /// The failure, if there was one.
        result: Result<(), P::Failure>,
    },
}

/// How far a stream has come.
enum Step<P: Responder> {
    Received(RequestId, P::Request, P::Pending),
    Ended(RequestId, Result<(), P::Failure>),
}

/// Serves the requests of one connection.
pub struct Handler<P: Responder> {
    protocol: P,
    ids: Ids,
    serving: FuturesUnordered<BoxFuture<'static, Step<P>>>,
    refusing: FuturesUnordered<BoxFuture<'static, ()>>,
    /// At most one for each stream that is refused, and taken before the next.
    events: VecDeque<Event<P>>,
}

impl<P: Responder> fmt::Debug for Handler<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").finish_non_exhaustive()
    }
}

impl<P: Responder> Handler<P> {
    /// A handler for one connection. `ids` is shared by the handlers of one behaviour.
    #[must_use]
    pub fn new(protocol: P, ids: Ids) -> Self {
        Self {
            protocol,
            ids,
            serving: FuturesUnordered::new(),
            refusing: FuturesUnordered::new(),
            events: VecDeque::new(),
        }
    }

    fn on_opened(&mut self, stream: Stream) {
        let id = self.ids.next();
        match self.protocol.admit() {
            Ok(permit) => {
                let receive = self.protocol.receive(stream, permit);
                let step = receive.map(move |received| match received {
                    Ok((request, pending)) => Step::Received(id, request, pending),
                    Err(failure) => Step::Ended(id, Err(failure)),
                });
                self.serving.push(step.boxed());
            }
            Err(failure) => {
                if self.refusing.len() < MAX_REFUSALS
                    && let Some(refusal) = self.protocol.refuse(stream, &failure)
                {
                    self.refusing.push(refusal);
                }
                let result = Err(failure);
                self.events.push_back(Event::Ended { id, result });
            }
        }
    }

    fn on_step(&mut self, step: Step<P>) -> Event<P> {
        match step {
            Step::Received(id, request, pending) => {
                let (answer, awaited) = oneshot::channel();
                let respond = self.protocol.respond(pending, awaited);
                let step = respond.map(move |result| Step::Ended(id, result));
                self.serving.push(step.boxed());
                Event::Request {
                    id,
                    request,
                    answer,
                }
            }
            Step::Ended(id, result) => Event::Ended { id, result },
        }
    }
}

impl<P: Responder> ConnectionHandler for Handler<P> {
    type FromBehaviour = Infallible;
    type ToBehaviour = Event<P>;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.protocol()), ())
            .with_timeout(self.protocol.timeout())
    }

    fn on_behaviour_event(&mut self, never: Infallible) {
        match never {}
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), Event<P>>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        if let Poll::Ready(Some(step)) = self.serving.poll_next_unpin(cx) {
            let event = self.on_step(step);
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        while let Poll::Ready(Some(())) = self.refusing.poll_next_unpin(cx) {}
        Poll::Pending
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, DeniedUpgrade>,
    ) {
        if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
            protocol: stream,
            ..
        }) = event
        {
            self.on_opened(stream);
        }
    }
}
