//! Configuration of the pubsub crate.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, check, check_duration, check_queue};
use crate::limits::{MAX_GOSSIP_MESSAGE_BYTES, MAX_OWN_TOPICS, MIB};

/// How messages travel over topics, and what is remembered of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PubsubConfig {
    /// Sizes of the mesh of each topic, `small` or `large`.
    ///
    /// - Default: `small`, for topics with 2 to 20 members: 4 in a mesh, own messages go to every
    ///   known subscriber. `large` is for more members: 6 in a mesh, own messages go to the mesh.
    /// - Reason: a small mesh costs few copies, a large one survives the loss of more members. The
    ///   preset `large` sets it.
    #[serde(with = "mesh_name")]
    pub mesh: MeshConfig,
    /// Largest payload that is published and accepted, in bytes.
    ///
    /// - Default: 1 MiB, the bound of the wire format, in both directions.
    /// - Range: 1 to 1048576.
    /// - Reason: published 0.11 nodes drop messages above 64 KiB. The preset `published-0.11` sets
    ///   what fits.
    pub max_message_bytes: usize,
    /// Topics that the node subscribes to at the same time.
    ///
    /// - Default: 2000.
    /// - Range: 1 to 2048, what one announcement holds.
    /// - Reason: a program with few topics finds its own leaks early.
    pub max_topics: usize,
    /// Newest version of gossipsub that is offered, together with all earlier ones.
    ///
    /// - Default: `1.3`. Two nodes speak the newest version that both offer.
    /// - Range: `1.1` or `1.3`.
    /// - Reason: a network that must behave exactly like published 0.11 nodes limits it.
    pub newest_version: GossipVersion,
    /// Limits of the memory of messages. Not a key.
    #[serde(skip)]
    pub memory: GossipMemoryTuning,
    /// Limits of peers and their send queues. Not a key.
    #[serde(skip)]
    pub peers: GossipPeersTuning,
    /// Limits of messages that wait for a first subscriber. Not a key.
    #[serde(skip)]
    pub keep: KeepTuning,
}

/// A version of gossipsub, as `/meshsub/<version>.0` names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GossipVersion {
    /// 1.1 and 1.0, without IDONTWANT, so that each message arrives from several members.
    /// libp2p-gossipsub offers 1.2 only together with 1.3.
    #[serde(rename = "1.1")]
    V1_1,
    /// All supported versions: 1.3, 1.2, 1.1 and 1.0.
    #[default]
    #[serde(rename = "1.3")]
    V1_3,
}

/// The mesh of each topic: with how many of its members messages are exchanged in full.
///
/// Sizes obey `outbound_min <= low <= target <= high` and `2 * outbound_min <= target`, the
/// conditions of the gossipsub specification, v1.1. A file names [`small`](Self::small) or
/// [`large`](Self::large); single values can be set in Rust only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshConfig {
    /// Members in the mesh after a correction (`D`). Default 4, `large` 6 (the value of the
    /// specification).
    pub target: usize,
    /// Members below which more are grafted (`D_low`). Default 2, which a topic with three members
    /// reaches; `large` 5, as libp2p-gossipsub.
    pub low: usize,
    /// Members above which some are pruned (`D_high`). Default 8, `large` 12 (the value of the
    /// specification).
    pub high: usize,
    /// Members to which this node opened the connection (`D_out`). An attacker that surrounds the
    /// node with inbound connections cannot take their part. Default 1, all that a topic of two
    /// members has; `large` 2.
    pub outbound_min: usize,
    /// Whether own messages are sent to all known subscribers instead of the mesh. Default on: with
    /// 20 members it costs the publisher some copies and saves a hop. `large` off: it would cost one
    /// copy per member.
    pub flood_publish: bool,
    /// Interval of mesh maintenance and gossip. Default 1 s, the value of the specification.
    pub heartbeat: Duration,
    /// Time during which a pruned member is not grafted, in whole seconds, the unit of the wire
    /// format. Default 1 s: with only two members, a longer one is silence. `large` 60 s, the value
    /// of the specification.
    pub prune_backoff: Duration,
    /// Time during which this node does not graft for a topic that it unsubscribed from, in whole
    /// seconds. Default 1 s, as `prune_backoff`; `large` 10 s, the value of the specification.
    pub unsubscribe_backoff: Duration,
    /// Size of messages, in bytes with author, topic and signature, above which their arrival is
    /// announced to the mesh (IDONTWANT), so that members do not send further copies.
    ///
    /// Default 8 KiB. An announcement is an RPC to every member of the mesh and costs as much
    /// processor time as some copies of 1 KiB, whose signature is not checked again. Measured with
    /// five nodes at full speed and 1 KiB, announcing each message leaves 1.7 copies instead of 2.3
    /// and takes half as much processor time again. At least 64.
    pub announce_arrival_bytes: usize,
}

