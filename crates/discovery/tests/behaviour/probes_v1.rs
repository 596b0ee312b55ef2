//! Probes by AutoNAT v1: served for libp2p's client, and bounded for a client that misbehaves.

use std::time::Duration;

use calimero_network_primitives::{
    Keypair, Multiaddr, PeerId,
    addr::{peer_of, without_peer},
};
use futures::AsyncWriteExt;
use libp2p_autonat::{self as autonat, NatStatus};
use libp2p_stream as stream;
use libp2p_swarm::{Stream, StreamProtocol, Swarm, SwarmEvent};
use tokio::net::TcpListener;

use crate::{
    common::{TCP, config, free_address, listen, spawn, swarm_of, until, vouched, within},
    probes::answer_to,
    servers::{read, script},
};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/libp2p/autonat/1.0.0");

const DIAL: i32 = 0;
const E_DIAL_ERROR: i32 = 100;
const E_DIAL_REFUSED: i32 = 101;
const E_BAD_REQUEST: i32 = 200;

/// Dial-backs of one peer in a minute.
const MAX_PER_PEER: usize = 12;

#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(int32, optional, tag = "1")]
    kind: Option<i32>,
    #[prost(message, optional, tag = "2")]
    dial: Option<Dial>,
    #[prost(message, optional, tag = "3")]
    response: Option<Response>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Dial {
    #[prost(message, optional, tag = "1")]
    peer: Option<PeerInfo>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PeerInfo {
    #[prost(bytes = "vec", optional, tag = "1")]
    id: Option<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    addresses: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(int32, optional, tag = "1")]
    status: Option<i32>,
    #[prost(string, optional, tag = "2")]
    text: Option<String>,
    #[prost(bytes = "vec", optional, tag = "3")]
    address: Option<Vec<u8>>,
}

/// A reachable node, which serves probes.
async fn server() -> Multiaddr {
    let server = vouched(TCP, config(&[])).await;
    let at = server.listeners().next().unwrap().clone();
    let at = at.with_p2p(*server.local_peer_id()).unwrap();
    spawn(server);
    at
}

/// libp2p's client, which has its addresses probed by `server`.
fn client(server: &Multiaddr) -> Swarm<autonat::Behaviour> {
    let keypair = Keypair::generate_ed25519();
    let config = autonat::Config {
        boot_delay: Duration::from_millis(200),
        retry_interval: Duration::from_millis(200),
        throttle_server_period: Duration::ZERO,
        only_global_ips: false,
        ..autonat::Config::default()
    };
    let peer = keypair.public().to_peer_id();
    let mut client = swarm_of(&keypair, TCP, autonat::Behaviour::new(peer, config));
    let at = without_peer(server);
    client
        .behaviour_mut()
        .add_server(peer_of(server).unwrap(), Some(at));
    client
}

async fn status(client: &mut Swarm<autonat::Behaviour>) -> NatStatus {
    until(&mut [client], |_, event| match event {
        SwarmEvent::Behaviour(autonat::Event::StatusChanged { new, .. }) => Some(new.clone()),
        _ => None,
    })
    .await
}

/// A listener that the server must not connect to.
struct Trap(TcpListener);

impl Trap {
    async fn at(ip: &str) -> Self {
        Self(TcpListener::bind((ip, 0)).await.unwrap())
    }

    fn address(&self) -> Multiaddr {
        let at = self.0.local_addr().unwrap();
        let text = format!("/ip4/{}/tcp/{}", at.ip(), at.port());
        text.parse().unwrap()
    }

    fn assert_unused(self) {
        let listener = self.0.into_std().unwrap();
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "the server has connected");
    }
}

fn request(peer: PeerId, addresses: Vec<Vec<u8>>) -> Vec<u8> {
    let peer = PeerInfo {
        id: Some(peer.to_bytes()),
        addresses,
    };
    let message = Message {
        kind: Some(DIAL),
        dial: Some(Dial { peer: Some(peer) }),
        response: None,
    };
    prost::Message::encode_length_delimited_to_vec(&message)
}

