//! Providers of blobs in the DHT: announced, withdrawn, found.
//!
//! A provider publishes its signed record under the key of the blob, where a storing peer keeps one
//! record of all providers, and registers as a provider of the same key, where every provider has an
//! entry of its own. A lookup asks for both.

use std::{collections::HashMap, time::Instant};

use calimero_network_blob::{
    announce::{Announcements, TooManyAnnounced},
    record::{ProviderRecord, RecordKey, UnsignedRecord},
    serve::ServeEvent,
};
use calimero_network_discovery::behaviour::{
    Event, MAX_QUERIES, QueryId, QueryOutcome, Quorum, Record, RecordKey as Key,
};
use calimero_network_primitives::{
    Keypair, PeerId, config::BlobConfig, limits::MAX_ANNOUNCED_BLOBS,
};
use tokio::sync::mpsc;

use super::{Actor, sleep_until};
use crate::{
    blobs::Queues,
    command::{BlobCommand, Reply},
    error::{AnnounceBlobError, QueryBlobError, Stopped},
    event::BlobEvent,
    records::ProviderRecords,
    status::BlobProvider,
};

/// Announcements published at one time, by two queries each: a quarter of all queries, so that
/// lookups find permits however many blobs are announced.
const MAX_IN_FLIGHT: usize = MAX_QUERIES / 8;

/// Providers taken at once from the answer of one peer: 4. Nothing proves the answer, and a fetch
/// takes at most 64; the rest of the answer follows at the end of the
/// search, so that a peer that invents providers does not displace those that others name.
const TAKEN_OF_ONE_ANSWER: usize = 4;

type AnnounceReply = Reply<Result<(), AnnounceBlobError>>;

/// The purpose of a query in the DHT.
enum Query {
    Publish {
        key: RecordKey,
        /// The record that is published next.
        next: Option<Vec<u8>>,
        /// Whether an earlier record of this try was stored.
        stored: bool,
    },
    /// Its end is not used: the record that is published with it shows whether peers store it.
    Provide,
    Find {
        found: mpsc::Sender<BlobProvider>,
        /// Providers beyond [`TAKEN_OF_ONE_ANSWER`] of an answer, sent at the end.
        later: Vec<BlobProvider>,
    },
}

/// Announcements and lookups of blobs, and the queues of transfers.
pub(super) struct Blobs {
    queues: Queues,
    identity: Keypair,
    records: ProviderRecords,
    announcements: Announcements<AnnounceReply>,
    queries: HashMap<QueryId, Query>,
}

/// An input of the actor that concerns blobs.
pub(super) enum Input {
    /// An announcement is due.
    AnnouncementDue,
    /// The server of blobs reports a request.
    Served(ServeEvent),
    /// A transfer of this node reports an event.
    Report(BlobEvent),
}

impl Blobs {
    pub(super) fn new(identity: Keypair, queues: Queues, config: &BlobConfig) -> Self {
        Self {
            queues,
            identity,
            records: ProviderRecords {
                unsigned: config.unsigned_records,
            },
            announcements: Announcements::new(MAX_ANNOUNCED_BLOBS, MAX_IN_FLIGHT),
            queries: HashMap::new(),
        }
    }

    /// The next input. Cancel safe.
    pub(super) async fn next(&mut self) -> Input {
        tokio::select! {
            () = sleep_until(self.announcements.next_timeout()) => Input::AnnouncementDue,
            Some(event) = self.queues.requested.recv() => Input::Served(event),
            Some(event) = self.queues.reports.recv() => Input::Report(event),
        }
    }

