//! Requesters that hold what a server has, and end their streams while a store works for them, in
//! paused time.

use std::{
    io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use asynchronous_codec::Encoder;
use bytes::{Bytes, BytesMut};
use calimero_network_blob::{
    BlobId, ChunkList,
    fetch::{BlobFetchConfig, FetchRequest, Fetcher},
    serve::{ServeError, ServeEvent, Server},
    store::{
        BlobReader, BlobStore, BlobWriter, FsBlobStore, PartialBlob, StoreError, StoreFuture,
        StoredBatch,
    },
    transfer::{Identity, Version},
    v0::BlobRequest,
    v1::{Hello, Request, RequesterCodec},
};
use calimero_network_primitives::{
    config::BlobServeConfig,
    resources::{Limits, Resource, Resources},
};
use futures::stream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Semaphore, mpsc},
    time::{Instant, sleep},
};
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::{
    net::{CONTEXT, content, folder, frame, requester, to_store},
    pipes::{Pipes, numbered, slowly},
};

const MIB: usize = 1 << 20;
const STREAMS: u32 = 100;

/// What a store works at. The work does not stop when its future is dropped, as that of a thread
/// does not.
#[derive(Clone)]
struct Work {
    /// Closed until the test adds permits.
    gate: Arc<Semaphore>,
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    begun: Arc<AtomicUsize>,
}

impl Work {
    fn new() -> Self {
        Self {
            gate: Arc::new(Semaphore::new(0)),
            running: Arc::default(),
            most: Arc::default(),
            begun: Arc::default(),
        }
    }

    fn run<T: Send + 'static>(&self, answer: StoreFuture<T>) -> StoreFuture<T> {
        let work = self.clone();
        Box::pin(async move {
            let running = tokio::spawn(async move {
                work.begun.fetch_add(1, Ordering::SeqCst);
                let now = work.running.fetch_add(1, Ordering::SeqCst) + 1;
                work.most.fetch_max(now, Ordering::SeqCst);
                work.gate.acquire().await.unwrap().forget();
                work.running.fetch_sub(1, Ordering::SeqCst);
                answer.await
            });
            running.await.unwrap_or(Err(StoreError::Stopped))
        })
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }
}

/// A store whose reads wait for a gate, or return damaged content and whose withdrawals wait.
struct Gated {
    store: FsBlobStore,
    reads: Option<Work>,
    withdrawals: Option<Work>,
}

impl BlobStore for Gated {
    fn size(&self, id: BlobId) -> StoreFuture<Option<u64>> {
        BlobStore::size(&self.store, id)
    }

    fn reader(&self, id: BlobId) -> StoreFuture<Option<Arc<dyn BlobReader>>> {
        let (reader, reads) = (BlobStore::reader(&self.store, id), self.reads.clone());
        Box::pin(async move {
            let gated = |reader| Arc::new(GatedReader { reader, reads }) as Arc<dyn BlobReader>;
            Ok(reader.await?.map(gated))
        })
    }

    fn withdraw(&self, id: BlobId) -> StoreFuture<bool> {
        let withdrawn = BlobStore::withdraw(&self.store, id);
        match &self.withdrawals {
            Some(work) => work.run(Box::pin(async { Ok(true) })),
            None => withdrawn,
        }
    }

    fn writer(&self) -> StoreFuture<Box<dyn BlobWriter>> {
        BlobStore::writer(&self.store)
    }

    fn partial(&self, list: ChunkList) -> StoreFuture<Arc<dyn PartialBlob>> {
        BlobStore::partial(&self.store, list)
    }

    fn put_batch(&self, blobs: Vec<(Option<BlobId>, Bytes)>) -> StoreFuture<StoredBatch> {
        BlobStore::put_batch(&self.store, blobs)
    }
}

struct GatedReader {
    reader: Arc<dyn BlobReader>,
    reads: Option<Work>,
}

