//! The behaviour that the [`machine`](crate::machine) steers.
//!
//! [`Behaviour`] wraps Kademlia, mDNS, a rendezvous client, a relay v2 client, DCUtR, AutoNAT v2,
//! identify and [`liveness`](crate::liveness). It passes their events to the machine and carries
//! out the machine's effects. It takes no decision and works in any Swarm.
//!
//! In a behaviour that is derived from several, those that refuse connections (limits, lists)
//! belong before this one: some of the behaviours inside treat a connection as established when
//! they are asked for its handler.
//!
//! ```
//! use calimero_network_discovery::{Behaviour, Event, behaviour::RefuseRecords};
//! use calimero_network_primitives::{Keypair, config::{DiscoveryConfig, PingConfig, TransportConfig}};
//! use calimero_network_transport::build_memory;
//! use futures::StreamExt;
//! use libp2p_swarm::{Config, Swarm, SwarmEvent};
//!
//! fn node(config: &DiscoveryConfig) -> Result<Swarm<Behaviour>, Box<dyn std::error::Error>> {
//!     let identity = Keypair::generate_ed25519();
//!     let transport = build_memory(&identity, &TransportConfig::default())?;
//!     let (ping, relay) = (PingConfig::default(), transport.relay_client);
//!     let seed = 42; // a random one outside of examples
//!     let discovery =
//!         Behaviour::new(&identity, config, &ping, "example/1", relay, RefuseRecords, seed)?;
//!     let peer = identity.public().to_peer_id();
//!     Ok(Swarm::new(transport.boxed, discovery, peer, Config::with_tokio_executor()))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut boot = node(&DiscoveryConfig::default())?;
//! boot.listen_on("/memory/0".parse()?)?;
//! let address = loop {
//!     if let SwarmEvent::NewListenAddr { address, .. } = boot.select_next_some().await {
//!         break address.with_p2p(*boot.local_peer_id()).map_err(|_| "another peer")?;
//!     }
//! };
//! let config = DiscoveryConfig {
//!     boot: vec![address],
//!     local_network: true, // loopback and memory addresses lead somewhere
//!     ..DiscoveryConfig::default()
//! };
//! let mut member = node(&config)?; // dials its boot node on its own
//! loop {
//!     tokio::select! {
//!         event = member.select_next_some() => {
//!             if let SwarmEvent::Behaviour(Event::Identified { peer, info, .. }) = event {
//!                 assert_eq!(peer, *boot.local_peer_id());
//!                 assert_eq!(info.agent_version, "example/1");
//!                 break;
//!             }
//!         }
//!         _ = boot.select_next_some() => {}
//!     }
//! }
//! let status = member.behaviour_mut().status();
//! assert_eq!(status.peers.len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # One writer of external addresses
//!
//! The machine alone decides which addresses are external; the results of the relay client and of
//! probes go to it. The Swarm announces an address that the application adds to it unchanged, and
//! this behaviour probes that address. An address that the operator knows belongs into
//! [`DiscoveryConfig::external`].
//!
//! # Dials and connections
//!
//! The machine's dials go to exactly the addresses that it gives. Where another behaviour dials the
//! same peer at that time, they wait until that dial ends. A dial of another behaviour that names a
//! peer id without addresses is offered those of the machine's address book, and those of Kademlia
//! that may be dialled. Connections with boot nodes and members of overlays are kept alive, used or
//! not. A relayed connection is closed some time after a direct one with the same peer was
//! established. Two ways lead to a direct connection: a peer that is reached through a relay dials
//! back, and DCUtR. Where both fail, the side that dialled tries again by another connection
//! through the relay, after a wait that doubles ([`RelayTuning::punch_min_backoff`]), while the
//! peer stays relayed.
//!
//! [`RelayTuning::punch_min_backoff`]: calimero_network_primitives::config::RelayTuning
//!
//! # What is spoken
//!
//! This crate implements the client of rendezvous (`/rendezvous/1.0.0`), the client and the server
//! of AutoNAT v2, the server of AutoNAT v1, and ping ([`liveness`](crate::liveness)). Kademlia,
//! identify and its push, relay v2, DCUtR and mDNS are libp2p's. Probes of other peers are served on
//! connections that are established while this node is reachable.

