//! Several connections with one peer: the fastest one carries new streams and messages.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod common;

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use calimero_network::{
    Connection, ContextId, GossipEvent, Multiaddr, NetworkEvent, Topic, multiaddr::Protocol,
};
use common::{Node, Over, config, start, within};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
};

/// Passes bytes on after a delay.
async fn pass_on(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, delay: Duration) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        tokio::time::sleep(delay).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// A longer way to `to`: each direction of a connection takes `delay` more.
async fn detour(to: SocketAddr, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(to).await.unwrap();
            let (near, far) = (near.into_split(), far.into_split());
            tokio::spawn(pass_on(near.0, far.1, delay));
            tokio::spawn(pass_on(far.0, near.1, delay));
        }
    });
    at
}

fn socket_of(address: &Multiaddr) -> SocketAddr {
    let port = address.iter().find_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    SocketAddr::from(([127, 0, 0, 1], port.unwrap()))
}

fn address_of(socket: SocketAddr) -> Multiaddr {
    format!("/ip4/127.0.0.1/tcp/{}", socket.port())
        .parse()
        .unwrap()
}

/// The connections of `node`, once two pings were answered on each of the two. Connections are not
/// compared before.
async fn measured(node: &Node) -> [Connection; 2] {
    let mut first: [Option<Duration>; 2] = [None; 2];
    within(async {
        loop {
            let connections = node.client.status().await.unwrap().connections;
            let found = <[Connection; 2]>::try_from(connections).unwrap();
            let rtts = found.each_ref().map(|connection| connection.rtt);
            // Two round trips do not take the same time in nanoseconds.
            let has_two = |(first, now): (&Option<Duration>, &Option<Duration>)| {
                first.is_some() && first != now
            };
            if first.iter().zip(&rtts).all(has_two) {
                return found;
            }
            for (first, now) in first.iter_mut().zip(rtts) {
                *first = first.or(now);
            }
            // No event says that a ping was answered.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

#[tokio::test]
async fn the_fastest_of_two_connections_carries_new_streams() {
    const STREAMS: u64 = 10;
    const BYTES: u64 = 64 * 1024;
    let mut pinging = config();
    pinging.connections.ping.interval = Duration::from_millis(500);
    let (a, mut b) = (start(pinging).await, start(config()).await);
    let direct = socket_of(&b.listen(Over::Tcp).await);
    let slow = detour(direct, Duration::from_millis(30)).await;
    // An address without a peer is dialled although the peer is connected.
    let slow = within(a.client.dial(address_of(slow))).await.unwrap();
    let fast = within(a.client.dial(address_of(direct))).await.unwrap();
    assert_ne!(slow.id, fast.id);
    let found = measured(&a).await;
    assert_eq!(found[0].id, slow.id);
    assert!(found[0].rtt > found[1].rtt, "{found:?}");

    let before = [slow.link.bytes_out(), fast.link.bytes_out()];
    let payload = Bytes::from(vec![7; BYTES as usize]);
    // Open at the same time: without the round trips, each takes the connection with fewer streams.
    let mut open = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = within(a.client.open_stream(b.peer())).await.unwrap();
        within(stream.send(payload.clone())).await.unwrap();
        let mut served = b.inbound().await;
        assert_eq!(within(served.next()).await.unwrap().unwrap(), payload);
        open.push((stream, served));
    }
    let sent = [
        slow.link.bytes_out() - before[0],
        fast.link.bytes_out() - before[1],
    ];
    assert!(sent[0] < BYTES && sent[1] >= STREAMS * BYTES, "{sent:?}");
}

#[tokio::test]
async fn the_fastest_of_two_connections_carries_messages() {
    const MESSAGES: u64 = 10;
    const BYTES: u64 = 64 * 1024;
    let topic = Topic::context(ContextId::new([7; 32]));
    let mut pinging = config();
    pinging.connections.ping.interval = Duration::from_millis(500);
    let (mut a, mut b) = (start(pinging).await, start(config()).await);
    let direct = socket_of(&b.listen(Over::Tcp).await);
    let slow = detour(direct, Duration::from_millis(30)).await;
    for node in [&a, &b] {
        within(node.client.subscribe(&topic)).await.unwrap();
    }
    // Of connections that are equally good, the latest one would carry messages.
    let fast = within(a.client.dial(address_of(direct))).await.unwrap();
    let slow = within(a.client.dial(address_of(slow))).await.unwrap();
    let subscribed = a.wait_for(|event| match event {
        NetworkEvent::Gossip(GossipEvent::Subscribed { .. }) => Some(()),
        _ => None,
    });
    subscribed.await;
    measured(&a).await;

    let before = [slow.link.bytes_out(), fast.link.bytes_out()];
    for number in 0..MESSAGES {
        let payload = vec![u8::try_from(number).unwrap(); BYTES as usize];
        within(a.client.publish(&topic, payload.clone()))
            .await
            .unwrap();
        let message = b.wait_for(|event| match event {
            NetworkEvent::Gossip(GossipEvent::Message(message)) => Some(message),
            _ => None,
        });
        assert_eq!(message.await.data, payload);
    }
    let sent = [
        slow.link.bytes_out() - before[0],
        fast.link.bytes_out() - before[1],
    ];
    // The first one may be sent before the choice is reported.
    assert!(
        sent[0] < 2 * BYTES && sent[1] >= (MESSAGES - 1) * BYTES,
        "{sent:?}"
    );
}
