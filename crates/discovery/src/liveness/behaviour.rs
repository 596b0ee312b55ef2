//! The behaviour: sends pings, reports their outcome, closes connections that the watchdog gives
//! up.

use std::{
    collections::{HashMap, VecDeque},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use calimero_network_primitives::{Multiaddr, PeerId, config::PingConfig};
use libp2p_core::{Endpoint, transport::PortUse};
use libp2p_swarm::{
    CloseConnection, ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, THandler, THandlerOutEvent, ToSwarm, behaviour::ConnectionEstablished,
};

use super::{
    Input, Verdict, Watchdog,
    handler::{Handler, Probe, Report},
    traffic::{Carried, Sent, Traffic},
    upgrade::FailureKind,
};

/// Most connections of a node that probes all of them after one ended in silence, 128: one ping each
/// every 15 s at most doubles the pings.
const MAX_PROBED_AFTER_SILENCE: usize = 128;

/// Shortest time between two such probes.
const SILENCE_INTERVAL: Duration = Duration::from_secs(15);

/// A connection and its remote peer.
type Connection = (PeerId, ConnectionId);

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

/// A connection whose bytes are counted.
struct Metered {
    read: Box<dyn Fn() -> Carried + Send>,
    traffic: Traffic,
}

impl Metered {
    /// Returns whether the report is that of a late answer on a busy connection, which says nothing
    /// about the peer.
    fn on_report(&mut self, report: Report) -> bool {
        match report {
            Report::Answered(_) => {
                self.traffic.on_answer((self.read)());
                false
            }
            Report::Late => self.traffic.on_late((self.read)()),
            Report::Failed(_) => {
                self.traffic.on_failure();
                false
            }
        }
    }
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
/// # Changes of the network
///
/// [`probe`](Self::probe) pings every connection at once and closes those whose peer does not answer
/// within 3 s, however many failures are allowed otherwise. A connection that is merely busy is not
/// closed, if its bytes are counted ([`meter`](Self::meter)): the answer may come within the
/// ordinary timeout.
///
/// # Bounds
///
/// Two counters for each established connection, three queued events and during a probe one more for
/// each connection; for each connection one outbound stream and [`MAX_INBOUND_STREAMS`] inbound ones, each with one payload of 32 bytes.
///
/// [`MAX_INBOUND_STREAMS`]: super::MAX_INBOUND_STREAMS
pub struct Behaviour {
    config: PingConfig,
    watchdog: Watchdog<Connection>,
    waiting: VecDeque<ToSwarm<Event, Probe>>,
    /// Traffic of the connections whose bytes are counted.
    metered: HashMap<Connection, Metered>,
    /// The last probe after a connection ended in silence.
    probed_at: Option<Instant>,
}

impl Behaviour {
    /// Creates a behaviour that pings and closes connections according to `config`.
    #[must_use]
    pub fn new(config: &PingConfig) -> Self {
        Self {
            config: config.clone(),
            watchdog: Watchdog::new(config.max_failures),
            waiting: VecDeque::new(),
            metered: HashMap::new(),
            probed_at: None,
        }
    }

    /// Counts the bytes of an established connection: `read` returns what it has carried so far. A
    /// connection whose bytes are not counted is given up whenever a probe is not answered in
    /// time.
    pub fn meter(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        read: impl Fn() -> Carried + Send + 'static,
    ) {
        let metered = Metered {
            read: Box::new(read),
            traffic: Traffic::default(),
        };
        self.metered.insert((peer, connection), metered);
    }

    /// Pings the peers of all connections now. Call it after the network of this host changed, or
    /// after the process was stopped for a while. A peer that does not answer within 3 s is given
    /// up, unless its connection is merely busy: it received something since, or more than 64 KiB
    /// were sent that may not have arrived. A path that fails then is noticed by the transport.
    ///
    /// Calls while a probe is under way have no further effect on its connections.
    pub fn probe(&mut self) {
        let connections = self.watchdog.connections().collect();
        self.send_probes(connections, Sent::Explain);
    }

    /// Pings the peers of these connections now, as [`probe`](Self::probe) does for all.
    pub fn probe_connections(
        &mut self,
        connections: impl IntoIterator<Item = (PeerId, ConnectionId)>,
    ) {
        self.send_probes(connections.into_iter().collect(), Sent::Explain);
    }

    /// Pings the peers of these connections now, because their local address disappeared. A peer
    /// that does not answer within 3 s is given up, unless its connection received something since:
    /// bytes that were sent from an address that is lost do not arrive.
    pub fn probe_without_address(
        &mut self,
        connections: impl IntoIterator<Item = (PeerId, ConnectionId)>,
    ) {
        self.send_probes(connections.into_iter().collect(), Sent::DoNotExplain);
    }

    fn send_probes(&mut self, connections: Vec<Connection>, sent: Sent) {
        for connection in &connections {
            if let Some(metered) = self.metered.get_mut(connection) {
                metered.traffic.on_probe((metered.read)(), sent);
            }
        }
        let probe = |(peer_id, connection)| ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::One(connection),
            event: Probe,
        };
        self.waiting.extend(connections.into_iter().map(probe));
    }

    /// Pings the peers of all connections now, because one connection ended in silence: if a router
    /// on the way lost its state, the others are dead as well. Busy connections are spared, as by
    /// [`probe`](Self::probe). Does nothing if there are more than
    /// 128 connections, on which peers disappear all the time, or if the last such call was less
    /// than 15 s ago.
    pub fn probe_after_silence(&mut self, now: Instant) {
        let recent = |at| now.saturating_duration_since(at) < SILENCE_INTERVAL;
        if self.probed_at.is_some_and(recent) || self.watchdog.watched() > MAX_PROBED_AFTER_SILENCE
        {
            return;
        }
        self.probed_at = Some(now);
        self.probe();
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
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                ..
            }) => {
                self.watchdog
                    .handle(Input::Opened((peer_id, connection_id)));
            }
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                ..
            }) => {
                self.metered.remove(&(peer_id, connection_id));
                self.watchdog
                    .handle(Input::Closed((peer_id, connection_id)));
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        report: THandlerOutEvent<Self>,
    ) {
        let metered = self.metered.get_mut(&(peer, connection));
        let is_busy = metered.is_some_and(|metered| metered.on_report(report));
        if is_busy {
            return;
        }
        let judgement = judge(&mut self.watchdog, (peer, connection), report);
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

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Event, Probe>> {
        // The swarm polls after each event of a handler, and the caller of `probe` polls the swarm.
        self.waiting.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// Returns the outcome of a ping for its connection, and the number of failures if the connection
/// is to be closed. `None` after that.
fn judge(
    watchdog: &mut Watchdog<Connection>,
    connection: Connection,
    report: Report,
) -> Option<(Outcome, Option<u32>)> {
    let (kind, input) = match report {
        Report::Answered(rtt) => {
            watchdog.handle(Input::Answered(connection))?;
            return Some((Outcome::Rtt(rtt), None));
        }
        Report::Failed(kind @ FailureKind::Unsupported) => {
            return Some((Outcome::Failed { kind, in_a_row: 0 }, None));
        }
        Report::Failed(kind) => (kind, Input::Failed(connection)),
        Report::Late => (FailureKind::Timeout, Input::Dead(connection)),
    };
    let (in_a_row, given_up) = match watchdog.handle(input)? {
        Verdict::Alive => return None,
        Verdict::Failing { in_a_row } => (in_a_row, None),
        Verdict::GiveUp { failures } => (failures, Some(failures)),
    };
    Some((Outcome::Failed { kind, in_a_row }, given_up))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test starts at some time")]
mod tests {
    use futures::task::noop_waker;
    use libp2p_core::ConnectedPoint;

    use super::*;

    fn with_connections(number: usize) -> Behaviour {
        let mut behaviour = Behaviour::new(&PingConfig::default());
        let endpoint = ConnectedPoint::Dialer {
            address: Multiaddr::empty(),
            role_override: Endpoint::Dialer,
            port_use: PortUse::New,
        };
        for id in 0..number {
            behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id: PeerId::random(),
                connection_id: ConnectionId::new_unchecked(id),
                endpoint: &endpoint,
                failed_addresses: &[],
                other_established: 0,
            }));
        }
        behaviour
    }

    fn probes(behaviour: &mut Behaviour) -> usize {
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        let mut count = 0;
        while let Poll::Ready(ToSwarm::NotifyHandler { .. }) = behaviour.poll(&mut cx) {
            count += 1;
        }
        count
    }

    #[test]
    fn probes_after_silence_have_a_pause() {
        let mut behaviour = with_connections(3);
        let now = Instant::now();
        behaviour.probe_after_silence(now);
        assert_eq!(probes(&mut behaviour), 3);
        behaviour.probe_after_silence(now + SILENCE_INTERVAL / 2);
        assert_eq!(probes(&mut behaviour), 0);
        behaviour.probe_after_silence(now + SILENCE_INTERVAL);
        assert_eq!(probes(&mut behaviour), 3);
        // A change of the network is no such probe.
        behaviour.probe();
        assert_eq!(probes(&mut behaviour), 3);
    }

    #[test]
    fn a_node_with_many_connections_probes_none_after_silence() {
        let mut behaviour = with_connections(MAX_PROBED_AFTER_SILENCE);
        behaviour.probe_after_silence(Instant::now());
        assert_eq!(probes(&mut behaviour), MAX_PROBED_AFTER_SILENCE);
        let mut behaviour = with_connections(MAX_PROBED_AFTER_SILENCE + 1);
        behaviour.probe_after_silence(Instant::now());
        assert_eq!(probes(&mut behaviour), 0);
    }
}
