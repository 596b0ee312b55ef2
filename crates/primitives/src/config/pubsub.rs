//! Configuration of the pubsub crate.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, check, check_duration, check_queue, table};
use crate::limits::{MAX_GOSSIP_MESSAGE_BYTES, MAX_OWN_TOPICS, MIB};

/// How messages travel over topics, and what is remembered of them.
///
/// [`small`](Self::small), the default, is for overlays of 2 to 20 members; [`large`](Self::large)
/// for larger ones. They differ in [`mesh`](Self::mesh) alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PubsubConfig {
    /// The mesh of each overlay.
    #[serde(deserialize_with = "table::deserialize")]
    pub mesh: MeshConfig,
    /// What is remembered of messages.
    #[serde(deserialize_with = "table::deserialize")]
    pub memory: GossipMemoryConfig,
    /// What peers may announce, send and leave unread.
    #[serde(deserialize_with = "table::deserialize")]
    pub peers: GossipPeersConfig,
    /// What is kept for topics that nobody else follows yet.
    #[serde(deserialize_with = "table::deserialize")]
    pub keep: KeepConfig,
    /// How a peer that has missed the announcements is brought back.
    #[serde(deserialize_with = "table::deserialize")]
    pub repair: RepairConfig,
    /// Largest payload published and accepted, in bytes. Default and most:
    /// [`MAX_GOSSIP_MESSAGE_BYTES`]. The same both ways, so that nothing is sent that an equal
    /// would drop. Least 1.
    pub max_message_bytes: usize,
    /// Topics followed at one time. Default 2,000; at most [`MAX_OWN_TOPICS`].
    pub max_topics: usize,
    /// Newest version of gossipsub that is offered, with all before it. Default `"1.3"`. What two
    /// nodes speak is the newest that both offer.
    pub newest_version: GossipVersion,
}

/// A version of gossipsub, as `/meshsub/<version>.0` names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GossipVersion {
    /// 1.1 and 1.0: no IDONTWANT, so that each message comes from several members. libp2p-gossipsub
    /// offers 1.2 with 1.3 alone.
    #[serde(rename = "1.1")]
    V1_1,
    /// 1.3, 1.2, 1.1 and 1.0.
    #[default]
    #[serde(rename = "1.3")]
    V1_3,
}

/// The mesh of each overlay: with how many of its members messages are exchanged in full.
///
/// Sizes obey `outbound_min <= low <= target <= high` and `2 * outbound_min <= target`, the
/// conditions of the gossipsub specification, v1.1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MeshConfig {
    /// Members in the mesh after a correction (`D`). Default 4, `large` 6 (the value of the
    /// specification).
    pub target: usize,
    /// Members below which more are taken in (`D_low`). Default 2, so that an overlay of three is
    /// content; `large` 5, as libp2p-gossipsub.
    pub low: usize,
    /// Members above which some are put out (`D_high`). Default 8, `large` 12 (the value of the
    /// specification).
    pub high: usize,
    /// Members among them that this node dialled itself (`D_out`), which somebody who surrounds
    /// the node with his own connections cannot put there. Default 1, all that an overlay of two
    /// has; `large` 2.
    pub outbound_min: usize,
    /// Send own messages to all known subscribers instead of the mesh alone. Default on: in
    /// overlays of 20 it costs the publisher some copies and saves a hop. `large` off: it would
    /// cost one copy per member.
    pub flood_publish: bool,
    /// Interval of mesh maintenance and gossip, in milliseconds. Default 1 s, the value of the
    /// specification. Latency of repair against traffic.
    #[serde(rename = "heartbeat_ms", with = "super::duration")]
    pub heartbeat: Duration,
    /// How long a member put out of the mesh stays out, in milliseconds. Whole seconds: the wire
    /// carries no fractions. Default 1 s: where there are only two members, a longer one is
    /// silence. `large` 60 s, the value of the specification.
    #[serde(rename = "prune_backoff_ms", with = "super::duration")]
    pub prune_backoff: Duration,
    /// How long this node stays out of the mesh of a topic it has left, in milliseconds. Whole
    /// seconds. Default 1 s, as `prune_backoff`; `large` 10 s, the value of the specification.
    #[serde(rename = "unsubscribe_backoff_ms", with = "super::duration")]
    pub unsubscribe_backoff: Duration,
    /// Messages of more than this size, in bytes with author, topic and signature, are announced
    /// to the mesh on arrival, so that others spare a second copy (IDONTWANT). Default 8 KiB: an
    /// announcement is an RPC of its own to every member of the mesh, which costs as much processor
    /// time as some copies of 1 KiB, since the signature of a copy is not checked again. Measured
    /// with five nodes at full speed and 1 KiB, announcing each leaves 1.7 copies instead of 2.3 and
    /// takes half as much processor time again. At least 64.
    pub announce_arrival_bytes: usize,
}

