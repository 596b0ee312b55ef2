//! The end of a node, and its return, while it is busy.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use calimero_network::{
    BlobEvent, BlobId, ConnectionEvent, ContextId, GossipEvent, Keypair, Multiaddr, NetworkClient,
    NetworkConfig, NetworkEvent, NetworkManager, PeerId, PublishError, Stopped, StreamEvent, Topic,
    blob::{
        fetch::Destination,
        store::{FsBlobStore, FsConfig, StoreError},
    },
    config::RuntimeKind,
    discovery::cache::FileCache,
};
use common::{LIMIT, Node, Over, config, loopback, start, within};

const CONTEXT: ContextId = ContextId::new([7; 32]);

fn topics() -> Vec<Topic> {
    (0..5)
        .map(|nth| Topic::context(ContextId::new([nth; 32])))
        .collect()
}

fn local(boot: &[Multiaddr]) -> NetworkConfig {
    let mut config = config();
    config.listen = vec![loopback(Over::Tcp)];
    config.discovery.local_network = true;
    config.discovery.boot = boot.to_vec();
    config
}

/// A node that remembers peers and keeps blobs in a folder.
struct Kept {
    node: Node,
    store: FsBlobStore,
}

/// A store is locked until the manager that used it has let it go.
async fn open_store(path: &Path) -> FsBlobStore {
    let opened = async {
        loop {
            match FsBlobStore::open(path, &FsConfig::default()) {
                Ok(store) => return store,
                Err(StoreError::Locked { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    within(opened).await
}

async fn start_kept(identity: &Keypair, config: NetworkConfig, folder: &Path) -> Kept {
    let blobs = folder.join("blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let store = open_store(&blobs).await;
    let builder = NetworkManager::builder(identity.clone(), config)
        .peer_cache(FileCache::new(folder.join("peers")))
        .blobs(Arc::new(store.clone()));
    let (client, events) = builder.start().await.unwrap();
    for topic in topics() {
        client.subscribe(&topic).await.unwrap();
    }
    let node = Node { client, events };
    Kept { node, store }
}

/// Waits until a member of each overlay is known.
async fn until_met(node: &mut Node, peer: PeerId) {
    for topic in topics() {
        let known = node.client.subscribed_peers(&topic).await.unwrap();
        if known.contains(&peer) {
            continue;
        }
        node.wait_for(|event| match event {
            NetworkEvent::Gossip(GossipEvent::Subscribed { peer: of, topic: t }) => {
                (of == peer && t == topic).then_some(())
            }
            _ => None,
        })
        .await;
    }
}

/// What a node does until it has stopped: publishes, writes 64 streams, fetches blobs. Each task
/// ends by the error that says so.
struct Busy {
    tasks: Vec<tokio::task::JoinHandle<()>>,
    fetching: tokio::task::JoinHandle<Vec<BlobId>>,
}

/// Streams that are written to, all at one time, and how often to each and to each topic: what an
/// unoptimised build on a busy machine carries.
const STREAMS: usize = 64;
const WRITE_EVERY: Duration = Duration::from_millis(50);
const PUBLISH_EVERY: Duration = Duration::from_millis(20);

/// Reads whatever comes on every stream that is opened to it, and every event.
fn serve(mut node: Node) -> NetworkClient {
    let client = node.client.clone();
    tokio::spawn(async move {
        while let Some(event) = node.events.next().await {
            if let NetworkEvent::Stream(StreamEvent::Opened { mut stream, .. }) = event {
                tokio::spawn(async move { while let Some(Ok(_)) = stream.next().await {} });
            }
        }
    });
    client
}

fn is_stopped(error: &PublishError) -> bool {
    matches!(error, PublishError::Stopped(_))
}

async fn busy(kept: &Kept, to: PeerId, blobs: Vec<BlobId>) -> Busy {
    let client = &kept.node.client;
    let mut tasks = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = within(client.open_stream(to)).await.unwrap();
        let frame = Bytes::from(vec![5; 4 * 1024]);
        tasks.push(tokio::spawn(async move {
            let mut ticks = tokio::time::interval(WRITE_EVERY);
            while stream.send(frame.clone()).await.is_ok() {
                ticks.tick().await;
            }
        }));
    }
    for topic in topics() {
        let client = client.clone();
        tasks.push(tokio::spawn(async move {
            let mut ticks = tokio::time::interval(PUBLISH_EVERY);
            loop {
                ticks.tick().await;
                // Its last peer may disconnect first: only its own shutdown ends it.
                let published = client.publish(&topic, vec![3; 1024]).await;
                if published.is_err_and(|error| is_stopped(&error)) {
                    break;
                }
            }
        }));
    }
    let (client, store) = (client.clone(), kept.store.clone());
    let fetching = tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        for id in blobs {
            let into = Destination::Store(Arc::new(store.clone()));
            match client.request_blob(CONTEXT, id, vec![to], into).await {
                Ok(_) => acknowledged.push(id),
                Err(_) => break,
            }
        }
        acknowledged
    });
    Busy { tasks, fetching }
}

impl Busy {
    /// Waits for all of it to end, which it does when the node has. Gives the blobs that came.
    async fn ended(self) -> Vec<BlobId> {
        for task in self.tasks {
            within(task).await.unwrap();
        }
        within(self.fetching).await.unwrap()
    }
}

fn fill(store: &FsBlobStore, count: u16) -> Vec<BlobId> {
    let mut batch = store.batch();
    for nth in 0..count {
        let content = [nth.to_be_bytes(); 8 * 1024].concat();
        batch.add(None, &content).unwrap();
    }
    batch.commit().unwrap().ids
}

/// A boot node, and a member that stays, with blobs.
async fn company(folder: &Path) -> (Node, Vec<Multiaddr>, PeerId, NetworkClient, Vec<BlobId>) {
    let mut server = local(&[]);
    server.server.rendezvous.enabled = true;
    let boot = start(server).await;
    let addresses = vec![boot.listen(Over::Tcp).await];
    let identity = Keypair::generate_ed25519();
    let stays = start_kept(&identity, local(&addresses), folder).await;
    let blobs = fill(&stays.store, 300);
    let peer = stays.node.peer();
    (boot, addresses, peer, serve(stays.node), blobs)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_node_is_shut_down_and_comes_back_with_all_it_had() {
    let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_boot, boots, stays, _stays_running, blobs) = company(there.path()).await;
    let identity = Keypair::generate_ed25519();
    let mut acknowledged = Vec::new();
    let mut left = blobs;
    for _ in 0..3 {
        let mut kept = start_kept(&identity, local(&boots), here.path()).await;
        for id in &acknowledged {
            assert!(kept.store.has(id), "{id} is lost");
            kept.store.verify(id).unwrap();
        }
        until_met(&mut kept.node, stays).await;
        let busy = busy(&kept, stays, left.clone()).await;
        kept.node
            .wait_for(|event| {
                matches!(event, NetworkEvent::Blob(BlobEvent::Downloaded { .. })).then_some(())
            })
            .await;
        let limit = kept.node.client.config().handle.shutdown_timeout;
        // The machine's time to wake a thread is not the node's.
        let shutdown = tokio::time::timeout(limit + LIMIT / 6, kept.node.client.shutdown());
        shutdown.await.expect("in time").unwrap();
        all_stopped(&kept.node.client, stays).await;
        while within(kept.node.events.next()).await.is_some() {}
        drop(kept);
        let came = busy.ended().await;
        assert!(!came.is_empty());
        left.retain(|id| !came.contains(id));
        acknowledged.extend(came);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_node_that_is_dropped_comes_back_with_all_it_had() {
    let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_boot, boots, stays, _stays_running, blobs) = company(there.path()).await;
    let identity = Keypair::generate_ed25519();
    let path = here.path().to_owned();
    // Its runtime ends, as with a process that is killed: nothing is sent and nothing is saved.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (own, mut shared) = (identity.clone(), local(&boots));
    shared.handle.runtime = RuntimeKind::Shared;
    let (told, came) = tokio::sync::oneshot::channel();
    runtime.spawn(async move {
        let mut kept = start_kept(&own, shared, &path).await;
        until_met(&mut kept.node, stays).await;
        let busy = busy(&kept, stays, blobs).await;
        let id = kept.node.wait_for(|event| match event {
            NetworkEvent::Blob(BlobEvent::Downloaded { blob_id, .. }) => Some(blob_id),
            _ => None,
        });
        let id = id.await;
        let client = kept.node.client.clone();
        let _ = told.send((id, client));
        busy.ended().await;
    });
    let (id, client) = within(came).await.unwrap();
    runtime.shutdown_background();
    all_stopped(&client, stays).await;
    drop(client);

    let mut kept = start_kept(&identity, local(&boots), here.path()).await;
    assert!(kept.store.has(&id), "{id} is lost");
    kept.store.verify(&id).unwrap();
    until_met(&mut kept.node, stays).await;
}

/// Every call of a handle whose manager has stopped says so, soon.
async fn all_stopped(client: &NetworkClient, other: PeerId) {
    let until = async {
        while client.peer_count() != Err(Stopped) {
            tokio::task::yield_now().await;
        }
    };
    within(until).await;
    let topic = &topics()[0];
    assert_eq!(within(client.status()).await.err(), Some(Stopped));
    assert_eq!(within(client.mesh_peers(topic)).await, Err(Stopped));
    assert_eq!(within(client.mesh_peer_count(topic)).await, Err(Stopped));
    assert_eq!(within(client.subscribed_peers(topic)).await, Err(Stopped));
    assert_eq!(within(client.mesh_stats()).await.err(), Some(Stopped));
    assert_eq!(within(client.metrics()).await.err(), Some(Stopped));
    assert_eq!(within(client.unsubscribe(topic)).await, Err(Stopped));
    assert_eq!(
        within(client.set_peer_score(other, 1.0)).await,
        Err(Stopped)
    );
    assert_eq!(within(client.disconnect(other)).await, Err(Stopped));
    assert!(within(client.subscribe(topic)).await.is_err());
    let published = within(client.publish(topic, "late")).await;
    assert!(published.as_ref().is_err_and(is_stopped), "{published:?}");
    let stored = client.announce_blob(CONTEXT, calimero_network::blob::blob_id(b"late"));
    assert!(within(stored).await.is_err());
    assert!(
        within(client.query_blob(CONTEXT, calimero_network::blob::blob_id(b"late")))
            .await
            .is_err()
    );
    let opened = within(client.open_stream(other)).await;
    assert!(matches!(opened, Err(calimero_network::OpenError::Stopped)));
    let folder = tempfile::tempdir().unwrap();
    let to = Destination::File(folder.path().join("late"));
    let fetched = client.request_blob(
        CONTEXT,
        calimero_network::blob::blob_id(b"late"),
        vec![other],
        to,
    );
    assert!(within(fetched).await.is_err());
    assert_eq!(within(client.shutdown()).await, Err(Stopped));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_works_on_when_its_events_are_dropped_under_load() {
    let (a, b) = common::pair(Over::Tcp).await;
    let topic = topics().remove(0);
    within(b.client.subscribe(&topic)).await.unwrap();
    let flooding = Arc::new(AtomicBool::new(true));
    let flood = {
        let (client, flooding, topic) = (a.client.clone(), flooding.clone(), topic.clone());
        tokio::spawn(async move {
            let mut sent = 0_u64;
            while flooding.load(Ordering::Relaxed) {
                match client.publish(&topic, vec![9; 1024]).await {
                    Ok(_) => sent += 1,
                    Err(PublishError::Stopped(_)) => panic!("stopped"),
                    Err(_) => tokio::task::yield_now().await,
                }
            }
            sent
        })
    };
    let delivered = async |at_least: u64| {
        let until = async {
            while b.client.mesh_stats().await.unwrap().counters.delivered < at_least {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        within(until).await;
    };
    delivered(100).await;
    drop(b.events);
    delivered(1000).await;
    // Streams that cannot be read are released.
    let mut stream = within(a.client.open_stream(b.client.peer_id()))
        .await
        .unwrap();
    let _ = within(stream.send("hi".into())).await;
    assert!(!matches!(within(stream.next()).await, Some(Ok(_))));
    flooding.store(false, Ordering::Relaxed);
    assert!(within(flood).await.unwrap() >= 1000);
    within(b.client.shutdown()).await.unwrap();
}

#[tokio::test]
async fn a_read_shows_what_was_told() {
    let (mut a, b) = common::pair(Over::Tcp).await;
    let (topic, peer) = (topics().remove(0), b.peer());
    let subscribed = |node: &Node| {
        let client = node.client.clone();
        let topic = topic.clone();
        async move { client.subscribed_peers(&topic).await.unwrap() }
    };
    // Many rounds, which wait for events only.
    for _ in 0..50 {
        assert_eq!(subscribed(&a).await, []);
        within(b.client.subscribe(&topic)).await.unwrap();
        a.wait_for(|event| {
            matches!(event, NetworkEvent::Gossip(GossipEvent::Subscribed { .. })).then_some(())
        })
        .await;
        assert_eq!(subscribed(&a).await, [peer]);
        within(b.client.unsubscribe(&topic)).await.unwrap();
        a.wait_for(|event| {
            matches!(
                event,
                NetworkEvent::Gossip(GossipEvent::Unsubscribed { .. })
            )
            .then_some(())
        })
        .await;
    }
    for _ in 0..10 {
        assert_eq!(a.connections().await, 1);
        within(b.client.disconnect(a.peer())).await.unwrap();
        a.wait_for(|event| {
            matches!(
                event,
                NetworkEvent::Connection(ConnectionEvent::Disconnected { .. })
            )
            .then_some(())
        })
        .await;
        assert_eq!(a.connections().await, 0);
        let address = a.listen(Over::Tcp).await;
        within(b.client.dial(address)).await.unwrap();
        assert_eq!(b.connections().await, 1);
        a.wait_for(|event| {
            matches!(
                event,
                NetworkEvent::Connection(ConnectionEvent::Connected(_))
            )
            .then_some(())
        })
        .await;
    }
    let listened = a.client.status().await.unwrap().listening.len();
    let (_, another) = a.client.listen_on(loopback(Over::Tcp)).await.unwrap();
    let listening = a.client.status().await.unwrap().listening;
    assert_eq!(listening.len(), listened + 1);
    assert!(listening.contains(&another));
}
