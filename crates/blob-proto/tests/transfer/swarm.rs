//! Peers that fetch one blob at the same time and give each other what they have.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    ops::Range,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use asynchronous_codec::{Encoder, FramedRead};
use bytes::BytesMut;
use calimero_network_blob::{
    BlobId, ChunkList,
    fetch::{BlobFetchConfig, Destination, FetchError, FetchRequest, Fetched, Fetcher, Providers},
    serve::{ServeError, Server},
    store::BlobStore,
    transfer::{Identity, Opened, Opener, Version},
    v1::{Hello, ListPage, Refusal, Request, RequesterCodec, Response},
};
use calimero_network_primitives::{PeerId, config::BlobServeConfig};
use futures::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt, TryStreamExt,
    future::{self, BoxFuture},
    stream,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::net::{CONTEXT, Folder, LONG, Socket, content, folder, impatient, list, peer, read_all};

const MIB: usize = 1 << 20;

/// Bytes that are written at one time on a limited uplink.
const PIECE: usize = 16 * 1024;

/// The uplink of a provider: a rate for all its streams together, and what was sent.
struct Uplink {
    bytes_per_s: u64,
    free: Mutex<Instant>,
    sent: AtomicU64,
}

impl Uplink {
    fn new(bytes_per_s: u64) -> Arc<Self> {
        Arc::new(Self {
            bytes_per_s,
            free: Mutex::new(Instant::now()),
            sent: AtomicU64::new(0),
        })
    }

    /// Takes the time for some bytes. Yields when they are through.
    fn send(&self, bytes: usize) -> Instant {
        self.sent.fetch_add(bytes as u64, Ordering::SeqCst);
        let mut free = self.free.lock().unwrap();
        let micros = bytes as u64 * 1_000_000 / self.bytes_per_s;
        *free = (*free).max(Instant::now()) + Duration::from_micros(micros);
        *free
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }
}

/// A socket whose writes pass through an uplink.
struct Limited {
    io: Socket,
    uplink: Option<Arc<Uplink>>,
    busy: Pin<Box<Sleep>>,
}

impl Limited {
    fn new(io: Socket, uplink: Option<Arc<Uplink>>) -> Self {
        let busy = Box::pin(sleep_until(Instant::now()));
        Self { io, uplink, busy }
    }
}

impl AsyncRead for Limited {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_read(cx, to)
    }
}

impl AsyncWrite for Limited {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(uplink) = self.uplink.clone() else {
            return Pin::new(&mut self.io).poll_write(cx, from);
        };
        ready!(future::Future::poll(self.busy.as_mut(), cx));
        let piece = &from[..from.len().min(PIECE)];
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, piece))?;
        let through = uplink.send(written);
        self.busy.as_mut().reset(through);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(cx)
    }
}

type Addresses = Arc<Mutex<HashMap<PeerId, SocketAddr>>>;

/// Opens streams as one peer. Each begins with the number of that peer.
#[derive(Clone)]
struct Dialler {
    seed: u8,
    version: Version,
    addresses: Addresses,
}

impl Opener for Dialler {
    type Stream = Socket;
    type Error = io::Error;

    async fn open(&self, peer: PeerId) -> io::Result<Opened<Socket>> {
        let address = self.addresses.lock().unwrap().get(&peer).copied();
        let stream = TcpStream::connect(address.ok_or(io::ErrorKind::NotFound)?).await?;
        stream.set_nodelay(true)?;
        let mut stream = stream.compat();
        stream.write_all(&[self.seed]).await?;
        Ok(Opened {
            stream,
            version: self.version,
            relayed: false,
        })
    }
}

/// A peer that serves its store, and fetches into it.
struct Node {
    id: PeerId,
    folder: Folder,
    fetcher: Fetcher,
}

impl Node {
    async fn start(seed: u8, net: &Addresses, uplink: Option<Arc<Uplink>>) -> Self {
        Self::start_with(seed, net, uplink, &impatient(), Version::V1_1).await
    }