    /// Returns the signed record of a blob, and the unsigned one where the configuration asks for it.
    ///
    /// Both have one key, so that a peer that takes both keeps the one it got last. The signed record
    /// is published first: peers that refuse the unsigned one keep it, and published 0.11 nodes, which
    /// take both, end with the one that they can read.
    fn values(
        &self,
        key: &RecordKey,
        size_bytes: u64,
    ) -> Result<(Vec<u8>, Option<Vec<u8>>), AnnounceBlobError> {
        let signed = ProviderRecord::sign(&self.identity, key, size_bytes)?.to_vec();
        if !self.records.unsigned {
            return Ok((signed, None));
        }
        let provider = self.identity.public().to_peer_id();
        let record = UnsignedRecord {
            provider,
            size_bytes,
        };
        Ok((signed, Some(record.encode()?.to_vec())))
    }
}

impl Actor {
    pub(super) fn on_blob_input(&mut self, input: Input) {
        match input {
            Input::AnnouncementDue => self.announce_due(),
            Input::Served(event) => self.on_served(event),
            Input::Report(event) => self.events.send(event),
        }
    }

    pub(super) fn on_blob_command(&mut self, command: BlobCommand) {
        match command {
            BlobCommand::Announce {
                key,
                size_bytes,
                reply,
            } => self.announce(key, size_bytes, reply),
            BlobCommand::Withdraw { key, reply } => {
                let _ = reply.send(self.withdraw(&key));
            }
            BlobCommand::Query { key, found, reply } => {
                let _ = reply.send(self.find(key, found));
            }
        }
    }

    fn on_served(&mut self, event: ServeEvent) {
        let requested = match event {
            ServeEvent::Requested(requested) => requested,
            // It is not offered any more. A later announcement offers it again.
            ServeEvent::Damaged { blob_id } => {
                let damaged = self.blobs.announcements.keys_of(&blob_id);
                for key in damaged {
                    self.withdraw(&key);
                }
                return;
            }
            _ => return,
        };
        self.events.send(BlobEvent::Requested {
            peer: requested.peer,
            context_id: requested.context_id,
            blob_id: requested.blob_id,
            given: requested.given,
            count: 1,
        });
    }

    /// Stops announcing a blob. `false` where it was not announced.
    fn withdraw(&mut self, key: &RecordKey) -> bool {
        let discovery = &mut self.swarm.behaviour_mut().discovery;
        let name = Key::from(key.to_bytes().to_vec());
        discovery.remove_record(&name);
        discovery.stop_providing(&name);
        let withdrawn = self.blobs.announcements.withdraw(key);
        let was_announced = withdrawn.is_some();
        answer(
            withdrawn.unwrap_or_default(),
            &Err(AnnounceBlobError::Withdrawn),
        );
        was_announced
    }

    fn announce(&mut self, key: RecordKey, size_bytes: u64, reply: AnnounceReply) {
        let announcements = &mut self.blobs.announcements;
        let announced = announcements.announce(key, size_bytes, reply, Instant::now());
        if let Err((TooManyAnnounced { limit }, reply)) = announced {
            let _ = reply.send(Err(AnnounceBlobError::TooMany { limit }));
        }
        self.announce_due();
    }

    /// Publishes the records that are due.
    fn announce_due(&mut self) {
        while let Some((key, size_bytes)) = self.blobs.announcements.next(Instant::now()) {
            self.publish_record(key, size_bytes);
        }
    }

    fn publish_record(&mut self, key: RecordKey, size_bytes: u64) {
        let (value, next) = match self.blobs.values(&key, size_bytes) {
            Ok(values) => values,
            Err(error) => {
                // A retry would fail in the same way.
                let waiters = self.blobs.announcements.withdraw(&key);
                answer(waiters.unwrap_or_default(), &Err(error));
                return self.on_published(key, false);
            }
        };
        let discovery = &mut self.swarm.behaviour_mut().discovery;
        let name = Key::from(key.to_bytes().to_vec());
        if self.config.blob.tuning.dht_providers
            && let Ok(query) = discovery.provide(name.clone())
        {
            self.blobs.queries.insert(query, Query::Provide);
        }
        self.publish_value(key, value, next, false);
    }

