//! The behaviour: forwards swarm events to the shared state and dials for
//! waiting requests.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use calimero_network_exchange::dial::DialCause;
use calimero_network_primitives::{
    config::StreamsConfig,
    resources::{Limits, Origin, Resources},
};
use futures::FutureExt;
use futures_timer::Delay;
use libp2p_core::{Endpoint, Multiaddr, transport::PortUse};
use libp2p_identity::PeerId;
use libp2p_swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionId, DialFailure, FromSwarm, ListenFailure,
    NetworkBehaviour, StreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    behaviour::ConnectionEstablished,
    dial_opts::{DialOpts, PeerCondition},
};

use crate::{
    admission::RefuseReason, control::Control, handler::Handler, shared::Shared, traffic::Traffic,
};

/// Shortest time between two reports of refused streams. A flood causes one
/// report per second, whatever its size.
const REFUSAL_REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Events that the behaviour emits to the swarm.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Inbound streams were refused and reset. The connection stays open.
    ///
    /// Refusals of the same kind within one second are reported in one event.
    Refused {
        /// The remote peer that opened the streams.
        peer: PeerId,
        /// The protocol of the streams.
        protocol: StreamProtocol,
        /// The reason of the refusal.
        reason: RefuseReason,
        /// Number of refused streams.
        count: u64,
    },
    /// Further inbound streams were refused. So many peers and protocols were
    /// refused within one second that they are not counted separately.
    OthersRefused {
        /// Number of refused streams.
        count: u64,
    },
}

/// Opens and accepts streams, within limits, on behalf of every [`Control`] of
/// it.
///
/// [`StreamsConfig`] defines the limits. The swarm must let a connection
/// negotiate as many inbound streams at one time as one peer may open; see
/// [`max_negotiating_inbound_streams`](crate::config::max_negotiating_inbound_streams).
///
/// ```
/// use calimero_network_stream::{Behaviour, FrameConfig, StreamProtocol, config::StreamsConfig};
/// use futures::StreamExt;
///
/// # async fn example(swarm_with: impl FnOnce(Behaviour), peer: libp2p_identity::PeerId)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// let protocol = StreamProtocol::new("/calimero/stream/0.0.2");
/// let behaviour = Behaviour::new(StreamsConfig::default());
/// let control = behaviour.control();
/// let mut incoming = control.accept(protocol.clone())?;
/// swarm_with(behaviour);
///
/// let mut outbound = control.open(peer, protocol).await?.into_frames(FrameConfig::default());
/// outbound.send("hello".into()).await?;
/// while let Some(inbound) = incoming.next().await {
///     println!("{} opened a stream", inbound.peer);
///     let mut frames = inbound.stream.into_frames(FrameConfig::default());
///     println!("{:?}", frames.next().await);
/// }
/// # Ok(())
/// # }
/// ```
///
/// When the behaviour is dropped, all pending requests fail with
/// [`OpenError::Stopped`](crate::OpenError::Stopped) and every
/// [`Incoming`](crate::Incoming) ends.
#[derive(Debug)]
pub struct Behaviour {
    shared: Arc<Shared>,
    events: VecDeque<Event>,
    /// Timer that delays the next report of refusals.
    report_pause: Option<Delay>,
}

impl Behaviour {
    /// Creates a behaviour with its own resource accounting. The caller must
    /// have [validated](StreamsConfig::validate) `config`.
    #[must_use]
    pub fn new(config: StreamsConfig) -> Self {
        let mut limits = Limits::default();
        limits.set_streams(&config);
        Self::with_resources(config, Resources::new(limits))
    }

    /// Creates a behaviour that shares the resource accounting of a node. The
    /// limits of `resources` replace those of `config`.
    #[must_use]
    pub fn with_resources(config: StreamsConfig, resources: Resources) -> Self {
        Self {
            shared: Arc::new(Shared::new(config, resources)),
            events: VecDeque::new(),
            report_pause: None,
        }
    }

    /// Returns the accounting of streams and frame memory.
    #[must_use]
    pub fn resources(&self) -> &Resources {
        &self.shared.resources
    }

    /// Returns the traffic of each protocol that this node has opened or
    /// accepted streams of, in no order.
    #[must_use]
    pub fn traffic(&self) -> Vec<(StreamProtocol, Traffic)> {
        self.shared.traffic()
    }

    /// Returns a handle that opens and accepts streams.
    #[must_use]
    pub fn control(&self) -> Control {
        Control::new(self.shared.clone())
    }

    /// Reports that `peer` answered a ping on `connection` after `round_trip`.
    ///
    /// Of several connections of a kind, direct or relayed, new streams use
    /// those whose round trips are about as short as those of the fastest one:
    /// the least of the last four counts. The others are used when these are at
    /// their limits.
    pub fn on_round_trip(&self, peer: PeerId, connection: ConnectionId, round_trip: Duration) {
        self.shared.measured(peer, connection, round_trip);
    }

    /// Reports that `peer` did not answer a ping on `connection`. New streams
    /// use other connections until it answers one.
    pub fn on_ping_unanswered(&self, peer: PeerId, connection: ConnectionId) {
        self.shared.unanswered(peer, connection);
    }

    /// Converts recorded refusals to events, at most once per
    /// [`REFUSAL_REPORT_INTERVAL`].
    fn report_refusals(&mut self, cx: &mut Context<'_>) {
        if let Some(pause) = &mut self.report_pause {
            if pause.poll_unpin(cx).is_pending() {
                return;
            }
            self.report_pause = None;
        }
        if !self.shared.has_refusals() {
            return;
        }
        let (refusals, others) = self.shared.take_refusals();
        self.events.extend(refusals.into_iter().map(|refusal| {
            tracing::debug!(?refusal, "refused inbound streams");
            Event::Refused {
                peer: refusal.peer,
                protocol: refusal.protocol,
                reason: refusal.reason,
                count: refusal.count,
            }
        }));
        if others > 0 {
            self.events
                .push_back(Event::OthersRefused { count: others });
        }
        let mut pause = Delay::new(REFUSAL_REPORT_INTERVAL);
        if pause.poll_unpin(cx).is_pending() {
            self.report_pause = Some(pause);
        }
    }
}

impl Drop for Behaviour {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let origin = Origin::of_inbound(local, remote);
        Ok(Handler::new(peer, connection, origin, self.shared.clone()))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let origin = Origin::of_addr(address);
        Ok(Handler::new(peer, connection, origin, self.shared.clone()))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) => self
                .shared
                .established(peer_id, connection_id, endpoint.is_relayed()),
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                ..
            }) => self.shared.closed(peer_id, connection_id),
            FromSwarm::DialFailure(DialFailure {
                peer_id,
                error,
                connection_id,
            }) => {
                self.shared.discard(connection_id);
                if let Some(peer) = peer_id {
                    self.shared
                        .dial_failed(peer, connection_id, DialCause::of(error));
                }
            }
            FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => {
                self.shared.discard(connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        // Registered before the checks below, so that a request that arrives
        // between them wakes this task again.
        self.shared.behaviour.register(cx.waker());
        let dial = self.shared.next_dial(|peer| {
            let opts = DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .build();
            (opts.connection_id(), opts)
        });
        if let Some(opts) = dial {
            return Poll::Ready(ToSwarm::<Event, Infallible>::Dial { opts });
        }
        self.report_refusals(cx);
        match self.events.pop_front() {
            Some(event) => Poll::Ready(ToSwarm::GenerateEvent(event)),
            None => Poll::Pending,
        }
    }
}
