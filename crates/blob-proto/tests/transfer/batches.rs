//! Batches whose providers have only some of the blobs, in paused time.

use std::sync::{Arc, atomic::Ordering};

use calimero_network_blob::{
    BlobId, blob_id,
    fetch::{BlobFetchConfig, FetchError, FetchRequest, FetchedBatch, Fetcher, ProviderError},
    serve::Server,
    store::BlobStore,
    transfer::{Identity, Version},
};
use calimero_network_primitives::{PeerId, config::BlobServeConfig};
use futures::stream;

use crate::{
    net::{CONTEXT, Folder, folder, requester, to_store},
    pipes::{Pipes, numbered},
};

const BLOBS: u32 = 1_000;

fn blob(number: u32) -> Vec<u8> {
    format!("blob {number}").into_bytes()
}

fn store(blobs: impl Iterator<Item = u32>) -> Folder {
    let there = folder();
    let mut batch = there.store.batch();
    for number in blobs {
        batch.add(None, &blob(number)).unwrap();
    }
    batch.commit().unwrap();
    there
}

/// Fetches blobs from providers of some stores. Returns how many streams were opened as well.
async fn fetch(wanted: Vec<BlobId>, stores: &[Folder]) -> (FetchedBatch, usize) {
    let mut pipes = Pipes::default();
    let mut providers: Vec<PeerId> = Vec::new();
    for (number, there) in (1..).zip(stores) {
        let store: Arc<dyn BlobStore> = Arc::new(there.store.clone());
        let server = Server::new(numbered(number), store, &BlobServeConfig::default());
        providers.push(numbered(number));
        pipes = pipes.with(numbered(number), Version::V1, move |pipe| {
            let serving = server.serve(requester(), Version::V1, pipe);
            Box::pin(async move {
                let _ = serving.await;
            })
        });
    }
    // It cannot be reached.
    providers.push(numbered(99));
    let opens = Arc::clone(&pipes.opens);
    let identity = Identity::unsigned(requester());
    let fetcher = Fetcher::new(pipes, identity, &BlobFetchConfig::default());
    let here = folder();
    let store: Arc<dyn BlobStore> = Arc::new(here.store.clone());
    let batch = fetcher.fetch_batch(CONTEXT, wanted, providers, store).await;
    (batch.unwrap(), opens.load(Ordering::SeqCst))
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_lacks_blobs_leaves_them_to_the_others() {
    let all = || 0..BLOBS;
    let cases = [
        vec![store(all()), store(0..0)],
        vec![store(0..0), store(all())],
        vec![
            store(all().filter(|number| number % 2 == 0)),
            store(all().filter(|number| number % 2 == 1)),
        ],
        vec![store(500..BLOBS), store(0..500), store(0..0)],
    ];
    for (case, stores) in cases.iter().enumerate() {
        let wanted = all().map(|number| blob_id(&blob(number))).collect();
        let (batch, opens) = fetch(wanted, stores).await;
        assert!(
            batch.failed.is_empty(),
            "{case}: {:?}",
            batch.failed.first()
        );
        assert_eq!(batch.fetched.len(), BLOBS as usize, "{case}");
        assert_eq!(opens, stores.len() + 1, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_blob_that_all_providers_refuse_is_named() {
    let stores = [store(0..10), store(5..10)];
    let missing = blob_id(b"missing");
    let wanted = (0..10).map(|number| blob_id(&blob(number)));
    let (batch, _) = fetch(wanted.chain([missing]).collect(), &stores).await;
    assert_eq!(batch.fetched.len(), 10);
    let [(failed, FetchError::NoProviders { failures, .. })] = &batch.failed[..] else {
        panic!("{:?}", batch.failed)
    };
    assert_eq!(*failed, missing);
    let refusals = failures.iter().map(|failure| &failure.reason);
    let refusals = refusals.filter(|reason| matches!(reason, ProviderError::NotFound));
    assert_eq!(refusals.count(), 2);
}

/// Those that were there already are held like the others.
#[tokio::test(start_paused = true)]
async fn all_blobs_of_a_batch_are_held() {
    let there = store(0..2);
    let server: Arc<dyn BlobStore> = Arc::new(there.store.clone());
    let server = Server::new(numbered(1), server, &BlobServeConfig::default());
    let pipes = Pipes::new(numbered(1), Version::V1, move |pipe| {
        let serving = server.serve(requester(), Version::V1, pipe);
        Box::pin(async move {
            let _ = serving.await;
        })
    });
    let here = store(0..1);
    let identity = Identity::unsigned(requester());
    let fetcher = Fetcher::new(pipes, identity, &BlobFetchConfig::default());
    let wanted: Vec<_> = (0..2).map(|number| blob_id(&blob(number))).collect();
    let into: Arc<dyn BlobStore> = Arc::new(here.store.clone());
    let batch = fetcher.fetch_batch(CONTEXT, wanted.clone(), vec![numbered(1)], into);
    let batch = batch.await.unwrap();
    assert_eq!(batch.fetched.len(), 2);
    assert!(here.store.collect_garbage().unwrap().is_empty());
    // One that is fetched alone and is there already is held as well.
    let request = FetchRequest::new(CONTEXT, wanted[0]);
    let alone = fetcher.fetch(request, stream::empty(), to_store(&here.store));
    let alone = alone.await.unwrap();
    drop(batch);
    assert_eq!(here.store.collect_garbage().unwrap(), [wanted[1]]);
    drop(alone);
    assert_eq!(here.store.collect_garbage().unwrap(), [wanted[0]]);
}
