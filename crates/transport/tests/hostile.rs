//! Peers that violate the protocols on real sockets, and the errors that they
//! cause.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod common;

use std::time::Duration;

use calimero_network_primitives::config::{
    Security::{Noise, Tls},
    TransportConfig, TransportTuning,
};
use calimero_network_transport::{AddressError, Cause, build, classify};
use futures::{AsyncWriteExt, future::poll_fn};
use libp2p_core::{Transport as _, muxing::StreamMuxerExt, transport::TransportError};
use libp2p_identity::{Keypair, PeerId};
use multiaddr::{Multiaddr, Protocol};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use self::common::{
    Net, accept, any_address, connect, dial, drive, exchange, listen, offering, stock, stream,
    with_peer, within,
};

const LOOPBACK: &str = "/ip4/127.0.0.1/tcp/0";

fn net(config: &TransportConfig) -> Net {
    build(&Keypair::generate_ed25519(), config, any_address())
        .unwrap()
        .boxed
}

fn short_timeout() -> TransportConfig {
    TransportConfig {
        tuning: TransportTuning {
            handshake_timeout: Duration::from_millis(300),
        },
        ..TransportConfig::default()
    }
}

fn address_of(listener: &TcpListener) -> Multiaddr {
    let address = listener.local_addr().unwrap();
    Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port()))
}

fn socket_of(address: &Multiaddr) -> (String, u16) {
    match address.iter().collect::<Vec<_>>()[..] {
        [Protocol::Ip4(ip), Protocol::Tcp(port)] => (ip.to_string(), port),
        _ => panic!("{address}"),
    }
}

async fn cause(net: &mut Net, address: Multiaddr) -> AddressError {
    classify(&within(dial(net, address)).await.unwrap_err())
}

/// Starts a listener that answers with `bytes` and then only reads.
async fn answering(bytes: &'static [u8]) -> Multiaddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = address_of(&listener);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                socket.write_all(bytes).await.unwrap();
                let mut sink = [0; 4096];
                while socket.read(&mut sink).await.is_ok_and(|count| count > 0) {}
            });
        }
    });
    address
}

#[tokio::test]
async fn a_silent_listener_ends_with_the_deadline() {
    let config = short_timeout();
    let error = cause(&mut net(&config), answering(b"").await).await;
    let AddressError::Timeout { after } = error else {
        panic!("{error}");
    };
    assert_eq!(after, config.tuning.handshake_timeout);
}

#[tokio::test]
async fn a_peer_that_accepts_and_closes_is_closed() {
    for names in [&[Tls, Noise][..], &[Tls], &[Noise]] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepting = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            // The request is read, so that the end of the socket is no reset.
            let read = tokio::io::AsyncReadExt::read(&mut socket, &mut [0; 1024]).await;
            assert!(read.unwrap() > 0);
        });
        let address = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
        let error = cause(&mut net(&offering(names)), address).await;
        assert!(matches!(error, AddressError::Closed), "{error:?}");
        accepting.await.unwrap();
    }
}

