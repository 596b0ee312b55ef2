//! The place of metrics in a build without the feature `metrics`: nothing is counted.

use libp2p::swarm::{DialError, SwarmEvent};

use crate::behaviour::BehaviourEvent;

/// Replaces the metrics of the manager.
#[derive(Debug, Default)]
pub(crate) struct Metrics;

impl Metrics {
    pub(crate) fn record(&mut self, _: &SwarmEvent<BehaviourEvent>) {}

    pub(crate) fn dial_failed(&mut self, _: &DialError) {}

    pub(crate) fn stream_opened(&mut self) {}
}
