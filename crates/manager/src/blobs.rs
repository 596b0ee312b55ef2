//! What of blobs is neither the actor's nor the handle's: which records are genuine, who serves.

use std::sync::Arc;

use calimero_network_blob::{
    fetch::Fetcher,
    serve::Server,
    store::BlobStore,
    transfer::Version,
    wire::{ProviderRecord, RecordKey, UnsignedRecord},
};
use calimero_network_discovery::behaviour::{
    Record, RecordKey as Key, RecordRefused, RecordValidator,
};
use calimero_network_primitives::{BlobId, ContextId, PeerId};
use calimero_network_stream::{Control, Incoming};
use futures::StreamExt;
use libp2p::StreamProtocol;
use tokio::sync::mpsc;

use crate::error::{FetchBlobError, StartError, Stopped};

/// Word of blobs that waits for the actor.
pub(crate) const REPORT_QUEUE: usize = 256;

/// What a client has to fetch blobs with.
pub(crate) struct Blobs {
    pub(crate) fetcher: Fetcher,
    pub(crate) store: Option<Arc<dyn BlobStore>>,
    pub(crate) reports: mpsc::Sender<BlobReport>,
}

impl std::fmt::Debug for Blobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blobs").finish_non_exhaustive()
    }
}

/// What the actor is told of transfers, to be told to whoever reads events.
#[derive(Debug)]
pub(crate) enum BlobReport {
    Found {
        context_id: ContextId,
        blob_id: BlobId,
        providers: Vec<PeerId>,
    },
    Progress {
        context_id: ContextId,
        blob_id: BlobId,
        progress: calimero_network_blob::fetch::Progress,
    },
    Ended {
        context_id: ContextId,
        blob_id: BlobId,
        outcome: Result<u64, Arc<FetchBlobError>>,
    },
}

/// Takes provider records and nothing else.
pub(crate) struct ProviderRecords {
    /// Whether the older layout counts, which proves nothing.
    pub(crate) unsigned: bool,
}

impl ProviderRecords {
    /// The provider that a record names, and the size it claims, if the record is genuine.
    pub(crate) fn read(&self, record: &Record) -> Option<(PeerId, u64)> {
        let key = RecordKey::from_bytes(record.key.as_ref()).ok()?;
        match ProviderRecord::verify(&key, &record.value) {
            Ok(signed) => Some((signed.provider, signed.size_bytes)),
            Err(_) if self.unsigned => {
                let unsigned = UnsignedRecord::decode(&record.value).ok()?;
                Some((unsigned.provider, unsigned.size_bytes))
            }
            Err(_) => None,
        }
    }
}

impl RecordValidator for ProviderRecords {
    fn validate(&self, record: &Record) -> Result<(), RecordRefused> {
        self.read(record).map(|_| ()).ok_or(RecordRefused {
            reason: "not the signed record of a blob's provider",
        })
    }

    fn validate_provider(&self, key: &Key, _: &PeerId) -> Result<(), RecordRefused> {
        RecordKey::from_bytes(key.as_ref())
            .map(|_| ())
            .map_err(|_| RecordRefused {
                reason: "not the key of a blob's providers",
            })
    }
}

/// Serves these versions of the protocol until the swarm is gone. Runs on the swarm's runtime.
pub(crate) fn serve(
    control: &Control,
    server: &Server,
    versions: &[Version],
) -> Result<(), StartError> {
    for &version in versions {
        let incoming = control
            .accept(StreamProtocol::new(version.name()))
            .map_err(|_| StartError::Listen(Stopped.into()))?;
        tokio::spawn(accept(incoming, version, server.clone()));
    }
    Ok(())
}

/// How many streams there are is bounded where they are accepted (`streams.max_inbound`), and what
/// they cost by the server.
async fn accept(mut incoming: Incoming, version: Version, server: Server) {
    while let Some(inbound) = incoming.next().await {
        let peer = inbound.peer;
        let serving = server.serve(peer, version, inbound.stream);
        tokio::spawn(async move {
            match serving.await {
                Ok(served) => tracing::debug!(%peer, ?served, "served blobs"),
                Err(error) => tracing::debug!(%peer, %error, "stopped serving blobs"),
            }
        });
    }
}
