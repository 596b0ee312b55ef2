//! Several that want one blob, providers that dribble, leave and return.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use calimero_network_blob::{
    BlobId, blob_id,
    error::AuthError,
    fetch::{BlobFetchConfig, Destination, FetchError, FetchRequest, Providers},
    serve::Server,
    store::BlobStore,
    transfer::Version,
    v0::{BlobAuth, ReplayGuard},
};
use calimero_network_primitives::{
    PeerId,
    config::BlobServeConfig,
    resources::{Limit, Limits, Resource, Resources},
};
use futures::{AsyncRead, AsyncWrite, StreamExt, future, stream};

use crate::net::{
    CONTEXT, LONG, Net, Socket, content, fetch, fetcher, folder, impatient, peer, read_all,
    requester, signer, to_store,
};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn one_transfer_for_one_blob_however_many_ask() {
    let there = folder();
    let content = content(1, 12 * MIB);
    let id = there.store.put(&content).unwrap().id;
    let net = Net::default();
    net.add_store(peer(1), Version::V1, &there.store).await;
    let here = folder();
    let fetcher = fetcher(&net, &impatient());
    // The first has no provider of its own: a later one brings it.
    let providers = [None, Some(peer(1)), Some(peer(1))];
    let transfers: Vec<_> = providers
        .map(|provider| {
            let listed = stream::iter(provider).chain(stream::pending());
            let request = FetchRequest::new(CONTEXT, id);
            fetcher.fetch(request, listed, to_store(&here.store))
        })
        .into();
    let mut progress = transfers[0].progress();
    let fetched = tokio::time::timeout(LONG, future::join_all(transfers)).await;
    for fetched in fetched.expect("no end") {
        assert_eq!(fetched.unwrap().size_bytes, content.len() as u64);
    }
    let mut last = None;
    while let Some(progress) = progress.next().await {
        last = Some(progress);
    }
    let last = last.unwrap();
    assert_eq!(last.verified_bytes, content.len() as u64);
    let most = content.len() as u64 + MIB as u64;
    assert!(last.received_bytes < most, "{last:?}");
    assert!(read_all(&here.store, &id) == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_that_leaves_does_not_end_the_transfer_of_the_others() {
    let there = folder();
    let content = content(2, 12 * MIB);
    let id = there.store.put(&content).unwrap().id;
    let net = Net::default();
    net.add_store(peer(1), Version::V1, &there.store).await;
    let here = folder();
    let fetcher = fetcher(&net, &impatient());
    let request = FetchRequest::new(CONTEXT, id);
    let listed = || stream::iter([peer(1)]);
    let mut first = fetcher.fetch(request.clone(), listed(), to_store(&here.store));
    let second = fetcher.fetch(request, listed(), to_store(&here.store));
    assert!(futures::poll!(&mut first).is_pending());
    drop(first);
    let fetched = tokio::time::timeout(LONG, second).await.expect("no end");
    assert_eq!(fetched.unwrap().size_bytes, content.len() as u64);
}

/// Sends 24 KiB a second.
struct Dribble {
    io: Socket,
    pause: std::pin::Pin<Box<tokio::time::Sleep>>,
}

impl Dribble {
    fn new(io: Socket) -> Self {
        let pause = Box::pin(tokio::time::sleep(Duration::ZERO));
        Self { io, pause }
    }
}

impl AsyncRead for Dribble {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        to: &mut [u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.io).poll_read(cx, to)
    }
}

impl AsyncWrite for Dribble {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        from: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::task::ready!(future::Future::poll(self.pause.as_mut(), cx));
        let some = &from[..from.len().min(1229)];
        let written = std::pin::Pin::new(&mut self.io).poll_write(cx, some);
        if written.is_ready() {
            let next = tokio::time::Instant::now() + Duration::from_millis(50);
            self.pause.as_mut().reset(next);
        }
        written
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_close(cx)
    }
}

