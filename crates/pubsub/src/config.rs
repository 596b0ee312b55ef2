//! The configuration, which the primitives define.

pub use calimero_network_primitives::config::{
    GossipMemoryTuning, GossipPeersTuning, GossipVersion, KeepTuning, MeshConfig,
    PubsubConfig as Config,
};
