//! The dial filter with real sockets: refused addresses are never connected to.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod common;

use std::{cell::RefCell, time::Duration};

use calimero_network_primitives::{
    addr::{DialGate, DialPolicy, is_dialable},
    config::TransportConfig,
};
use calimero_network_transport::{AddressError, build, classify};
use libp2p_core::{Transport as _, transport::TransportError};
use libp2p_identity::{Keypair, PeerId};
use multiaddr::{Multiaddr, Protocol};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tokio::net::TcpListener;

use self::common::{Net, dial, dial_opts, within};

fn net(gate: DialGate) -> Net {
    let keypair = Keypair::generate_ed25519();
    let mut config = TransportConfig::default();
    config.tuning.handshake_timeout = Duration::from_millis(300);
    build(&keypair, &config, gate).unwrap().boxed
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Returns `true` if a connection was made. Call it after the dial has ended.
fn was_connected(listener: TcpListener) -> bool {
    let listener = listener.into_std().unwrap();
    listener.set_nonblocking(true).unwrap();
    listener.accept().is_ok()
}

#[tokio::test]
async fn no_form_of_a_loopback_address_is_dialled() {
    let peer = PeerId::random();
    for form in [
        "/ip4/127.0.0.1/tcp/{port}",
        "/ip4/127.0.0.1/tcp/{port}/p2p/{peer}",
        "/ip6/::ffff:127.0.0.1/tcp/{port}",
        "/ip6/::127.0.0.1/tcp/{port}",
        "/ip4/0.0.0.0/tcp/{port}",
        "/ip4/8.8.8.8/tcp/1/ip4/127.0.0.1/tcp/{port}",
        "/ip4/8.8.8.8/udp/1/quic-v1/ip4/127.0.0.1/tcp/{port}",
        "/dns4/localhost/tcp/{port}",
        "/dns/localhost/tcp/{port}/p2p/{peer}",
        "/ip4/8.8.8.8/tcp/1/p2p/{peer}/ip4/127.0.0.1/tcp/{port}",
    ] {
        let (listener, port) = listener().await;
        let address = form
            .replace("{port}", &port.to_string())
            .replace("{peer}", &peer.to_string());
        let address: Multiaddr = address.parse().unwrap();
        let mut net = net(DialPolicy::Private.into());
        let error = classify(&within(dial(&mut net, address)).await.unwrap_err());
        assert!(
            matches!(
                error,
                AddressError::NotAllowed(_) | AddressError::Unsupported(_)
            ),
            "{form}: {error:?}"
        );
        assert!(!was_connected(listener), "{form}");
    }
}

#[tokio::test]
async fn a_granted_address_is_dialled_and_no_other() {
    let (named, port) = listener().await;
    let (other, other_port) = listener().await;
    let at = |port: u16| -> Multiaddr { format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap() };
    let gate = DialGate::from(DialPolicy::Private);
    let mut net = net(gate.clone());
    gate.grant(&at(port)).unwrap();
    // The listener does not support libp2p, so the dial ends with the deadline.
    let error = classify(&within(dial(&mut net, at(port))).await.unwrap_err());
    assert!(matches!(error, AddressError::Timeout { .. }), "{error:?}");
    assert!(was_connected(named));
    let error = classify(&within(dial(&mut net, at(other_port))).await.unwrap_err());
    assert!(matches!(error, AddressError::NotAllowed(_)), "{error:?}");
    assert!(!was_connected(other));
}

fn component() -> impl Strategy<Value = Protocol<'static>> {
    let peer = PeerId::random();
    prop_oneof![
        any::<[u8; 4]>().prop_map(|ip| Protocol::Ip4(ip.into())),
        Just(Protocol::Ip4([127, 0, 0, 1].into())),
        any::<[u8; 16]>().prop_map(|ip| Protocol::Ip6(ip.into())),
        Just(Protocol::Dns4("localhost".into())),
        (0..3_u16).prop_map(Protocol::Tcp),
        (0..3_u16).prop_map(Protocol::Udp),
        Just(Protocol::QuicV1),
        Just(Protocol::P2pCircuit),
        Just(Protocol::P2p(peer)),
        Just(Protocol::Memory(7)),
        Just(Protocol::Ws("/".into())),
        Just(Protocol::Tls),
    ]
}

#[tokio::test]
async fn only_accepted_addresses_start_a_dial() {
    let net = RefCell::new(net(DialPolicy::Private.into()));
    let addresses = prop::collection::vec(component(), 0..7);
    let mut runner = TestRunner::new(Config::with_cases(2_000));
    runner
        .run(&addresses, |parts| {
            let address: Multiaddr = parts.into_iter().collect();
            // A dial does nothing before it is polled, so no connection is made
            // here.
            match begin(&mut net.borrow_mut(), &address) {
                Ok(()) => prop_assert!(is_dialable(&address, DialPolicy::Private), "{address}"),
                Err(AddressError::NotAllowed(_)) => {
                    prop_assert!(!is_dialable(&address, DialPolicy::Private), "{address}");
                }
                Err(_) => {}
            }
            Ok(())
        })
        .unwrap();
}

fn begin(net: &mut Net, address: &Multiaddr) -> Result<(), AddressError> {
    match net.dial(address.clone(), dial_opts()) {
        Ok(_) => Ok(()),
        Err(TransportError::MultiaddrNotSupported(address)) => {
            Err(AddressError::Unsupported(address))
        }
        Err(error) => Err(classify(&error)),
    }
}
