//! TCP on real sockets: all combinations of preferences, and the transports of
//! libp2p.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod common;

use calimero_network_primitives::config::Security::{self, Noise, Tls};
use calimero_network_transport::{MuxerKind, SecurityKind, TransportKind, build};
use libp2p_identity::Keypair;
use multiaddr::{Multiaddr, Protocol};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

use self::common::{
    any_address, connect, dial, dialled, exchange, listen, offering, stock, with_peer, within,
};

const LOOPBACK: &str = "/ip4/127.0.0.1/tcp/0";
const OFFERS: [&[Security]; 4] = [&[Tls, Noise], &[Noise, Tls], &[Tls], &[Noise]];

#[tokio::test]
async fn all_security_preferences_connect_to_each_other() {
    for ours in OFFERS {
        for theirs in OFFERS {
            let Some(expected) = ours.iter().find(|name| theirs.contains(name)) else {
                continue;
            };
            let (a, b) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
            let mut dialler = build(&a, &offering(ours), any_address()).unwrap();
            let mut listener = build(&b, &offering(theirs), any_address()).unwrap();
            let address = listen(&mut listener.boxed, LOOPBACK).await;
            let address = with_peer(address, b.public().to_peer_id());

            let ((peer, mut out), ((other, mut inn), endpoint)) = within(connect(
                &mut dialler.boxed,
                &mut listener.boxed,
                address.clone(),
            ))
            .await;
            assert_eq!(peer, b.public().to_peer_id());
            assert_eq!(other, a.public().to_peer_id());
            exchange(&mut out, &mut inn, 700_000).await;

            let near = dialler.links.claim(&peer, &dialled(address)).unwrap();
            let far = listener.links.claim(&other, &endpoint).unwrap();
            for link in [&near, &far] {
                assert_eq!(link.transport(), TransportKind::Tcp);
                assert_eq!(link.muxer(), MuxerKind::Yamux);
                assert!(link.bytes_in() > 700_000 && link.bytes_out() > 700_000);
                match link.security() {
                    SecurityKind::Tls { .. } => assert_eq!(*expected, Tls),
                    SecurityKind::Noise => assert_eq!(*expected, Noise),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(near.bytes_out(), dialler.links.totals().tcp.sent);
        }
    }
}

#[tokio::test]
async fn transports_of_libp2p_connect_in_both_roles() {
    for ours in OFFERS {
        for theirs in [&[Tls][..], &[Noise]] {
            if !ours.contains(&theirs[0]) {
                continue;
            }
            let (a, b) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
            for dials in [true, false] {
                let mut own = build(&a, &offering(ours), any_address()).unwrap().boxed;
                let mut other = stock(&b, theirs);
                let (dialler, listener, peer) = if dials {
                    (&mut own, &mut other, b.public().to_peer_id())
                } else {
                    (&mut other, &mut own, a.public().to_peer_id())
                };
                let address = with_peer(listen(listener, LOOPBACK).await, peer);
                let ((found, mut out), ((_, mut inn), _)) =
                    within(connect(dialler, listener, address)).await;
                assert_eq!(found, peer);
                exchange(&mut out, &mut inn, 3_000_000).await;
            }
        }
    }
}

/// Joins the first two connections to the returned address, as if two nodes had dialled each other
/// at once, and forwards the third to `server`.
async fn crossing(server: &Multiaddr) -> Multiaddr {
    let [Protocol::Ip4(_), Protocol::Tcp(port)] = server.iter().collect::<Vec<_>>()[..] else {
        panic!("{server}");
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        let (mut second, _) = listener.accept().await.unwrap();
        tokio::spawn(async move { copy_bidirectional(&mut first, &mut second).await });
        let (mut third, _) = listener.accept().await.unwrap();
        let mut served = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        copy_bidirectional(&mut third, &mut served).await
    });
    Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port()))
}

#[tokio::test]
async fn peers_that_dial_each_other_at_once_connect() {
    for ours in OFFERS {
        for theirs in [&[Tls][..], &[Noise]] {
            if !ours.contains(&theirs[0]) {
                continue;
            }
            let (a, b) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
            let mut own = build(&a, &offering(ours), any_address()).unwrap().boxed;
            let mut other = stock(&b, theirs);
            let mut server = stock(&b, theirs);
            let address = crossing(&listen(&mut server, LOOPBACK).await).await;

            let crossed = dial(
                &mut other,
                with_peer(address.clone(), a.public().to_peer_id()),
            );
            let address = with_peer(address, b.public().to_peer_id());
            let connected = connect(&mut own, &mut server, address);
            let (crossed, ((peer, mut out), ((_, mut inn), _))) =
                within(futures::future::join(crossed, connected)).await;
            assert!(crossed.is_err(), "two clients cannot authenticate");
            assert_eq!(peer, b.public().to_peer_id());
            exchange(&mut out, &mut inn, 1_000).await;
        }
    }
}
