//! The libp2p behaviours that the machine steers, derived together.

use std::convert::Infallible;

use calimero_network_primitives::{
    IDENTIFY_PROTOCOL_VERSION, Keypair, PeerId, ProtocolId,
    addr::{DialScopes, peer_of},
    config::{DiscoveryConfig, PingConfig, RecordsTuning},
};
use libp2p_kad as kad;
#[cfg(feature = "mdns")]
use libp2p_mdns as mdns;
use libp2p_relay as relay;
use libp2p_swarm::{NetworkBehaviour, StreamProtocol, behaviour::toggle::Toggle};

use super::{
    error::BuildError, identify::Identify, keep::Keeper, probe, records, rendezvous, store::Store,
};
use crate::liveness;

/// The behaviours of all protocols. Their handlers are those of the outer behaviour.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p_swarm::derive_prelude", to_swarm = "InnerEvent")]
#[allow(
    unreachable_pub,
    reason = "its connection handler is an associated type of a public behaviour"
)]
pub struct Inner {
    pub(super) keeper: Keeper,
    pub(super) liveness: liveness::Behaviour,
    pub(super) identify: Identify,
    pub(super) kad: kad::Behaviour<Store>,
    pub(super) rendezvous: rendezvous::Client,
    pub(super) relay: Toggle<relay::client::Behaviour>,
    pub(super) dcutr: Toggle<libp2p_dcutr::Behaviour>,
    pub(super) probes: probe::Client,
    pub(super) probe_server: Toggle<probe::server::Server>,
    #[cfg(feature = "mdns")]
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
}

/// The events of the inner behaviours.
#[allow(
    unreachable_pub,
    clippy::large_enum_variant,
    reason = "moved once, from a poll to the match that takes it apart"
)]
#[derive(Debug)]
pub enum InnerEvent {
    Liveness(liveness::Event),
    Identify(libp2p_identify::Event),
    Kad(kad::Event),
    Rendezvous(rendezvous::Event),
    Relay(relay::client::Event),
    Dcutr(libp2p_dcutr::Event),
    Probed(probe::Event),
    #[cfg(feature = "mdns")]
    Mdns(mdns::Event),
}

impl Inner {
    pub(super) fn new(
        identity: &Keypair,
        config: &DiscoveryConfig,
        ping: &PingConfig,
        agent_version: &str,
        relay_client: Option<relay::client::Behaviour>,
    ) -> Result<Self, BuildError> {
        let local = identity.public().to_peer_id();
        // The address book of the machine alone stores addresses of peers.
        let identify =
            libp2p_identify::Config::new(IDENTIFY_PROTOCOL_VERSION.to_owned(), identity.public())
                .with_agent_version(agent_version.to_owned())
                .with_cache_size(0);
        #[cfg(feature = "mdns")]
        let mdns = config.mdns.then(|| new_mdns(local)).transpose()?;
        Ok(Self {
            keeper: Keeper::default(),
            liveness: liveness::Behaviour::new(ping),
            identify: Identify::new(identify),
            kad: new_kad(local, &config.records),
            rendezvous: rendezvous::Client::new(identity.clone()),
            dcutr: relay_client
                .is_some()
                .then(|| libp2p_dcutr::Behaviour::new(local))
                .into(),
            relay: relay_client.into(),
            probes: probe::Client::new(config.boot.iter().filter_map(peer_of).collect()),
            probe_server: None.into(),
            #[cfg(feature = "mdns")]
            mdns: mdns.into(),
        })
    }

    /// Sets whether probes of other peers are served on new connections.
    pub(super) fn serve_probes(&mut self, serve: bool, scopes: DialScopes) {
        self.probe_server = serve.then(|| probe::server::Server::new(scopes)).into();
    }
}

#[cfg(feature = "mdns")]
pub(super) fn new_mdns(local: PeerId) -> Result<mdns::tokio::Behaviour, BuildError> {
    mdns::tokio::Behaviour::new(mdns::Config::default(), local).map_err(BuildError::Mdns)
}

/// Serves from the start, because a Kademlia that waits for a confirmed address never serves on a
/// private network. The machine adds peers to its table and filters their addresses.
fn new_kad(local: PeerId, records: &RecordsTuning) -> kad::Behaviour<Store> {
    let protocol = StreamProtocol::new(KADEMLIA);
    debug_assert_eq!(protocol.as_ref(), ProtocolId::Kademlia.as_str());
    let mut config = kad::Config::new(protocol);
    records::configure(&mut config, records);
    config.set_kbucket_inserts(kad::BucketInserts::Manual);
    let mut kad = kad::Behaviour::with_config(local, records::new_store(local), config);
    kad.set_mode(Some(kad::Mode::Server));
    kad
}

/// The text of [`ProtocolId::Kademlia`] as a constant.
const KADEMLIA: &str = "/calimero/kad/1.0.0";

macro_rules! from {
    ($($event:ty => $variant:ident),* $(,)?) => {$(
        impl From<$event> for InnerEvent {
            fn from(event: $event) -> Self {
                Self::$variant(event)
            }
        }
    )*};
}

from! {
    liveness::Event => Liveness,
    libp2p_identify::Event => Identify,
    kad::Event => Kad,
    rendezvous::Event => Rendezvous,
    relay::client::Event => Relay,
    libp2p_dcutr::Event => Dcutr,
    probe::Event => Probed,
}

#[cfg(feature = "mdns")]
from! { mdns::Event => Mdns }

impl From<Infallible> for InnerEvent {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
