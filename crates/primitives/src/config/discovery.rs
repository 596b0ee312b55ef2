//! Configuration of discovery: where peers are found, and how many are known and dialled.

use std::time::Duration;

use multiaddr::{Multiaddr, Protocol};
use serde::{Deserialize, Serialize};

use super::{
    ConfigError, check,
    compiled::{self, check_feature},
};
use crate::addr::{DialPolicy, DialScopes};
use crate::limits::{MAX_PENDING_CONNECTIONS, MAX_RENDEZVOUS_NAMESPACE_BYTES};
use crate::topic::GLOBAL_RENDEZVOUS_NAMESPACE;

/// Longest wait of the discovery machine: 30 days. It keeps every sum of times far from the end of
/// the clock.
const MAX_WAIT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Shortest interval between two runs of a Kademlia job: 1 s. Kademlia panics at 0, and a run walks
/// through all records.
const MIN_RECORD_INTERVAL: Duration = Duration::from_secs(1);

/// How peers are found and kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiscoveryConfig {
    /// Addresses of boot nodes, which are dialled at start, kept connected, and used as rendezvous
    /// servers and relays.
    ///
    /// - Default: empty; peers are then found by mDNS and in the peer cache only.
    /// - Range: each address ends in `/p2p/<peer>`, or is `/dnsaddr/NAME`: a list of boot nodes in
    ///   the TXT records of `_dnsaddr.NAME`. At most 16 boot nodes of all lists are used. Lists are
    ///   looked up every 15 s, and records are cached for their lifetime. No restart is needed.
    /// - Reason: every network has its own boot nodes.
    pub boot: Vec<Multiaddr>,
    /// Public addresses of this node that its operator vouches for.
    ///
    /// - Default: empty; the node then learns its addresses from probes.
    /// - Reason: a host with a fixed address or a forwarded port is reachable at once.
    pub external: Vec<Multiaddr>,
    /// Whether the whole network is on one machine or link, so that loopback and link-local
    /// addresses are dialled.
    ///
    /// - Default: off, because elsewhere such an address leads to another host.
    /// - Reason: tests and demonstrations run on one machine.
    pub local_network: bool,
    /// Whether peers on the local link are found by mDNS.
    ///
    /// - Default: off, because mDNS shows every host of the link that the node exists.
    /// - Reason: nodes in one home or office find each other without a boot node.
    pub mdns: bool,
    /// Whether the router is asked to forward the ports that this node listens on, by PCP, NAT-PMP
    /// and UPnP.
    ///
    /// - Default: off, because it opens ports of a router without its owner being asked.
    /// - Reason: a node behind a symmetric NAT is then reached without a relay. Other peers test a
    ///   mapped address before the node announces it.
    pub port_mapping: bool,
    /// Rendezvous namespace that all nodes of the network share.
    ///
    /// - Default: `/calimero/devnet/global`, the namespace of published 0.11 nodes, whose network
    ///   `calnet` calls `calimero-devnet`. `--network NAME` of `calnet` is `/calimero/net/NAME`.
    /// - Range: at most 255 bytes. An empty text turns the shared namespace off.
    /// - Reason: every network has its own namespace, in which a node looks for members. Networks that
    ///   share a boot node still connect through its Kademlia table.
    pub global_namespace: String,
    /// Peers that are known, boot nodes and connected peers included.
    ///
    /// Above this number the peer that was seen least recently is forgotten.
    ///
    /// - Default: 4096, about 1.5 MiB.
    /// - Range: above `connections.max_established`, to 4294967295.
    /// - Reason: a boot node knows more peers than a member.
    pub max_peers: u32,
    /// Connected members of a topic below which further members are dialled. Members that dialled
    /// this node from one public IPv4 address or IPv6 `/64` count as one, and at least a third of the
    /// target must be members that this node dialled.
    ///
    /// - Default: 12, the largest gossip mesh (8) and half of it in reserve. The number of connections
    ///   does not depend on the size of the network.
    /// - Range: 1 to 4294967295.
    /// - Reason: a larger mesh (`pubsub.mesh`) needs more connected members.
    pub members_target: u32,
    /// Relays on which a node without a public address holds a reservation.
    ///
    /// - Default: 2, so that the loss of one relay does not make the node unreachable.
    /// - Range: 0, which turns reservations off, to 4294967295.
    /// - Reason: a node that no peer has to reach needs none.
    pub relays: u32,
    /// Time between two savings of the peer cache, in milliseconds.
    ///
    /// - Default: 5 min.
    /// - Range: 1000 to 2592000000.
    /// - Reason: a host with flash storage saves less often.
    #[serde(rename = "cache_save_interval_ms", with = "super::duration")]
    pub cache_save_interval: Duration,
    /// Time between two rounds of upkeep, varied by a quarter each way. Not a key. Default 5 s: the
    /// longest delay a user accepts until a change of the network is noticed.
    #[serde(skip)]
    pub tick: Duration,
    /// Limits of the address book. Not a key.
    #[serde(skip)]
    pub book: BookTuning,
    /// Limits of dials. Not a key.
    #[serde(skip)]
    pub dials: DialsTuning,
    /// Timers for peers that disconnected. Not a key.
    #[serde(skip)]
    pub redial: RedialTuning,
    /// Limits and timers of rendezvous. Not a key.
    #[serde(skip)]
    pub rendezvous: RendezvousTuning,
    /// Timers of relay reservations and hole punches. Not a key.
    #[serde(skip)]
    pub relay: RelayTuning,
    /// Limits and timers of reachability probes. Not a key.
    #[serde(skip)]
    pub reachability: ReachabilityTuning,
    /// Limits of the peer cache. Not a key.
    #[serde(skip)]
    pub cache: CacheTuning,
    /// Lifetimes of Kademlia records. Not a key.
    #[serde(skip)]
    pub records: RecordsTuning,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self {
            boot: Vec::new(),
            external: Vec::new(),
            local_network: false,
            mdns: false,
            port_mapping: false,
            global_namespace: GLOBAL_RENDEZVOUS_NAMESPACE.to_owned(),
            max_peers: 4096,
            members_target: 12,
            relays: 2,
            cache_save_interval: Duration::from_secs(300),
            tick: Duration::from_secs(5),
            book: BookTuning::default(),
            dials: DialsTuning::default(),
            redial: RedialTuning::default(),
            rendezvous: RendezvousTuning::default(),
            relay: RelayTuning::default(),
            reachability: ReachabilityTuning::default(),
            cache: CacheTuning::default(),
            records: RecordsTuning::default(),
        }
    }
}

