//! Queries of the application to the Kademlia table: records and providers.

use std::time::Instant;

use libp2p_kad::{QueryId, Quorum, Record, RecordKey};

use super::{Behaviour, error::RecordError, records::MAX_QUERIES};

impl Behaviour {
    /// Stores a record at the peers closest to its key, and repeats that automatically until it
    /// expires. Without `expires` it lives for `discovery.records.ttl_ms` from its last put.
    ///
    /// # Errors
    ///
    /// [`RecordError`] if too many queries are under way, the validator refuses, or the store is full.
    pub fn put_record(
        &mut self,
        key: RecordKey,
        value: Vec<u8>,
        expires: Option<Instant>,
        quorum: Quorum,
    ) -> Result<QueryId, RecordError> {
        self.check_query()?;
        let record = Record {
            key,
            value,
            publisher: Some(self.local),
            expires,
        };
        self.validator.validate(&record)?;
        let id = self.inner.kad.put_record(record, quorum)?;
        self.queries.put(id);
        Ok(id)
    }

    /// Finds the records of `key` at the peers closest to it and in the local store. The query ends
    /// when all have answered, at [`MAX_RECORDS_PER_QUERY`](super::MAX_RECORDS_PER_QUERY) records,
    /// or by [`stop_query`](Self::stop_query).
    ///
    /// # Errors
    ///
    /// [`RecordError::TooManyQueries`].
    pub fn get_records(&mut self, key: RecordKey) -> Result<QueryId, RecordError> {
        self.check_query()?;
        let id = self.inner.kad.get_record(key);
        self.queries.get(id);
        Ok(id)
    }

    /// Removes a record from the local store and stops publishing it. Copies at other peers live
    /// until they expire.
    pub fn remove_record(&mut self, key: &RecordKey) {
        self.inner.kad.remove_record(key);
    }

    /// Announces this node as a provider of `key` to the peers closest to it, and repeats that
    /// automatically until [`stop_providing`](Self::stop_providing). A key may have any number of
    /// providers.
    ///
    /// # Errors
    ///
    /// [`RecordError`] if too many queries are under way, the validator refuses, or the store is full.
    pub fn provide(&mut self, key: RecordKey) -> Result<QueryId, RecordError> {
        self.check_query()?;
        self.validator.validate_provider(&key, &self.local)?;
        let id = self.inner.kad.start_providing(key)?;
        self.queries.provide(id);
        Ok(id)
    }

    /// Stops announcing this node as a provider of `key`. Copies of the announcement at other peers
    /// live until they expire.
    pub fn stop_providing(&mut self, key: &RecordKey) {
        self.inner.kad.stop_providing(key);
    }

    /// Finds the providers of `key` at the peers closest to it and in the local store. The query
    /// ends when all have answered, at [`MAX_PROVIDERS_PER_QUERY`](super::MAX_PROVIDERS_PER_QUERY)
    /// providers, or by [`stop_query`](Self::stop_query). At most
    /// [`MAX_PROVIDERS_PER_KEY`](super::MAX_PROVIDERS_PER_KEY) of one answer are reported.
    ///
    /// # Errors
    ///
    /// [`RecordError::TooManyQueries`].
    pub fn get_providers(&mut self, key: RecordKey) -> Result<QueryId, RecordError> {
        self.check_query()?;
        let id = self.inner.kad.get_providers(key);
        self.queries.providers(id);
        Ok(id)
    }

    /// Ends a query with the results so far. [`Event::QueryEnded`](super::Event::QueryEnded)
    /// follows.
    pub fn stop_query(&mut self, id: QueryId) {
        if self.queries.knows(&id)
            && let Some(mut query) = self.inner.kad.query_mut(&id)
        {
            query.finish();
        }
    }

    fn check_query(&self) -> Result<(), RecordError> {
        if self.queries.is_full() {
            return Err(RecordError::TooManyQueries { limit: MAX_QUERIES });
        }
        Ok(())
    }
}
