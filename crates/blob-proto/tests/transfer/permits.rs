//! Permits of a server that others hold, in paused time.

use std::{
    future::ready,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use asynchronous_codec::{Encoder, FramedRead};
use bytes::{Bytes, BytesMut};
use calimero_network_blob::{
    BlobId, CHUNK_HASH_BYTES, ChunkList,
    serve::Server,
    store::{BlobReader, BlobStore, BlobWriter, PartialBlob, StoreError, StoreFuture, StoredBatch},
    transfer::Version,
    v0::{BlobRequest, BlobResponse},
    v1::{Hello, Request, RequesterCodec, Response},
};
use calimero_network_primitives::{
    config::BlobServeConfig,
    resources::{Limits, Resource, Resources},
};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::{
    net::{CONTEXT, content, folder, frame, requester},
    pipes::numbered,
};

/// The hashes of a blob of several chunks are stored, so they take no memory for content.
#[tokio::test(start_paused = true)]
async fn stored_hashes_need_no_permit() {
    let there = folder();
    let id = there.store.put(&content(1, (1 << 20) + 5)).unwrap().id;
    let store: Arc<dyn BlobStore> = Arc::new(there.store.clone());
    let resources = Resources::new(Limits::default());
    let server = Server::new(numbered(1), store, &BlobServeConfig::default());
    let server = server.with_resources(resources.clone());
    let holder = resources.holder(None, None);
    let mut held = Vec::new();
    while let Ok(permit) = holder.take(Resource::BlobBytes, 1 << 20) {
        held.push(permit);
    }
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let serving = tokio::spawn(server.serve(requester(), Version::V0, theirs.compat()));
    let request = BlobRequest {
        blob_id: id,
        context_id: CONTEXT,
        auth: None,
    };
    let found = BlobResponse::found((1 << 20) + 5).encode().unwrap();
    let expected = frame(&found);
    let mut ours = ours.compat();
    let begun = Instant::now();
    let request = frame(&request.encode().unwrap());
    ours.write_all(&request).await.unwrap();
    let mut answer = vec![0; expected.len()];
    ours.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, expected);
    assert_eq!(begun.elapsed(), Duration::ZERO, "it waited");
    // The content does wait.
    let mut byte = [0];
    let content = tokio::time::timeout(Duration::from_secs(5), ours.read_exact(&mut byte));
    assert!(content.await.is_err());
    drop(held);
    ours.read_exact(&mut byte).await.unwrap();
    serving.abort();
}

/// Chunks of a blob whose hashes have 2 MiB, which is two pages.
const MANY_CHUNKS: usize = 1 << 16;

/// Shows blobs of 64 GiB, and counts the lists that were read.
struct Huge(Arc<AtomicUsize>);

/// The hashes of the blob of a number. They are as good as any others: nothing of it is read.
fn hashes(number: u8) -> Bytes {
    vec![number; MANY_CHUNKS * CHUNK_HASH_BYTES].into()
}

fn huge_id(number: u8) -> BlobId {
    <[u8; 32]>::from(Sha256::digest(hashes(number))).into()
}

struct HugeReader {
    number: u8,
    lists: Arc<AtomicUsize>,
}

fn none<T: Send + 'static>() -> StoreFuture<T> {
    Box::pin(ready(Err(StoreError::Stopped)))
}

impl BlobStore for Huge {
    fn size(&self, _: BlobId) -> StoreFuture<Option<u64>> {
        none()
    }

    fn reader(&self, id: BlobId) -> StoreFuture<Option<Arc<dyn BlobReader>>> {
        let number = (0..8).find(|number| huge_id(*number) == id);
        let lists = Arc::clone(&self.0);
        let reader = number.map(|number| {
            let lists = Arc::clone(&lists);
            Arc::new(HugeReader { number, lists }) as Arc<dyn BlobReader>
        });
        Box::pin(ready(Ok(reader)))
    }

    fn writer(&self) -> StoreFuture<Box<dyn BlobWriter>> {
        none()
    }

    fn partial(&self, _: ChunkList) -> StoreFuture<Arc<dyn PartialBlob>> {
        none()
    }

    fn put_batch(&self, _: Vec<(Option<BlobId>, Bytes)>) -> StoreFuture<StoredBatch> {
        none()
    }
}

impl BlobReader for HugeReader {
    fn id(&self) -> BlobId {
        huge_id(self.number)
    }

    fn size_bytes(&self) -> u64 {
        (MANY_CHUNKS as u64) << 20
    }

    fn list(&self) -> StoreFuture<ChunkList> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        let list = ChunkList::prove(self.id(), hashes(self.number));
        Box::pin(ready(list.map_err(|_| StoreError::Stopped)))
    }

    fn read(&self, _: Range<u64>) -> StoreFuture<Bytes> {
        none()
    }
}

/// A requester that asks for many long lists and takes none of them has as many in memory as its
/// permit covers.
#[tokio::test(start_paused = true)]
async fn long_lists_are_read_one_after_the_other() {
    let lists = Arc::new(AtomicUsize::new(0));
    let store = Arc::new(Huge(Arc::clone(&lists)));
    let server = Server::new(numbered(1), store, &BlobServeConfig::default());
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let serving = tokio::spawn(server.serve(requester(), Version::V1, theirs.compat()));
    let mut wire = BytesMut::new();
    let hello = Request::Hello(Hello {
        context_id: CONTEXT,
        auth: None,
    });
    RequesterCodec.encode(hello, &mut wire).unwrap();
    for number in 0..8 {
        let get = Request::Get {
            blob_id: huge_id(number),
            inline_max_bytes: 0,
            from: 0,
        };
        RequesterCodec.encode(get, &mut wire).unwrap();
    }
    let mut ours = ours.compat();
    ours.write_all(&wire).await.unwrap();
    // Time passes once nothing else can happen.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(lists.load(Ordering::SeqCst), 1);
    let mut responses = FramedRead::new(ours, RequesterCodec);
    for number in 0..8 {
        let response = responses.next().await.unwrap().unwrap();
        let Response::List(page) = response else {
            panic!("{response:?}")
        };
        assert_eq!(page.digests[0], number);
    }
    assert_eq!(lists.load(Ordering::SeqCst), 8);
    serving.abort();
}
