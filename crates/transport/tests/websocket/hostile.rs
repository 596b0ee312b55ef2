//! Peers that violate the protocol, are slow, or send without end.

use std::time::{Duration, Instant};

use calimero_network_primitives::config::TransportConfig;
use calimero_network_transport::{AddressError, classify};
use libp2p_core::transport::TransportError;
use multiaddr::Multiaddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    Files, PLAIN,
    common::{Net, accept, dial, listen, within},
    node, port_of, short_timeout,
};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                       Sec-WebSocket-Version: 13\r\n\r\n";

async fn client_of(address: &Multiaddr) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port_of(address)))
        .await
        .unwrap()
}

/// The deadline is that of the handshake, not the longer one of names.
fn assert_deadline(error: &AddressError) {
    let deadline = short_timeout().tuning.handshake_timeout;
    let is_deadline = matches!(error, AddressError::Timeout { after } if *after == deadline);
    assert!(is_deadline, "{error:?}");
}

/// Awaits the failure of the next inbound connection.
async fn failure(net: &mut Net) -> AddressError {
    let error = within(accept(net)).await.unwrap_err();
    classify(&TransportError::Other(error))
}

#[tokio::test]
async fn requests_that_open_no_websocket_are_answered_and_closed() {
    let long = format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(9_000));
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 426 "),
        (&long, "HTTP/1.1 431 "),
        ("\x13/multistream/1.0.0\n\r\n\r\n", "HTTP/1.1 400 "),
    ] {
        // The answer comes before the deadline, which is 10 s.
        let (_, mut listener) = node(&TransportConfig::default());
        let address = listen(&mut listener.boxed, PLAIN).await;
        let mut client = client_of(&address).await;
        client.write_all(request.as_bytes()).await.unwrap();
        let start = Instant::now();
        let error = failure(&mut listener.boxed).await;
        assert!(start.elapsed() < Duration::from_secs(9), "{status}");
        assert!(matches!(error, AddressError::WebSocket(_)), "{error:?}");
        let mut answer = [0; 13];
        within(client.read_exact(&mut answer)).await.unwrap();
        assert_eq!(str::from_utf8(&answer).unwrap(), status);
    }
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_cut_off() {
    let files = Files::new("hostile");
    for (suffix, request) in [
        ("/ws", ""),
        ("/ws", "GET / HT"),
        ("/ws", REQUEST),
        ("/wss", ""),
    ] {
        let mut config = files.config(&files);
        config.tuning = short_timeout().tuning;
        let (_, mut listener) = node(&config);
        let text = format!("/ip4/127.0.0.1/tcp/0{suffix}");
        let address = listen(&mut listener.boxed, &text).await;
        let mut client = client_of(&address).await;
        client.write_all(request.as_bytes()).await.unwrap();
        let error = failure(&mut listener.boxed).await;
        assert_deadline(&error);
        // The socket is closed, with or without a reset.
        let _ = within(client.read_to_end(&mut Vec::new())).await;
    }
}

/// Bytes of memory that this process uses.
#[cfg(target_os = "linux")]
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_claimed_frame_length_takes_no_memory() {
    const CLIENTS: usize = 64;
    let (_, mut listener) = node(&short_timeout());
    let address = listen(&mut listener.boxed, PLAIN).await;
    let before = resident_bytes();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = client_of(&address).await;
        client.write_all(REQUEST.as_bytes()).await.unwrap();
        // A frame of 4 EiB, of which the first bytes are zeros: no name of a protocol.
        let header = [0x82, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
        client.write_all(&header).await.unwrap();
        clients.push(client);
    }
    let mut upgrades = tokio::task::JoinSet::new();
    while upgrades.len() < CLIENTS {
        let event = within(futures::StreamExt::next(&mut listener.boxed)).await;
        if let Some(libp2p_core::transport::TransportEvent::Incoming { upgrade, .. }) = event {
            upgrades.spawn(upgrade);
        }
    }
    while let Some(ended) = within(upgrades.join_next()).await {
        assert!(ended.unwrap().is_err());
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 64 << 20, "{grown} bytes for {CLIENTS} connections");
    }
}

/// Every byte of the request comes in a segment of its own.
#[tokio::test]
async fn a_request_in_single_bytes_is_accepted() {
    let (_, mut listener) = node(&TransportConfig::default());
    let address = listen(&mut listener.boxed, PLAIN).await;
    let mut client = client_of(&address).await;
    client.set_nodelay(true).unwrap();
    let talk = async {
        for byte in REQUEST.bytes() {
            client.write_all(&[byte]).await.unwrap();
        }
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(str::from_utf8(&answer).unwrap(), "HTTP/1.1 101");
        drop(client);
    };
    let (error, ()) = within(futures::future::join(failure(&mut listener.boxed), talk)).await;
    assert!(matches!(error, AddressError::Closed), "{error:?}");
}

