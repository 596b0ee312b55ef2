//! What attackers do.

use std::time::Duration;

use bytes::Bytes;
use calimero_network_pubsub::{
    TopicHash,
    rpc::{Control, Rpc, Subscription},
    topic_hash,
};
use rand::{RngExt, seq::IndexedRandom};

use crate::{
    net::{Net, Withholds},
    world::World,
};

/// Attacks of the evaluation of gossipsub 1.1 (Vyzovitis et al., 2020), and floods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// No attackers.
    None,
    /// As many attackers as honest nodes, each with more connections. They follow the protocol, and
    /// drop the messages of others.
    Sybil,
    /// The same, where all honest nodes start together after the attackers, and publish at once.
    ColdBoot,
    /// All attackers of an overlay are in the mesh of one member, which has dialled two honest nodes
    /// and has no other honest neighbours. They drop the messages of others. Counted are the
    /// messages from and to this member.
    Eclipse,
    /// Attackers drop the messages of one member alone, and gain a good score with the others.
    /// Counted are the messages of this member.
    Censor,
    /// Forged messages, offers of messages that do not exist, requests, GRAFT, PRUNE and
    /// announcements, under a new identity after each ban.
    Spam,
    /// Attackers forward everything, and send all of it again half a minute later and after that.
    Replay,
}

/// Neighbours to which an attacker sends its flood in one second.
const FLOODED: usize = 3;

/// Age of a message that is sent again: late enough to be a replay, and not a copy.
const REPLAY_AGE: Duration = Duration::from_secs(31);

impl Attack {
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::Sybil,
        Self::ColdBoot,
        Self::Eclipse,
        Self::Censor,
        Self::Spam,
        Self::Replay,
    ];

    pub fn has_victims(self) -> bool {
        matches!(self, Self::Eclipse | Self::Censor)
    }

    /// Whether a delivery is one that the attack aims at.
    pub fn counts(self, from: usize, to: usize, victim: usize) -> bool {
        match self {
            Self::Eclipse => from == victim || to == victim,
            Self::Censor => from == victim,
            _ => true,
        }
    }

    /// Sets up an attacker.
    pub fn prepare(self, net: &mut Net, attacker: usize) {
        let node = &mut net.nodes[attacker];
        match self {
            Self::Sybil | Self::ColdBoot | Self::Eclipse => node.withholds = Withholds::Others,
            Self::Spam | Self::Replay => node.collected = Some(Vec::new()),
            Self::None | Self::Censor => {}
        }
    }

    /// What an attacker does in one second.
    pub fn act(self, world: &mut World, attacker: usize, second: u32) {
        match self {
            Self::Eclipse => graft(world, attacker),
            Self::Spam => spam(world, attacker, second),
            Self::Replay => replay(world, attacker),
            _ => {}
        }
    }
}

/// Pushes itself into the meshes of all neighbours.
fn graft(world: &mut World, attacker: usize) {
    let topics = world.topics(attacker);
    let graft = Rpc {
        control: Control {
            graft: topics.iter().map(topic_hash).collect(),
            ..Control::default()
        },
        ..Rpc::default()
    };
    for neighbour in world.honest_links(attacker) {
        world.net.inject(attacker, neighbour, vec![graft.encode()]);
    }
}

/// A message that was seen, with one byte of its signature changed.
fn forged(world: &mut World, attacker: usize) -> Option<Bytes> {
    let collected = world.net.nodes[attacker].collected.as_ref()?;
    let (_, message) = collected.choose(&mut world.rng)?;
    let mut forged = message.to_vec();
    *forged.last_mut()? ^= 1;
    Some(forged.into())
}

fn spam(world: &mut World, attacker: usize, second: u32) {
    let mut links = world.honest_links(attacker);
    if links.is_empty() {
        // Banned by all: a new identity, in the place of the one before.
        let keypair = world.keypair();
        world.net.restart_as(attacker, keypair);
        for topic in world.topics(attacker) {
            world.net.subscribe(attacker, &topic);
        }
        world.intrude(attacker);
        links = world.honest_links(attacker);
    }
    let topics: Vec<_> = world.topics(attacker).iter().map(topic_hash).collect();
    for neighbour in links
        .sample(&mut world.rng, FLOODED)
        .copied()
        .collect::<Vec<_>>()
    {
        let messages: Vec<_> = (0..5).filter_map(|_| forged(world, attacker)).collect();
        let id = |world: &mut World| Bytes::from(format!("{:060}", world.rng.random::<u64>()));
        let ids: Vec<_> = (0..500).map(|_| id(world)).collect();
        let subscriptions = (0..100).map(|number| Subscription {
            topic: TopicHash::from_raw(format!("spam {attacker} {second} {number}")),
            subscribes: true,
        });
        let flood = Rpc {
            subscriptions: subscriptions.collect(),
            messages,
            control: Control {
                ihave: topics
                    .iter()
                    .map(|topic| (topic.clone(), ids.clone()))
                    .collect(),
                iwant: ids.clone(),
                graft: topics.iter().cycle().take(20).cloned().collect(),
                prune: topics
                    .iter()
                    .map(|topic| (topic.clone(), Some(1)))
                    .collect(),
                idontwant: ids,
                ..Control::default()
            },
            ..Rpc::default()
        };
        world.net.inject(attacker, neighbour, vec![flood.encode()]);
    }
}

fn replay(world: &mut World, attacker: usize) {
    let now = world.net.now.at;
    let collected = world.net.nodes[attacker].collected.iter().flatten();
    let old = collected.filter(|(at, _)| now.saturating_duration_since(*at) >= REPLAY_AGE);
    let old: Vec<_> = old.map(|(_, message)| message.clone()).collect();
    let again: Vec<_> = old.sample(&mut world.rng, 20).cloned().collect();
    if again.is_empty() {
        return;
    }
    let rpc = Rpc {
        messages: again,
        ..Rpc::default()
    };
    for neighbour in world.honest_links(attacker) {
        world.net.inject(attacker, neighbour, vec![rpc.encode()]);
    }
}
