//! What goes wrong: partitions, crashes, nodes that die and return, clocks that jump.

use std::time::Duration;

use calimero_network_discovery::machine::{CacheEntry, Input};
use rand::RngExt;

use super::{
    Event, World,
    boot::{Addresses, Boot},
    names::{FIRST_NODE, Id},
};

/// Time after which a silent link is given up, by the liveness check.
const SILENCE: Duration = Duration::from_secs(60);
/// Time for which a node that died stays away.
const AWAY: Duration = Duration::from_secs(60);

impl World {
    /// Clears the join time of nodes that lost all members of an overlay, so that the next join is
    /// measured.
    pub(crate) fn forget_joined(&mut self) {
        for node in self.ids() {
            if let Some(state) = self.node(node) {
                state.joined = None;
            }
            self.miss(node);
            let now = self.now;
            if let Some(state) = self.node(node).filter(|node| node.unmet.is_empty()) {
                state.joined = Some(now);
            }
        }
    }

    /// Disconnects a share of the nodes silently, or reconnects all.
    pub(crate) fn partition(&mut self, out_of_a_hundred: u32) {
        for node in &mut self.nodes {
            node.side = u32::from(self.rng.random_range(0..100) < out_of_a_hundred);
        }
        for node in self.ids() {
            self.cut_silently(node);
        }
    }

    /// Whatever `node` was connected with, and is not any more, notices after a while.
    fn cut_silently(&mut self, node: Id) {
        let links = self.node(node).map(|node| node.links.clone());
        for other in links.into_iter().flat_map(|links| links.into_keys()) {
            if !self.is_linked(node, other) {
                self.after(SILENCE, Event::Cut { one: node, other });
            }
        }
    }

    /// A boot node dies, and forgets everything. Its system closes its connections, and with them
    /// those it relayed.
    pub(crate) fn crash(&mut self, boot: Id) {
        let mut dead = Boot::new(self.settings.server, self.rng.random());
        if let Some(before) = self.boots.get(&boot) {
            (dead.requests, dead.told) = (before.requests, before.told);
        }
        dead.up = false;
        self.boots.insert(boot, dead);
        for node in self.ids() {
            self.close(node, boot);
            let links = self.node(node).map(|node| node.links.clone());
            for (other, link) in links.into_iter().flatten() {
                if link.relayed == Some(boot) {
                    match link.direct {
                        true => self.close_relayed(node, other),
                        false => self.close(node, other),
                    }
                }
            }
        }
    }

    pub(crate) fn restart(&mut self, boot: Id) {
        if let Some(boot) = self.boots.get_mut(&boot) {
            boot.up = true;
        }
    }

    /// A share of the nodes dies.
    pub(super) fn churn(&mut self) {
        for node in self.ids() {
            if self.rng.random_range(0..100) < self.settings.churn {
                let after = Duration::from_secs(60).mul_f64(self.rng.random());
                let back = self.kill(node);
                self.after(after + AWAY, Event::Return(node, back));
            }
        }
        self.after(Duration::from_secs(60), Event::Die);
    }

    /// `node` dies without a word. Returns what it had saved.
    fn kill(&mut self, node: Id) -> Vec<CacheEntry> {
        let Some(state) = self.node(node).filter(|node| node.up) else {
            return Vec::new();
        };
        state.up = false;
        let cache = state.machine.cache();
        self.cut_silently(node);
        cache
    }

    /// `node` begins another life with what it had saved.
    pub(super) fn restart_node(&mut self, node: Id, cache: Vec<CacheEntry>) {
        let machine = self.machine(node);
        let Some(state) = self.node(node) else { return };
        let links = std::mem::take(&mut state.links);
        state.attempts.clear();
        state.machine = machine;
        state.up = true;
        state.life += 1;
        state.wake = None;
        state.unused.clear();
        state.registered = Addresses::default();
        state.listeners.clear();
        // Peers that still count it as connected learn of the restart.
        for other in links.into_keys() {
            self.close(node, other);
        }
        self.tell(node, Input::CacheLoaded(cache));
        self.after(Duration::ZERO, Event::Start(node));
    }

    /// The clocks of a share of the nodes jump ahead, as after a sleep; their links are dead.
    pub(crate) fn sleep(&mut self, out_of_a_hundred: u32, time: Duration) {
        for node in self.ids() {
            if self.rng.random_range(0..100) >= out_of_a_hundred {
                continue;
            }
            let links = match self.node(node) {
                Some(state) => {
                    state.ahead += time;
                    state.links.clone()
                }
                None => continue,
            };
            for other in links.into_keys() {
                self.close(node, other);
            }
            self.tell(node, Input::NetworkChanged);
        }
    }

    /// The clocks of a share of the nodes go back, as far as they are ahead.
    pub(crate) fn turn_clocks_back(&mut self, out_of_a_hundred: u32) {
        for node in self.ids() {
            if self.rng.random_range(0..100) < out_of_a_hundred {
                if let Some(state) = self.node(node) {
                    state.ahead = Duration::ZERO;
                }
                self.tell(node, Input::Timeout);
            }
        }
    }

    /// Nodes that are there.
    pub(crate) fn up(&self) -> usize {
        self.nodes.iter().filter(|node| node.up).count()
    }

    /// Returns the number of running nodes without a connected member in one of their overlays.
    pub(crate) fn alone(&mut self) -> usize {
        self.forget_joined();
        let alone = |node: &&super::Node| node.up && !node.unmet.is_empty();
        self.nodes.iter().filter(alone).count()
    }

    /// What is known of each node, for a comparison of two runs.
    pub(crate) fn joins(&self) -> Vec<Option<Duration>> {
        debug_assert!(FIRST_NODE > self.settings.boot_nodes);
        self.nodes.iter().map(|node| node.joined).collect()
    }
}