/// A client that sends bytes without end does not move the deadline.
#[tokio::test]
async fn a_client_that_sends_single_bytes_is_cut_off() {
    // Header fields, and pings after the request.
    let fields = "GET / HTTP/1.1\r\nX: ".to_owned();
    for (start, part) in [
        (fields, &b"y"[..]),
        (REQUEST.to_owned(), &[0x89, 0x80, 1, 2, 3, 4]),
    ] {
        let config = short_timeout();
        let (_, mut listener) = node(&config);
        let address = listen(&mut listener.boxed, PLAIN).await;
        let mut client = client_of(&address).await;
        client.write_all(start.as_bytes()).await.unwrap();
        let dribble = async {
            let mut interval = tokio::time::interval(config.tuning.handshake_timeout / 20);
            while client.write_all(part).await.is_ok() {
                interval.tick().await;
            }
        };
        let error = failure(&mut listener.boxed);
        let (error, ()) = within(futures::future::join(error, dribble)).await;
        assert_deadline(&error);
    }
}

#[tokio::test]
async fn frames_that_violate_the_protocol_end_the_connection() {
    for (frame, text) in [
        (&[0x82, 1, b'a'][..], "not masked"),
        (&[0xc2, 0x81, 1, 2, 3, 4, 0], "reserved bits"),
        (&[0x81, 0x81, 1, 2, 3, 4, 0], "opcode 1"),
        (&[0x80, 0x81, 1, 2, 3, 4, 0], "does not continue"),
        (&[0x89, 0xfe, 0, 126, 1, 2, 3, 4], "control frame"),
        (&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4], "2^63"),
    ] {
        let (_, mut listener) = node(&TransportConfig::default());
        let address = listen(&mut listener.boxed, PLAIN).await;
        let mut client = client_of(&address).await;
        client.write_all(REQUEST.as_bytes()).await.unwrap();
        client.write_all(frame).await.unwrap();
        let start = Instant::now();
        let error = failure(&mut listener.boxed).await;
        assert!(start.elapsed() < Duration::from_secs(9), "{text}");
        assert!(error.to_string().contains(text), "{error:?}");
        let _ = within(client.read_to_end(&mut Vec::new())).await;
    }
}

/// The client reads no answer, so that the answers fill the buffers of the sockets.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_pings_takes_no_memory() {
    const FLOOD_BYTES: usize = 48 << 20;
    let ping = [&[0x89, 0xfd, 1, 2, 3, 4][..], &[7; 125]].concat();
    let pings = ping.repeat(8_000);
    let mut config = TransportConfig::default();
    config.tuning.handshake_timeout = Duration::from_secs(60);
    let (_, mut listener) = node(&config);
    let address = listen(&mut listener.boxed, PLAIN).await;
    let mut client = client_of(&address).await;
    let before = resident_bytes();
    let flood = tokio::spawn(async move {
        client.write_all(REQUEST.as_bytes()).await.unwrap();
        let mut most = 0;
        for _ in 0..FLOOD_BYTES / pings.len() {
            // The socket of the listener gives up if the client reads nothing for some seconds, before
            // the end of the flood on a slow machine.
            if client.write_all(&pings).await.is_err() {
                break;
            }
            most = resident_bytes().max(most);
        }
        most
    });
    let error = failure(&mut listener.boxed).await;
    // The client has closed its socket with answers that it did not read.
    let is_end = matches!(error, AddressError::Closed | AddressError::Io(_));
    assert!(is_end, "{error:?}");
    let grown = flood.await.unwrap().saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes");
}

/// Starts a server that answers each request with `answer` and then only reads.
async fn answering(answer: String) -> Multiaddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        assert!(socket.read(&mut request).await.unwrap() > 0);
        socket.write_all(answer.as_bytes()).await.unwrap();
        while socket.read(&mut request).await.is_ok_and(|count| count > 0) {}
    });
    format!("/ip4/127.0.0.1/tcp/{port}/ws").parse().unwrap()
}

#[tokio::test]
async fn servers_that_open_no_websocket_are_refused() {
    let switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\n";
    for (answer, text) in [
        (
            "HTTP/1.1 301 Moved\r\nLocation: ws://127.0.0.1/\r\n\r\n".to_owned(),
            "status 301",
        ),
        (
            format!("{switching}Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"),
            "another request",
        ),
        (
            format!("{switching}X: {}", "y".repeat(9_000)),
            "longer than",
        ),
        (
            "\x13/multistream/1.0.0\n\r\n\r\n".to_owned(),
            "invalid HTTP",
        ),
    ] {
        let (_, mut dialler) = node(&TransportConfig::default());
        let start = Instant::now();
        let address = answering(answer).await;
        let error = classify(&within(dial(&mut dialler.boxed, address)).await.unwrap_err());
        assert!(start.elapsed() < Duration::from_secs(9), "{text}");
        assert!(matches!(error, AddressError::WebSocket(_)), "{error:?}");
        assert!(error.to_string().contains(text), "{error}");
    }
    let (_, mut dialler) = node(&short_timeout());
    let address = answering(String::new()).await;
    let error = classify(&within(dial(&mut dialler.boxed, address)).await.unwrap_err());
    assert_deadline(&error);
}