/// Lifetimes of Kademlia records and provider records: values that no file sets.
///
/// All nodes of a network agree on them: a node never keeps a record longer than its own lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordsTuning {
    /// Lifetime of a record that is not put again. Default 12 h. On the wire it is whole seconds, so
    /// it is at least 1 s.
    pub ttl: Duration,
    /// Time between two puts of a record by its publisher. Default 6 h, half of its lifetime, so that
    /// one put may fail. Checked every `replication_interval`. At least 1 s.
    pub publication_interval: Duration,
    /// Time between two copies of a record, by a node that holds it, to the peers that are closest to
    /// its key. Default 1 h (Kademlia paper, section 2.5). At least 1 s.
    pub replication_interval: Duration,
}

impl Default for RecordsTuning {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(12 * 3600),
            publication_interval: Duration::from_secs(6 * 3600),
            replication_interval: Duration::from_secs(3600),
        }
    }
}

impl RecordsTuning {
    fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        check(self.ttl >= Duration::from_secs(1), || {
            (key("ttl"), "must be at least 1 s")
        })?;
        check(self.ttl <= MAX_WAIT, || {
            (key("ttl"), "must be at most 30 days")
        })?;
        for (name, value) in [
            ("publication_interval", self.publication_interval),
            ("replication_interval", self.replication_interval),
        ] {
            check(value >= MIN_RECORD_INTERVAL, || {
                (key(name), "must be at least 1 s")
            })?;
            check(value < self.ttl, || (key(name), "must be below ttl"))?;
        }
        Ok(())
    }
}

/// Limits of the address book: values that no file sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BookTuning {
    /// Addresses that are kept of one peer. Default 4: two transports over two IP versions.
    pub max_addresses_per_peer: u32,
}

