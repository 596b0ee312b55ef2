//! Configuration of discovery: whom to ask, how often, and how much of it to remember.

use std::time::Duration;

use multiaddr::{Multiaddr, Protocol};
use serde::{Deserialize, Serialize};

use super::{ConfigError, check};
use crate::limits::{MAX_PENDING_CONNECTIONS, MAX_RENDEZVOUS_NAMESPACE_BYTES};

/// No wait of the discovery machine may exceed this: 30 days. It keeps every sum of times far
/// from the end of the clock.
const MAX_WAIT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Finding peers and keeping them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiscoveryConfig {
    /// Boot nodes, each with its `/p2p/<peer>`: dialled at start, kept connected, asked for
    /// rendezvous and for relay slots. Empty by default: only mDNS and the cache find peers.
    pub boot: Vec<Multiaddr>,
    /// Public addresses of this node that its operator vouches for. With one, the node is
    /// reachable at once and is not probed. Empty by default.
    pub external: Vec<Multiaddr>,
    /// Whether the network lives on one machine or link, so that loopback and link-local
    /// addresses are worth keeping. Default false: elsewhere they lead to somebody else.
    pub local_network: bool,
    /// Whether peers on the local link are looked for by mDNS. Default false: it tells everybody
    /// on the link that the node is there.
    pub mdns: bool,
    /// Rendezvous namespace of all nodes of the network. Default `/calimero/devnet/global`;
    /// empty: none.
    pub global_namespace: String,
    /// Time between two rounds of upkeep, in milliseconds, spread by a quarter each way. Default
    /// 5 s: the shortest wait a person accepts for a change of the network to be noticed.
    #[serde(rename = "tick_ms", with = "super::duration")]
    pub tick: Duration,
    /// What is remembered of peers.
    #[serde(deserialize_with = "super::table::deserialize")]
    pub book: BookConfig,
    /// How many peers are dialled.
    #[serde(deserialize_with = "super::table::deserialize")]
    pub dials: DialsConfig,
    /// Peers that were lost.
    #[serde(deserialize_with = "super::table::deserialize")]
    pub redial: RedialConfig,
    /// Registering and discovering at boot nodes.
    #[serde(deserialize_with = "super::table::deserialize")]
    pub rendezvous: RendezvousConfig,
    /// Slots on relays.
    #[serde(deserialize_with = "super::table::deserialize")]
    pub relay: RelayConfig,
    /// Probes of our own addresses.
    #[serde(deserialize_with = "super::table::deserialize")]
    pub reachability: ReachabilityConfig,
    /// Peers remembered over a restart.
    #[serde(deserialize_with = "super::table::deserialize")]
    pub cache: CacheConfig,
    /// Records in the Kademlia DHT.
    #[serde(deserialize_with = "super::table::deserialize")]
    pub records: RecordsConfig,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self {
            boot: Vec::new(),
            external: Vec::new(),
            local_network: false,
            mdns: false,
            global_namespace: "/calimero/devnet/global".to_owned(),
            tick: Duration::from_secs(5),
            book: BookConfig::default(),
            dials: DialsConfig::default(),
            redial: RedialConfig::default(),
            rendezvous: RendezvousConfig::default(),
            relay: RelayConfig::default(),
            reachability: ReachabilityConfig::default(),
            cache: CacheConfig::default(),
            records: RecordsConfig::default(),
        }
    }
}

/// Records in the Kademlia DHT, and providers, which live as long and are renewed as often. All
/// nodes of a network should agree: a node that holds a record gives it no longer life than its own
/// configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecordsConfig {
    /// Life of a record that is not put again, in milliseconds. Default 12 h. On the wire it is
    /// whole seconds, so at least one.
    #[serde(rename = "ttl_ms", with = "super::duration")]
    pub ttl: Duration,
    /// Time between two puts of a record by the node whose it is, in milliseconds. Default 6 h,
    /// half of its life, so that one may fail. Looked at every `replication_interval_ms`.
    #[serde(rename = "publication_interval_ms", with = "super::duration")]
    pub publication_interval: Duration,
    /// Time between two copies of a record to the peers that are closest to it by then, by a node
    /// that holds it, in milliseconds. Default 1 h (Kademlia paper, section 2.5).
    #[serde(rename = "replication_interval_ms", with = "super::duration")]
    pub replication_interval: Duration,
}

impl Default for RecordsConfig {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(12 * 3600),
            publication_interval: Duration::from_secs(6 * 3600),
            replication_interval: Duration::from_secs(3600),
        }
    }
}

