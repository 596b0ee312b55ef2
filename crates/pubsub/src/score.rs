//! Scores of peers: parameters P1 to P7 of gossipsub 1.1.
//!
//! Gossipsub removes a peer from the mesh when its score is below zero, and ignores it further
//! down. Every peer starts at [`BASE_SCORE`], and the preference of the application (P5) moves the
//! score by at most as much: preferences order the peers, and never bring one below zero. Only
//! faults do.
//!
//! | score | what this node does |
//! |---|---|
//! | highest in a mesh that is too full | keeps the peer |
//! | above the median of the mesh | may take the peer in now and then |
//! | below 0 | removes the peer from the mesh |
//! | below -100 | offers it no messages and requests none |
//! | below -200 | sends it no own messages |
//! | below -300 | ignores what it sends except announcements |
//!
//! Time in the mesh (P1) and messages delivered first (P2) decide between peers of equal
//! preference; together they are below one point. Invalid messages (P4) and broken rules (P7)
//! fade with a half-life of a minute; a peer with many at once is banned. Deficits of delivery in
//! a mesh (P3, P3b) and peers that share an IP address (P6) have a weight of zero by default: in an
//! overlay of a few members honest peers are silent for hours, and sit behind one address.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use calimero_network_primitives::PeerId;

use crate::wire::TopicHash;

/// Score of a peer of which nothing is known.
pub const BASE_SCORE: f64 = 100.0;

/// Score below which a peer is not in a mesh.
pub const MESH_SCORE: f64 = 0.0;

/// Score below which messages are neither offered to a peer nor requested from it.
pub const GOSSIP_SCORE: f64 = -100.0;

/// Score below which own messages are not sent to a peer.
pub const PUBLISH_SCORE: f64 = -200.0;

/// Score below which all that a peer sends is ignored, except announcements of topics.
pub const GRAYLIST_SCORE: f64 = -300.0;

/// Largest preference in either direction; larger ones count as this.
pub const MAX_PREFERENCE: f64 = BASE_SCORE;

/// Peers remembered, in number: more than a node has connections. Peers without faults are
/// forgotten first.
const MAX_PEERS: usize = 4_096;

/// Time in which faults fade to a half.
const HALF_LIFE: Duration = Duration::from_secs(60);

/// Faults at which a peer is banned: 20 invalid messages at once.
const BAN_FAULTS: f64 = 1000.0;

/// Control entries that one peer may send at once, in number. A peer with 2,000 topics sends one
/// for each when it connects, and one for each at a heartbeat.
const CONTROL_BURST: f64 = 16_384.0;

/// Control entries that one peer may send in the long run, a second.
const CONTROL_RATE: f64 = 8_192.0;

/// Points for a heartbeat in which a peer sent nothing of what it had offered. In 20 of them in a
/// row it falls below [`GOSSIP_SCORE`].
const MAX_PROMISE_POINTS: f64 = 12.0;

/// A rule that a peer has broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// P4: messages that are unsigned, wrongly signed or malformed: 50 points each. An honest peer
    /// checks before it forwards.
    Invalid(usize),
    /// P7: topics announced beyond the limits: a point for 64. An honest peer may subscribe to
    /// some more than expected.
    Excess(usize),
    /// P7: own messages that their author sends again long after: 1 point each.
    Replayed(usize),
    /// P7: control entries, with 16 message ids as one more. Beyond 16,384 at once and 8,192 a
    /// second a point for 64.
    Control(usize),
    /// P7: GRAFT during the back-off: a point for 8. A peer that shares 2,000 topics may be a little
    /// early with all of them.
    Backoff(usize),
    /// P7: messages that were offered and not sent on request in a heartbeat, perhaps because the
    /// link is slow: a point for each 5, at least 1 and at most 12, multiplied by the share of the
    /// requested messages that are missing.
    Promise {
        /// Messages that were not sent.
        broken: usize,
        /// Messages that were sent.
        kept: usize,
    },
}

/// The consequence of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The score is lower than before.
    Lower,
    /// The peer is banned. Returned once for each ban.
    Ban,
}