#[tokio::test]
async fn invalid_negotiation_bytes_are_not_libp2p() {
    for names in [&[Tls, Noise][..], &[Tls], &[Noise]] {
        let address = answering(b"\x13/not-multistream/1\n").await;
        let error = cause(&mut net(&offering(names)), address).await;
        let is_invalid = |cause: &Cause| {
            let error = cause.get().downcast_ref::<std::io::Error>();
            error.is_some_and(|error| error.kind() == std::io::ErrorKind::InvalidData)
        };
        match &error {
            AddressError::NotLibp2p | AddressError::ProtocolNegotiation => {}
            AddressError::Io(cause) => assert!(is_invalid(cause), "{error:?}"),
            _ => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
async fn invalid_handshake_bytes_are_a_security_error() {
    // The multistream header and the agreement on TLS, followed by bytes that
    // are not TLS.
    let address = answering(b"\x13/multistream/1.0.0\n\x0b/tls/1.0.0\nno handshake at all").await;
    let error = cause(&mut net(&offering(&[Tls, Noise])), address).await;
    assert!(matches!(error, AddressError::Security(_)), "{error:?}");
    let address = answering(b"\x13/multistream/1.0.0\n\x07/noise\n\x00\x04none").await;
    let error = cause(&mut net(&offering(&[Noise, Tls])), address).await;
    assert!(matches!(error, AddressError::Security(_)), "{error:?}");
}

#[tokio::test]
async fn a_silent_or_invalid_dialler_is_disconnected() {
    for bytes in [
        &b""[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x13/multistream/1.0.0\n",
    ] {
        let mut listener = net(&short_timeout());
        let address = listen(&mut listener, LOOPBACK).await;
        let mut socket = TcpStream::connect(socket_of(&address)).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        assert!(within(accept(&mut listener)).await.is_err());
        let mut sink = Vec::new();
        // The other side has closed the socket, with or without a reset.
        let _ = within(socket.read_to_end(&mut sink)).await;
    }
}

#[tokio::test]
async fn closed_ports_refuse_and_other_addresses_are_unsupported() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        address_of(&listener)
    };
    let mut net = net(&TransportConfig::default());
    let error = cause(&mut net, closed).await;
    assert!(matches!(error, AddressError::Refused), "{error:?}");
    for text in [
        "/ip4/127.0.0.1/udp/1/utp",
        "/onion/timaq4ygg2iegci7:80",
        "/memory/5",
    ] {
        let error = cause(&mut net, text.parse().unwrap()).await;
        assert!(matches!(error, AddressError::Unsupported(_)), "{error:?}");
    }
}

#[tokio::test]
async fn no_common_protocol_is_reported_on_both_sides() {
    let (mut a, mut b) = (net(&offering(&[Tls])), net(&offering(&[Noise])));
    let address = listen(&mut b, LOOPBACK).await;
    let (out, inn) = within(futures::future::join(dial(&mut a, address), accept(&mut b))).await;
    for error in [
        classify(&out.unwrap_err()),
        classify(&TransportError::Other(inn.unwrap_err())),
    ] {
        assert!(
            matches!(
                error,
                AddressError::ProtocolNegotiation | AddressError::Closed
            ),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn the_wrong_peer_is_reported_and_gets_no_connection() {
    for names in [&[Tls, Noise][..], &[Noise, Tls]] {
        for stock_listener in [false, true] {
            let key = Keypair::generate_ed25519();
            let mut listener = if stock_listener {
                stock(&key, &names[..1])
            } else {
                build(&key, &offering(names), any_address()).unwrap().boxed
            };
            let address = listen(&mut listener, LOOPBACK).await;
            let wanted = PeerId::random();
            let mut dialler = net(&offering(names));
            let (out, inn) = within(futures::future::join(
                dial(&mut dialler, with_peer(address, wanted)),
                accept(&mut listener),
            ))
            .await;
            match classify(&out.unwrap_err()) {
                AddressError::WrongPeer { expected, found } => {
                    assert_eq!(expected, wanted);
                    assert_eq!(found, key.public().to_peer_id());
                }
                other => panic!("{other:?}"),
            }
            // The muxer is not negotiated over either protocol.
            assert!(inn.is_err());
        }
    }
}

#[tokio::test]
async fn identities_of_every_kind_are_accepted() {
    let mut rsa = include_bytes!("data/rsa-2048.pk8").to_vec();
    let keys = [
        Keypair::rsa_from_pkcs8(&mut rsa).unwrap(),
        Keypair::generate_ecdsa(),
        Keypair::generate_secp256k1(),
        Keypair::generate_ed25519(),
    ];
    for key in keys {
        for names in [[Tls], [Noise]] {
            for dials in [true, false] {
                let mut own = net(&offering(&names));
                let mut other = stock(&key, &names);
                let address = if dials {
                    let address = listen(&mut other, LOOPBACK).await;
                    with_peer(address, key.public().to_peer_id())
                } else {
                    listen(&mut own, LOOPBACK).await
                };
                let (peer, mut out, mut inn) = if dials {
                    let ((peer, out), ((_, inn), _)) =
                        within(connect(&mut own, &mut other, address)).await;
                    (peer, out, inn)
                } else {
                    let ((_, out), ((peer, inn), _)) =
                        within(connect(&mut other, &mut own, address)).await;
                    (peer, out, inn)
                };
                assert_eq!(peer, key.public().to_peer_id());
                exchange(&mut out, &mut inn, 10_000).await;
            }
        }
    }
}

#[tokio::test]
async fn too_many_streams_are_refused_one_by_one() {
    let mut config = TransportConfig::default();
    config.yamux.max_streams = 2000;
    let keys = [Keypair::generate_ed25519(), Keypair::generate_ed25519()];
    let mut dialler = stock_many_streams(&keys[0]);
    let mut listener = build(&keys[1], &config, any_address()).unwrap();
    let address = listen(&mut listener.boxed, LOOPBACK).await;
    let ((_, mut out), ((peer, mut inn), endpoint)) =
        within(connect(&mut dialler, &mut listener.boxed, address)).await;
    let link = listener.links.claim(&peer, &endpoint).unwrap();

    // One stream stays open during the whole test.
    let (mut near, mut far) = stream(&mut out, &mut inn).await;
    let mut opened = Vec::new();
    let mut accepted = Vec::new();
    within(poll_fn(|cx| {
        while let std::task::Poll::Ready(stream) = inn.poll_inbound_unpin(cx) {
            accepted.push(stream.unwrap());
        }
        let _ = inn.poll_unpin(cx);
        let _ = out.poll_unpin(cx);
        // libp2p allows 256 unacknowledged streams, so each stream is
        // acknowledged by a byte.
        while opened.len() < 2200 {
            match out.poll_outbound_unpin(cx) {
                std::task::Poll::Ready(stream) => {
                    let mut stream = stream.unwrap();
                    let written = std::pin::Pin::new(&mut stream);
                    let _ = futures::AsyncWrite::poll_write(written, cx, b"hello");
                    opened.push(stream);
                }
                std::task::Poll::Pending => break,
            }
        }
        for stream in &mut accepted {
            let stream = std::pin::Pin::new(stream);
            let _ = futures::AsyncWrite::poll_write(stream, cx, b"!");
        }
        cx.waker().wake_by_ref();
        if link.refused_streams() > 0 && opened.len() == 2200 && accepted.len() == 1999 {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    }))
    .await;
    let muxers = &mut [&mut out, &mut inn];
    drive(muxers, async {
        near.write_all(b"still here").await.unwrap();
        near.flush().await.unwrap();
        let mut words = [0; 10];
        futures::AsyncReadExt::read_exact(&mut far, &mut words)
            .await
            .unwrap();
        assert_eq!(&words, b"still here");
    })
    .await;
}

/// Creates a transport of libp2p with a higher limit of streams than the other
/// side.
fn stock_many_streams(key: &Keypair) -> Net {
    use libp2p_core::upgrade::Version::V1Lazy;
    let mut yamux = libp2p_yamux::Config::default();
    yamux.set_max_num_streams(4000);
    libp2p_tcp::tokio::Transport::new(libp2p_tcp::Config::default())
        .upgrade(V1Lazy)
        .authenticate(libp2p_tls::Config::new(key).unwrap())
        .multiplex(yamux)
        .boxed()
}
