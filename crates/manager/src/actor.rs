//! The actor that owns the swarm: one task, one loop. It carries out commands and turns what the
//! swarm says into events, status and answers.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use calimero_network_discovery::liveness;
use calimero_network_primitives::{Multiaddr, NetworkConfig, PeerId, addr::peer_of};
use calimero_network_stream::{self as stream, FrameStream, Inbound, Incoming};
use calimero_network_transport::{AddressError, Link, Links, classify};
use futures::StreamExt as _;
use libp2p::{
    Swarm, TransportError,
    core::ConnectedPoint,
    identify,
    swarm::{
        self, ConnectionError, ConnectionId, SwarmEvent,
        derive_prelude::ListenerId,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::sync::mpsc;

use crate::{
    behaviour::{Behaviour, BehaviourEvent},
    command::{Command, Reply},
    dials::Dials,
    error::{AddressFailure, DialError, ListenError, Stopped},
    event::{CloseReason, EventSender, NetworkEvent},
    status::{Connection, Direction, Path, PeerInfo, Shared, Status},
};

type DialReply = Reply<Result<Connection, DialError>>;
type ListenReply = Reply<Result<(ListenerId, Multiaddr), ListenError>>;

/// Everything the loop works on.
pub(crate) struct Actor {
    swarm: Swarm<Behaviour>,
    links: Links,
    inbound: Incoming,
    commands: mpsc::Receiver<Command>,
    events: EventSender,
    shared: Arc<Shared>,
    config: Arc<NetworkConfig>,
    connections: HashMap<ConnectionId, Established>,
    dials: Dials<DialReply>,
    /// Who waits for what a peer says of itself.
    identifying: HashMap<PeerId, Vec<Reply<Option<Arc<PeerInfo>>>>>,
    /// Listeners that have not reported an address yet, and who waits for it.
    listening: HashMap<ListenerId, (Multiaddr, ListenReply)>,
}

/// What the actor keeps of a connection.
struct Established {
    peer: PeerId,
    since: Instant,
    direction: Direction,
    address: Multiaddr,
    path: Path,
    link: Arc<Link>,
    rtt: Option<Duration>,
    info: Option<Arc<PeerInfo>>,
    unresponsive: bool,
}

/// What the loop does next.
enum Next {
    Go,
    Stop(Option<Reply<()>>),
}

impl Actor {
    pub(crate) fn new(
        swarm: Swarm<Behaviour>,
        links: Links,
        inbound: Incoming,
        commands: mpsc::Receiver<Command>,
        events: EventSender,
        shared: Arc<Shared>,
        config: Arc<NetworkConfig>,
    ) -> Self {
        Self {
            swarm,
            links,
            inbound,
            commands,
            events,
            shared,
            config,
            connections: HashMap::new(),
            dials: Dials::default(),
            identifying: HashMap::new(),
            listening: HashMap::new(),
        }
    }

    /// Runs until a client asks for the end or none is left.
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
                Some(inbound) = self.inbound.next() => {
                    self.on_inbound_stream(inbound);
                    Next::Go
                }
                () = self.events.room() => {
                    self.events.tell_missed();
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
        match command {
            Command::DialAddress { address, reply } => self.dial_address(address, reply),
            Command::DialPeer {
                peer,
                addresses,
                reply,
            } => self.dial_peer(peer, addresses, reply),
            Command::ForgetDials => self.forget_dials(),
            Command::Disconnect { peer, reply } => {
                let _ = reply.send(self.swarm.disconnect_peer_id(peer).is_ok());
            }
            Command::Listen { address, reply } => self.listen(address, reply),
            Command::StopListening { id, reply } => {
                let _ = reply.send(self.swarm.remove_listener(id));
            }
            Command::Block {
                peer,
                blocked,
                reply,
            } => {
                let list = &mut self.swarm.behaviour_mut().blocked;
                if blocked {
                    list.block_peer(peer);
                } else {
                    list.unblock_peer(peer);
                }
                let _ = reply.send(());
            }
            Command::Identified { peer, reply } => self.wait_for_info(peer, reply),
            Command::Status { reply } => {
                let _ = reply.send(self.status());
            }
            Command::Shutdown { reply } => return Next::Stop(Some(reply)),
        }
        Next::Go
    }

    // Dialling.

    fn dial_address(&mut self, address: Multiaddr, reply: DialReply) {
        if let Some(id) = self.dials.under_way(&address) {
            return self.dials.wait_for_address(id, address, reply);
        }
        let options = DialOpts::unknown_peer_id().address(address.clone()).build();
        let id = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => self.dials.wait_for_address(id, address, reply),
            Err(error) => {
                let error = dial_error(self.swarm.local_peer_id(), error);
                let _ = reply.send(Err(error));
            }
        }
    }

    fn dial_peer(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, reply: DialReply) {
        let local = *self.swarm.local_peer_id();
        if peer == local {
            let _ = reply.send(Err(DialError::LocalPeer { peer }));
        } else if let Some(connection) = self.best_connection(&peer) {
            let _ = reply.send(Ok(connection));
        } else if self.dials.wait_for_peer(peer, addresses, reply) {
            self.try_addresses(peer);
        }
    }

    /// Dials what has not been tried of a peer. A dial that another part of the node has under
    /// way is waited for: its outcome comes here too.
    fn try_addresses(&mut self, peer: PeerId) {
        let addresses = self.dials.take_untried(&peer);
        let options = DialOpts::peer_id(peer)
            .addresses(addresses.clone())
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .build();
        match self.swarm.dial(options) {
            Ok(()) => {}
            Err(swarm::DialError::DialPeerConditionFalse(_)) => {
                self.dials.put_back(&peer, addresses);
            }
            Err(error) => self.on_peer_dial_failed(peer, error),
        }
    }

    fn on_peer_dial_failed(&mut self, peer: PeerId, error: swarm::DialError) {
        let error = match error {
            swarm::DialError::NoAddresses => DialError::NoAddresses { peer },
            error => dial_error(self.swarm.local_peer_id(), error),
        };
        match self.dials.peer_failed(&peer, error) {
            Some((waiters, error)) => {
                for waiter in waiters {
                    let _ = waiter.send(Err(error.clone()));
                }
            }
            None if self.dials.has_untried(&peer) => self.try_addresses(peer),
            None => {}
        }
    }

    fn forget_dials(&mut self) {
        for peer in self.dials.forget(DialReply::is_closed) {
            if !self.swarm.is_connected(&peer) {
                // An error here says that no connection stood, which is known; a dial under way
                // is aborted all the same.
                let _ = self.swarm.disconnect_peer_id(peer);
            }
        }
    }

    // Listening.

    fn listen(&mut self, address: Multiaddr, reply: ListenReply) {
        match self.swarm.listen_on(address.clone()) {
            Ok(id) => {
                self.listening.insert(id, (address, reply));
            }
            Err(error) => {
                let _ = reply.send(Err(listen_error(address, error)));
            }
        }
    }

    fn on_listening(&mut self, listener: ListenerId, address: Multiaddr) {
        if let Some((_, reply)) = self.listening.remove(&listener) {
            let _ = reply.send(Ok((listener, address.clone())));
        }
        self.events
            .send(NetworkEvent::Listening { listener, address });
    }

    fn on_listener_closed(
        &mut self,
        listener: ListenerId,
        addresses: Vec<Multiaddr>,
        error: Option<std::io::Error>,
    ) {
        if let Some((address, reply)) = self.listening.remove(&listener) {
            let kind = error
                .as_ref()
                .map_or(std::io::ErrorKind::NotConnected, |e| e.kind());
            let source = kind.into();
            let _ = reply.send(Err(ListenError::Io { address, source }));
        }
        self.events.send(NetworkEvent::NotListening {
            listener,
            addresses,
            error,
        });
    }

    // What the swarm says.

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
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
            } => self.events.send(NetworkEvent::NotListening {
                listener: listener_id,
                addresses: vec![address],
                error: None,
            }),
            SwarmEvent::ListenerClosed {
                listener_id,
                addresses,
                reason,
            } => self.on_listener_closed(listener_id, addresses, reason.err()),
            SwarmEvent::ListenerError { listener_id, error } => {
                tracing::debug!(?listener_id, %error, "a listener reported an error");
            }
            SwarmEvent::IncomingConnectionError {
                send_back_addr,
                error,
                ..
            } => tracing::debug!(from = %send_back_addr, %error, "an inbound connection failed"),
            _ => {}
        }
    }

    fn on_established(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let Some(link) = self.links.claim(&peer, endpoint) else {
            // It has closed since, or more came at once than are kept on record.
            self.swarm.close_connection(id);
            for waiter in self.dials.connected(&peer, id) {
                let _ = waiter.send(Err(DialError::Aborted));
            }
            return;
        };
        let established = Established {
            peer,
            since: Instant::now(),
            direction: if endpoint.is_dialer() {
                Direction::Outbound
            } else {
                Direction::Inbound
            },
            address: endpoint.get_remote_address().clone(),
            path: Path::of(endpoint),
            link,
            rtt: None,
            info: self.info_of(&peer),
            unresponsive: false,
        };
        let connection = established.snapshot(id);
        self.connections.insert(id, established);
        self.count_peers();
        for waiter in self.dials.connected(&peer, id) {
            let _ = waiter.send(Ok(connection.clone()));
        }
        self.events.send(NetworkEvent::Connected(connection));
    }

    fn on_closed(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        remaining: u32,
        cause: Option<ConnectionError>,
    ) {
        let Some(closed) = self.connections.remove(&connection) else {
            return;
        };
        self.count_peers();
        if remaining == 0 {
            self.tell_info(&peer, None);
        }
        let reason = match cause {
            _ if closed.unresponsive => CloseReason::Unresponsive,
            None => CloseReason::Local,
            Some(ConnectionError::KeepAliveTimeout) => CloseReason::Idle,
            Some(ConnectionError::IO(error)) => CloseReason::Remote {
                error: error.kind(),
            },
        };
        self.events.send(NetworkEvent::Disconnected {
            peer,
            connection,
            reason,
            remaining,
        });
    }

    fn on_dial_failed(&mut self, id: ConnectionId, peer: Option<PeerId>, error: swarm::DialError) {
        let waiters = self.dials.address_failed(id);
        if !waiters.is_empty() {
            let error = dial_error(self.swarm.local_peer_id(), error);
            for waiter in waiters {
                let _ = waiter.send(Err(error.clone()));
            }
        } else if let Some(peer) = peer {
            self.on_peer_dial_failed(peer, error);
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                self.on_identified(peer_id, info);
            }
            BehaviourEvent::Identify(identify::Event::Error { peer_id, .. }) => {
                self.tell_info(&peer_id, None);
            }
            BehaviourEvent::Liveness(event) => self.on_liveness(event),
            BehaviourEvent::Streams(event) => self.on_refused(event),
            _ => {}
        }
    }

    fn on_identified(&mut self, peer: PeerId, info: identify::Info) {
        let info = Arc::new(PeerInfo {
            protocol_version: info.protocol_version,
            agent_version: info.agent_version,
            listening: info.listen_addrs,
            protocols: info.protocols,
            observed: info.observed_addr,
        });
        let mut news = false;
        for connection in self.connections.values_mut().filter(|c| c.peer == peer) {
            if connection.info.as_ref() != Some(&info) {
                connection.info = Some(info.clone());
                news = true;
            }
        }
        self.tell_info(&peer, Some(&info));
        if news {
            self.events.send(NetworkEvent::Identified { peer, info });
        }
    }

    fn wait_for_info(&mut self, peer: PeerId, reply: Reply<Option<Arc<PeerInfo>>>) {
        let info = self.info_of(&peer);
        if info.is_some() || !self.swarm.is_connected(&peer) {
            let _ = reply.send(info);
            return;
        }
        let waiters = self.identifying.entry(peer).or_default();
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(reply);
    }

    fn tell_info(&mut self, peer: &PeerId, info: Option<&Arc<PeerInfo>>) {
        for waiter in self.identifying.remove(peer).into_iter().flatten() {
            let _ = waiter.send(info.cloned());
        }
    }

    fn on_liveness(&mut self, event: liveness::Event) {
        let Some(connection) = self.connections.get_mut(&event.connection) else {
            return;
        };
        match event.outcome {
            liveness::Outcome::Rtt(rtt) => connection.rtt = Some(rtt),
            liveness::Outcome::GivenUp { .. } => connection.unresponsive = true,
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
            } => self.events.send(NetworkEvent::StreamsRefused {
                peer,
                protocol,
                reason,
                count,
            }),
            stream::Event::OthersRefused { count } => {
                self.events
                    .send(NetworkEvent::OtherStreamsRefused { count });
            }
            _ => {}
        }
    }

    fn on_inbound_stream(&mut self, inbound: Inbound) {
        self.events.send(NetworkEvent::StreamOpened {
            peer: inbound.peer,
            connection: inbound.connection,
            protocol: inbound.protocol,
            stream: FrameStream::with_config(inbound.stream, (&self.config.streams).into()),
        });
    }

    // Status.

    fn status(&self) -> Status {
        let info = self.swarm.network_info();
        let counters = info.connection_counters();
        let mut connections: Vec<_> = self
            .connections
            .iter()
            .map(|(id, connection)| connection.snapshot(*id))
            .collect();
        connections.sort_by_key(|connection| std::cmp::Reverse(connection.age));
        Status {
            peer: *self.swarm.local_peer_id(),
            listening: self.swarm.listeners().cloned().collect(),
            external: self.swarm.external_addresses().cloned().collect(),
            connections,
            pending_outbound: counters.num_pending_outgoing(),
            pending_inbound: counters.num_pending_incoming(),
            events_dropped: self.shared.events_dropped.load(Ordering::Relaxed),
        }
    }

    fn info_of(&self, peer: &PeerId) -> Option<Arc<PeerInfo>> {
        let mut connections = self.connections.values();
        connections.find_map(|c| (c.peer == *peer).then(|| c.info.clone()).flatten())
    }

    /// A direct connection with the peer rather than a relayed one.
    fn best_connection(&self, peer: &PeerId) -> Option<Connection> {
        self.connections
            .iter()
            .filter(|(_, connection)| connection.peer == *peer)
            .min_by_key(|(_, connection)| connection.path != Path::Direct)
            .map(|(id, connection)| connection.snapshot(*id))
    }

    fn count_peers(&self) {
        let peers: HashSet<_> = self.connections.values().map(|c| c.peer).collect();
        self.shared.peers.store(peers.len(), Ordering::Release);
    }

    // The end.

    /// Answers everybody who waits, closes listeners and connections, and drives the swarm until
    /// all are gone or the deadline passes.
    async fn stop(&mut self) {
        self.shared.stop();
        self.commands.close();
        for waiter in self.dials.drain() {
            let _ = waiter.send(Err(Stopped.into()));
        }
        let pending = self.listening.drain();
        for (_, (_, reply)) in pending {
            let _ = reply.send(Err(Stopped.into()));
        }
        let deadline = tokio::time::sleep(self.config.handle.shutdown_timeout);
        tokio::pin!(deadline);
        for peer in self.swarm.connected_peers().copied().collect::<Vec<_>>() {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        while !self.connections.is_empty() {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
                () = &mut deadline => {
                    tracing::debug!(left = self.connections.len(), "connections cut at the deadline");
                    break;
                }
            }
        }
    }
}

