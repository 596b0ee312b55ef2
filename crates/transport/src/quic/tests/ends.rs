//! How connections end.

use std::{io::ErrorKind, thread};

use futures::FutureExt;

use super::*;
use crate::quic::connection::Traffic;

#[tokio::test]
async fn closed_by_the_peer() {
    for drops in [false, true] {
        let (_a, _b, mut dialled, mut accepted) = connected().await;
        let mut stream = open(&mut dialled).await.expect("opens");
        if drops {
            drop(accepted);
        } else {
            within(poll_fn(|cx| Pin::new(&mut accepted).poll_close(cx)))
                .await
                .expect("closes");
        }
        let error = next_inbound(&mut dialled).await.expect_err("closed");
        assert!(matches!(ours(&error), Error::Closed { code: 0 }), "{error}");
        let error = within(stream.read(&mut [0])).await.expect_err("closed");
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        assert!(matches!(ours(&error), Error::Closed { code: 0 }), "{error}");
    }
}

/// A node in a runtime of its own, which can be taken away between two packets.
struct Elsewhere {
    runtime: tokio::runtime::Runtime,
    keypair: Keypair,
    address: Multiaddr,
}

impl Elsewhere {
    /// Starts a node that listens and keeps every connection.
    fn start(keypair: Keypair, listen: &str) -> Self {
        Self::start_as(keypair, listen, false)
    }

    /// The same, and opens a stream on every connection.
    fn greeting(keypair: Keypair, listen: &str) -> Self {
        Self::start_as(keypair, listen, true)
    }

    fn start_as(keypair: Keypair, listen: &str, greets: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let mut node = {
            let _inside = runtime.enter();
            Node::configured(&keypair, &QuicConfig::default(), DEADLINE)
        };
        let listen = listen.to_owned();
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        runtime.spawn(async move {
            let (_, address) = node.listen_on(&listen).await;
            send.send(address).expect("the test waits");
            let mut kept = Vec::new();
            loop {
                let event = poll_fn(|cx| Pin::new(&mut node.transport).poll(cx)).await;
                if let TransportEvent::Incoming { upgrade, .. } = event {
                    kept.push(tokio::spawn(async move {
                        let (_, mut muxer) = upgrade.await.expect("accepts");
                        let mut streams = Vec::new();
                        if greets {
                            let mut stream = open(&mut muxer).await.expect("opens");
                            stream.write_all(b"hello").await.expect("writes");
                            streams.push(stream);
                        }
                        (muxer, streams)
                    }));
                }
            }
        });
        let address = receive.recv_timeout(DEADLINE).expect("listens");
        Self {
            runtime,
            keypair,
            address,
        }
    }

    /// Ends it as a power cut does: no packet is sent any more.
    fn vanish(self) -> (Keypair, Multiaddr) {
        // A runtime must not be dropped inside of another.
        thread::spawn(move || drop(self.runtime))
            .join()
            .expect("ends");
        (self.keypair, self.address)
    }
}

fn impatient() -> QuicConfig {
    QuicConfig {
        tuning: QuicTuning {
            idle_timeout: Duration::from_millis(800),
            keep_alive: Duration::from_millis(200),
            ..QuicTuning::default()
        },
        ..QuicConfig::default()
    }
}

