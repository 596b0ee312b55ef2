//! The one derived behaviour, and how the configuration becomes it.

#[cfg(feature = "upnp")]
use calimero_network_discovery::port_mapping;
use calimero_network_discovery::{self as discovery, connections, server};
use calimero_network_primitives::{
    Keypair, NetworkConfig,
    addr::peer_of,
    resources::{Limits, Protection, Resources},
};
use calimero_network_pubsub as pubsub;
#[cfg(feature = "invites")]
use calimero_network_specialized as specialized;
use calimero_network_stream as stream;
use libp2p::{
    allow_block_list::{self, AllowedPeers, BlockedPeers},
    relay,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};

use crate::error::StartError;
#[cfg(feature = "blobs")]
use crate::records::ProviderRecords;

/// Every protocol of the node. Limits and lists come first, so that a connection that they refuse
/// reaches no other behaviour. Gossip comes last: it counts a peer as connected as soon as it is asked
/// for a handler, and does not learn that a later behaviour refused the connection.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) limits: connections::Behaviour,
    pub(crate) blocked: allow_block_list::Behaviour<BlockedPeers>,
    allowed: Toggle<allow_block_list::Behaviour<AllowedPeers>>,
    pub(crate) discovery: discovery::Behaviour,
    #[cfg(feature = "upnp")]
    pub(crate) port_mapping: Toggle<port_mapping::Behaviour>,
    pub(crate) server: server::Behaviour,
    pub(crate) streams: stream::Behaviour,
    #[cfg(feature = "invites")]
    pub(crate) invites: specialized::Behaviour,
    pub(crate) pubsub: pubsub::Behaviour,
}

/// The accounting of a node, in which boot nodes and allowed peers are protected.
pub(crate) fn resources(config: &NetworkConfig) -> Resources {
    let resources = Resources::new(Limits::from(config));
    for peer in config.discovery.boot.iter().filter_map(peer_of) {
        resources.protect(peer, Protection::BootNode);
    }
    for peer in &config.connections.allow {
        resources.protect(*peer, Protection::Configured);
    }
    resources
}

impl Behaviour {
    pub(crate) fn new(
        identity: &Keypair,
        config: &NetworkConfig,
        relay_client: Option<relay::client::Behaviour>,
        resources: Resources,
    ) -> Result<Self, StartError> {
        let connections = &config.connections;
        let mut blocked = allow_block_list::Behaviour::<BlockedPeers>::default();
        for peer in &connections.block {
            blocked.block_peer(*peer);
        }
        let allowed = (!connections.allow.is_empty()).then(|| {
            let mut allowed = allow_block_list::Behaviour::<AllowedPeers>::default();
            for peer in &connections.allow {
                allowed.allow_peer(*peer);
            }
            allowed
        });
        #[cfg(feature = "blobs")]
        let records = ProviderRecords {
            unsigned: config.blob.unsigned_records,
        };
        #[cfg(not(feature = "blobs"))]
        let records = discovery::behaviour::RefuseRecords;
        let mut discovery = discovery::Behaviour::new(
            identity,
            &config.discovery,
            &connections.ping,
            &config.agent_version,
            relay_client,
            records,
            rand::random(),
        )?;
        for peer in &connections.block {
            discovery.block(*peer);
        }
        discovery.protect_in(resources.clone());
        let local = identity.public().to_peer_id();
        let server = server::Behaviour::with_resources(
            local,
            &config.server,
            rand::random(),
            resources.clone(),
        )?;
        Ok(Self {
            limits: connections::Behaviour::new(resources.clone()),
            blocked,
            allowed: allowed.into(),
            discovery,
            #[cfg(feature = "upnp")]
            port_mapping: (config.discovery.port_mapping)
                .then(port_mapping::Behaviour::default)
                .into(),
            server,
            streams: stream::Behaviour::with_resources(config.streams.clone(), resources.clone()),
            #[cfg(feature = "invites")]
            invites: specialized::Behaviour::with_resources(
                &config.specialized,
                resources.clone(),
            )?,
            pubsub: pubsub::Behaviour::new(identity.clone(), &config.pubsub)?
                .with_resources(resources),
        })
    }
}