mod circuits;
pub(crate) mod clock;
mod effects;
mod error;
mod event;
#[allow(
    unreachable_pub,
    reason = "handlers are associated types of a public behaviour"
)]
mod identify;
mod inner;
mod inner_events;
#[allow(
    unreachable_pub,
    reason = "handlers are associated types of a public behaviour"
)]
mod keep;
mod local_ip;
#[cfg(feature = "mdns")]
mod local_link;
mod lookups;
mod peers;
#[allow(
    unreachable_pub,
    reason = "handlers are associated types of a public behaviour"
)]
mod probe;
mod punches;
mod records;
#[allow(
    unreachable_pub,
    reason = "handlers are associated types of a public behaviour"
)]
mod rendezvous;
mod status;
mod store;
mod swarm;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Instant,
};

use calimero_network_primitives::{
    Keypair, Multiaddr, PeerId,
    addr::DialScopes,
    config::{DiscoveryConfig, PingConfig},
    resources::Resources,
};
pub use libp2p_identify::Info as IdentifyInfo;
use libp2p_kad::store::RecordStore;
pub use libp2p_kad::{QueryId, Quorum, Record, RecordKey};
use libp2p_swarm::{ConnectionId, THandlerInEvent, ToSwarm, derive_prelude::ListenerId};

#[cfg(feature = "mdns")]
use self::local_link::LocalLink;
#[cfg(feature = "mdns")]
pub use self::local_link::MAX_LOCAL_ADDRESSES;
use self::{
    clock::{Resumption, Timer, now},
    inner::Inner,
    peers::Peers,
    punches::Punches,
    records::Queries,
};
pub use self::{
    error::{Blocked, BuildError, HolePunchRefused, RecordError, RecordRefused},
    event::{Event, QueryOutcome},
    inner_events::MAX_IDENTIFY_ITEMS,
    records::{
        MAX_PROVIDED_KEYS, MAX_PROVIDERS_PER_KEY, MAX_PROVIDERS_PER_QUERY, MAX_QUERIES,
        MAX_RECORDS, MAX_RECORDS_PER_QUERY, RECORD_TTL, RecordValidator, RefuseRecords,
    },
    status::{ConnectionStatus, PeerStatus, Status},
};
pub use crate::machine::HolePunch;
use crate::{
    liveness::Carried,
    machine::{
        AttemptId, CacheEntry, Effect, Input, Machine, Namespace, Phase, Reachability,
        RelayListener,
    },
    paths::Paths,
};

type ToTheSwarm = ToSwarm<Event, THandlerInEvent<Inner>>;

/// A relay reservation that is requested or held.
#[derive(Clone, Copy, Debug)]
struct Slot {
    listener: RelayListener,
    relay: PeerId,
    /// Whether the Swarm listens. Only then it reports the end of the listener.
    listening: bool,
    granted: bool,
}

/// A dial under way, whichever behaviour made it.
#[derive(Clone, Copy, Debug)]
struct Began {
    at: Instant,
    peer: Option<PeerId>,
}

/// A dial of the machine.
#[derive(Debug)]
struct Dialling {
    peer: PeerId,
    addresses: Vec<Multiaddr>,
}

/// Discovery for a Swarm. See the [module](self).
///
/// # Bounds
///
/// The limits of the machine ([`DiscoveryConfig`]), one entry for each established connection, dial
/// under way and relay reservation, [`MAX_QUERIES`] queries, [`MAX_RECORDS`] records. The queue for
/// the Swarm holds what one call or one event causes, because the Swarm empties it before the next.
pub struct Behaviour {
    local: PeerId,
    inner: Inner,
    machine: Machine,
    validator: Box<dyn RecordValidator>,
    /// Inputs that carrying out an effect has caused.
    inputs: VecDeque<Input>,
    waiting: VecDeque<ToTheSwarm>,
    peers: Peers,
    paths: Paths<ConnectionId>,
    blocked: HashSet<PeerId>,
    dials: HashMap<ConnectionId, Dialling>,
    /// The dials under way, those of other behaviours included.
    began: HashMap<ConnectionId, Began>,
    /// Time at which each open listener was opened.
    opened: HashMap<ListenerId, Instant>,
    /// Dials that wait for the end of a dial that another behaviour made.
    behind: HashMap<PeerId, Vec<Multiaddr>>,
    /// Attempts of the direct path: dials under way, and the connections that they made.
    attempts: HashMap<ConnectionId, AttemptId>,
    punches: Punches,
    slots: HashMap<ListenerId, Slot>,
    /// Relay listeners that this node closes, until the Swarm reports that they are closed.
    given_up: HashSet<ListenerId>,
    externals: Vec<Multiaddr>,
    /// Limit of addresses of one peer in the Kademlia table. Above it, addresses that are not in
    /// the address book are removed.
    max_routes: usize,
    /// Which of the addresses that peers report may be dialled.
    dial_scopes: DialScopes,
    queries: Queries,
    #[cfg(feature = "mdns")]
    local_link: LocalLink,
    /// Whether the machine took an input since `phase` and `reachability` were emitted.
    has_input: bool,
    phase: Phase,
    reachability: Reachability,
    timer: Timer,
    resumption: Resumption,
}