/// A client of which each request is made by a test.
struct Asker {
    control: stream::Control,
    peer: PeerId,
    server: PeerId,
}

impl Asker {
    async fn of(server: &Multiaddr) -> Self {
        let mut script = script(TCP, true).await;
        script.swarm.dial(server.clone()).unwrap();
        until(&mut [&mut script.swarm], |_, event| match event {
            SwarmEvent::ConnectionEstablished { .. } => Some(()),
            _ => None,
        })
        .await;
        let (control, peer) = (script.control.clone(), *script.swarm.local_peer_id());
        script.run();
        Self {
            control,
            peer,
            server: peer_of(server).unwrap(),
        }
    }

    async fn open(&mut self) -> Stream {
        let opened = self.control.open_stream(self.server, PROTOCOL);
        within(opened).await.unwrap()
    }

    /// Sends bytes and returns the answer, if there is one before the stream ends.
    async fn send(&mut self, bytes: &[u8]) -> Option<Response> {
        let mut stream = self.open().await;
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
        let answer = within(read::<Message>(&mut stream)).await?;
        answer.response
    }

    async fn ask_as(&mut self, peer: PeerId, addresses: &[Multiaddr]) -> Response {
        let addresses = addresses.iter().map(Multiaddr::to_vec).collect();
        self.send(&request(peer, addresses)).await.unwrap()
    }

    async fn ask(&mut self, addresses: &[Multiaddr]) -> Option<i32> {
        self.ask_as(self.peer, addresses).await.status
    }
}

#[tokio::test]
async fn a_client_of_libp2p_that_is_reached_is_public() {
    let mut client = client(&server().await);
    let at = listen(&mut client, TCP).await;
    let at = without_peer(&at);
    assert_eq!(status(&mut client).await, NatStatus::Public(at.clone()));
    let confirmed = until(&mut [&mut client], |_, event| match event {
        SwarmEvent::ExternalAddrConfirmed { address } => Some(address.clone()),
        _ => None,
    })
    .await;
    assert_eq!(confirmed, at);
}

#[tokio::test]
async fn a_client_of_libp2p_that_is_not_reached_is_private() {
    let mut client = client(&server().await);
    // Nothing listens there.
    let candidate = free_address(TCP);
    client.behaviour_mut().probe_address(candidate);
    assert_eq!(status(&mut client).await, NatStatus::Private);
}

