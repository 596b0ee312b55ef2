//! Boot nodes: which are connected, and why the others cannot be reached.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use calimero_network_primitives::{PeerId, UnreachableCause};

use super::effect::Effect;

/// Time between two reports of one boot node that stays unreachable for one cause, 10 min: a boot
/// node is dialled every few seconds, and a line for each dial hides every other line.
const REPORT_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Whether a boot node is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BootNode {
    /// No connection, and no dial has failed since there was one.
    #[default]
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

#[derive(Clone, Debug, Default)]
struct Node {
    state: BootNode,
    /// The latest report of each cause, by its name, since a connection with the node lasted.
    reported: BTreeMap<&'static str, Instant>,
    /// Connections in a row that did not last.
    short_lived: u32,
}

/// The state of each configured boot node.
#[derive(Clone, Debug)]
pub(super) struct BootNodes {
    nodes: BTreeMap<PeerId, Node>,
}

impl BootNodes {
    pub(super) fn new(peers: impl Iterator<Item = PeerId>) -> Self {
        Self {
            nodes: peers.map(|peer| (peer, Node::default())).collect(),
        }
    }

    pub(super) fn add(&mut self, peer: PeerId) {
        self.nodes.entry(peer).or_default();
    }

    pub(super) fn remove(&mut self, peer: &PeerId) {
        self.nodes.remove(peer);
    }

    pub(super) fn on_connected(&mut self, peer: &PeerId) {
        if let Some(node) = self.nodes.get_mut(peer) {
            node.state = BootNode::Connected;
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
        node.state = BootNode::Connecting;
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
        let (failures, since) = match node.state {
            BootNode::Connected => return,
            BootNode::Connecting => (0, now),
            BootNode::Unreachable {
                failures, since, ..
            } => (failures, since),
        };
        node.state = BootNode::Unreachable {
            cause,
            failures: failures.saturating_add(1),
            since,
        };
        let reported = node.reported.get(cause.name());
        let is_known =
            reported.is_some_and(|at| now.saturating_duration_since(*at) < REPORT_INTERVAL);
        if !is_known {
            node.reported.insert(cause.name(), now);
            out.push_back(Effect::BootNodeUnreachable { peer, cause });
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PeerId, BootNode)> {
        self.nodes.iter().map(|(peer, node)| (*peer, node.state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test has to start somewhere")]
    fn a_boot_node_is_reported_at_first_at_another_cause_and_rarely() {
        let (start, peer) = (Instant::now(), PeerId::random());
        let mut boot = BootNodes::new([peer].into_iter());
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
        assert!(boot.iter().eq([(peer, unreachable)]));
        boot.on_connected(&peer);
        assert_eq!(fail(&mut boot, 602, no_route), 0);
        assert!(boot.iter().eq([(peer, BootNode::Connected)]));
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
            boot.on_connected(&peer);
            boot.on_disconnected(peer, false, start, &mut out);
            assert_eq!(out.pop_front(), expected);
        }
        assert!(boot.is_flapping(&peer));
    }
}
