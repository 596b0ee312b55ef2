//! A consumer that reads no events for half a minute, under load: nothing else waits for it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use calimero_network::{
    ConnectionEvent, ContextId, GossipEvent, NetworkClient, NetworkEvent, PublishError,
    StreamProtocol, Topic, pubsub,
};
use common::{Over, config, resident_bytes, start, within};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};

const HELD: Duration = Duration::from_secs(30);
const ECHO: StreamProtocol = StreamProtocol::new("/test/echo/1.0.0");
const PING: StreamProtocol = StreamProtocol::new("/ipfs/ping/1.0.0");

/// The held consumer may keep this much, in messages and in bytes.
const QUEUE: usize = 1000;
const QUEUE_BYTES: usize = 2 << 20;

fn topic() -> Topic {
    Topic::context(ContextId::new([9; 32]))
}

/// Publishes as fast as the node accepts messages, until stopped. Returns the number of messages.
async fn flood(client: NetworkClient, until: Instant) -> u64 {
    let payload = Bytes::from(vec![7; 1024]);
    let mut sent = 0;
    while Instant::now() < until {
        match client.publish(&topic(), payload.clone()).await {
            Ok(_) => sent += 1,
            Err(PublishError::Deadline { .. }) => {}
            Err(PublishError::NotSent(pubsub::PublishError::QueueFull { .. })) => {}
            Err(error) => panic!("{error}"),
        }
    }
    sent
}

/// 32 bytes there and back on a stream of a protocol that gives them back.
async fn round_trip(client: &NetworkClient, to: calimero_network::PeerId, over: StreamProtocol) {
    let mut stream = within(client.open_raw_stream(to, over)).await.unwrap();
    let mut back = [0; 32];
    within(async {
        stream.write_all(&[5; 32]).await.unwrap();
        stream.flush().await.unwrap();
        stream.read_exact(&mut back).await.unwrap();
    })
    .await;
    assert_eq!(back, [5; 32]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_waits_for_a_consumer_that_does_not_read() {
    let mut narrow = config();
    narrow.handle.event_queue = QUEUE;
    narrow.handle.event_queue_bytes = QUEUE_BYTES;
    narrow.connections.ping.interval = Duration::from_secs(1);
    let mut held = start(narrow).await;
    let mut publisher = start(config()).await;
    let other = start(config()).await;
    let address = held.listen(Over::Tcp).await;
    within(held.client.subscribe(&topic())).await.unwrap();
    within(publisher.client.dial(address.clone()))
        .await
        .unwrap();
    publisher
        .wait_for(|event| {
            matches!(event, NetworkEvent::Gossip(GossipEvent::Subscribed { .. })).then_some(())
        })
        .await;
    let mut echoes = held.client.accept(ECHO).unwrap();
    tokio::spawn(async move {
        while let Some(mut inbound) = echoes.next().await {
            tokio::spawn(async move {
                let mut bytes = [0; 32];
                if inbound.stream.read_exact(&mut bytes).await.is_ok() {
                    let _ = inbound.stream.write_all(&bytes).await;
                    let _ = inbound.stream.close().await;
                }
            });
        }
    });

    let until = Instant::now() + HELD;
    let flooding = tokio::spawn(flood(publisher.client.clone(), until));
    let (mut rounds, mut settled) = (0_u32, 0);
    while Instant::now() < until {
        within(other.client.dial(address.clone())).await.unwrap();
        round_trip(&other.client, held.peer(), ECHO).await;
        round_trip(&other.client, held.peer(), PING).await;
        within(held.client.status()).await.unwrap();
        within(other.client.disconnect(held.peer())).await.unwrap();
        rounds += 1;
        if rounds == 5 {
            settled = resident_bytes();
        }
    }
    let sent = within(flooding).await.unwrap();
    let grown = resident_bytes().saturating_sub(settled);
    assert!(rounds > 5, "{rounds} rounds");
    assert!(sent > 2 * QUEUE as u64, "{sent} sent");
    // Gossip caches what arrives in five heartbeats and remembers ids for a minute, at both ends.
    assert!(grown < 256 << 20, "grown by {grown} bytes");

    let status = within(held.client.status()).await.unwrap();
    let pinged = status
        .connections
        .iter()
        .find(|c| c.peer == publisher.peer());
    assert!(pinged.unwrap().rtt.is_some());

    // The events of that time: each gap is reported, and connections that came and went are not.
    let (mut missed, mut got, mut connected) = (0, 0, Vec::new());
    let delivered = held.client.mesh_stats().await.unwrap().counters.delivered;
    while missed + got < delivered {
        held.wait_for(|event| {
            match event {
                NetworkEvent::Gossip(GossipEvent::Lagged { missed: more }) => missed += more,
                NetworkEvent::Gossip(GossipEvent::Message(_)) => got += 1,
                NetworkEvent::Connection(ConnectionEvent::Connected(connection)) => {
                    connected.push(connection.peer)
                }
                NetworkEvent::Connection(ConnectionEvent::Disconnected { .. }) => {
                    panic!("{event:?}")
                }
                _ => {}
            }
            Some(())
        })
        .await;
    }
    assert!(got <= QUEUE as u64, "{got} kept");
    assert!(connected.contains(&publisher.peer()));
    assert!(connected.len() <= 2, "{connected:?}");
}