/// What is remembered of messages: values that no file sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GossipMemoryTuning {
    /// Time after which a copy of a message counts as a replay. Default 30 s: longer than any path
    /// through a mesh. With a shorter one, honest peers that forward late look like peers that
    /// replay.
    pub replay_after: Duration,
    /// Ids of messages that are remembered, up to twice as many. Default 262,144: about 20 MiB when
    /// full. A message that is repeated after as many others counts as new, however soon. At least
    /// `peers.queue`, so that no queue delivers a message again that came through another one.
    pub replayed_ids: usize,
    /// Heartbeats for which a message is kept to be requested: by members outside the mesh, and by
    /// members whose connection failed. Default 30. QUIC closes a connection 10 s after the last
    /// packet and TCP up to 18 s after its path failed, and another one follows within 5 s; the
    /// specification has 5. Memory is this time multiplied by the rate of arrival, at most 32 MiB.
    pub history_heartbeats: usize,
    /// Latest of these heartbeats whose messages are announced to members outside the mesh. Default
    /// 3, the value of the specification. At most `history_heartbeats`.
    pub gossip_heartbeats: usize,
}

/// What peers may announce, send and leave unread: values that no file sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GossipPeersTuning {
    /// Topics of one peer that are remembered although this node does not subscribe to them. Default
    /// 4,096: twice what a node may subscribe to. Own topics are always remembered.
    pub max_foreign_topics_per_peer: usize,
    /// The same for all peers together. Default 65,536: about 20 MiB at the 44 bytes of a context,
    /// 150 MiB if every topic has the largest length.
    pub max_foreign_topics: usize,
    /// Messages in the send queue of one peer. Default 4,096: a quarter of a second at the highest
    /// rate measured between two nodes. A full queue drops messages; the peer is disconnected when
    /// that lasts for `slow_timeout`.
    pub queue: usize,
    /// Bytes of payload in the send queue of one peer. Default 64 MiB. A peer above it is
    /// disconnected at once. At least `window_bytes`.
    pub queue_bytes: usize,
    /// Messages in the send queue of one peer above which own messages are delayed. Default 256: the
    /// connection always has data to write, and messages that the peer no longer wants are found
    /// quickly. At most `queue`; the rest is for forwarded messages.
    pub window: usize,
    /// The same in bytes of payload. Default 4 MiB. At least `max_message_bytes`.
    pub window_bytes: usize,
    /// Time for which a peer whose queue does not shrink delays messages to others. Default 2 s:
    /// longer than a busy host suspends a process, shorter than `publish_wait`.
    pub hold: Duration,
    /// Time for which an own message may wait in that queue. Default 5 s, the value of
    /// libp2p-gossipsub.
    pub publish_wait: Duration,
    /// Time for which a forwarded message may wait in that queue. Default 5 s, as for own ones; the
    /// value of libp2p-gossipsub, 1 s, loses messages on a busy host.
    pub forward_wait: Duration,
    /// Time for which the queue of a peer may be full before it is disconnected. Default 10 s. At
    /// least two heartbeats, because a full queue is reported once per heartbeat.
    pub slow_timeout: Duration,
    /// Time for which a peer that misbehaved is refused. Default 60 s.
    pub ban: Duration,
}

