//! The handle, its events, and who may connect.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod common;

use std::time::Duration;

use calimero_network::{
    CloseReason, ConnectionEvent, Denial, DialError, Direction, Keypair, NetworkClient,
    NetworkConfig, NetworkEvent, NetworkManager, Path, StartError, Stopped, StreamEvent,
    config::RuntimeKind,
};
use common::{BOTH, LAST, Over, assert_works, config, pair, pair_with, start, within};

fn is_send_and_sync<T: Send + Sync>() {}

#[test]
fn the_handle_goes_anywhere() {
    is_send_and_sync::<NetworkClient>();
}

#[tokio::test]
async fn both_sides_know_how_they_are_connected() {
    for (over, transport) in BOTH.into_iter().zip(["tcp", "quic"]) {
        let (a, mut b) = pair(over).await;
        assert_works(&a, &mut b).await;
        let (ours, theirs) = (
            a.client.status().await.unwrap().connections.remove(0),
            b.client.status().await.unwrap().connections.remove(0),
        );
        assert_eq!((ours.peer, theirs.peer), (b.peer(), a.peer()));
        assert_eq!(ours.direction, Direction::Outbound);
        assert_eq!(theirs.direction, Direction::Inbound);
        assert_eq!((ours.path, theirs.path), (Path::Direct, Path::Direct));
        for connection in [&ours, &theirs] {
            assert_eq!(connection.transport().to_string(), transport);
            assert!(connection.link.bytes_in() > 0 && connection.link.bytes_out() > 0);
        }
        assert_eq!(ours.security(), theirs.security());
        assert_eq!(ours.muxer(), theirs.muxer());
    }
}

/// Writes a certificate for 127.0.0.1 and its key, and returns a configuration with both.
#[cfg(feature = "websocket")]
fn with_certificate(folder: &std::path::Path) -> NetworkConfig {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let mut config = config();
    let websocket = &mut config.transport.websocket;
    websocket.certificate = folder.join("cert.pem");
    websocket.key = folder.join("key.pem");
    websocket.tuning.trusted = Some(websocket.certificate.clone());
    std::fs::write(&websocket.certificate, made.cert.pem()).unwrap();
    std::fs::write(&websocket.key, made.key_pair.serialize_pem()).unwrap();
    config
}

#[cfg(feature = "websocket")]
#[tokio::test]
async fn nodes_connect_over_websocket() {
    let folder = tempfile::tempdir().unwrap();
    let config = with_certificate(folder.path());
    for suffix in ["ws", "wss", "tls/ws"] {
        let mut listening = config.clone();
        let address = format!("/ip4/127.0.0.1/tcp/0/{suffix}");
        listening.listen = vec![address.parse().unwrap()];
        let (a, mut b) = (start(config.clone()).await, start(listening).await);
        let mut addresses = within(b.client.status()).await.unwrap().listening;
        let address = addresses.remove(0);
        assert!(address.to_string().ends_with(suffix), "{address}");
        let address = address.with_p2p(b.peer()).unwrap();
        within(a.client.dial(address)).await.unwrap();
        assert_works(&a, &mut b).await;
        for node in [&a, &b] {
            let connection = node.client.status().await.unwrap().connections.remove(0);
            assert_eq!(connection.transport().to_string(), "websocket");
            assert_eq!(connection.path, Path::Direct);
        }
    }
}

#[cfg(feature = "websocket")]
#[tokio::test]
async fn a_node_does_not_start_with_the_key_of_another_certificate() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut config = with_certificate(one.path());
    config.transport.websocket.key = with_certificate(other.path()).transport.websocket.key;
    let identity = Keypair::generate_ed25519();
    let error = NetworkManager::start(identity, config).await.unwrap_err();
    assert!(matches!(error, StartError::Transport(_)), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("does not belong to the certificate"),
        "{text}"
    );
}