/// Weights of the parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreParams {
    /// P1: points for each hour in a mesh, up to [`P1_CAP`] points.
    pub time_in_mesh: f64,
    /// P2: points for each message delivered first, up to [`P2_CAP`] points.
    pub first_deliveries: f64,
    /// P3 and P3b: points taken for each square of a missing delivery, at most 10 deliveries.
    /// Zero turns them off.
    pub delivery_deficit: f64,
    /// P6: points taken for each square of a peer above [`ip_tolerance`](Self::ip_tolerance) with
    /// the same IP address. Zero turns it off.
    pub ip_colocation: f64,
    /// Peers that may share an IP address.
    pub ip_tolerance: usize,
    /// How long a peer that reaches the limit of faults is refused.
    pub ban: Duration,
}

impl Default for ScoreParams {
    fn default() -> Self {
        Self {
            time_in_mesh: 0.1,
            first_deliveries: 0.01,
            delivery_deficit: 0.0,
            ip_colocation: 0.0,
            ip_tolerance: 10,
            ban: Duration::from_secs(60),
        }
    }
}

/// Most points of P1.
pub const P1_CAP: f64 = 0.4;

/// Most points of P2.
pub const P2_CAP: f64 = 0.4;

/// Time after which deliveries of a member of the mesh are counted for P3.
const ACTIVATION: Duration = Duration::from_secs(60);

/// Deliveries that P3 expects of a member in the last minutes, at most.
const EXPECTED_DELIVERIES: f64 = 10.0;

#[derive(Clone, Debug)]
struct Member {
    since: Instant,
    /// Deliveries of the topic's messages, first or soon after, that fade with [`HALF_LIFE`].
    deliveries: f64,
}

#[derive(Clone, Debug)]
struct Entry {
    preference: f64,
    faults: f64,
    control: f64,
    first: f64,
    /// P3b: the deficit with which the peer left meshes.
    failure: f64,
    /// P1: seconds from `start` to the beginning of each membership, added up.
    joined: f64,
    start: Instant,
    meshes: HashMap<TopicHash, Member>,
    /// Addresses of the peer, and how many of its connections each one has.
    ips: Vec<(IpAddr, usize)>,
    at: Instant,
    banned_until: Option<Instant>,
}

impl Entry {
    fn new(now: Instant) -> Self {
        Self {
            preference: 0.0,
            faults: 0.0,
            control: CONTROL_BURST,
            first: 0.0,
            failure: 0.0,
            joined: 0.0,
            start: now,
            meshes: HashMap::new(),
            ips: Vec::new(),
            at: now,
            banned_until: None,
        }
    }

    fn advance(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        // Not for each message: a peer may be in the meshes of thousands of topics.
        if passed < 1.0 {
            return;
        }
        let fade = (-passed / HALF_LIFE.as_secs_f64()).exp2();
        self.faults *= fade;
        self.first *= fade;
        self.failure *= fade;
        for member in self.meshes.values_mut() {
            member.deliveries *= fade;
        }
        self.control = (self.control + passed * CONTROL_RATE).min(CONTROL_BURST);
        self.at = now;
    }

    fn points(&mut self, fault: Fault) -> f64 {
        match fault {
            Fault::Invalid(count) => 50.0 * as_f64(count),
            Fault::Excess(count) => as_f64(count) / 64.0,
            Fault::Replayed(count) => as_f64(count),
            Fault::Promise { broken, kept } => {
                let share = as_f64(broken) / as_f64(broken + kept).max(1.0);
                share * (as_f64(broken) / 5.0).clamp(1.0, MAX_PROMISE_POINTS)
            }
            Fault::Backoff(count) => as_f64(count) / 8.0,
            Fault::Control(count) => {
                self.control -= as_f64(count);
                let excess = (-self.control).max(0.0);
                self.control = self.control.max(0.0);
                excess / 64.0
            }
        }
    }

