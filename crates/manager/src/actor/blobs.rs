//! Providers of blobs in the DHT: announced, renewed, withdrawn, found.
//!
//! A provider puts its signed record under the key of the blob, where one record of each storing
//! peer is kept, whoever's it is; and it has itself held as a provider of the same key, where
//! every provider has a place of its own. Whoever looks asks for both.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

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
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// Longest such pause.
const RETRY_MAX: Duration = Duration::from_secs(300);

/// Announcements under way at one time, of two queries each: a quarter of the queries that may
/// run, so that lookups find room whatever is announced.
const MAX_PUTS: usize = MAX_QUERIES / 8;

/// Providers told at once of what one peer answers about them: 4. Nothing proves what it says, and
/// a fetch remembers no more providers than `blob.fetch.max_providers`, 64. So a peer that makes
/// some up does not take the places of those whom others name.
const TOLD_OF_ONE_ANSWER: usize = 4;

type AnnounceReply = Reply<Result<(), AnnounceBlobError>>;

/// A blob that this node says it has.
struct Announced {
    size_bytes: u64,
    /// Its turn, where it waits for one: the key of [`Announcements::due`].
    due: Option<(Instant, u64)>,
    /// Before the next try, where the one under way finds nobody.
    pause: Duration,
    /// Who waits for the end of the next try.
    waiting: Vec<AnnounceReply>,
}

/// What a query is for.
enum Query {
    Put(RecordKey),
    /// Its end means nothing: the record that is put beside it tells whether anybody listens.
    Provide,
    Find {
        found: mpsc::Sender<BlobProvider>,
        /// What one answer names beyond [`TOLD_OF_ONE_ANSWER`], told at the end.
        later: Vec<BlobProvider>,
    },
}

/// Announcements and lookups.
pub(super) struct Announcements {
    identity: Keypair,
    records: ProviderRecords,
    announced: HashMap<RecordKey, Announced>,
    /// Those whose turn comes, by time; the number tells those of one instant apart.
    due: BTreeMap<(Instant, u64), RecordKey>,
    turns: u64,
    queries: HashMap<QueryId, Query>,
    /// How many of the queries are [`Query::Put`].
    puts: usize,
}

impl Announcements {
    pub(super) fn new(identity: Keypair, unsigned: bool) -> Self {
        Self {
            identity,
            records: ProviderRecords { unsigned },
            announced: HashMap::new(),
            due: BTreeMap::new(),
            turns: 0,
            queries: HashMap::new(),
            puts: 0,
        }
    }

    /// Returns when it is the turn of an announcement.
    pub(super) async fn turn(&self) {
        match self.due.first_key_value() {
            // The end of one that is under way makes room.
            Some(((at, _), _)) if self.puts < MAX_PUTS => tokio::time::sleep_until(*at).await,
            _ => std::future::pending().await,
        }
    }

    /// The announcement whose turn it is, if one may begin.
    fn next_due(&self, now: Instant) -> Option<RecordKey> {
        let ((at, _), key) = self.due.first_key_value()?;
        (*at <= now && self.puts < MAX_PUTS).then_some(*key)
    }

    /// Gives an announcement its turn, in place of the one it had.
    fn set_due(&mut self, key: &RecordKey, at: Option<Instant>) {
        let Some(announced) = self.announced.get_mut(key) else {
            return;
        };
        self.turns += 1;
        let turn = at.map(|at| (at, self.turns));
        if let Some(before) = std::mem::replace(&mut announced.due, turn) {
            self.due.remove(&before);
        }
        if let Some(turn) = turn {
            self.due.insert(turn, *key);
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
                self.announcements.set_due(&key, None);
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
            due: None,
            pause: RETRY_FIRST,
            waiting: Vec::new(),
        });
        announced.size_bytes = size_bytes;
        announced.waiting.push(reply);
        announcements.set_due(&key, Some(Instant::now()));
        self.announce_due();
    }

    /// Tells the DHT of blobs whose turn it is, as many at one time as may be.
    pub(super) fn announce_due(&mut self) {
        let now = Instant::now();
        while let Some(key) = self.announcements.next_due(now) {
            self.announcements.set_due(&key, None);
            self.put(key);
        }
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
                self.announcements.puts += 1;
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
        answer(std::mem::take(&mut announced.waiting), &outcome);
        let pause = announced.pause;
        match outcome {
            Ok(()) => {
                announced.pause = RETRY_FIRST;
                self.events.send(NetworkEvent::BlobAnnounced {
                    context_id: key.context_id,
                    blob_id: key.blob_id,
                });
            }
            Err(_) => {
                announced.pause = pause.saturating_mul(2).min(RETRY_MAX);
                self.announcements
                    .set_due(&key, Some(Instant::now() + pause));
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
            let find = Query::Find {
                found: found.clone(),
                later: Vec::new(),
            };
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
        let Some(Query::Find {
            found: listener,
            later,
        }) = self.announcements.queries.get_mut(&query)
        else {
            return;
        };
        let mut others = found.into_iter().filter(|found| found.peer != local);
        for provider in others.by_ref().take(TOLD_OF_ONE_ANSWER) {
            // The queue has room for all that both queries tell.
            if let Err(mpsc::error::TrySendError::Closed(_)) = listener.try_send(provider) {
                self.swarm.behaviour_mut().discovery.stop_query(query);
                return;
            }
        }
        later.extend(others);
    }

    fn query_ended(&mut self, query: QueryId, outcome: &QueryOutcome) {
        match self.announcements.queries.remove(&query) {
            Some(Query::Put(key)) => {
                self.announcements.puts -= 1;
                let stored = match outcome {
                    QueryOutcome::Stored => Ok(()),
                    _ => Err(AnnounceBlobError::NotStored),
                };
                self.stored(key, stored);
                self.announce_due();
            }
            Some(Query::Find { found, later }) => {
                for provider in later {
                    let _ = found.try_send(provider);
                }
            }
            Some(Query::Provide) | None => {}
        }
    }

    /// Who waits for an announcement waits in vain: the manager stops.
    pub(super) fn drop_announcements(&mut self) {
        for (_, announced) in self.announcements.announced.drain() {
            let stopped = AnnounceBlobError::Stopped(crate::error::Stopped);
            answer(announced.waiting, &Err(stopped));
        }
        self.announcements.due.clear();
        self.announcements.queries.clear();
    }
}

fn answer(waiting: Vec<AnnounceReply>, outcome: &Result<(), AnnounceBlobError>) {
    for reply in waiting {
        let _ = reply.send(outcome.clone());
    }
}