impl Default for BookTuning {
    fn default() -> Self {
        Self {
            max_addresses_per_peer: 4,
        }
    }
}

/// Limits of dials: values that no file sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialsTuning {
    /// Dials of discovery in progress. Default 64: half of [`MAX_PENDING_CONNECTIONS`], which leaves
    /// the rest to the program.
    pub max_in_flight: u32,
    /// Peers that wait to be dialled. Default 256; the least urgent one is dropped above it.
    pub max_queued: u32,
    /// Time during which a member whose dial failed is not dialled again. Default 30 s: other members
    /// are tried first. Disconnected peers and boot nodes follow `redial`.
    pub rest: Duration,
    /// Peers of one rendezvous answer that are dialled. Default 16.
    pub max_per_answer: u32,
}

impl Default for DialsTuning {
    fn default() -> Self {
        Self {
            max_in_flight: MAX_PENDING_CONNECTIONS / 2,
            max_queued: 256,
            rest: Duration::from_secs(30),
            max_per_answer: 16,
        }
    }
}

/// Timers for peers that disconnected, boot nodes and members of topics that lack members: values
/// that no file sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedialTuning {
    /// Times after the disconnection at which the peer is dialled, each varied by a quarter of its
    /// wait. Default 0, 5, 15, 30 and 60 s: a NAT mapping is renewed, a Wi-Fi station roams, a
    /// process restarts, a router restarts.
    pub steps: [Duration; 5],
    /// Time between dials of a boot node after the last step. Default 15 s: a node is back within
    /// 20 s of its link, variation included.
    pub interval: Duration,
    /// Disconnected peers that are redialled, those of the peer cache and up to 64 of the local link
    /// included. Default 1024, every connection that can close at once.
    pub max_peers: u32,
}

impl Default for RedialTuning {
    fn default() -> Self {
        Self {
            steps: [0, 5, 15, 30, 60].map(Duration::from_secs),
            interval: Duration::from_secs(15),
            max_peers: 1024,
        }
    }
}

/// Limits and timers of registrations and discoveries at boot nodes: values that no file sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RendezvousTuning {
    /// Lifetime of a registration, in whole seconds. Default 2 h, the shortest that servers accept
    /// (rendezvous specification). It is renewed after half of it.
    pub ttl: Duration,
    /// Registrations held at one server. Default 31: libp2p-rendezvous 0.18 refuses the renewal of a
    /// peer that holds 32. Further topics take turns.
    pub max_registrations_per_server: u32,
    /// Time until topics without a registration replace those that have one. Default 10 min.
    pub rotation: Duration,
    /// Back-off after the first refused or unanswered registration; it doubles with each. Default
    /// 2 s.
    pub min_backoff: Duration,
    /// Longest back-off of a registration. Default 2 min.
    pub max_backoff: Duration,
    /// Time between discoveries of a topic with a connected member. Default 60 s.
    pub interval: Duration,
    /// Time between discoveries of a topic without a connected member. Default 5 s.
    pub alone_interval: Duration,
    /// Registrations requested in one discovery. Default 64: more than any mesh needs, 20 KiB.
    pub max_answer: u32,
    /// Discoveries sent in one round of upkeep, the most overdue first. Default 32.
    pub discoveries_per_tick: u32,
    /// Topics that are looked up; further ones are refused. Default 1024.
    pub max_overlays: u32,
    /// Members that are known of one topic. Default 128: ten times what is connected.
    pub max_members: u32,
}

impl Default for RendezvousTuning {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(2 * 3600),
            max_registrations_per_server: 31,
            rotation: Duration::from_secs(600),
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

/// Timers of relay reservations and hole punches: values that no file sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayTuning {
    /// Back-off after the first lost or refused reservation; it doubles with each. Default 2 s.
    pub min_backoff: Duration,
    /// Longest back-off of a reservation. Default 60 s.
    pub max_backoff: Duration,
    /// Time without a result of a reachability probe after which a reservation is requested all the
    /// same. Default 2 s: a probe that succeeds takes a few round trips, one that fails takes the
    /// whole deadline of the prober, and no peer can connect before there is a reservation.
    pub patience: Duration,
    /// Back-off of hole punches with one peer after a failed attempt; it doubles with each. Default
    /// 45 s: three attempts of 10 s each are over by then, pauses included.
    pub punch_min_backoff: Duration,
    /// Longest back-off of hole punches with one peer. Default 5 min: each attempt costs a circuit of
    /// half a minute and three packets, and a replaced router makes the peer reachable again.
    pub punch_max_backoff: Duration,
}

