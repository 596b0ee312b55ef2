//! Blobs through managers: found in the DHT, fetched, told of.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

mod common;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use calimero_network::{
    AnnounceBlobError, BlobId, ContextId, FetchBlobError, Keypair, NetworkClient, NetworkConfig,
    NetworkEvent, NetworkManager, PeerId,
    blob::{
        fetch::{Destination, FetchError},
        store::{FsBlobStore, FsConfig},
    },
};
use common::{BOTH, LIMIT, Node, Over, config};
use tempfile::TempDir;
use tokio::time::timeout;

const CONTEXT: ContextId = ContextId::new([7; 32]);

const MIB: usize = 1 << 20;

/// A node that serves blobs, and its store.
struct Provider {
    node: Node,
    store: FsBlobStore,
    _dir: TempDir,
}

fn local() -> NetworkConfig {
    let mut config = config();
    config.discovery.local_network = true;
    config.discovery.mdns = false;
    config
}

async fn provider(config: NetworkConfig) -> Provider {
    let dir = tempfile::tempdir().unwrap();
    let store = FsBlobStore::open(dir.path(), &FsConfig::default()).unwrap();
    let builder = NetworkManager::builder(Keypair::generate_ed25519(), config);
    let builder = builder.blobs(Arc::new(store.clone()));
    let (client, events) = builder.start().await.unwrap();
    Provider {
        node: Node { client, events },
        store,
        _dir: dir,
    }
}

fn content(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 3) as u8 ^ seed).collect()
}

