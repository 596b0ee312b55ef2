//! The one derived behaviour, and how the configuration becomes it.

use calimero_network_discovery::liveness;
use calimero_network_primitives::{IDENTIFY_PROTOCOL_VERSION, Keypair, NetworkConfig};
use calimero_network_pubsub as pubsub;
use calimero_network_specialized as specialized;
use calimero_network_stream as stream;
use libp2p::{
    allow_block_list::{self, AllowedPeers, BlockedPeers},
    connection_limits::{self, ConnectionLimits},
    identify, relay,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};

use crate::error::StartError;

/// Every protocol of the node. Limits and lists stand first, so that a connection they refuse
/// reaches no other. Gossip stands last: it takes a peer for connected as soon as it is asked, and
/// does not hear that another refused.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    limits: connection_limits::Behaviour,
    pub(crate) blocked: allow_block_list::Behaviour<BlockedPeers>,
    allowed: Toggle<allow_block_list::Behaviour<AllowedPeers>>,
    identify: identify::Behaviour,
    liveness: liveness::Behaviour,
    pub(crate) streams: stream::Behaviour,
    pub(crate) invites: specialized::Behaviour,
    relay_client: Toggle<relay::client::Behaviour>,
    pub(crate) pubsub: pubsub::Behaviour,
}

impl Behaviour {
    pub(crate) fn new(
        identity: &Keypair,
        config: &NetworkConfig,
        relay_client: Option<relay::client::Behaviour>,
    ) -> Result<Self, StartError> {
        let connections = &config.connections;
        let limits = ConnectionLimits::default()
            .with_max_pending_incoming(Some(connections.max_pending_inbound))
            .with_max_pending_outgoing(Some(connections.max_pending_outbound))
            .with_max_established_per_peer(Some(connections.max_per_peer))
            .with_max_established(Some(connections.max_established));
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
        let identify =
            identify::Config::new(IDENTIFY_PROTOCOL_VERSION.to_owned(), identity.public())
                .with_agent_version(config.agent_version.clone())
                .with_push_listen_addr_updates(true);
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits),
            blocked,
            allowed: allowed.into(),
            identify: identify::Behaviour::new(identify),
            liveness: liveness::Behaviour::new(&connections.ping),
            streams: stream::Behaviour::new(config.streams.clone()),
            invites: specialized::Behaviour::new(&config.specialized)?,
            relay_client: relay_client.into(),
            pubsub: pubsub::Behaviour::new(identity.clone(), &config.pubsub)?,
        })
    }
}
