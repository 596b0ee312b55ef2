//! The configuration, and what it means for gossipsub.

use std::time::Duration;

pub use calimero_network_primitives::config::{
    GossipMemoryTuning, GossipPeersTuning, GossipVersion, KeepTuning, MeshConfig,
    PubsubConfig as Config, RepairTuning,
};
use calimero_network_primitives::{PeerId, limits::MAX_GOSSIP_CONTROL_BYTES};
use libp2p_gossipsub as gossipsub;

use crate::{
    error::BuildError,
    standing::{BASE_SCORE, GRAYLIST_SCORE, RETAINED},
    wire::{Namer, OVERHEAD_BYTES},
};

/// Heartbeats between two attempts to take a better peer into a mesh, the value of
/// libp2p-gossipsub.
const OPPORTUNISTIC_GRAFT_TICKS: u64 = 60;

/// Translates what `validate` has let pass.
pub(crate) fn gossipsub_config(config: &Config) -> Result<gossipsub::Config, BuildError> {
    let (mesh, memory, peers) = (&config.mesh, &config.memory, &config.peers);
    let namer = Namer::default();
    let mut builder = gossipsub::ConfigBuilder::default();
    if config.newest_version == GossipVersion::V1_1 {
        // What a builder with a prefix offers: `<prefix>/1.1.0` and `<prefix>/1.0.0`.
        builder.protocol_id_prefix("/meshsub");
    }
    builder
        .validation_mode(gossipsub::ValidationMode::Strict)
        .message_id_fn(move |message| message_id(&namer, message))
        .mesh_n(mesh.target)
        .mesh_n_low(mesh.low)
        .mesh_n_high(mesh.high)
        .mesh_outbound_min(mesh.outbound_min)
        .retain_scores(RETAINED)
        .opportunistic_graft_ticks(OPPORTUNISTIC_GRAFT_TICKS)
        .flood_publish(mesh.flood_publish)
        .heartbeat_interval(mesh.heartbeat)
        .heartbeat_initial_delay(Duration::ZERO)
        .prune_backoff(mesh.prune_backoff)
        .unsubscribe_backoff(mesh.unsubscribe_backoff)
        .idontwant_message_size_threshold(mesh.announce_arrival_bytes)
        .duplicate_cache_time(memory.ids)
        .history_length(memory.history_heartbeats)
        .history_gossip(memory.gossip_heartbeats)
        .max_transmit_size(max_rpc_bytes(config))
        .max_control_message_size(MAX_GOSSIP_CONTROL_BYTES)
        .connection_handler_queue_len(peers.queue)
        .publish_queue_duration(peers.publish_wait)
        .forward_queue_duration(peers.forward_wait)
        .build()
        .map_err(|error| BuildError::Gossipsub {
            reason: error.to_string(),
        })
}

/// Largest RPC sent and accepted, in bytes.
pub(crate) fn max_rpc_bytes(config: &Config) -> usize {
    config.max_message_bytes.max(MAX_GOSSIP_CONTROL_BYTES) + OVERHEAD_BYTES
}

/// The id of a message. Strict validation leaves none without an author; one whose sequence
/// number is empty counts as number 0, as everywhere.
fn message_id(namer: &Namer, message: &gossipsub::Message) -> gossipsub::MessageId {
    let author = message.source.unwrap_or_else(nobody);
    let number = message.sequence_number.unwrap_or_default();
    namer.name(&author, number).into()
}

/// The author of a message without one: the identity multihash of one zero byte.
fn nobody() -> PeerId {
    PeerId::from_bytes(&[0, 1, 0]).unwrap_or_else(|_| PeerId::random())
}

/// Scores that gossipsub computes itself are off: they know topics, addresses and rates, but
/// not that honest nodes sit behind one address, fall silent, or follow 2,000 topics. What counts
/// is [`Standing`](crate::standing), which is handed over as the application's score.
pub(crate) fn score_params() -> gossipsub::PeerScoreParams {
    gossipsub::PeerScoreParams {
        app_specific_weight: 1.0,
        ip_colocation_factor_weight: 0.0,
        behaviour_penalty_weight: 0.0,
        slow_peer_weight: 0.0,
        retain_score: Duration::from_secs(60),
        ..gossipsub::PeerScoreParams::default()
    }
}

/// The table of [`standing`](crate::standing). Peers are not exchanged, so nothing is accepted
/// there. A better peer is taken in where the median of the mesh is a stranger or worse.
pub(crate) fn score_thresholds() -> gossipsub::PeerScoreThresholds {
    gossipsub::PeerScoreThresholds {
        gossip_threshold: -100.0,
        publish_threshold: -200.0,
        graylist_threshold: GRAYLIST_SCORE,
        accept_px_threshold: f64::MAX,
        opportunistic_graft_threshold: BASE_SCORE + 1.0,
    }
}
