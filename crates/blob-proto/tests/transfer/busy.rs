//! Several downloads of one blob into one store, in paused time.

use std::sync::Arc;

use calimero_network_blob::{
    BlobId,
    fetch::{BlobFetchConfig, FetchError, FetchRequest, Fetcher},
    serve::{Server, Totals},
    store::{BlobStore, FsBlobStore, FsConfig, StoreError},
    transfer::{Identity, Version},
};
use calimero_network_primitives::config::BlobServeConfig;
use futures::stream;

use crate::{
    net::{CONTEXT, Folder, content, folder, list, read_all, requester, to_store},
    pipes::{Pipes, numbered, slowly},
};

const LARGE: usize = (3 << 20) + 5;

/// Slow enough for a download of the large blob to last for longer than a transfer waits for one
/// that it does not know, which is 10 s.
const BYTES_PER_S: usize = 160 * 1024;

/// A fetcher from one slow provider, and what the provider has sent.
fn slow_provider(there: &Folder) -> (Fetcher, Totals) {
    let store: Arc<dyn BlobStore> = Arc::new(there.store.clone());
    let server = Server::new(numbered(1), store, &BlobServeConfig::default());
    let totals = server.totals();
    let pipes = Pipes::new(numbered(1), Version::V1, move |pipe| {
        slowly(&server, Version::V1, pipe, BYTES_PER_S)
    });
    let config = BlobFetchConfig::default();
    let fetcher = Fetcher::new(pipes, Identity::unsigned(requester()), &config);
    (fetcher, totals)
}

fn stored(there: &FsBlobStore) -> (BlobId, BlobId) {
    let large = there.put(&content(1, LARGE)).unwrap().id;
    (large, there.put(b"small").unwrap().id)
}

#[tokio::test(start_paused = true)]
async fn a_batch_joins_the_transfer_of_its_blob() {
    let there = folder();
    let (large, small) = stored(&there.store);
    let (fetcher, totals) = slow_provider(&there);
    let here = folder();
    let request = FetchRequest::new(CONTEXT, large);
    let alone = fetcher.fetch(request, stream::iter([numbered(1)]), to_store(&here.store));
    let store: Arc<dyn BlobStore> = Arc::new(here.store.clone());
    let batch = fetcher.fetch_batch(CONTEXT, vec![large, small], vec![numbered(1)], store);
    let (alone, batch) = tokio::join!(alone, batch);
    assert_eq!(alone.unwrap().size_bytes, LARGE as u64);
    let batch = batch.unwrap();
    assert!(batch.failed.is_empty(), "{:?}", batch.failed);
    assert_eq!(batch.fetched.len(), 2);
    assert!(read_all(&here.store, &large) == content(1, LARGE));
    assert_eq!(totals.read().sent_bytes, LARGE as u64 + 5, "sent once");
}

#[tokio::test(start_paused = true)]
async fn a_transfer_waits_for_another_one_of_its_blob() {
    let there = folder();
    let (large, _) = stored(&there.store);
    let (fetcher, totals) = slow_provider(&there);
    // There is no space for a second copy.
    let dir = tempfile::tempdir().unwrap();
    let config = FsConfig {
        max_bytes: LARGE as u64 * 3 / 2,
        ..FsConfig::default()
    };
    let here = FsBlobStore::open(dir.path(), &config).unwrap();
    let request = FetchRequest::new(CONTEXT, large);
    let limited = request.clone().with_max_bytes(LARGE as u64);
    let fetch = |request| {
        let listed = stream::iter([numbered(1)]);
        fetcher.fetch(request, listed, to_store(&here))
    };
    let (first, second) = tokio::join!(fetch(request), fetch(limited));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(
        (first.size_bytes, second.size_bytes),
        (LARGE as u64, LARGE as u64)
    );
    assert!(read_all(&here, &large) == content(1, LARGE));
    assert_eq!(totals.read().sent_bytes, LARGE as u64, "sent once");
}

/// The download of another program part, which no transfer of the fetcher has open.
#[tokio::test(start_paused = true)]
async fn a_batch_names_a_blob_that_is_being_downloaded() {
    let there = folder();
    let (large, small) = stored(&there.store);
    let (fetcher, _) = slow_provider(&there);
    let here = folder();
    let _open = here.store.partial(list(&content(1, LARGE))).unwrap();
    let store: Arc<dyn BlobStore> = Arc::new(here.store.clone());
    let batch = fetcher.fetch_batch(CONTEXT, vec![large, small], vec![numbered(1)], store);
    let batch = batch.await.unwrap();
    assert_eq!(batch.fetched, [small]);
    let [(failed, FetchError::Store(error))] = &batch.failed[..] else {
        panic!("{:?}", batch.failed)
    };
    assert_eq!(*failed, large);
    assert!(matches!(**error, StoreError::Busy { .. }), "{error}");
}
