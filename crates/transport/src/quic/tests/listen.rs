//! Listeners: what they report, and what is left when they go.

use std::collections::HashSet;

use futures::FutureExt;
use libp2p_core::multiaddr::Protocol;

use super::*;
use crate::quic::addr;

#[tokio::test]
async fn on_all_interfaces_each_address_is_reported() {
    let mut node = Node::ours();
    let id = ListenerId::next();
    let any = "/ip4/0.0.0.0/udp/0/quic-v1"
        .parse()
        .expect("a multiaddress");
    node.transport.listen_on(id, any).expect("listens");
    let mut ports = HashSet::new();
    // The loopback interface is there on every machine; others are reported on the way.
    loop {
        let TransportEvent::NewAddress {
            listener_id,
            listen_addr,
        } = node.event().await
        else {
            continue;
        };
        assert_eq!(listener_id, id);
        let address = addr::parse(&listen_addr)
            .expect("an address of QUIC")
            .socket;
        assert!(!address.ip().is_unspecified() && address.port() != 0);
        ports.insert(address.port());
        if address.ip().is_loopback() {
            assert_eq!(ports.len(), 1, "one socket has one port");
            let mut dialer = Node::ours();
            connect(&mut dialer, &mut node, &listen_addr).await;
            return;
        }
    }
}

#[tokio::test]
async fn one_port_for_both_families() {
    let mut node = Node::ours();
    let (_, v4) = node.listen_on("/ip4/127.0.0.1/udp/0/quic-v1").await;
    let port = addr::parse(&v4).expect("an address of QUIC").socket.port();
    let (_, v6) = node
        .listen_on(&format!("/ip6/::1/udp/{port}/quic-v1"))
        .await;
    for address in [v4, v6] {
        connect(&mut Node::ours(), &mut node, &address).await;
    }
}

#[tokio::test]
async fn several_listeners_and_the_removal_of_one() {
    let mut node = Node::ours();
    let (first, gone) = node.listen_on(LOOPBACK).await;
    let (_, stays) = node.listen_on(LOOPBACK).await;
    let mut dialer = Node::impatient(Duration::from_millis(300));
    let (mut dialled, accepted) = connect(&mut dialer, &mut node, &gone).await;

    assert!(node.transport.remove_listener(first));
    match node.event().await {
        TransportEvent::ListenerClosed {
            listener_id,
            reason: Ok(()),
        } => assert_eq!(listener_id, first),
        other => panic!("{other:?}"),
    }
    assert!(!node.transport.remove_listener(first), "it is gone");

    // The connection that stood goes on, a new one does not come to be.
    let server = tokio::spawn(echo_all(accepted));
    let mut stream = open(&mut dialled).await.expect("opens");
    stream.write_all(b"still here").await.expect("writes");
    stream.close().await.expect("closes");
    let mut received = Vec::new();
    within(stream.read_to_end(&mut received))
        .await
        .expect("reads");
    assert_eq!(received, b"still here");
    let dial = dialer.dial_out(&gone);
    assert!(within(dial).await.is_err(), "nobody listens there");
    connect(&mut dialer, &mut node, &stays).await;
    server.abort();
}

#[tokio::test]
async fn the_port_of_a_removed_listener_is_free_again() {
    let mut node = Node::ours();
    let (id, address) = node.listen_on(LOOPBACK).await;
    assert!(node.transport.remove_listener(id));
    let closed = node.event().await;
    assert!(
        matches!(closed, TransportEvent::ListenerClosed { .. }),
        "{closed:?}"
    );
    // The task that owned the socket ends by itself; the port is free once it has.
    let again = async {
        loop {
            let id = ListenerId::next();
            if Node::ours()
                .transport
                .listen_on(id, address.clone())
                .is_ok()
            {
                return;
            }
            // The transport lets go of the listener when it is polled again, as a Swarm does.
            let more = poll_fn(|cx| Pin::new(&mut node.transport).poll(cx)).now_or_never();
            assert!(more.is_none(), "{more:?}");
            tokio::task::yield_now().await;
        }
    };
    within(again).await;
}

#[tokio::test]
async fn a_taken_port_is_an_error_at_once() {
    let mut node = Node::ours();
    let address = node.listen().await;
    let error = Node::ours()
        .transport
        .listen_on(ListenerId::next(), address)
        .expect_err("taken");
    let TransportError::Other(error) = error else {
        panic!("{error:?}");
    };
    assert!(matches!(ours(&error), Error::Io(e) if e.kind() == io::ErrorKind::AddrInUse));
}

#[test]
fn outside_of_a_runtime_nothing_panics() {
    let mut node = Node::ours();
    let address = LOOPBACK.parse().expect("a multiaddress");
    let error = node.transport.listen_on(ListenerId::next(), address);
    let Err(TransportError::Other(error)) = error else {
        panic!("{error:?}");
    };
    assert!(matches!(ours(&error), Error::NoRuntime));
    let address = "/ip4/127.0.0.1/udp/1/quic-v1"
        .parse()
        .expect("a multiaddress");
    let dial = node.try_dial(&address, Endpoint::Dialer, PortUse::Reuse);
    let Some(TransportError::Other(error)) = dial.err() else {
        panic!("begins without a runtime");
    };
    assert!(matches!(ours(&error), Error::NoRuntime));
}

#[tokio::test]
async fn an_address_of_another_transport_is_left_to_it() {
    let tcp = Multiaddr::empty()
        .with(Protocol::Ip4([127, 0, 0, 1].into()))
        .with(Protocol::Tcp(0));
    let result = Node::ours()
        .transport
        .listen_on(ListenerId::next(), tcp.clone());
    assert!(matches!(result, Err(TransportError::MultiaddrNotSupported(a)) if a == tcp));
}