impl RecordsConfig {
    fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        check(self.ttl >= Duration::from_secs(1), || {
            (format!("{prefix}ttl_ms"), "must be at least 1000")
        })?;
        for (name, value) in [
            ("publication_interval_ms", self.publication_interval),
            ("replication_interval_ms", self.replication_interval),
        ] {
            check(value < self.ttl, || {
                (format!("{prefix}{name}"), "must be below ttl_ms")
            })?;
        }
        Ok(())
    }
}

/// What is remembered of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BookConfig {
    /// Addresses kept of one peer. Default 4: two transports over two IP versions.
    pub max_addresses_per_peer: u32,
    /// Peers remembered, boot nodes and connected peers included; above it the one unheard of
    /// for longest goes. Default 4096, about 1.5 MiB; must exceed the established connections.
    pub max_peers: u32,
    /// Time without a word after which a peer is forgotten, in milliseconds. Default 24 h, the
    /// usual lease of a home address.
    #[serde(rename = "max_age_ms", with = "super::duration")]
    pub max_age: Duration,
    /// Dials that fail in a row until an address is forgotten. Default 3.
    pub max_dial_failures: u32,
}

impl Default for BookConfig {
    fn default() -> Self {
        Self {
            max_addresses_per_peer: 4,
            max_peers: 4096,
            max_age: Duration::from_secs(24 * 3600),
            max_dial_failures: 3,
        }
    }
}

/// How many peers are dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DialsConfig {
    /// Dials of discovery under way at one time. Default 64: half of
    /// [`MAX_PENDING_CONNECTIONS`], the rest is for the application.
    pub max_in_flight: u32,
    /// Peers waiting to be dialled; above it the least urgent goes. Default 256.
    pub max_queued: u32,
    /// Time until a dial whose end was never told is taken as failed, in milliseconds. Default
    /// 35 s: `connections.dial_timeout_ms` and some.
    #[serde(rename = "timeout_ms", with = "super::duration")]
    pub timeout: Duration,
    /// Time during which a peer whose dial failed is not dialled again as one of many, in
    /// milliseconds. Default 30 s: other members come first. Lost peers and boot nodes have the
    /// pace of `redial`.
    #[serde(rename = "rest_ms", with = "super::duration")]
    pub rest: Duration,
    /// Peers of one rendezvous answer that are dialled. Default 16.
    pub max_per_answer: u32,
    /// Connected members of an overlay below which more are dialled. Default 12: the largest
    /// gossip mesh (8) and half of it in reserve. It keeps a node's connections independent of
    /// the size of the network.
    pub members_target: u32,
}

impl Default for DialsConfig {
    fn default() -> Self {
        Self {
            max_in_flight: MAX_PENDING_CONNECTIONS / 2,
            max_queued: 256,
            timeout: Duration::from_secs(35),
            rest: Duration::from_secs(30),
            max_per_answer: 16,
            members_target: 12,
        }
    }
}

/// Peers that were lost: boot nodes, and members of overlays that lack members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedialConfig {
    /// Times after the loss at which the peer is dialled, in milliseconds, each spread by a
    /// quarter of its wait. Default 0, 5, 15, 30 and 60 s: a mapping renewed, a Wi-Fi roamed, a
    /// process restarted, a router rebooted.
    #[serde(rename = "steps_ms", with = "super::duration::list")]
    pub steps: [Duration; 5],
    /// Time between dials of a boot node after the last step, in milliseconds. Default 15 s: a
    /// node is back within 20 s of its link, spread included.
    #[serde(rename = "interval_ms", with = "super::duration")]
    pub interval: Duration,
    /// Lost peers kept in mind; above it, closes are left to the upkeep of overlays. Default
    /// 1024, every connection that can be lost at once.
    pub max_peers: u32,
}

impl Default for RedialConfig {
    fn default() -> Self {
        Self {
            steps: [0, 5, 15, 30, 60].map(Duration::from_secs),
            interval: Duration::from_secs(15),
            max_peers: 1024,
        }
    }
}

