//! Providers of blobs in the DHT: announced, renewed, withdrawn, found.
//!
//! A provider puts its signed record under the key of the blob, where one record of each storing
//! peer is kept, whoever's it is; and it has itself held as a provider of the same key, where
//! every provider has a place of its own. Whoever looks asks for both.

use std::{collections::HashMap, time::Duration};

use calimero_network_blob::{
    serve::Requested,
    wire::{ProviderRecord, RecordKey, UnsignedRecord},
};
use calimero_network_discovery::behaviour::{
    Event, MAX_QUERIES, QueryId, QueryOutcome, Quorum, Record, RecordKey as Key,
};
use calimero_network_primitives::{Keypair, PeerId};
use tokio::{sync::mpsc, time::Instant};

use super::Actor;
use crate::{
    blobs::{BlobReport, ProviderRecords},
    command::{BlobCommand, Reply},
    error::{AnnounceBlobError, QueryBlobError},
    event::NetworkEvent,
    status::BlobProvider,
};

/// Pause before an announcement that nobody stored is tried again, doubled with each try: a node
/// that has just started soon knows somebody.
const RETRY_FIRST: Duration = Duration::from_secs(5);

/// Longest such pause.
const RETRY_MAX: Duration = Duration::from_secs(300);

type AnnounceReply = Reply<Result<(), AnnounceBlobError>>;

/// A blob that this node says it has.
struct Announced {
    size_bytes: u64,
    /// Pause before the next try, where the last one found nobody.
    retry: Option<(Instant, Duration)>,
    /// Who waits for the end of the first try.
    waiting: Vec<AnnounceReply>,
}

/// What a query is for.
enum Query {
    Put(RecordKey),
    /// Its end means nothing: the record that is put beside it tells whether anybody listens.
    Provide,
    Find(mpsc::Sender<BlobProvider>),
}

/// Announcements and lookups.
pub(super) struct Announcements {
    identity: Keypair,
    records: ProviderRecords,
    announced: HashMap<RecordKey, Announced>,
    queries: HashMap<QueryId, Query>,
}

impl Announcements {
    pub(super) fn new(identity: Keypair, unsigned: bool) -> Self {
        Self {
            identity,
            records: ProviderRecords { unsigned },
            announced: HashMap::new(),
            queries: HashMap::new(),
        }
    }