    async fn start_with(
        seed: u8,
        net: &Addresses,
        uplink: Option<Arc<Uplink>>,
        config: &BlobFetchConfig,
        version: Version,
    ) -> Self {
        let (id, folder) = (peer(seed), folder());
        let dialler = Dialler {
            seed,
            version,
            addresses: Arc::clone(net),
        };
        let fetcher = Fetcher::new(dialler, Identity::unsigned(id), config);
        let store: Arc<dyn BlobStore> = Arc::new(folder.store.clone());
        let server = Server::new(id, store, &BlobServeConfig::default()).with_fetcher(&fetcher);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        net.lock().unwrap().insert(id, address);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).unwrap();
                let (server, uplink) = (server.clone(), uplink.clone());
                tokio::spawn(async move {
                    let mut socket = socket.compat();
                    let mut seed = [0];
                    if socket.read_exact(&mut seed).await.is_ok() {
                        let socket = Limited::new(socket, uplink);
                        let _ = server.serve(peer(seed[0]), version, socket).await;
                    }
                });
            }
        });
        Self {
            id,
            folder,
            fetcher,
        }
    }

    async fn fetch(&self, id: BlobId, providers: impl Into<Providers>) -> Fetched {
        let request = FetchRequest::new(CONTEXT, id);
        let to = Destination::Store(Arc::new(self.folder.store.clone()));
        let fetch = self.fetcher.fetch(request, providers, to);
        let fetched = tokio::time::timeout(LONG, fetch).await.expect("no end");
        fetched.unwrap()
    }
}

/// The bar is counted, not timed: a provider with a slow uplink sends the blob at most twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_sends_a_blob_at_most_twice_to_eight_peers() {
    let net = Addresses::default();
    // 40 Mbit/s.
    let uplink = Uplink::new(5_000_000);
    let provider = Node::start(1, &net, Some(Arc::clone(&uplink))).await;
    let content = content(1, 24 * MIB - 5);
    let id = provider.folder.store.put(&content).unwrap().id;
    let nodes = (2..10).map(|seed| Node::start(seed, &net, None));
    let nodes = future::join_all(nodes).await;
    let begun = Instant::now();
    let fetched = nodes
        .iter()
        .map(|node| node.fetch(id, stream::iter([provider.id])));
    let fetched = future::join_all(fetched).await;
    let sent = uplink.sent();
    println!(
        "{} % of the blob sent in {:?}",
        sent * 100 / content.len() as u64,
        begun.elapsed()
    );
    for node in &nodes {
        assert!(read_all(&node.folder.store, &id) == content);
    }
    let received: Vec<_> = fetched.iter().map(|one| one.received_bytes).collect();
    let wanted = (content.len() * nodes.len()) as u64;
    assert!(
        received.iter().sum::<u64>() <= wanted * 105 / 100,
        "{received:?}"
    );
    assert!(
        sent <= 2 * content.len() as u64,
        "{} % of the blob",
        sent * 100 / content.len() as u64
    );
}

/// A provider that sends the list of a blob and none of its content, and names peers that fetch it.
/// `has` is what it claims to have; with `silent` it answers no request for chunks.
fn lists(
    list: &ChunkList,
    size_bytes: u64,
    has: Vec<Range<u64>>,
    peers: Vec<PeerId>,
    silent: bool,
) -> impl Fn(Socket) -> BoxFuture<'static, ()> + Send + Sync + 'static {
    let page = Response::List(ListPage {
        size_bytes,
        from: 0,
        digests: list.digests().clone(),
    });
    let peers = peers.into_iter().map(PeerId::to_bytes).collect();
    let named = Response::Peers { peers };
    crate::hostile::v1(move |request| match request {
        Request::Hello(_) | Request::Got { .. } => vec![],
        Request::Get { .. } => vec![page.clone()],
        Request::Watch { .. } => {
            let ranges = has.clone();
            vec![Response::Have { ranges }, named.clone()]
        }
        Request::Read { .. } if silent => vec![],
        Request::Read { ranges, .. } => {
            let absent = |index| Response::Absent {
                index,
                retry_after_ms: 0,
            };
            ranges.into_iter().flatten().map(absent).collect()
        }
    })
}

