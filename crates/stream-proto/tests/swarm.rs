//! The behaviour between swarms with the in-memory transport.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests"
)]

mod nodes;

use std::time::Duration;

use bytes::Bytes;
use calimero_network_stream::{
    AcceptError, Behaviour, DialCause, Event, FrameStream, OpenError, RefuseReason, StreamProtocol,
    config::{StreamsConfig, StreamsTuning},
};
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt, future::join_all};
use libp2p_core::upgrade::UpgradeInfo;
use libp2p_identity::PeerId;
use libp2p_swarm::{ConnectionHandler, ConnectionId, NetworkBehaviour, SwarmEvent, THandler};
use nodes::{Node, soon};

const A: StreamProtocol = StreamProtocol::new("/test/a");
const B: StreamProtocol = StreamProtocol::new("/test/b");

#[tokio::test]
async fn streams_are_opened_by_dialling_and_carry_frames() {
    let (a, b) = (
        Node::memory(StreamsConfig::default()),
        Node::listening().await,
    );
    let mut incoming_a = b.control.accept(A).unwrap();
    let mut incoming_b = b.control.accept(B).unwrap();
    a.knows(&b).await;
    for (protocol, incoming) in [(A, &mut incoming_a), (B, &mut incoming_b)] {
        let stream = soon(a.control.open(b.peer, protocol.clone()))
            .await
            .unwrap();
        let mut sender = FrameStream::new(stream);
        sender.send(Bytes::from_static(b"hello")).await.unwrap();
        sender.close().await.unwrap();
        let inbound = soon(incoming.next()).await.unwrap();
        assert_eq!((inbound.peer, &inbound.protocol), (a.peer, &protocol));
        let mut receiver = FrameStream::new(inbound.stream);
        assert_eq!(soon(receiver.next()).await.unwrap().unwrap(), &b"hello"[..]);
        assert!(soon(receiver.next()).await.is_none());
    }
    // The other direction works over the same connection.
    let mut incoming = a.control.accept(A).unwrap();
    let mut stream = soon(b.control.open(a.peer, A)).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(soon(incoming.next()).await.unwrap().peer, b.peer);
}

/// The swarm reads the list of a handler when a stream has arrived, which can be before it polls the
/// handler again.
#[test]
fn an_accepted_protocol_is_negotiable_before_the_next_poll() {
    let mut behaviour = Behaviour::new(StreamsConfig::default());
    let control = behaviour.control();
    let address = "/memory/1".parse().unwrap();
    let mut handler = behaviour
        .handle_established_inbound_connection(
            ConnectionId::new_unchecked(1),
            PeerId::random(),
            &address,
            &address,
        )
        .unwrap();
    let listed = |handler: &mut THandler<Behaviour>| {
        let (upgrade, ()) = handler.listen_protocol().into_upgrade();
        upgrade.protocol_info().collect::<Vec<_>>()
    };
    assert!(listed(&mut handler).is_empty());
    let incoming = control.accept(A).unwrap();
    assert_eq!(listed(&mut handler), [A]);
    drop(incoming);
    assert!(listed(&mut handler).is_empty());
}

#[tokio::test]
async fn an_unsupported_protocol_is_reported() {
    let (a, b) = (
        Node::memory(StreamsConfig::default()),
        Node::listening().await,
    );
    let incoming = b.control.accept(A).unwrap();
    assert_eq!(
        b.control.accept(A).unwrap_err(),
        AcceptError::AlreadyAccepted { protocol: A }
    );
    a.knows(&b).await;
    let refused = soon(a.control.open(b.peer, B)).await.unwrap_err();
    assert!(
        matches!(&refused, OpenError::UnsupportedProtocol { peer, protocol } if *peer == b.peer && *protocol == B),
        "{refused:?}"
    );
    let _stream = soon(a.control.open(b.peer, A)).await.unwrap();
    drop(incoming);
    let refused = soon(a.control.open(b.peer, A)).await.unwrap_err();
    assert!(
        matches!(refused, OpenError::UnsupportedProtocol { .. }),
        "{refused:?}"
    );
    // The protocol can be accepted again.
    let mut incoming = b.control.accept(A).unwrap();
    let _again = soon(a.control.open(b.peer, A)).await.unwrap();
    assert!(soon(incoming.next()).await.is_some());
}

#[tokio::test]
async fn the_first_of_several_protocols_that_the_peer_speaks_is_opened() {
    const C: StreamProtocol = StreamProtocol::new("/test/c");
    let (a, b) = (
        Node::memory(StreamsConfig::default()),
        Node::listening().await,
    );
    a.knows(&b).await;
    let mut incoming_c = b.control.accept(C).unwrap();
    let any = || soon(a.control.open_any(b.peer, A, [B, C].into()));
    assert_eq!(any().await.unwrap().protocol(), &C);
    assert_eq!(soon(incoming_c.next()).await.unwrap().protocol, C);
    let mut incoming_b = b.control.accept(B).unwrap();
    assert_eq!(any().await.unwrap().protocol(), &B);
    assert_eq!(soon(incoming_b.next()).await.unwrap().stream.protocol(), &B);
    let _incoming_a = b.control.accept(A).unwrap();
    assert_eq!(any().await.unwrap().protocol(), &A);
    drop((_incoming_a, incoming_b, incoming_c));
    let refused = any().await.unwrap_err();
    assert!(
        matches!(&refused, OpenError::UnsupportedProtocol { protocol, .. } if *protocol == A),
        "{refused:?}"
    );
}