impl Behaviour {
    /// Creates a behaviour for the node with `identity`.
    ///
    /// `relay_client` is the behaviour that belongs to the relay transport
    /// ([`libp2p_relay::client::new`]). Without it, the node requests no reservations and punches
    /// no holes. `agent_version` is sent by identify. `seed` decides the random choices of the
    /// machine; it should be random unless a run has to be repeated.
    ///
    /// Needs a tokio runtime if [`DiscoveryConfig::mdns`] is set.
    ///
    /// # Errors
    ///
    /// [`BuildError::Config`] with the key whose value is invalid, [`BuildError::Mdns`] if the
    /// interfaces cannot be watched.
    pub fn new(
        identity: &Keypair,
        config: &DiscoveryConfig,
        ping: &PingConfig,
        agent_version: &str,
        relay_client: Option<libp2p_relay::client::Behaviour>,
        validator: impl RecordValidator,
        seed: u64,
    ) -> Result<Self, BuildError> {
        let local = identity.public().to_peer_id();
        let mut config = config.clone();
        if relay_client.is_none() {
            config.relays = 0;
        }
        let dial_scopes = config.dial_scopes();
        let max_routes = config.book.max_addresses_per_peer as usize;
        let inner = Inner::new(identity, &config, ping, agent_version, relay_client)?;
        let machine = Machine::new(config, local, seed, now())?;
        let mut behaviour = Self {
            local,
            inner,
            phase: machine.phase(),
            reachability: machine.reachability(),
            machine,
            validator: Box::new(validator),
            inputs: VecDeque::new(),
            waiting: VecDeque::new(),
            peers: Peers::default(),
            paths: Paths::new(local),
            blocked: HashSet::new(),
            dials: HashMap::new(),
            began: HashMap::new(),
            opened: HashMap::new(),
            behind: HashMap::new(),
            attempts: HashMap::new(),
            punches: Punches::new(now()),
            slots: HashMap::new(),
            given_up: HashSet::new(),
            externals: Vec::new(),
            max_routes,
            dial_scopes,
            queries: Queries::default(),
            #[cfg(feature = "mdns")]
            local_link: LocalLink::default(),
            has_input: false,
            timer: Timer::default(),
            resumption: Resumption::default(),
        };
        behaviour.input(Input::ListenersPending);
        Ok(behaviour)
    }

    /// Joins an overlay: registers and discovers at once. [`Event::FollowRefused`] follows if the
    /// limit of overlays is reached.
    pub fn follow(&mut self, namespace: Namespace) {
        self.input(Input::Follow(namespace));
    }

    /// Leaves an overlay: unregisters and discovers no more members.
    pub fn unfollow(&mut self, namespace: Namespace) {
        self.input(Input::Unfollow(namespace));
    }

    /// Protects boot nodes and members of overlays in `resources`, for as long as they are such.
    pub fn protect_in(&mut self, resources: Resources) {
        self.inner.keeper.protect_in(resources);
    }

    /// Blocks `peer`: closes its connections, and denies new ones.
    pub fn block(&mut self, peer: PeerId) {
        if peer != self.local {
            self.blocked.insert(peer);
            self.inner.kad.remove_peer(&peer);
        }
        self.input(Input::Block(peer));
    }

    /// Allows connections with `peer` again.
    pub fn unblock(&mut self, peer: PeerId) {
        self.blocked.remove(&peer);
        self.input(Input::Unblock(peer));
    }