    /// P3: squares of the deliveries that are missing.
    fn deficit(&self, now: Instant, busiest: &HashMap<TopicHash, f64>) -> f64 {
        let deficits = self.meshes.iter().map(|(topic, member)| {
            if now.saturating_duration_since(member.since) < ACTIVATION {
                return 0.0;
            }
            // A topic without traffic demands no deliveries.
            let most = busiest.get(topic).copied().unwrap_or_default();
            let expected = most.min(EXPECTED_DELIVERIES) / 2.0;
            (expected - member.deliveries).max(0.0).powi(2)
        });
        deficits.sum()
    }
}

/// Counts in one RPC fit 32 bits.
fn as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// The scores of all peers that have one. Time is an argument.
#[derive(Debug)]
pub struct Scores {
    params: ScoreParams,
    peers: HashMap<PeerId, Entry>,
    by_ip: HashMap<IpAddr, usize>,
}

impl Scores {
    /// A table without peers.
    #[must_use]
    pub fn new(params: ScoreParams) -> Self {
        Self {
            params,
            peers: HashMap::new(),
            by_ip: HashMap::new(),
        }
    }

    /// P5: sets the preference of the application. A preference that is not a number counts as 0.
    pub fn prefer(&mut self, peer: PeerId, preference: f64, now: Instant) {
        self.entry(peer, now).preference = if preference.is_nan() {
            0.0
        } else {
            preference.clamp(-MAX_PREFERENCE, MAX_PREFERENCE)
        };
    }

    /// P4 and P7: records a fault.
    pub fn fault(&mut self, peer: PeerId, fault: Fault, now: Instant) -> Verdict {
        let ban = self.params.ban;
        let entry = self.entry(peer, now);
        let points = entry.points(fault);
        entry.faults += points;
        if entry.faults < BAN_FAULTS {
            return Verdict::Lower;
        }
        entry.faults = 0.0;
        entry.banned_until = Some(now + ban);
        Verdict::Ban
    }

    /// P1: the peer joins the mesh of `topic`.
    pub fn grafted(&mut self, peer: PeerId, topic: TopicHash, now: Instant) {
        let member = Member {
            since: now,
            deliveries: 0.0,
        };
        let entry = self.entry(peer, now);
        if entry.meshes.insert(topic, member).is_none() {
            entry.joined += now.saturating_duration_since(entry.start).as_secs_f64();
        }
    }

    /// P3b: the peer leaves the mesh of `topic`, and its deficit stays.
    pub fn pruned(&mut self, peer: &PeerId, topic: &TopicHash, now: Instant) {
        let Some(entry) = self
            .peers
            .get(peer)
            .filter(|e| e.meshes.contains_key(topic))
        else {
            return;
        };
        let deficit = match self.params.delivery_deficit {
            0.0 => 0.0,
            _ => entry.deficit(now, &self.busiest()),
        };
        let entry = self.entry(*peer, now);
        if let Some(member) = entry.meshes.remove(topic) {
            let joined = member.since.saturating_duration_since(entry.start);
            entry.joined -= joined.as_secs_f64();
        }
        entry.failure += deficit;
    }

    /// P2 and P3: the peer delivered a message of `topic`, as the first or soon after.
    pub fn delivered(&mut self, peer: PeerId, topic: &TopicHash, first: bool, now: Instant) {
        let entry = self.entry(peer, now);
        entry.first += f64::from(u8::from(first));
        if let Some(member) = entry.meshes.get_mut(topic) {
            member.deliveries += 1.0;
        }
    }

    /// P6: a connection with the peer is open.
    pub fn connected(&mut self, peer: PeerId, ip: IpAddr, now: Instant) {
        let entry = self.entry(peer, now);
        if let Some((_, connections)) = entry.ips.iter_mut().find(|(known, _)| *known == ip) {
            *connections += 1;
            return;
        }
        entry.ips.push((ip, 1));
        *self.by_ip.entry(ip).or_default() += 1;
    }

    /// P6: a connection with the peer is closed.
    pub fn connection_closed(&mut self, peer: &PeerId, ip: IpAddr) {
        let Some(entry) = self.peers.get_mut(peer) else {
            return;
        };
        let Some(index) = entry.ips.iter().position(|(known, _)| *known == ip) else {
            return;
        };
        entry.ips[index].1 -= 1;
        if entry.ips[index].1 == 0 {
            entry.ips.swap_remove(index);
            release(&mut self.by_ip, ip);
        }
    }

