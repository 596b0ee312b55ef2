//! Boot nodes: which are connected, and why the others cannot be reached.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use calimero_network_primitives::{PeerId, UnreachableCause};

use super::{effect::Effect, since::Since, status::BootNodeStatus};

/// Time between two reports of one boot node that stays unreachable for one cause, 10 min: a boot
/// node is dialled every few seconds, and a line for each dial hides every other line.
const REPORT_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Whether a boot node is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootNode {
    /// No connection, and no dial has failed since there was one.
    Connecting,
    /// The boot node is connected.
    Connected,
    /// Every dial since `since` failed. The node is dialled again all the same.
    Unreachable {
        /// Cause of the latest failure.
        cause: UnreachableCause,
        /// Dials that failed in a row.
        failures: u32,
        /// Time of the first of them.
        since: Instant,
    },
}

#[derive(Clone, Debug)]
struct Node {
    state: Since<BootNode>,
    /// The latest report of each cause, by its name, since a connection with the node lasted.
    reported: BTreeMap<&'static str, Instant>,
    /// Connections in a row that did not last.
    short_lived: u32,
}

impl Node {
    fn new(now: Instant) -> Self {
        Self {
            state: Since::new(BootNode::Connecting, now),
            reported: BTreeMap::new(),
            short_lived: 0,
        }
    }
}

/// The state of each boot node, of the configuration or of a list.
#[derive(Clone, Debug)]
pub(super) struct BootNodes {
    nodes: BTreeMap<PeerId, Node>,
}

impl BootNodes {
    pub(super) fn new(peers: impl Iterator<Item = PeerId>, now: Instant) -> Self {
        Self {
            nodes: peers.map(|peer| (peer, Node::new(now))).collect(),
        }
    }

    pub(super) fn add(&mut self, peer: PeerId, now: Instant) {
        self.nodes.entry(peer).or_insert_with(|| Node::new(now));
    }

    pub(super) fn remove(&mut self, peer: &PeerId) {
        self.nodes.remove(peer);
    }

    pub(super) fn on_connected(&mut self, peer: &PeerId, now: Instant) {
        if let Some(node) = self.nodes.get_mut(peer) {
            node.state.set(BootNode::Connected, now);
        }
    }

    /// The last connection with `peer` was closed, which `lasted` or was closed right after it was
    /// established. The second in a row of the latter is a failure: a connection proves nothing
    /// before it has lasted.
    pub(super) fn on_disconnected(
        &mut self,
        peer: PeerId,
        lasted: bool,
        now: Instant,
        out: &mut VecDeque<Effect>,
    ) {
        let Some(node) = self.nodes.get_mut(&peer) else {
            return;
        };
        node.state.set(BootNode::Connecting, now);
        if lasted {
            node.short_lived = 0;
            node.reported.clear();
            return;
        }
        node.short_lived = node.short_lived.saturating_add(1);
        if node.short_lived > 1 {
            self.on_dial_failed(peer, UnreachableCause::Closed, now, out);
        }
    }

    /// Returns whether the latest connections with `peer` did not last.
    pub(super) fn is_flapping(&self, peer: &PeerId) -> bool {
        self.nodes
            .get(peer)
            .is_some_and(|node| node.short_lived > 1)
    }

    /// A dial of `peer` failed. Reports each cause at once, and again after [`REPORT_INTERVAL`] at
    /// the earliest.
    pub(super) fn on_dial_failed(
        &mut self,
        peer: PeerId,
        cause: UnreachableCause,
        now: Instant,
        out: &mut VecDeque<Effect>,
    ) {
        let Some(node) = self.nodes.get_mut(&peer) else {
            return;
        };
        let (failures, since) = match *node.state.get() {
            BootNode::Connected => return,
            BootNode::Connecting => (0, now),
            BootNode::Unreachable {
                failures, since, ..
            } => (failures, since),
        };
        let unreachable = BootNode::Unreachable {
            cause,
            failures: failures.saturating_add(1),
            since,
        };
        node.state.set(unreachable, now);
        let reported = node.reported.get(cause.name());
        let is_known =
            reported.is_some_and(|at| now.saturating_duration_since(*at) < REPORT_INTERVAL);
        if !is_known {
            node.reported.insert(cause.name(), now);
            out.push_back(Effect::BootNodeUnreachable { peer, cause });
        }
    }

    pub(super) fn status(&self) -> impl Iterator<Item = BootNodeStatus> {
        self.nodes.iter().map(|(peer, node)| BootNodeStatus {
            peer: *peer,
            state: *node.state.get(),
            changed_at: node.state.changed_at(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test has to start somewhere")]
    fn a_boot_node_is_reported_at_first_at_another_cause_and_rarely() {
        let (start, peer) = (Instant::now(), PeerId::random());
        let mut boot = BootNodes::new([peer].into_iter(), start);
        let fail = |boot: &mut BootNodes, seconds, cause| {
            let mut out = VecDeque::new();
            let now = start + Duration::from_secs(seconds);
            boot.on_dial_failed(peer, cause, now, &mut out);
            boot.on_dial_failed(PeerId::random(), cause, now, &mut out);
            out.len()
        };
        let (refused, no_route) = (UnreachableCause::Refused, UnreachableCause::NoRoute);
        assert_eq!(fail(&mut boot, 0, refused), 1);
        assert_eq!(fail(&mut boot, 5, refused), 0);
        assert_eq!(fail(&mut boot, 599, refused), 0);
        assert_eq!(fail(&mut boot, 600, refused), 1);
        assert_eq!(fail(&mut boot, 601, no_route), 1);
        // Causes that alternate are not reported at every dial.
        assert_eq!(fail(&mut boot, 601, refused), 0);
        assert_eq!(fail(&mut boot, 601, no_route), 0);
        let unreachable = BootNode::Unreachable {
            cause: no_route,
            failures: 7,
            since: start,
        };
        let states = |boot: &BootNodes| boot.status().map(|one| one.state).collect::<Vec<_>>();
        assert_eq!(states(&boot), [unreachable]);
        boot.on_connected(&peer, start);
        assert_eq!(fail(&mut boot, 602, no_route), 0);
        assert_eq!(states(&boot), [BootNode::Connected]);
        // One that lasted is a new beginning.
        boot.on_disconnected(peer, true, start, &mut VecDeque::new());
        assert_eq!(fail(&mut boot, 603, no_route), 1);
        // One that did not is none, and the second in a row is a failure.
        let closed = UnreachableCause::Closed;
        for expected in [
            None,
            Some(Effect::BootNodeUnreachable {
                peer,
                cause: closed,
            }),
        ] {
            let mut out = VecDeque::new();
            boot.on_connected(&peer, start);
            boot.on_disconnected(peer, false, start, &mut out);
            assert_eq!(out.pop_front(), expected);
        }
        assert!(boot.is_flapping(&peer));
    }
}