#[tokio::test]
async fn every_dial_failure_wakes_all_waiting_requests() {
    let a = Node::memory(StreamsConfig::default());
    let absent = PeerId::random();
    let answers = soon(join_all((0..50).map(|_| a.control.open(absent, A)))).await;
    for answer in answers {
        let error = answer.unwrap_err();
        assert!(
            matches!(error, OpenError::NotConnected { peer } if peer == absent),
            "{error:?}"
        );
    }
    // No process listens on this address.
    let dead: libp2p_core::Multiaddr = "/memory/123456789".parse().unwrap();
    a.add_address(absent, dead.clone()).await;
    let answers = soon(join_all((0..50).map(|_| a.control.open(absent, A)))).await;
    for answer in answers {
        let error = answer.unwrap_err();
        let OpenError::Dial { peer, cause } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(*peer, absent);
        let DialCause::Transport(errors) = &**cause else {
            panic!("{cause:?}")
        };
        assert_eq!(errors[0].address.iter().next(), dead.iter().next());
    }
    // Another peer listens on this address.
    let b = Node::listening().await;
    a.add_address(absent, b.address.clone().unwrap()).await;
    let error = soon(a.control.open(absent, A)).await.unwrap_err();
    assert!(matches!(error, OpenError::Dial { .. }), "{error:?}");
    // The address belongs to this node.
    let error = soon(a.control.open(a.peer, A)).await.unwrap_err();
    assert!(matches!(error, OpenError::NotConnected { .. }), "{error:?}");
}

#[tokio::test]
async fn two_hundred_at_once_are_all_served() {
    let (a, b) = (
        Node::memory(StreamsConfig::default()),
        Node::listening().await,
    );
    let echo = b.echo(A);
    a.knows(&b).await;
    let streams = soon(join_all((0..200).map(|i: u32| {
        let open = a.control.open(b.peer, A);
        async move {
            let mut frames = FrameStream::new(open.await?);
            frames
                .send(Bytes::copy_from_slice(&i.to_be_bytes()))
                .await
                .unwrap();
            let echo = frames.next().await.unwrap().unwrap();
            assert_eq!(echo, &i.to_be_bytes()[..]);
            Ok::<_, OpenError>(frames)
        }
    })))
    .await;
    assert!(streams.iter().all(Result::is_ok));
    assert_eq!(b.control.open_inbound(), 200);
    drop(streams);
    echo.abort();
}

#[tokio::test]
async fn inbound_limits_refuse_single_streams_and_permits_are_released() {
    let config = StreamsConfig {
        max_inbound_per_peer: 10,
        max_inbound: 15,
        tuning: StreamsTuning {
            accept_queue: 12,
            ..StreamsTuning::default()
        },
    };
    let mut b = Node::listening_with(config).await;
    let mut incoming = b.control.accept(A).unwrap();
    let a = Node::memory(StreamsConfig::default());
    let c = Node::memory(StreamsConfig::default());
    a.knows(&b).await;
    c.knows(&b).await;

    let first = soon(join_all((0..30).map(|_| a.control.open(b.peer, A)))).await;
    let refusal = |event: Event| match event {
        Event::Refused {
            peer,
            protocol,
            reason,
            count,
        } => (peer, protocol, reason, count),
        other => panic!("{other:?}"),
    };
    let mut refused = 0;
    while refused < 20 {
        let (peer, protocol, reason, count) = refusal(soon(b.event()).await);
        assert_eq!((peer, protocol), (a.peer, A));
        assert_eq!(reason, RefuseReason::PeerLimit { limit: 10 });
        refused += count;
    }
    assert_eq!(refused, 20);
    assert_eq!(b.control.open_inbound(), 10);

    // Another peer is below its limit until the queue is full.
    let second = soon(join_all((0..3).map(|_| c.control.open(b.peer, A)))).await;
    let (peer, _, reason, count) = refusal(soon(b.event()).await);
    assert_eq!(
        (peer, reason, count),
        (c.peer, RefuseReason::QueueFull { limit: 12 }, 1)
    );

    // The refused streams are reset, the others stay open.
    let mut served = Vec::new();
    for _ in 0..12 {
        served.push(soon(incoming.next()).await.unwrap());
    }
    assert!(incoming.next().now_or_never().is_none());
    let ended = soon(join_all(first.into_iter().chain(second).map(
        |stream| async {
            let mut stream = stream.unwrap();
            stream.write_all(b"x").now_or_never();
            tokio::time::timeout(Duration::from_millis(300), stream.read(&mut [0]))
                .await
                .is_ok()
        },
    )))
    .await;
    assert_eq!(ended.iter().filter(|ended| **ended).count(), 21);

    // Dropping streams releases their permits.
    drop(served);
    assert_eq!(b.control.open_inbound(), 0);
    let _stream = soon(a.control.open(b.peer, A)).await.unwrap();
    assert_eq!(soon(incoming.next()).await.unwrap().peer, a.peer);
}

