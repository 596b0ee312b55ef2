//! Small files of a folder: requested without waiting for each other, and stored together.

use std::sync::Arc;

use calimero_network::{
    FetchBlobError, NetworkClient, PeerId,
    blob::{
        collection::Entry,
        store::{FsBlobStore, PACK_MAX_BLOB_BYTES},
    },
};

use crate::{blob::DEFAULT_CONTEXT, error::CommandError};

/// Content that is fetched by one batch, in bytes: 8 MiB, as much as a batch makes durable together.
const BATCH_BYTES: u64 = 8 * 1024 * 1024;

/// Returns `true` for a file that is fetched with others, and `false` for one that is fetched alone.
pub(super) fn is_small(entry: &Entry) -> bool {
    entry.size_bytes <= PACK_MAX_BLOB_BYTES as u64
}

/// Divides small files into batches.
pub(super) fn batches<'a>(entries: &'a [&'a Entry]) -> impl Iterator<Item = &'a [&'a Entry]> {
    let mut bytes = 0_u64;
    entries.chunk_by(move |entry, _| {
        bytes += entry.size_bytes;
        let is_full = bytes >= BATCH_BYTES;
        if is_full {
            bytes = 0;
        }
        !is_full
    })
}

/// What a batch has brought.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    /// Content that is stored, in bytes.
    pub(super) verified_bytes: u64,
    /// Content that came over the network, in bytes.
    pub(super) received_bytes: u64,
}

/// Fetches the blobs of small files from one peer into a store. Blobs that the store has already
/// are not requested. The limit of the store bounds what a peer can send.
pub(super) async fn fetch(
    client: &NetworkClient,
    peer: PeerId,
    store: &FsBlobStore,
    entries: &[&Entry],
) -> Result<Batch, CommandError> {
    let ids = entries.iter().map(|entry| entry.id).collect();
    let to = Arc::new(store.clone());
    let batch = client.request_blobs(DEFAULT_CONTEXT, ids, vec![peer], to);
    let batch = batch
        .await
        .map_err(|error| CommandError::Fetch(error.into()))?;
    if let Some((_, error)) = batch.failed.into_iter().next() {
        return Err(CommandError::Fetch(FetchBlobError::from(error).into()));
    }
    let sizes = batch.fetched.iter().filter_map(|id| store.size(id));
    Ok(Batch {
        verified_bytes: sizes.sum(),
        received_bytes: batch.received_bytes,
    })
}

#[cfg(test)]
mod tests {
    use calimero_network::BlobId;

    use super::*;

    #[test]
    fn batches_have_all_files_and_a_bounded_size() {
        let sizes = [3 << 20, 6 << 20, 0, 1, 8 << 20, 2];
        let entries = sizes.map(|size_bytes| Entry {
            path: "file".parse().unwrap(),
            executable: false,
            size_bytes,
            id: BlobId::from([1; 32]),
        });
        let entries: Vec<_> = entries.iter().collect();
        let found = batches(&entries).map(|batch| {
            let sizes = batch.iter().map(|entry| entry.size_bytes);
            sizes.collect::<Vec<_>>()
        });
        let expected = [vec![3 << 20, 6 << 20], vec![0, 1, 8 << 20], vec![2]];
        assert_eq!(found.collect::<Vec<_>>(), expected);
        assert_eq!(batches(&[]).count(), 0);
    }
}