async fn add_dribbling(net: &Net, id: PeerId, version: Version, store: &Arc<dyn BlobStore>) {
    let server = Server::new(id, Arc::clone(store), &BlobServeConfig::default());
    net.add(id, version, move |socket| {
        let serving = server.serve(requester(), version, Dribble::new(socket));
        Box::pin(async move {
            let _ = serving.await;
        })
    })
    .await;
}

/// Time in which a dribbling provider sends one chunk of 1 MiB at 24 KiB/s.
const SLOW_CHUNK: Duration = Duration::from_secs(43);

/// The transfer ends before one of the slow providers has sent a chunk.
#[tokio::test(flavor = "multi_thread")]
async fn dribbling_providers_do_not_hold_a_transfer() {
    let there = folder();
    let store: Arc<dyn BlobStore> = Arc::new(there.store.clone());
    let content = content(3, 8 * MIB);
    let id = there.store.put(&content).unwrap().id;
    for honest in [Version::V1, Version::V0] {
        let net = Net::default();
        for seed in 1..=4 {
            add_dribbling(&net, peer(seed), Version::V1, &store).await;
        }
        net.add_store(peer(9), honest, &there.store).await;
        let here = folder();
        let providers = (1..=4).chain([9]).map(peer);
        let config = BlobFetchConfig::default();
        let fetching = fetch(&net, &config, id, providers, &here.store);
        let fetched = tokio::time::timeout(SLOW_CHUNK, fetching).await;
        let fetched = fetched.expect("the transfer waits for a slow provider");
        fetched.unwrap_or_else(|error| panic!("{honest:?}: {error}"));
        assert!(read_all(&here.store, &id) == content);
    }
}

