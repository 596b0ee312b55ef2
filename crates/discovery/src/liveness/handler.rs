//! The handler of one connection: an outbound stream for pings, and the streams on which the peer
//! pings.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use calimero_network_primitives::config::PingConfig;
use futures::{AsyncRead as _, FutureExt as _, future::BoxFuture};
use futures_timer::Delay;
use libp2p_core::upgrade::ReadyUpgrade;
use libp2p_swarm::{
    ConnectionHandler, ConnectionHandlerEvent, Stream, StreamProtocol, SubstreamProtocol,
    handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
};

use super::{
    protocol,
    upgrade::{self, Ask, FailureKind},
};

/// Streams of one connection on which a peer's pings are answered. One more ends the oldest.
///
/// The specification requires at least two, because a stream may be opened before the end of the
/// former one has arrived. A probe in addition to the liveness check of the peer needs as many
/// again.
pub const MAX_INBOUND_STREAMS: usize = 4;

/// Time that a peer has to answer a probe, 3 s: a path whose network changed is replaced within 5 s,
/// and one with a round trip of a second may lose a packet.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// A request to ping now. A peer that does not answer within [`PROBE_TIMEOUT`] is reported as
/// [`Report::Late`], and the ping goes on.
#[derive(Clone, Copy, Debug)]
pub struct Probe;

/// The result of a ping.
#[derive(Clone, Copy, Debug)]
pub enum Report {
    /// The peer answered after this time.
    Answered(Duration),
    /// The peer did not answer.
    Failed(FailureKind),
    /// The peer did not answer a probe in time. The ping goes on: the behaviour closes the
    /// connection unless it is merely busy.
    Late,
}

type Event = ConnectionHandlerEvent<Ask, (), Report>;

/// The state of the pings of a connection.
enum Outbound {
    /// Waiting for the timer, after which a ping is due. The stream is that of the last answer.
    Resting(Option<Stream>),
    /// A stream was requested when the timer was set. The swarm ends this state, at the latest when
    /// the timer fires.
    Opening,
    /// A ping is under way until the timer fires.
    Pinging {
        ping: BoxFuture<'static, io::Result<Stream>>,
        started: Instant,
    },
    /// No further ping is sent: the peer does not support it, or the connection is being closed.
    Unwanted,
}

/// Pings the peer of one connection and answers its pings.
pub struct Handler {
    interval: Duration,
    timeout: Duration,
    timer: Delay,
    outbound: Outbound,
    /// Whether the current or next ping is a probe.
    probing: bool,
    /// A failure to open a stream that is not reported yet.
    failed: Option<FailureKind>,
    /// The oldest first. Each stores its own waker, so all are polled until all are pending.
    inbound: VecDeque<BoxFuture<'static, io::Result<()>>>,
}

impl Handler {
    pub(super) fn new(config: &PingConfig) -> Self {
        Self {
            interval: config.interval,
            timeout: config.timeout,
            timer: Delay::new(Duration::ZERO),
            outbound: Outbound::Resting(None),
            probing: false,
            failed: None,
            inbound: VecDeque::with_capacity(MAX_INBOUND_STREAMS),
        }
    }

    fn answer_on(&mut self, stream: Stream) {
        if self.inbound.len() == MAX_INBOUND_STREAMS {
            self.inbound.pop_front();
        }
        self.inbound.push_back(protocol::answer(stream).boxed());
    }

    fn ping_on(&mut self, mut stream: Stream) {
        let payload = rand::random();
        let ping = async move {
            protocol::ping(&mut stream, payload).await?;
            Ok(stream)
        };
        self.outbound = Outbound::Pinging {
            ping: ping.boxed(),
            started: now(),
        };
    }

    /// Sets the state after a failure of this kind. The stream is closed in any case.
    fn fail(&mut self, kind: FailureKind) -> Event {
        if std::mem::take(&mut self.probing) && kind == FailureKind::Timeout {
            self.timer.reset(Duration::ZERO);
            self.outbound = Outbound::Resting(None);
            return ConnectionHandlerEvent::NotifyBehaviour(Report::Late);
        }
        self.outbound = match rest_after(kind, self.interval) {
            None => Outbound::Unwanted,
            Some(rest) => {
                self.timer.reset(rest);
                Outbound::Resting(None)
            }
        };
        ConnectionHandlerEvent::NotifyBehaviour(Report::Failed(kind))
    }

