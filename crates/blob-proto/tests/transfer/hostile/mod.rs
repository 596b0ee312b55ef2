//! Providers that lie, stall, flood and break off. Another one finishes the job each time, and
//! the error names the peer and what it did.

mod v0;
mod v1;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use calimero_network_blob::{
    fetch::{BlobFetchConfig, BlobFetchTuning, FetchError, ProviderError},
    transfer::Version,
};
use futures::future::BoxFuture;

pub(crate) use self::v1::v1;
use crate::net::{Net, Socket, content, fetch, folder, impatient, peer, read_all};

const MIB: usize = 1 << 20;

/// What the hostile provider was found to do, after an honest one has finished the job.
async fn found(
    version: Version,
    len: usize,
    hostile: impl Fn(Socket) -> BoxFuture<'static, ()> + Send + Sync + 'static,
) -> ProviderError {
    let there = folder();
    let content = content(99, len);
    let id = there.store.put(&content).unwrap().id;
    let net = Net::default();
    let asked = Arc::new(AtomicBool::new(false));
    let was_asked = Arc::clone(&asked);
    net.add(peer(1), version, move |socket| {
        was_asked.store(true, Ordering::SeqCst);
        hostile(socket)
    })
    .await;
    // The hostile one alone: nothing of it is visible, and it is named.
    let here = folder();
    let config = BlobFetchConfig {
        tuning: BlobFetchTuning {
            max_failures: 1,
            ..impatient().tuning
        },
        ..impatient()
    };
    let alone = fetch(&net, &config, id, [peer(1)], &here.store).await;
    let Err(FetchError::NoProviders { failures, .. }) = alone else {
        panic!("{alone:?}")
    };
    assert!(!here.store.has(&id));
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].peer, peer(1));
    assert!(asked.load(Ordering::SeqCst));
    // With an honest one as well, of either version, which may be slow once.
    let config = impatient();
    for honest in [Version::V1, Version::V0] {
        net.add_store(peer(2), honest, &there.store).await;
        let here = folder();
        let fetched = fetch(&net, &config, id, [peer(1), peer(2)], &here.store).await;
        fetched.unwrap_or_else(|error| panic!("{honest:?}: {error}"));
        assert!(read_all(&here.store, &id) == content);
    }
    failures[0].reason.clone()
}
