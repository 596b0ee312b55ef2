//! The TCP transport on real sockets.

use futures::{AsyncReadExt, AsyncWriteExt, future::poll_fn};
use libp2p_core::{Endpoint, Transport as _};

use super::*;

/// A deadline that exceeds the duration of every test on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("the test takes too long")
}

fn new() -> Transport {
    Transport::new(16, Congestion::default())
}

fn listen(transport: &mut Transport, address: &str) -> io::Result<ListenerId> {
    let id = ListenerId::next();
    match transport.listen_on(id, address.parse().unwrap()) {
        Ok(()) => Ok(id),
        Err(TransportError::Other(error)) => Err(error),
        Err(error) => panic!("{error:?}"),
    }
}

async fn next(
    transport: &mut Transport,
) -> TransportEvent<futures::future::Ready<io::Result<Stream>>, io::Error> {
    within(poll_fn(|cx| Pin::new(&mut *transport).poll(cx))).await
}

async fn listening(transport: &mut Transport, address: &str) -> Multiaddr {
    listen(transport, address).unwrap();
    match next(transport).await {
        TransportEvent::NewAddress { listen_addr, .. } => listen_addr,
        other => panic!("{other:?}"),
    }
}

async fn accepted(transport: &mut Transport) -> (Stream, Multiaddr) {
    loop {
        if let TransportEvent::Incoming {
            upgrade,
            send_back_addr,
            ..
        } = next(transport).await
        {
            return (upgrade.await.unwrap(), send_back_addr);
        }
    }
}

/// Establishes the connection of `dial`. Returns both ends and the source
/// address.
async fn connected(
    dial: BoxFuture<'static, io::Result<Stream>>,
    to: &mut Transport,
) -> (Stream, (Stream, Multiaddr)) {
    let (out, inn) = futures::future::join(within(dial), accepted(to)).await;
    (out.unwrap(), inn)
}

fn opts(port_use: PortUse) -> DialOpts {
    DialOpts {
        role: Endpoint::Dialer,
        port_use,
    }
}

#[tokio::test]
async fn a_port_has_one_listener() {
    let mut first = new();
    let address = listening(&mut first, "/ip4/127.0.0.1/tcp/0").await;
    let port = socket_of(&address).unwrap().port();
    for second in [address.to_string(), format!("/ip4/0.0.0.0/tcp/{port}")] {
        for transport in [&mut new(), &mut first] {
            let error = listen(transport, &second).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{second}: {error}");
            assert!(error.raw_os_error().is_some(), "{error}");
        }
    }
}