impl Default for RelayTuning {
    fn default() -> Self {
        Self {
            min_backoff: Duration::from_secs(2),
            max_backoff: Duration::from_secs(60),
            patience: Duration::from_secs(2),
            punch_min_backoff: Duration::from_secs(45),
            punch_max_backoff: Duration::from_secs(5 * 60),
        }
    }
}

/// Limits and timers of AutoNAT v2 probes of own addresses: values that no file sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReachabilityTuning {
    /// Candidate addresses that are probed. Default 8: two transports, two IP versions, two
    /// interfaces.
    pub max_candidates: u32,
    /// Time until a reachable address is probed again. Default 15 min.
    pub retest: Duration,
    /// Time until an unreachable address is probed again; it doubles with each. Default 30 s.
    pub min_backoff: Duration,
    /// Longest time between probes of an unreachable address. Default 15 min.
    pub max_backoff: Duration,
}

impl Default for ReachabilityTuning {
    fn default() -> Self {
        Self {
            max_candidates: 8,
            retest: Duration::from_secs(900),
            min_backoff: Duration::from_secs(30),
            max_backoff: Duration::from_secs(900),
        }
    }
}

/// Limits of the peer cache, which survives a restart: values that no file sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheTuning {
    /// Peers that are saved, the most recently seen ones. Default 256.
    pub max_peers: u32,
    /// Saved peers that are dialled at start. Default 32, which avoids a burst of dials.
    pub dialled_at_start: u32,
}

impl Default for CacheTuning {
    fn default() -> Self {
        Self {
            max_peers: 256,
            dialled_at_start: 32,
        }
    }
}

impl DiscoveryConfig {
    /// Returns which addresses may be dialled on this network.
    #[must_use]
    pub fn dial_scopes(&self) -> DialScopes {
        let policy = DialPolicy::for_network(self.local_network);
        DialScopes::of_node(policy, self.boot.iter().chain(&self.external))
    }