async fn request(
    client: &NetworkClient,
    blob_id: BlobId,
    providers: Vec<PeerId>,
    store: &FsBlobStore,
) -> Result<calimero_network::blob::fetch::Fetched, Arc<FetchBlobError>> {
    let to = Destination::Store(Arc::new(store.clone()));
    let transfer = client.request_blob(CONTEXT, blob_id, providers, to);
    timeout(LIMIT, transfer).await.expect("no end")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_moves_over_every_transport_and_is_told_of() {
    for over in BOTH {
        let mut there = provider(local()).await;
        let address = there.node.listen(over).await;
        let mut here = provider(local()).await;
        here.node.client.dial(address).await.unwrap();
        let id = there.store.put(&content(1, 5 * MIB + 3)).unwrap().id;
        let peer = there.node.peer();
        let fetched = request(&here.node.client, id, vec![peer], &here.store).await;
        assert_eq!(fetched.unwrap().providers, [(peer, 5 * MIB as u64 + 3)]);
        assert!(here.store.has(&id));
        let size = here.node.wait_for(|event| match event {
            NetworkEvent::BlobDownloaded {
                blob_id,
                size_bytes,
                ..
            } if blob_id == id => Some(size_bytes),
            _ => None,
        });
        assert_eq!(size.await, 5 * MIB as u64 + 3);
        let requester = here.node.peer();
        let given = there.node.wait_for(|event| match event {
            NetworkEvent::BlobRequested {
                peer,
                blob_id,
                given,
                ..
            } if peer == requester && blob_id == id => Some(given),
            _ => None,
        });
        assert!(given.await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_told_and_names_the_peer() {
    let there = provider(local()).await;
    let address = there.node.listen(Over::Tcp).await;
    let mut here = provider(local()).await;
    here.node.client.dial(address).await.unwrap();
    let id = calimero_network::blob::blob_id(b"nobody has it");
    let peer = there.node.peer();
    let fetched = request(&here.node.client, id, vec![peer], &here.store).await;
    let error = fetched.unwrap_err();
    let FetchBlobError::Fetch(FetchError::NoProviders { failures, .. }) = &*error else {
        panic!("{error}")
    };
    assert_eq!(failures[0].peer, peer);
    let told = here.node.wait_for(|event| match event {
        NetworkEvent::BlobDownloadFailed { blob_id, error, .. } if blob_id == id => Some(error),
        _ => None,
    });
    assert_eq!(told.await.to_string(), error.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_providers_are_found_and_a_withdrawn_one_is_not_renewed() {
    // Everybody knows the hub, and nobody else.
    let hub = provider(local()).await;
    let address = hub.node.listen(Over::Tcp).await;
    let blob = content(2, 3 * MIB);
    let mut expected = BTreeSet::new();
    let mut providers = Vec::new();
    for _ in 0..3 {
        let one = provider(local()).await;
        one.node.listen(Over::Tcp).await;
        one.node.client.dial(address.clone()).await.unwrap();
        let id = one.store.put(&blob).unwrap().id;
        announce(&one.node.client, id).await;
        expected.insert(one.node.peer());
        providers.push(one);
    }
    let id = calimero_network::blob::blob_id(&blob);
    let here = provider(local()).await;
    here.node.client.dial(address).await.unwrap();
    let found = timeout(LIMIT, async {
        loop {
            let mut found = BTreeSet::new();
            let mut query = here.node.client.query_blob(CONTEXT, id).await.unwrap();
            while let Some(provider) = query.next().await {
                found.insert(provider.peer);
            }
            if found == expected {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    found.await.expect("not all are found");
    // Found by the DHT alone, of whom one at least can be dialled through what the hub tells.
    for provider in &providers {
        assert!(
            provider
                .node
                .client
                .withdraw_blob(CONTEXT, id)
                .await
                .unwrap()
        );
        assert!(
            !provider
                .node
                .client
                .withdraw_blob(CONTEXT, id)
                .await
                .unwrap()
        );
    }
    // In another context nobody has it.
    let mut query = (here.node.client)
        .query_blob(ContextId::new([8; 32]), id)
        .await
        .unwrap();
    assert_eq!(timeout(LIMIT, query.next()).await.expect("no end"), None);
}

/// Announces until somebody holds it: a node learns of others a moment after it has met them.
async fn announce(client: &NetworkClient, id: BlobId) {
    timeout(LIMIT, async {
        loop {
            match client.announce_blob(CONTEXT, id).await {
                Ok(()) => return,
                Err(AnnounceBlobError::NotStored) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(other) => panic!("{other}"),
            }
        }
    })
    .await
    .expect("nobody holds it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_fetched_by_name_alone() {
    let there = provider(local()).await;
    let address = there.node.listen(Over::Tcp).await;
    let id = there.store.put(&content(3, 2 * MIB)).unwrap().id;
    // Listens too: who cannot be reached holds nothing for others.
    let mut here = provider(local()).await;
    here.node.listen(Over::Tcp).await;
    here.node.client.dial(address).await.unwrap();
    announce(&there.node.client, id).await;
    let fetched = request(&here.node.client, id, vec![], &here.store).await;
    assert_eq!(fetched.unwrap().size_bytes, 2 * MIB as u64);
    let found = here.node.wait_for(|event| match event {
        NetworkEvent::BlobDownloaded { blob_id, .. } if blob_id == id => Some(()),
        _ => None,
    });
    found.await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_here_is_not_announced() {
    let node = provider(local()).await;
    let id = calimero_network::blob::blob_id(b"not here");
    let announced = node.node.client.announce_blob(CONTEXT, id).await;
    assert!(matches!(
        announced,
        Err(AnnounceBlobError::NotHere { blob_id }) if blob_id == id
    ));
    let (client, _) = NetworkManager::start(Keypair::generate_ed25519(), local())
        .await
        .unwrap();
    let announced = client.announce_blob(CONTEXT, id).await;
    assert!(matches!(announced, Err(AnnounceBlobError::NoStore)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_store_serves_nothing() {
    let (client, events) = NetworkManager::start(Keypair::generate_ed25519(), local())
        .await
        .unwrap();
    let bare = Node { client, events };
    let address = bare.listen(Over::Tcp).await;
    let here = provider(local()).await;
    here.node.client.dial(address).await.unwrap();
    let id = calimero_network::blob::blob_id(b"not there");
    let fetched = request(&here.node.client, id, vec![bare.peer()], &here.store).await;
    assert!(fetched.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_request_or_the_manager_ends_it() {
    let there = provider(local()).await;
    let address = there.node.listen(Over::Tcp).await;
    let here = provider(local()).await;
    here.node.client.dial(address).await.unwrap();
    let id = there.store.put(&content(4, 64 * MIB)).unwrap().id;
    let to = || Destination::Store(Arc::new(here.store.clone()));
    let peer = there.node.peer();
    drop((here.node.client).request_blob(CONTEXT, id, vec![peer], to()));
    let transfer = (here.node.client).request_blob(CONTEXT, id, vec![peer], to());
    here.node.client.shutdown().await.unwrap();
    let ended = timeout(LIMIT, transfer).await.expect("no end");
    // It may have been quick.
    if let Err(error) = ended {
        assert!(matches!(
            *error,
            FetchBlobError::Stopped(_) | FetchBlobError::Fetch(_)
        ));
    }
}
