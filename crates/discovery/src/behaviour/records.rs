//! Kademlia records and providers. A validator checks each one that is stored or found.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
    time::Duration,
};

use calimero_network_primitives::{
    PeerId, config::RecordsTuning, limits::MAX_PROVIDER_RECORD_BYTES,
};
use libp2p_kad::{
    self as kad, ProviderRecord, QueryId, Record, RecordKey, store::MemoryStoreConfig,
};

use super::{
    error::RecordRefused,
    event::{Event, QueryOutcome},
    store::Store,
};
use crate::machine::ROUTING_REFRESH_INTERVAL;

/// Limit of records that are stored, own ones included: 16,384, which are 4 MiB of values.
pub const MAX_RECORDS: usize = 16_384;

/// Limit of records that one query reports, more than a caller needs.
pub const MAX_RECORDS_PER_QUERY: usize = 64;

/// Limit of keys with providers that are stored for other peers: 4,096, which with
/// [`MAX_PROVIDERS_PER_KEY`] providers each are some tens of MiB. As many keys more are for this
/// node.
pub const MAX_PROVIDED_KEYS: usize = 4_096;

/// Providers stored for one key: 32. The first ones stay, so a flood displaces none of them.
pub const MAX_PROVIDERS_PER_KEY: usize = 32;

/// Limits of the addresses that are stored for one provider: their number, and their length in
/// bytes.
const MAX_PROVIDER_ADDRESSES: usize = 4;
const MAX_PROVIDER_ADDRESS_BYTES: usize = 256;

/// Limit of concurrent queries.
pub const MAX_QUERIES: usize = 256;

/// Limit of providers that one query reports: those of the twenty peers that are asked (Kademlia's
/// `k`).
pub const MAX_PROVIDERS_PER_QUERY: usize = 20 * MAX_PROVIDERS_PER_KEY;

/// Lifetime of a record that is not published again, by default (`discovery.records.ttl_ms`).
pub const RECORD_TTL: Duration = Duration::from_secs(12 * 3600);

/// Number of peers that a record is stored at.
const REPLICATION: NonZeroUsize = NonZeroUsize::new(10).unwrap();

/// Time for one query to all of its peers.
const QUERY_TIMEOUT: Duration = Duration::from_secs(60);

/// Decides which records are stored, and which of the found ones are reported.
///
/// It is called for every record that a peer sends. A closure of this form implements it. A peer
/// whose record is refused gets an acknowledgement all the same, because libp2p-kad 0.49
/// acknowledges records before it filters them.
pub trait RecordValidator: Send + 'static {
    /// Checks whether `record` is genuine, for example signed for its key by the peer that it
    /// names.
    ///
    /// # Errors
    ///
    /// [`RecordRefused`] with the reason.
    fn validate(&self, record: &Record) -> Result<(), RecordRefused>;

    /// Checks whether a peer may be stored as a provider of `key` that it announced itself. The
    /// default refuses every provider.
    ///
    /// # Errors
    ///
    /// [`RecordRefused`] with the reason.
    fn validate_provider(&self, key: &RecordKey, provider: &PeerId) -> Result<(), RecordRefused> {
        let _ = (key, provider);
        Err(RecordRefused {
            reason: "this node takes no providers",
        })
    }
}

impl<F> RecordValidator for F
where
    F: Fn(&Record) -> Result<(), RecordRefused> + Send + 'static,
{
    fn validate(&self, record: &Record) -> Result<(), RecordRefused> {
        self(record)
    }
}

/// A validator that refuses every record, for a node that uses Kademlia only to find peers.
#[derive(Clone, Copy, Debug, Default)]
pub struct RefuseRecords;

impl RecordValidator for RefuseRecords {
    fn validate(&self, _: &Record) -> Result<(), RecordRefused> {
        Err(RecordRefused {
            reason: "this node takes no records",
        })
    }
}

pub(super) fn configure(config: &mut kad::Config, records: &RecordsTuning) {
    config
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_record_ttl(Some(records.ttl))
        .set_publication_interval(Some(records.publication_interval))
        .set_replication_interval(Some(records.replication_interval))
        .set_replication_factor(REPLICATION)
        .set_provider_record_ttl(Some(records.ttl))
        .set_provider_publication_interval(Some(records.publication_interval))
        .set_caching(kad::Caching::Disabled)
        .set_query_timeout(QUERY_TIMEOUT)
        .set_periodic_bootstrap_interval(Some(ROUTING_REFRESH_INTERVAL));
}

pub(super) fn new_store(local: PeerId) -> Store {
    let config = MemoryStoreConfig {
        max_records: MAX_RECORDS,
        // The store refuses values whose length is equal to its limit.
        max_value_bytes: MAX_PROVIDER_RECORD_BYTES + 1,
        max_providers_per_key: MAX_PROVIDERS_PER_KEY,
        max_provided_keys: MAX_PROVIDED_KEYS,
    };
    Store::new(local, config)
}

/// Limits the addresses of a provider, which the provider itself reported.
pub(super) fn trim(provider: &mut ProviderRecord) {
    let addresses = &mut provider.addresses;
    addresses.retain(|address| address.len() <= MAX_PROVIDER_ADDRESS_BYTES);
    addresses.truncate(MAX_PROVIDER_ADDRESSES);
    addresses.shrink_to_fit();
}

