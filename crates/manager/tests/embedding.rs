//! Parts for programs that bring their own store, topics and metrics.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "an unexpected result ends a test"
)]

mod common;

use std::{io, time::Duration};

use calimero_network::{
    BlobId, CloseReason, ConnectionEvent, ContextId, Keypair, ListenerEvent, NetworkEvent,
    NetworkManager, Subscription, Topic,
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
