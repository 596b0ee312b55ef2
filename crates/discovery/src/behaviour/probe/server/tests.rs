use std::io;

use super::*;

mod decisions;

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

/// The outcomes in both versions of a dial that ends with `error`.
fn outcomes(error: &DialError) -> (Option<Outcome>, Option<Answer>) {
    let mut server = Server::new(DialScopes::default());
    let [id_v2, id_v1] = [1, 2].map(ConnectionId::new_unchecked);
    let (outcome, mut of_v2) = oneshot::channel();
    server.dials.insert(id_v2, Dialling { nonce: 7, outcome });
    let (answer, mut of_v1) = oneshot::channel();
    server.dials_v1.insert(id_v1, answer);
    for connection_id in [id_v2, id_v1] {
        server.on_swarm_event(FromSwarm::DialFailure(DialFailure {
            peer_id: None,
            error,
            connection_id,
        }));
    }
    assert!(server.dials.is_empty() && server.dials_v1.is_empty());
    (of_v2.try_recv().unwrap(), of_v1.try_recv().unwrap())
}

#[test]
fn an_address_that_this_node_cannot_dial_does_not_make_the_peer_unreachable() {
    let address = "/ip4/203.0.113.2/tcp/4000".parse::<Multiaddr>().unwrap();
    let unsupported = || {
        let error = TransportError::MultiaddrNotSupported(address.clone());
        (address.clone(), error)
    };
    let refused = || {
        let error = io::Error::from(io::ErrorKind::ConnectionRefused);
        (address.clone(), TransportError::Other(error))
    };
    let not_dialled = (Some(Outcome::NotDialled), Some(Answer::NotDialled));
    let not_reached = (Some(Outcome::NotReached), Some(Answer::NotReached));
    for (error, expected) in [
        (DialError::Transport(vec![unsupported()]), &not_dialled),
        (DialError::Aborted, &not_dialled),
        (DialError::Transport(vec![refused()]), &not_reached),
        (
            DialError::Transport(vec![unsupported(), refused()]),
            &not_reached,
        ),
    ] {
        assert_eq!(outcomes(&error), *expected, "{error:?}");
    }
}