#[derive(Debug)]
enum Query {
    Put,
    Get { told: usize },
    Provide,
    Providers { told: HashSet<PeerId> },
}

/// The queries of the application.
#[derive(Debug, Default)]
pub(super) struct Queries {
    running: HashMap<QueryId, Query>,
}

/// The result of a step of a query.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) events: Vec<Event>,
    /// Whether the query reached its limit of results and ends now.
    pub(super) finish: bool,
}

impl Queries {
    pub(super) fn is_full(&self) -> bool {
        self.running.len() >= MAX_QUERIES
    }

    pub(super) fn put(&mut self, id: QueryId) {
        self.running.insert(id, Query::Put);
    }

    pub(super) fn get(&mut self, id: QueryId) {
        self.running.insert(id, Query::Get { told: 0 });
    }

    pub(super) fn provide(&mut self, id: QueryId) {
        self.running.insert(id, Query::Provide);
    }

    pub(super) fn providers(&mut self, id: QueryId) {
        self.running.insert(
            id,
            Query::Providers {
                told: HashSet::new(),
            },
        );
    }

    pub(super) fn knows(&self, id: &QueryId) -> bool {
        self.running.contains_key(id)
    }

    /// Handles a step of a query. Queries that Kademlia begins on its own report nothing.
    pub(super) fn progressed(
        &mut self,
        id: QueryId,
        result: kad::QueryResult,
        last: bool,
        valid: impl Fn(&Record) -> bool,
    ) -> Step {
        let mut step = Step {
            events: Vec::new(),
            finish: false,
        };
        let Some(query) = self.running.get_mut(&id) else {
            return step;
        };
        let outcome = match (result, query) {
            (kad::QueryResult::GetRecord(result), Query::Get { told }) => {
                found(id, result, told, valid, &mut step)
            }
            (kad::QueryResult::PutRecord(result), Query::Put) => stored(result),
            (kad::QueryResult::GetProviders(result), Query::Providers { told }) => {
                provided(id, result, told, &mut step)
            }
            (kad::QueryResult::StartProviding(Err(_)), Query::Provide) => {
                Some(QueryOutcome::TimedOut { progress: 0 })
            }
            _ => None,
        };
        if last {
            let ended = self.running.remove(&id);
            let outcome = outcome.unwrap_or(match ended {
                Some(Query::Get { told }) => QueryOutcome::Found { records: told },
                Some(Query::Providers { told }) => QueryOutcome::Found {
                    records: told.len(),
                },
                _ => QueryOutcome::Stored,
            });
            step.events.push(Event::QueryEnded { query: id, outcome });
        }
        step
    }
}

fn found(
    query: QueryId,
    result: kad::GetRecordResult,
    told: &mut usize,
    valid: impl Fn(&Record) -> bool,
    step: &mut Step,
) -> Option<QueryOutcome> {
    match result {
        Ok(kad::GetRecordOk::FoundRecord(kad::PeerRecord { peer, record })) => {
            if *told < MAX_RECORDS_PER_QUERY && valid(&record) {
                *told += 1;
                step.events.push(Event::RecordsFound {
                    query,
                    holder: peer,
                    records: vec![record],
                });
            }
            step.finish = *told >= MAX_RECORDS_PER_QUERY;
            None
        }
        Err(kad::GetRecordError::Timeout { .. }) => {
            Some(QueryOutcome::TimedOut { progress: *told })
        }
        Ok(kad::GetRecordOk::FinishedWithNoAdditionalRecord { .. })
        | Err(kad::GetRecordError::NotFound { .. }) => None,
    }
}

fn provided(
    query: QueryId,
    result: kad::GetProvidersResult,
    told: &mut HashSet<PeerId>,
    step: &mut Step,
) -> Option<QueryOutcome> {
    match result {
        Ok(kad::GetProvidersOk::FoundProviders { providers, .. }) => {
            // Several answers may name the same providers. An answer that names more than a node
            // can store does not displace those of others.
            let room = MAX_PROVIDERS_PER_QUERY.saturating_sub(told.len());
            let mut providers: Vec<_> = providers.into_iter().collect();
            providers.retain(|provider| !told.contains(provider));
            providers.truncate(room.min(MAX_PROVIDERS_PER_KEY));
            told.extend(&providers);
            step.finish = told.len() >= MAX_PROVIDERS_PER_QUERY;
            if !providers.is_empty() {
                step.events.push(Event::ProvidersFound { query, providers });
            }
            None
        }
        Ok(kad::GetProvidersOk::FinishedWithNoAdditionalRecord { .. }) => None,
        Err(kad::GetProvidersError::Timeout { .. }) => Some(QueryOutcome::TimedOut {
            progress: told.len(),
        }),
    }
}

fn stored(result: kad::PutRecordResult) -> Option<QueryOutcome> {
    Some(match result {
        Ok(_) => QueryOutcome::Stored,
        Err(kad::PutRecordError::QuorumFailed {
            success, quorum, ..
        }) => QueryOutcome::NotStored {
            stored_by: success,
            quorum: quorum.get(),
        },
        Err(kad::PutRecordError::Timeout { success, .. }) => QueryOutcome::TimedOut {
            progress: success.len(),
        },
    })
}
