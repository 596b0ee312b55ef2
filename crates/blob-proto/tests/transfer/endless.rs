//! Providers of 0.0.2 that send without end what is not the blob, in paused time.

use std::{sync::Arc, time::Duration};

use calimero_network_blob::{
    BlobId,
    fetch::{
        BlobFetchConfig, Destination, FetchError, FetchRequest, Fetched, Fetcher, ProviderError,
    },
    serve::Server,
    store::{BlobStore, FsBlobStore, FsConfig, StoreError},
    transfer::{Identity, Version},
    v0::BlobResponse,
};
use calimero_network_primitives::config::BlobServeConfig;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt, stream};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    net::{CONTEXT, Folder, chunk_frame, content, folder, frame, read_all, requester},
    pipes::{Pipe, Pipes, numbered},
};

const MIB: usize = 1 << 20;
const TIB: u64 = 1 << 40;

/// Announces a size, or none, and sends zeros, 1 MiB a second.
async fn flood(mut pipe: Pipe, size_bytes: Option<u64>) {
    let mut len = [0; 4];
    if pipe.read_exact(&mut len).await.is_err() {
        return;
    }
    let mut request = vec![0; u32::from_be_bytes(len) as usize];
    let _ = pipe.read_exact(&mut request).await;
    let response = BlobResponse {
        found: true,
        size: size_bytes,
    };
    let found = frame(&response.encode().unwrap());
    let _ = pipe.write_all(&found).await;
    let zeros = chunk_frame(&vec![0; MIB]);
    while pipe.write_all(&zeros).await.is_ok() {
        sleep(Duration::from_secs(1)).await;
    }
}

/// Fetches from hostile providers that announce `sizes`, and later from an honest one.
async fn fetch(
    there: &Folder,
    id: BlobId,
    sizes: &[Option<u64>],
    honest: bool,
    into: &FsBlobStore,
) -> (Result<Fetched, FetchError>, Duration) {
    let store: Arc<dyn BlobStore> = Arc::new(there.store.clone());
    let server = Server::new(numbered(0), store, &BlobServeConfig::default());
    let mut pipes = Pipes::new(numbered(0), Version::V0, move |pipe| {
        let serving = server.serve(requester(), Version::V0, pipe);
        Box::pin(async move {
            let _ = serving.await;
        })
    });
    let mut hostile = Vec::new();
    for (number, size_bytes) in (1..).zip(sizes.iter().copied()) {
        hostile.push(numbered(number));
        pipes = pipes.with(numbered(number), Version::V0, move |pipe| {
            Box::pin(flood(pipe, size_bytes))
        });
    }
    let later = stream::iter(honest.then(|| numbered(0))).then(|peer| async move {
        sleep(Duration::from_secs(4)).await;
        peer
    });
    let identity = Identity::unsigned(requester());
    let fetcher = Fetcher::new(pipes, identity, &BlobFetchConfig::default());
    let to = Destination::Store(Arc::new(into.clone()));
    let begun = Instant::now();
    let request = FetchRequest::new(CONTEXT, id);
    let providers = stream::iter(hostile).chain(Box::pin(later));
    let fetching = fetcher.fetch(request, providers, to);
    let fetched = timeout(Duration::from_secs(120), fetching)
        .await
        .expect("no end");
    (fetched, begun.elapsed())
}

fn limited(max_bytes: u64) -> (FsBlobStore, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let config = FsConfig {
        max_bytes,
        ..FsConfig::default()
    };
    (FsBlobStore::open(dir.path(), &config).unwrap(), dir)
}

#[tokio::test(start_paused = true)]
async fn an_honest_provider_is_asked_while_another_one_sends_without_end() {
    let there = folder();
    let content = content(1, 3 * MIB);
    let id = there.store.put(&content).unwrap().id;
    let ten_mib = 10 * MIB as u64;
    let cases: [(u64, &[Option<u64>], u64); 4] = [
        (2 * TIB, &[Some(TIB)], 60),
        // The announced size does not fit, so the next provider is asked when it is found.
        (ten_mib, &[Some(TIB)], 8),
        // It fits, and with it nothing else.
        (ten_mib, &[Some(ten_mib)], 60),
        // Nothing is announced, and it does not fit.
        (ten_mib, &[None, None], 60),
    ];
    for (limit_bytes, sizes, within_s) in cases {
        let (here, _dir) = limited(limit_bytes);
        let (fetched, after) = fetch(&there, id, sizes, true, &here).await;
        fetched.unwrap_or_else(|error| panic!("{limit_bytes} {sizes:?}: {error}"));
        assert!(
            after < Duration::from_secs(within_s),
            "{limit_bytes} {sizes:?}: {after:?}"
        );
        assert!(read_all(&here, &id) == content);
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_an_error_of_the_store_where_nothing_else_failed() {
    let there = folder();
    let id = there.store.put(&content(2, 12 * MIB)).unwrap().id;
    let (here, _dir) = limited(10 * MIB as u64);
    let (fetched, _) = fetch(&there, id, &[], true, &here).await;
    let Err(FetchError::Store(error)) = fetched else {
        panic!("{fetched:?}")
    };
    assert!(matches!(*error, StoreError::Quota { .. }), "{error}");
    // With another failure it is one of the failures.
    let (fetched, _) = fetch(&there, id, &[Some(3)], true, &here).await;
    let Err(FetchError::NoProviders { failures, .. }) = fetched else {
        panic!("{fetched:?}")
    };
    let no_space = |reason: &ProviderError| matches!(reason, ProviderError::NoSpace { .. });
    assert!(failures.iter().any(|failure| no_space(&failure.reason)));
}
