//! Dials that fail, share an outcome, are cancelled or reach another peer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod common;

use std::{io::Read as _, net, net::Ipv4Addr, task::Poll, time::Duration};

use calimero_network::{
    AddressError, ConnectionEvent, DialError, Direction, DiscoveryEvent, Keypair, ListenerEvent,
    Multiaddr, NetworkClient, NetworkEvent, PeerId, UnreachableCause, discovery::machine::BootNode,
    multiaddr::Protocol,
};
use calimero_network_primitives::addr::without_peer;
use common::{BOTH, ClosedPort, LAST, Node, Over, config, pair, start, within};

fn stranger() -> PeerId {
    Keypair::generate_ed25519().public().to_peer_id()
}

/// Sockets that take a connection and never say a word.
struct Silent {
    listener: net::TcpListener,
    _udp: net::UdpSocket,
    tcp: Multiaddr,
    quic: Multiaddr,
}

impl Silent {
    /// The addresses of the transports that are compiled in.
    fn addresses(&self) -> [Multiaddr; BOTH.len()] {
        BOTH.map(|over| match over {
            Over::Tcp => self.tcp.clone(),
            Over::Quic => self.quic.clone(),
        })
    }
}

fn silent() -> Silent {
    let tcp = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let ip = Multiaddr::from(Ipv4Addr::LOCALHOST);
    Silent {
        tcp: ip
            .clone()
            .with(Protocol::Tcp(tcp.local_addr().unwrap().port())),
        quic: ip
            .with(Protocol::Udp(udp.local_addr().unwrap().port()))
            .with(Protocol::QuicV1),
        listener: tcp,
        _udp: udp,
    }
}