/// What is remembered of messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GossipMemoryConfig {
    /// How long the id of a message is remembered at least, in milliseconds. Default 60 s, the
    /// value of libp2p-gossipsub: longer than any path through a mesh.
    #[serde(rename = "ids_ms", with = "super::duration")]
    pub ids: Duration,
    /// Ids remembered beyond that time against replays, in number. Default 262,144: about 20 MiB
    /// when full. A message repeated later than as many others counts as new.
    pub replayed_ids: usize,
    /// Heartbeats for which a whole message is kept for members outside the mesh. Default 5, the
    /// value of the specification. Memory is this time times the rate of arrival.
    pub history_heartbeats: usize,
    /// Of these heartbeats, the latest whose messages are offered to members outside the mesh.
    /// Default 3, the value of the specification. At most `history_heartbeats`.
    pub gossip_heartbeats: usize,
}

/// What peers may announce, send and leave unread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GossipPeersConfig {
    /// Topics of one peer that this node does not follow itself and remembers all the same.
    /// Default 4,096: twice what a node of this kind may follow. Those that this node follows are
    /// always remembered.
    pub max_foreign_topics_per_peer: usize,
    /// The same of all peers together. Default 65,536, held twice (here and in gossipsub): about
    /// 20 MiB at the 44 bytes of a context, 150 MiB if all are as long as a topic may be.
    pub max_foreign_topics: usize,
    /// Messages that wait to be sent to one peer, in number. Default 4,096: a quarter of a second
    /// at the highest rates measured between two nodes. A queue that is full loses what does not
    /// fit, and the peer is closed when that lasts `slow_timeout`. A peer that never reads so holds
    /// this number times the size of the messages in memory, until then.
    pub queue: usize,
    /// Bytes of payload that wait to be sent to one peer, at most. Default 64 MiB: as many as the
    /// largest messages of a second between two nodes. A peer with more is closed at once. At least
    /// `window_bytes`.
    pub queue_bytes: usize,
    /// Messages that wait for one peer from which on own ones are held back, in number. Default
    /// 256: enough that the connection has always something to write, few enough that what peers no
    /// longer want is found quickly among them. At most `queue`, whose other part is for messages of
    /// others.
    pub window: usize,
    /// The same in bytes of payload. Default 4 MiB. At least `max_message_bytes`.
    pub window_bytes: usize,
    /// How long a peer whose queue does not empty holds others back, in milliseconds. Default 2 s:
    /// longer than a busy host keeps a process waiting, shorter than `publish_wait`. After that
    /// messages go on to the others, and to that peer until its queue is full.
    #[serde(rename = "hold_ms", with = "super::duration")]
    pub hold: Duration,
    /// How long an own message may wait in that queue, in milliseconds. Default 5 s, the value of
    /// libp2p-gossipsub.
    #[serde(rename = "publish_wait_ms", with = "super::duration")]
    pub publish_wait: Duration,
    /// How long a message of others may wait in that queue, in milliseconds. Default 5 s: as own
    /// ones; the value of libp2p-gossipsub, 1 s, loses messages on a host that is only busy.
    #[serde(rename = "forward_wait_ms", with = "super::duration")]
    pub forward_wait: Duration,
    /// How long a peer's queue may be full, in milliseconds, before it is closed. Default 10 s. At
    /// least two heartbeats, because a full queue is reported once a heartbeat.
    #[serde(rename = "slow_timeout_ms", with = "super::duration")]
    pub slow_timeout: Duration,
    /// How long a peer that misbehaves is refused, in milliseconds. Default 60 s.
    #[serde(rename = "ban_ms", with = "super::duration")]
    pub ban: Duration,
}