    /// Retries now what waits for its time: lost peers, relays, probes, hole punches, the refresh
    /// of the Kademlia routing table. Pings every connection; a peer that does not answer within
    /// 3 s is disconnected and dialled again, unless its connection is merely busy
    /// ([`meter`](Self::meter)).
    ///
    /// The behaviour does the same, without the routing table, when the process continues after a
    /// stop of 30 s or more, and for the connections that may use it when an address of this host
    /// disappears. Loopback and link-local addresses do not count. A new address makes it retry
    /// what waits if this node is not connected with a boot node, had no address that reaches as
    /// far, or lost an address within the last minute. A program on a
    /// system that does not report changes of addresses calls this when it learns of one.
    pub fn bootstrap(&mut self) {
        self.replace_dead_connections();
        self.carry_out(Effect::RefreshRouting);
    }

    /// A connection timed out: nothing arrived from its peer for the timeout of the transport. Other
    /// connections that share its path are found and replaced within 3 s, if they are dead as well
    /// and not busy ([`meter`](Self::meter)).
    pub fn connection_timed_out(&mut self) {
        self.inner.liveness.probe_after_silence(now());
    }

    /// Counts the bytes of an established connection, so that a probe does not close it while it is
    /// merely busy: `read` returns what it has carried so far.
    pub fn meter(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        read: impl Fn() -> Carried + Send + 'static,
    ) {
        self.inner.liveness.meter(peer, connection, read);
    }

    /// Existing connections may be dead without a sign of it: their path or their peer's patience
    /// ended.
    fn replace_dead_connections(&mut self) {
        self.input(Input::NetworkChanged);
        self.inner.liveness.probe();
    }

    /// Adds the peers of the peer cache, the first of which are dialled.
    pub fn cache_loaded(&mut self, entries: Vec<CacheEntry>) {
        self.input(Input::CacheLoaded(entries));
    }

    /// Returns the peers to dial first after a restart.
    #[must_use]
    pub fn cache(&self) -> Vec<CacheEntry> {
        self.machine.cache()
    }

    /// Uses the boot nodes of lists, each address with its `/p2p/<peer>`, in place of those of the
    /// lists before. Configured boot nodes stay. The addresses are held to the same rules as those
    /// that peers report; if none passes, the boot nodes before are kept.
    ///
    /// Returns the number of boot nodes of lists that are used now, at most 16.
    pub fn boot_list_resolved(&mut self, addresses: Vec<Multiaddr>) -> usize {
        self.input(Input::BootList(addresses));
        self.inner
            .probes
            .prefer(self.machine.boot_nodes().collect());
        self.machine.listed_boot_node_count()
    }

    /// Returns whether `peer` is a boot node, configured or of a list.
    #[must_use]
    pub fn is_boot_node(&self, peer: &PeerId) -> bool {
        self.machine.boot_nodes().any(|boot| boot == *peer)
    }

    /// Reports a member of an overlay that the application knows, for example by a subscription.
    pub fn member_seen(&mut self, namespace: Namespace, peer: PeerId) {
        self.input(Input::MemberSeen { namespace, peer });
    }

    /// Reports that a peer left an overlay.
    pub fn member_gone(&mut self, namespace: Namespace, peer: PeerId) {
        self.input(Input::MemberGone { namespace, peer });
    }

    /// Stops discovery: unregisters and ends reservations. The Swarm needs to be polled until the
    /// requests are sent. No effect follows afterwards.
    pub fn stop(&mut self) {
        self.input(Input::Stop);
    }

    /// Returns the phase of discovery.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.machine.phase()
    }

    /// Returns a snapshot of discovery and its connections. Copies every table.
    #[must_use]
    pub fn status(&mut self) -> Status {
        Status {
            discovery: self.machine.status(),
            peers: self.peers.status(&self.machine),
            records: self.inner.kad.store_mut().records().count(),
        }
    }

    /// Passes an input to the machine and carries out its effects.
    fn input(&mut self, input: Input) {
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            self.machine.handle(input, now());
            self.carry_out_all();
        }
        self.has_input = true;
    }

    fn emit(&mut self, event: Event) {
        self.waiting.push_back(ToSwarm::GenerateEvent(event));
    }

    /// Emits events for changes of the phase and of the reachability.
    fn emit_changes(&mut self) {
        if !std::mem::take(&mut self.has_input) {
            return;
        }
        let phase = self.machine.phase();
        if phase != self.phase {
            let from = std::mem::replace(&mut self.phase, phase);
            self.emit(Event::PhaseChanged { from, to: phase });
        }
        let reachability = self.machine.reachability();
        if reachability != self.reachability {
            self.reachability = reachability.clone();
            self.emit(Event::ReachabilityChanged { reachability });
        }
    }
}
