use super::*;

const PUBLIC: &str = "/ip4/203.0.113.1/tcp/2428";

/// A client and a server that is connected and was asked for a probe when the test wants.
struct Script {
    client: Client,
    peer: PeerId,
}

impl Script {
    fn established(&mut self, connection: usize, endpoint: &ConnectedPoint) {
        let established = ConnectionEstablished {
            peer_id: self.peer,
            connection_id: ConnectionId::new_unchecked(connection),
            endpoint,
            failed_addresses: &[],
            other_established: 0,
        };
        self.client
            .on_swarm_event(FromSwarm::ConnectionEstablished(established));
    }

    fn is_proved(&mut self, nonce: RequestId, connection: usize) -> bool {
        let connection = ConnectionId::new_unchecked(connection);
        self.client.proved(nonce, connection).is_some()
    }
}

fn accepted_at(local: &str) -> ConnectedPoint {
    ConnectedPoint::Listener {
        local_addr: local.parse().unwrap(),
        send_back_addr: "/ip4/198.51.100.7/tcp/4000".parse().unwrap(),
    }
}

#[test]
fn a_nonce_counts_on_a_direct_connection_that_was_accepted_after_the_request() {
    let mut script = Script {
        client: Client::new(HashSet::new()),
        peer: PeerId::random(),
    };
    let dialled = ConnectedPoint::Dialer {
        address: PUBLIC.parse().unwrap(),
        role_override: Endpoint::Dialer,
        port_use: PortUse::New,
    };
    script.established(1, &dialled);
    script.established(2, &accepted_at(PUBLIC));
    let server = ConnectionId::new_unchecked(1);
    script.client.servers.insert(server, script.peer);
    script.client.probe(PUBLIC.parse().unwrap());
    let nonce = *script.client.asked.keys().next().unwrap();
    script.established(3, &dialled);
    let relay = format!("{PUBLIC}/p2p/{}/p2p-circuit", PeerId::random());
    script.established(4, &accepted_at(&relay));
    script.established(5, &accepted_at(PUBLIC));

    assert!(!script.is_proved(nonce, 1), "the connection of the request");
    assert!(!script.is_proved(nonce, 2), "accepted before the request");
    assert!(!script.is_proved(nonce, 3), "dialled by this node");
    assert!(!script.is_proved(nonce, 4), "through a relay");
    assert!(!script.is_proved(nonce, 6), "unknown");
    assert!(script.is_proved(nonce, 5));
    assert!(!script.is_proved(nonce ^ 1, 5), "another nonce");
    script
        .client
        .on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
            peer_id: script.peer,
            connection_id: ConnectionId::new_unchecked(5),
            endpoint: &accepted_at(PUBLIC),
            cause: None,
            remaining_established: 4,
        }));
    assert!(!script.is_proved(nonce, 5), "closed");
}

#[test]
fn servers_that_did_not_try_are_asked_after_all_others() {
    let boots: Vec<_> = (0..2).map(|_| PeerId::random()).collect();
    let other = PeerId::random();
    let mut client = Client::new(boots.iter().copied().collect());
    for (number, server) in boots.iter().chain([&other]).enumerate() {
        let connection = ConnectionId::new_unchecked(number);
        client.servers.insert(connection, *server);
    }
    let ask = |client: &mut Client, address: &str, outcome| {
        client.probe(address.parse().unwrap());
        let (nonce, asked) = client.asked.iter().next().unwrap();
        let (nonce, server) = (*nonce, asked.server);
        client.ended(nonce, outcome);
        server
    };
    for _ in 0..10 {
        let mut asked = HashSet::new();
        for _ in &boots {
            // Without an answer, or with one that says so.
            let outcome = asked.is_empty().then_some(ProbeOutcome::NotTried);
            asked.insert(ask(&mut client, PUBLIC, outcome));
        }
        assert_eq!(asked, boots.iter().copied().collect());
        assert_eq!(ask(&mut client, PUBLIC, None), other);
    }
    // An answer ends it, and each address has a choice of its own.
    assert!(boots.contains(&ask(&mut client, PUBLIC, None)));
    let answer = Some(ProbeOutcome::NotReached);
    assert!(boots.contains(&ask(&mut client, PUBLIC, answer)));
    assert!(boots.contains(&ask(&mut client, PUBLIC, answer)));
    for number in 0..100 {
        let address = format!("/ip4/203.0.113.9/tcp/{number}");
        assert!(boots.contains(&ask(&mut client, &address, None)));
    }
    assert_eq!(client.idle.len(), MAX_IDLE);
}