/// Adds a provider that does what `serve` does with each stream.
async fn add(
    seed: u8,
    net: &Addresses,
    serve: impl Fn(Socket) -> BoxFuture<'static, ()> + Send + Sync + 'static,
) -> PeerId {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    net.lock().unwrap().insert(peer(seed), address);
    let serve = Arc::new(serve);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let serve = Arc::clone(&serve);
            tokio::spawn(async move {
                let mut socket = socket.compat();
                if socket.read_exact(&mut [0]).await.is_ok() {
                    serve(socket).await;
                }
            });
        }
    });
    peer(seed)
}

/// Writes some chunks of a blob into a store, as an earlier transfer would.
fn put_part(folder: &Folder, list: &ChunkList, content: &[u8], chunks: Range<usize>) {
    let partial = folder.store.partial(list.clone()).unwrap();
    for (index, chunk) in content.chunks(MIB).enumerate() {
        if chunks.contains(&index) {
            partial.write(index, chunk).unwrap();
        }
    }
}

/// Each has what the other does not have, and the only complete provider has left.
#[tokio::test(flavor = "multi_thread")]
async fn two_peers_with_a_part_each_complete_each_other() {
    let net = Addresses::default();
    let content = content(2, 9 * MIB + 7);
    let list = list(&content);
    let (one, other) = (
        Node::start(2, &net, None).await,
        Node::start(3, &net, None).await,
    );
    put_part(&one.folder, &list, &content, 0..4);
    put_part(&other.folder, &list, &content, 4..10);
    let size_bytes = content.len() as u64;
    let gone = lists(&list, size_bytes, Vec::new(), vec![peer(9)], false);
    let gone = add(1, &net, gone).await;
    // It has seen the first one.
    let names = lists(&list, size_bytes, Vec::new(), vec![one.id], false);
    let names = add(4, &net, names).await;
    let request = FetchRequest::new(CONTEXT, list.id());
    let to = Destination::Store(Arc::new(one.folder.store.clone()));
    let first = one.fetcher.fetch(request, stream::iter([gone]), to);
    let mut progress = first.progress();
    let first = tokio::spawn(first);
    // What it has is offered once it knows the list.
    while progress
        .next()
        .await
        .is_some_and(|now| now.verified_bytes == 0)
    {}
    let second = other.fetch(list.id(), stream::iter([names])).await;
    let first = tokio::time::timeout(LONG, first).await.expect("no end");
    let fetched = (first.unwrap().unwrap(), second);
    assert!(read_all(&one.folder.store, &list.id()) == content);
    assert!(read_all(&other.folder.store, &list.id()) == content);
    assert_eq!(
        fetched.0.providers,
        [(other.id, content.len() as u64 - 4 * MIB as u64)]
    );
    assert_eq!(fetched.1.providers, [(one.id, 4 * MIB as u64)]);
}

/// One that has a part, has nothing that is missing, and learns nothing keeps no transfer alive.
#[tokio::test(flavor = "multi_thread")]
async fn peers_that_have_nothing_end_a_transfer_after_the_search_timeout() {
    let net = Addresses::default();
    let content = content(3, 3 * MIB);
    let list = list(&content);
    let nothing = lists(
        &list,
        content.len() as u64,
        Vec::new(),
        vec![peer(1)],
        false,
    );
    let nothing = add(1, &net, nothing).await;
    let node = Node::start(2, &net, None).await;
    let request = FetchRequest::new(CONTEXT, list.id());
    let to = Destination::Store(Arc::new(node.folder.store.clone()));
    let fetch = node.fetcher.fetch(request, stream::iter([nothing]), to);
    let error = tokio::time::timeout(LONG, fetch).await.expect("no end");
    let error = error.unwrap_err();
    assert!(matches!(error, FetchError::NoProviders { .. }), "{error}");
}