/// Both providers send all of the content, so each writes a file of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_provider_of_v0_does_not_end_a_transfer_into_a_file() {
    let there = folder();
    let store: Arc<dyn BlobStore> = Arc::new(there.store.clone());
    let content = content(3, 2 * MIB);
    let id = there.store.put(&content).unwrap().id;
    let net = Net::default();
    add_dribbling(&net, peer(1), Version::V0, &store).await;
    net.add_store(peer(2), Version::V0, &there.store).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let config = BlobFetchConfig::default();
    let (found, providers) = futures::channel::mpsc::unbounded();
    found.unbounded_send(peer(1)).unwrap();
    let request = FetchRequest::new(CONTEXT, id);
    let to = Destination::File(path.clone());
    let transfer = fetcher(&net, &config).fetch(request, providers, to);
    let mut progress = transfer.progress();
    let found = async move {
        // The second one is found once the first one sends content.
        while let Some(progress) = progress.next().await {
            if progress.received_bytes > 4096 {
                break;
            }
        }
        found.unbounded_send(peer(2)).unwrap();
    };
    let fetching = future::join(transfer, found);
    let (fetched, ()) = tokio::time::timeout(LONG, fetching).await.expect("no end");
    assert_eq!(fetched.unwrap().providers, [(peer(2), 2 * MIB as u64)]);
    assert!(std::fs::read(&path).unwrap() == content);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_blob_arrives_in_a_file_while_a_provider_of_v0_is_silent() {
    let there = folder();
    let content = content(3, 1000);
    let id = there.store.put(&content).unwrap().id;
    let net = Net::default();
    let (found, providers) = futures::channel::mpsc::unbounded();
    found.unbounded_send(peer(1)).unwrap();
    net.add(peer(1), Version::V0, move |mut socket| {
        let found = found.clone();
        Box::pin(async move {
            // The second one is found once the first one has got its request.
            let read = futures::AsyncReadExt::read(&mut socket, &mut [0; 16]).await;
            if matches!(read, Ok(1..)) {
                found.unbounded_send(peer(2)).unwrap();
                future::pending::<()>().await;
            }
        })
    })
    .await;
    net.add_store(peer(2), Version::V1, &there.store).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let request = FetchRequest::new(CONTEXT, id);
    let to = Destination::File(path.clone());
    let transfer = fetcher(&net, &BlobFetchConfig::default()).fetch(request, providers, to);
    let fetched = tokio::time::timeout(LONG, transfer).await.expect("no end");
    assert_eq!(fetched.unwrap().providers, [(peer(2), 1000)]);
    assert!(std::fs::read(&path).unwrap() == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dribbling_provider_does_not_hold_a_batch() {
    let there = folder();
    let store: Arc<dyn BlobStore> = Arc::new(there.store.clone());
    let ids: Vec<BlobId> = (0..200)
        .map(|seed| there.store.put(&content(seed, 40_000)).unwrap().id)
        .collect();
    let net = Net::default();
    add_dribbling(&net, peer(1), Version::V1, &store).await;
    net.add_store(peer(2), Version::V1, &there.store).await;
    let here = folder();
    let to: Arc<dyn BlobStore> = Arc::new(here.store.clone());
    let fetcher = fetcher(&net, &BlobFetchConfig::default());
    let providers = vec![peer(1), peer(2)];
    let batch = fetcher.fetch_batch(CONTEXT, ids.clone(), providers, to);
    // Half of it would take the first one more than two minutes.
    let batch = tokio::time::timeout(Duration::from_secs(60), batch).await;
    let batch = batch.expect("no end").unwrap();
    assert_eq!((batch.fetched.len(), batch.failed.len()), (200, 0));
    ids.iter().for_each(|id| here.store.verify(id).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_search_is_repeated_until_a_provider_comes() {
    let there = folder();
    let id = there.store.put(&content(4, 2 * MIB)).unwrap().id;
    let net = Net::default();
    net.add_store(peer(1), Version::V1, &there.store).await;
    let here = folder();
    let searches = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&searches);
    // Found by the third search. Another provider is known, and is away for good.
    let providers = Providers::listed(stream::iter([peer(7)])).with_search(move || {
        let search = counted.fetch_add(1, Ordering::SeqCst);
        stream::iter((search >= 2).then(|| peer(1)))
    });
    let request = FetchRequest::new(CONTEXT, id);
    let mut config = impatient();
    config.tuning.search_timeout = LONG;
    let transfer = fetcher(&net, &config).fetch(request, providers, to_store(&here.store));
    let mut progress = transfer.progress();
    let fetched = tokio::time::timeout(LONG, transfer).await.expect("no end");
    assert_eq!(fetched.unwrap().size_bytes, 2 * MIB as u64);
    assert_eq!(searches.load(Ordering::SeqCst), 3);
    while let Some(progress) = progress.next().await {
        assert!(!progress.searching || progress.verified_bytes == 0);
    }
}

/// Refuses the first streams, as a provider does that restarts.
#[tokio::test(flavor = "multi_thread")]
async fn a_sole_provider_that_was_away_is_asked_again() {
    let there = folder();
    let id = there.store.put(&content(5, 2 * MIB)).unwrap().id;
    let store: Arc<dyn BlobStore> = Arc::new(there.store.clone());
    let server = Server::new(peer(1), store, &BlobServeConfig::default());
    let net = Net::default();
    let streams = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&streams);
    net.add(peer(1), Version::V1, move |socket| {
        let away = counted.fetch_add(1, Ordering::SeqCst) < 6;
        let serving = server.serve(requester(), Version::V1, socket);
        Box::pin(async move {
            if !away {
                let _ = serving.await;
            }
        })
    })
    .await;
    let here = folder();
    let mut config = impatient();
    config.tuning.search_timeout = LONG;
    let providers = Providers::listed(stream::iter([peer(1)])).with_search(stream::empty::<PeerId>);
    let request = FetchRequest::new(CONTEXT, id);
    let transfer = fetcher(&net, &config).fetch(request, providers, to_store(&here.store));
    let fetched = tokio::time::timeout(LONG, transfer).await.expect("no end");
    assert_eq!(fetched.unwrap().size_bytes, 2 * MIB as u64);
    assert_eq!(streams.load(Ordering::SeqCst), 7);
}

/// The request is for the listed providers alone, with a search that would go on for long.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_search_ends_with_its_providers() {
    let net = Net::default();
    let empty = folder();
    net.add_store(peer(1), Version::V1, &empty.store).await;
    let here = folder();
    let searches = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&searches);
    let providers = Providers::listed(stream::iter([peer(1)])).with_search(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        stream::pending::<PeerId>()
    });
    let request = FetchRequest::new(CONTEXT, blob_id(b"missing")).without_search();
    let config = BlobFetchConfig::default();
    let transfer = fetcher(&net, &config).fetch(request, providers, to_store(&here.store));
    let ended = tokio::time::timeout(LONG, transfer).await.expect("no end");
    assert!(
        matches!(ended, Err(FetchError::NoProviders { .. })),
        "{ended:?}"
    );
    assert_eq!(searches.load(Ordering::SeqCst), 0);
}