#[tokio::test]
async fn peers_say_who_they_are() {
    let mut named = config();
    named.agent_version = "tester/1.2.3".to_owned();
    let (a, b) = pair_with(Over::Tcp, config(), named).await;
    let info = within(a.client.identified(b.peer()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(info.agent_version, "tester/1.2.3");
    assert!(info.protocol_version.starts_with("/calimero-network/"));
    let protocols: Vec<_> = info.protocols.iter().map(ToString::to_string).collect();
    for expected in [
        "/calimero/stream/0.0.2",
        "/ipfs/ping/1.0.0",
        "/ipfs/id/1.0.0",
    ] {
        assert!(protocols.iter().any(|p| p == expected), "{protocols:?}");
    }
    let stranger = Keypair::generate_ed25519().public().to_peer_id();
    assert_eq!(within(a.client.identified(stranger)).await.unwrap(), None);
}

#[tokio::test]
async fn the_runtime_of_the_caller_can_carry_the_network() {
    let shared = || {
        let mut config = config();
        config.handle.runtime = RuntimeKind::Shared;
        config
    };
    let (a, mut b) = pair_with(LAST, shared(), shared()).await;
    assert_works(&a, &mut b).await;
    within(a.client.shutdown()).await.unwrap();
}

#[test]
fn the_network_runs_without_a_runtime_of_the_caller() {
    futures::executor::block_on(async {
        let (a, b) = (start(config()).await, start(config()).await);
        let (_, address) = b
            .client
            .listen_on(common::loopback(Over::Tcp))
            .await
            .unwrap();
        let connection = a.client.dial(address).await.unwrap();
        assert_eq!(connection.peer, b.peer());
        let mut stream = a.client.open_stream(b.peer()).await.unwrap();
        stream.send("hi".into()).await.unwrap();
        a.client.shutdown().await.unwrap();
    });
}

#[tokio::test]
async fn nodes_meet_in_memory() {
    let identity = Keypair::generate_ed25519;
    let (a, _) = NetworkManager::start_in_memory(identity(), config())
        .await
        .unwrap();
    let (b, _) = NetworkManager::start_in_memory(identity(), config())
        .await
        .unwrap();
    let (_, address) = b.listen_on("/memory/0".parse().unwrap()).await.unwrap();
    let connection = within(a.dial(address)).await.unwrap();
    assert_eq!(connection.peer, b.peer_id());
    assert_eq!(connection.transport().to_string(), "memory");
}

#[tokio::test]
async fn a_config_that_contradicts_itself_starts_nothing() {
    let mut config = config();
    config.streams.tuning.accept_queue = 0;
    let error = NetworkManager::start(Keypair::generate_ed25519(), config)
        .await
        .err();
    let error = error.expect("refused");
    assert!(matches!(error, StartError::Config(_)), "{error:?}");
    assert!(
        error.to_string().contains("streams.tuning.accept_queue"),
        "{error}"
    );
}

#[tokio::test]
async fn an_address_in_use_is_named_at_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let address = format!("/ip4/127.0.0.1/tcp/{port}");
    let config = NetworkConfig {
        listen: vec![address.parse().unwrap()],
        ..NetworkConfig::default()
    };
    let error = NetworkManager::start(Keypair::generate_ed25519(), config)
        .await
        .err();
    let error = error.expect("refused");
    assert!(matches!(error, StartError::Listen(_)), "{error:?}");
    assert!(error.to_string().contains(&address), "{error}");
}

#[tokio::test]
async fn the_last_client_ends_the_manager() {
    let (a, b) = pair(Over::Tcp).await;
    let common::Node { client, mut events } = a;
    drop(client);
    while within(events.next()).await.is_some() {}
    while b.client.peer_count().unwrap() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_listener_can_be_closed() {
    let (a, b) = (start(config()).await, start(config()).await);
    for over in BOTH {
        let (id, address) = b.client.listen_on(common::loopback(over)).await.unwrap();
        assert!(within(b.client.stop_listening(id)).await.unwrap());
        assert!(!within(b.client.stop_listening(id)).await.unwrap());
        while !b.client.status().await.unwrap().listening.is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(within(a.client.dial(address)).await.is_err());
    }
}

#[tokio::test]
async fn streams_that_nobody_reads_wait_or_are_refused() {
    let mut small = config();
    small.handle.event_queue = 4;
    small.streams.tuning.accept_queue = 4;
    let (a, mut b) = pair_with(Over::Tcp, config(), small).await;
    let mut opened = Vec::new();
    for _ in 0..20 {
        opened.push(within(a.client.open_stream(b.peer())).await.unwrap());
        // The reset is seen at the side that opened it.
        let _ = within(opened.last_mut().unwrap().send("hi".into())).await;
    }
    let (mut served, mut refused) = (0, 0);
    while served + refused < 20 {
        b.wait_for(|event| match event {
            NetworkEvent::Stream(StreamEvent::Opened { .. }) => {
                served += 1;
                Some(())
            }
            NetworkEvent::Stream(StreamEvent::Refused { count, .. }) => {
                refused += count;
                Some(())
            }
            _ => None,
        })
        .await;
    }
    assert!(
        served >= 8 && refused > 0,
        "{served} served, {refused} refused"
    );
    assert_works(&a, &mut b).await;
}

#[tokio::test]
async fn only_the_allowed_connect() {
    let (friend, stranger) = (start(config()).await, start(config()).await);
    let mut private = config();
    private.connections.allow = vec![friend.peer()];
    let node = start(private).await;
    for over in BOTH {
        let address = node.listen(over).await;
        // The stranger's handshake may end before it is turned away; it is not kept.
        let _ = within(stranger.client.dial(address.clone())).await;
        while stranger.client.peer_count().unwrap() > 0 {
            tokio::task::yield_now().await;
        }
        within(friend.client.dial(address)).await.unwrap();
        let peers = node.client.status().await.unwrap().peers();
        assert!(!peers.contains(&stranger.peer()));
    }
    let outwards = stranger.listen(Over::Tcp).await;
    let error = within(node.client.dial(outwards)).await.unwrap_err();
    assert!(
        matches!(error, DialError::Denied(Denial::NotAllowed)),
        "{error:?}"
    );
    #[cfg(feature = "metrics")]
    let metrics = node.client.metrics().await.unwrap();
    #[cfg(feature = "metrics")]
    for line in [
        "inbound_connections_failed_total{why=\"not_allowed\"} 2",
        "dials_failed_total{why=\"not_allowed\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in:\n{metrics}");
    }
}

#[tokio::test]
async fn the_blocked_are_disconnected_and_stay_out() {
    let (a, mut b) = pair(Over::Tcp).await;
    assert_works(&a, &mut b).await;
    within(b.client.block(a.peer())).await.unwrap();
    b.wait_for(|event| match event {
        NetworkEvent::Connection(ConnectionEvent::Disconnected { peer, .. })
            if peer == a.peer() =>
        {
            Some(())
        }
        _ => None,
    })
    .await;
    let outwards = a.listen(Over::Tcp).await;
    let error = within(b.client.dial(outwards.clone())).await.unwrap_err();
    assert!(
        matches!(error, DialError::Denied(Denial::Blocked)),
        "{error:?}"
    );
    within(b.client.unblock(a.peer())).await.unwrap();
    within(b.client.dial(outwards)).await.unwrap();
}

#[tokio::test]
async fn connections_are_limited_and_the_limit_is_named() {
    let mut small = config();
    small.connections.max_established = 2;
    small.connections.tuning.max_per_peer = 1;
    let node = start(small).await;
    let mut others = Vec::new();
    for _ in 0..3 {
        let other = start(config()).await;
        let address = other.listen(Over::Tcp).await;
        let dialled = within(node.client.dial(address)).await;
        if others.len() < 2 {
            dialled.unwrap();
        } else {
            let error = dialled.unwrap_err();
            assert!(matches!(error, DialError::Denied(_)), "{error:?}");
            assert!(error.to_string().contains("at most 2"), "{error}");
        }
        others.push(other);
    }
    assert_eq!(node.client.peer_count(), Ok(2));
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_says_so() {
    let mut brief = config();
    brief.connections.idle_timeout = Duration::from_millis(200);
    let (a, _b) = pair_with(Over::Tcp, brief, config()).await;
    let mut a = a;
    let reason = a
        .wait_for(|event| match event {
            NetworkEvent::Connection(ConnectionEvent::Disconnected { reason, .. }) => Some(reason),
            _ => None,
        })
        .await;
    assert_eq!(reason, CloseReason::Idle);
}

#[tokio::test]
async fn after_the_end_every_call_says_so() {
    let (a, b) = pair(Over::Tcp).await;
    let address = b.listen(LAST).await;
    within(a.client.shutdown()).await.unwrap();
    let client = &a.client;
    let protocol = common::GENERAL;
    let dialled = client.dial(address.clone()).await;
    assert!(matches!(dialled, Err(DialError::Stopped(_))), "{dialled:?}");
    let dialled = client.dial_peer(b.peer(), [address.clone()]).await;
    assert!(matches!(dialled, Err(DialError::Stopped(_))), "{dialled:?}");
    assert!(client.listen_on(address).await.is_err());
    assert_eq!(client.disconnect(b.peer()).await, Err(Stopped));
    assert_eq!(client.block(b.peer()).await, Err(Stopped));
    assert_eq!(client.unblock(b.peer()).await, Err(Stopped));
    assert_eq!(client.identified(b.peer()).await, Err(Stopped));
    assert_eq!(client.status().await.err(), Some(Stopped));
    assert_eq!(client.peer_count(), Err(Stopped));
    assert_eq!(client.shutdown().await, Err(Stopped));
    let stopped = |error| matches!(error, calimero_network::OpenError::Stopped);
    assert!(
        client
            .open_stream(b.peer())
            .await
            .err()
            .is_some_and(stopped)
    );
    assert!(
        client
            .open_raw_stream(b.peer(), protocol)
            .await
            .err()
            .is_some_and(stopped)
    );
}