/// Registering and discovering at boot nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RendezvousConfig {
    /// Life of a registration asked for, in milliseconds, whole seconds of it. Default 2 h, the
    /// least that servers accept (rendezvous specification). Refreshed at half of it.
    #[serde(rename = "ttl_ms", with = "super::duration")]
    pub ttl: Duration,
    /// Registrations held at one server. Default 31: libp2p-rendezvous 0.18 refuses the refresh
    /// of a peer that holds 32, so one stays free. Overlays beyond it take turns.
    pub max_registrations_per_server: u32,
    /// Time until overlays without a registration take the place of those that have one, in
    /// milliseconds. Default 10 min.
    #[serde(rename = "rotation_ms", with = "super::duration")]
    pub rotation: Duration,
    /// Time for an answer of a server, in milliseconds. Default 20 s: the request's own deadline
    /// (10 s) and a stream's negotiation (10 s).
    #[serde(rename = "timeout_ms", with = "super::duration")]
    pub timeout: Duration,
    /// Wait after the first refused or unanswered registration, in milliseconds; doubles each
    /// time. Default 2 s.
    #[serde(rename = "min_backoff_ms", with = "super::duration")]
    pub min_backoff: Duration,
    /// Longest wait between attempts to register, in milliseconds. Default 2 min.
    #[serde(rename = "max_backoff_ms", with = "super::duration")]
    pub max_backoff: Duration,
    /// Time between discoveries of an overlay with a connected member, in milliseconds. Default
    /// 60 s.
    #[serde(rename = "interval_ms", with = "super::duration")]
    pub interval: Duration,
    /// Time between discoveries of an overlay without one, in milliseconds. Default 5 s.
    #[serde(rename = "alone_interval_ms", with = "super::duration")]
    pub alone_interval: Duration,
    /// Registrations asked for at a time. Default 64: enough to fill any mesh, 20 KiB.
    pub max_answer: u32,
    /// Discoveries sent in one round of upkeep, those that wait longest first. Default 32.
    pub discoveries_per_tick: u32,
    /// Overlays followed; more are refused. Default 1024.
    pub max_overlays: u32,
    /// Members remembered of an overlay. Default 128: ten times what is connected.
    pub max_members: u32,
}

impl Default for RendezvousConfig {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(2 * 3600),
            max_registrations_per_server: 31,
            rotation: Duration::from_secs(600),
            timeout: Duration::from_secs(20),
            min_backoff: Duration::from_secs(2),
            max_backoff: Duration::from_secs(120),
            interval: Duration::from_secs(60),
            alone_interval: Duration::from_secs(5),
            max_answer: 64,
            discoveries_per_tick: 32,
            max_overlays: 1024,
            max_members: 128,
        }
    }
}

/// Slots on relays, for nodes that cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RelayConfig {
    /// Slots held at one time, on relays of their own. Default 2: losing one loses nothing.
    /// 0: none.
    pub reservations: u32,
    /// Time for a relay to answer, its dial included, in milliseconds. Default 45 s.
    #[serde(rename = "timeout_ms", with = "super::duration")]
    pub timeout: Duration,
    /// Life of a slot that is not renewed, in milliseconds. Default 65 min: relays grant one
    /// hour (circuit v2 specification) and clients renew before its end.
    #[serde(rename = "lifetime_ms", with = "super::duration")]
    pub lifetime: Duration,
    /// Wait after the first loss or refusal of a relay, in milliseconds; doubles each time.
    /// Default 2 s.
    #[serde(rename = "min_backoff_ms", with = "super::duration")]
    pub min_backoff: Duration,
    /// Longest wait between requests to one relay, in milliseconds. Default 60 s.
    #[serde(rename = "max_backoff_ms", with = "super::duration")]
    pub max_backoff: Duration,
    /// Time without any verdict on reachability after which a slot is asked for all the same, in
    /// milliseconds. Default 2 s: a probe that reaches us takes a few round trips, one that does
    /// not takes the prober's whole deadline, and nobody finds us before we have a slot.
    #[serde(rename = "patience_ms", with = "super::duration")]
    pub patience: Duration,
    /// Wait after a relayed connection is made until another hole punch is tried on a new one, in
    /// milliseconds; doubles each time. Default 45 s: three attempts with the 10 s of a handshake
    /// each are over by then, with their pauses.
    #[serde(rename = "punch_min_backoff_ms", with = "super::duration")]
    pub punch_min_backoff: Duration,
    /// Longest wait between two hole punches with one peer, in milliseconds. Default 5 min: what
    /// cannot be punched costs a circuit of half a minute and three packets that often, and what
    /// can again, for a router was exchanged, need not be asked for by hand.
    #[serde(rename = "punch_max_backoff_ms", with = "super::duration")]
    pub punch_max_backoff: Duration,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            reservations: 2,
            timeout: Duration::from_secs(45),
            lifetime: Duration::from_secs(65 * 60),
            min_backoff: Duration::from_secs(2),
            max_backoff: Duration::from_secs(60),
            patience: Duration::from_secs(2),
            punch_min_backoff: Duration::from_secs(45),
            punch_max_backoff: Duration::from_secs(5 * 60),
        }
    }
}

