//! Tickets of a running node: for its blobs, and those of others that it fetches.

use std::sync::Arc;

use calimero_network::{
    BlobId, PeerId,
    blob::{
        fetch::{Destination, FetchRequest},
        store::StoreError,
        ticket::{Kind, Ticket},
    },
};

use super::{DEFAULT_CONTEXT, Lines, Running, blocking, get, local};
use crate::{error::CommandError, share::addresses};

impl Running {
    /// Returns a ticket for a blob of the store, without a secret: the node serves the blob to any
    /// peer that knows its id.
    pub(crate) async fn ticket(&self, id: BlobId) -> Result<Ticket, CommandError> {
        let store = self.store.clone();
        let size_bytes = blocking(move || {
            let reader = store.reader(&id)?.ok_or(StoreError::NotFound { id })?;
            Ok(reader.size_bytes())
        })
        .await?;
        let status = self.client.status().await?;
        let scopes = self.client.config().discovery.dial_scopes();
        let peer = self.client.peer_id();
        let addresses = addresses::to_write(&status.external, &status.listening, peer, scopes);
        let ticket = Ticket::new(peer, id, Kind::Blob).with_size_bytes(size_bytes);
        Ok(ticket.with_addresses(addresses)?)
    }

    /// Fetches the blob of a ticket into the store. It is announced unless the ticket has a secret.
    pub(crate) async fn fetch_ticket(
        &self,
        ticket: Ticket,
        lines: Lines,
    ) -> Result<(), CommandError> {
        let id = ticket.blob_id();
        let providers = self.provider(&ticket).await?;
        let mut request = FetchRequest::new(DEFAULT_CONTEXT, id);
        if let Some(size_bytes) = ticket.size_bytes() {
            request = request.with_max_bytes(size_bytes);
        }
        let secret = ticket.secret();
        if let Some(secret) = secret {
            let key = Arc::new(secret.key().clone());
            // A search would reveal the id to peers of the DHT.
            request = request.with_signer(key).without_search();
        }
        let to = Destination::Store(Arc::new(self.store.clone()));
        let name = ticket.name().map(str::to_owned);
        if secret.is_some() && !self.store.has(&id) {
            // Before the transfer: the blob may be complete when this future is dropped or the
            // process ends, and a blob without this tag is announced at the next start.
            let store = self.store.clone();
            let tag = local::private_tag(&id);
            blocking(move || Ok(store.tag(&tag, id)?)).await?;
        }
        let fetched = get::transfer(&self.client, request, providers, to, name, &lines).await?;
        let mut announcing = None;
        if secret.is_none() {
            self.store.tag(&local::tag(DEFAULT_CONTEXT, &id), id)?;
            announcing = Some(self.announcer.announce(DEFAULT_CONTEXT, id));
        }
        lines.send(fetched).await?;
        if let Some(announcing) = announcing {
            let _ = announcing.await;
        }
        Ok(())
    }

    /// Connects to the peer of a ticket, unless the blob is here.
    async fn provider(&self, ticket: &Ticket) -> Result<Vec<PeerId>, CommandError> {
        let peer = ticket.peer();
        if self.store.has(&ticket.blob_id()) || peer == self.client.peer_id() {
            return Ok(Vec::new());
        }
        let is_local = self.client.config().discovery.local_network;
        let dialled = addresses::to_dial(ticket.addresses(), peer, is_local);
        self.client.dial_peer(peer, dialled).await?;
        Ok(vec![peer])
    }
}