impl Established {
    fn snapshot(&self, id: ConnectionId) -> Connection {
        Connection {
            peer: self.peer,
            id,
            direction: self.direction,
            address: self.address.clone(),
            path: self.path,
            age: self.since.elapsed(),
            rtt: self.rtt,
            info: self.info.clone(),
            link: self.link.clone(),
        }
    }
}

fn dial_error(local: &PeerId, error: swarm::DialError) -> DialError {
    match error {
        swarm::DialError::LocalPeerId { .. } => DialError::LocalPeer { peer: *local },
        swarm::DialError::Denied { cause } => DialError::Denied(cause.into()),
        swarm::DialError::WrongPeerId { obtained, address } => DialError::Failed {
            attempts: vec![AddressFailure {
                cause: AddressError::WrongPeer {
                    expected: peer_of(&address).unwrap_or(obtained),
                    found: obtained,
                },
                address,
            }],
        },
        swarm::DialError::Transport(errors) => DialError::Failed {
            attempts: errors
                .into_iter()
                .map(|(address, error)| AddressFailure {
                    cause: classify(&error),
                    address,
                })
                .collect(),
        },
        swarm::DialError::NoAddresses
        | swarm::DialError::DialPeerConditionFalse(_)
        | swarm::DialError::Aborted => DialError::Aborted,
    }
}

fn listen_error(address: Multiaddr, error: TransportError<std::io::Error>) -> ListenError {
    match error {
        TransportError::MultiaddrNotSupported(address) => ListenError::Unsupported { address },
        TransportError::Other(source) => ListenError::Io { address, source },
    }
}
