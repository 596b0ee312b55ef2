//! The machine as a behaviour of a swarm: inputs in, effects out, and the clock.

mod handler;
mod inbound;

use std::{
    net::IpAddr,
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use calimero_network_primitives::{
    Keypair, Multiaddr, PeerId, Topic,
    limits::MAX_GOSSIP_CONTROL_BYTES,
    resources::{Origin, Resources},
};
use futures::FutureExt;
use futures_timer::Delay;
use libp2p_core::{Endpoint, multiaddr::Protocol, transport::PortUse};
use libp2p_swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler,
    StreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};

use self::handler::{FromHandler, Handler, Name, Names, ToHandler};
use crate::{
    config::{Config, GossipVersion},
    error::{Banned, BuildError, PublishError, SubscribeError},
    event::{Event, Published},
    keep::{KeepBook, KeepId},
    machine::{Effect, Input, Machine, Version},
    validate::Now,
    views::MeshStats,
    wire::MessageId,
};

/// Bytes around the payload of a message, at most: author, sequence number, topic, signature, key
/// and lengths come to 2.5 KiB with the longest topic. The rest is room for other implementations.
const OVERHEAD_BYTES: usize = 16 * 1024;

/// Gossipsub with limits, scores and memory. See the [crate documentation](crate).
///
/// # Bounds
///
/// | what | bound |
/// |---|---|
/// | own topics | `max_topics` |
/// | topics peers announce | own topics of every connected peer, others by `peers.max_foreign_topics_per_peer` and `peers.max_foreign_topics` |
/// | messages that wait for a peer | `peers.queue`, `peers.queue_bytes` and `peers.publish_wait`; own ones wait from `peers.window` and `peers.window_bytes` on; closed after `peers.slow_timeout` |
/// | messages cached to be requested | what arrives in `memory.history_heartbeats` heartbeats, 32 MiB |
/// | RPCs above 64 KiB that have not arrived in full | [`frame_bytes`](calimero_network_primitives::resources::Resource::FrameBytes); 60 s and the time at 4 KiB/s, while others wait 10 s and the time at 256 KiB/s |
/// | messages that are requested and have not arrived | 5,000 of a peer; 65,536 of all peers, above which each has an equal share of 16,384, at most twice as many |
/// | back-offs of peers | 100,000; those of peers that are not connected go first |
/// | ids remembered | twice `memory.replayed_ids`, 48 bytes each |
/// | messages kept for a first subscriber | `keep` |
/// | messages that wait for room | 1,024, 64 MiB |
/// | peers with a score, authors with a key | 4,096, and twice 4,096 |
pub struct Behaviour {
    machine: Machine,
    names: Names,
    max_rpc_bytes: usize,
    resources: Resources,
    timer: Option<(Instant, Delay)>,
    #[cfg(feature = "metrics")]
    metrics: Option<crate::metrics::Metrics>,
}

impl Behaviour {
    /// A behaviour that signs with `keypair` and subscribes to no topic.
    ///
    /// # Errors
    ///
    /// [`BuildError::Config`] with the key that contradicts another one.
    pub fn new(keypair: Keypair, config: &Config) -> Result<Self, BuildError> {
        config.validate("")?;
        let largest = config.max_message_bytes.max(MAX_GOSSIP_CONTROL_BYTES);
        Ok(Self {
            machine: Machine::new(keypair, config, rand::random(), now()),
            names: names(config.newest_version),
            max_rpc_bytes: largest + OVERHEAD_BYTES,
            resources: Resources::default(),
            timer: None,
            #[cfg(feature = "metrics")]
            metrics: None,
        })
    }

    /// Counts the memory of RPCs that have not arrived in full in the accounting of the node, in
    /// place of one of its own with the default limits.
    #[must_use]
    pub fn with_resources(mut self, resources: Resources) -> Self {
        self.resources = resources;
        self
    }

