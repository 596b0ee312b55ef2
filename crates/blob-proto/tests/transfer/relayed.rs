//! Providers that are reached through relays.

use std::{sync::atomic::Ordering, time::Duration};

use calimero_network_blob::{
    fetch::{BlobFetchConfig, BlobFetchTuning, FetchError, ProviderError},
    transfer::Version,
};

use crate::net::{Net, content, fetch, folder, impatient, peer};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn content_waits_for_a_direct_path() {
    let there = folder();
    let id = there.store.put(&content(1, 2 * MIB)).unwrap().id;
    for version in [Version::V1, Version::V0] {
        let net = Net::default();
        net.add_store(peer(1), version, &there.store).await;
        net.relayed.store(3, Ordering::SeqCst);
        let here = folder();
        let fetched = fetch(&net, &impatient(), id, [peer(1)], &here.store).await;
        fetched.unwrap_or_else(|error| panic!("{version:?}: {error}"));
        assert!(net.opens() > 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_direct_path_is_said() {
    let there = folder();
    let id = there.store.put(&content(1, 2 * MIB)).unwrap().id;
    let config = BlobFetchConfig {
        tuning: BlobFetchTuning {
            direct_timeout: Duration::from_millis(500),
            ..impatient().tuning
        },
        ..impatient()
    };
    for version in [Version::V1, Version::V0] {
        let net = Net::default();
        net.add_store(peer(1), version, &there.store).await;
        net.relayed.store(usize::MAX, Ordering::SeqCst);
        let here = folder();
        let fetched = fetch(&net, &config, id, [peer(1)], &here.store).await;
        let Err(FetchError::NoProviders { failures, .. }) = fetched else {
            panic!("{fetched:?}")
        };
        let ProviderError::Relayed { waited } = failures[0].reason else {
            panic!("{version:?}: {}", failures[0])
        };
        assert!(waited >= Duration::from_millis(500));
        // Unless the operator says that relays carry it.
        let config = BlobFetchConfig {
            through_relays: true,
            ..config.clone()
        };
        fetch(&net, &config, id, [peer(1)], &here.store)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn small_blobs_pass_through_a_relay() {
    let there = folder();
    let id = there.store.put(&content(1, 65_536)).unwrap().id;
    let net = Net::default();
    net.add_store(peer(1), Version::V1, &there.store).await;
    net.relayed.store(usize::MAX, Ordering::SeqCst);
    let here = folder();
    fetch(&net, &impatient(), id, [peer(1)], &here.store)
        .await
        .unwrap();
    assert_eq!(net.opens(), 1);
}