/// What is kept for topics that nobody else follows yet, where the publisher asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeepConfig {
    /// Longest time a message may be kept, in milliseconds. Default 60 s.
    #[serde(rename = "max_time_ms", with = "super::duration")]
    pub max_time: Duration,
    /// Messages kept, in number. Default 1,024.
    pub max_messages: usize,
    /// Messages kept, in bytes of payload. Default 16 MiB. At least `max_message_bytes`.
    pub max_bytes: usize,
}

/// How a peer that has missed the announcements is brought back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RepairConfig {
    /// Close and redial such a peer. Default on.
    pub enabled: bool,
    /// How long a peer may deliver messages of a topic it has not announced, in milliseconds.
    /// Default 1 s, several round trips: announcements under way arrive in that time.
    #[serde(rename = "grace_ms", with = "super::duration")]
    pub grace: Duration,
    /// Least time between two repairs of one peer, in milliseconds; it doubles with each that
    /// changes nothing, up to 16 times. Default 15 s. A connection that only the other end takes
    /// for alive is closed by its pings after about 60 s, so that the third repair works at last.
    #[serde(rename = "cooldown_ms", with = "super::duration")]
    pub cooldown: Duration,
}

impl Default for PubsubConfig {
    fn default() -> Self {
        Self::small()
    }
}

impl PubsubConfig {
    /// For overlays of 2 to 20 members.
    #[must_use]
    pub fn small() -> Self {
        Self {
            mesh: MeshConfig::small(),
            memory: GossipMemoryConfig::default(),
            peers: GossipPeersConfig::default(),
            keep: KeepConfig::default(),
            repair: RepairConfig::default(),
            max_message_bytes: MAX_GOSSIP_MESSAGE_BYTES,
            max_topics: 2_000,
            newest_version: GossipVersion::default(),
        }
    }

    /// For overlays of more than 20 members.
    #[must_use]
    pub fn large() -> Self {
        Self {
            mesh: MeshConfig::large(),
            ..Self::small()
        }
    }

    /// Refuses contradictions, naming the key below `prefix` (empty, or ending in a dot).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first key that cannot hold.
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
        self.keep.validate(&key("keep."), self.max_message_bytes)?;
        self.repair.validate(&key("repair."))
    }
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self::small()
    }
}

impl MeshConfig {
    /// For overlays of 2 to 20 members.
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

    /// For overlays of more than 20 members.
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
        check_duration(self.heartbeat, || key("heartbeat_ms"))?;
        for (name, backoff) in [
            ("prune_backoff_ms", self.prune_backoff),
            ("unsubscribe_backoff_ms", self.unsubscribe_backoff),
        ] {
            check_duration(backoff, || key(name))?;
            check(backoff.subsec_nanos() == 0, || {
                (key(name), "must be whole seconds")
            })?;
            check(backoff <= Duration::from_secs(3600), || {
                (key(name), "must be at most 3600000, what peers obey")
            })?;
        }
        check(self.announce_arrival_bytes >= 64, || {
            (key("announce_arrival_bytes"), "must be at least 64")
        })
    }
}