fn attempts(error: DialError) -> Vec<(Multiaddr, AddressError)> {
    match error {
        DialError::Failed { attempts } => {
            attempts.into_iter().map(|a| (a.address, a.cause)).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_dial_to_a_dead_address_ends_by_its_deadline_twice() {
    let dead = silent();
    let mut config = config();
    config.transport.tuning.handshake_timeout = Duration::from_millis(500);
    let node = start(config).await;
    for address in dead.addresses() {
        let known = address.clone().with(Protocol::P2p(stranger()));
        for address in [address, known] {
            for _ in 0..2 {
                let error = within(node.client.dial(address.clone())).await.unwrap_err();
                let failed = attempts(error);
                assert_eq!(failed.len(), 1, "{failed:?}");
                assert_eq!(failed[0].0, address);
                assert!(
                    matches!(failed[0].1, AddressError::Timeout { .. }),
                    "{failed:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn the_dial_deadline_holds_where_the_transport_has_none() {
    let dead = silent();
    let mut config = config();
    config.connections.tuning.dial_timeout = Duration::from_millis(300);
    let node = start(config).await;
    let [first, ..] = dead.addresses();
    let [.., last] = dead.addresses();
    for address in [first, last.with(Protocol::P2p(stranger()))] {
        match within(node.client.dial(address.clone())).await.unwrap_err() {
            DialError::Deadline { target, after } => {
                assert_eq!((target, after), (address, Duration::from_millis(300)));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_closed_port_is_refused_by_name() {
    let node = start(config()).await;
    let closed = ClosedPort::new();
    let address = closed.address.clone();
    let error = within(node.client.dial(address.clone())).await.unwrap_err();
    let failed = attempts(error);
    assert!(
        matches!(&failed[..], [(at, AddressError::Refused)] if *at == address),
        "{failed:?}"
    );
}

#[tokio::test]
async fn the_wrong_peer_is_an_error_and_leaves_no_connection() {
    for over in BOTH {
        let (dialler, mut listener) = (start(config()).await, start(config()).await);
        let real = listener.listen(over).await;
        let expected = stranger();
        let address: Multiaddr = real
            .iter()
            .filter(|part| !matches!(part, Protocol::P2p(_)))
            .chain([Protocol::P2p(expected)])
            .collect();
        for _ in 0..2 {
            let error = within(dialler.client.dial(address.clone()))
                .await
                .unwrap_err();
            let failed = attempts(error);
            let [
                (
                    failed_at,
                    AddressError::WrongPeer {
                        expected: said,
                        found,
                    },
                ),
            ] = &failed[..]
            else {
                panic!("{failed:?}");
            };
            assert_eq!(
                (failed_at, *said, *found),
                (&address, expected, listener.peer())
            );
        }
        assert_eq!(dialler.connections().await, 0);
        // The listener's first event is the connection of this dial.
        // Connections of the failed dials would have caused earlier events.
        within(dialler.client.dial(real)).await.unwrap();
        let first = listener
            .wait_for(|event| match event {
                NetworkEvent::Connection(ConnectionEvent::Connected(connection)) => {
                    Some(connection.id)
                }
                _ => None,
            })
            .await;
        let status = listener.client.status().await.unwrap();
        let now: Vec<_> = status.connections.iter().map(|c| c.id).collect();
        assert_eq!(now, [first], "{over:?}");
    }
}

#[tokio::test]
async fn concurrent_dials_share_one_connection() {
    for over in BOTH {
        let (mut a, b) = (start(config()).await, start(config()).await);
        let named = b.listen(over).await;
        let unnamed = without_peer(&named);
        for address in [named, unnamed] {
            let dials = (0..20).map(|_| a.client.dial(address.clone()));
            let connections = within(futures::future::try_join_all(dials)).await.unwrap();
            assert!(
                connections.iter().all(|c| c.id == connections[0].id),
                "{over:?}"
            );
            assert_eq!(a.connections().await, 1, "{over:?}");
            within(a.client.disconnect(b.peer())).await.unwrap();
            a.wait_for(|event| {
                matches!(
                    event,
                    NetworkEvent::Connection(ConnectionEvent::Disconnected { .. })
                )
                .then_some(())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_dial_after_a_disconnect_makes_a_new_connection() {
    for over in BOTH {
        let (a, b) = (start(config()).await, start(config()).await);
        let named = b.listen(over).await;
        let unnamed = without_peer(&named);
        let mut last = within(a.client.dial(named.clone())).await.unwrap();
        for address in [&named, &unnamed].repeat(5) {
            assert!(within(a.client.disconnect(b.peer())).await.unwrap());
            let next = within(a.client.dial(address.clone())).await.unwrap();
            assert_ne!(next.id, last.id, "{over:?}");
            last = next;
        }
        // It is open after all others have ended.
        while a.connections().await > 1 {
            tokio::task::yield_now().await;
        }
        let status = within(a.client.status()).await.unwrap();
        assert_eq!(status.connections[0].id, last.id, "{over:?}");
        // One that waits is given up by the next disconnect.
        assert!(within(a.client.disconnect(b.peer())).await.unwrap());
        let (dialled, _) = within(futures::future::join(
            a.client.dial(named),
            a.client.disconnect(b.peer()),
        ))
        .await;
        assert!(matches!(dialled, Err(DialError::Aborted)), "{dialled:?}");
        // A connection with a blocked peer is denied.
        within(a.client.dial(unnamed)).await.unwrap();
        within(a.client.block(b.peer())).await.unwrap();
        let denied = within(a.client.dial_peer(b.peer(), [])).await;
        assert!(matches!(denied, Err(DialError::Denied(_))), "{denied:?}");
    }
}

#[tokio::test]
async fn concurrent_dials_share_one_failure() {
    let dead = silent();
    let mut config = config();
    config.transport.tuning.handshake_timeout = Duration::from_millis(300);
    let node = start(config).await;
    let address = dead.tcp.clone().with(Protocol::P2p(stranger()));
    let dials = (0..20).map(|_| node.client.dial(address.clone()));
    let errors: Vec<_> = within(futures::future::join_all(dials)).await;
    let text = |error: &Result<_, DialError>| error.as_ref().unwrap_err().to_string();
    assert!(
        text(&errors[0]).contains(&address.to_string()),
        "{}",
        text(&errors[0])
    );
    assert!(errors.iter().all(|error| text(error) == text(&errors[0])));
}

#[tokio::test]
async fn an_address_given_later_is_tried_before_the_dial_fails() {
    let dead = silent();
    let mut config = config();
    config.transport.tuning.handshake_timeout = Duration::from_millis(500);
    let (a, b) = (start(config).await, start(common::config()).await);
    let alive = b.listen(Over::Tcp).await;
    let dead = dead.tcp.clone().with(Protocol::P2p(b.peer()));
    let (first, second) = within(futures::future::join(
        a.client.dial(dead),
        a.client.dial(alive),
    ))
    .await;
    assert_eq!(first.unwrap().id, second.unwrap().id);
}

#[tokio::test]
async fn a_connected_peer_is_not_dialled_again() {
    let (a, b) = pair(Over::Tcp).await;
    let other = b.listen(LAST).await;
    let again = within(a.client.dial(other)).await.unwrap();
    let status = a.client.status().await.unwrap();
    assert_eq!(status.connections.len(), 1);
    assert_eq!(again.id, status.connections[0].id);
}

#[tokio::test]
async fn a_dial_that_completes_as_listener_ends_well() {
    let dead = silent();
    let (a, b) = (start(config()).await, start(config()).await);
    let a_listens = a.listen(Over::Tcp).await;
    let hopeless = dead.tcp.clone().with(Protocol::P2p(b.peer()));
    let waiting = a.client.dial(hopeless);
    let connecting = b.client.dial(a_listens);
    let (waited, connected) = within(futures::future::join(waiting, connecting)).await;
    assert_eq!(waited.unwrap().peer, b.peer());
    assert_eq!(connected.unwrap().peer, a.peer());
}

#[tokio::test]
async fn a_dropped_dial_is_given_up() {
    let dead = silent();
    let node = start(config()).await;
    let address = dead.tcp.clone().with(Protocol::P2p(stranger()));
    let dial = tokio::spawn({
        let client = node.client.clone();
        async move { client.dial(address).await }
    });
    let accepting = tokio::task::spawn_blocking(move || dead.listener.accept());
    let (mut socket, _) = within(accepting).await.unwrap().unwrap();
    dial.abort();
    // The socket is closed, or its deadline of ten seconds would be reached first.
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let end = tokio::task::spawn_blocking(move || socket.read_to_end(&mut Vec::new()));
    within(end)
        .await
        .unwrap()
        .expect("the connection is closed");
    while node.client.status().await.unwrap().pending_outbound > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_dropped_dial_leaves_the_dial_of_another_part_of_the_node() {
    let peer = start(config()).await;
    let direct = peer.listen(Over::Tcp).await;
    let port = direct.iter().find_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = proxy.local_addr().unwrap().port();
    let address = Multiaddr::from(Ipv4Addr::LOCALHOST).with(Protocol::Tcp(at));
    let mut config = config();
    config.discovery.boot = vec![address.with(Protocol::P2p(peer.peer()))];
    let mut node = start(config).await;
    // Discovery dials the boot node, which does not answer yet.
    let (mut dialled, _) = within(proxy.accept()).await.unwrap();
    {
        let mut waiting = std::pin::pin!(node.client.dial_peer(peer.peer(), []));
        assert!(futures::poll!(&mut waiting).is_pending());
        // Commands are carried out one after the other.
        within(node.client.status()).await.unwrap();
    }
    within(node.client.status()).await.unwrap();
    let mut real = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port.unwrap()))
        .await
        .unwrap();
    tokio::spawn(async move { tokio::io::copy_bidirectional(&mut dialled, &mut real).await });
    let connected = node
        .wait_for(|event| match event {
            NetworkEvent::Connection(ConnectionEvent::Connected(connection)) => {
                Some(Ok(connection))
            }
            NetworkEvent::Discovery(DiscoveryEvent::BootNodeUnreachable { cause, .. }) => {
                Some(Err(cause))
            }
            _ => None,
        })
        .await;
    assert_eq!(connected.unwrap().peer, peer.peer());
}

#[tokio::test]
async fn oneself_and_contradictions_are_not_dialled() {
    let node = start(config()).await;
    let own = node.listen(Over::Tcp).await;
    let error = within(node.client.dial(own.clone())).await.unwrap_err();
    assert!(
        matches!(error, DialError::LocalPeer { peer } if peer == node.peer()),
        "{error:?}"
    );
    let expected = stranger();
    let error = within(node.client.dial_peer(expected, [own.clone()]))
        .await
        .unwrap_err();
    match error {
        DialError::Contradiction {
            address,
            expected: said,
        } => {
            assert_eq!((address, said), (own, expected));
        }
        other => panic!("{other:?}"),
    }
    let error = within(node.client.dial_peer(expected, []))
        .await
        .unwrap_err();
    assert!(
        matches!(error, DialError::NoAddresses { peer } if peer == expected),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_address_of_no_transport_is_refused_by_name() {
    let node = start(config()).await;
    let address: Multiaddr = "/ip4/127.0.0.1/udp/9/webrtc-direct".parse().unwrap();
    let error = within(node.client.dial(address.clone())).await.unwrap_err();
    let failed = attempts(error);
    assert!(
        matches!(&failed[..], [(at, AddressError::Unsupported(_))] if *at == address),
        "{failed:?}"
    );
    let error = within(node.client.listen_on(address)).await.unwrap_err();
    assert!(error.to_string().contains("webrtc-direct"), "{error}");
}

#[tokio::test]
async fn a_listener_that_its_caller_no_longer_waits_for_is_closed() {
    let mut node = start(config()).await;
    let client = node.client.clone();
    for is_answered in [false, true, false, true] {
        let mut listening = std::pin::pin!(client.listen_on(common::loopback(Over::Tcp)));
        // The actor may answer before the first poll ends. Then the caller has taken its listener.
        let opened = futures::poll!(&mut listening);
        if let Poll::Ready(opened) = opened {
            let (id, _) = opened.unwrap();
            assert!(within(client.stop_listening(id)).await.unwrap());
        } else if is_answered {
            node.wait_for(|event| match event {
                NetworkEvent::Listener(ListenerEvent::Listening { .. }) => Some(()),
                _ => None,
            })
            .await;
        }
    }
    let kept = without_peer(&node.listen(Over::Tcp).await);
    // A listener is in the status until the swarm has closed it.
    let closed = async {
        while node.client.status().await.unwrap().listening != [kept.clone()] {
            tokio::task::yield_now().await;
        }
    };
    within(closed).await;
}

/// The events of a node that `other` has dialled, and from which it disconnected before one of them
/// was read.
async fn unread_events(mut node: Node, other: Node, dial: bool) -> Vec<NetworkEvent> {
    let address = node.listen(Over::Tcp).await;
    within(other.client.dial(address)).await.unwrap();
    let connected = |node: NetworkClient, count: usize| async move {
        while node.status().await.unwrap().connections.len() != count {
            tokio::task::yield_now().await;
        }
    };
    within(connected(node.client.clone(), 1)).await;
    if dial {
        let dialled = within(node.client.dial_peer(other.peer(), [])).await;
        assert_eq!(dialled.unwrap().direction, Direction::Inbound);
    }
    within(other.client.shutdown()).await.unwrap();
    within(connected(node.client.clone(), 0)).await;
    within(node.client.shutdown()).await.unwrap();
    let mut events = Vec::new();
    while let Some(event) = within(node.events.next()).await {
        events.push(event);
    }
    events
}

#[tokio::test]
async fn the_end_of_a_connection_that_a_dial_returned_is_reported() {
    for is_dialled in [true, false] {
        let (node, other) = (start(config()).await, start(config()).await);
        let events = unread_events(node, other, is_dialled).await;
        let is_end = |event: &NetworkEvent| {
            matches!(
                event,
                NetworkEvent::Connection(ConnectionEvent::Disconnected { .. })
            )
        };
        assert_eq!(events.iter().any(is_end), is_dialled, "{events:?}");
    }
}

#[cfg(feature = "dns")]
#[tokio::test]
async fn names_are_resolved() {
    let (a, b) = (start(config()).await, start(config()).await);
    for over in BOTH {
        let address: Multiaddr = b
            .listen(over)
            .await
            .iter()
            .map(|part| match part {
                Protocol::Ip4(_) => Protocol::Dns4("localhost".into()),
                other => other,
            })
            .collect();
        let connection = within(a.client.dial(address)).await.unwrap();
        assert_eq!(connection.peer, b.peer());
        within(a.client.disconnect(b.peer())).await.unwrap();
    }
}

#[cfg(feature = "dns")]
#[tokio::test]
async fn a_name_that_nobody_has_is_named() {
    let node = start(config()).await;
    // Reserved for never being there (RFC 6761, section 6.4).
    let address: Multiaddr = "/dns4/nobody.invalid/tcp/2428".parse().unwrap();
    let error = within(node.client.dial(address.clone())).await.unwrap_err();
    let failed = attempts(error);
    assert!(
        matches!(
            &failed[..],
            [(at, AddressError::NoSuchName | AddressError::Resolve(_))] if *at == address
        ),
        "{failed:?}"
    );
}

#[tokio::test]
async fn a_boot_node_that_cannot_be_reached_is_reported_with_its_cause() {
    // A port that no process listens on, and a peer with another id than the configured one.
    let closed = ClosedPort::new();
    let other = start(config()).await;
    let refused = (stranger(), UnreachableCause::Refused);
    let wrong = UnreachableCause::WrongPeer {
        obtained: other.peer(),
    };
    let wrong = (stranger(), wrong);
    let listening = without_peer(&other.listen(Over::Tcp).await);
    let mut config = config();
    config.discovery.boot = vec![
        closed.address.clone().with(Protocol::P2p(refused.0)),
        listening.with(Protocol::P2p(wrong.0)),
    ];
    let mut node = start(config).await;
    let mut reported = Vec::new();
    while reported.len() < 2 {
        let event = node.wait_for(|event| match event {
            NetworkEvent::Discovery(DiscoveryEvent::BootNodeUnreachable { peer, cause }) => {
                Some((peer, cause))
            }
            _ => None,
        });
        reported.push(event.await);
    }
    for expected in [refused, wrong] {
        assert!(reported.contains(&expected), "{reported:?}");
        let status = node.client.status().await.unwrap();
        let state = status.boot_nodes.iter();
        let state = state.map(|one| (one.peer, one.state));
        let state = state.into_iter().find(|(of, _)| *of == expected.0);
        assert!(
            matches!(state, Some((_, BootNode::Unreachable { cause, .. })) if cause == expected.1),
            "{state:?}"
        );
    }
    #[cfg(feature = "metrics")]
    let metrics = node.client.metrics().await.unwrap();
    #[cfg(feature = "metrics")]
    for cause in ["refused", "wrong_peer"] {
        let line = format!("discovery_boot_nodes{{state=\"unreachable\",cause=\"{cause}\"}} 1");
        assert!(metrics.contains(&line), "{line} is not in:\n{metrics}");
    }
}