/// Probes of our own addresses by AutoNAT v2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReachabilityConfig {
    /// Addresses that may be ours, under test. Default 8: two transports, two IP versions, two
    /// interfaces.
    pub max_candidates: u32,
    /// Time for a probe to end, in milliseconds. Default 60 s.
    #[serde(rename = "probe_timeout_ms", with = "super::duration")]
    pub probe_timeout: Duration,
    /// Time until an address that was reached is probed again, in milliseconds. Default 15 min.
    #[serde(rename = "retest_ms", with = "super::duration")]
    pub retest: Duration,
    /// Time until an address that was not reached is probed again, in milliseconds; doubles
    /// each time. Default 30 s.
    #[serde(rename = "min_backoff_ms", with = "super::duration")]
    pub min_backoff: Duration,
    /// Longest time between probes of an address that is not reached, in milliseconds. Default
    /// 15 min.
    #[serde(rename = "max_backoff_ms", with = "super::duration")]
    pub max_backoff: Duration,
    /// Probes that fail in a row until an address that was reached counts as lost. Default 2: a
    /// single prober may be the one that is cut off.
    pub failures_to_lose: u32,
}

impl Default for ReachabilityConfig {
    fn default() -> Self {
        Self {
            max_candidates: 8,
            probe_timeout: Duration::from_secs(60),
            retest: Duration::from_secs(900),
            min_backoff: Duration::from_secs(30),
            max_backoff: Duration::from_secs(900),
            failures_to_lose: 2,
        }
    }
}

/// Peers remembered over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheConfig {
    /// Peers kept, those last heard of. Default 256.
    pub max_peers: u32,
    /// Peers dialled at start, those last heard of. Default 32: more would be a storm of dials.
    pub dialled_at_start: u32,
    /// Time between two savings, in milliseconds. Default 5 min.
    #[serde(rename = "save_interval_ms", with = "super::duration")]
    pub save_interval: Duration,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            max_peers: 256,
            dialled_at_start: 32,
            save_interval: Duration::from_secs(300),
        }
    }
}

