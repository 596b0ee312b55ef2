//! The overlay: every node subscribes to one topic and publishes, and each must receive every message
//! once.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use bytes::Bytes;
use calimero_network::{ContextId, Message, MessageId, Topic};
use tokio::sync::mpsc;

use super::node::Node;
use crate::error::CommandError;

/// Messages of each node.
const MESSAGES: usize = 25;
const PAYLOAD_BYTES: usize = 1024;

/// Peers in each mesh, at least: `pubsub.mesh.low`.
pub(super) const LEAST_MESH: usize = 2;

/// Pause between looks at a mesh that is being made: heartbeats come once a second.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A message as a node got it.
pub(super) struct Heard {
    pub(super) name: &'static str,
    pub(super) message: Message,
    pub(super) at: Instant,
}

/// What was published and what became of it.
#[derive(Clone, Debug)]
pub(super) struct Gossip {
    /// Peers in the mesh of each node.
    pub(super) meshes: Vec<usize>,
    pub(super) published: usize,
    /// Deliveries, each message counted once a node.
    pub(super) delivered: usize,
    pub(super) repeated: usize,
    pub(super) unchanged: bool,
    /// From publishing to hearing, shortest first.
    pub(super) latencies: Vec<Duration>,
}

pub(super) fn topic() -> Topic {
    Topic::context(ContextId::new([0xca; 32]))
}

/// Waits until every mesh is as large as it must be: with four nodes, a ring at least. Gives
/// their sizes.
pub(super) async fn meet(nodes: &[Node]) -> Result<Vec<usize>, CommandError> {
    for node in nodes {
        node.client.subscribe(&topic()).await?;
    }
    loop {
        let mut meshes = Vec::with_capacity(nodes.len());
        for node in nodes {
            meshes.push(node.client.mesh_peer_count(&topic()).await?);
        }
        if meshes.iter().all(|size| *size >= LEAST_MESH) {
            return Ok(meshes);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Each node publishes in turn. Received messages are collected until none is missing.
pub(super) async fn talk(
    nodes: &[Node],
    meshes: Vec<usize>,
    heard: &mut mpsc::Receiver<Heard>,
) -> Result<Gossip, CommandError> {
    let mut published: Vec<(MessageId, Bytes, Instant)> = Vec::new();
    for round in 0..MESSAGES {
        for (nth, node) in nodes.iter().enumerate() {
            let payload = Bytes::from(vec![(round + nth) as u8; PAYLOAD_BYTES]);
            let at = Instant::now();
            let id = node.client.publish(&topic(), payload.clone()).await?;
            published.push((id, payload, at));
        }
    }
    let expected = published.len() * (nodes.len() - 1);
    let mut gossip = Gossip {
        meshes,
        published: published.len(),
        delivered: 0,
        repeated: 0,
        unchanged: true,
        latencies: Vec::with_capacity(expected),
    };
    let mut seen = HashSet::new();
    while gossip.delivered < expected {
        let Some(Heard { name, message, at }) = heard.recv().await else {
            break;
        };
        let Some((id, payload, sent)) = published.iter().find(|(id, ..)| *id == message.id) else {
            gossip.unchanged = false;
            continue;
        };
        gossip.unchanged &= message.data == *payload;
        if seen.insert((name, id.clone())) {
            gossip.delivered += 1;
            gossip.latencies.push(at.saturating_duration_since(*sent));
        } else {
            gossip.repeated += 1;
        }
    }
    gossip.latencies.sort_unstable();
    Ok(gossip)
}

impl Gossip {
    /// Returns `true` if each node received every message, unchanged and once.
    pub(super) fn is_complete(&self) -> bool {
        self.delivered == self.published * (self.meshes.len() - 1)
            && self.repeated == 0
            && self.unchanged
    }

    pub(super) fn median(&self) -> Duration {
        let middle = self.latencies.get(self.latencies.len() / 2);
        middle.copied().unwrap_or_default()
    }

    pub(super) fn longest(&self) -> Duration {
        self.latencies.last().copied().unwrap_or_default()
    }
}
