//! Parts of the blob protocol that the actor and the handle share: validation of provider records,
//! and the tasks that serve blobs.

use std::sync::Arc;

use calimero_network_blob::{
    bandwidth::Bandwidth,
    fetch::Fetcher,
    record::{ProviderRecord, RecordKey, UnsignedRecord},
    serve::Server,
    store::BlobStore,
    transfer::Version,
};
use calimero_network_discovery::behaviour::{
    Record, RecordKey as Key, RecordRefused, RecordValidator,
};
use calimero_network_primitives::PeerId;
use calimero_network_stream::{Control, Incoming};
use futures::StreamExt;
use libp2p::StreamProtocol;
use tokio::sync::mpsc;

use crate::{
    error::{StartError, Stopped},
    event::BlobEvent,
};

/// Blob events and requests that wait for the actor: 256. Progress beyond that is dropped.
pub(crate) const REPORT_QUEUE: usize = 256;

/// The parts of a client that fetch blobs.
pub(crate) struct Blobs {
    pub(crate) fetcher: Fetcher,
    pub(crate) store: Option<Arc<dyn BlobStore>>,
    pub(crate) reports: mpsc::Sender<BlobEvent>,
}

impl std::fmt::Debug for Blobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blobs").finish_non_exhaustive()
    }
}

/// Validates records of the DHT: only provider records of blobs are stored.
pub(crate) struct ProviderRecords {
    /// Whether unsigned records are accepted, which prove nothing.
    pub(crate) unsigned: bool,
}

impl ProviderRecords {
    /// The provider that a record names and the size that it claims, if the record is valid.
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

/// Serves these versions of the protocol until the swarm stops. Runs on the runtime of the swarm.
pub(crate) fn serve(
    control: &Control,
    server: &Server,
    versions: &[Version],
    bandwidth: &Bandwidth,
) -> Result<(), StartError> {
    for &version in versions {
        let incoming = control
            .accept(StreamProtocol::new(version.name()))
            .map_err(|_| StartError::Listen(Stopped.into()))?;
        tokio::spawn(accept(incoming, version, server.clone(), bandwidth.clone()));
    }
    Ok(())
}

/// Accepts streams of one version. `streams.max_inbound` bounds their number, and the server bounds
/// their cost.
async fn accept(mut incoming: Incoming, version: Version, server: Server, bandwidth: Bandwidth) {
    while let Some(inbound) = incoming.next().await {
        let peer = inbound.peer;
        let origin = inbound.stream.frame_budget().holder().origin();
        let stream = bandwidth.limit(inbound.stream);
        let serving = server.serve_from(peer, origin, version, stream);
        tokio::spawn(async move {
            match serving.await {
                Ok(served) => tracing::debug!(%peer, ?served, "served blobs"),
                Err(error) => tracing::debug!(%peer, %error, "stopped serving blobs"),
            }
        });
    }
}