    /// Checks every value.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first key whose value is refused, and
    /// [`ConfigError::MissingFeature`] if mDNS or port mapping is on and not compiled in.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_under("")
    }

    pub(super) fn validate_under(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        check_feature(self.mdns, compiled::MDNS, "mdns", || key("mdns"))?;
        check_feature(self.port_mapping, compiled::UPNP, "upnp", || {
            key("port_mapping")
        })?;
        let is_boot = |address| names_its_peer(address) || is_boot_list(address);
        check(self.boot.iter().all(is_boot), || {
            (
                key("boot"),
                "each address must end in /p2p/<peer>, or be /dnsaddr/<name>",
            )
        })?;
        let has_list = self.boot.iter().any(is_boot_list);
        check_feature(has_list, compiled::DNS, "dns", || key("boot"))?;
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
        check(self.cache_save_interval >= Duration::from_secs(1), || {
            (key("cache_save_interval_ms"), "must be at least 1000")
        })?;
        self.records.validate(&key("records."))?;
        check(self.redial.steps.is_sorted(), || {
            (key("redial.steps"), "must not decrease")
        })?;
        check(
            self.redial.steps.iter().all(|step| *step <= MAX_WAIT),
            || (key("redial.steps"), "must be at most 30 days"),
        )?;
        let (rendezvous, relay, probes) = (&self.rendezvous, &self.relay, &self.reachability);
        for (name, min, max) in [
            (
                "rendezvous.min_backoff",
                rendezvous.min_backoff,
                rendezvous.max_backoff,
            ),
            ("relay.min_backoff", relay.min_backoff, relay.max_backoff),
            (
                "relay.punch_min_backoff",
                relay.punch_min_backoff,
                relay.punch_max_backoff,
            ),
            (
                "reachability.min_backoff",
                probes.min_backoff,
                probes.max_backoff,
            ),
        ] {
            check(min <= max, || {
                (key(name), "must not exceed the longest back-off")
            })?;
        }
        check(rendezvous.ttl >= Duration::from_secs(1), || {
            (
                key("rendezvous.ttl"),
                "must be at least 1 s, the unit of the wire format",
            )
        })?;
        check(self.dials.max_in_flight <= MAX_PENDING_CONNECTIONS, || {
            (key("dials.max_in_flight"), "must be at most 128")
        })
    }

    fn counts(&self) -> [(&'static str, u32); 14] {
        let (dials, rendezvous) = (&self.dials, &self.rendezvous);
        [
            ("max_peers", self.max_peers),
            ("members_target", self.members_target),
            (
                "book.max_addresses_per_peer",
                self.book.max_addresses_per_peer,
            ),
            ("dials.max_in_flight", dials.max_in_flight),
            ("dials.max_queued", dials.max_queued),
            ("dials.max_per_answer", dials.max_per_answer),
            ("redial.max_peers", self.redial.max_peers),
            (
                "rendezvous.max_registrations_per_server",
                rendezvous.max_registrations_per_server,
            ),
            ("rendezvous.max_answer", rendezvous.max_answer),
            (
                "rendezvous.discoveries_per_tick",
                rendezvous.discoveries_per_tick,
            ),
            ("rendezvous.max_overlays", rendezvous.max_overlays),
            ("rendezvous.max_members", rendezvous.max_members),
            (
                "reachability.max_candidates",
                self.reachability.max_candidates,
            ),
            ("cache.max_peers", self.cache.max_peers),
        ]
    }

    fn waits(&self) -> [(&'static str, Duration); 18] {
        let (rendezvous, relay, probes) = (&self.rendezvous, &self.relay, &self.reachability);
        [
            ("cache_save_interval_ms", self.cache_save_interval),
            ("tick", self.tick),
            ("dials.rest", self.dials.rest),
            ("redial.interval", self.redial.interval),
            ("rendezvous.ttl", rendezvous.ttl),
            ("rendezvous.rotation", rendezvous.rotation),
            ("rendezvous.min_backoff", rendezvous.min_backoff),
            ("rendezvous.max_backoff", rendezvous.max_backoff),
            ("rendezvous.interval", rendezvous.interval),
            ("rendezvous.alone_interval", rendezvous.alone_interval),
            ("relay.min_backoff", relay.min_backoff),
            ("relay.max_backoff", relay.max_backoff),
            ("relay.patience", relay.patience),
            ("relay.punch_min_backoff", relay.punch_min_backoff),
            ("relay.punch_max_backoff", relay.punch_max_backoff),
            ("reachability.retest", probes.retest),
            ("reachability.min_backoff", probes.min_backoff),
            ("reachability.max_backoff", probes.max_backoff),
        ]
    }
}

/// Returns whether `address` is a list of boot nodes: `/dnsaddr/<name>` and nothing else.
#[must_use]
pub fn is_boot_list(address: &Multiaddr) -> bool {
    let mut parts = address.iter();
    matches!(
        (parts.next(), parts.next()),
        (Some(Protocol::Dnsaddr(_)), None)
    )
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
            text.contains(r#""cache_save_interval_ms":300000"#),
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
        assert_eq!(refused(|c| c.tick = Duration::ZERO), "discovery.tick");
        assert_eq!(
            refused(|c| c.dials.rest = Duration::MAX),
            "discovery.dials.rest"
        );
        assert_eq!(refused(|c| c.max_peers = 0), "discovery.max_peers");
        assert_eq!(
            refused(|c| c.redial.steps.reverse()),
            "discovery.redial.steps"
        );
        assert_eq!(
            refused(|c| c.relay.min_backoff = c.relay.max_backoff * 2),
            "discovery.relay.min_backoff"
        );
        assert_eq!(
            refused(|c| c.relay.punch_min_backoff = c.relay.punch_max_backoff * 2),
            "discovery.relay.punch_min_backoff"
        );
    }
}
