//! Dials that must fail say why, and from which port they leave.

use std::{net::UdpSocket, sync::Arc, time::Duration};

use libp2p_core::multiaddr::Protocol;
use quinn::crypto::rustls::QuicServerConfig;

use super::*;
use crate::{crypto::Crypto, quic::addr};

fn port(address: &Multiaddr) -> u16 {
    addr::parse(address)
        .expect("an address of QUIC")
        .socket
        .port()
}

async fn failure(dialer: &mut Node, address: &Multiaddr) -> io::Error {
    let dial = dialer.dial_out(address);
    within(dial).await.expect_err("the dial must fail")
}

#[tokio::test]
async fn another_peer_answers() {
    let other = PeerId::random();
    for mut listener in [Node::ours(), Node::stock()] {
        let address = listener.listen().await;
        let mut dialer = Node::ours();
        let dial = dialer.dial_out(&with_peer(&address, other));
        let (dialled, (_, accepted)) = futures::join!(within(dial), listener.accept());

        let error = dialled.expect_err("the dial must fail");
        match ours(&error) {
            Error::WrongPeer(wrong) => {
                assert_eq!((wrong.expected, wrong.found), (other, listener.peer));
            }
            error => panic!("{error:?}"),
        }
        // The handshake never ends for the listener, so it has nothing to close.
        assert!(accepted.is_err(), "a connection was established");
    }
}

#[tokio::test]
async fn nobody_answers() {
    let after = Duration::from_millis(300);
    let mut dialer = Node::impatient(after);
    // A socket that never answers, twice; then a port without a socket.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let address = addr::multiaddr(silent.local_addr().expect("bound"));
    for address in [&address, &with_peer(&address, PeerId::random())] {
        let error = failure(&mut dialer, address).await;
        assert!(
            matches!(ours(&error), Error::Timeout { after: found } if *found == after),
            "{error}"
        );
    }
    drop(silent);
    let error = failure(&mut dialer, &address).await;
    assert!(matches!(ours(&error), Error::Timeout { .. }), "{error}");
}

/// A server of QUIC that is made by hand.
fn by_hand(versions: Vec<u32>, alpn: &[u8]) -> (quinn::Endpoint, Multiaddr) {
    let crypto = Crypto::new(&Keypair::generate_ed25519()).expect("builds");
    let mut tls = rustls::ServerConfig::clone(&crypto.server());
    tls.alpn_protocols = vec![alpn.to_vec()];
    let tls = Arc::new(QuicServerConfig::try_from(tls).expect("has the first cipher"));
    let mut config = quinn::EndpointConfig::default();
    config.supported_versions(versions);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let address = addr::multiaddr(socket.local_addr().expect("bound"));
    let server = quinn::ServerConfig::with_crypto(tls);
    let runtime = Arc::new(quinn::TokioRuntime);
    let endpoint = quinn::Endpoint::new(config, Some(server), socket, runtime).expect("starts");
    (endpoint, address)
}

#[tokio::test]
async fn refused() {
    let (endpoint, address) = by_hand(vec![1], b"libp2p");
    let refuse = tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            incoming.refuse();
        }
    });
    let error = failure(&mut Node::ours(), &address).await;
    assert!(matches!(ours(&error), Error::Refused), "{error}");
    refuse.abort();
}

#[tokio::test]
async fn no_common_version() {
    let (_endpoint, address) = by_hand(vec![0xff00_001d], b"libp2p");
    let error = failure(&mut Node::ours(), &address).await;
    assert!(matches!(ours(&error), Error::Version), "{error}");
}

#[tokio::test]
async fn another_application_protocol() {
    let (endpoint, address) = by_hand(vec![1], b"h3");
    let accept = tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let _ = incoming.await;
        }
    });
    let error = failure(&mut Node::ours(), &address).await;
    // RFC 7301: no_application_protocol.
    assert!(
        matches!(ours(&error), Error::Tls { alert: 120, .. }),
        "{error}"
    );
    accept.abort();
}

#[tokio::test]
async fn a_client_without_application_protocol_is_refused() {
    let mut listener = Node::ours();
    let address = listener.listen().await;
    let crypto = Crypto::new(&Keypair::generate_ed25519()).expect("builds");
    let mut tls = rustls::ClientConfig::clone(&crypto.client(None));
    tls.alpn_protocols.clear();
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("has the cipher");
    let client =
        quinn::Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("binds");
    let to = addr::parse(&address).expect("an address of QUIC").socket;
    let connecting = client
        .connect_with(quinn::ClientConfig::new(Arc::new(tls)), to, "l")
        .expect("begins");
    let (dialled, (_, accepted)) = futures::join!(within(connecting), listener.accept());
    assert!(dialled.is_err());
    let error = accepted.expect_err("must be refused");
    assert!(
        matches!(ours(&error), Error::Tls { alert: 120, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn addresses_that_are_none_of_ours() {
    let mut node = Node::ours();
    for text in [
        "/ip4/127.0.0.1/tcp/1",
        "/ip4/127.0.0.1/udp/0/quic-v1",
        "/ip4/0.0.0.0/udp/1/quic-v1",
        "/dns/localhost/udp/1/quic-v1",
    ] {
        let address: Multiaddr = text.parse().expect("a multiaddress");
        let dial = node.try_dial(&address, Endpoint::Dialer, PortUse::Reuse);
        let error = dial.err().expect("unsupported");
        assert!(matches!(error, TransportError::MultiaddrNotSupported(a) if a == address));
    }
}

#[tokio::test]
async fn a_dial_reuses_the_port_of_a_listener_if_asked() {
    let (mut dialer, mut listener) = (Node::ours(), Node::ours());
    let own = port(&dialer.listen().await);
    let address = listener.listen().await;
    for (port_use, reused) in [(PortUse::Reuse, true), (PortUse::New, false)] {
        let dial = dialer.dial(&address, Endpoint::Dialer, port_use);
        let (dialled, (from, accepted)) = futures::join!(within(dial), listener.accept());
        assert!(dialled.is_ok() && accepted.is_ok());
        assert_eq!(port(&from) == own, reused, "{from} for {port_use:?}");
    }
}

#[tokio::test]
async fn dials_without_a_listener_share_a_port_if_asked() {
    let (mut dialer, mut listener) = (Node::ours(), Node::ours());
    let address = listener.listen().await;
    let mut ports = Vec::new();
    for port_use in [PortUse::Reuse, PortUse::Reuse, PortUse::New] {
        let dial = dialer.dial(&address, Endpoint::Dialer, port_use);
        let (dialled, (from, accepted)) = futures::join!(within(dial), listener.accept());
        assert!(dialled.is_ok() && accepted.is_ok());
        ports.push(port(&from));
    }
    assert!(ports[0] == ports[1] && ports[1] != ports[2], "{ports:?}");
}

#[tokio::test]
async fn over_ipv6() {
    let (mut dialer, mut listener) = (Node::ours(), Node::ours());
    let (_, address) = listener.listen_on("/ip6/::1/udp/0/quic-v1").await;
    assert!(matches!(address.iter().next(), Some(Protocol::Ip6(_))));
    connect(&mut dialer, &mut listener, &address).await;
}