    /// Publishes one record of a try; `stored` is whether an earlier one was stored.
    fn publish_value(
        &mut self,
        key: RecordKey,
        value: Vec<u8>,
        next: Option<Vec<u8>>,
        stored: bool,
    ) {
        let discovery = &mut self.swarm.behaviour_mut().discovery;
        let name = Key::from(key.to_bytes().to_vec());
        match discovery.put_record(name, value, None, Quorum::One) {
            Ok(query) => {
                let purpose = Query::Publish { key, next, stored };
                self.blobs.queries.insert(query, purpose);
            }
            Err(error) => {
                tracing::debug!(%error, "cannot publish a provider record");
                self.on_published(key, stored);
            }
        }
    }

    /// A try to announce has ended.
    fn on_published(&mut self, key: RecordKey, stored: bool) {
        let announcements = &mut self.blobs.announcements;
        let now = Instant::now();
        let waiters = announcements.on_published(&key, stored, now);
        if stored && self.blobs.records.unsigned {
            // Kademlia renews the record that was published last, and no other.
            let interval = self.config.discovery.records.publication_interval;
            announcements.renew_at(&key, now + interval);
        }
        if stored && announcements.contains(&key) {
            self.events.send(BlobEvent::Announced {
                context_id: key.context_id,
                blob_id: key.blob_id,
            });
        }
        let outcome = if stored {
            Ok(())
        } else {
            Err(AnnounceBlobError::NotStored)
        };
        answer(waiters, &outcome);
    }

    fn find(
        &mut self,
        key: RecordKey,
        found: mpsc::Sender<BlobProvider>,
    ) -> Result<(), QueryBlobError> {
        let discovery = &mut self.swarm.behaviour_mut().discovery;
        let name = Key::from(key.to_bytes().to_vec());
        let records = discovery.get_records(name.clone());
        // One of the two queries is better than none.
        let providers =
            (self.config.blob.tuning.dht_providers).then(|| discovery.get_providers(name));
        let providers = providers.and_then(Result::ok);
        if records.is_err() && providers.is_none() {
            return Err(QueryBlobError::Busy { limit: MAX_QUERIES });
        }
        for query in records.iter().chain(&providers) {
            let find = Query::Find {
                found: found.clone(),
                later: Vec::new(),
            };
            self.blobs.queries.insert(*query, find);
        }
        Ok(())
    }

    /// Handles the events of queries in the DHT.
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
        let read = |record| self.blobs.records.read(record);
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
        }) = self.blobs.queries.get_mut(&query)
        else {
            return;
        };
        let mut others = found.into_iter().filter(|found| found.peer != local);
        for provider in others.by_ref().take(TAKEN_OF_ONE_ANSWER) {
            // The queue holds all providers that both queries can name.
            if let Err(mpsc::error::TrySendError::Closed(_)) = listener.try_send(provider) {
                self.swarm.behaviour_mut().discovery.stop_query(query);
                return;
            }
        }
        later.extend(others);
    }

    fn query_ended(&mut self, query: QueryId, outcome: &QueryOutcome) {
        match self.blobs.queries.remove(&query) {
            Some(Query::Publish { key, next, stored }) => {
                let stored = stored || matches!(outcome, QueryOutcome::Stored);
                let next = next.filter(|_| self.blobs.announcements.contains(&key));
                match next {
                    Some(value) => self.publish_value(key, value, None, stored),
                    None => self.on_published(key, stored),
                }
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

    /// Ends all announcements and lookups of a manager that stops.
    pub(super) fn drop_announcements(&mut self) {
        let waiters = self.blobs.announcements.drain();
        answer(waiters, &Err(Stopped.into()));
        self.blobs.queries.clear();
    }
}

fn answer(waiters: Vec<AnnounceReply>, outcome: &Result<(), AnnounceBlobError>) {
    for reply in waiters {
        let _ = reply.send(outcome.clone());
    }
}
