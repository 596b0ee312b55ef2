//! Metrics of blobs: transfers and the store.

use std::sync::{Arc, OnceLock, Weak};

use calimero_network_blob::{
    fetch::{FetchError, Fetched, FetchedBatch, ProviderError, ProviderFailure},
    serve::{ServeError, Totals},
    store::BlobStore,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{
        counter::Counter,
        gauge::{ConstGauge, Gauge},
    },
    registry::Unit,
};

use super::{Counters, Registries, counter, counters, gauge, set};
use crate::error::FetchBlobError;

const FETCH_OUTCOMES: [&str; 7] = [
    "ok",
    "no_provider",
    "too_large",
    "store",
    "stopped",
    "cancelled",
    "other",
];

const PROVIDER_CAUSES: [&str; 10] = [
    "unreachable",
    "relayed",
    "not_found",
    "busy",
    "failed",
    "slow",
    "no_space",
    "closed",
    "invalid",
    "other",
];

const SERVE_CAUSES: [&str; 8] = [
    "timed_out",
    "closed",
    "invalid",
    "not_authorized",
    "busy",
    "store",
    "authorizer",
    "other",
];

/// Counts of transfers. The tasks that fetch and serve count in clones of it.
#[derive(Clone, Debug)]
pub(crate) struct Transfers {
    fetches: Counters<1>,
    fetching: Gauge,
    provider_failures: Counters<1>,
    serve_failures: Counters<1>,
    received_bytes: Counter,
}

pub(super) struct Blobs {
    pub(super) transfers: Transfers,
    requests: Counter,
    refused: Counter,
    sent_bytes: Counter,
    /// Set once if the node has a store.
    store: Arc<OnceLock<Weak<dyn BlobStore>>>,
    served: Option<Totals>,
}

impl std::fmt::Debug for Blobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blobs").finish_non_exhaustive()
    }
}

impl Blobs {
    pub(super) fn new(registry: &mut Registries<'_>) -> Self {
        let (received_bytes, sent_bytes) = (Counter::default(), Counter::default());
        registry.register_with_unit(
            "blob_received",
            "Content and hashes of blobs that were fetched, those included that did not verify",
            Unit::Bytes,
            received_bytes.clone(),
        );
        registry.register_with_unit(
            "blob_sent",
            "Content of blobs that was sent to peers",
            Unit::Bytes,
            sent_bytes.clone(),
        );
        let store = Arc::new(OnceLock::new());
        registry.collect(StoreUsage(Arc::clone(&store)));
        Self {
            transfers: Transfers {
                fetches: counters(
                    registry,
                    "blob_fetches",
                    "Fetches of blobs that ended, by outcome",
                    FETCH_OUTCOMES.map(|outcome| [("outcome", outcome)]),
                ),
                fetching: gauge(
                    registry,
                    "blob_fetches_active",
                    "Fetches of blobs in progress",
                ),
                provider_failures: counters(
                    registry,
                    "blob_provider_failures",
                    "Providers of which a fetch took nothing more, by cause",
                    PROVIDER_CAUSES.map(|cause| [("cause", cause)]),
                ),
                serve_failures: counters(
                    registry,
                    "blob_serve_failures",
                    "Streams on which blobs were served and that failed, by cause",
                    SERVE_CAUSES.map(|cause| [("cause", cause)]),
                ),
                received_bytes,
            },
            requests: counter(
                registry,
                "blob_requests_served",
                "Requests of peers for blobs that were answered, refusals included",
            ),
            refused: counter(
                registry,
                "blob_requests_refused",
                "Requests of peers for blobs that were refused",
            ),
            sent_bytes,
            store,
            served: None,
        }
    }

    /// Reports a store from now on.
    pub(super) fn set_store(&mut self, store: &Arc<dyn BlobStore>, served: Totals) {
        let _ = self.store.set(Arc::downgrade(store));
        self.served = Some(served);
    }

    pub(super) fn refresh(&self) {
        let served = self.served.as_ref().map(Totals::read).unwrap_or_default();
        set(&self.requests, served.requests);
        set(&self.refused, served.refused);
        set(&self.sent_bytes, served.sent_bytes);
    }
}

impl Transfers {
    /// Counts a fetch from here to the call of [`Fetching::ended`], or to its cancellation.
    pub(crate) fn begin(&self) -> Fetching {
        self.fetching.inc();
        Fetching {
            transfers: self.clone(),
            received_bytes: 0,
            has_ended: false,
        }
    }

    /// Counts the result of many fetches.
    pub(crate) fn batch_ended(&self, batch: &FetchedBatch) {
        let ok = self.fetches.get_or_create(&[("outcome", "ok")]);
        ok.inc_by(batch.fetched.len() as u64);
        self.received_bytes.inc_by(batch.received_bytes);
        drop(ok);
        for (_, error) in &batch.failed {
            self.failed(&error.clone().into());
        }
    }

    pub(crate) fn serve_failed(&self, error: &ServeError) {
        let cause = serve_cause(error);
        self.serve_failures.get_or_create(&[("cause", cause)]).inc();
    }

