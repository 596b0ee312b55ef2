//! Honest providers.

use std::{os::unix::fs::MetadataExt, sync::Arc};

use calimero_network_blob::{
    blob_id,
    fetch::{Destination, FetchError, FetchRequest, Progress, ProviderError},
    store::BlobStore,
    transfer::{Identity, Version},
};
use futures::{StreamExt, future, stream};

use crate::net::{
    CONTEXT, LONG, Memory, Net, content, fetch, fetcher, folder, impatient, peer, read_all,
    requester, signer, start, to_store,
};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn every_size_arrives_by_either_version() {
    let there = folder();
    for version in [Version::V1, Version::V0] {
        let net = Net::default();
        net.add_store(peer(1), version, &there.store).await;
        let here = folder();
        for len in [0, 1, 65_536, 65_537, MIB - 1, MIB, MIB + 1, 5 * MIB + 7] {
            let content = content(len as u64, len);
            let id = there.store.put(&content).unwrap().id;
            let fetched = fetch(&net, &impatient(), id, [peer(1)], &here.store).await;
            let fetched = fetched.unwrap_or_else(|error| panic!("{version:?} {len}: {error}"));
            assert_eq!(fetched.id, id);
            assert_eq!(fetched.size_bytes, len as u64);
            assert!(fetched.received_bytes >= len as u64);
            assert_eq!(read_all(&here.store, &id), content, "{version:?} {len}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_not_fetched() {
    let here = folder();
    let id = here.store.put(&content(1, 100)).unwrap().id;
    let net = Net::default();
    let fetched = fetch(&net, &impatient(), id, [peer(1)], &here.store).await;
    assert_eq!(fetched.unwrap().received_bytes, 0);
    assert_eq!(net.opens(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_providers_share_a_blob() {
    let there = folder();
    let content = content(2, 40 * MIB + 1);
    let id = there.store.put(&content).unwrap().id;
    let net = Net::default();
    for seed in 1..=3 {
        net.add_store(peer(seed), Version::V1, &there.store).await;
    }
    let here = folder();
    let fetched = fetch(&net, &impatient(), id, (1..=3).map(peer), &here.store).await;
    let fetched = fetched.unwrap();
    assert!(fetched.providers.len() > 1, "{:?}", fetched.providers);
    let gave: u64 = fetched.providers.iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(gave, content.len() as u64);
    assert!(fetched.failures.is_empty(), "{:?}", fetched.failures);
    assert_eq!(read_all(&here.store, &id), content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_appears_when_it_is_whole() {
    let there = folder();
    let content = content(3, 3 * MIB + 5);
    let id = there.store.put(&content).unwrap().id;
    for version in [Version::V1, Version::V0] {
        let net = Net::default();
        net.add_store(peer(1), version, &there.store).await;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("some file");
        let to = Destination::File(path.clone());
        let fetched = start(&net, &impatient(), id, [peer(1)], to).await.unwrap();
        assert_eq!(fetched.size_bytes, content.len() as u64);
        assert_eq!(std::fs::read(&path).unwrap(), content);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_taken_up_where_it_was_left() {
    let there = folder();
    let content = content(4, 8 * MIB + 5);
    let id = there.store.put(&content).unwrap().id;
    let net = Net::default();
    net.add_store(peer(1), Version::V1, &there.store).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    // What an interrupted download leaves: two chunks, a hole, a false one, and the last.
    let mut part = content.clone();
    part[2 * MIB..3 * MIB].fill(0);
    part[3 * MIB] ^= 1;
    std::fs::write(dir.path().join("file.part"), &part).unwrap();
    let to = Destination::File(path.clone());
    let fetched = start(&net, &impatient(), id, [peer(1)], to).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), content);
    let gave: u64 = fetched.providers.iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(gave, 2 * MIB as u64, "the two that were missing");
}

/// A process may end between giving a file its name and saying so: the next try asks for nothing
/// that is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_complete_stays_and_one_that_is_not_is_replaced() {
    let there = folder();
    for len in [MIB, 2 * MIB, 3 * MIB + 5] {
        let content = content(5, len);
        let id = there.store.put(&content).unwrap().id;
        let net = Net::default();
        net.add_store(peer(1), Version::V1, &there.store).await;
        let dir = tempfile::tempdir().unwrap();
        let (path, part) = (dir.path().join("file"), dir.path().join("file.part"));
        let fetch = || {
            start(
                &net,
                &impatient(),
                id,
                [peer(1)],
                Destination::File(path.clone()),
            )
        };
        std::fs::write(&path, &content).unwrap();
        std::fs::write(&part, b"of an earlier try").unwrap();
        let file = std::fs::metadata(&path).unwrap().ino();
        let fetched = fetch().await.unwrap();
        assert_eq!(
            (fetched.size_bytes, fetched.resumed_bytes),
            (len as u64, len as u64)
        );
        assert_eq!(fetched.providers, []);
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), file);
        assert!(!part.exists());
        let mut other_byte = content.clone();
        *other_byte.last_mut().unwrap() ^= 1;
        let longer = [&content[..], b"more"].concat();
        for other in [
            &other_byte,
            &longer,
            &content[..len - 1].to_vec(),
            &Vec::new(),
        ] {
            std::fs::write(&path, other).unwrap();
            let fetched = fetch().await.unwrap();
            assert_eq!(fetched.resumed_bytes, 0, "of {} bytes", other.len());
            assert!(std::fs::read(&path).unwrap() == content);
            assert!(!part.exists());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_gets_all_in_order() {
    let there = folder();
    for (len, version) in [
        (30 * MIB + 9, Version::V1),
        (3 * MIB + 9, Version::V0),
        (1000, Version::V1),
    ] {
        let content = content(5, len);
        let id = there.store.put(&content).unwrap().id;
        let net = Net::default();
        net.add_store(peer(1), version, &there.store).await;
        net.add_store(peer(2), version, &there.store).await;
        let memory = Memory::default();
        let to = Destination::Writer(Box::new(memory.clone()));
        let transfer = start(&net, &impatient(), id, [peer(1), peer(2)], to);
        let fetched = transfer.await.unwrap();
        assert_eq!(fetched.size_bytes, len as u64);
        assert!(*memory.0.lock().unwrap() == content);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_cancels_and_keeps_what_was_verified() {
    let there = folder();
    let content = content(6, 24 * MIB);
    let id = there.store.put(&content).unwrap().id;
    let net = Net::default();
    // Sends less than half of it, so that it cannot end before the test looks.
    let store: Arc<dyn BlobStore> = Arc::new(there.store.clone());
    let config = calimero_network_primitives::config::BlobServeConfig::default();
    let server = calimero_network_blob::serve::Server::new(peer(1), store, &config);
    net.add(peer(1), Version::V1, move |socket| {
        let (ours, _) = crate::cut::cut_after(10 * MIB, socket);
        let serving = server.serve(requester(), Version::V1, ours);
        Box::pin(async move {
            let _ = serving.await;
        })
    })
    .await;
    net.add_store(peer(2), Version::V1, &there.store).await;
    let here = folder();
    let mut transfer = start(&net, &impatient(), id, [peer(1)], to_store(&here.store));
    let mut progress = transfer.progress();
    let half = async {
        while let Some(progress) = progress.next().await {
            if progress.verified_bytes >= 8 * MIB as u64 {
                return;
            }
        }
    };
    let first = tokio::time::timeout(LONG, future::select(&mut transfer, Box::pin(half))).await;
    let early = matches!(first.expect("no end"), future::Either::Right(_));
    assert!(early);
    drop(transfer);
    assert!(!here.store.has(&id));
    let fetched = fetch(&net, &impatient(), id, [peer(2)], &here.store).await;
    let fetched = fetched.unwrap();
    assert!(fetched.resumed_bytes >= 8 * MIB as u64);
    let rest = (content.len() as u64) - fetched.resumed_bytes;
    let overhead = fetched.received_bytes.saturating_sub(rest);
    assert!(overhead < MIB as u64, "{fetched:?}");
    assert!(read_all(&here.store, &id) == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_rises_to_the_size_and_ends() {
    let there = folder();
    let content = content(7, 20 * MIB);
    let id = there.store.put(&content).unwrap().id;
    let net = Net::default();
    net.add_store(peer(1), Version::V1, &there.store).await;
    let here = folder();
    let transfer = start(&net, &impatient(), id, [peer(1)], to_store(&here.store));
    let progress = transfer.progress().collect::<Vec<Progress>>();
    let (fetched, progress) = future::join(transfer, progress).await;
    fetched.unwrap();
    let verified: Vec<_> = progress.iter().map(|p| p.verified_bytes).collect();
    assert!(verified.is_sorted(), "{verified:?}");
    let last = progress.last().unwrap();
    assert_eq!(last.verified_bytes, content.len() as u64);
    assert_eq!(last.size_bytes, Some(content.len() as u64));
    assert_eq!(last.providers.len(), 1);
    assert_eq!(last.providers[0].verified_bytes, content.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_found_later_is_asked() {
    let there = folder();
    let content = content(8, 2 * MIB);
    let id = there.store.put(&content).unwrap().id;
    let net = Net::default();
    let empty = folder();
    net.add_store(peer(1), Version::V1, &empty.store).await;
    net.add_store(peer(2), Version::V1, &there.store).await;
    let here = folder();
    let (found, providers) = futures::channel::mpsc::channel(4);
    let request = FetchRequest::new(CONTEXT, id);
    let fetcher = fetcher(&net, &impatient());
    let transfer = fetcher.fetch(request, providers, to_store(&here.store));
    let mut found = found;
    found.try_send(peer(1)).unwrap();
    let asked_in_vain = net.clone();
    let later = async move {
        while asked_in_vain.opens() == 0 {
            tokio::task::yield_now().await;
        }
        found.try_send(peer(2)).unwrap();
    };
    let (fetched, ()) = future::join(transfer, later).await;
    let fetched = fetched.unwrap();
    assert_eq!(fetched.providers, [(peer(2), 2 * MIB as u64)]);
    let [failure] = &fetched.failures[..] else {
        panic!("{:?}", fetched.failures)
    };
    assert_eq!(failure.peer, peer(1));
    assert!(matches!(failure.reason, ProviderError::NotFound));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_to_ask_is_an_error_that_names_all() {
    let net = Net::default();
    let empty = folder();
    net.add_store(peer(1), Version::V1, &empty.store).await;
    net.add_store(peer(2), Version::V0, &empty.store).await;
    let id = blob_id(b"nobody has it");
    let here = folder();
    // The third listens nowhere.
    let fetched = fetch(&net, &impatient(), id, (1..=3).map(peer), &here.store).await;
    let Err(FetchError::NoProviders { failures, .. }) = fetched else {
        panic!("{fetched:?}")
    };
    assert_eq!(failures.len(), 3);
    for failure in failures {
        let opened = failure.peer != peer(3);
        match failure.reason {
            ProviderError::NotFound => assert!(opened),
            ProviderError::Open { .. } => assert!(!opened),
            other => panic!("{other}"),
        }
    }
    let fetched = fetch(&net, &impatient(), id, [], &here.store).await;
    assert!(
        matches!(fetched, Err(FetchError::NoProviders { failures, .. }) if failures.is_empty())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_without_end_ends() {
    let net = Net::default();
    let here = folder();
    let request = FetchRequest::new(CONTEXT, blob_id(b"nobody has it"));
    let config = calimero_network_blob::fetch::BlobFetchConfig {
        tuning: calimero_network_blob::fetch::BlobFetchTuning {
            search_timeout: std::time::Duration::from_millis(300),
            ..impatient().tuning
        },
        ..impatient()
    };
    let transfer = fetcher(&net, &config).fetch(request, stream::pending(), to_store(&here.store));
    let fetched = tokio::time::timeout(LONG, transfer).await.expect("no end");
    assert!(matches!(fetched, Err(FetchError::NoProviders { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_provider_finishes_what_a_newer_one_began() {
    let there = folder();
    let content = content(9, 12 * MIB + 3);
    let id = there.store.put(&content).unwrap().id;
    let net = Net::default();
    let serving: Arc<dyn BlobStore> = Arc::new(there.store.clone());
    net.add_store(peer(2), Version::V0, &there.store).await;
    // Gives the list and the first chunks, then goes.
    let server = calimero_network_blob::serve::Server::new(
        peer(1),
        serving,
        &calimero_network_primitives::config::BlobServeConfig::default(),
    );
    net.add(peer(1), Version::V1, move |socket| {
        let (ours, theirs) = crate::cut::cut_after(4 * MIB, socket);
        let serving = server.serve(requester(), Version::V1, ours);
        Box::pin(async move {
            let _ = future::select(Box::pin(serving), theirs).await;
        })
    })
    .await;
    let here = folder();
    let config = calimero_network_blob::fetch::BlobFetchConfig {
        tuning: calimero_network_blob::fetch::BlobFetchTuning {
            max_failures: 1,
            ..impatient().tuning
        },
        ..impatient()
    };
    let fetched = fetch(&net, &config, id, [peer(1), peer(2)], &here.store).await;
    let fetched = fetched.unwrap();
    assert_eq!(fetched.providers.len(), 2, "{fetched:?}");
    assert!(read_all(&here.store, &id) == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_fetches_of_one_blob_do_not_disturb_each_other() {
    let there = folder();
    let content = content(10, 9 * MIB);
    let id = there.store.put(&content).unwrap().id;
    let net = Net::default();
    net.add_store(peer(1), Version::V1, &there.store).await;
    let here = folder();
    let config = impatient();
    let one = fetch(&net, &config, id, [peer(1)], &here.store);
    let other = fetch(&net, &config, id, [peer(1)], &here.store);
    let (one, other) = future::join(one, other).await;
    one.unwrap();
    other.unwrap();
    assert!(read_all(&here.store, &id) == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_request_is_authorized() {
    use calimero_network_blob::serve::{Access, Server};

    let there = folder();
    let id = there.store.put(&content(11, MIB + 1)).unwrap().id;
    let signer = signer();
    let key = signer.public().to_bytes();
    for version in [Version::V1, Version::V0] {
        let store: Arc<dyn BlobStore> = Arc::new(there.store.clone());
        let config = calimero_network_primitives::config::BlobServeConfig::default();
        let server = Server::new(peer(1), store, &config).with_authorizer(move |access: Access| {
            access.public_key == Some(key) && access.context_id == CONTEXT
        });
        let net = Net::default();
        net.add_server(peer(1), version, server).await;
        let here = folder();
        let refused = fetch(&net, &impatient(), id, [peer(1)], &here.store).await;
        let Err(FetchError::NoProviders { failures, .. }) = refused else {
            panic!("{refused:?}")
        };
        assert!(matches!(failures[0].reason, ProviderError::NotFound));
        let identity = Identity {
            peer: requester(),
            signer: Some(Arc::new(signer.clone())),
        };
        let fetcher =
            calimero_network_blob::fetch::Fetcher::new(net.clone(), identity, &impatient());
        let request = FetchRequest::new(CONTEXT, id);
        let providers = stream::iter([peer(1)]);
        let transfer = fetcher.fetch(request, providers, to_store(&here.store));
        let fetched = tokio::time::timeout(LONG, transfer).await.expect("no end");
        assert_eq!(fetched.unwrap().id, id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_provider_does_not_hold_up_a_quick_one() {
    let there = folder();
    let content = content(12, 10 * MIB);
    let id = there.store.put(&content).unwrap().id;
    let net = Net::default();
    net.add_store(peer(1), Version::V1, &there.store).await;
    // Knows the list, and never sends a chunk to its end.
    let serving: Arc<dyn BlobStore> = Arc::new(there.store.clone());
    let config = calimero_network_primitives::config::BlobServeConfig::default();
    let server = calimero_network_blob::serve::Server::new(peer(2), serving, &config);
    net.add(peer(2), Version::V1, move |socket| {
        let (ours, _) = crate::cut::cut_after(MIB / 2, socket);
        let serving = server.serve(requester(), Version::V1, ours);
        Box::pin(async move {
            let _ = serving.await;
        })
    })
    .await;
    let here = folder();
    let fetched = fetch(&net, &impatient(), id, [peer(2), peer(1)], &here.store).await;
    assert_eq!(fetched.unwrap().providers.len(), 1);
    assert!(read_all(&here.store, &id) == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_brings_small_and_large() {
    let there = folder();
    let mut ids = Vec::new();
    for seed in 0..500 {
        let content = content(seed, 1 + seed as usize * 7);
        ids.push(there.store.put(&content).unwrap().id);
    }
    let large = content(1000, 2 * MIB + 5);
    ids.push(there.store.put(&large).unwrap().id);
    let absent = blob_id(b"nobody has it");
    ids.push(absent);
    let net = Net::default();
    net.add_store(peer(1), Version::V1, &there.store).await;
    net.add_store(peer(2), Version::V1, &there.store).await;
    net.add_store(peer(3), Version::V0, &there.store).await;
    // Says of everything that it is something else.
    net.add(
        peer(4),
        Version::V1,
        crate::hostile::v1(|request| match request {
            calimero_network_blob::v1::Request::Hello(_) => vec![],
            _ => vec![calimero_network_blob::v1::Response::Inline {
                content: bytes::Bytes::from_static(b"other"),
            }],
        }),
    )
    .await;
    let here = folder();
    let store: Arc<dyn BlobStore> = Arc::new(here.store.clone());
    let fetcher = fetcher(&net, &impatient());
    let providers = (1..=4).map(peer).collect();
    let fetching = fetcher.fetch_batch(CONTEXT, ids.clone(), providers, store);
    let batch = tokio::time::timeout(LONG, fetching).await.expect("no end");
    let batch = batch.unwrap();
    assert_eq!(batch.fetched.len(), 501);
    let [(failed, _)] = &batch.failed[..] else {
        panic!("{:?}", batch.failed)
    };
    assert_eq!(*failed, absent);
    for id in ids.iter().filter(|id| **id != absent) {
        assert_eq!(
            read_all(&here.store, id),
            read_all(&there.store, id),
            "{id}"
        );
    }
}
