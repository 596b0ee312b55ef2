//! The side that asks: one stream per request, a bounded number of streams and a bounded queue.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    fmt, io,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    FutureExt as _, StreamExt as _,
    future::{AbortHandle, Abortable, BoxFuture},
    stream::FuturesUnordered,
};
use libp2p_core::upgrade::{DeniedUpgrade, ReadyUpgrade};
use libp2p_swarm::{
    ConnectionHandler, ConnectionHandlerEvent, Stream, StreamProtocol, StreamUpgradeError,
    SubstreamProtocol,
    handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedOutbound, ProtocolsChange},
};

use crate::within;

/// Names a request. The behaviour chooses the ids; a handler needs them to be unique among the
/// requests that it holds.
pub type RequestId = u64;

/// Bounds of the requests on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests whose streams are being opened or are open at one time.
    pub max_running: usize,
    /// Requests that wait for one of those to end.
    pub max_waiting: usize,
    /// Time to open the stream, and again from there to the answer.
    pub timeout: Duration,
}

/// The asking side of a protocol.
pub trait Requester: Send + 'static {
    /// What this node sends.
    type Request: fmt::Debug + Send + 'static;
    /// What the peer sends back.
    type Answer: fmt::Debug + Send + 'static;
    /// Why a stream brought no answer.
    type Error: fmt::Debug + From<io::Error> + Send + 'static;

    /// Name of the protocol that is negotiated for each stream.
    fn protocol(&self) -> StreamProtocol;

    /// Bounds of the requests on one connection.
    fn limits(&self) -> Limits;

    /// Sends `request` on `stream` and reads its answer. The future is dropped at the deadline and
    /// when the request is cancelled.
    fn run(
        &self,
        stream: Stream,
        request: Self::Request,
    ) -> impl Future<Output = Result<Self::Answer, Self::Error>> + Send + 'static;
}

/// What a behaviour asks of a [`Handler`].
#[derive(Clone, Debug)]
pub enum Command<R> {
    /// Sends a request. It ends in [`Event::Ended`] unless it is cancelled or the connection closes.
    Send(RequestId, R),
    /// Cancels a request. No event follows. The peer may have served it.
    Cancel(RequestId),
}

/// What a [`Handler`] reports to its behaviour.
#[derive(Debug)]
pub enum Event<A, E = io::Error> {
    /// Whether the peer supports the protocol on this connection, as identify says.
    Supported(bool),
    /// A request of this node ended.
    Ended(RequestId, Result<A, Failure<E>>),
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure<E = io::Error> {
    /// The queue of the connection is full. Nothing was sent.
    #[error("{limit} requests wait on the connection, the most that may")]
    TooMany {
        /// Length of the queue.
        limit: usize,
    },
    /// The peer does not support the protocol.
    #[error("the peer does not support the protocol")]
    Unsupported,
    /// The deadline passed. The peer may have served the request.
    #[error("no answer within {after:?}")]
    TimedOut {
        /// Time that was allowed for the stream or the answer.
        after: Duration,
    },
    /// The stream failed, or carried something else than an answer.
    #[error(transparent)]
    Stream(E),
}

/// The result of a request, as the behaviour gets it.
type Outcome<P> = Result<<P as Requester>::Answer, Failure<<P as Requester>::Error>>;
type HandlerEvent<P> = Event<<P as Requester>::Answer, <P as Requester>::Error>;
type Running<P> = Abortable<BoxFuture<'static, (RequestId, Outcome<P>)>>;

/// Sends the requests of one connection.
pub struct Handler<P: Requester> {
    protocol: P,
    /// In the order in which they are sent.
    waiting: VecDeque<(RequestId, P::Request)>,
    /// Requests whose streams are being opened.
    opening: HashMap<RequestId, P::Request>,
    running: FuturesUnordered<Running<P>>,
    aborts: HashMap<RequestId, AbortHandle>,
    /// At most one for each command or event of the connection, and taken before the next.
    events: VecDeque<HandlerEvent<P>>,
}

impl<P: Requester + fmt::Debug> fmt::Debug for Handler<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler")
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

impl<P: Requester + Default> Default for Handler<P> {
    fn default() -> Self {
        Self::new(P::default())
    }
}

impl<P: Requester> Handler<P> {
    /// A handler for one connection.
    #[must_use]
    pub fn new(protocol: P) -> Self {
        Self {
            protocol,
            waiting: VecDeque::new(),
            opening: HashMap::new(),
            running: FuturesUnordered::new(),
            aborts: HashMap::new(),
            events: VecDeque::new(),
        }
    }

