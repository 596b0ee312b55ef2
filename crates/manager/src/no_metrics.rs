//! The place of metrics in a build without the feature `metrics`: nothing is counted.

#[cfg(feature = "blobs")]
use calimero_network_blob::{
    fetch::{Fetched, FetchedBatch},
    serve::ServeError,
};
use libp2p::swarm::{DialError, SwarmEvent};

use crate::behaviour::BehaviourEvent;
#[cfg(feature = "blobs")]
use crate::error::FetchBlobError;

/// Replaces the metrics of the manager.
#[derive(Debug, Default)]
pub(crate) struct Metrics;

impl Metrics {
    pub(crate) fn record(&mut self, _: &SwarmEvent<BehaviourEvent>) {}

    pub(crate) fn dial_failed(&mut self, _: &DialError) {}

    #[cfg(feature = "blobs")]
    pub(crate) fn transfers(&self) -> Transfers {
        Transfers
    }
}

/// Replaces the counts of blob transfers.
#[cfg(feature = "blobs")]
#[derive(Clone, Debug)]
pub(crate) struct Transfers;

#[cfg(feature = "blobs")]
impl Transfers {
    pub(crate) fn begin(&self) -> Self {
        Self
    }

    pub(crate) fn batch_ended(&self, _: &FetchedBatch) {}

    pub(crate) fn serve_failed(&self, _: &ServeError) {}

    pub(crate) fn received(&mut self, _: u64) {}

    pub(crate) fn ended(self, _: Result<&Fetched, &FetchBlobError>) {}
}
