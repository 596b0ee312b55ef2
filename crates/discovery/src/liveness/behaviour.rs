//! The behaviour: sends pings, reports their outcome, closes connections that the watchdog gives
//! up.

use std::{
    collections::VecDeque,
    convert::Infallible,
    task::{Context, Poll},
    time::Duration,
};

use calimero_network_primitives::{Multiaddr, PeerId, config::PingConfig};
use libp2p_core::{Endpoint, transport::PortUse};
use libp2p_swarm::{
    CloseConnection, ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour,
    THandler, THandlerOutEvent, ToSwarm, behaviour::ConnectionEstablished,
};

use super::{Input, Verdict, Watchdog, handler::Handler, upgrade::FailureKind};

/// Items that one ping can cause: the failure, the close event, and the close itself.
const MAX_WAITING: usize = 3;

/// The outcome of one ping on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The remote peer of the connection.
    pub peer: PeerId,
    /// The connection that carried the ping.
    pub connection: ConnectionId,
    /// The outcome of the ping.
    pub outcome: Outcome,
}

/// The outcome of a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The peer answered after this time.
    Rtt(Duration),
    /// The peer did not answer.
    Failed {
        /// The kind of failure.
        kind: FailureKind,
        /// Failures in a row so far; 0 if the peer does not support ping.
        in_a_row: u32,
    },
    /// The connection is being closed. Follows the last `Failed`.
    GivenUp {
        /// Failures in a row before the close.
        failures: u32,
    },
}

/// Pings every connection and closes those that fail [`PingConfig::max_failures`] times in a row.
///
/// Answers the pings of others as well, on [`MAX_INBOUND_STREAMS`] streams of each connection; do
/// not combine it with another ping behaviour. Pings do not keep an unused connection alive.
///
/// # How long a silent connection lives
///
/// A ping is due one `interval` after the last answer, the first one when the connection is
/// established. Its `timeout` covers everything: opening a stream if there is none, negotiating the
/// protocol, and the answer. A peer that exceeds it is pinged again at once on a new stream. A link
/// that fails at any of these points is therefore closed
///
/// `interval + max_failures × timeout`
///
/// after its last answer. These are 75 s with the defaults (15 s, 20 s, 3), which is 60 to 75 s
/// after the link failed.
///
/// A peer that resets the stream or sends another answer is alive, so it is pinged again only one
/// `interval` later. The last answer of a peer that fails each ping in this way is never older than
///
/// `max_failures × (interval + timeout)`, 105 s with the defaults.
///
/// # Bounds
///
/// One counter for each established connection and three queued events; for each connection one
/// outbound stream and [`MAX_INBOUND_STREAMS`] inbound ones, each with one payload of 32 bytes.
///
/// [`MAX_INBOUND_STREAMS`]: super::MAX_INBOUND_STREAMS
pub struct Behaviour {
    config: PingConfig,
    watchdog: Watchdog<ConnectionId>,
    waiting: VecDeque<ToSwarm<Event, Infallible>>,
}

impl Behaviour {
    /// Creates a behaviour that pings and closes connections according to `config`.
    #[must_use]
    pub fn new(config: &PingConfig) -> Self {
        Self {
            config: config.clone(),
            watchdog: Watchdog::new(config.max_failures),
            waiting: VecDeque::with_capacity(MAX_WAITING),
        }
    }

    fn emit(&mut self, peer: PeerId, connection: ConnectionId, outcome: Outcome) {
        self.waiting.push_back(ToSwarm::GenerateEvent(Event {
            peer,
            connection,
            outcome,
        }));
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(&self.config))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(&self.config))
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
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        result: THandlerOutEvent<Self>,
    ) {
        let judgement = judge(&mut self.watchdog, connection, result);
        let Some((outcome, given_up)) = judgement else {
            return;
        };
        self.emit(peer, connection, outcome);
        if let Some(failures) = given_up {
            self.emit(peer, connection, Outcome::GivenUp { failures });
            self.waiting.push_back(ToSwarm::CloseConnection {
                peer_id: peer,
                connection: CloseConnection::One(connection),
            });
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Event, Infallible>> {
        // The swarm polls after each event of a handler, the only source of these.
        self.waiting.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// Returns the outcome of a ping for its connection, and the number of failures if the connection
/// is to be closed. `None` after that.
fn judge(
    watchdog: &mut Watchdog<ConnectionId>,
    connection: ConnectionId,
    result: Result<Duration, FailureKind>,
) -> Option<(Outcome, Option<u32>)> {
    let kind = match result {
        Ok(rtt) => {
            watchdog.handle(Input::Answered(connection))?;
            return Some((Outcome::Rtt(rtt), None));
        }
        Err(kind @ FailureKind::Unsupported) => {
            return Some((Outcome::Failed { kind, in_a_row: 0 }, None));
        }
        Err(kind) => kind,
    };
    let (in_a_row, given_up) = match watchdog.handle(Input::Failed(connection))? {
        Verdict::Alive => return None,
        Verdict::Failing { in_a_row } => (in_a_row, None),
        Verdict::GiveUp { failures } => (failures, Some(failures)),
    };
    Some((Outcome::Failed { kind, in_a_row }, given_up))
}