/// It claims all chunks but one, so it is asked before the complete provider, and sends none. No
/// deadline of a provider ends within the test: only the planner helps.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_peer_with_a_part_does_not_hold_a_transfer() {
    let hour = Duration::from_secs(3600);
    let mut config = impatient();
    (config.tuning.stall_timeout, config.tuning.floor_span) = (hour, hour);
    let net = Addresses::default();
    let content = content(4, 12 * MIB);
    let list = list(&content);
    let silent = lists(
        &list,
        content.len() as u64,
        Vec::from([1..12]),
        vec![peer(7)],
        true,
    );
    let silent = add(1, &net, silent).await;
    let provider = Node::start(2, &net, None).await;
    provider.folder.store.put(&content).unwrap();
    let node = Node::start_with(3, &net, None, &config, Version::V1_1).await;
    node.fetch(list.id(), stream::iter([silent, provider.id]))
        .await;
    assert!(read_all(&node.folder.store, &list.id()) == content);
}

/// 1.0.0 has no message for a part of a blob, and no message of 1.1.0.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_1_0_0_gives_no_part_and_takes_no_newer_message() {
    let net = Addresses::default();
    let content = content(5, 4 * MIB);
    let list = list(&content);
    let gone = lists(
        &list,
        content.len() as u64,
        Vec::new(),
        vec![peer(9)],
        false,
    );
    let gone = add(1, &net, gone).await;
    let node = Node::start(2, &net, None).await;
    put_part(&node.folder, &list, &content, 0..2);
    let request = FetchRequest::new(CONTEXT, list.id());
    let to = Destination::Store(Arc::new(node.folder.store.clone()));
    let transfer = node.fetcher.fetch(request, stream::iter([gone]), to);
    let mut progress = transfer.progress();
    let running = tokio::spawn(transfer);
    // Its part is offered once it has the list.
    while progress
        .next()
        .await
        .is_some_and(|now| now.verified_bytes == 0)
    {}
    let store: Arc<dyn BlobStore> = Arc::new(node.folder.store.clone());
    let config = BlobServeConfig::default();
    let server = Server::new(node.id, store, &config).with_fetcher(&node.fetcher);
    let hello = Request::Hello(Hello {
        context_id: CONTEXT,
        auth: None,
    });
    let blob_id = list.id();
    let get = Request::Get {
        blob_id,
        inline_max_bytes: 0,
        from: 0,
    };
    let watch = Request::Watch {
        blob_id,
        serves: true,
    };
    let ranges = Vec::from([1..3]);
    let read = Request::Read { blob_id, ranges };
    let ask = async |version, requests: Vec<Request>| {
        let (near, far) = tokio::io::duplex(4 * MIB);
        let serving = tokio::spawn(server.serve(peer(200), version, far.compat()));
        let (reader, mut writer) = near.compat().split();
        let mut wire = BytesMut::new();
        for request in [&[hello.clone()][..], &requests].concat() {
            RequesterCodec.encode(request, &mut wire).unwrap();
        }
        writer.write_all(&wire).await.unwrap();
        writer.close().await.unwrap();
        let responses = FramedRead::new(reader, RequesterCodec).try_collect::<Vec<_>>();
        let responses = tokio::time::timeout(LONG, responses).await.expect("no end");
        (responses, serving.await.unwrap())
    };
    let (old, _) = ask(Version::V1, vec![get.clone()]).await;
    let old = old.unwrap();
    assert!(
        matches!(old[..], [Response::Refused(Refusal::NotFound)]),
        "{old:?}"
    );
    let (_, ended) = ask(Version::V1, vec![watch.clone()]).await;
    assert!(matches!(ended, Err(ServeError::Version)), "{ended:?}");
    let (twice, ended) = ask(Version::V1_1, vec![watch.clone(), watch.clone()]).await;
    assert!(
        matches!(ended, Err(ServeError::WatchedTwice)),
        "{ended:?} {twice:?}"
    );
    let (new, _) = ask(Version::V1_1, vec![get, watch, read]).await;
    let new = new.unwrap();
    let [
        Response::List(_),
        Response::Have { ranges },
        Response::Chunk { index: 1, data },
        Response::Absent {
            index: 2,
            retry_after_ms: 0,
        },
    ] = &new[..]
    else {
        panic!("{new:?}")
    };
    assert_eq!(ranges[..], [0..2]);
    assert!(data[..] == content[MIB..2 * MIB]);
    running.abort();
}
