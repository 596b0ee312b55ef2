use libp2p_core::{Endpoint, transport::PortUse};

use super::*;

fn limit(bytes: u64) -> CircuitLimit {
    CircuitLimit::new(None, Some(bytes))
}

fn dialled(relay: PeerId) -> ConnectedPoint {
    let address = format!("/ip4/192.0.2.1/tcp/1/p2p/{relay}/p2p-circuit");
    ConnectedPoint::Dialer {
        address: address.parse().unwrap(),
        role_override: Endpoint::Dialer,
        port_use: PortUse::Reuse,
    }
}

fn accepted(peer: PeerId) -> ConnectedPoint {
    ConnectedPoint::Listener {
        local_addr: "/ip4/192.0.2.1/tcp/1/p2p-circuit".parse().unwrap(),
        send_back_addr: format!("/p2p/{peer}").parse().unwrap(),
    }
}

fn limits(peers: &Peers, peer: PeerId) -> Vec<Option<CircuitLimit>> {
    let connections = peers.peers[&peer].connections.iter();
    connections.map(|connection| connection.limit).collect()
}

#[test]
fn a_limit_belongs_to_its_circuit_whether_it_comes_before_or_after_the_connection() {
    let (mut peers, mut id) = (Peers::default(), 0);
    let mut open = |peers: &mut Peers, peer, endpoint: &ConnectedPoint| {
        id += 1;
        peers.opened(peer, ConnectionId::new_unchecked(id), endpoint, false);
    };
    let (relay, other) = (PeerId::random(), PeerId::random());
    let [a, b, c, d] = std::array::from_fn(|_| PeerId::random());
    // Dialled, the limit after the connection, and then before.
    open(&mut peers, a, &dialled(relay));
    open(&mut peers, b, &dialled(other));
    assert_eq!(limits(&peers, a), [None]);
    peers.on_circuit_dialled(relay, limit(1));
    peers.on_circuit_dialled(relay, limit(2));
    open(&mut peers, b, &dialled(relay));
    assert_eq!(limits(&peers, a), [Some(limit(1))]);
    assert_eq!(limits(&peers, b), [None, Some(limit(2))]);
    // Accepted, likewise. What comes for one peer does not count for another.
    open(&mut peers, c, &accepted(c));
    peers.on_circuit_accepted(d, limit(3));
    assert_eq!(limits(&peers, c), [None]);
    peers.on_circuit_accepted(c, limit(4));
    open(&mut peers, d, &accepted(d));
    open(&mut peers, d, &accepted(d));
    assert_eq!(limits(&peers, c), [Some(limit(4))]);
    assert_eq!(limits(&peers, d), [Some(limit(3)), None]);
}

#[test]
fn a_direct_connection_has_no_limit() {
    let mut peers = Peers::default();
    let (relay, peer) = (PeerId::random(), PeerId::random());
    peers.on_circuit_dialled(relay, limit(1));
    peers.on_circuit_accepted(peer, limit(2));
    let endpoint = ConnectedPoint::Listener {
        local_addr: "/ip4/192.0.2.1/tcp/1".parse().unwrap(),
        send_back_addr: "/ip4/192.0.2.2/tcp/1".parse().unwrap(),
    };
    peers.opened(peer, ConnectionId::new_unchecked(1), &endpoint, false);
    assert_eq!(limits(&peers, peer), [None]);
}
