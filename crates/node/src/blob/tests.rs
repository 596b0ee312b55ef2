use std::{future::Future, path::Path, pin::pin, time::Duration};

use calimero_network::{Keypair, NetworkConfig, NetworkManager, config::BlobStoreConfig};
use tokio::time::timeout;

use super::*;
use crate::output::Overflow;

const LIMIT: Duration = Duration::from_secs(20);

/// Content of several chunks.
const SIZE: usize = 5 << 20;

/// A node with one announced blob.
async fn start(folder: &Path) -> (Running, BlobId) {
    let store = FsBlobStore::open(folder, &BlobStoreConfig::default()).unwrap();
    let mut writer = store.writer().unwrap();
    writer.write(&vec![7; SIZE]).unwrap();
    let added = local::finish(&store, writer, |id| local::tag(DEFAULT_CONTEXT, id)).unwrap();
    let config = NetworkConfig {
        listen: Vec::new(),
        ..NetworkConfig::default()
    };
    let builder = NetworkManager::builder(Keypair::generate_ed25519(), config);
    let builder = builder.blobs(Arc::new(store.clone()));
    let (client, mut events) = builder.start().await.unwrap();
    tokio::spawn(async move { while events.next().await.is_some() {} });
    let output = Output::start(false, Overflow::Drop).unwrap();
    let (announcer, announcing) = Announcer::new(client.clone(), &store, output);
    drop(announcing);
    // Without a peer the record is kept until there is one.
    let _ = client.announce_blob(DEFAULT_CONTEXT, added.id).await;
    let running = Running {
        client,
        store,
        announcer,
    };
    (running, added.id)
}

/// Changes a byte of the only large file in a folder.
fn damage(folder: &Path) {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.metadata().unwrap().len() >= SIZE as u64 {
                let mut bytes = std::fs::read(&path).unwrap();
                bytes[SIZE - 1] ^= 1;
                std::fs::write(&path, bytes).unwrap();
            }
        }
    }
}

/// Polls a request once, waits until the blob is not in the store any more, and drops the request.
async fn begin_and_leave(request: impl Future, store: &FsBlobStore, id: BlobId) {
    let mut request = pin!(request);
    assert!(futures::poll!(&mut request).is_pending());
    let removed = async {
        while store.has(&id) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LIMIT, removed).await.unwrap();
}

#[tokio::test]
async fn a_blob_is_withdrawn_also_if_the_client_of_its_verification_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let (running, id) = start(folder.path()).await;
    damage(folder.path());
    begin_and_leave(running.verify(id, true), &running.store, id).await;
    // The verification has ended once all permits are free.
    let permits = u32::try_from(VERIFICATIONS).unwrap();
    let ended = timeout(LIMIT, VERIFYING.acquire_many(permits)).await;
    drop(ended.unwrap().unwrap());
    let was_announced = running.client.withdraw_blob(DEFAULT_CONTEXT, id).await;
    assert!(!was_announced.unwrap());
}

#[tokio::test]
async fn a_removal_goes_on_without_its_client() {
    let folder = tempfile::tempdir().unwrap();
    let (running, id) = start(folder.path()).await;
    begin_and_leave(running.remove(id), &running.store, id).await;
}

#[tokio::test]
async fn reading_ends_with_its_client() {
    let folder = tempfile::tempdir().unwrap();
    let (running, id) = start(folder.path()).await;
    let chunks = std::cell::Cell::new(0);
    let is_wanted = || {
        chunks.set(chunks.get() + 1);
        chunks.get() < 3
    };
    let left = local::is_intact(&running.store, &id, is_wanted);
    assert!(matches!(left, Err(CommandError::ClientLeft)), "{left:?}");
    assert_eq!(chunks.get(), 3);
    assert!(local::is_intact(&running.store, &id, || true).unwrap());
    damage(folder.path());
    assert!(!local::is_intact(&running.store, &id, || true).unwrap());
}
