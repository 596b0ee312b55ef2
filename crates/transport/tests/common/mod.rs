//! Two connected transports.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    missing_docs,
    reason = "helpers of tests fail by panicking, and not every test uses each"
)]

use std::{future::Future, io, time::Duration};

use calimero_network_primitives::{
    addr::{DialGate, DialPolicy},
    config::{Security, TransportConfig},
};
use futures::{
    AsyncReadExt, AsyncWriteExt, StreamExt,
    future::{self, Either, poll_fn},
};
use libp2p_core::{
    Endpoint, Transport as _,
    connection::ConnectedPoint,
    muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox},
    transport::{Boxed, DialOpts, ListenerId, PortUse, TransportError, TransportEvent},
};
use libp2p_identity::{Keypair, PeerId};
use multiaddr::{Multiaddr, Protocol};

pub(crate) type Output = (PeerId, StreamMuxerBox);
pub(crate) type Net = Boxed<Output>;

/// A deadline that exceeds the duration of every test on a loaded machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("the test takes too long")
}

/// Returns a dial filter that accepts every address, because the other side is
/// on loopback.
pub(crate) fn any_address() -> DialGate {
    DialPolicy::Local.into()
}

/// Returns a configuration with the given security protocols in this order.
pub(crate) fn offering(names: &[Security]) -> TransportConfig {
    let mut config = TransportConfig::default();
    config.tcp.tuning.tls = names.contains(&Security::Tls);
    config.tcp.tuning.noise = names.contains(&Security::Noise);
    config.tcp.prefer = names[0];
    config
}

/// Creates the libp2p transport with TCP, TLS, Noise and Yamux, as its builder
/// combines them.
pub(crate) fn stock(keypair: &Keypair, names: &[Security]) -> Net {
    use libp2p_core::upgrade::Version::V1Lazy;
    let tcp = libp2p_tcp::tokio::Transport::new(libp2p_tcp::Config::default()).upgrade(V1Lazy);
    let tls = || libp2p_tls::Config::new(keypair).unwrap();
    let noise = || libp2p_noise::Config::new(keypair).unwrap();
    let yamux = libp2p_yamux::Config::default();
    match names {
        [Security::Tls] => tcp.authenticate(tls()).multiplex(yamux).boxed(),
        [Security::Noise] => tcp.authenticate(noise()).multiplex(yamux).boxed(),
        other => panic!("not offered: {other:?}"),
    }
}

/// Starts listening and returns the address.
pub(crate) async fn listen(net: &mut Net, address: &str) -> Multiaddr {
    net.listen_on(ListenerId::next(), address.parse().unwrap())
        .unwrap();
    match net.next().await.unwrap() {
        TransportEvent::NewAddress { listen_addr, .. } => listen_addr,
        other => panic!("{other:?}"),
    }
}

/// Accepts one connection with its upgrade.
pub(crate) async fn accept(net: &mut Net) -> io::Result<(Output, ConnectedPoint)> {
    loop {
        if let TransportEvent::Incoming {
            upgrade,
            local_addr,
            send_back_addr,
            ..
        } = net.next().await.unwrap()
        {
            let endpoint = ConnectedPoint::Listener {
                local_addr,
                send_back_addr,
            };
            return Ok((upgrade.await?, endpoint));
        }
    }
}

pub(crate) fn dial_opts() -> DialOpts {
    DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::Reuse,
    }
}

pub(crate) fn dialled(address: Multiaddr) -> ConnectedPoint {
    ConnectedPoint::Dialer {
        address,
        role_override: Endpoint::Dialer,
        port_use: PortUse::Reuse,
    }
}

pub(crate) async fn dial(
    net: &mut Net,
    address: Multiaddr,
) -> Result<Output, TransportError<io::Error>> {
    let dial = net.dial(address, dial_opts())?;
    tokio::pin!(dial);
    // A transport makes progress only while it is polled, as a swarm does.
    poll_fn(|cx| {
        let _ = net.poll_next_unpin(cx);
        dial.as_mut().poll(cx)
    })
    .await
    .map_err(TransportError::Other)
}

/// Connects `dialler` to `listener` and returns the output of both.
pub(crate) async fn connect(
    dialler: &mut Net,
    listener: &mut Net,
    address: Multiaddr,
) -> (Output, (Output, ConnectedPoint)) {
    let accept = accept(listener);
    let dial = dial(dialler, address);
    tokio::pin!(accept, dial);
    let mut out = match future::select(&mut dial, &mut accept).await {
        Either::Left((out, _)) => out.unwrap(),
        Either::Right((inn, dial)) => return (dial.await.unwrap(), inn.unwrap()),
    };
    // The dialler sends its muxer proposal with the first data.
    let inn = drive(&mut [&mut out.1], accept).await.unwrap();
    (out, inn)
}

/// Runs `future` while the muxers make progress.
pub(crate) async fn drive<F: Future>(muxers: &mut [&mut StreamMuxerBox], future: F) -> F::Output {
    tokio::pin!(future);
    within(poll_fn(|cx| {
        for muxer in &mut *muxers {
            let _ = muxer.poll_unpin(cx);
        }
        future.as_mut().poll(cx)
    }))
    .await
}

/// Opens a stream from `a` to `b` and returns both ends after one byte was
/// transferred.
pub(crate) async fn stream(
    a: &mut StreamMuxerBox,
    b: &mut StreamMuxerBox,
) -> (SubstreamBox, SubstreamBox) {
    let mut out = poll_fn(|cx| a.poll_outbound_unpin(cx)).await.unwrap();
    drive(&mut [a], async {
        out.write_all(b"!").await.unwrap();
        out.flush().await.unwrap();
    })
    .await;
    let mut inn = within(poll_fn(|cx| {
        let _ = a.poll_unpin(cx);
        b.poll_inbound_unpin(cx)
    }))
    .await
    .unwrap();
    let mut byte = [0];
    drive(&mut [a, b], inn.read_exact(&mut byte)).await.unwrap();
    assert_eq!(&byte, b"!");
    (out, inn)
}

/// Sends `length` bytes of a pattern from one end to the other and verifies
/// them.
pub(crate) async fn transfer(
    muxers: &mut [&mut StreamMuxerBox],
    from: &mut SubstreamBox,
    to: &mut SubstreamBox,
    length: usize,
) {
    let sent: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
    let mut received = vec![0; length];
    drive(muxers, async {
        let write = async {
            from.write_all(&sent).await.unwrap();
            from.flush().await.unwrap();
        };
        let read = async { to.read_exact(&mut received).await.unwrap() };
        futures::join!(write, read);
    })
    .await;
    assert!(sent == received);
}

/// Transfers data in both directions of one stream.
pub(crate) async fn exchange(a: &mut StreamMuxerBox, b: &mut StreamMuxerBox, length: usize) {
    let (mut x, mut y) = stream(a, b).await;
    transfer(&mut [a, b], &mut x, &mut y, length).await;
    transfer(&mut [a, b], &mut y, &mut x, length).await;
}

pub(crate) fn with_peer(address: Multiaddr, peer: PeerId) -> Multiaddr {
    address.with(Protocol::P2p(peer))
}
