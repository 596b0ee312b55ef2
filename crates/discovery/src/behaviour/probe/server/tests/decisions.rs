//! Which requests are served, and how many dial-backs are under way at one time.

use super::*;

const OBSERVED: &str = "/ip4/8.8.8.8/tcp/50000";
const OWN: &str = "/ip4/8.8.8.8/tcp/4001";
const OTHER: &str = "/ip4/1.1.1.1/tcp/4001";
const PRIVATE: &str = "/ip4/10.0.0.9/tcp/4001";

const CONNECTION: usize = 1;

fn connection() -> ConnectionId {
    ConnectionId::new_unchecked(CONNECTION)
}

/// A server to which `peer` is connected from a public address.
fn connected(peer: PeerId) -> Server {
    let mut server = Server::new(DialScopes::default());
    let endpoint = ConnectedPoint::Listener {
        local_addr: "/ip4/8.8.4.4/tcp/2428".parse().unwrap(),
        send_back_addr: OBSERVED.parse().unwrap(),
    };
    established(&mut server, peer, connection(), &endpoint);
    server
}

fn established(server: &mut Server, peer_id: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
    server.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
        peer_id,
        connection_id: id,
        endpoint,
        failed_addresses: &[],
        other_established: 0,
    }));
}

fn addresses(texts: &[&str]) -> Vec<Multiaddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn request(peer: PeerId, texts: &[&str]) -> Request {
    let addresses = addresses(texts);
    Request { peer, addresses }
}

/// The server has that many dial-backs of v2 and of v1 under way.
fn occupy(server: &mut Server, v2: usize, v1: usize) {
    for nth in 0..v2 {
        let outcome = oneshot::channel().0;
        let dialling = Dialling { nonce: 7, outcome };
        let id = ConnectionId::new_unchecked(1_000 + nth);
        server.dials.insert(id, dialling);
    }
    for nth in 0..v1 {
        let id = ConnectionId::new_unchecked(2_000 + nth);
        server.dials_v1.insert(id, oneshot::channel().0);
    }
}

#[test]
fn data_is_asked_for_where_the_address_is_not_the_peers_own() {
    let peer = PeerId::random();
    let mut server = connected(peer);
    let mut decide = |texts: &[&str]| server.decide(peer, connection(), &addresses(texts));
    assert!(matches!(
        decide(&[PRIVATE, OWN]),
        Decision::Dial {
            index: 1,
            bytes: 0,
            ..
        }
    ));
    for _ in 0..5 {
        let Decision::Dial {
            index: 0, bytes, ..
        } = decide(&[OTHER])
        else {
            panic!("no dial");
        };
        assert!(DATA_BYTES.contains(&bytes), "{bytes}");
    }
    // What is refused does not count, and 12 dial-backs are made in a minute.
    assert!(matches!(decide(&[PRIVATE]), Decision::Refused));
    assert!(matches!(decide(&[]), Decision::Refused));
    for _ in 6..12 {
        assert!(matches!(decide(&[OWN]), Decision::Dial { .. }));
    }
    assert!(matches!(decide(&[OWN]), Decision::Rejected));
    let unknown = ConnectionId::new_unchecked(9);
    let decision = server.decide(PeerId::random(), unknown, &addresses(&[OWN]));
    assert!(matches!(decision, Decision::Rejected));
}

#[test]
fn requests_of_v1_are_for_their_sender_at_its_own_address() {
    let peer = PeerId::random();
    let mut server = connected(peer);
    let other = request(PeerId::random(), &[OWN]);
    let decided = server.decide_v1(peer, connection(), &other);
    assert_eq!(decided, Err(Answer::OtherPeer));
    let unknown = ConnectionId::new_unchecked(9);
    let decided = server.decide_v1(peer, unknown, &request(peer, &[OWN]));
    assert_eq!(decided, Err(Answer::NotDialled));
    let decided = server.decide_v1(peer, connection(), &request(peer, &[OTHER, PRIVATE]));
    assert_eq!(decided, Err(Answer::NoAddress));
    let own = request(peer, &[OTHER, OWN]);
    let decided = server.decide_v1(peer, connection(), &own).unwrap();
    assert_eq!(decided.len(), 1);
}

#[test]
fn each_address_of_v1_counts_as_one_dial_back() {
    let peer = PeerId::random();
    let mut server = connected(peer);
    let ports = [1, 2, 3, 4].map(|port| format!("/ip4/8.8.8.8/tcp/{port}"));
    let ports: Vec<_> = ports.iter().map(String::as_str).collect();
    let mut dialled = |count: usize| {
        let request = request(peer, &ports[..count]);
        let decided = server.decide_v1(peer, connection(), &request);
        decided.map(|addresses| addresses.len())
    };
    assert_eq!([4, 3, 3].map(&mut dialled), [Ok(4), Ok(3), Ok(3)]);
    // Two are left of 12.
    assert_eq!(dialled(4), Ok(2));
    assert_eq!(dialled(4), Err(Answer::TooMany));
}

#[test]
fn no_more_dial_backs_are_under_way_than_the_limit() {
    let peer = PeerId::random();
    for (v2, v1) in [(MAX_DIALS - 1, 0), (0, MAX_DIALS - 1), (16, MAX_DIALS - 17)] {
        let mut server = connected(peer);
        occupy(&mut server, v2, v1);
        assert!(!server.is_busy());
        let Decision::Dial { address, .. } = server.decide(peer, connection(), &addresses(&[OWN]))
        else {
            panic!("no dial");
        };
        let mut outcomes = [(); 2].map(|()| {
            let (outcome, ended) = oneshot::channel();
            let dialling = Dialling { nonce: 7, outcome };
            server.dial(peer, address.clone(), dialling);
            ended
        });
        assert!(server.is_busy());
        assert_eq!(outcomes[0].try_recv(), Ok(None));
        assert_eq!(outcomes[1].try_recv(), Ok(Some(Outcome::NotDialled)));
        assert_eq!(server.waiting.len(), 1);
        let (answer, mut answered) = oneshot::channel();
        server.on_request_v1(peer, connection(), &request(peer, &[OWN]), answer);
        assert_eq!(answered.try_recv(), Ok(Some(Answer::TooMany)));
    }
}

#[test]
fn a_connection_of_v1_is_closed_once_it_has_shown_that_the_peer_is_reached() {
    let peer = PeerId::random();
    let mut server = connected(peer);
    let (answer, mut answered) = oneshot::channel();
    server.on_request_v1(peer, connection(), &request(peer, &[OWN]), answer);
    let id = *server.dials_v1.keys().next().unwrap();
    let Some(ToSwarm::Dial { .. }) = server.waiting.pop_front() else {
        panic!("no dial");
    };
    let endpoint = ConnectedPoint::Dialer {
        address: format!("{OWN}/p2p/{peer}").parse().unwrap(),
        role_override: Endpoint::Dialer,
        port_use: PortUse::New,
    };
    // Another connection with the peer says nothing.
    established(&mut server, peer, ConnectionId::new_unchecked(9), &endpoint);
    assert_eq!(answered.try_recv(), Ok(None));
    established(&mut server, peer, id, &endpoint);
    let reached = Answer::Reached(OWN.parse().unwrap());
    assert_eq!(answered.try_recv(), Ok(Some(reached)));
    let closed = server.waiting.pop_front();
    let Some(ToSwarm::CloseConnection {
        peer_id,
        connection: CloseConnection::One(closed),
    }) = closed
    else {
        panic!("{closed:?}");
    };
    assert_eq!((peer_id, closed), (peer, id));
    assert!(server.dials_v1.is_empty() && server.waiting.is_empty());
}