/// What is kept for topics without another subscriber, where the publisher asks for it: values that
/// no file sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepTuning {
    /// Longest time for which a message is kept. Default 60 s.
    pub max_time: Duration,
    /// Messages that are kept. Default 1,024.
    pub max_messages: usize,
    /// Bytes of payload that are kept. Default 16 MiB. At least `max_message_bytes`.
    pub max_bytes: usize,
}

/// The name of a mesh in files.
mod mesh_name {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::MeshConfig;

    /// Sizes of a mesh by name.
    #[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Name {
        Small,
        Large,
    }

    /// Writes the name. A mesh that was set in Rust has that of `small`.
    pub(super) fn serialize<S: Serializer>(mesh: &MeshConfig, to: S) -> Result<S::Ok, S::Error> {
        let is_large = *mesh == MeshConfig::large();
        let name = if is_large { Name::Large } else { Name::Small };
        name.serialize(to)
    }

    /// Reads the name of a mesh.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<MeshConfig, D::Error> {
        Ok(match Name::deserialize(from)? {
            Name::Small => MeshConfig::small(),
            Name::Large => MeshConfig::large(),
        })
    }
}

impl Default for PubsubConfig {
    fn default() -> Self {
        Self::small()
    }
}

impl PubsubConfig {
    /// Returns the configuration for topics with 2 to 20 members.
    #[must_use]
    pub fn small() -> Self {
        Self {
            mesh: MeshConfig::small(),
            memory: GossipMemoryTuning::default(),
            peers: GossipPeersTuning::default(),
            keep: KeepTuning::default(),
            max_message_bytes: MAX_GOSSIP_MESSAGE_BYTES,
            max_topics: 2_000,
            newest_version: GossipVersion::default(),
        }
    }

    /// Returns the configuration for topics with more than 20 members.
    #[must_use]
    pub fn large() -> Self {
        Self {
            mesh: MeshConfig::large(),
            ..Self::small()
        }
    }

    /// Checks every value. Keys are named below `prefix`, which is empty or ends in a dot.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first key whose value is refused.
    pub fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        check(self.max_message_bytes > 0, || {
            (key("max_message_bytes"), "must be above 0")
        })?;
        check(self.max_message_bytes <= MAX_GOSSIP_MESSAGE_BYTES, || {
            (
                key("max_message_bytes"),
                "must be at most 1048576, the bound of the wire format",
            )
        })?;
        check(self.max_topics > 0, || {
            (key("max_topics"), "must be above 0")
        })?;
        check(self.max_topics <= MAX_OWN_TOPICS, || {
            (
                key("max_topics"),
                "must be at most 2048, what one announcement holds",
            )
        })?;
        self.mesh.validate(&key("mesh."))?;
        self.memory.validate(&key("memory."))?;
        self.peers
            .validate(&key("peers."), self.mesh.heartbeat, self.max_message_bytes)?;
        check(self.memory.replayed_ids >= self.peers.queue, || {
            (key("memory.replayed_ids"), "must be at least peers.queue")
        })?;
        self.keep.validate(&key("keep."), self.max_message_bytes)
    }
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self::small()
    }
}

impl MeshConfig {
    /// Returns the configuration for topics with 2 to 20 members.
    #[must_use]
    pub const fn small() -> Self {
        Self {
            target: 4,
            low: 2,
            high: 8,
            outbound_min: 1,
            flood_publish: true,
            heartbeat: Duration::from_secs(1),
            prune_backoff: Duration::from_secs(1),
            unsubscribe_backoff: Duration::from_secs(1),
            announce_arrival_bytes: 8 * 1024,
        }
    }

    /// Returns the configuration for topics with more than 20 members.
    #[must_use]
    pub const fn large() -> Self {
        Self {
            target: 6,
            low: 5,
            high: 12,
            outbound_min: 2,
            flood_publish: false,
            prune_backoff: Duration::from_secs(60),
            unsubscribe_backoff: Duration::from_secs(10),
            ..Self::small()
        }
    }

    fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        check_queue(self.low, || key("low"))?;
        check(self.outbound_min <= self.low, || {
            (key("outbound_min"), "must not exceed low")
        })?;
        check(self.low <= self.target, || {
            (key("low"), "must not exceed target")
        })?;
        check(self.target <= self.high, || {
            (key("target"), "must not exceed high")
        })?;
        check_queue(self.high, || key("high"))?;
        check(self.outbound_min * 2 <= self.target, || {
            (key("outbound_min"), "must be at most half of target")
        })?;
        check_duration(self.heartbeat, || key("heartbeat"))?;
        for (name, backoff) in [
            ("prune_backoff", self.prune_backoff),
            ("unsubscribe_backoff", self.unsubscribe_backoff),
        ] {
            check_duration(backoff, || key(name))?;
            check(backoff.subsec_nanos() == 0, || {
                (key(name), "must be whole seconds")
            })?;
            check(backoff <= Duration::from_secs(3600), || {
                (key(name), "must be at most an hour, what peers obey")
            })?;
        }
        check(self.announce_arrival_bytes >= 64, || {
            (key("announce_arrival_bytes"), "must be at least 64")
        })
    }
}

impl Default for GossipMemoryTuning {
    fn default() -> Self {
        Self {
            replay_after: Duration::from_secs(30),
            replayed_ids: 262_144,
            history_heartbeats: 30,
            gossip_heartbeats: 3,
        }
    }
}

impl GossipMemoryTuning {
    fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        check_duration(self.replay_after, || key("replay_after"))?;
        check_queue(self.replayed_ids, || key("replayed_ids"))?;
        check_queue(self.gossip_heartbeats, || key("gossip_heartbeats"))?;
        check(self.gossip_heartbeats <= self.history_heartbeats, || {
            (
                key("gossip_heartbeats"),
                "must not exceed history_heartbeats",
            )
        })?;
        check(self.history_heartbeats <= 120, || {
            (key("history_heartbeats"), "must be at most 120")
        })
    }
}

impl Default for GossipPeersTuning {
    fn default() -> Self {
        Self {
            max_foreign_topics_per_peer: 2 * MAX_OWN_TOPICS,
            max_foreign_topics: 65_536,
            queue: 4_096,
            queue_bytes: 64 * MIB,
            window: 256,
            window_bytes: 4 * MIB,
            hold: Duration::from_secs(2),
            publish_wait: Duration::from_secs(5),
            forward_wait: Duration::from_secs(5),
            slow_timeout: Duration::from_secs(10),
            ban: Duration::from_secs(60),
        }
    }
}

impl GossipPeersTuning {
    fn validate(
        &self,
        prefix: &str,
        heartbeat: Duration,
        max_message_bytes: usize,
    ) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        for (name, value) in [
            (
                "max_foreign_topics_per_peer",
                self.max_foreign_topics_per_peer,
            ),
            ("max_foreign_topics", self.max_foreign_topics),
            ("queue", self.queue),
            ("window", self.window),
        ] {
            check_queue(value, || key(name))?;
        }
        check(self.window <= self.queue, || {
            (key("window"), "must not exceed queue")
        })?;
        check(self.window_bytes >= max_message_bytes, || {
            (key("window_bytes"), "must be at least max_message_bytes")
        })?;
        check(self.window_bytes <= self.queue_bytes, || {
            (key("window_bytes"), "must not exceed queue_bytes")
        })?;
        check(
            self.max_foreign_topics_per_peer <= self.max_foreign_topics,
            || {
                (
                    key("max_foreign_topics_per_peer"),
                    "must not exceed max_foreign_topics",
                )
            },
        )?;
        for (name, value) in [
            ("publish_wait", self.publish_wait),
            ("forward_wait", self.forward_wait),
            ("hold", self.hold),
            ("slow_timeout", self.slow_timeout),
            ("ban", self.ban),
        ] {
            check_duration(value, || key(name))?;
        }
        check(self.slow_timeout >= heartbeat * 2, || {
            (key("slow_timeout"), "must be at least two heartbeats")
        })
    }
}

