//! The actor that owns the swarm: one task with one loop. It executes commands and turns the events of
//! the swarm into events, status and answers.

#[cfg(feature = "blobs")]
mod blobs;
#[cfg(not(feature = "blobs"))]
#[path = "no_blobs.rs"]
mod blobs;
mod connections;
mod dialling;
mod discovery;
mod gossip;
#[cfg(feature = "invites")]
mod invites;
mod listening;
#[cfg(feature = "metrics")]
mod metrics;

use std::{
    collections::{HashMap, HashSet},
    future::poll_fn,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use calimero_network_discovery::behaviour::Event as Discovered;
#[cfg(feature = "upnp")]
use calimero_network_discovery::port_mapping;
#[cfg(feature = "blobs")]
use calimero_network_primitives::Keypair;
use calimero_network_primitives::{Multiaddr, NetworkConfig, PeerId, Topic, addr::DialGate};
#[cfg(feature = "invites")]
use calimero_network_specialized::InboundRequestId;
use calimero_network_stream::{self as stream, FrameConfig, Inbound, Incoming};
use calimero_network_transport::Links;
use futures::StreamExt as _;
use libp2p::{
    Swarm,
    swarm::{ConnectionId, SwarmEvent, derive_prelude::ListenerId},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use self::{
    blobs::Blobs, connections::Established, discovery::Bootstrapping, gossip::Publishes,
    listening::ListenReply,
};
#[cfg(feature = "blobs")]
use crate::blobs::Queues;
use crate::{
    behaviour::{Behaviour, BehaviourEvent},
    boot_list::BootLists,
    boxed_handler::BoxedHandlers,
    command::{Command, Reply},
    dials::Dials,
    error::{DialError, Stopped},
    event::{EventSender, ListenerEvent, StreamEvent},
    listening::Wanted,
    metrics::Metrics,
    peer_cache::PeerCacheWriter,
    status::{Connection, PeerInfo, Shared},
};

/// Time for inbound handshakes that are in progress when a node stops, 500 ms: a few round trips. A
/// peer that stalls its handshake delays the end by no more.
const HANDSHAKE_TIME: Duration = Duration::from_millis(500);

/// Time in which a stopping node withdraws its registrations, the opening of the streams included:
/// 300 ms, a round trip around the world. Servers do not answer. A registration that is not withdrawn
/// expires.
const UNREGISTER_TIME: Duration = Duration::from_millis(300);

/// Time in which a stopping node waits until the peer cache is loaded, 500 ms. Without its peers the
/// cache is not saved, so a disk that is slower costs the peers of this run and no others.
const LOAD_TIME: Duration = Duration::from_millis(500);

/// Time in which a stopping node withdraws its port mappings: 1 s, requests to the router with two
/// retransmissions. A mapping that is not withdrawn expires within 20 minutes.
#[cfg(feature = "upnp")]
const WITHDRAW_TIME: Duration = Duration::from_secs(1);

/// How often the metrics that describe a state are refreshed in the registry of the program that
/// embeds the manager: every 5 s, a third of the usual interval of a scrape.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);

type DialReply = Reply<Result<Connection, DialError>>;

/// The state of the loop.
pub(crate) struct Actor {
    swarm: Swarm<BoxedHandlers<Behaviour>>,
    links: Links,
    /// Decides about every dial. It is granted the addresses that callers dial.
    gate: DialGate,
    inbound: Incoming,
    commands: mpsc::Receiver<Command>,
    events: EventSender,
    shared: Arc<Shared>,
    config: Arc<NetworkConfig>,
    connections: HashMap<ConnectionId, Established>,
    dials: Dials<DialReply>,
    /// Messages that wait to be sent, and their callers.
    publishes: Publishes,
    /// Subscribed topics that are no overlays.
    without_overlay: HashSet<Topic>,
    /// Invite requests that were emitted and have not ended.
    #[cfg(feature = "invites")]
    asked: HashSet<InboundRequestId>,
    blobs: Blobs,
    /// Callers that wait for the first peer.
    bootstrapping: Bootstrapping,
    peer_cache: PeerCacheWriter,
    boot_lists: BootLists,
    metrics: Metrics,
    /// When the metrics in the registry of the embedding program are refreshed, if there is one.
    refresh_metrics_at: Option<Instant>,
    /// Callers that wait for the identify information of a peer.
    identifying: HashMap<PeerId, Vec<Reply<Option<Arc<PeerInfo>>>>>,
    listeners: HashSet<ListenerId>,
    /// When the log last had a warning that connections cannot be accepted.
    accept_warned: Option<std::time::Instant>,
    /// The configured addresses, and the listeners that are open for them.
    wanted: Wanted,
    /// Listeners without an address yet, and the callers that wait for it.
    listening: HashMap<ListenerId, (Multiaddr, ListenReply)>,
}

/// The next step of the loop.
enum Next {
    Go,
    Stop(Option<Reply<()>>),
}

impl Actor {
    #[expect(
        clippy::too_many_arguments,
        reason = "each part is built in one place and belongs to the actor alone"
    )]
    pub(crate) fn new(
        swarm: Swarm<BoxedHandlers<Behaviour>>,
        links: Links,
        gate: DialGate,
        inbound: Incoming,
        commands: mpsc::Receiver<Command>,
        events: EventSender,
        peer_cache: PeerCacheWriter,
        shared: Arc<Shared>,
        config: Arc<NetworkConfig>,
        #[cfg(feature = "blobs")] (identity, queues): (Keypair, Queues),
        metrics: Metrics,
        exports_metrics: bool,
    ) -> Self {
        let boot_lists = BootLists::start(&config.discovery.boot);
        Self {
            #[cfg(feature = "blobs")]
            blobs: Blobs::new(identity, queues, &config.blob),
            #[cfg(not(feature = "blobs"))]
            blobs: Blobs,
            swarm,
            links,
            gate,
            inbound,
            commands,
            events,
            shared,
            config,
            connections: HashMap::new(),
            dials: Dials::default(),
            publishes: Publishes::default(),
            without_overlay: HashSet::new(),
            #[cfg(feature = "invites")]
            asked: HashSet::new(),
            bootstrapping: Bootstrapping::default(),
            peer_cache,
            boot_lists,
            metrics,
            refresh_metrics_at: exports_metrics.then(Instant::now),
            identifying: HashMap::new(),
            listeners: HashSet::new(),
            accept_warned: None,
            wanted: Wanted::default(),
            listening: HashMap::new(),
        }
    }

    /// Runs until a client calls `shutdown` or the last client is dropped.
    pub(crate) async fn run(mut self) {
        let reply = loop {
            let next = tokio::select! {
                event = self.swarm.select_next_some() => {
                    self.on_swarm_event(event);
                    Next::Go
                }
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => Next::Stop(None),
                },
                Some(inbound) = next_inbound(&mut self.inbound, &self.events) => {
                    self.on_inbound_stream(inbound);
                    Next::Go
                }
                peers = self.peer_cache.loaded() => {
                    self.swarm.behaviour_mut().discovery.cache_loaded(peers);
                    Next::Go
                }
                addresses = self.boot_lists.changed() => {
                    self.on_boot_lists(addresses);
                    Next::Go
                }
                input = self.blobs.next() => {
                    self.on_blob_input(input);
                    Next::Go
                }
                () = sleep_until(self.wanted.next_timeout()) => {
                    self.listen_again();
                    Next::Go
                }
                () = sleep_until(self.refresh_metrics_at.map(Instant::into_std)) => {
                    #[cfg(feature = "metrics")]
                    self.refresh_metrics();
                    self.refresh_metrics_at = Some(Instant::now() + REFRESH_INTERVAL);
                    Next::Go
                }
            };
            if let Next::Stop(reply) = next {
                break reply;
            }
        };
        self.stop().await;
        if let Some(reply) = reply {
            let _ = reply.send(());
        }
    }

    fn on_command(&mut self, command: Command) -> Next {
        if command.changes_state() {
            self.shared.changes.count();
        }
        match command {
            Command::DialAddress { address, reply } => self.dial_address(address, reply),
            Command::DialPeer {
                peer,
                addresses,
                reply,
            } => self.dial_peer(peer, addresses, reply),
            Command::Forget => {
                self.forget_dials();
                self.forget_publishes();
                self.forget_listeners();
                self.bootstrapping.retain(|waiter| !waiter.is_closed());
            }
            Command::Disconnect { peer, reply } => {
                let _ = reply.send(self.disconnect(peer));
            }
            Command::Listen { address, reply } => self.listen(address, reply),
            Command::ListenConfigured { address, reply } => {
                self.listen_configured(address, reply);
            }
            Command::StopListening { id, reply } => {
                // The transport knows a listener until its end is reported.
                let was_open = self.listeners.remove(&id);
                // The caller wants it closed, so it is not opened again.
                self.wanted.closed(id);
                if was_open {
                    self.swarm.remove_listener(id);
                }
                let _ = reply.send(was_open);
            }
            Command::Block {
                peer,
                blocked,
                reply,
            } => {
                if blocked {
                    self.closing(peer);
                }
                let behaviour = self.swarm.behaviour_mut();
                if blocked {
                    behaviour.blocked.block_peer(peer);
                    behaviour.discovery.block(peer);
                } else {
                    behaviour.blocked.unblock_peer(peer);
                    behaviour.discovery.unblock(peer);
                }
                let _ = reply.send(());
            }
            Command::Identified { peer, reply } => self.wait_for_info(peer, reply),
            Command::Bootstrap { reply } => self.bootstrap(reply),
            #[cfg(feature = "blobs")]
            Command::Blob(command) => self.on_blob_command(command),
            Command::Gossip(command) => self.on_gossip_command(command),
            #[cfg(feature = "invites")]
            Command::Invite {
                peer,
                request,
                reply,
            } => {
                let _ = reply.send(self.send_invite(peer, &request));
            }
            Command::Status { reply } => {
                let _ = reply.send(self.status());
            }
            #[cfg(feature = "metrics")]
            Command::Metrics { reply } => {
                self.refresh_metrics();
                let _ = reply.send(());
            }
            Command::Shutdown { reply } => return Next::Stop(Some(reply)),
        }
        Next::Go
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        self.metrics.record(&event);
        // Counted before the event is emitted, so that its reader does not see older state.
        if changes_state(&event) {
            self.shared.changes.count();
        }
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => self.on_established(peer_id, connection_id, &endpoint),
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                num_established,
                cause,
                ..
            } => self.on_closed(peer_id, connection_id, num_established, cause),
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                peer_id,
                error,
            } => self.on_dial_failed(connection_id, peer_id, error),
            SwarmEvent::NewListenAddr {
                listener_id,
                address,
            } => self.on_listening(listener_id, address),
            SwarmEvent::ExpiredListenAddr {
                listener_id,
                address,
            } => self.events.send(ListenerEvent::NotListening {
                listener: listener_id,
                addresses: vec![address],
                error: None,
            }),
            SwarmEvent::ListenerClosed {
                listener_id,
                addresses,
                reason,
            } => self.on_listener_closed(listener_id, addresses, reason.err()),
            SwarmEvent::ListenerError { error, .. } => self.on_listener_error(&error),
            SwarmEvent::IncomingConnectionError {
                send_back_addr,
                error,
                ..
            } => tracing::debug!(from = %send_back_addr, %error, "an inbound connection failed"),
            _ => {}
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Discovery(event) => self.on_discovery(event),
            #[cfg(feature = "upnp")]
            BehaviourEvent::PortMapping(event) => self.on_port_mapping(event),
            BehaviourEvent::Streams(event) => self.on_refused(event),
            BehaviourEvent::Pubsub(event) => self.on_gossip(event),
            #[cfg(feature = "invites")]
            BehaviourEvent::Invites(event) => self.on_invite(event),
            _ => {}
        }
    }

    fn on_refused(&mut self, event: stream::Event) {
        match event {
            stream::Event::Refused {
                peer,
                protocol,
                reason,
                count,
            } => self.events.send(StreamEvent::Refused {
                peer,
                protocol,
                reason,
                count,
            }),
            stream::Event::OthersRefused { count } => {
                self.events.send(StreamEvent::OthersRefused { count });
            }
            _ => {}
        }
    }

    fn on_inbound_stream(&mut self, inbound: Inbound) {
        self.events.send(StreamEvent::Opened {
            peer: inbound.peer,
            connection: inbound.connection,
            protocol: inbound.protocol,
            stream: inbound.stream.into_frames(FrameConfig::default()),
        });
    }

    /// Answers all waiting callers, closes listeners, withdraws registrations, writes queued messages,
    /// closes connections, and drives the swarm until all are closed or the deadline passes. Saves the
    /// peer cache meanwhile, and waits for it at the end.
    async fn stop(&mut self) {
        let deadline = Instant::now() + self.config.handle.shutdown_timeout;
        self.shared.stop();
        self.commands.close();
        self.answer_all();
        for listener in self.listeners.drain() {
            self.swarm.remove_listener(listener);
        }
        self.save_peers(deadline).await;
        let discovery = &mut self.swarm.behaviour_mut().discovery;
        let registered = !discovery.status().discovery.registrations.is_empty();
        discovery.stop();
        #[cfg(feature = "upnp")]
        if let Some(mapping) = self.swarm.behaviour_mut().port_mapping.as_mut() {
            mapping.stop();
        }
        if registered {
            let sent = deadline.min(Instant::now() + UNREGISTER_TIME);
            self.drive_until(sent, |_| false).await;
        }
        self.write_messages(deadline).await;
        for peer in self.swarm.connected_peers().copied().collect::<Vec<_>>() {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        // A peer may be connected while its handshake is still in progress here. Without a close it
        // would notice the end of this node by its idle timeout.
        let handshakes = deadline.min(Instant::now() + HANDSHAKE_TIME);
        self.drive_until(handshakes, |actor| {
            let counters = actor.swarm.network_info();
            let pending = counters.connection_counters().num_pending_incoming();
            actor.connections.is_empty() && pending == 0
        })
        .await;
        self.drive_until(deadline, |actor| actor.connections.is_empty())
            .await;
        #[cfg(feature = "upnp")]
        self.withdraw_port_mappings(deadline).await;
        if !self.connections.is_empty() {
            tracing::debug!(
                left = self.connections.len(),
                "connections cut at the deadline"
            );
        }
        // A disk that hangs must not delay the end beyond the deadline.
        if timeout_at(deadline, self.peer_cache.settle())
            .await
            .is_err()
        {
            tracing::warn!("the peer cache was not saved in time");
        }
    }

    /// Saves the peer cache of a node that stops. No event of the swarm does so: without connections,
    /// registrations and messages the swarm of a stopping node is not driven.
    async fn save_peers(&mut self, deadline: Instant) {
        let discovery = &mut self.swarm.behaviour_mut().discovery;
        if self.peer_cache.is_loading() {
            let loaded = deadline.min(Instant::now() + LOAD_TIME);
            let Ok(peers) = timeout_at(loaded, self.peer_cache.loaded()).await else {
                tracing::warn!("the peer cache was not loaded in time and is left as it is");
                return;
            };
            discovery.cache_loaded(peers);
        }
        let entries = discovery.cache();
        self.peer_cache.save(entries);
    }

    /// Waits until the router has deleted the port mappings.
    #[cfg(feature = "upnp")]
    async fn withdraw_port_mappings(&mut self, deadline: Instant) {
        let withdrawn = |actor: &Self| {
            let mapping = actor.swarm.behaviour().port_mapping.as_ref();
            mapping.is_none_or(port_mapping::Behaviour::is_withdrawn)
        };
        let deadline = deadline.min(Instant::now() + WITHDRAW_TIME);
        self.drive_until(deadline, withdrawn).await;
    }

    /// Writes the queued messages, in half of the time that is left, and leaves peers time to read them:
    /// data that a peer has not read is lost when the connection closes.
    async fn write_messages(&mut self, deadline: Instant) {
        let (start, linger) = (Instant::now(), self.config.handle.tuning.linger);
        let Some(last_queued) = self.swarm.behaviour_mut().pubsub.flush() else {
            return;
        };
        let written = start + deadline.saturating_duration_since(start) / 2;
        self.drive_until(written, |actor| actor.swarm.behaviour().pubsub.is_flushed())
            .await;
        if Instant::from_std(last_queued) + linger > start {
            let read = deadline.min(Instant::now() + linger);
            self.drive_until(read, |actor| actor.connections.is_empty())
                .await;
        }
    }

    fn answer_all(&mut self) {
        for waiter in self.dials.drain() {
            let _ = waiter.send(Err(Stopped.into()));
        }
        self.drop_publishes();
        #[cfg(feature = "blobs")]
        self.drop_announcements();
        for waiter in self.bootstrapping.drain(..) {
            let _ = waiter.send(Err(Stopped.into()));
        }
        let pending = self.listening.drain();
        for (_, (_, reply)) in pending {
            reply.stopped();
        }
    }

    /// Drives the swarm of a stopping manager until `done` or the deadline.
    async fn drive_until(&mut self, deadline: Instant, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            // `done` may become true without an event of the swarm.
            let next = poll_fn(|cx| match self.swarm.poll_next_unpin(cx) {
                Poll::Pending if done(self) => Poll::Ready(None),
                event => event,
            });
            let Ok(Some(event)) = timeout_at(deadline, next).await else {
                return;
            };
            // A handshake that was in progress may end during the shutdown.
            if let SwarmEvent::ConnectionEstablished { connection_id, .. } = &event {
                self.swarm.close_connection(*connection_id);
            }
            self.on_swarm_event(event);
        }
    }
}

/// Returns `true` if this event changes state that is visible through the read API. Messages,
/// streams and requests do not.
fn changes_state(event: &SwarmEvent<BehaviourEvent>) -> bool {
    match event {
        // Counted where the events are taken, several at a time.
        SwarmEvent::Behaviour(
            BehaviourEvent::Pubsub(_)
            | BehaviourEvent::Streams(_)
            | BehaviourEvent::Discovery(
                Discovered::Liveness(_)
                | Discovered::ConnectionPreferred { .. }
                | Discovered::ConnectionSpare { .. }
                | Discovered::RecordsFound { .. }
                | Discovered::ProvidersFound { .. }
                | Discovered::QueryEnded { .. },
            ),
        ) => false,
        #[cfg(feature = "invites")]
        SwarmEvent::Behaviour(BehaviourEvent::Invites(_)) => false,
        _ => true,
    }
}

/// The next inbound stream, once the queue of events takes it. Until then it waits in `streams`, whose
/// limits apply.
async fn next_inbound(inbound: &mut Incoming, events: &EventSender) -> Option<Inbound> {
    events.stream_room().await;
    inbound.next().await
}

/// Returns at `at`, or never.
async fn sleep_until(at: Option<std::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
