//! What a server has served since it was made.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::Served;

/// The sums of [`Served`] over all streams of a server, those included that failed. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Totals(Arc<Sums>);

#[derive(Debug, Default)]
struct Sums {
    requests: AtomicU64,
    refused: AtomicU64,
    sent_bytes: AtomicU64,
}

impl Totals {
    /// Returns the sums so far.
    #[must_use]
    pub fn read(&self) -> Served {
        Served {
            requests: self.0.requests.load(Relaxed),
            refused: self.0.refused.load(Relaxed),
            sent_bytes: self.0.sent_bytes.load(Relaxed),
        }
    }
}

/// The counts of one stream. Each change is added to the totals of the server at once.
#[derive(Debug)]
pub(super) struct Tally {
    served: Served,
    totals: Totals,
}

impl Tally {
    pub(super) fn new(totals: &Totals) -> Self {
        Self {
            served: Served::default(),
            totals: totals.clone(),
        }
    }

    pub(super) fn requests(&mut self, count: usize) {
        self.served.requests += count as u64;
        self.totals.0.requests.fetch_add(count as u64, Relaxed);
    }

    pub(super) fn refused(&mut self) {
        self.served.refused += 1;
        self.totals.0.refused.fetch_add(1, Relaxed);
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.served.sent_bytes += bytes as u64;
        self.totals.0.sent_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn served(&self) -> Served {
        self.served
    }
}
