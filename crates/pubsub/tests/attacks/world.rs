//! Overlays of honest nodes among which attackers live, and the figures of a run.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use calimero_network_primitives::{Keypair, Topic};
use calimero_network_pubsub::Config;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use crate::{
    attack::Attack,
    net::{Net, topic},
};

const SECOND: Duration = Duration::from_secs(1);

/// Time from the first connection to the first message, but for a cold boot.
const SETTLED: Duration = Duration::from_secs(15);

/// Time after the last message in which late ones count.
const LATE: Duration = Duration::from_secs(8);

/// Bytes of a payload.
const PAYLOAD_BYTES: usize = 512;

/// Latencies of links in one direction, in milliseconds: one host, one city, one continent, two.
const LATENCIES_MS: [u64; 8] = [1, 5, 10, 20, 30, 50, 80, 120];

/// Members of an overlay that a node dials, besides the next one of a ring.
const DIALS: usize = 4;

/// Members of an overlay that an attacker dials: more than an honest node, to reach more meshes.
const ATTACKER_DIALS: usize = 10;

/// The size of a run.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Honest nodes, and identities of attackers.
    pub honest: usize,
    pub attackers: usize,
    pub overlays: usize,
    /// Overlays of one node.
    pub memberships: usize,
    /// Time in which messages are published, in seconds.
    pub seconds: u32,
}

struct Overlay {
    topic: Topic,
    honest: Vec<usize>,
    attackers: Vec<usize>,
}

struct Sent {
    overlay: usize,
    by: usize,
    at: Instant,
    /// Hops from the publisher, of every node that has the message.
    hops: HashMap<usize, u32>,
}

pub struct World {
    pub net: Net,
    pub size: Size,
    pub attack: Attack,
    /// Choices of the script. Those of the network do not change them.
    pub rng: StdRng,
    config: Config,
    overlays: Vec<Overlay>,
    sent: Vec<Sent>,
    figures: Figures,
}

/// What honest nodes got and paid.
#[derive(Debug, Default)]
pub struct Figures {
    pub expected: usize,
    pub delivered: usize,
    pub repeated: usize,
    ages: Vec<Duration>,
    hops: Vec<u32>,
    copies: u64,
    unique: u64,
    bytes: usize,
    /// Bans of attackers and of honest nodes, by honest nodes.
    pub banned: (usize, usize),
}

impl Figures {
    /// The figures of two runs.
    pub fn and(mut self, other: Self) -> Self {
        self.expected += other.expected;
        self.delivered += other.delivered;
        self.repeated += other.repeated;
        self.ages.extend(other.ages);
        self.ages.sort_unstable();
        self.hops.extend(other.hops);
        self.copies += other.copies;
        self.unique += other.unique;
        self.bytes += other.bytes;
        self.banned.0 += other.banned.0;
        self.banned.1 += other.banned.1;
        self
    }

    pub fn ratio(&self) -> f64 {
        self.delivered as f64 / self.expected.max(1) as f64
    }

    /// Latency of a share of the deliveries.
    pub fn age(&self, share: f64) -> Duration {
        let index = (self.ages.len().saturating_sub(1) as f64 * share) as usize;
        self.ages.get(index).copied().unwrap_or_default()
    }

    /// The share of all messages that arrived within a time.
    pub fn within(&self, time: Duration) -> f64 {
        let arrived = self.ages.iter().filter(|age| **age <= time);
        arrived.count() as f64 / self.expected.max(1) as f64
    }

    /// A row of a table.
    pub fn row(&self) -> String {
        let hops = self.hops.iter().sum::<u32>() as f64 / self.hops.len().max(1) as f64;
        let most = self.hops.iter().max().copied().unwrap_or_default();
        let bytes = self.bytes as f64 / (self.unique.max(1) as f64 * PAYLOAD_BYTES as f64);
        let ms = |share| self.age(share).as_millis();
        format!(
            "{:.2} % | {} | {} | {} | {hops:.1} / {most} | {:.2} | {bytes:.2} | {} / {}",
            self.ratio() * 100.0,
            ms(0.5),
            ms(0.99),
            ms(1.0),
            self.copies as f64 / self.unique.max(1) as f64,
            self.banned.0,
            self.banned.1,
        )
    }
}

impl World {
    pub fn new(size: Size, attack: Attack, config: &Config, seed: u64) -> Self {
        let mut net = Net::new(seed);
        net.latencies = LATENCIES_MS.map(Duration::from_millis).to_vec();
        net.deliveries = Some(Vec::new());
        let mut world = Self {
            net,
            size,
            attack,
            rng: StdRng::seed_from_u64(seed),
            config: config.clone(),
            overlays: Vec::new(),
            sent: Vec::new(),
            figures: Figures::default(),
        };
        world.populate();
        world
    }