    fn failed(&self, error: &FetchBlobError) {
        let outcome = match error {
            FetchBlobError::Stopped(_) => "stopped",
            FetchBlobError::Fetch(FetchError::NoProviders { failures, .. }) => {
                self.providers_failed(failures);
                "no_provider"
            }
            FetchBlobError::Fetch(FetchError::TooLarge { .. }) => "too_large",
            FetchBlobError::Fetch(FetchError::Store(_)) => "store",
            FetchBlobError::Fetch(_) => "other",
        };
        self.fetches.get_or_create(&[("outcome", outcome)]).inc();
    }

    fn providers_failed(&self, failures: &[ProviderFailure]) {
        for failure in failures {
            let labels = [("cause", provider_cause(&failure.reason))];
            self.provider_failures.get_or_create(&labels).inc();
        }
    }
}

/// A fetch in progress.
#[derive(Debug)]
pub(crate) struct Fetching {
    transfers: Transfers,
    received_bytes: u64,
    has_ended: bool,
}

impl Fetching {
    /// `bytes` were received since the fetch began.
    pub(crate) fn received(&mut self, bytes: u64) {
        let new = bytes.saturating_sub(self.received_bytes);
        self.received_bytes += new;
        self.transfers.received_bytes.inc_by(new);
    }

    pub(crate) fn ended(mut self, outcome: Result<&Fetched, &FetchBlobError>) {
        self.has_ended = true;
        match outcome {
            Ok(fetched) => {
                self.received(fetched.received_bytes);
                self.transfers.providers_failed(&fetched.failures);
                let ok = [("outcome", "ok")];
                self.transfers.fetches.get_or_create(&ok).inc();
            }
            Err(error) => self.transfers.failed(error),
        }
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.transfers.fetching.dec();
        if !self.has_ended {
            let cancelled = [("outcome", "cancelled")];
            self.transfers.fetches.get_or_create(&cancelled).inc();
        }
    }
}

fn provider_cause(error: &ProviderError) -> &'static str {
    match error {
        ProviderError::Open { .. } | ProviderError::OpenTimeout { .. } => "unreachable",
        ProviderError::Relayed { .. } => "relayed",
        ProviderError::NotFound => "not_found",
        ProviderError::Busy { .. } => "busy",
        ProviderError::Failed => "failed",
        ProviderError::Stalled { .. } | ProviderError::TooSlow { .. } => "slow",
        ProviderError::NoSpace { .. } => "no_space",
        ProviderError::Closed { .. } | ProviderError::Io { .. } => "closed",
        ProviderError::Frame { .. }
        | ProviderError::Message(_)
        | ProviderError::Unexpected
        | ProviderError::List(_)
        | ProviderError::Chunk(_)
        | ProviderError::Content { .. }
        | ProviderError::Handshake(_)
        | ProviderError::ChunkFrame(_)
        | ProviderError::TooLarge { .. }
        | ProviderError::More { .. }
        | ProviderError::Fewer { .. } => "invalid",
        _ => "other",
    }
}

fn serve_cause(error: &ServeError) -> &'static str {
    match error {
        ServeError::NoRequest { .. } | ServeError::Slow { .. } => "timed_out",
        ServeError::Closed | ServeError::Io(_) => "closed",
        ServeError::Frame(_)
        | ServeError::Message(_)
        | ServeError::Greeting
        | ServeError::Handshake(_) => "invalid",
        ServeError::Auth(_) => "not_authorized",
        ServeError::Busy { .. } | ServeError::Refused(_) => "busy",
        ServeError::Store(_) | ServeError::Chunk(_) => "store",
        ServeError::Callback(_) => "authorizer",
        _ => "other",
    }
}

/// Reads how much the store holds when metrics are encoded. Without a store, or with one that does
/// not report it, all values are 0.
#[derive(Clone)]
struct StoreUsage(Arc<OnceLock<Weak<dyn BlobStore>>>);

impl std::fmt::Debug for StoreUsage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreUsage").finish_non_exhaustive()
    }
}

impl Collector for StoreUsage {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let store = self.0.get().and_then(Weak::upgrade);
        let usage = store.and_then(|store| store.usage());
        let (mut blobs, mut used, mut limit) = (0, 0, 0);
        if let Some(usage) = usage {
            blobs = usage.blobs as u64;
            used = usage.used_bytes + usage.partial_bytes + usage.reserved_bytes;
            limit = usage.limit_bytes;
        }
        for (name, help, unit, value) in [
            (
                "blob_store_blobs",
                "Complete blobs in the store.",
                None,
                blobs,
            ),
            (
                "blob_store_used",
                "Bytes that the store holds, partial downloads included.",
                Some(Unit::Bytes),
                used,
            ),
            (
                "blob_store_limit",
                "Most bytes that the store may hold, 0 without a store.",
                Some(Unit::Bytes),
                limit,
            ),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let encoder =
                encoder.encode_descriptor(name, help, unit.as_ref(), gauge.metric_type())?;
            gauge.encode(encoder)?;
        }
        Ok(())
    }
}
