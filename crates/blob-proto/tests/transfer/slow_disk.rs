//! Stores that are slow or fail, in paused time: their time is not that of the providers.

use std::{collections::HashMap, sync::Arc, time::Duration};

use asynchronous_codec::FramedRead;
use bytes::Bytes;
use calimero_network_blob::{
    BlobId, ChunkList, blob_id,
    fetch::{BlobFetchConfig, Destination, FetchError, FetchRequest, Fetcher},
    serve::Server,
    store::{
        BlobReader, BlobStore, BlobWriter, FsBlobStore, FsConfig, PartialBlob, StoreError,
        StoreFuture, StoredBatch, Verification,
    },
    transfer::{Identity, Version},
    v1::{Refusal, Request, RequesterCodec, Response},
};
use calimero_network_primitives::config::BlobServeConfig;
use futures::{StreamExt, stream};
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep},
};
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::{
    cancelled::{encoded, hello},
    net::{CONTEXT, content, folder, read_all, requester},
    patience::answering,
    pipes::{Pipes, numbered},
};

/// Longer than `search_timeout`, which is a minute.
const SLOW: Duration = Duration::from_secs(70);

/// Longer than any call takes here.
const STORE_TIMEOUT: Duration = Duration::from_secs(120);

/// A store that takes [`SLOW`] for one of its calls.
struct SlowStore {
    store: FsBlobStore,
    /// Whether it withdraws a damaged blob first.
    verify: bool,
    /// Whether it hashes what it has of a partial download.
    partial: bool,
    /// The time that it takes to open a blob.
    reader: Option<Duration>,
}

impl BlobStore for SlowStore {
    fn size(&self, id: BlobId) -> StoreFuture<Option<u64>> {
        BlobStore::size(&self.store, id)
    }

    fn reader(&self, id: BlobId) -> StoreFuture<Option<Arc<dyn BlobReader>>> {
        let (slow, opened) = (self.reader, BlobStore::reader(&self.store, id));
        Box::pin(async move {
            sleep(slow.unwrap_or_default()).await;
            opened.await
        })
    }

    fn verify(&self, id: BlobId, repair: bool) -> StoreFuture<Verification> {
        if !self.verify {
            return BlobStore::verify(&self.store, id, repair);
        }
        Box::pin(async {
            sleep(SLOW).await;
            Ok(Verification::Damaged { withdrawn: true })
        })
    }

    fn writer(&self) -> StoreFuture<Box<dyn BlobWriter>> {
        BlobStore::writer(&self.store)
    }

    fn partial(&self, list: ChunkList) -> StoreFuture<Arc<dyn PartialBlob>> {
        let (slow, opened) = (self.partial, BlobStore::partial(&self.store, list));
        Box::pin(async move {
            if slow {
                sleep(SLOW).await;
            }
            opened.await
        })
    }

    fn put_batch(&self, blobs: Vec<(Option<BlobId>, Bytes)>) -> StoreFuture<StoredBatch> {
        BlobStore::put_batch(&self.store, blobs)
    }
}

/// Fetches a blob of three chunks from a provider that answers 300 ms after it is asked.
async fn fetch_into(verify: bool, partial: bool) {
    let there = folder();
    let content = content(1, (2 << 20) + 5);
    let id = there.store.put(&content).unwrap().id;
    let store: Arc<dyn BlobStore> = Arc::new(there.store.clone());
    let server = Server::new(numbered(1), store, &BlobServeConfig::default());
    let pipes = Pipes::new(numbered(1), Version::V1, move |pipe| {
        let serving = server.serve(requester(), Version::V1, pipe);
        Box::pin(async move {
            sleep(Duration::from_millis(300)).await;
            let _ = serving.await;
        })
    });
    let here = folder();
    let slow = SlowStore {
        store: here.store.clone(),
        verify,
        partial,
        reader: None,
    };
    let config = BlobFetchConfig::default();
    let fetcher = Fetcher::new(pipes, Identity::unsigned(requester()), &config)
        .with_store_timeout(STORE_TIMEOUT);
    let request = FetchRequest::new(CONTEXT, id);
    let to = Destination::Store(Arc::new(slow));
    let fetched = fetcher
        .fetch(request, stream::iter([numbered(1)]), to)
        .await
        .unwrap_or_else(|error| panic!("verify {verify}, partial {partial}: {error}"));
    assert_eq!(fetched.size_bytes, content.len() as u64);
    assert!(read_all(&here.store, &id) == content);
}

/// A provider that owes one blob when the others of a batch cannot be stored.
#[tokio::test(start_paused = true)]
async fn a_batch_ends_when_its_store_fails() {
    // More than is made durable together.
    let blobs: HashMap<_, _> = (0..140)
        .map(|seed| Bytes::from(content(seed, 64 * 1024)))
        .map(|content| (blob_id(&content), content))
        .collect();
    let owed = blob_id(b"owed");
    let wanted: Vec<_> = blobs.keys().copied().chain([owed]).collect();
    let pipes = answering(Version::V1, move |request| match request {
        Request::Get { blob_id, .. } => {
            let content = blobs.get(&blob_id).cloned();
            content
                .into_iter()
                .map(|content| Response::Inline { content })
                .collect()
        }
        _ => vec![],
    });
    // Its limit is below what is made durable together.
    let dir = tempfile::tempdir().unwrap();
    let config = FsConfig {
        max_bytes: 1 << 20,
        ..FsConfig::default()
    };
    let here = FsBlobStore::open(dir.path(), &config).unwrap();
    let config = BlobFetchConfig::default();
    let fetcher = Fetcher::new(pipes, Identity::unsigned(requester()), &config);
    let begun = Instant::now();
    let store: Arc<dyn BlobStore> = Arc::new(here);
    let batch = fetcher.fetch_batch(CONTEXT, wanted, vec![numbered(1)], store);
    let Err(FetchError::Store(error)) = batch.await else {
        panic!("stored beyond the limit")
    };
    assert!(matches!(*error, StoreError::Quota { .. }), "{error}");
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_verification_takes_no_time_from_the_providers() {
    fetch_into(true, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_resumption_takes_no_time_from_the_providers() {
    fetch_into(false, true).await;
}

/// With the time that it was given, in place of the minute that is usual.
#[tokio::test(start_paused = true)]
async fn a_slow_store_may_have_more_time_to_serve() {
    let there = folder();
    let id = there.store.put(b"content").unwrap().id;
    for (timeout_s, answers) in [(120, true), (80, false)] {
        let slow = SlowStore {
            store: there.store.clone(),
            verify: false,
            partial: false,
            reader: Some(Duration::from_secs(90)),
        };
        let server = Server::new(numbered(1), Arc::new(slow), &BlobServeConfig::default())
            .with_store_timeout(Duration::from_secs(timeout_s));
        let (mut ours, theirs) = tokio::io::duplex(1 << 16);
        let serving = server.serve(requester(), Version::V1, theirs.compat());
        let serving = tokio::spawn(serving);
        let get = Request::Get {
            blob_id: id,
            inline_max_bytes: 65_536,
            from: 0,
        };
        ours.write_all(&encoded([hello(), get])).await.unwrap();
        ours.shutdown().await.unwrap();
        let responses = FramedRead::new(ours.compat(), RequesterCodec);
        let responses: Vec<_> = responses.map(Result::unwrap).collect().await;
        serving.await.unwrap().unwrap();
        let content = Bytes::from_static(b"content");
        let expected = match answers {
            true => Response::Inline { content },
            false => Response::Refused(Refusal::Failed),
        };
        assert_eq!(responses, [expected], "{timeout_s}");
    }
}