    pub fn is_honest(&self, node: usize) -> bool {
        node < self.size.honest
    }

    /// A key that is the same in every run.
    pub fn keypair(&mut self) -> Keypair {
        Keypair::ed25519_from_bytes(self.rng.random::<[u8; 32]>()).unwrap()
    }

    /// Honest nodes come first. Each node is a member of some overlays.
    fn populate(&mut self) {
        let overlays = u32::try_from(self.size.overlays).unwrap();
        self.overlays = (0..overlays)
            .map(|number| Overlay {
                topic: topic(number),
                honest: Vec::new(),
                attackers: Vec::new(),
            })
            .collect();
        let attackers = if self.attack == Attack::None {
            0
        } else {
            self.size.attackers
        };
        for node in 0..self.size.honest + attackers {
            let keypair = self.keypair();
            self.net.add_with(keypair, &self.config);
            let mut all: Vec<_> = (0..self.overlays.len()).collect();
            all.shuffle(&mut self.rng);
            for overlay in all.into_iter().take(self.size.memberships) {
                let is_honest = self.is_honest(node);
                let overlay = &mut self.overlays[overlay];
                let members = if is_honest {
                    &mut overlay.honest
                } else {
                    &mut overlay.attackers
                };
                members.push(node);
            }
        }
        self.overlays.retain(|overlay| overlay.honest.len() > 2);
    }

    /// The topics of a node.
    pub fn topics(&self, node: usize) -> Vec<Topic> {
        let mine = self
            .overlays
            .iter()
            .filter(|overlay| overlay.honest.contains(&node) || overlay.attackers.contains(&node));
        mine.map(|overlay| overlay.topic.clone()).collect()
    }

    pub fn attackers(&self) -> std::ops::Range<usize> {
        self.size.honest..self.net.nodes.len()
    }

    /// The first member of each overlay, which attacks on single nodes aim at.
    pub fn victims(&self) -> Vec<usize> {
        self.overlays
            .iter()
            .map(|overlay| overlay.honest[0])
            .collect()
    }

    pub fn honest_links(&self, node: usize) -> Vec<usize> {
        let links = self.net.links_of(node).into_iter();
        links.filter(|other| self.is_honest(*other)).collect()
    }

    fn subscribe(&mut self, node: usize) {
        for topic in self.topics(node) {
            self.net.subscribe(node, &topic);
        }
    }

    /// Connects a node, unless the other one refuses it.
    pub fn dial(&mut self, from: usize, to: usize) {
        let peer = self.net.nodes[from].peer;
        if !self.net.nodes[to].machine.is_banned(&peer, self.net.now) {
            self.net.connect(from, to);
        }
    }

    /// An attacker dials honest members of its overlays.
    pub fn intrude(&mut self, attacker: usize) {
        for index in 0..self.overlays.len() {
            if self.overlays[index].attackers.contains(&attacker) {
                let mut honest = self.overlays[index].honest.clone();
                honest.shuffle(&mut self.rng);
                for to in honest.into_iter().take(ATTACKER_DIALS) {
                    self.dial(attacker, to);
                }
            }
        }
    }

    /// Honest nodes dial the next one of a ring, and members that they cannot tell from attackers.
    fn connect_honest(&mut self) {
        for index in 0..self.overlays.len() {
            let (honest, mut all) = {
                let overlay = &self.overlays[index];
                let all = [&overlay.honest[..], &overlay.attackers[..]].concat();
                (overlay.honest.clone(), all)
            };
            for (place, node) in honest.iter().enumerate() {
                self.dial(*node, honest[(place + 1) % honest.len()]);
                all.shuffle(&mut self.rng);
                for other in all.iter().filter(|other| *other != node).take(DIALS) {
                    self.dial(*node, *other);
                }
            }
        }
    }

    /// Leaves a node two honest neighbours in each overlay that it dialled, and surrounds it.
    fn surround(&mut self, victim: usize) {
        for other in self.net.links_of(victim) {
            self.net.disconnect(victim, other);
        }
        for index in 0..self.overlays.len() {
            let overlay = &self.overlays[index];
            if !overlay.honest.contains(&victim) {
                continue;
            }
            let (mut honest, attackers) = (overlay.honest.clone(), overlay.attackers.clone());
            honest.retain(|node| *node != victim);
            honest.shuffle(&mut self.rng);
            for other in honest.into_iter().take(2) {
                self.dial(victim, other);
            }
            for attacker in attackers {
                self.dial(attacker, victim);
            }
        }
    }

