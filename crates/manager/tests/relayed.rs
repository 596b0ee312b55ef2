//! Through a relay of another implementation: libp2p's own serves, our transport reserves and dials.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod common;

use calimero_network::{
    ConnectionEvent, Direction, Keypair, NetworkEvent, Path, PeerId, TransportKind,
    multiaddr::Protocol,
};
use common::{Node, assert_works, config, relay::start_relay, start, within};

/// A connection of `node` with `peer` that leads through a relay.
async fn relayed(node: &mut Node, peer: PeerId) -> calimero_network::Connection {
    node.wait_for(|event| match event {
        NetworkEvent::Connection(ConnectionEvent::Connected(connection))
            if connection.peer == peer && connection.path != Path::Direct =>
        {
            Some(connection)
        }
        _ => None,
    })
    .await
}

#[tokio::test]
async fn nodes_meet_through_a_relay_and_know_it() {
    let (relay, relay_address) = within(start_relay()).await;
    let (mut a, mut b) = (start(config()).await, start(config()).await);
    let circuit = relay_address.with(Protocol::P2pCircuit);
    within(b.client.listen_on(circuit.clone())).await.unwrap();

    let to_b = circuit.with(Protocol::P2p(b.peer()));
    let dialled = within(a.client.dial(to_b)).await.unwrap();
    assert_eq!(dialled.peer, b.peer());
    assert_eq!(dialled.transport(), TransportKind::Relay);
    let path = Path::Relayed { relay: Some(relay) };
    assert_eq!(dialled.path, path);
    let b_peer = b.peer();
    assert_eq!(relayed(&mut a, b_peer).await.direction, Direction::Outbound);
    let accepted = relayed(&mut b, a.peer()).await;
    assert_eq!(
        (accepted.path, accepted.direction),
        (path, Direction::Inbound)
    );
    assert_works(&a, &mut b).await;
    assert!(dialled.link.bytes_in() > 0 && dialled.link.bytes_out() > 0);
}

#[tokio::test]
async fn a_peer_without_a_reservation_is_not_reached() {
    let (_, relay_address) = within(start_relay()).await;
    let a = start(config()).await;
    let stranger = Keypair::generate_ed25519().public().to_peer_id();
    let circuit = relay_address.with(Protocol::P2pCircuit);
    let error = within(a.client.dial(circuit.with(Protocol::P2p(stranger)))).await;
    let error = error.expect_err("nobody is there").to_string();
    assert!(error.contains("relay"), "{error}");
}
