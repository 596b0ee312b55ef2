//! Asking a peer something: one stream per question, a deadline for each.

use std::{
    collections::VecDeque,
    fmt, io,
    marker::PhantomData,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    FutureExt, StreamExt,
    future::{self, BoxFuture, Either},
    stream::FuturesUnordered,
};
use futures_timer::Delay;
use libp2p_core::upgrade::{DeniedUpgrade, ReadyUpgrade};
use libp2p_swarm::{
    ConnectionHandler, ConnectionHandlerEvent, Stream, StreamProtocol, SubstreamProtocol,
    handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedOutbound, ProtocolsChange},
};

/// Questions under way at one time on one connection.
const MAX_RUNNING: usize = 8;

/// Questions that wait for others on one connection: a round of discoveries, a full server's
/// registrations, and as many again.
const MAX_WAITING: usize = 256;

/// A kind of question.
pub trait Exchange: 'static {
    type Request: fmt::Debug + Send + 'static;
    type Answer: fmt::Debug + Send + 'static;

    const PROTOCOL: StreamProtocol;

    /// From the opening of the stream on.
    const TIMEOUT: Duration;

    fn run(stream: Stream, request: Self::Request) -> BoxFuture<'static, io::Result<Self::Answer>>;
}

/// Names a question.
pub(super) type Id = u64;

/// What the handler tells.
#[derive(Debug)]
pub enum Told<A> {
    /// Whether the peer answers questions of this kind on this connection.
    Supported(bool),
    /// A question has ended.
    Answer(Id, io::Result<A>),
}

type Running<A> = BoxFuture<'static, (Id, io::Result<A>)>;

/// Asks on one connection.
pub struct Handler<E: Exchange> {
    waiting: VecDeque<(Id, E::Request)>,
    /// Streams that are being opened.
    opening: usize,
    running: FuturesUnordered<Running<E::Answer>>,
    told: VecDeque<Told<E::Answer>>,
    kind: PhantomData<fn() -> E>,
}

impl<E: Exchange> Default for Handler<E> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            opening: 0,
            running: FuturesUnordered::new(),
            told: VecDeque::new(),
            kind: PhantomData,
        }
    }
}

impl<E: Exchange> Handler<E> {
    fn opened(&mut self, stream: Stream, (id, request): (Id, E::Request)) {
        self.opening = self.opening.saturating_sub(1);
        let exchange = future::select(E::run(stream, request), Delay::new(E::TIMEOUT));
        let answer = exchange.map(move |first| match first {
            Either::Left((answer, _)) => (id, answer),
            Either::Right(_) => (id, Err(io::ErrorKind::TimedOut.into())),
        });
        self.running.push(answer.boxed());
    }

    fn failed(&mut self, id: Id, kind: io::ErrorKind) {
        self.told.push_back(Told::Answer(id, Err(kind.into())));
    }
}

impl<E: Exchange> ConnectionHandler for Handler<E> {
    type FromBehaviour = (Id, E::Request);
    type ToBehaviour = Told<E::Answer>;
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = (Id, E::Request);

    fn listen_protocol(&self) -> SubstreamProtocol<DeniedUpgrade> {
        SubstreamProtocol::new(DeniedUpgrade, ())
    }

    fn on_behaviour_event(&mut self, question: Self::FromBehaviour) {
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(question);
        } else {
            self.failed(question.0, io::ErrorKind::ResourceBusy);
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<
        ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>,
    > {
        if let Some(told) = self.told.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(told));
        }
        if let Poll::Ready(Some((id, answer))) = self.running.poll_next_unpin(cx) {
            let answer = Told::Answer(id, answer);
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(answer));
        }
        if self.opening + self.running.len() < MAX_RUNNING
            && let Some(question) = self.waiting.pop_front()
        {
            self.opening += 1;
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(E::PROTOCOL), question);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            '_,
            DeniedUpgrade,
            Self::OutboundProtocol,
            (),
            Self::OutboundOpenInfo,
        >,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol,
                info,
            }) => self.opened(protocol, info),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, .. }) => {
                self.opening = self.opening.saturating_sub(1);
                self.failed(info.0, io::ErrorKind::Unsupported);
            }
            ConnectionEvent::RemoteProtocolsChange(change) => {
                let (mut names, supported) = match change {
                    ProtocolsChange::Added(names) => (names, true),
                    ProtocolsChange::Removed(names) => {
                        if names.into_iter().any(|name| *name == E::PROTOCOL) {
                            self.told.push_back(Told::Supported(false));
                        }
                        return;
                    }
                };
                if names.any(|name| *name == E::PROTOCOL) {
                    self.told.push_back(Told::Supported(supported));
                }
            }
            _ => {}
        }
    }
}
