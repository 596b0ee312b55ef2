//! Parts for programs that bring their own store, topics and metrics.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "an unexpected result ends a test"
)]

mod common;

use std::{io, sync::Arc, time::Duration};

use calimero_network::{
    BlobId, CloseReason, ConnectionEvent, ContextId, GossipEvent, Keypair, ListenerEvent,
    MetricsFormat, NetworkEvent, NetworkManager, Subscription, Topic,
    blob::{
        fetch::{Destination, FetchRequest},
        store::{FsBlobStore, FsConfig},
    },
    prometheus_client::{encoding::text, registry::Registry},
};
use common::{BOTH, Node, Over, config, pair, start, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_announced_with_its_size_and_without_a_store() {
    let (mut settings, mut others) = (config(), config());
    settings.discovery.local_network = true;
    others.discovery.local_network = true;
    let (a, b) = (start(settings).await, start(others).await);
    // A node that no peer can reach stores nothing for others.
    a.listen(Over::Tcp).await;
    let address = b.listen(Over::Tcp).await;
    a.client.dial(address).await.unwrap();
    let (context_id, blob_id) = (ContextId::from([7; 32]), BlobId::from([9; 32]));
    let stored = async {
        // Until the two have identified each other, the DHT has no peer to store it.
        while let Err(error) = (a.client)
            .announce_blob_of_size(context_id, blob_id, 12_345)
            .await
        {
            tracing::debug!(%error, "not stored yet");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(stored).await;
    let mut providers = b.client.query_blob(context_id, blob_id).await.unwrap();
    let found = async {
        loop {
            let provider = providers.next().await.expect("no signed provider");
            if let Some(size_bytes) = provider.size_bytes {
                break (provider.peer, size_bytes);
            }
        }
    };
    assert_eq!(within(found).await, (a.peer(), 12_345));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_without_an_overlay_is_not_searched_for_members() {
    let node = start(config()).await;
    let topic = Topic::context(ContextId::from([7; 32]));
    let overlays = async || {
        let status = node.client.status().await.unwrap();
        status.discovery.discovery.overlays.len()
    };
    // The overlay of all nodes is there from the start.
    let global = overlays().await;
    let without = Subscription { overlay: false };
    assert!(node.client.subscribe_with(&topic, without).await.unwrap());
    assert_eq!(overlays().await, global);
    // The newer subscription holds, in both directions.
    assert!(!node.client.subscribe(&topic).await.unwrap());
    assert_eq!(overlays().await, global + 1);
    assert!(!node.client.subscribe_with(&topic, without).await.unwrap());
    assert_eq!(overlays().await, global);
    assert!(node.client.unsubscribe(&topic).await.unwrap());
    assert!(node.client.subscribe(&topic).await.unwrap());
    assert_eq!(overlays().await, global + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_in_the_registry_of_the_program() {
    let mut registry = Registry::with_prefix("program");
    let manager = NetworkManager::builder(Keypair::generate_ed25519(), config());
    let (client, events) = manager.metrics(&mut registry).start().await.unwrap();
    let mut a = Node { client, events };
    let b = start(config()).await;
    let address = b.listen(Over::Tcp).await;
    within(a.client.dial(address)).await.unwrap();
    a.wait_for(|event| match event {
        NetworkEvent::Connection(ConnectionEvent::Connected(_)) => Some(()),
        _ => None,
    })
    .await;
    let mut text = String::new();
    text::encode(&mut text, &registry).unwrap();
    let opened = "program_calimero_network_connections_opened_total{";
    assert!(text.contains(opened), "{text}");
}

/// The value of a series, by its name without the prefix and its labels as they are written.
async fn metric(node: &Node, series: &str) -> f64 {
    let metrics = node.client.metrics_in(MetricsFormat::Prometheus).await;
    let metrics = metrics.unwrap();
    let line = metrics.lines().find_map(|line| {
        let line = line.strip_prefix("calimero_network_")?;
        line.strip_prefix(series)?.strip_prefix(' ')
    });
    let value = line.unwrap_or_else(|| panic!("no {series} in {metrics}"));
    value.parse().unwrap()
}

/// Waits until a series has a value.
async fn until_metric(node: &Node, series: &str, wanted: f64) {
    let reached = async {
        while metric(node, series).await != wanted {
            tokio::task::yield_now().await;
        }
    };
    within(reached).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_blobs_and_the_streams_that_carry_them() {
    const SIZE_BYTES: usize = 3 << 20;
    let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = FsBlobStore::open(there.path(), &FsConfig::default()).unwrap();
    let blob_id = store.put(&vec![7; SIZE_BYTES]).unwrap().id;
    let manager = NetworkManager::builder(Keypair::generate_ed25519(), config());
    let manager = manager.blobs(Arc::new(store));
    let (client, events) = manager.start().await.unwrap();
    let (provider, node) = (Node { client, events }, start(config()).await);
    let address = provider.listen(Over::Tcp).await;
    within(node.client.dial(address)).await.unwrap();
    let dials = "dial_duration_seconds_count{transport=\"tcp\"}";
    assert_eq!(metric(&node, dials).await, 1.0);
    let handshakes = "inbound_handshake_duration_seconds_count{transport=\"tcp\"}";
    until_metric(&provider, handshakes, 1.0).await;

    let to = || {
        let store = FsBlobStore::open(here.path(), &FsConfig::default()).unwrap();
        Destination::Store(Arc::new(store))
    };
    let context_id = ContextId::from([7; 32]);
    let providers = vec![provider.peer()];
    let fetched = node
        .client
        .request_blob(context_id, blob_id, providers, to());
    within(fetched).await.unwrap();
    let size = SIZE_BYTES as f64;
    assert_eq!(
        metric(&node, "blob_fetches_total{outcome=\"ok\"}").await,
        1.0
    );
    assert_eq!(metric(&node, "blob_fetches_active").await, 0.0);
    assert!(metric(&node, "blob_received_bytes_total").await >= size);
    assert_eq!(metric(&provider, "blob_sent_bytes_total").await, size);
    assert!(metric(&provider, "blob_requests_served_total").await >= 1.0);
    assert_eq!(metric(&provider, "blob_requests_refused_total").await, 0.0);
    assert_eq!(metric(&provider, "blob_store_blobs").await, 1.0);
    assert!(metric(&provider, "blob_store_used_bytes").await >= size);
    assert!(metric(&provider, "blob_store_limit_bytes").await > size);
    let protocol = "protocol=\"/calimero/blob/1.1.0\"";
    let bytes = format!("protocol_bytes_total{{direction=\"sent\",{protocol}}}");
    assert!(metric(&provider, &bytes).await > size);
    let bytes = format!("protocol_bytes_total{{direction=\"received\",{protocol}}}");
    assert!(metric(&node, &bytes).await > size);
    let streams = format!("streams_opened_total{{direction=\"inbound\",{protocol}}}");
    assert!(metric(&provider, &streams).await >= 1.0);

    // A fetch that is dropped is cancelled, one without a provider has failed.
    let unknown = BlobId::from([9; 32]);
    drop(node.client.request_blob(context_id, unknown, vec![], to()));
    let cancelled = "blob_fetches_total{outcome=\"cancelled\"}";
    until_metric(&node, cancelled, 1.0).await;
    let request = FetchRequest::new(context_id, unknown).without_search();
    let providers = vec![provider.peer()];
    let failed = node.client.request_blob_with(request, providers, to());
    assert!(within(failed).await.is_err());
    let failures = "blob_fetches_total{outcome=\"no_provider\"}";
    assert_eq!(metric(&node, failures).await, 1.0);
    let cause = "blob_provider_failures_total{cause=\"not_found\"}";
    assert_eq!(metric(&node, cause).await, 1.0);
    assert_eq!(metric(&provider, "blob_requests_refused_total").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_messages_and_unread_events() {
    let (a, mut b) = pair(Over::Tcp).await;
    let topic = Topic::context(ContextId::from([7; 32]));
    a.client.subscribe(&topic).await.unwrap();
    b.client.subscribe(&topic).await.unwrap();
    b.wait_for(|event| match event {
        NetworkEvent::Gossip(GossipEvent::Subscribed { .. }) => Some(()),
        _ => None,
    })
    .await;
    let publish = async {
        while a.client.publish(&topic, "news").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    within(publish).await;
    assert_eq!(metric(&a, "gossip_messages_published_total").await, 1.0);
    assert_eq!(metric(&a, "gossip_topics").await, 1.0);
    until_metric(&b, "events_unread{kind=\"message\"}", 1.0).await;
    assert_eq!(metric(&b, "gossip_messages_delivered_total").await, 1.0);
    assert_eq!(metric(&b, "gossip_payload_received_bytes_total").await, 4.0);
    b.wait_for(|event| match event {
        NetworkEvent::Gossip(GossipEvent::Message(_)) => Some(()),
        _ => None,
    })
    .await;
    assert_eq!(metric(&b, "events_unread{kind=\"message\"}").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_the_peer_closes_has_its_cause() {
    for over in BOTH {
        let (mut a, b) = pair(over).await;
        let peer = b.peer();
        b.client.shutdown().await.unwrap();
        let reason = a
            .wait_for(|event| match event {
                NetworkEvent::Connection(ConnectionEvent::Disconnected {
                    peer: of,
                    reason,
                    ..
                }) if of == peer => Some(reason),
                _ => None,
            })
            .await;
        let CloseReason::Remote { cause } = &reason else {
            panic!("{over:?}: {reason:?}");
        };
        // Over TCP the host of a peer that has closed answers later data with a reset.
        let expected = match over {
            Over::Tcp => ["closed", "reset"],
            Over::Quic => ["closed"; 2],
        };
        assert!(expected.contains(&cause.name()), "{over:?}: {reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_an_error_with_the_address_and_the_number_of_the_cause() {
    let holder = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let mut settings = config();
    settings.listen = vec![
        format!("/ip4/127.0.0.1/udp/{port}/quic-v1")
            .parse()
            .unwrap(),
    ];
    let manager = NetworkManager::builder(Keypair::generate_ed25519(), settings);
    let error = manager.start().await.unwrap_err();
    let calimero_network::StartError::Listen(calimero_network::ListenError::Io { source, .. }) =
        &error
    else {
        panic!("{error:?}");
    };
    assert_eq!(source.kind(), io::ErrorKind::AddrInUse);
    assert!(source.raw_os_error().is_some(), "{source:?}");
    assert!(
        error
            .to_string()
            .contains(&format!("/udp/{port}/quic-v1: "))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_running_node_are_json_with_the_name_of_the_event() {
    let mut node = start(config()).await;
    node.listen(Over::Tcp).await;
    let listening = node.wait_for(|event| {
        let json = serde_json::to_value(&event).unwrap();
        assert!(json["event"].is_string(), "{json}");
        assert!(!event.to_string().is_empty());
        match event {
            NetworkEvent::Listener(ListenerEvent::Listening { address, .. }) => {
                Some((address, json))
            }
            _ => None,
        }
    });
    let (address, json) = listening.await;
    let expected = serde_json::json!({ "event": "listening", "address": address.to_string() });
    assert_eq!(json, expected);
}

/// A burst is received in order and whole, by a program that reads in batches.
#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_messages_is_received_in_batches() {
    const MESSAGES: usize = 300;
    let (a, mut b) = pair(Over::Tcp).await;
    let topic = Topic::context(ContextId::new([7; 32]));
    for node in [&a, &b] {
        node.client.subscribe(&topic).await.unwrap();
    }
    within(async {
        while a.client.subscribed_peers(&topic).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let publish = async {
        for number in 0..MESSAGES {
            let data = number.to_be_bytes().to_vec();
            a.client.publish(&topic, data).await.unwrap();
        }
    };
    let receive = async {
        let (mut buffer, mut numbers) = (Vec::new(), Vec::new());
        while numbers.len() < MESSAGES {
            assert!(b.events.recv_many(&mut buffer, 64).await > 0);
            assert!(buffer.len() <= 64);
            for event in buffer.drain(..) {
                if let NetworkEvent::Gossip(GossipEvent::Message(message)) = event {
                    numbers.push(usize::from_be_bytes(message.data[..].try_into().unwrap()));
                }
            }
        }
        numbers
    };
    let ((), numbers) = within(futures::future::join(publish, receive)).await;
    assert_eq!(numbers, (0..MESSAGES).collect::<Vec<_>>());
}