    /// Records metrics in `registry`: which topics this node subscribes to, and the peers in the
    /// mesh of each.
    #[cfg(feature = "metrics")]
    #[must_use]
    pub fn with_metrics(mut self, registry: &mut prometheus_client::registry::Registry) -> Self {
        self.metrics = Some(crate::metrics::Metrics::new(registry));
        self
    }

    /// Subscribes to `topic`. Returns `false` if this node subscribes to it already.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`] if this node subscribes to as many topics as allowed, in number or
    /// bytes.
    pub fn subscribe(&mut self, topic: &Topic) -> Result<bool, SubscribeError> {
        let is_new = self.machine.subscribe(topic, now())?;
        #[cfg(feature = "metrics")]
        self.record(topic, true);
        Ok(is_new)
    }

    /// Unsubscribes from `topic`. Returns `false` if this node does not subscribe to it.
    pub fn unsubscribe(&mut self, topic: &Topic) -> bool {
        #[cfg(feature = "metrics")]
        self.record(topic, false);
        self.machine.unsubscribe(topic, now())
    }

    #[cfg(feature = "metrics")]
    fn record(&mut self, topic: &Topic, subscribed: bool) {
        if let Some(metrics) = &self.metrics {
            metrics.subscribed(topic, subscribed);
        }
    }

    /// Sends `data` to the subscribers of `topic`, to which this node need not subscribe itself.
    ///
    /// `Ok` says that the message is queued for at least one peer, not that it has arrived. The
    /// buffer of `data` is shared, not copied, until the message is encoded once for all peers.
    /// [`Event::TooLargeForPeer`] names peers that cannot get it.
    ///
    /// # Errors
    ///
    /// [`PublishError`], of which [`NoPeers`](PublishError::NoPeers) and
    /// [`QueueFull`](PublishError::QueueFull) pass with time. The latter is returned while a peer
    /// that would get the message has too much to read (`peers.window`), unless that has lasted too
    /// long (`peers.hold`). [`Event::Room`] says when to try again.
    pub fn publish(
        &mut self,
        topic: &Topic,
        data: impl Into<Bytes>,
    ) -> Result<MessageId, PublishError> {
        self.machine.publish(topic, data.into(), now())
    }

    /// As [`publish`](Self::publish), but where no peer subscribes to `topic`, keeps `data` for at
    /// most `time` and sends it to the first one that does. Messages of one topic are sent in the
    /// order in which they were kept.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish), with [`KeepFull`](PublishError::KeepFull) in the place of
    /// [`NoPeers`](PublishError::NoPeers).
    pub fn publish_or_keep(
        &mut self,
        topic: &Topic,
        data: impl Into<Bytes>,
        time: Duration,
    ) -> Result<Published, PublishError> {
        (self.machine).publish_or_keep(topic, data.into(), time, now())
    }

    /// As [`publish`](Self::publish), but where queues are full, sends `data` once there is room,
    /// after what waits for the same topic. Other topics do not wait.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish), with [`QueueFull`](PublishError::QueueFull) only if 1,024
    /// messages or 64 MiB wait already.
    pub fn publish_or_wait(
        &mut self,
        topic: &Topic,
        data: impl Into<Bytes>,
    ) -> Result<Published, PublishError> {
        self.machine.publish_or_wait(topic, data.into(), now())
    }

    /// Takes back a message that is kept or waits: it will not be sent, and no event will name it.
    /// Returns `false` if it is not kept any more.
    pub fn take_back(&mut self, keep: KeepId) -> bool {
        self.machine.take_back(keep)
    }

    /// Sets how much this node prefers `peer`, from -100 to 100; beyond that counts as the limit,
    /// what is not a number as 0, where every peer starts.
    ///
    /// Preferred peers stay in a mesh that is too full and are taken into one that is not theirs.
    /// No preference excludes a peer: see [`score`](crate::score).
    pub fn set_peer_score(&mut self, peer: PeerId, preference: f64) {
        self.machine.prefer(peer, preference, now());
    }