#[tokio::test]
async fn the_peer_vanishes() {
    let peer = Elsewhere::start(Keypair::generate_ed25519(), LOOPBACK);
    let mut node = Node::configured(&Keypair::generate_ed25519(), &impatient(), DEADLINE);
    let dial = node.dial_out(&peer.address);
    let mut muxer = within(dial).await.expect("dials").1;
    let mut stream = open(&mut muxer).await.expect("opens");
    stream.write_all(b"anybody there?").await.expect("writes");
    peer.vanish();
    let error = next_inbound(&mut muxer).await.expect_err("ends");
    assert!(matches!(ours(&error), Error::IdleTimeout), "{error}");
    let error = within(stream.read(&mut [0])).await.expect_err("ends");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

/// The packet that closes the connection waits behind a full congestion window.
#[tokio::test]
async fn closing_towards_a_peer_that_acknowledges_nothing_costs_little() {
    let peer = Elsewhere::start(Keypair::generate_ed25519(), LOOPBACK);
    let mut node = Node::ours();
    let dial = node.dial_out(&peer.address);
    let mut muxer = within(dial).await.expect("dials").1;
    let mut stream = open(&mut muxer).await.expect("opens");
    peer.vanish();
    // More than a window, so the last write does not end.
    let data = vec![0; 1 << 20];
    while let Some(result) = stream.write(&data).now_or_never() {
        result.expect("writes");
    }
    let mut polls = 0;
    within(poll_fn(|cx| {
        polls += 1;
        Pin::new(&mut muxer).poll_close(cx)
    }))
    .await
    .expect("closes");
    assert!(polls < 2_000, "{polls} polls");
}

#[tokio::test]
async fn keep_alive_holds_a_silent_connection() {
    let peer = Elsewhere::start(Keypair::generate_ed25519(), LOOPBACK);
    let mut node = Node::configured(&Keypair::generate_ed25519(), &impatient(), DEADLINE);
    let dial = node.dial_out(&peer.address);
    let mut muxer = within(dial).await.expect("dials").1;
    // Longer than the idle timeout, in which nothing may happen.
    let silence = tokio::time::timeout(
        Duration::from_millis(2000),
        poll_fn(|cx| Pin::new(&mut muxer).poll_inbound(cx)),
    )
    .await;
    assert!(silence.is_err(), "the connection ended");
    peer.vanish();
}

#[tokio::test]
async fn the_peer_comes_back_without_its_connections() {
    let peer = Elsewhere::greeting(Keypair::generate_ed25519(), LOOPBACK);
    let config = QuicConfig {
        tuning: QuicTuning {
            keep_alive: Duration::from_millis(100),
            ..QuicTuning::default()
        },
        ..QuicConfig::default()
    };
    let mut node = Node::configured(&Keypair::generate_ed25519(), &config, DEADLINE);
    let dial = node.dial_out(&peer.address);
    let mut muxer = within(dial).await.expect("dials").1;
    // The peer has completed the handshake. Before, packets of the handshake would be repeated, which
    // a peer without the connection ignores.
    let _greeting = next_inbound(&mut muxer).await.expect("is greeted");
    let (keypair, address) = peer.vanish();
    // The same identity on the same port knows that it does not know this connection.
    let peer = Elsewhere::start(keypair, &address.to_string());
    let error = next_inbound(&mut muxer).await.expect_err("ends");
    assert!(matches!(ours(&error), Error::Reset), "{error}");
    peer.vanish();
}

#[tokio::test]
async fn traffic_is_counted_and_stays_when_the_connection_is_gone() {
    let (a, mut b) = (Keypair::generate_ed25519(), Node::ours());
    let address = b.listen().await;
    let mut dialer = Transport::new(&a, &QuicConfig::default(), DEADLINE).expect("builds");
    let options = DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::Reuse,
    };
    let dial = dialer.dial(address, options).expect("begins");
    let (dialled, (_, accepted)) = futures::join!(within(dial), b.accept());
    let connection = dialled.expect("dials").1;
    let server = tokio::spawn(echo_all(accepted.expect("accepts").1));

    let traffic: std::sync::Arc<Traffic> = connection.traffic();
    let before = (traffic.received(), traffic.sent());
    assert!(
        before.0 > 1200 && before.1 > 1200,
        "the handshake counts: {before:?}"
    );
    let mut muxer = StreamMuxerBox::new(connection);
    let (mut reader, mut writer) = open(&mut muxer).await.expect("opens").split();
    let bytes = 1 << 20;
    let (written, read) = within(async {
        let mut received = vec![0; bytes];
        let sent = vec![0; bytes];
        futures::join!(async move { writer.write_all(&sent).await }, async move {
            reader.read_exact(&mut received).await
        },)
    })
    .await;
    written.expect("writes");
    read.expect("reads");
    drop(muxer);
    let after = (traffic.received(), traffic.sent());
    let (received, sent) = (after.0 - before.0, after.1 - before.1);
    let plausible = bytes as u64..2 * bytes as u64;
    assert!(
        plausible.contains(&received) && plausible.contains(&sent),
        "{received} {sent}"
    );
    within(server).await.expect("ends");
    assert_eq!((traffic.received(), traffic.sent()), after);
}
