//! The behaviour: sends pings, tells their outcome, closes what the watchdog gives up.

use std::{
    collections::VecDeque,
    io,
    task::{Context, Poll},
    time::Duration,
};

use calimero_network_primitives::{Multiaddr, PeerId, config::PingConfig};
use libp2p_core::{Endpoint, transport::PortUse};
use libp2p_ping as ping;
use libp2p_swarm::{
    CloseConnection, ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour,
    THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, behaviour::ConnectionEstablished,
};

use super::{Input, Verdict, Watchdog};

/// Failures at the start of each row that libp2p-ping 0.48 keeps to itself: it tolerates peers
/// that end their stream after each ping.
const CONCEALED_BY_LIBP2P_PING: u32 = 1;

/// What a ping came to, on which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The peer at the other end.
    pub peer: PeerId,
    /// The connection the ping ran on.
    pub connection: ConnectionId,
    /// What it came to.
    pub outcome: Outcome,
}

/// What a ping came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The peer answered after this time.
    Rtt(Duration),
    /// The peer did not answer. Not told for the first failure of each row, which is counted.
    Failed {
        /// In which way.
        kind: FailureKind,
        /// Failures in a row so far; 0 where the peer does not speak ping.
        in_a_row: u32,
    },
    /// The connection is being closed. Follows the `Failed` that was one too many.
    GivenUp {
        /// Failures in a row that it took.
        failures: u32,
    },
}

/// In which way a ping failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// Silence: no answer, or no stream to ask on, within the deadline.
    Timeout,
    /// The peer does not speak ping. It is not pinged again on this connection, and not given
    /// up: it said so itself, so it is alive.
    Unsupported,
    /// The stream was reset, or carried something else than the answer.
    Stream,
}

impl From<&ping::Failure> for FailureKind {
    fn from(failure: &ping::Failure) -> Self {
        match failure {
            ping::Failure::Timeout => Self::Timeout,
            ping::Failure::Unsupported => Self::Unsupported,
            // A negotiation that times out is silence too; libp2p-ping wraps it as an IO error.
            ping::Failure::Other { error } => match error.downcast_ref::<io::Error>() {
                Some(error) if error.kind() == io::ErrorKind::TimedOut => Self::Timeout,
                _ => Self::Stream,
            },
        }
    }
}

/// Pings every connection and closes those that fail [`PingConfig::max_failures`] times in a row.
///
/// Answers the pings of others as well; do not put another ping behaviour beside it.
///
/// # How long a silent connection lives
///
/// libp2p-ping 0.48 pings one `interval` after an answer. A ping that is not answered fails after
/// `timeout` and drops its stream. One `interval` later it asks for a new stream, whose
/// negotiation has 10 s (the swarm's default for a substream); if that fails too, it is asked
/// for again at once. So of a link that falls silent, the first failure is a ping and all others
/// are negotiations:
///
/// `timeout + interval + 10 s × (max_failures - 1)`, and up to one more `interval` before the
/// first ping is due.
///
/// With the defaults (15 s, 20 s, 3) a silent link is given up 55 to 70 s after its last answer.
/// A peer that accepts ping streams and never answers on them is given up after
/// `max_failures × timeout + (max_failures - 1) × interval`, 90 s with the defaults, and up to
/// one more interval before the first ping.
///
/// A peer that resets the stream while it is being negotiated fails without delay, and is asked
/// again without delay: it is given up within a few round trips, which ends the asking too.
///
/// The first failure of each row is kept inside libp2p-ping. It is counted all the same; only a
/// `max_failures` of 1 acts as 2.
///
/// # Bounds
///
/// One counter per established connection, at most two events waiting.
pub struct Behaviour {
    ping: ping::Behaviour,
    watchdog: Watchdog<ConnectionId>,
    waiting: VecDeque<ToSwarm<Event, THandlerInEvent<ping::Behaviour>>>,
}

impl Behaviour {
    /// A behaviour that pings and gives up as `config` says.
    #[must_use]
    pub fn new(config: &PingConfig) -> Self {
        let ping = ping::Config::new()
            .with_interval(config.interval)
            .with_timeout(config.timeout);
        Self {
            ping: ping::Behaviour::new(ping),
            watchdog: Watchdog::new(config.max_failures, CONCEALED_BY_LIBP2P_PING),
            waiting: VecDeque::with_capacity(2),
        }
    }

    /// The first thing to tell the swarm about `event`; what follows it goes to `waiting`.
    fn judge(&mut self, event: ping::Event) -> Option<ToSwarm<Event, THandlerInEvent<Self>>> {
        let ping::Event {
            peer,
            connection,
            result,
        } = event;
        let tell = |outcome| {
            ToSwarm::GenerateEvent(Event {
                peer,
                connection,
                outcome,
            })
        };
        let kind = match result {
            Ok(rtt) => {
                self.watchdog.handle(Input::Answered(connection))?;
                return Some(tell(Outcome::Rtt(rtt)));
            }
            Err(failure) => FailureKind::from(&failure),
        };
        if kind == FailureKind::Unsupported {
            return Some(tell(Outcome::Failed { kind, in_a_row: 0 }));
        }
        let in_a_row = match self.watchdog.handle(Input::Failed(connection))? {
            Verdict::Alive => return None,
            Verdict::Failing { in_a_row } => in_a_row,
            Verdict::GiveUp { failures } => {
                self.waiting.push_back(tell(Outcome::GivenUp { failures }));
                self.waiting.push_back(ToSwarm::CloseConnection {
                    peer_id: peer,
                    connection: CloseConnection::One(connection),
                });
                failures
            }
        };
        Some(tell(Outcome::Failed { kind, in_a_row }))
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = THandler<ping::Behaviour>;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local_addr: &Multiaddr,
        remote_addr: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.ping
            .handle_established_inbound_connection(connection, peer, local_addr, remote_addr)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        role_override: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.ping.handle_established_outbound_connection(
            connection,
            peer,
            addr,
            role_override,
            port_use,
        )
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { connection_id, .. }) => {
                self.watchdog.handle(Input::Opened(connection_id));
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => {
                self.watchdog.handle(Input::Closed(connection_id));
            }
            _ => {}
        }
        self.ping.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.ping
            .on_connection_handler_event(peer, connection, event);
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            if let Some(next) = self.waiting.pop_front() {
                return Poll::Ready(next);
            }
            match self.ping.poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(ToSwarm::GenerateEvent(event)) => {
                    if let Some(next) = self.judge(event) {
                        return Poll::Ready(next);
                    }
                }
                // Its one kind of wish is an event.
                Poll::Ready(_) => {}
            }
        }
    }
}