    pub fn run(mut self) -> Figures {
        let attackers: Vec<_> = self.attackers().collect();
        for attacker in &attackers {
            self.subscribe(*attacker);
            self.attack.prepare(&mut self.net, *attacker);
        }
        if self.attack == Attack::Censor {
            self.censor();
        }
        for node in 0..self.size.honest {
            self.subscribe(node);
        }
        // Attackers connect first, while the meshes have room.
        for attacker in &attackers {
            self.intrude(*attacker);
        }
        self.connect_honest();
        if self.attack == Attack::Eclipse {
            for victim in self.victims() {
                self.surround(victim);
            }
        }
        self.net.run(if self.attack == Attack::ColdBoot {
            SECOND
        } else {
            SETTLED
        });
        let begun: usize = self.honest_bytes();
        for second in 0..self.size.seconds {
            self.act(second);
            self.publish(second);
            self.net.run(SECOND);
            self.collect();
        }
        self.net.run(LATE);
        self.collect();
        self.figures.bytes = self.honest_bytes() - begun;
        self.finish()
    }

    fn censor(&mut self) {
        let victims = self.victims().into_iter();
        let peers = victims.map(|node| self.net.nodes[node].peer).collect();
        let withholds = crate::net::Withholds::Of(std::sync::Arc::new(peers));
        for attacker in self.attackers() {
            self.net.nodes[attacker].withholds = withholds.clone();
        }
    }

    fn honest_bytes(&self) -> usize {
        let honest = &self.net.nodes[..self.size.honest];
        honest.iter().map(|node| node.sent_bytes).sum()
    }

    fn act(&mut self, second: u32) {
        for attacker in self.attackers() {
            self.attack.act(self, attacker, second);
        }
    }

    /// One message in each overlay. Where single nodes are attacked, every second one is theirs.
    fn publish(&mut self, second: u32) {
        for index in 0..self.overlays.len() {
            let overlay = &self.overlays[index];
            let by = if self.attack.has_victims() && second.is_multiple_of(2) {
                overlay.honest[0]
            } else {
                overlay.honest[self.rng.random_range(0..overlay.honest.len())]
            };
            let topic = overlay.topic.clone();
            let mut data = (self.sent.len() as u64).to_be_bytes().to_vec();
            data.resize(PAYLOAD_BYTES, 0);
            let at = self.net.now.at;
            // A message without a recipient counts as lost.
            let _ = self.net.publish(by, &topic, data);
            self.sent.push(Sent {
                overlay: index,
                by,
                at,
                hops: HashMap::from([(by, 0)]),
            });
        }
    }

    /// Reads what was delivered.
    fn collect(&mut self) {
        let delivered = self.net.deliveries.replace(Vec::new());
        for (node, at, message) in delivered.unwrap_or_default() {
            let number = message
                .data
                .first_chunk()
                .map(|head| u64::from_be_bytes(*head));
            let sent = &mut self.sent[number.unwrap() as usize];
            let hops = sent.hops.get(&self.net.index_of(message.propagated_by));
            let hops = hops.map_or(1, |hops| hops + 1);
            let is_first = sent.hops.insert(node, hops).is_none();
            if node >= self.size.honest {
                continue;
            }
            if !is_first {
                self.figures.repeated += 1;
                continue;
            }
            let victim = self.overlays[sent.overlay].honest[0];
            if self.attack.counts(sent.by, node, victim) {
                self.figures.delivered += 1;
                self.figures.ages.push(at - sent.at);
                self.figures.hops.push(hops);
            }
        }
    }

    fn finish(mut self) -> Figures {
        for sent in &self.sent {
            let overlay = &self.overlays[sent.overlay];
            let others = overlay.honest.iter().filter(|node| **node != sent.by);
            let counted =
                others.filter(|node| self.attack.counts(sent.by, **node, overlay.honest[0]));
            self.figures.expected += counted.count();
        }
        self.figures.ages.sort_unstable();
        let peers: BTreeMap<_, _> = (0..self.net.nodes.len())
            .map(|node| (self.net.nodes[node].peer, node))
            .collect();
        for node in &self.net.nodes[..self.size.honest] {
            let counters = node.machine.mesh_stats().counters;
            self.figures.copies += counters.copies;
            self.figures.unique += counters.delivered;
            for event in &node.events {
                if let calimero_network_pubsub::Event::Banned { peer } = event {
                    let honest = peers.get(peer).is_some_and(|node| *node < self.size.honest);
                    self.figures.banned.0 += usize::from(!honest);
                    self.figures.banned.1 += usize::from(honest);
                }
            }
        }
        self.figures
    }
}
