//! Blobs through managers: found in the DHT, fetched, with their events.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

mod common;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use calimero_network::{
    AnnounceBlobError, BlobEvent, BlobId, ContextId, FetchBlobError, Keypair, NetworkClient,
    NetworkConfig, NetworkEvent, NetworkManager, PeerId, StreamProtocol,
    blob::{
        fetch::{Destination, FetchError},
        serve::{Access, BlobServeConfig, Server},
        store::{BlobStore as _, FsBlobStore, FsConfig},
        transfer::Version,
    },
};
use common::{BOTH, LIMIT, Node, Over, config};
use futures::StreamExt as _;
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
            NetworkEvent::Blob(BlobEvent::Downloaded {
                blob_id,
                size_bytes,
                ..
            }) if blob_id == id => Some(size_bytes),
            _ => None,
        });
        assert_eq!(size.await, 5 * MIB as u64 + 3);
        let requester = here.node.peer();
        let given = there.node.wait_for(|event| match event {
            NetworkEvent::Blob(BlobEvent::Requested {
                peer,
                blob_id,
                given,
                ..
            }) if peer == requester && blob_id == id => Some(given),
            _ => None,
        });
        assert!(given.await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_told_and_names_the_peer() {
    let there = provider(local()).await;
    let address = there.node.listen(Over::Tcp).await;
    let mut config = local();
    config.blob.fetch.tuning.search_timeout = Duration::from_secs(1);
    let mut here = provider(config).await;
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
        NetworkEvent::Blob(BlobEvent::DownloadFailed { blob_id, error, .. }) if blob_id == id => {
            Some(error)
        }
        _ => None,
    });
    assert_eq!(told.await.to_string(), error.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_providers_are_found_and_a_withdrawn_one_is_not_renewed() {
    // Every node knows the hub and no other node.
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
    // Found by the DHT alone; at least one can be dialled at an address that the hub returns.
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
    // In another context the blob has no provider.
    let mut query = (here.node.client)
        .query_blob(ContextId::new([8; 32]), id)
        .await
        .unwrap();
    assert_eq!(timeout(LIMIT, query.next()).await.expect("no end"), None);
}

/// Announces until a peer stores it: a node learns of others a moment after it is connected.
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
async fn a_blob_is_fetched_by_name_alone_and_each_step_is_told_in_order() {
    let mut there = provider(local()).await;
    let address = there.node.listen(Over::Tcp).await;
    let size = 16 * MIB as u64 + 3;
    let id = there.store.put(&content(3, size as usize)).unwrap().id;
    // Listens too: who cannot be reached holds nothing for others.
    let mut here = provider(local()).await;
    here.node.listen(Over::Tcp).await;
    here.node.client.dial(address).await.unwrap();
    announce(&there.node.client, id).await;
    let announced = there.node.wait_for(|event| match event {
        NetworkEvent::Blob(BlobEvent::Announced {
            context_id,
            blob_id,
        }) if blob_id == id => Some(context_id),
        _ => None,
    });
    assert_eq!(announced.await, CONTEXT);

    // What is unread of a transfer gives way to what is newer, so it is read while it runs.
    let to = Destination::Store(Arc::new(here.store.clone()));
    let transfer = (here.node.client).request_blob(CONTEXT, id, vec![], to);
    let mut told = Vec::new();
    let reading = here.node.wait_for(|event| {
        let (step, is_end) = match event {
            NetworkEvent::Blob(BlobEvent::ProvidersFound {
                context_id,
                blob_id,
                providers,
            }) => {
                assert_eq!((context_id, blob_id), (CONTEXT, id));
                assert_eq!(providers, [there.node.peer()]);
                ("found", false)
            }
            NetworkEvent::Blob(BlobEvent::Progress {
                blob_id, progress, ..
            }) => {
                assert_eq!(blob_id, id);
                assert!(progress.verified_bytes <= size);
                ("progress", false)
            }
            NetworkEvent::Blob(BlobEvent::Downloaded {
                blob_id,
                size_bytes,
                ..
            }) => {
                assert_eq!((blob_id, size_bytes), (id, size));
                ("downloaded", true)
            }
            NetworkEvent::Blob(BlobEvent::DownloadFailed { error, .. }) => panic!("{error}"),
            _ => return None,
        };
        if told.last() != Some(&step) {
            told.push(step);
        }
        is_end.then_some(())
    });
    let (fetched, ()) = timeout(LIMIT, async { tokio::join!(transfer, reading) })
        .await
        .expect("no end");
    assert_eq!(fetched.unwrap().size_bytes, size);
    assert_eq!(told.iter().filter(|step| **step == "found").count(), 1);
    assert!(told.contains(&"progress"), "{told:?}");
    assert_eq!(told.last(), Some(&"downloaded"));
    let requester = here.node.peer();
    let given = there.node.wait_for(|event| match event {
        NetworkEvent::Blob(BlobEvent::Requested {
            peer,
            context_id,
            blob_id,
            given,
            count,
        }) if blob_id == id => Some((peer, context_id, given, count > 0)),
        _ => None,
    });
    assert_eq!(given.await, (requester, CONTEXT, true, true));
}

/// As many announcements as may be under way, several times over: all of them are held in the end,
/// and a lookup is answered at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_blobs_announced_at_once_are_all_held() {
    const BLOBS: u16 = 300;
    let there = provider(local()).await;
    let address = there.node.listen(Over::Tcp).await;
    let here = provider(local()).await;
    here.node.listen(Over::Tcp).await;
    here.node.client.dial(address).await.unwrap();
    let blobs = (0..BLOBS).map(|nth| (None, nth.to_be_bytes().to_vec().into()));
    let stored = there.store.put_batch(blobs.collect()).await.unwrap();
    announce(&there.node.client, stored.ids[0]).await;
    let all = stored
        .ids
        .iter()
        .map(|id| there.node.client.announce_blob(CONTEXT, *id));
    let announcing = futures::future::join_all(all);
    let (announced, found) = timeout(LIMIT, async {
        tokio::join!(announcing, async {
            let query = here.node.client.query_blob(CONTEXT, stored.ids[0]).await;
            query.unwrap().next().await
        })
    })
    .await
    .expect("no end");
    for outcome in announced {
        outcome.unwrap();
    }
    assert_eq!(found.unwrap().peer, there.node.peer());
    for id in [stored.ids[1], stored.ids[usize::from(BLOBS) - 1]] {
        let mut query = here.node.client.query_blob(CONTEXT, id).await.unwrap();
        let found = timeout(LIMIT, query.next()).await.expect("no end");
        assert_eq!(found.unwrap().peer, there.node.peer());
    }
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
    let mut config = local();
    config.blob.fetch.tuning.search_timeout = Duration::from_secs(1);
    let here = provider(config).await;
    here.node.client.dial(address).await.unwrap();
    let id = calimero_network::blob::blob_id(b"not there");
    let fetched = request(&here.node.client, id, vec![bare.peer()], &here.store).await;
    assert!(fetched.is_err());
}

