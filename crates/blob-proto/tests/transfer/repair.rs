//! Damaged stores, and code of the embedding program that panics or hangs.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use calimero_network_blob::{
    BlobId, ChunkList, blob_id,
    error::CallbackError,
    fetch::{Destination, FetchError, FetchRequest, ProviderError},
    serve::{Access, Authorized, Authorizer, ServeError, ServeEvent, Server},
    store::{
        BlobReader, BlobStore, BlobWriter, FsBlobStore, FsConfig, PartialBlob, StoreError,
        StoreFuture, StoredBatch, Usage, Verification,
    },
    transfer::{Identity, SignRequest, Signer, Signing, Version},
};
use calimero_network_primitives::{PeerId, config::BlobServeConfig};
use futures::stream;
use tokio::sync::mpsc;

use crate::net::{
    CONTEXT, LONG, Net, content, fetch, fetcher, folder, impatient, peer, read_all, requester,
    start, to_store,
};

const MIB: usize = 1 << 20;

/// Changes one byte of a stored blob.
fn flip(dir: &Path, id: &BlobId, at: u64) {
    let path = dir.join("blobs").join(id.to_hex());
    let mut byte = [0];
    let file = fs::OpenOptions::new().read(true).write(true).open(path);
    let file = file.unwrap();
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn fetching_a_damaged_blob_repairs_it() {
    let there = folder();
    let content = content(1, 5 * MIB + 9);
    let id = there.store.put(&content).unwrap().id;
    let net = Net::default();
    net.add_store(peer(1), Version::V1, &there.store).await;
    let dir = tempfile::tempdir().unwrap();
    let store = FsBlobStore::open(dir.path(), &FsConfig::default()).unwrap();
    store.put(&content).unwrap();
    flip(dir.path(), &id, 3 * MIB as u64);
    let fetched = fetch(&net, &impatient(), id, [peer(1)], &store)
        .await
        .unwrap();
    let gave: u64 = fetched.providers.iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(gave, MIB as u64, "the damaged chunk and no other");
    assert!(read_all(&store, &id) == content);
    // An empty file is repaired as well.
    let path = dir.path().join("blobs").join(id.to_hex());
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(0)
        .unwrap();
    let fetched = fetch(&net, &impatient(), id, [peer(1)], &store)
        .await
        .unwrap();
    assert_eq!(fetched.size_bytes, content.len() as u64);
    assert!(read_all(&store, &id) == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_chunk_is_never_sent() {
    for (version, len, at) in [
        (Version::V1, 3 * MIB, 2 * MIB as u64),
        (Version::V0, 3 * MIB, 2 * MIB as u64),
        (Version::V1, 700, 5),
        (Version::V0, 700, 5),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = FsBlobStore::open(dir.path(), &FsConfig::default()).unwrap();
        let id = store.put(&content(2, len)).unwrap().id;
        flip(dir.path(), &id, at);
        let (events, mut reported) = mpsc::channel(8);
        let serving: Arc<dyn BlobStore> = Arc::new(store.clone());
        let config = BlobServeConfig::default();
        let server = Server::new(peer(1), serving, &config).with_events(events);
        let net = Net::default();
        net.add_server(peer(1), version, server).await;
        let here = folder();
        let fetched = fetch(&net, &impatient(), id, [peer(1)], &here.store).await;
        let Err(FetchError::NoProviders { failures, .. }) = fetched else {
            panic!("{fetched:?}")
        };
        let reason = &failures[0].reason;
        let lied = matches!(
            reason,
            ProviderError::Chunk(_) | ProviderError::Content { .. } | ProviderError::List(_)
        );
        assert!(!lied, "{version:?}: {reason}");
        while let Some(event) = tokio::time::timeout(LONG, reported.recv()).await.unwrap() {
            if let ServeEvent::Damaged { blob_id } = event {
                assert_eq!(blob_id, id);
                break;
            }
        }
        assert!(!store.has(&id), "withdrawn");
    }
}

/// A file of the store, changed by hand.
type Harm = fn(&Path);

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_whose_file_cannot_be_read_is_reported() {
    let missing: Harm = |file| fs::remove_file(file).unwrap();
    let cut: Harm = |file| {
        let file = fs::OpenOptions::new().write(true).open(file);
        file.unwrap().set_len(MIB as u64).unwrap();
    };
    for version in [Version::V1_1, Version::V1, Version::V0] {
        for (harm, len, folder_name) in [
            (missing, 3 * MIB, "blobs"),
            (cut, 3 * MIB, "blobs"),
            // In a file of many small blobs.
            (missing, 700, "packs"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let store = FsBlobStore::open(dir.path(), &FsConfig::default()).unwrap();
            let content = content(4, len);
            let id = match folder_name {
                "packs" => {
                    let batch = vec![(None, content.into()), (None, Bytes::from_static(b"other"))];
                    BlobStore::put_batch(&store, batch).await.unwrap().ids[0]
                }
                _ => store.put(&content).unwrap().id,
            };
            let files = fs::read_dir(dir.path().join(folder_name)).unwrap();
            let mut files = files.map(|file| file.unwrap().path());
            let has_content = |file: &std::path::PathBuf| {
                file.extension().is_none_or(|extension| extension == "pack")
            };
            harm(&files.find(has_content).unwrap());
            let (events, mut reported) = mpsc::channel(8);
            let serving: Arc<dyn BlobStore> = Arc::new(store.clone());
            let config = BlobServeConfig::default();
            let server = Server::new(peer(1), serving, &config).with_events(events);
            let net = Net::default();
            net.add_server(peer(1), version, server).await;
            let fetched = fetch(&net, &impatient(), id, [peer(1)], &folder().store).await;
            assert!(matches!(fetched, Err(FetchError::NoProviders { .. })));
            let damaged = async {
                while let Some(event) = reported.recv().await {
                    if let ServeEvent::Damaged { blob_id } = event {
                        return blob_id;
                    }
                }
                panic!("the server has ended");
            };
            let damaged = tokio::time::timeout(LONG, damaged).await;
            assert_eq!(
                damaged.expect("no report"),
                id,
                "{version:?}, {folder_name}"
            );
            assert!(!store.has(&id), "withdrawn");
        }
    }
}

/// What code of an embedder does in place of answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Panic,
    Hang,
}

const FAULTS: [Fault; 2] = [Fault::Panic, Fault::Hang];

fn fault<T: Send + 'static>(fault: Fault) -> std::pin::Pin<Box<dyn Future<Output = T> + Send>> {
    Box::pin(async move {
        match fault {
            Fault::Panic => panic!("a fault of the embedder"),
            Fault::Hang => std::future::pending().await,
        }
    })
}

/// A store that fails in one of its methods.
struct FaultyStore {
    store: FsBlobStore,
    method: &'static str,
    fault: Fault,
}

impl FaultyStore {
    fn call<T: Send + 'static>(&self, name: &str, answer: StoreFuture<T>) -> StoreFuture<T> {
        match name == self.method {
            true => fault(self.fault),
            false => answer,
        }
    }
}

impl BlobStore for FaultyStore {
    fn size(&self, id: BlobId) -> StoreFuture<Option<u64>> {
        self.call("size", BlobStore::size(&self.store, id))
    }

    fn reader(&self, id: BlobId) -> StoreFuture<Option<Arc<dyn BlobReader>>> {
        self.call("reader", BlobStore::reader(&self.store, id))
    }

    fn usage(&self) -> Option<Usage> {
        assert_ne!(self.method, "usage", "a fault of the embedder");
        Some(self.store.usage())
    }

    fn verify(&self, id: BlobId, repair: bool) -> StoreFuture<Verification> {
        self.call("verify", BlobStore::verify(&self.store, id, repair))
    }

    fn writer(&self) -> StoreFuture<Box<dyn BlobWriter>> {
        self.call("writer", BlobStore::writer(&self.store))
    }

    fn partial(&self, list: ChunkList) -> StoreFuture<Arc<dyn PartialBlob>> {
        self.call("partial", BlobStore::partial(&self.store, list))
    }

    fn put_batch(&self, blobs: Vec<(Option<BlobId>, Bytes)>) -> StoreFuture<StoredBatch> {
        self.call("put_batch", BlobStore::put_batch(&self.store, blobs))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_store_fails_its_transfer_with_a_typed_error() {
    let there = folder();
    let id = there.store.put(&content(3, 2 * MIB)).unwrap().id;
    let net = Net::default();
    net.add_store(peer(1), Version::V1, &there.store).await;
    let after = Duration::from_millis(500);
    for fault in FAULTS {
        for method in ["verify", "partial"] {
            let store = folder().store;
            let store = FaultyStore {
                store,
                method,
                fault,
            };
            let fetcher = fetcher(&net, &impatient()).with_store_timeout(after);
            let to = Destination::Store(Arc::new(store));
            let request = FetchRequest::new(CONTEXT, id);
            let transfer = fetcher.fetch(request, stream::iter([peer(1)]), to);
            let ended = tokio::time::timeout(LONG, transfer).await.expect("no end");
            let Err(FetchError::Store(error)) = ended else {
                panic!("{fault:?} in {method}: {ended:?}")
            };
            let expected = match fault {
                Fault::Panic => {
                    matches!(*error, StoreError::Callback(CallbackError::Panicked { .. }))
                }
                Fault::Hang => {
                    matches!(*error, StoreError::Callback(CallbackError::TimedOut { .. }))
                }
            };
            assert!(expected, "{fault:?} in {method}: {error}");
        }
    }
}

/// How much the store holds is asked where a provider of 0.0.2 announces a size.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_say_what_it_holds_is_written_to() {
    let there = folder();
    let id = there.store.put(&content(6, 2 * MIB)).unwrap().id;
    let net = Net::default();
    net.add_store(peer(1), Version::V0, &there.store).await;
    let here = folder();
    let store = FaultyStore {
        store: here.store.clone(),
        method: "usage",
        fault: Fault::Panic,
    };
    let to = Destination::Store(Arc::new(store));
    let transfer = start(&net, &impatient(), id, [peer(1)], to);
    let fetched = tokio::time::timeout(LONG, transfer).await.expect("no end");
    assert_eq!(fetched.unwrap().size_bytes, 2 * MIB as u64);
    assert!(here.store.has(&id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_store_fails_the_stream_that_it_serves() {
    for fault in FAULTS {
        let there = folder();
        let id = there.store.put(&content(4, 2 * MIB)).unwrap().id;
        let store = FaultyStore {
            store: there.store.clone(),
            method: "reader",
            fault,
        };
        let server = Server::new(peer(1), Arc::new(store), &BlobServeConfig::default())
            .with_store_timeout(Duration::from_millis(500));
        let net = Net::default();
        net.add_server(peer(1), Version::V1, server).await;
        let here = folder();
        let fetched = fetch(&net, &impatient(), id, [peer(1)], &here.store).await;
        let Err(FetchError::NoProviders { failures, .. }) = fetched else {
            panic!("{fetched:?}")
        };
        assert!(
            matches!(failures[0].reason, ProviderError::Failed),
            "{failures:?}"
        );
    }
}

struct FaultyAuthorizer;

impl Authorizer for FaultyAuthorizer {
    fn authorize(&self, _: Access) -> Authorized {
        panic!("a fault of the embedder")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_authorizer_refuses_and_the_stream_says_so() {
    let there = folder();
    let id = there.store.put(&content(5, 700)).unwrap().id;
    let store: Arc<dyn BlobStore> = Arc::new(there.store.clone());
    let server =
        Server::new(peer(1), store, &BlobServeConfig::default()).with_authorizer(FaultyAuthorizer);
    let (outcomes, mut ended) = mpsc::channel(8);
    let net = Net::default();
    net.add(peer(1), Version::V0, move |socket| {
        let (serving, outcomes) = (
            server.serve(requester(), Version::V0, socket),
            outcomes.clone(),
        );
        Box::pin(async move {
            let _ = outcomes.send(serving.await).await;
        })
    })
    .await;
    let here = folder();
    fetch(&net, &impatient(), id, [peer(1)], &here.store)
        .await
        .unwrap_err();
    let outcome = tokio::time::timeout(LONG, ended.recv()).await.unwrap();
    let Some(Err(ServeError::Store(StoreError::Callback(error)))) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(matches!(error, CallbackError::Panicked { .. }));
}

/// Signs for one provider, and fails for all others.
struct FaultySigner(PeerId, AtomicBool);

impl Signer for FaultySigner {
    fn sign(&self, request: SignRequest) -> Signing {
        assert_eq!(request.context_id, CONTEXT);
        if request.provider == self.0 {
            self.1.store(true, Ordering::SeqCst);
            return Signer::sign(&crate::net::signer(), request);
        }
        panic!("a fault of the embedder")
    }
}

impl FaultySigner {
    fn new(provider: PeerId) -> Arc<Self> {
        Arc::new(Self(provider, AtomicBool::new(false)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_a_signer_of_its_own_whose_fault_costs_one_provider() {
    let key = crate::net::signer().public().to_bytes();
    for version in [Version::V1, Version::V0] {
        let there = folder();
        let id = there.store.put(&content(6, MIB + 1)).unwrap().id;
        let net = Net::default();
        for seed in [1, 2] {
            let store: Arc<dyn BlobStore> = Arc::new(there.store.clone());
            let server = Server::new(peer(seed), store, &BlobServeConfig::default())
                .with_authorizer(move |access: Access| access.public_key == Some(key));
            net.add_server(peer(seed), version, server).await;
        }
        let here = folder();
        let signer = FaultySigner::new(peer(2));
        let request = FetchRequest::new(CONTEXT, id).with_signer(signer.clone());
        let identity = Identity::unsigned(requester());
        let fetcher =
            calimero_network_blob::fetch::Fetcher::new(net.clone(), identity, &impatient());
        let providers = stream::iter([peer(1), peer(2)]);
        let transfer = fetcher.fetch(request, providers, to_store(&here.store));
        let fetched = tokio::time::timeout(LONG, transfer).await.expect("no end");
        fetched.unwrap_or_else(|error| panic!("{version:?}: {error}"));
        assert!(signer.1.load(Ordering::SeqCst));
        // Without the provider that it signs for, the fault is the reason.
        let here = folder();
        let request = FetchRequest::new(CONTEXT, id).with_signer(signer);
        let transfer = fetcher.fetch(request, stream::iter([peer(1)]), to_store(&here.store));
        let fetched = tokio::time::timeout(LONG, transfer).await.expect("no end");
        let Err(FetchError::NoProviders { failures, .. }) = fetched else {
            panic!("{fetched:?}")
        };
        assert!(
            matches!(failures[0].reason, ProviderError::Signer(_)),
            "{failures:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_has_a_limit_and_may_go_to_memory() {
    let there = folder();
    for len in [0, 700, MIB, 3 * MIB + 7] {
        let content = content(7, len);
        let id = there.store.put(&content).unwrap().id;
        for version in [Version::V1, Version::V0] {
            let net = Net::default();
            net.add_store(peer(1), version, &there.store).await;
            let max_bytes = len as u64;
            let to = Destination::Memory { max_bytes };
            let fetched = start(&net, &impatient(), id, [peer(1)], to).await.unwrap();
            assert_eq!(fetched.content.as_deref(), Some(&content[..]));
            if len < 2 * MIB {
                continue;
            }
            let max_bytes = max_bytes - MIB as u64;
            let to = Destination::Memory { max_bytes };
            let refused = start(&net, &impatient(), id, [peer(1)], to)
                .await
                .unwrap_err();
            let here = folder();
            let request = FetchRequest::new(CONTEXT, id).with_max_bytes(max_bytes);
            let transfer = fetcher(&net, &impatient());
            let transfer = transfer.fetch(request, stream::iter([peer(1)]), to_store(&here.store));
            for refused in [refused, transfer.await.unwrap_err()] {
                let named = match &refused {
                    FetchError::TooLarge { .. } => version == Version::V1,
                    FetchError::NoProviders { failures, .. } => {
                        matches!(failures[0].reason, ProviderError::TooLarge { .. })
                    }
                    FetchError::Store(_) | _ => false,
                };
                assert!(named, "{version:?}: {refused}");
            }
            assert_eq!(here.store.usage().partials, 0);
            assert!(!here.store.has(&blob_id(&content)));
        }
    }
}
