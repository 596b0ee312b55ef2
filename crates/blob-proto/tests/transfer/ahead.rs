//! What a provider reads from its store, and when.

use std::{ops::Range, sync::Arc};

use asynchronous_codec::Encoder;
use bytes::{Bytes, BytesMut};
use calimero_network_blob::{
    BlobId, ChunkList,
    serve::Server,
    store::{
        BlobReader, BlobStore, BlobWriter, FsBlobStore, PartialBlob, StoreFuture, StoredBatch,
    },
    transfer::Version,
    v0::BlobRequest,
    v1::{Hello, Request, RequesterCodec},
};
use calimero_network_primitives::config::BlobServeConfig;
use futures::{AsyncWriteExt, future};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::{
    cut::cut_after,
    net::{CONTEXT, LONG, content, folder, frame, peer, requester},
};

const MIB: usize = 1 << 20;

/// A store that reports which ranges are read.
struct Told {
    store: FsBlobStore,
    reads: mpsc::Sender<Range<u64>>,
}

impl BlobStore for Told {
    fn size(&self, id: BlobId) -> StoreFuture<Option<u64>> {
        BlobStore::size(&self.store, id)
    }

    fn reader(&self, id: BlobId) -> StoreFuture<Option<Arc<dyn BlobReader>>> {
        let (reader, reads) = (BlobStore::reader(&self.store, id), self.reads.clone());
        Box::pin(async move {
            let told = |reader| Arc::new(ToldReader { reader, reads }) as Arc<dyn BlobReader>;
            Ok(reader.await?.map(told))
        })
    }

    fn writer(&self) -> StoreFuture<Box<dyn BlobWriter>> {
        BlobStore::writer(&self.store)
    }

    fn partial(&self, list: ChunkList) -> StoreFuture<Arc<dyn PartialBlob>> {
        BlobStore::partial(&self.store, list)
    }

    fn put_batch(&self, blobs: Vec<(Option<BlobId>, Bytes)>) -> StoreFuture<StoredBatch> {
        self.store.put_batch(blobs)
    }
}

struct ToldReader {
    reader: Arc<dyn BlobReader>,
    reads: mpsc::Sender<Range<u64>>,
}

impl BlobReader for ToldReader {
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
        self.reads.try_send(range.clone()).unwrap();
        self.reader.read(range)
    }
}

fn request(version: Version, blob_id: BlobId) -> Vec<u8> {
    let hello = Request::Hello(Hello {
        context_id: CONTEXT,
        auth: None,
    });
    let all = 0..8;
    let read = Request::Read {
        blob_id,
        ranges: vec![all],
    };
    let v0 = BlobRequest {
        blob_id,
        context_id: CONTEXT,
        auth: None,
    };
    match version {
        Version::V0 => frame(&v0.encode().unwrap()).to_vec(),
        Version::V1_1 | Version::V1 => {
            let mut wire = BytesMut::new();
            RequesterCodec.encode(hello, &mut wire).unwrap();
            RequesterCodec.encode(read, &mut wire).unwrap();
            wire.to_vec()
        }
    }
}

/// While the first chunk is stuck halfway, the second one is read, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn one_chunk_is_read_ahead() {
    let there = folder();
    let id = there.store.put(&content(7, 8 * MIB)).unwrap().id;
    for version in [Version::V1, Version::V0] {
        let (reads, mut heard) = mpsc::channel(8);
        let store = there.store.clone();
        let store: Arc<dyn BlobStore> = Arc::new(Told { store, reads });
        let server = Server::new(peer(1), store, &BlobServeConfig::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (ours, theirs) = future::join(TcpStream::connect(addr), listener.accept()).await;
        let (theirs, stuck) = cut_after(MIB / 2, theirs.unwrap().0.compat());
        let serving = tokio::spawn(server.serve(requester(), version, theirs));

        let mut socket = ours.unwrap().compat();
        socket.write_all(&request(version, id)).await.unwrap();
        let (mut sink, drained) = (futures::io::sink(), MIB as u64);
        let _drain = tokio::spawn(async move {
            let taken = futures::AsyncReadExt::take(socket, drained);
            futures::io::copy(taken, &mut sink).await
        });
        timeout(LONG, stuck).await.expect("it never got stuck");
        for chunk in [0, 1] {
            let read = timeout(LONG, heard.recv()).await.expect("no read");
            let start = chunk * MIB as u64;
            assert_eq!(read, Some(start..start + MIB as u64), "{version:?}");
        }
        assert!(heard.try_recv().is_err(), "{version:?} reads too far");
        serving.abort();
    }
}