impl Default for KeepTuning {
    fn default() -> Self {
        Self {
            max_time: Duration::from_secs(60),
            max_messages: 1_024,
            max_bytes: 16 * MIB,
        }
    }
}

impl KeepTuning {
    fn validate(&self, prefix: &str, max_message_bytes: usize) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        check_duration(self.max_time, || key("max_time"))?;
        check_queue(self.max_messages, || key("max_messages"))?;
        check(self.max_bytes >= max_message_bytes, || {
            (key("max_bytes"), "must be at least max_message_bytes")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut PubsubConfig)) -> String {
        let mut config = PubsubConfig::small();
        change(&mut config);
        match config.validate("pubsub.") {
            Err(ConfigError::Invalid { key, .. }) => key,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn presets_hold() {
        assert_eq!(PubsubConfig::small().validate(""), Ok(()));
        assert_eq!(PubsubConfig::large().validate(""), Ok(()));
        assert_eq!(PubsubConfig::default(), PubsubConfig::small());
    }

    #[test]
    fn contradictions_are_refused_with_the_key() {
        for (key, change) in [
            (
                "max_message_bytes",
                (|c| c.max_message_bytes += 1) as fn(&mut PubsubConfig),
            ),
            ("max_message_bytes", |c| c.max_message_bytes = 0),
            ("max_topics", |c| c.max_topics = 2_049),
            ("mesh.low", |c| c.mesh.low = 5),
            ("mesh.low", |c| c.mesh.low = 0),
            ("mesh.target", |c| c.mesh.target = 9),
            ("mesh.outbound_min", |c| c.mesh.outbound_min = 3),
            ("mesh.outbound_min", |c| {
                (c.mesh.low, c.mesh.target, c.mesh.outbound_min) = (3, 3, 2);
            }),
            ("mesh.heartbeat", |c| c.mesh.heartbeat = Duration::ZERO),
            ("mesh.prune_backoff", |c| {
                c.mesh.prune_backoff = Duration::from_millis(1500);
            }),
            ("mesh.unsubscribe_backoff", |c| {
                c.mesh.unsubscribe_backoff = Duration::from_secs(3601);
            }),
            ("mesh.announce_arrival_bytes", |c| {
                c.mesh.announce_arrival_bytes = 10;
            }),
            ("memory.gossip_heartbeats", |c| {
                c.memory.gossip_heartbeats = c.memory.history_heartbeats + 1
            }),
            ("memory.replayed_ids", |c| c.memory.replayed_ids = 0),
            ("memory.replayed_ids", |c| {
                c.memory.replayed_ids = c.peers.queue - 1
            }),
            ("peers.max_foreign_topics_per_peer", |c| {
                c.peers.max_foreign_topics = 1;
            }),
            ("peers.window", |c| c.peers.window = 4_097),
            ("peers.window_bytes", |c| c.peers.window_bytes = 1),
            ("peers.window_bytes", |c| c.peers.queue_bytes = 1),
            ("peers.hold", |c| c.peers.hold = Duration::ZERO),
            ("peers.slow_timeout", |c| {
                c.peers.slow_timeout = Duration::from_secs(1);
            }),
            ("keep.max_bytes", |c| c.keep.max_bytes = 1),
        ] {
            assert_eq!(refusal(change), format!("pubsub.{key}"));
        }
    }

    #[test]
    fn a_file_changes_what_it_names() {
        let config: PubsubConfig = toml::from_str("max_topics = 7\nmesh = 'large'").unwrap();
        assert_eq!(config.max_topics, 7);
        assert_eq!(config.mesh, MeshConfig::large());
        assert_eq!(config.max_message_bytes, MAX_GOSSIP_MESSAGE_BYTES);
        let error = toml::from_str::<PubsubConfig>("mesh = 'huge'").unwrap_err();
        assert!(error.to_string().contains("unknown variant `huge`"));
    }
}