    /// Reports that `connection` is better than the other connections with `peer`, as a program
    /// that measures them finds. Messages for the peer are sent there from now on, until the
    /// connection fails or a further one opens.
    pub fn prefer_connection(&mut self, peer: PeerId, connection: ConnectionId) {
        self.machine
            .handle(Input::Preferred { peer, connection }, now());
    }

    /// Reports that `peer` did not answer a ping on `connection`. If there is another connection,
    /// messages go there, and those that were sent in the last heartbeats are offered again.
    pub fn on_ping_unanswered(&mut self, peer: PeerId, connection: ConnectionId) {
        self.machine
            .handle(Input::Unanswered { peer, connection }, now());
    }

    /// Sets whether `connection` is a spare. A spare on which neither side sends messages is not
    /// kept alive.
    pub fn set_spare(&mut self, peer: PeerId, connection: ConnectionId, spare: bool) {
        let input = Input::Spare {
            peer,
            connection,
            spare,
        };
        self.machine.handle(input, now());
    }

    /// Reports that `peer` itself closed its last connection in order. A relay that ends a circuit
    /// and a reset are no sign of that. A peer that returns within 60 s after another end is
    /// offered the messages of the last heartbeats, which may have been lost with the connection.
    pub fn on_left(&mut self, peer: PeerId) {
        self.machine.handle(Input::Left { peer }, now());
    }

    /// The topics to which this node subscribes.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Topic> {
        self.machine.topics()
    }

    /// Returns `true` if this node subscribes to `topic`.
    #[must_use]
    pub fn is_subscribed(&self, topic: &Topic) -> bool {
        self.machine.is_subscribed(topic)
    }

    /// The peers with which messages of `topic` are exchanged in full.
    #[must_use]
    pub fn mesh_peers(&self, topic: &Topic) -> Vec<PeerId> {
        self.machine.mesh_peers(topic)
    }

    /// The number of peers in the mesh of `topic`.
    #[must_use]
    pub fn mesh_peer_count(&self, topic: &Topic) -> usize {
        self.machine.mesh_peers(topic).len()
    }

    /// The connected peers that subscribe to `topic`, as far as they have announced it, in no
    /// order.
    #[must_use]
    pub fn subscribed_peers(&self, topic: &Topic) -> Vec<PeerId> {
        self.machine.subscribed_peers(topic)
    }

    /// The state of all meshes.
    #[must_use]
    pub fn mesh_stats(&self) -> MeshStats {
        self.machine.mesh_stats()
    }

    /// Messages that wait for a first subscriber.
    #[must_use]
    pub fn kept(&self) -> &KeepBook {
        self.machine.kept()
    }

    /// Returns the next event if it is ready, in the order in which the swarm would emit it.
    ///
    /// The messages of one read of a connection are ready together. A program that has got the
    /// first one from the swarm takes the others here, and saves a poll of all behaviours for each.
    pub fn next_event(&mut self) -> Option<Event> {
        self.machine.next_event()
    }

    /// Remembers which peers have unsent messages; [`is_flushed`](Self::is_flushed) says when those
    /// are sent. Returns when a message was last queued, own ones and those of others.
    pub fn flush(&mut self) -> Option<Instant> {
        self.machine.flush()
    }

    /// Returns `true` if all that was queued at the last [`flush`](Self::flush) has been handed to
    /// the transport, or its peer is disconnected.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.machine.is_flushed()
    }

    fn handler(&self, peer: PeerId, origin: Option<Origin>) -> Result<Handler, ConnectionDenied> {
        if self.machine.is_banned(&peer, now()) {
            return Err(ConnectionDenied::new(Banned { peer }));
        }
        let validator = self.machine.validator().clone();
        Ok(Handler::new(
            peer,
            self.names.clone(),
            validator,
            self.max_rpc_bytes,
            self.resources.holder(Some(peer), origin),
        ))
    }

    /// Wakes the task when the machine has something to do.
    fn poll_timer(&mut self, at: Instant, now: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if at <= now {
            return Poll::Ready(());
        }
        let delay = match &mut self.timer {
            Some((set, delay)) if *set == at => delay,
            other => &mut other.insert((at, Delay::new(at - now))).1,
        };
        let fired = delay.poll_unpin(cx);
        if fired.is_ready() {
            self.timer = None;
        }
        fired
    }
}