#[tokio::test]
async fn peers_that_fill_their_share_of_the_queue_leave_others_theirs() {
    const QUEUE: usize = 64;
    let config = StreamsConfig {
        tuning: StreamsTuning {
            accept_queue: QUEUE,
            ..StreamsTuning::default()
        },
        ..StreamsConfig::default()
    };
    let mut b = Node::listening_with(config).await;
    let mut incoming = b.control.accept(A).unwrap();
    let mut held = Vec::new();
    // Two peers open as many streams as they can. None is accepted.
    for _ in 0..2 {
        let greedy = Node::memory(StreamsConfig::default());
        greedy.knows(&b).await;
        let streams = soon(join_all((0..QUEUE).map(|_| greedy.control.open(b.peer, A)))).await;
        let mut refused = 0;
        while refused < QUEUE as u64 - 24 {
            match soon(b.event()).await {
                Event::Refused { reason, count, .. } => {
                    assert_eq!(reason, RefuseReason::PeerLimit { limit: 24 });
                    refused += count;
                }
                other => panic!("{other:?}"),
            }
        }
        held.push((greedy, streams));
    }
    let honest = Node::memory(StreamsConfig::default());
    honest.knows(&b).await;
    let _stream = soon(honest.control.open(b.peer, A)).await.unwrap();
    let mut peers = Vec::new();
    while peers.last() != Some(&honest.peer) {
        peers.push(soon(incoming.next()).await.unwrap().peer);
    }
    assert_eq!(peers.len(), 49);
    // What is accepted does not wait any more.
    let greedy = &held[0].0;
    let _stream = soon(greedy.control.open(b.peer, A)).await.unwrap();
    assert_eq!(soon(incoming.next()).await.unwrap().peer, greedy.peer);
}

#[tokio::test]
async fn dropped_requests_release_their_permit() {
    let config = StreamsConfig {
        tuning: StreamsTuning {
            max_waiting_per_peer: 5,
            ..StreamsTuning::default()
        },
        ..StreamsConfig::default()
    };
    let a = Node::memory(config);
    // A peer that accepts the connection and never answers.
    let silent = nodes::silent_address();
    let absent = PeerId::random();
    a.add_address(absent, silent.address.clone()).await;
    let mut opens: Vec<_> = (0..5)
        .map(|_| Box::pin(a.control.open(absent, A)))
        .collect();
    for open in &mut opens {
        assert!(open.now_or_never().is_none());
    }
    let refused = soon(a.control.open(absent, A)).await.unwrap_err();
    assert!(
        matches!(refused, OpenError::TooManyWaiting { peer, limit: 5 } if peer == absent),
        "{refused:?}"
    );
    opens.pop();
    let mut another = Box::pin(a.control.open(absent, A));
    assert!((&mut another).now_or_never().is_none(), "the request waits");
    // The deadline ends the request, and the error contains the deadline.
    let short = Duration::from_millis(50);
    drop(another);
    let late = soon(a.control.open_within(absent, A, short))
        .await
        .unwrap_err();
    assert!(
        matches!(late, OpenError::Deadline { after, .. } if after == short),
        "{late:?}"
    );
}

#[tokio::test]
async fn a_closing_connection_wakes_its_requests() {
    let config = StreamsConfig {
        tuning: StreamsTuning {
            max_negotiating_per_connection: 3,
            ..StreamsTuning::default()
        },
        ..StreamsConfig::default()
    };
    let mut a = Node::memory(config);
    let (peer, address, connected) = nodes::inert_peer().await;
    a.add_address(peer, address).await;
    let mut opens: Vec<_> = (0..10).map(|_| Box::pin(a.control.open(peer, A))).collect();
    for open in &mut opens {
        assert!(open.now_or_never().is_none());
    }
    let muxer = soon(connected).await.unwrap();
    soon(a.wait(|event| match event {
        SwarmEvent::ConnectionEstablished { peer_id, .. } => (peer_id == peer).then_some(()),
        _ => None,
    }))
    .await;
    drop(muxer);
    for answer in soon(join_all(opens)).await {
        let error = answer.unwrap_err();
        assert!(
            matches!(error, OpenError::ConnectionClosed { peer: who } if who == peer),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn dropping_the_behaviour_fails_all_requests() {
    let behaviour = Behaviour::new(StreamsConfig::default());
    let control = behaviour.control();
    let mut incoming = control.accept(A).unwrap();
    let mut open = Box::pin(control.open(PeerId::random(), A));
    assert!((&mut open).now_or_never().is_none());
    drop(behaviour);
    assert!(matches!(soon(open).await, Err(OpenError::Stopped)));
    assert!(soon(incoming.next()).await.is_none());
    assert!(matches!(
        soon(control.open(PeerId::random(), A)).await,
        Err(OpenError::Stopped)
    ));
    assert_eq!(control.accept(B).unwrap_err(), AcceptError::Stopped);
}