    /// Returns when an announcement should be tried again.
    pub(super) async fn retry(&self) {
        let due = self.announced.values().filter_map(|one| one.retry);
        match due.map(|(at, _)| at).min() {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    fn value(&self, key: &RecordKey, size_bytes: u64) -> Result<Vec<u8>, AnnounceBlobError> {
        let value = if self.records.unsigned {
            let provider = self.identity.public().to_peer_id();
            let record = UnsignedRecord {
                provider,
                size_bytes,
            };
            record.encode()
        } else {
            ProviderRecord::sign(&self.identity, key, size_bytes)
        };
        Ok(value?.to_vec())
    }
}

impl Actor {
    pub(super) fn on_blob_command(&mut self, command: BlobCommand) {
        match command {
            BlobCommand::Announce {
                key,
                size_bytes,
                reply,
            } => self.announce(key, size_bytes, reply),
            BlobCommand::Withdraw { key, reply } => {
                let discovery = &mut self.swarm.behaviour_mut().discovery;
                let name = Key::from(key.to_bytes().to_vec());
                discovery.remove_record(&name);
                discovery.stop_providing(&name);
                let known = self.announcements.announced.remove(&key).is_some();
                let _ = reply.send(known);
            }
            BlobCommand::Query { key, found, reply } => {
                let _ = reply.send(self.find(key, found));
            }
        }
    }

    pub(super) fn on_requested(&mut self, requested: Requested) {
        self.events.send(NetworkEvent::BlobRequested {
            peer: requested.peer,
            context_id: requested.context_id,
            blob_id: requested.blob_id,
            given: requested.given,
            count: 1,
        });
    }

    pub(super) fn on_blob_report(&mut self, report: BlobReport) {
        let event = match report {
            BlobReport::Found {
                context_id,
                blob_id,
                providers,
            } => NetworkEvent::BlobProvidersFound {
                context_id,
                blob_id,
                providers,
            },
            BlobReport::Progress {
                context_id,
                blob_id,
                progress,
            } => NetworkEvent::BlobProgress {
                context_id,
                blob_id,
                progress,
            },
            BlobReport::Ended {
                context_id,
                blob_id,
                outcome: Ok(size_bytes),
            } => NetworkEvent::BlobDownloaded {
                context_id,
                blob_id,
                size_bytes,
            },
            BlobReport::Ended {
                context_id,
                blob_id,
                outcome: Err(error),
            } => NetworkEvent::BlobDownloadFailed {
                context_id,
                blob_id,
                error,
            },
        };
        self.events.send(event);
    }

    fn announce(&mut self, key: RecordKey, size_bytes: u64, reply: AnnounceReply) {
        let limit = self.config.blob.max_announced;
        let announcements = &mut self.announcements;
        let known = announcements.announced.contains_key(&key);
        if !known && announcements.announced.len() >= limit {
            let _ = reply.send(Err(AnnounceBlobError::TooMany { limit }));
            return;
        }
        let announced = (announcements.announced.entry(key)).or_insert_with(|| Announced {
            size_bytes,
            retry: None,
            waiting: Vec::new(),
        });
        announced.size_bytes = size_bytes;
        announced.waiting.push(reply);
        self.put(key);
    }

    /// Tells the DHT of one blob. Where that cannot even begin, it is tried later.
    fn put(&mut self, key: RecordKey) {
        let Some(announced) = self.announcements.announced.get(&key) else {
            return;
        };
        let value = match self.announcements.value(&key, announced.size_bytes) {
            Ok(value) => value,
            Err(error) => {
                // It will fail as often as it is tried.
                if let Some(announced) = self.announcements.announced.remove(&key) {
                    answer(announced.waiting, &Err(error));
                }
                return;
            }
        };
        let discovery = &mut self.swarm.behaviour_mut().discovery;
        let name = Key::from(key.to_bytes().to_vec());
        if self.config.blob.dht_providers
            && let Ok(query) = discovery.provide(name.clone())
        {
            self.announcements.queries.insert(query, Query::Provide);
        }
        match discovery.put_record(name, value, None, Quorum::One) {
            Ok(query) => {
                self.announcements.queries.insert(query, Query::Put(key));
                if let Some(announced) = self.announcements.announced.get_mut(&key) {
                    announced.retry = None;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a provider record is not put");
                self.stored(key, Err(AnnounceBlobError::NotStored));
            }
        }
    }

    /// A try to announce has ended.
    fn stored(&mut self, key: RecordKey, outcome: Result<(), AnnounceBlobError>) {
        let Some(announced) = self.announcements.announced.get_mut(&key) else {
            return;
        };
        announced.retry = outcome.is_err().then(|| {
            let pause = announced.retry.map_or(RETRY_FIRST, |(_, pause)| {
                pause.saturating_mul(2).min(RETRY_MAX)
            });
            (Instant::now() + pause, pause)
        });
        answer(std::mem::take(&mut announced.waiting), &outcome);
    }

    /// Tries announcements again that nobody stored.
    pub(super) fn announce_again(&mut self) {
        let now = Instant::now();
        let due = (self.announcements.announced.iter_mut())
            .filter(|(_, one)| one.retry.is_some_and(|(at, _)| at <= now));
        let due: Vec<_> = due
            .map(|(key, one)| {
                // Until the try has ended: a lost one does not come round at once.
                one.retry = one.retry.map(|(_, pause)| (now + RETRY_MAX, pause));
                *key
            })
            .collect();
        for key in due {
            let pause = (self.announcements.announced.get(&key)).and_then(|one| one.retry);
            self.put(key);
            if let Some(one) = self.announcements.announced.get_mut(&key)
                && one.retry.is_none()
            {
                one.retry = pause;
            }
        }
    }

    fn find(
        &mut self,
        key: RecordKey,
        found: mpsc::Sender<BlobProvider>,
    ) -> Result<(), QueryBlobError> {
        let discovery = &mut self.swarm.behaviour_mut().discovery;
        let name = Key::from(key.to_bytes().to_vec());
        let records = discovery.get_records(name.clone());
        // One of them is better than none.
        let providers = (self.config.blob.dht_providers).then(|| discovery.get_providers(name));
        let providers = providers.and_then(Result::ok);
        if records.is_err() && providers.is_none() {
            return Err(QueryBlobError::Busy { limit: MAX_QUERIES });
        }
        for query in records.iter().chain(&providers) {
            let find = Query::Find(found.clone());
            self.announcements.queries.insert(*query, find);
        }
        Ok(())
    }

    /// What discovery says of queries.
    pub(super) fn on_query(&mut self, event: Event) {
        match event {
            Event::RecordsFound { query, records, .. } => self.records_found(query, &records),
            Event::ProvidersFound { query, providers } => {
                let found = providers.into_iter().map(|peer| BlobProvider {
                    peer,
                    size_bytes: None,
                });
                self.providers_found(query, found.collect());
            }
            Event::QueryEnded { query, outcome } => self.query_ended(query, &outcome),
            _ => {}
        }
    }

    fn records_found(&mut self, query: QueryId, records: &[Record]) {
        let read = |record| self.announcements.records.read(record);
        let found = records
            .iter()
            .filter_map(read)
            .map(|(peer, size_bytes)| BlobProvider {
                peer,
                size_bytes: Some(size_bytes),
            });
        let found = found.collect();
        self.providers_found(query, found);
    }

    fn providers_found(&mut self, query: QueryId, found: Vec<BlobProvider>) {
        let local: PeerId = *self.swarm.local_peer_id();
        let Some(Query::Find(listener)) = self.announcements.queries.get(&query) else {
            return;
        };
        for provider in found.into_iter().filter(|found| found.peer != local) {
            // The queue has room for all that one query tells.
            if let Err(mpsc::error::TrySendError::Closed(_)) = listener.try_send(provider) {
                self.swarm.behaviour_mut().discovery.stop_query(query);
                return;
            }
        }
    }

    fn query_ended(&mut self, query: QueryId, outcome: &QueryOutcome) {
        if let Some(Query::Put(key)) = self.announcements.queries.remove(&query) {
            let stored = match outcome {
                QueryOutcome::Stored => Ok(()),
                _ => Err(AnnounceBlobError::NotStored),
            };
            self.stored(key, stored);
        }
    }

    /// Who waits for an announcement waits in vain: the manager stops.
    pub(super) fn drop_announcements(&mut self) {
        for (_, announced) in self.announcements.announced.drain() {
            let stopped = AnnounceBlobError::Stopped(crate::error::Stopped);
            answer(announced.waiting, &Err(stopped));
        }
        self.announcements.queries.clear();
    }
}

fn answer(waiting: Vec<AnnounceReply>, outcome: &Result<(), AnnounceBlobError>) {
    for reply in waiting {
        let _ = reply.send(outcome.clone());
    }
}