/// Names from the newest version on.
fn names(newest: GossipVersion) -> Names {
    let all = [
        ("/meshsub/1.3.0", Version::V1_3),
        ("/meshsub/1.2.0", Version::V1_2),
        ("/meshsub/1.1.0", Version::V1_1),
        ("/meshsub/1.0.0", Version::V1_0),
    ];
    let newest = match newest {
        GossipVersion::V1_1 => Version::V1_1,
        GossipVersion::V1_3 => Version::V1_3,
    };
    let offered = all.into_iter().filter(|(_, version)| *version <= newest);
    Names(
        offered
            .map(|(name, version)| Name(StreamProtocol::new(name), version))
            .collect(),
    )
}

/// The IP address of a peer, which a relayed connection does not show.
fn ip(address: &Multiaddr) -> Option<IpAddr> {
    if address.iter().any(|part| part == Protocol::P2pCircuit) {
        return None;
    }
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    })
}

/// The one place that reads the clocks.
#[allow(
    clippy::disallowed_methods,
    reason = "the machine takes the time as an argument; this is where it comes from"
)]
fn now() -> Now {
    Now {
        at: Instant::now(),
        unix: SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default(),
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler(peer, Origin::of_inbound(local, remote))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler(peer, Origin::of_addr(address))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let input = match event {
            FromSwarm::ConnectionEstablished(event) => Input::Connected {
                peer: event.peer_id,
                connection: event.connection_id,
                dialled: event.endpoint.is_dialer(),
                ip: ip(event.endpoint.get_remote_address()),
            },
            FromSwarm::ConnectionClosed(event) => Input::Disconnected {
                peer: event.peer_id,
                connection: event.connection_id,
            },
            _ => return,
        };
        self.machine.handle(input, now());
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        let input = match event {
            FromHandler::Opened(version) => Input::Opened {
                peer,
                connection,
                version,
            },
            FromHandler::Unsupported => Input::Unsupported { peer, connection },
            FromHandler::Lost => Input::Lost { peer, connection },
            FromHandler::Accepted => Input::Accepted { peer, connection },
            FromHandler::Written { frames, bytes } => Input::Written {
                peer,
                connection,
                frames,
                bytes,
            },
            FromHandler::Received(rpcs) => Input::Received {
                peer,
                connection,
                rpcs,
            },
        };
        self.machine.handle(input, now());
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            let now = now();
            if let Some(effect) = self.machine.poll(now) {
                return Poll::Ready(to_swarm(effect));
            }
            match self.machine.next_timeout() {
                Some(at) if self.poll_timer(at, now.at, cx).is_pending() => return Poll::Pending,
                Some(_) => self.machine.handle_timeout(now),
                None => return Poll::Pending,
            }
        }
    }
}

fn to_swarm(effect: Effect) -> ToSwarm<Event, ToHandler> {
    let notify = |peer_id, connection, event| ToSwarm::NotifyHandler {
        peer_id,
        handler: NotifyHandler::One(connection),
        event,
    };
    match effect {
        Effect::Open {
            peer,
            connection,
            watch,
        } => notify(peer, connection, ToHandler::Open { watch }),
        Effect::Send {
            peer,
            connection,
            frames,
        } => notify(peer, connection, ToHandler::Send(frames)),
        Effect::KeepAlive {
            peer,
            connection,
            keep,
        } => notify(peer, connection, ToHandler::KeepAlive(keep)),
        Effect::Close { peer } => ToSwarm::CloseConnection {
            peer_id: peer,
            connection: CloseConnection::All,
        },
        Effect::Emit(event) => ToSwarm::GenerateEvent(event),
    }
}
