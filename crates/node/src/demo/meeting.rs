//! The meeting: three nodes that know nothing but the boot node find each other.

use std::time::{Duration, Instant};

use calimero_network::{ContextId, Topic};

use super::node::Node;
use crate::error::CommandError;

/// Who is started with the address of the boot node and nothing else.
pub(super) const NEWCOMERS: [&str; 3] = ["dave", "erin", "frank"];

/// The one of them that can be killed, the last.
pub(super) const MORTAL: &str = "frank";

/// Pause between two reads of the status.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The outcome of a meeting.
#[derive(Clone, Debug)]
pub(super) struct Meeting {
    /// Time from the first read until each node had found all others.
    pub(super) took: Duration,
    /// For each node, how many of the others it found.
    pub(super) found: Vec<usize>,
}

impl Meeting {
    pub(super) fn is_complete(&self) -> bool {
        self.found.iter().all(|found| found + 1 == self.found.len())
    }
}

/// What they have in common, and the boot node has not.
fn topic() -> Topic {
    Topic::context(ContextId::new([0xcb; 32]))
}

/// Waits until each of `nodes` knows the others as subscribers.
pub(super) async fn meet(nodes: &[Node]) -> Result<Meeting, CommandError> {
    let started = Instant::now();
    for node in nodes {
        node.client.subscribe(&topic()).await?;
    }
    loop {
        let mut found = Vec::with_capacity(nodes.len());
        for node in nodes {
            let subscribed = node.client.subscribed_peers(&topic()).await?;
            let others = nodes.iter().map(|other| other.client.peer_id());
            found.push(others.filter(|other| subscribed.contains(other)).count());
        }
        let meeting = Meeting {
            took: started.elapsed(),
            found,
        };
        if meeting.is_complete() {
            return Ok(meeting);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