impl DiscoveryConfig {
    /// Refuses contradictions.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first key that cannot hold.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_under("")
    }

    pub(super) fn validate_under(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        check(self.boot.iter().all(names_its_peer), || {
            (key("boot"), "each address must end in /p2p/<peer>")
        })?;
        check(
            self.global_namespace.len() <= MAX_RENDEZVOUS_NAMESPACE_BYTES,
            || (key("global_namespace"), "must be at most 255 bytes"),
        )?;
        for (name, value) in self.counts() {
            check(value > 0, || (key(name), "must be above 0"))?;
        }
        for (name, value) in self.waits() {
            check(!value.is_zero(), || (key(name), "must be above 0"))?;
            check(value <= MAX_WAIT, || (key(name), "must be at most 30 days"))?;
        }
        self.records.validate(&key("records."))?;
        check(self.redial.steps.is_sorted(), || {
            (key("redial.steps_ms"), "must not go back")
        })?;
        check(
            self.redial.steps.iter().all(|step| *step <= MAX_WAIT),
            || (key("redial.steps_ms"), "must be at most 30 days"),
        )?;
        for (name, min, max) in [
            (
                "rendezvous",
                self.rendezvous.min_backoff,
                self.rendezvous.max_backoff,
            ),
            ("relay", self.relay.min_backoff, self.relay.max_backoff),
            (
                "reachability",
                self.reachability.min_backoff,
                self.reachability.max_backoff,
            ),
        ] {
            check(min <= max, || {
                let name = format!("{prefix}{name}.min_backoff_ms");
                (name, "must not exceed max_backoff_ms")
            })?;
        }
        check(
            self.relay.punch_min_backoff <= self.relay.punch_max_backoff,
            || {
                let name = key("relay.punch_min_backoff_ms");
                (name, "must not exceed punch_max_backoff_ms")
            },
        )?;
        check(self.dials.max_in_flight <= MAX_PENDING_CONNECTIONS, || {
            (key("dials.max_in_flight"), "must be at most 128")
        })
    }

    fn counts(&self) -> [(&'static str, u32); 16] {
        [
            (
                "book.max_addresses_per_peer",
                self.book.max_addresses_per_peer,
            ),
            ("book.max_peers", self.book.max_peers),
            ("book.max_dial_failures", self.book.max_dial_failures),
            ("dials.max_in_flight", self.dials.max_in_flight),
            ("dials.max_queued", self.dials.max_queued),
            ("dials.max_per_answer", self.dials.max_per_answer),
            ("dials.members_target", self.dials.members_target),
            ("redial.max_peers", self.redial.max_peers),
            (
                "rendezvous.max_registrations_per_server",
                self.rendezvous.max_registrations_per_server,
            ),
            ("rendezvous.max_answer", self.rendezvous.max_answer),
            (
                "rendezvous.discoveries_per_tick",
                self.rendezvous.discoveries_per_tick,
            ),
            ("rendezvous.max_overlays", self.rendezvous.max_overlays),
            ("rendezvous.max_members", self.rendezvous.max_members),
            (
                "reachability.max_candidates",
                self.reachability.max_candidates,
            ),
            (
                "reachability.failures_to_lose",
                self.reachability.failures_to_lose,
            ),
            ("cache.max_peers", self.cache.max_peers),
        ]
    }

    fn waits(&self) -> [(&'static str, Duration); 24] {
        [
            ("tick_ms", self.tick),
            ("book.max_age_ms", self.book.max_age),
            ("dials.timeout_ms", self.dials.timeout),
            ("dials.rest_ms", self.dials.rest),
            ("redial.interval_ms", self.redial.interval),
            ("rendezvous.ttl_ms", self.rendezvous.ttl),
            ("rendezvous.rotation_ms", self.rendezvous.rotation),
            ("rendezvous.timeout_ms", self.rendezvous.timeout),
            ("rendezvous.min_backoff_ms", self.rendezvous.min_backoff),
            ("rendezvous.max_backoff_ms", self.rendezvous.max_backoff),
            ("rendezvous.interval_ms", self.rendezvous.interval),
            (
                "rendezvous.alone_interval_ms",
                self.rendezvous.alone_interval,
            ),
            ("relay.timeout_ms", self.relay.timeout),
            ("relay.lifetime_ms", self.relay.lifetime),
            ("relay.min_backoff_ms", self.relay.min_backoff),
            ("relay.max_backoff_ms", self.relay.max_backoff),
            ("relay.patience_ms", self.relay.patience),
            ("relay.punch_min_backoff_ms", self.relay.punch_min_backoff),
            ("relay.punch_max_backoff_ms", self.relay.punch_max_backoff),
            (
                "reachability.probe_timeout_ms",
                self.reachability.probe_timeout,
            ),
            ("reachability.retest_ms", self.reachability.retest),
            ("reachability.min_backoff_ms", self.reachability.min_backoff),
            ("reachability.max_backoff_ms", self.reachability.max_backoff),
            ("cache.save_interval_ms", self.cache.save_interval),
        ]
    }
}

fn names_its_peer(address: &Multiaddr) -> bool {
    matches!(address.iter().last(), Some(Protocol::P2p(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_holds_and_survives_json() {
        let config = DiscoveryConfig::default();
        config.validate().unwrap();
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(
            serde_json::from_str::<DiscoveryConfig>(&text).unwrap(),
            config
        );
        assert!(
            text.contains(r#""steps_ms":[0,5000,15000,30000,60000]"#),
            "{text}"
        );
    }

    #[test]
    fn contradictions_are_named() {
        let refused = |change: fn(&mut DiscoveryConfig)| {
            let mut config = DiscoveryConfig::default();
            change(&mut config);
            match config.validate_under("discovery.") {
                Err(ConfigError::Invalid { key, .. }) => key,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            refused(|c| c.boot = vec!["/ip4/192.0.2.1/tcp/2428".parse().unwrap()]),
            "discovery.boot"
        );
        assert_eq!(refused(|c| c.tick = Duration::ZERO), "discovery.tick_ms");
        assert_eq!(
            refused(|c| c.book.max_age = Duration::MAX),
            "discovery.book.max_age_ms"
        );
        assert_eq!(
            refused(|c| c.book.max_peers = 0),
            "discovery.book.max_peers"
        );
        assert_eq!(
            refused(|c| c.redial.steps.reverse()),
            "discovery.redial.steps_ms"
        );
        assert_eq!(
            refused(|c| c.relay.min_backoff = c.relay.max_backoff * 2),
            "discovery.relay.min_backoff_ms"
        );
        assert_eq!(
            refused(|c| c.relay.punch_min_backoff = c.relay.punch_max_backoff * 2),
            "discovery.relay.punch_min_backoff_ms"
        );
    }
}