    /// The deadline of a probe passed. Its ping has the rest of the ordinary time.
    fn late(&mut self) -> Event {
        self.probing = false;
        self.timer.reset(self.timeout.saturating_sub(PROBE_TIMEOUT));
        ConnectionHandlerEvent::NotifyBehaviour(Report::Late)
    }

    fn poll_outbound(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Some(kind) = self.failed.take() {
            return Poll::Ready(self.fail(kind));
        }
        loop {
            match &mut self.outbound {
                Outbound::Unwanted => return Poll::Pending,
                Outbound::Opening => {
                    // The swarm ends a negotiation after the ordinary timeout.
                    if !self.probing {
                        return Poll::Pending;
                    }
                    ready!(self.timer.poll_unpin(cx));
                    return Poll::Ready(self.late());
                }
                Outbound::Resting(stream) => {
                    if stream.as_mut().is_some_and(|stream| speaks(stream, cx)) {
                        *stream = None;
                    }
                    ready!(self.timer.poll_unpin(cx));
                    let stream = stream.take();
                    self.timer.reset(if self.probing {
                        PROBE_TIMEOUT
                    } else {
                        self.timeout
                    });
                    match stream {
                        Some(stream) => self.ping_on(stream),
                        None => return Poll::Ready(self.open()),
                    }
                }
                Outbound::Pinging { ping, started } => match ping.poll_unpin(cx) {
                    Poll::Ready(Ok(stream)) => {
                        let rtt = now().saturating_duration_since(*started);
                        self.timer.reset(self.interval);
                        self.outbound = Outbound::Resting(Some(stream));
                        self.probing = false;
                        let report = Report::Answered(rtt);
                        return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(report));
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(self.fail(FailureKind::Stream)),
                    Poll::Pending => {
                        ready!(self.timer.poll_unpin(cx));
                        return Poll::Ready(match self.probing {
                            true => self.late(),
                            false => self.fail(FailureKind::Timeout),
                        });
                    }
                },
            }
        }
    }

    fn open(&mut self) -> Event {
        self.outbound = Outbound::Opening;
        ConnectionHandlerEvent::OutboundSubstreamRequest {
            protocol: SubstreamProtocol::new(Ask, ()).with_timeout(self.timeout),
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Probe;
    type ToBehaviour = Report;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = Ask;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(upgrade::PROTOCOL), ())
    }

    fn on_behaviour_event(&mut self, _: Probe) {
        let wait = match self.outbound {
            Outbound::Unwanted => return,
            Outbound::Resting(_) => Duration::ZERO,
            Outbound::Opening | Outbound::Pinging { .. } => PROBE_TIMEOUT,
        };
        // A second probe does not prolong the first.
        if !std::mem::replace(&mut self.probing, true) {
            self.timer.reset(wait);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        self.inbound
            .retain_mut(|answering| answering.poll_unpin(cx).is_pending());
        self.poll_outbound(cx)
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: mut stream,
                ..
            }) => {
                stream.ignore_for_keep_alive();
                self.answer_on(stream);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: mut stream,
                ..
            }) => {
                stream.ignore_for_keep_alive();
                self.ping_on(stream);
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => {
                self.failed = Some(upgrade::failure(error));
            }
            _ => {}
        }
    }
}

/// Returns the wait before the next ping on a new stream; `None` if there is no next one.
///
/// A peer that did not answer has used its deadline already. A peer that refused is alive, and
/// pinging it without a wait would loop.
const fn rest_after(kind: FailureKind, interval: Duration) -> Option<Duration> {
    match kind {
        FailureKind::Timeout => Some(Duration::ZERO),
        FailureKind::Stream => Some(interval),
        FailureKind::Unsupported => None,
    }
}

/// Returns whether an idle stream yields anything: its end, which is no failure of a ping, or bytes
/// that would be read as the next answer.
fn speaks(stream: &mut Stream, cx: &mut Context<'_>) -> bool {
    Pin::new(stream).poll_read(cx, &mut [0]).is_ready()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a round trip is measured where it is made; nothing is decided by it"
)]
fn now() -> Instant {
    Instant::now()
}