    /// The last connection with the peer is closed. Its faults and its preference stay.
    pub fn disconnected(&mut self, peer: &PeerId, now: Instant) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.advance(now);
            entry.meshes.clear();
            entry.joined = 0.0;
            let ips = std::mem::take(&mut entry.ips);
            for (ip, _) in ips {
                release(&mut self.by_ip, ip);
            }
        }
    }

    /// The score of a peer.
    #[must_use]
    pub fn score(&self, peer: &PeerId, now: Instant) -> f64 {
        let Some(entry) = self.peers.get(peer) else {
            return BASE_SCORE;
        };
        let passed = now.saturating_duration_since(entry.at).as_secs_f64();
        let fade = (-passed / HALF_LIFE.as_secs_f64()).exp2();
        let params = &self.params;
        let age = now.saturating_duration_since(entry.start).as_secs_f64();
        let hours = (age * as_f64(entry.meshes.len()) - entry.joined) / 3600.0;
        let p1 = (hours * params.time_in_mesh).clamp(0.0, P1_CAP);
        let p2 = (entry.first * fade * params.first_deliveries).min(P2_CAP);
        let mut score = BASE_SCORE + entry.preference + p1 + p2 - entry.faults * fade;
        if params.delivery_deficit > 0.0 {
            let deficit = entry.deficit(now, &self.busiest()) + entry.failure * fade;
            score -= deficit * params.delivery_deficit;
        }
        if params.ip_colocation > 0.0 {
            let surplus = entry.ips.iter().map(|(ip, _)| {
                let peers = self.by_ip.get(ip).copied().unwrap_or_default();
                as_f64(peers.saturating_sub(params.ip_tolerance)).powi(2)
            });
            score -= surplus.sum::<f64>() * params.ip_colocation;
        }
        score
    }

    /// Returns `true` if the peer is banned.
    #[must_use]
    pub fn is_banned(&self, peer: &PeerId, now: Instant) -> bool {
        (self.peers.get(peer))
            .and_then(|entry| entry.banned_until)
            .is_some_and(|until| until > now)
    }

    /// The most deliveries of one member, for each topic.
    fn busiest(&self) -> HashMap<TopicHash, f64> {
        let mut busiest: HashMap<TopicHash, f64> = HashMap::new();
        for (topic, member) in self.peers.values().flat_map(|entry| &entry.meshes) {
            let most = busiest.entry(topic.clone()).or_default();
            *most = most.max(member.deliveries);
        }
        busiest
    }

    fn entry(&mut self, peer: PeerId, now: Instant) -> &mut Entry {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&peer) {
            self.forget_one(now);
        }
        let entry = self.peers.entry(peer).or_insert_with(|| Entry::new(now));
        entry.advance(now);
        entry
    }

    /// Forgets the peer that matters least: not banned, the fewest faults, silent for longest.
    fn forget_one(&mut self, now: Instant) {
        let least = self.peers.iter().min_by(|(_, one), (_, other)| {
            let banned = |entry: &Entry| entry.banned_until.is_some_and(|until| until > now);
            (banned(one).cmp(&banned(other)))
                .then(one.faults.total_cmp(&other.faults))
                .then(one.preference.abs().total_cmp(&other.preference.abs()))
                .then(one.at.cmp(&other.at))
        });
        if let Some(peer) = least.map(|(peer, _)| *peer) {
            let entry = self.peers.remove(&peer);
            for (ip, _) in entry.map(|entry| entry.ips).unwrap_or_default() {
                release(&mut self.by_ip, ip);
            }
        }
    }
}

/// One peer fewer is at `ip`.
fn release(by_ip: &mut HashMap<IpAddr, usize>, ip: IpAddr) {
    if let Some(peers) = by_ip.get_mut(&ip) {
        *peers -= 1;
        if *peers == 0 {
            by_ip.remove(&ip);
        }
    }
}

#[cfg(test)]
mod tests;
