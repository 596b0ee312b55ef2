//! Parts of the blob protocol that the builder, the actor and the handle share: the queues of blob
//! events, and the tasks that serve blobs.

use std::sync::Arc;

use calimero_network_blob::{
    bandwidth::Bandwidth,
    fetch::Fetcher,
    serve::{Authorizer, ServeEvent, Server},
    store::BlobStore,
    transfer::{Identity, Signer, StreamOpener, Version},
};
use calimero_network_primitives::{PeerId, config::BlobConfig, resources::Resources};
use calimero_network_stream::{Control, Incoming};
use futures::StreamExt;
use libp2p::StreamProtocol;
use tokio::sync::mpsc;

use crate::{
    error::{StartError, Stopped},
    event::BlobEvent,
    metrics::Transfers,
};

/// Blob events and requests that wait for the actor: 256. Progress beyond that is dropped.
const REPORT_QUEUE: usize = 256;

/// The settings of a builder that concern blobs.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) store: Option<Arc<dyn BlobStore>>,
    pub(crate) authorizer: Option<Arc<dyn Authorizer>>,
    pub(crate) signer: Option<Arc<dyn Signer>>,
}

/// The queues between the tasks that transfer blobs and the actor.
pub(crate) struct Queues {
    /// Requests of peers.
    pub(crate) requested: mpsc::Receiver<ServeEvent>,
    /// Events of transfers of this node.
    pub(crate) reports: mpsc::Receiver<BlobEvent>,
}

/// The part of [`Setup`] that fetches, once the swarm runs.
pub(crate) struct Fetching {
    peer: PeerId,
    store: Option<Arc<dyn BlobStore>>,
    signer: Option<Arc<dyn Signer>>,
    reports: mpsc::Sender<BlobEvent>,
    transfers: Transfers,
    bandwidth: Bandwidth,
}

impl Setup {
    /// Builds the server of blobs, if there is a store, the queues, and the part that fetches.
    pub(crate) fn build(
        self,
        peer: PeerId,
        config: &BlobConfig,
        resources: &Resources,
        transfers: Transfers,
    ) -> (Option<Server>, Queues, Fetching) {
        let Self {
            store,
            authorizer,
            signer,
        } = self;
        let (requests, requested) = mpsc::channel(REPORT_QUEUE);
        let (sender, reports) = mpsc::channel(REPORT_QUEUE);
        let bandwidth = Bandwidth::new(
            config.max_upload_bytes_per_s,
            config.max_download_bytes_per_s,
        );
        let server = store.clone().map(|store| {
            let server = Server::new(peer, store, &config.serve)
                .with_events(requests)
                .with_bandwidth(&bandwidth)
                .with_resources(resources.clone());
            match authorizer {
                Some(authorizer) => server.with_shared_authorizer(authorizer),
                None => server,
            }
        });
        let fetching = Fetching {
            peer,
            store,
            signer,
            reports: sender,
            transfers,
            bandwidth,
        };
        (server, Queues { requested, reports }, fetching)
    }
}

impl Fetching {
    #[cfg(feature = "metrics")]
    pub(crate) fn store(&self) -> Option<&Arc<dyn BlobStore>> {
        self.store.as_ref()
    }

    pub(crate) fn start(self, control: &Control, config: &BlobConfig) -> Blobs {
        let identity = Identity {
            peer: self.peer,
            signer: self.signer,
        };
        Blobs {
            fetcher: Fetcher::new(
                self.bandwidth
                    .limit_opener(opener(control, &config.versions)),
                identity,
                &config.fetch,
            ),
            store: self.store,
            reports: self.reports,
            transfers: self.transfers,
        }
    }
}

/// An opener of streams of these versions, in their order. A valid configuration names at least one.
fn opener(control: &Control, versions: &[Version]) -> StreamOpener {
    match versions {
        [wanted, instead @ ..] => StreamOpener::with_versions(control.clone(), *wanted, instead),
        [] => StreamOpener::new(control.clone()),
    }
}

/// The parts of a client that fetch blobs.
pub(crate) struct Blobs {
    pub(crate) fetcher: Fetcher,
    pub(crate) store: Option<Arc<dyn BlobStore>>,
    pub(crate) reports: mpsc::Sender<BlobEvent>,
    pub(crate) transfers: Transfers,
}

impl std::fmt::Debug for Blobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blobs").finish_non_exhaustive()
    }
}

/// Serves these versions of the protocol until the swarm stops. Runs on the runtime of the swarm.
pub(crate) fn serve(
    control: &Control,
    server: &Server,
    versions: &[Version],
    transfers: &Transfers,
) -> Result<(), StartError> {
    for &version in versions {
        let incoming = control
            .accept(StreamProtocol::new(version.name()))
            .map_err(|_| StartError::Listen(Stopped.into()))?;
        let (server, transfers) = (server.clone(), transfers.clone());
        tokio::spawn(accept(incoming, version, server, transfers));
    }
    Ok(())
}

/// Accepts streams of one version. `streams.max_inbound` bounds their number, and the server bounds
/// their cost.
async fn accept(mut incoming: Incoming, version: Version, server: Server, transfers: Transfers) {
    while let Some(inbound) = incoming.next().await {
        let peer = inbound.peer;
        let origin = inbound.stream.frame_budget().holder().origin();
        let serving = server.serve_from(peer, origin, version, inbound.stream);
        let transfers = transfers.clone();
        tokio::spawn(async move {
            match serving.await {
                Ok(served) => tracing::debug!(%peer, ?served, "served blobs"),
                Err(error) => {
                    transfers.serve_failed(&error);
                    tracing::debug!(%peer, %error, "stopped serving blobs");
                }
            }
        });
    }
}