/// The manager has no store. The program accepts the streams of the protocol and answers them.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_serves_blobs_itself() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = FsBlobStore::open(folder.path(), &FsConfig::default()).unwrap();
    let content = content(5, 2 * MIB);
    let (given, kept) = (
        theirs.put(&content).unwrap().id,
        theirs.put(b"for another requester").unwrap().id,
    );
    let (client, events) = NetworkManager::start(Keypair::generate_ed25519(), local())
        .await
        .unwrap();
    let server = Server::new(
        client.peer_id(),
        Arc::new(theirs),
        &BlobServeConfig::default(),
    );
    let server = server.with_authorizer(move |access: Access| access.blob_id == given);
    let mut incoming = client
        .accept(StreamProtocol::new(Version::V1_1.name()))
        .unwrap();
    tokio::spawn(async move {
        while let Some(inbound) = incoming.next().await {
            let serving = server.serve(inbound.peer, Version::V1_1, inbound.stream);
            tokio::spawn(serving);
        }
    });
    let bare = Node { client, events };
    let address = bare.listen(Over::Quic).await;
    let mut config = local();
    config.blob.fetch.tuning.search_timeout = Duration::from_secs(1);
    let here = provider(config).await;
    here.node.client.dial(address).await.unwrap();
    let fetched = request(&here.node.client, given, vec![bare.peer()], &here.store).await;
    assert_eq!(fetched.unwrap().size_bytes, content.len() as u64);
    let refused = request(&here.node.client, kept, vec![bare.peer()], &here.store).await;
    assert!(refused.is_err());
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

/// Fetches 3 MiB, and returns the time that it took.
async fn time_of_a_fetch(there: NetworkConfig, here: NetworkConfig) -> Duration {
    let there = provider(there).await;
    let address = there.node.listen(Over::Quic).await;
    let here = provider(here).await;
    here.node.client.dial(address).await.unwrap();
    let id = there.store.put(&content(9, 3 * MIB)).unwrap().id;
    let begun = std::time::Instant::now();
    let peers = vec![there.node.peer()];
    let fetched = request(&here.node.client, id, peers, &here.store).await;
    assert_eq!(fetched.unwrap().size_bytes, 3 * MIB as u64);
    begun.elapsed()
}

/// The limits in virtual time are tested in the blob crate. Here they are applied to a transfer, which
/// cannot be faster than they allow, however fast the machine is.
#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_keeps_the_limits_of_both_ends() {
    const RATE: u64 = 2 << 20;
    let mut upload = local();
    upload.blob.max_upload_bytes_per_s = RATE;
    // No effect on a provider, which receives requests alone.
    upload.blob.max_download_bytes_per_s = 1 << 20;
    let mut download = local();
    download.blob.max_download_bytes_per_s = RATE;
    let least = Duration::from_millis(1350); // 3 MiB at 2 MiB/s, less 10 %.
    assert!(time_of_a_fetch(upload, local()).await >= least);
    assert!(time_of_a_fetch(local(), download).await >= least);
}
