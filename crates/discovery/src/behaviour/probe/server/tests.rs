use super::*;

#[test]
fn a_connection_that_is_refused_or_closed_leaves_nothing_behind() {
    let mut server = Server::new(DialScopes::default());
    let (connection, peer) = (ConnectionId::new_unchecked(1), PeerId::random());
    let local = "/ip4/203.0.113.1/tcp/2428".parse::<Multiaddr>().unwrap();
    let remote = "/ip4/203.0.113.2/tcp/4000".parse::<Multiaddr>().unwrap();
    let handler = server.handle_established_inbound_connection(connection, peer, &local, &remote);
    assert!(handler.is_ok());
    assert!(
        server.prefixes.is_empty(),
        "another behaviour may refuse it"
    );

    let endpoint = ConnectedPoint::Listener {
        local_addr: local,
        send_back_addr: remote,
    };
    server.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
        peer_id: peer,
        connection_id: connection,
        endpoint: &endpoint,
        failed_addresses: &[],
        other_established: 0,
    }));
    assert_eq!(server.prefixes.len(), 1);
    server.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
        peer_id: peer,
        connection_id: connection,
        endpoint: &endpoint,
        cause: None,
        remaining_established: 0,
    }));
    assert!(server.prefixes.is_empty());
}