impl BlobReader for GatedReader {
    fn id(&self) -> BlobId {
        self.reader.id()
    }

    fn size_bytes(&self) -> u64 {
        self.reader.size_bytes()
    }

    fn list(&self) -> StoreFuture<ChunkList> {
        self.reader.list()
    }

    fn read(&self, range: Range<u64>) -> StoreFuture<Bytes> {
        match &self.reads {
            Some(work) => work.run(self.reader.read(range)),
            None => Box::pin(async move {
                let len = (range.end - range.start) as usize;
                Ok(Bytes::from(vec![0; len]))
            }),
        }
    }
}

pub(crate) fn encoded(requests: impl IntoIterator<Item = Request>) -> BytesMut {
    let mut wire = BytesMut::new();
    for request in requests {
        RequesterCodec.encode(request, &mut wire).unwrap();
    }
    wire
}

pub(crate) fn hello() -> Request {
    Request::Hello(Hello {
        context_id: CONTEXT,
        auth: None,
    })
}

/// Sends a request of another peer on each of many streams, and ends each stream by a second
/// greeting while the store works for it.
async fn open_and_end(server: &Server, request: Request) {
    for number in 0..STREAMS {
        let (mut ours, theirs) = tokio::io::duplex(1 << 16);
        let serving = server.serve(numbered(number), Version::V1, theirs.compat());
        let serving = tokio::spawn(serving);
        let begin = encoded([hello(), request.clone()]);
        ours.write_all(&begin).await.unwrap();
        // Until nothing runs any more.
        sleep(Duration::from_millis(1)).await;
        ours.write_all(&encoded([hello()])).await.unwrap();
        let ended = serving.await.unwrap();
        assert!(matches!(ended, Err(ServeError::Greeting)), "{ended:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn work_for_streams_that_ended_counts_until_it_is_done() {
    let there = folder();
    let large = there.store.put(&content(1, 3 * MIB)).unwrap().id;
    let small = there.store.put(&content(2, 700)).unwrap().id;
    let chunks = Request::Read {
        blob_id: large,
        ranges: vec![0..3],
    };
    let inline = Request::Get {
        blob_id: small,
        inline_max_bytes: 65_536,
        from: 0,
    };
    for request in [chunks, inline] {
        let work = Work::new();
        let store = Gated {
            store: there.store.clone(),
            reads: Some(work.clone()),
            withdrawals: None,
        };
        let config = BlobServeConfig::default();
        let server = Server::new(numbered(1000), Arc::new(store), &config);
        open_and_end(&server, request.clone()).await;
        assert_eq!(work.most(), config.max_chunks, "{request:?}");
        // The permits are free again once the work is done.
        work.gate.add_permits(work.begun());
        sleep(Duration::from_millis(1)).await;
        let before = work.begun();
        open_and_end(&server, request).await;
        assert_eq!(work.begun() - before, config.max_chunks);
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_blob_is_withdrawn_once_however_many_streams_end() {
    let there = folder();
    let id = there.store.put(&content(3, 3 * MIB)).unwrap().id;
    let work = Work::new();
    let store = Gated {
        store: there.store.clone(),
        reads: None,
        withdrawals: Some(work.clone()),
    };
    let (events, mut reported) = mpsc::channel(STREAMS as usize + 1);
    let config = BlobServeConfig::default();
    let server = Server::new(numbered(1000), Arc::new(store), &config).with_events(events);
    let read = Request::Read {
        blob_id: id,
        ranges: vec![0..1],
    };
    open_and_end(&server, read).await;
    assert_eq!(work.begun(), 1);
    work.gate.add_permits(1);
    sleep(Duration::from_millis(1)).await;
    let mut damaged = 0;
    while let Ok(event) = reported.try_recv() {
        damaged += usize::from(event == ServeEvent::Damaged { blob_id: id });
    }
    assert_eq!(damaged, 1);
}

/// A stream whose requester waits for a permit while this node gives up its download of the blob.
#[tokio::test(start_paused = true)]
async fn a_requester_that_waits_does_not_hold_a_download() {
    let there = folder();
    let content = content(4, (3 << 20) + 5);
    let id = there.store.put(&content).unwrap().id;
    let store: Arc<dyn BlobStore> = Arc::new(there.store.clone());
    let config = BlobServeConfig::default();
    let provider = Server::new(numbered(1), store, &config);
    let pipes = Pipes::new(numbered(1), Version::V1, move |pipe| {
        slowly(&provider, Version::V1, pipe, 512 * 1024)
    });
    let here = folder();
    let identity = Identity::unsigned(requester());
    let fetcher = Fetcher::new(pipes, identity, &BlobFetchConfig::default());
    let resources = Resources::new(Limits::default());
    let store: Arc<dyn BlobStore> = Arc::new(here.store.clone());
    let server = Server::new(requester(), store, &config)
        .with_resources(resources.clone())
        .with_fetcher(&fetcher);
    let fetch = || {
        let request = FetchRequest::new(CONTEXT, id);
        fetcher.fetch(request, stream::iter([numbered(1)]), to_store(&here.store))
    };
    let first = tokio::spawn(fetch());
    // Until the first chunk is here.
    while here.store.usage().partial_bytes < MIB as u64 {
        sleep(Duration::from_millis(100)).await;
    }
    let holder = resources.holder(Some(numbered(2)), None);
    let mut held = Vec::new();
    while let Ok(permit) = holder.take(Resource::BlobBytes, MIB as u64) {
        held.push(permit);
    }
    let (mut ours, theirs) = tokio::io::duplex(1 << 16);
    let serving = server.serve(numbered(2), Version::V1_1, theirs.compat());
    let serving = tokio::spawn(serving);
    let watch = Request::Watch {
        blob_id: id,
        serves: false,
    };
    let read = Request::Read {
        blob_id: id,
        ranges: vec![0..1],
    };
    ours.write_all(&encoded([hello(), watch, read]))
        .await
        .unwrap();
    sleep(Duration::from_millis(1)).await;
    first.abort();
    first.await.unwrap_err();
    let fetched = fetch().await.unwrap();
    assert!(fetched.resumed_bytes >= MIB as u64);
    assert!(!serving.is_finished(), "it waits for a permit");
    drop(held);
}

/// Takes a byte every 19 seconds, less than the time after which a stream counts as stalled.
#[tokio::test(start_paused = true)]
async fn a_requester_that_takes_a_byte_at_a_time_loses_its_stream() {
    let there = folder();
    for len in [0, 700, 3 * MIB] {
        let id = there.store.put(&content(5, len)).unwrap().id;
        let store: Arc<dyn BlobStore> = Arc::new(there.store.clone());
        let server = Server::new(numbered(1), store, &BlobServeConfig::default());
        let (mut ours, theirs) = tokio::io::duplex(1);
        let serving = server.serve(numbered(2), Version::V0, theirs.compat());
        let serving = tokio::spawn(serving);
        let request = BlobRequest {
            blob_id: id,
            context_id: CONTEXT,
            auth: None,
        };
        ours.write_all(&frame(&request.encode().unwrap()))
            .await
            .unwrap();
        let trickle = tokio::spawn(async move {
            let mut byte = [0];
            while let Ok(1..) = ours.read(&mut byte).await {
                sleep(Duration::from_secs(19)).await;
            }
        });
        let begun = Instant::now();
        let ended = serving.await.unwrap();
        let late = matches!(&ended, Err(ServeError::Slow { .. }))
            || matches!(&ended, Err(ServeError::Io(error)) if error.kind() == io::ErrorKind::TimedOut);
        assert!(late, "{len}: {ended:?}");
        assert!(
            begun.elapsed() <= Duration::from_secs(64),
            "{len}: {:?}",
            begun.elapsed()
        );
        trickle.abort();
    }
}