impl Default for GossipMemoryConfig {
    fn default() -> Self {
        Self {
            ids: Duration::from_secs(60),
            replayed_ids: 262_144,
            history_heartbeats: 5,
            gossip_heartbeats: 3,
        }
    }
}

impl GossipMemoryConfig {
    fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        check_duration(self.ids, || key("ids_ms"))?;
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

impl Default for GossipPeersConfig {
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

impl GossipPeersConfig {
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
            ("publish_wait_ms", self.publish_wait),
            ("forward_wait_ms", self.forward_wait),
            ("hold_ms", self.hold),
            ("slow_timeout_ms", self.slow_timeout),
            ("ban_ms", self.ban),
        ] {
            check_duration(value, || key(name))?;
        }
        check(self.slow_timeout >= heartbeat * 2, || {
            (key("slow_timeout_ms"), "must be at least two heartbeats")
        })
    }
}

impl Default for KeepConfig {
    fn default() -> Self {
        Self {
            max_time: Duration::from_secs(60),
            max_messages: 1_024,
            max_bytes: 16 * MIB,
        }
    }
}

impl KeepConfig {
    fn validate(&self, prefix: &str, max_message_bytes: usize) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        check_duration(self.max_time, || key("max_time_ms"))?;
        check_queue(self.max_messages, || key("max_messages"))?;
        check(self.max_bytes >= max_message_bytes, || {
            (key("max_bytes"), "must be at least max_message_bytes")
        })
    }
}

impl Default for RepairConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            grace: Duration::from_secs(1),
            cooldown: Duration::from_secs(15),
        }
    }
}

impl RepairConfig {
    fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        check_duration(self.grace, || key("grace_ms"))?;
        check_duration(self.cooldown, || key("cooldown_ms"))?;
        check(self.grace <= self.cooldown, || {
            (key("grace_ms"), "must not exceed cooldown_ms")
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
            ("mesh.heartbeat_ms", |c| c.mesh.heartbeat = Duration::ZERO),
            ("mesh.prune_backoff_ms", |c| {
                c.mesh.prune_backoff = Duration::from_millis(1500);
            }),
            ("mesh.unsubscribe_backoff_ms", |c| {
                c.mesh.unsubscribe_backoff = Duration::from_secs(3601);
            }),
            ("mesh.announce_arrival_bytes", |c| {
                c.mesh.announce_arrival_bytes = 10;
            }),
            ("memory.gossip_heartbeats", |c| {
                c.memory.gossip_heartbeats = 6
            }),
            ("memory.replayed_ids", |c| c.memory.replayed_ids = 0),
            ("peers.max_foreign_topics_per_peer", |c| {
                c.peers.max_foreign_topics = 1;
            }),
            ("peers.window", |c| c.peers.window = 4_097),
            ("peers.window_bytes", |c| c.peers.window_bytes = 1),
            ("peers.window_bytes", |c| c.peers.queue_bytes = 1),
            ("peers.hold_ms", |c| c.peers.hold = Duration::ZERO),
            ("peers.slow_timeout_ms", |c| {
                c.peers.slow_timeout = Duration::from_secs(1);
            }),
            ("keep.max_bytes", |c| c.keep.max_bytes = 1),
            ("repair.grace_ms", |c| {
                c.repair.grace = Duration::from_secs(16)
            }),
        ] {
            assert_eq!(refusal(change), format!("pubsub.{key}"));
        }
    }

    #[test]
    fn a_file_changes_what_it_names() {
        let config: PubsubConfig =
            toml::from_str("max_topics = 7\nmesh = { heartbeat_ms = 500 }").unwrap();
        assert_eq!(config.max_topics, 7);
        assert_eq!(config.mesh.heartbeat, Duration::from_millis(500));
        assert_eq!(config.mesh.target, 4);
        let error = toml::from_str::<PubsubConfig>("mesh = { size = 3 }").unwrap_err();
        assert!(error.to_string().contains("unknown field `size`"));
    }
}