/// With the defaults, which give a provider five attempts and rests of up to a minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_listed_provider_that_is_gone_ends_the_transfer_at_once() {
    let net = Net::default();
    let here = folder();
    let id = blob_id(b"it is gone");
    let config = BlobFetchConfig::default();
    let fetched = fetch(&net, &config, id, [peer(1)], &here.store).await;
    let Err(FetchError::NoProviders { failures, .. }) = fetched else {
        panic!("{fetched:?}")
    };
    assert_eq!(failures.len(), 1);
    assert_eq!(net.opens(), 2, "asked once more, and not again");
}

/// Signatures that are not needed take no place from those that are.
#[test]
fn each_peer_has_a_share_of_the_replay_guard() {
    let mut limits = Limits::default();
    limits.update(Resource::BlobNonces, |_| Limit {
        peer: 3,
        ..Limit::UNLIMITED
    });
    let resources = Resources::new(limits);
    let mut guard = ReplayGuard::default();
    let blob = blob_id(b"some blob");
    let mut admit = |presenter: PeerId, now: u64| {
        let auth = BlobAuth::sign(&signer(), &blob, &CONTEXT, now).unwrap();
        let holder = resources.holder(Some(presenter), None);
        let full = AuthError::Busy {
            capacity: 3,
            max_age_s: 0,
        };
        let permit = || {
            holder
                .take(Resource::BlobNonces, 1)
                .map(Some)
                .map_err(|_| full)
        };
        let admitted = guard.admit_with(&auth, &blob, &CONTEXT, presenter, now, permit);
        admitted.ok()
    };
    for now in 100..103 {
        assert!(admit(peer(1), now).is_some());
    }
    assert!(admit(peer(1), 103).is_none(), "its share is used up");
    assert!(admit(peer(1), 102).is_some(), "the same again");
    assert!(admit(peer(2), 104).is_some(), "others have theirs");
    assert!(admit(peer(1), 200).is_some(), "its own have expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_requests_for_public_blobs_do_not_fill_the_replay_guard() {
    let there = folder();
    let id = there.store.put(&content(6, 700)).unwrap().id;
    let store: Arc<dyn BlobStore> = Arc::new(there.store.clone());
    let mut config = BlobServeConfig::default();
    config.tuning.max_remembered_auths = 1;
    let server = Server::new(peer(1), store, &config);
    for seed in 2..6 {
        let net = Net::default();
        let server = server.clone();
        net.add(peer(1), Version::V0, move |socket| {
            let serving = server.serve(peer(seed), Version::V0, socket);
            Box::pin(async move {
                let _ = serving.await;
            })
        })
        .await;
        let key =
            calimero_network_primitives::identity::ed25519::SecretKey::try_from_bytes([seed; 32]);
        let signer: calimero_network_primitives::identity::ed25519::Keypair = key.unwrap().into();
        let request = FetchRequest::new(CONTEXT, id).with_signer(Arc::new(signer));
        let here = folder();
        let transfer = fetcher(&net, &impatient());
        let transfer = transfer.fetch(request, stream::iter([peer(1)]), to_store(&here.store));
        let fetched = tokio::time::timeout(LONG, transfer).await.expect("no end");
        fetched.unwrap();
    }
}
