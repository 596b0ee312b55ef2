//! Presets: sets of values for one kind of network.

use serde::{Deserialize, Serialize};

use super::{MeshConfig, NetworkConfig};
use crate::{limits::MAX_PUBLISHED_MESSAGE_BYTES, topic::GLOBAL_RENDEZVOUS_NAMESPACE};

/// A set of values for one kind of network, which a file names with `preset = "…"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Preset {
    /// Topics with 2 to 20 members. All values are the defaults.
    #[default]
    Small,
    /// Topics with more than 20 members: `pubsub.mesh` is `large`, and `discovery.members_target` is
    /// 18, the largest mesh (12) and half of it in reserve.
    Large,
    /// Networks in which some nodes still run published 0.11: `pubsub.max_message_bytes` is what
    /// those nodes accept, all versions of the blob protocol are offered, and provider records are
    /// written and read both unsigned, for those nodes, and signed, for all others.
    /// `discovery.global_namespace` is `/calimero/devnet/global`, the default of those nodes.
    #[serde(rename = "published-0.11")]
    Published0_11,
}

impl Preset {
    /// All presets, in the order of the reference.
    pub const ALL: [Self; 3] = [Self::Small, Self::Large, Self::Published0_11];

    /// Sets the values of the preset and leaves all others unchanged.
    pub fn apply(self, config: &mut NetworkConfig) {
        match self {
            Self::Small => config.pubsub.mesh = MeshConfig::small(),
            Self::Large => {
                config.pubsub.mesh = MeshConfig::large();
                config.discovery.members_target = 18;
            }
            Self::Published0_11 => {
                let pubsub = &mut config.pubsub;
                pubsub.max_message_bytes = MAX_PUBLISHED_MESSAGE_BYTES;
                config.blob.versions = super::BlobConfig::default().versions;
                config.blob.unsigned_records = super::compiled::BLOBS;
                config.discovery.global_namespace = GLOBAL_RENDEZVOUS_NAMESPACE.to_owned();
            }
        }
    }
}

impl NetworkConfig {
    /// Returns the default configuration with the values of `preset`.
    #[must_use]
    pub fn preset(preset: Preset) -> Self {
        let mut config = Self::default();
        preset.apply(&mut config);
        config
    }
}