    fn end(&mut self, id: RequestId, failure: Failure<P::Error>) {
        self.events.push_back(Event::Ended(id, Err(failure)));
    }

    fn cancel(&mut self, id: RequestId) {
        self.waiting.retain(|(waiting, _)| *waiting != id);
        self.opening.remove(&id);
        if let Some(running) = self.aborts.remove(&id) {
            running.abort();
        }
    }

    fn on_opened(&mut self, id: RequestId, stream: Stream) {
        let Some(request) = self.opening.remove(&id) else {
            // Cancelled while the stream was being opened.
            return;
        };
        let after = self.protocol.limits().timeout;
        let work = within(after, self.protocol.run(stream, request)).map(move |done| {
            let result = match done {
                Some(answer) => answer.map_err(Failure::Stream),
                None => Err(Failure::TimedOut { after }),
            };
            (id, result)
        });
        let (abort, registration) = AbortHandle::new_pair();
        self.aborts.insert(id, abort);
        self.running
            .push(Abortable::new(work.boxed(), registration));
    }

    fn on_not_opened(&mut self, id: RequestId, error: StreamUpgradeError<Infallible>) {
        if self.opening.remove(&id).is_none() {
            return;
        }
        let failure = match error {
            StreamUpgradeError::Timeout => Failure::TimedOut {
                after: self.protocol.limits().timeout,
            },
            StreamUpgradeError::NegotiationFailed => Failure::Unsupported,
            StreamUpgradeError::Io(error) => Failure::Stream(error.into()),
            StreamUpgradeError::Apply(never) => match never {},
        };
        self.end(id, failure);
    }

    fn on_protocols_change(&mut self, change: ProtocolsChange<'_>) {
        let own = self.protocol.protocol();
        let (mut names, supported) = match change {
            ProtocolsChange::Added(names) => (names, true),
            ProtocolsChange::Removed(names) => {
                // A different iterator type, so it cannot share the line below.
                if names.into_iter().any(|name| *name == own) {
                    self.events.push_back(Event::Supported(false));
                }
                return;
            }
        };
        if names.any(|name| *name == own) {
            self.events.push_back(Event::Supported(supported));
        }
    }

    /// The next request that ended and was not cancelled.
    fn poll_running(&mut self, cx: &mut Context<'_>) -> Poll<HandlerEvent<P>> {
        while let Poll::Ready(Some(ended)) = self.running.poll_next_unpin(cx) {
            if let Ok((id, result)) = ended {
                self.aborts.remove(&id);
                return Poll::Ready(Event::Ended(id, result));
            }
        }
        Poll::Pending
    }
}

impl<P: Requester> ConnectionHandler for Handler<P> {
    type FromBehaviour = Command<P::Request>;
    type ToBehaviour = HandlerEvent<P>;
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = RequestId;

    fn listen_protocol(&self) -> SubstreamProtocol<DeniedUpgrade> {
        // A selection of handlers waits as long as the slowest of them needs; this one
        // accepts no stream.
        SubstreamProtocol::new(DeniedUpgrade, ()).with_timeout(Duration::ZERO)
    }

    fn on_behaviour_event(&mut self, command: Self::FromBehaviour) {
        match command {
            Command::Send(id, request) => {
                let limit = self.protocol.limits().max_waiting;
                if self.waiting.len() < limit {
                    self.waiting.push_back((id, request));
                } else {
                    self.end(id, Failure::TooMany { limit });
                }
            }
            Command::Cancel(id) => self.cancel(id),
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, RequestId, Self::ToBehaviour>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        if let Poll::Ready(event) = self.poll_running(cx) {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        let limits = self.protocol.limits();
        if self.opening.len() + self.aborts.len() < limits.max_running
            && let Some((id, request)) = self.waiting.pop_front()
        {
            self.opening.insert(id, request);
            let upgrade = ReadyUpgrade::new(self.protocol.protocol());
            let protocol = SubstreamProtocol::new(upgrade, id).with_timeout(limits.timeout);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(Some(event));
        }
        // An answer may have arrived with the end of the connection. A request that fails now
        // failed because of it, which the behaviour knows.
        while let Poll::Ready(event) = self.poll_running(cx) {
            if let Event::Ended(_, Ok(_)) = event {
                return Poll::Ready(Some(event));
            }
        }
        Poll::Ready(None)
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, DeniedUpgrade, Self::OutboundProtocol, (), RequestId>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol,
                info,
            }) => self.on_opened(info, protocol),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                self.on_not_opened(info, error);
            }
            ConnectionEvent::RemoteProtocolsChange(change) => self.on_protocols_change(change),
            _ => {}
        }
    }
}