#[tokio::test]
async fn a_dial_uses_the_listening_port_unless_a_new_port_is_requested() {
    let (mut a, mut b) = (new(), new());
    let own = listening(&mut a, "/ip4/127.0.0.1/tcp/0").await;
    let remote = listening(&mut b, "/ip4/127.0.0.1/tcp/0").await;
    for (port_use, same) in [(PortUse::Reuse, true), (PortUse::New, false)] {
        let dial = a.dial(remote.clone(), opts(port_use)).unwrap();
        let (mut out, (mut inn, from)) = connected(dial, &mut b).await;
        assert_eq!(from == own, same, "{from}, {own}");
        out.write_all(b"hello").await.unwrap();
        let mut read = [0; 5];
        within(inn.read_exact(&mut read)).await.unwrap();
        assert_eq!(&read, b"hello");
    }
    // The port still has one owner, although outbound connections share it.
    let error = listen(&mut new(), &own.to_string()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn a_second_connection_to_one_peer_takes_another_port() {
    let (mut a, mut b) = (new(), new());
    let own = listening(&mut a, "/ip4/127.0.0.1/tcp/0").await;
    let remote = listening(&mut b, "/ip4/127.0.0.1/tcp/0").await;
    let mut connections = Vec::new();
    for nth in 0..2 {
        let dial = a.dial(remote.clone(), opts(PortUse::Reuse)).unwrap();
        let (out, (inn, from)) = connected(dial, &mut b).await;
        assert_eq!(from == own, nth == 0);
        connections.push((out, inn));
    }
}

#[tokio::test]
async fn a_port_is_free_again_at_once() {
    let mut first = new();
    let address = listening(&mut first, "/ip4/127.0.0.1/tcp/0").await;
    let mut dialler = new();
    let dial = dialler.dial(address.clone(), opts(PortUse::New)).unwrap();
    let (out, (inn, _)) = connected(dial, &mut first).await;
    // The side that closes first keeps the port in TIME_WAIT.
    drop(inn);
    drop(first);
    drop(out);
    listening(&mut new(), &address.to_string()).await;
}

#[tokio::test]
async fn a_closed_listener_reports_its_end_and_releases_its_port() {
    let mut transport = new();
    let id = listen(&mut transport, "/ip4/127.0.0.1/tcp/0").unwrap();
    let TransportEvent::NewAddress { listen_addr, .. } = next(&mut transport).await else {
        panic!("an address was expected");
    };
    assert!(transport.port_towards([127, 0, 0, 2].into()).is_some());
    assert!(transport.remove_listener(id));
    assert!(!transport.remove_listener(id));
    let event = next(&mut transport).await;
    let closed = matches!(event, TransportEvent::ListenerClosed { listener_id, reason: Ok(()) }
        if listener_id == id);
    assert!(closed, "{event:?}");
    assert!(transport.port_towards([127, 0, 0, 2].into()).is_none());
    // The socket is closed when the listener stream is polled to its end.
    poll_fn(|cx| {
        let _ = Pin::new(&mut transport).poll(cx);
        Poll::Ready(())
    })
    .await;
    listening(&mut new(), &listen_addr.to_string()).await;
}

#[tokio::test]
async fn dials_leave_from_the_listening_port_before_the_interfaces_are_known() {
    let mut transport = new();
    listen(&mut transport, "/ip4/0.0.0.0/tcp/0").unwrap();
    let port = |remote: IpAddr| transport.port_towards(remote).map(|from| from.port());
    let loopback = port(Ipv4Addr::LOCALHOST.into());
    assert!(loopback.is_some_and(|port| port > 0));
    assert_eq!(port([192, 0, 2, 1].into()), loopback);
    assert_eq!(port(Ipv6Addr::LOCALHOST.into()), None);
    // Nothing was polled, so no address was reported.
    let first = next(&mut transport).await;
    assert!(matches!(first, TransportEvent::NewAddress { .. }));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn both_ends_detect_a_dead_path() {
    let (mut a, mut b) = (new(), new());
    let remote = listening(&mut b, "/ip4/127.0.0.1/tcp/0").await;
    let dial = a.dial(remote, opts(PortUse::New)).unwrap();
    let (out, (inn, _)) = connected(dial, &mut b).await;
    for stream in [&out, &inn] {
        let socket = SockRef::from(stream.socket());
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(DEAD_AFTER));
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEP_ALIVE_IDLE);
        assert_eq!(
            socket.tcp_keepalive_interval().unwrap(),
            KEEP_ALIVE_INTERVAL
        );
        assert!(stream.socket().nodelay().unwrap());
    }
}

/// A congestion control that the kernel has and that is not its default. `reno` is a part of every
/// kernel and open to every process.
#[cfg(target_os = "linux")]
fn other_congestion() -> &'static str {
    let default = new_socket(([127, 0, 0, 1], 0).into(), &Congestion::default()).unwrap();
    let default = default.tcp_congestion().unwrap();
    match default.starts_with(b"reno\0") {
        true => "cubic",
        false => "reno",
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn all_sockets_have_the_configured_congestion_control() {
    let name = other_congestion();
    let configured = || Transport::new(16, Congestion::new(name).unwrap());
    let (mut a, mut b) = (configured(), configured());
    listening(&mut a, "/ip4/127.0.0.1/tcp/0").await;
    let remote = listening(&mut b, "/ip4/127.0.0.1/tcp/0").await;
    for port_use in [PortUse::Reuse, PortUse::New] {
        let dial = a.dial(remote.clone(), opts(port_use)).unwrap();
        let (out, (inn, _)) = connected(dial, &mut b).await;
        for stream in [&out, &inn] {
            let found = SockRef::from(stream.socket()).tcp_congestion().unwrap();
            let found = String::from_utf8(found).unwrap();
            assert_eq!(found.trim_end_matches('\0'), name);
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_unknown_congestion_control_is_refused_with_those_that_exist() {
    let error = Congestion::new("no_such_control").unwrap_err();
    assert_eq!(error.source.raw_os_error(), Some(2), "{error}");
    let text = error.to_string();
    let list = "/proc/sys/net/ipv4/tcp_available_congestion_control";
    let available = std::fs::read_to_string(list).unwrap();
    let start = format!(
        "the kernel refuses `no_such_control` (available: {}; without CAP_NET_ADMIN: ",
        available.trim()
    );
    assert!(text.starts_with(&start), "{text}");
    assert!(
        text.ends_with("): No such file or directory (os error 2)"),
        "{text}"
    );
}

#[tokio::test]
async fn a_refused_dial_keeps_the_error_of_the_system() {
    let mut transport = new();
    let address = listening(&mut transport, "/ip4/127.0.0.1/tcp/0").await;
    drop(transport);
    let error = within(new().dial(address, opts(PortUse::Reuse)).unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert!(error.raw_os_error().is_some());
}

#[test]
fn only_complete_tcp_addresses_are_supported() {
    let of = |text: &str| socket_of(&text.parse().unwrap()).map(|socket| socket.to_string());
    assert_eq!(of("/ip4/1.2.3.4/tcp/5").as_deref(), Some("1.2.3.4:5"));
    assert_eq!(of("/ip6/::1/tcp/5").as_deref(), Some("[::1]:5"));
    for text in [
        "/ip4/1.2.3.4/udp/5",
        "/ip4/1.2.3.4/tcp/5/ws",
        "/tcp/5",
        "/ip4/1.2.3.4",
    ] {
        assert_eq!(of(text), None, "{text}");
    }
    let two = "/ip4/8.8.8.8/tcp/1/ip4/127.0.0.1/tcp/2";
    assert_eq!(of(two), None);
}
