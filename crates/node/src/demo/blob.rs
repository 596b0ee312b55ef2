//! The blob: two nodes have it, a third fetches it by its id alone, and one of the two is killed
//! on the way.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use calimero_network::{
    BlobId, ContextId, PeerId,
    blob::fetch::{Destination, Progress},
};
use futures::StreamExt as _;

use super::node::Node;
use crate::{
    error::CommandError,
    output::Output,
    progress::{self, Shown},
};

/// Chunks of the blob, and the size of each in bytes: 64 MiB in all.
const BLOB_CHUNKS: usize = 64;
const CHUNK_BYTES: usize = 1 << 20;

/// Size of the blob in bytes.
pub(super) const BLOB_BYTES: u64 = (BLOB_CHUNKS * CHUNK_BYTES) as u64;

/// One of the two is killed when a part of one in this many is verified.
const KILL_AT: u64 = 4;

/// On whose behalf it is announced and asked for.
const CONTEXT: ContextId = ContextId::new([0xcc; 32]);

/// What became of it.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub(super) size_bytes: u64,
    /// Whether the store read it again and found it to be what its id says.
    pub(super) good: bool,
    pub(super) killed: &'static str,
    /// Bytes that were verified when it was killed, of all and of those it gave.
    pub(super) at_bytes: u64,
    pub(super) from_killed_bytes: u64,
    pub(super) survivor: &'static str,
    pub(super) from_survivor_bytes: u64,
    pub(super) took: Duration,
}

impl Delivery {
    pub(super) fn is_complete(&self) -> bool {
        self.size_bytes == BLOB_BYTES && self.good
    }

    /// Whether both gave some, and together all.
    pub(super) fn is_from_both(&self) -> bool {
        let all = self.from_killed_bytes + self.from_survivor_bytes;
        self.from_killed_bytes > 0 && self.from_survivor_bytes > 0 && all == self.size_bytes
    }

    /// Whether one was killed before the end, and what it owed came from the other.
    pub(super) fn is_rescued(&self) -> bool {
        self.at_bytes < self.size_bytes && self.from_survivor_bytes > self.from_killed_bytes
    }
}

/// Puts the blob into the stores of both, and has them announce it.
pub(super) async fn announce(providers: [&Node; 2]) -> Result<BlobId, CommandError> {
    let stores = providers.map(|node| node.store.clone());
    let storing = tokio::task::spawn_blocking(move || {
        let content = content();
        let [one, other] = stores;
        one.put(&content)?;
        other.put(&content)
    });
    let stored = storing.await.map_err(CommandError::Task)??;
    for node in providers {
        node.client.announce_blob(CONTEXT, stored.id).await?;
    }
    Ok(stored.id)
}

/// Lets `here` fetch it, and kills `victim` when a quarter is there.
pub(super) async fn deliver(
    here: &Node,
    survivor: &Node,
    victim: Node,
    id: BlobId,
    output: &Output,
) -> Result<Delivery, CommandError> {
    let begun = Instant::now();
    let (killed, killed_peer) = (victim.name, victim.client.peer_id());
    let to = Destination::Store(Arc::new(here.store.clone()));
    let mut transfer = here.client.request_blob(CONTEXT, id, Vec::new(), to);
    let mut progress = std::mem::replace(transfer.progress(), futures::stream::empty().boxed());
    let mut shown = Shown::new(output);
    let watching = async {
        let mut victim = Some(victim);
        let mut at_bytes = BLOB_BYTES;
        while let Some(progress) = progress.next().await {
            if is_time(&progress, killed_peer)
                && let Some(victim) = victim.take()
            {
                victim.kill();
                at_bytes = progress.verified_bytes;
            }
            shown.show(&progress::Line::of(&progress));
        }
        at_bytes
    };
    let (fetched, at_bytes) = futures::future::join(transfer, watching).await;
    shown.end();
    let fetched = fetched.map_err(CommandError::Fetch)?;
    let took = begun.elapsed();
    let store = here.store.clone();
    let verifying = tokio::task::spawn_blocking(move || store.verify(&id));
    let good = verifying.await.map_err(CommandError::Task)?.is_ok();
    let gave = |peer: PeerId| {
        let of = fetched.providers.iter().find(|(one, _)| *one == peer);
        of.map_or(0, |(_, bytes)| *bytes)
    };
    Ok(Delivery {
        size_bytes: fetched.size_bytes,
        good,
        killed,
        at_bytes,
        from_killed_bytes: gave(killed_peer),
        survivor: survivor.name,
        from_survivor_bytes: gave(survivor.client.peer_id()),
        took,
    })
}

/// Whether a quarter is there, some of it from `victim`.
fn is_time(progress: &Progress, victim: PeerId) -> bool {
    let gave = |provider: &calimero_network::blob::fetch::ProviderProgress| {
        provider.peer == victim && provider.verified_bytes > 0
    };
    progress.verified_bytes >= BLOB_BYTES / KILL_AT && progress.providers.iter().any(gave)
}

/// Content that no two chunks of are alike: each begins with its number.
fn content() -> Vec<u8> {
    let chunk: Vec<u8> = (0..CHUNK_BYTES).map(|at| (at % 251) as u8).collect();
    let mut content = chunk.repeat(BLOB_CHUNKS);
    for (number, chunk) in content.chunks_mut(CHUNK_BYTES).enumerate() {
        if let Some(place) = chunk.first_chunk_mut() {
            *place = number.to_le_bytes();
        }
    }
    content
}
