//! Providers and requesters on loopback.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use calimero_network_blob::{
    BlobHasher, BlobId, ChunkList,
    fetch::{
        BlobFetchConfig, BlobFetchTuning, Destination, FetchError, FetchRequest, Fetched, Fetcher,
        Transfer,
    },
    serve::Server,
    store::{BlobStore, FsBlobStore, FsConfig},
    transfer::{Identity, Opened, Opener, Version},
};
use calimero_network_primitives::{
    ContextId, Keypair, PeerId, config::BlobServeConfig, identity::ed25519,
    limits::BLOB_CHUNK_BYTES,
};
use futures::{future::BoxFuture, stream};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

pub(crate) const CONTEXT: ContextId = ContextId::new([0x11; 32]);

/// What nothing here takes on a loaded machine.
pub(crate) const LONG: Duration = Duration::from_secs(180);

pub(crate) fn peer(seed: u8) -> PeerId {
    Keypair::ed25519_from_bytes([seed; 32])
        .unwrap()
        .public()
        .to_peer_id()
}

/// A key to sign requests with.
pub(crate) fn signer() -> ed25519::Keypair {
    ed25519::SecretKey::try_from_bytes([42; 32]).unwrap().into()
}

/// Content that no other seed has.
pub(crate) fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut content: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| next()).collect();
    content.truncate(len);
    content
}

pub(crate) fn list(content: &[u8]) -> ChunkList {
    let mut hasher = BlobHasher::new();
    hasher.update(content).unwrap();
    hasher.finish().list
}

/// A store in a folder that goes with it.
pub(crate) struct Folder {
    pub(crate) store: FsBlobStore,
    _dir: TempDir,
}

pub(crate) fn folder() -> Folder {
    let dir = tempfile::tempdir().unwrap();
    let store = FsBlobStore::open(dir.path(), &FsConfig::default()).unwrap();
    Folder { store, _dir: dir }
}

pub(crate) fn read_all(store: &FsBlobStore, id: &BlobId) -> Vec<u8> {
    let reader = store.reader(id).unwrap().expect("the blob is there");
    let chunks = reader.size_bytes().div_ceil(BLOB_CHUNK_BYTES as u64);
    (0..chunks)
        .flat_map(|index| reader.chunk(index).unwrap())
        .collect()
}

pub(crate) type Socket = Compat<TcpStream>;
type Serve = Arc<dyn Fn(Socket) -> BoxFuture<'static, ()> + Send + Sync>;

/// Where each provider listens, what it speaks, and how often it was called.
#[derive(Clone, Default)]
pub(crate) struct Net {
    providers: Arc<Mutex<HashMap<PeerId, (SocketAddr, Version)>>>,
    opens: Arc<AtomicUsize>,
    /// How many streams are relayed before one is direct.
    pub(crate) relayed: Arc<AtomicUsize>,
}

impl Net {
    /// Adds a provider that does what `serve` does with each stream.
    pub(crate) async fn add(
        &self,
        peer: PeerId,
        version: Version,
        serve: impl Fn(Socket) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) {
        let serve: Serve = Arc::new(serve);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        self.providers.lock().unwrap().insert(peer, (addr, version));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).unwrap();
                tokio::spawn(serve(socket.compat()));
            }
        });
    }

    /// Adds a provider that listens in another process.
    #[cfg(target_os = "linux")]
    pub(crate) fn add_at(&self, peer: PeerId, version: Version, addr: SocketAddr) {
        self.providers.lock().unwrap().insert(peer, (addr, version));
    }

    /// Adds an honest provider.
    pub(crate) async fn add_server(&self, peer: PeerId, version: Version, server: Server) {
        self.add(peer, version, move |socket| {
            let serving = server.serve(requester(), version, socket);
            Box::pin(async move {
                let _ = serving.await;
            })
        })
        .await;
    }

    /// Adds an honest provider of a store.
    pub(crate) async fn add_store(&self, peer: PeerId, version: Version, store: &FsBlobStore) {
        let store: Arc<dyn BlobStore> = Arc::new(store.clone());
        let server = Server::new(peer, store, &BlobServeConfig::default());
        self.add_server(peer, version, server).await;
    }

    pub(crate) fn opens(&self) -> usize {
        self.opens.load(Ordering::SeqCst)
    }
}

impl Opener for Net {
    type Stream = Socket;
    type Error = io::Error;

    async fn open(&self, peer: PeerId) -> io::Result<Opened<Socket>> {
        self.opens.fetch_add(1, Ordering::SeqCst);
        let known = self.providers.lock().unwrap().get(&peer).copied();
        let (addr, version) = known.ok_or(io::ErrorKind::NotFound)?;
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let left = self
            .relayed
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            });
        Ok(Opened {
            stream: stream.compat(),
            version,
            relayed: left.is_ok(),
        })
    }
}

pub(crate) fn requester() -> PeerId {
    peer(200)
}

/// Deadlines short enough for a test, long enough for a loaded machine.
pub(crate) fn impatient() -> BlobFetchConfig {
    BlobFetchConfig {
        tuning: BlobFetchTuning {
            stall_timeout: Duration::from_secs(4),
            floor_span: Duration::from_secs(8),
            rest_initial: Duration::from_millis(50),
            rest_max: Duration::from_millis(200),
            max_failures: 2,
            search_timeout: Duration::from_secs(5),
            ..BlobFetchTuning::default()
        },
        ..BlobFetchConfig::default()
    }
}

pub(crate) fn fetcher(net: &Net, config: &BlobFetchConfig) -> Fetcher {
    Fetcher::new(net.clone(), Identity::unsigned(requester()), config)
}

pub(crate) fn start(
    net: &Net,
    config: &BlobFetchConfig,
    blob_id: BlobId,
    providers: impl IntoIterator<Item = PeerId>,
    to: Destination,
) -> Transfer {
    let request = FetchRequest::new(CONTEXT, blob_id);
    let providers: Vec<_> = providers.into_iter().collect();
    fetcher(net, config).fetch(request, stream::iter(providers), to)
}

pub(crate) fn to_store(store: &FsBlobStore) -> Destination {
    Destination::Store(Arc::new(store.clone()))
}

/// Fetches into a store, within a deadline.
pub(crate) async fn fetch(
    net: &Net,
    config: &BlobFetchConfig,
    blob_id: BlobId,
    providers: impl IntoIterator<Item = PeerId>,
    store: &FsBlobStore,
) -> Result<Fetched, FetchError> {
    let transfer = start(net, config, blob_id, providers, to_store(store));
    tokio::time::timeout(LONG, transfer).await.expect("no end")
}

/// A writer that stores all bytes in memory.
#[derive(Clone, Default)]
pub(crate) struct Memory(pub(crate) Arc<Mutex<Vec<u8>>>);

impl futures::AsyncWrite for Memory {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        from: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        self.0.lock().unwrap().extend_from_slice(from);
        std::task::Poll::Ready(Ok(from.len()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_close(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

/// The frame of 0.0.2 around a payload.
pub(crate) fn frame(payload: &[u8]) -> Bytes {
    let prefix = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&prefix[..], payload].concat().into()
}

/// The frame of 0.0.2 with a piece of content.
pub(crate) fn chunk_frame(data: &[u8]) -> Bytes {
    let prefix = u32::try_from(data.len()).unwrap().to_le_bytes();
    frame(&[&prefix[..], data].concat())
}