#[tokio::test]
async fn the_connection_of_a_probe_is_closed_and_the_other_is_kept() {
    let mut server = vouched(TCP, config(&[])).await;
    let at = server.listeners().next().unwrap().clone();
    let mut client = client(&at.with_p2p(*server.local_peer_id()).unwrap());
    listen(&mut client, TCP).await;
    spawn(client);
    let mut dialled_back = None;
    until(&mut [&mut server], |_, event| match event {
        SwarmEvent::ConnectionEstablished {
            connection_id,
            endpoint,
            ..
        } if endpoint.is_dialer() => {
            dialled_back.get_or_insert(*connection_id);
            None
        }
        SwarmEvent::ConnectionClosed {
            connection_id,
            num_established,
            cause,
            ..
        } => {
            assert_eq!(Some(*connection_id), dialled_back);
            assert_eq!(*num_established, 1);
            assert!(cause.is_none(), "{cause:?}");
            Some(())
        }
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn no_other_ip_than_that_of_the_connection_is_dialled() {
    let server = server().await;
    let mut asker = Asker::of(&server).await;
    let other = Trap::at("127.0.0.2").await;
    let own = Trap::at("127.0.0.1").await;
    let named = |prefix: &str| -> Multiaddr {
        let at = own.0.local_addr().unwrap();
        format!("{prefix}/tcp/{}", at.port()).parse().unwrap()
    };
    let refused = [
        other.address(),
        named("/dns4/localhost"),
        named("/ip4/127.0.0.2/tcp/1/ip4/127.0.0.1"),
        own.address().with_p2p(PeerId::random()).unwrap(),
        format!("{server}/p2p-circuit").parse().unwrap(),
    ];
    assert_eq!(asker.ask(&refused).await, Some(E_DIAL_REFUSED));
    for address in refused {
        let answer = asker.ask(std::slice::from_ref(&address)).await;
        assert_eq!(answer, Some(E_DIAL_REFUSED), "{address}");
    }
    // Among addresses that may be dialled, the others are left out.
    let mixed = [other.address(), free_address(TCP)];
    assert_eq!(asker.ask(&mixed).await, Some(E_DIAL_ERROR));
    other.assert_unused();
    own.assert_unused();
}

#[tokio::test]
async fn a_stranger_has_nothing_on_this_host_dialled_by_its_own_ip_either() {
    let mut open = config(&[]);
    open.local_network = false;
    let server = vouched(TCP, open).await;
    let at = server.listeners().next().unwrap().clone();
    let at = at.with_p2p(*server.local_peer_id()).unwrap();
    spawn(server);
    let trap = Trap::at("127.0.0.1").await;
    let mut asker = Asker::of(&at).await;
    assert_eq!(asker.ask(&[trap.address()]).await, Some(E_DIAL_REFUSED));
    trap.assert_unused();
}

#[tokio::test]
async fn a_request_that_is_malformed_too_long_or_of_another_peer_ends_its_stream_alone() {
    let server = server().await;
    let mut asker = Asker::of(&server).await;
    let closed = [free_address(TCP)];
    // Valid, were it not for its 4,097 bytes.
    let padding = |length| request(asker.peer, vec![closed[0].to_vec(), vec![0xff; length]]);
    let length = (0..5_000).find(|length| padding(*length).len() == 2 + 4_097);
    let too_long = padding(length.unwrap());
    assert_eq!(
        asker
            .send(&padding(length.unwrap() - 1))
            .await
            .unwrap()
            .status,
        Some(E_DIAL_ERROR)
    );
    for bytes in [
        &too_long[..],
        // No message.
        &[2, 0xff, 0xff],
        // A message without a peer.
        &[2, 8, 0],
        // A response.
        &[4, 8, 1, 0x1a, 0],
        // A length without an end.
        &[0xff; 8],
    ] {
        assert_eq!(asker.send(bytes).await, None, "{bytes:?}");
    }
    let answer = asker.ask_as(PeerId::random(), &closed).await;
    assert_eq!(answer.status, Some(E_BAD_REQUEST), "{answer:?}");
    assert_eq!(asker.ask(&closed).await, Some(E_DIAL_ERROR));
}

#[tokio::test]
async fn dial_backs_above_the_rate_of_both_versions_are_refused() {
    let server = server().await;
    let mut asker = Asker::of(&server).await;
    let closed = [free_address(TCP)];
    for _ in 0..MAX_PER_PEER / 2 {
        assert_eq!(asker.ask(&closed).await, Some(E_DIAL_ERROR));
    }
    // A request of v2 has its share in the rate, and one with two addresses counts twice.
    let text = closed[0].to_string();
    let answer = answer_to(&mut asker.control, asker.server, &[&text]).await;
    assert_eq!(answer.dial_status, E_DIAL_ERROR, "{answer:?}");
    for _ in 0..2 {
        let both = [closed[0].clone(), free_address(TCP)];
        assert_eq!(asker.ask(&both).await, Some(E_DIAL_ERROR));
    }
    assert_eq!(asker.ask(&closed).await, Some(E_DIAL_ERROR));
    let refused = asker.ask_as(asker.peer, &closed).await;
    assert_eq!(refused.status, Some(E_DIAL_REFUSED));
    assert!(refused.text.unwrap().contains("too many"));
    /// Status `E_REQUEST_REJECTED` of the specification of v2.
    const REJECTED: i32 = 100;
    let answer = answer_to(&mut asker.control, asker.server, &[&text]).await;
    assert_eq!(answer.status, REJECTED, "{answer:?}");
    // Others are served.
    let mut other = Asker::of(&server).await;
    assert_eq!(other.ask(&[free_address(TCP)]).await, Some(E_DIAL_ERROR));
}
