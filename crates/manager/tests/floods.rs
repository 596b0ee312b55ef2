//! More streams at once than the limits permit.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod common;

use std::time::Duration;

use bytes::Bytes;
use calimero_network::{
    ConnectionEvent, FrameStream, NetworkClient, NetworkEvent, PeerId, StreamEvent, Substream,
};
use common::{BOTH, Node, assert_works, pair, pair_with, within};
use futures::future::join_all;

/// Echoes every frame of every stream, each stream by a task of its own.
fn echo(mut node: Node) -> tokio::task::JoinHandle<Node> {
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    std::mem::forget(stop);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                event = node.events.next() => match event {
                    Some(NetworkEvent::Stream(StreamEvent::Opened { stream, .. })) => {
                        tokio::spawn(echo_one(stream));
                    }
                    Some(_) => {}
                    None => return node,
                },
                _ = &mut stopped => return node,
            }
        }
    })
}

async fn echo_one(mut stream: FrameStream<Substream>) {
    while let Some(Ok(frame)) = stream.next().await {
        if stream.send(frame).await.is_err() {
            return;
        }
    }
    let _ = stream.close().await;
}

/// One stream, one frame there and back.
async fn exchange(client: &NetworkClient, peer: PeerId, nth: u32) -> Result<(), String> {
    let payload = Bytes::copy_from_slice(&nth.to_be_bytes());
    let mut stream = client.open_stream(peer).await.map_err(|e| e.to_string())?;
    stream
        .send(payload.clone())
        .await
        .map_err(|e| e.to_string())?;
    match stream.next().await {
        Some(Ok(frame)) if frame == payload => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

#[tokio::test]
async fn two_hundred_streams_at_once_are_all_served() {
    for over in BOTH {
        let (a, b) = pair(over).await;
        let peer = b.peer();
        let _serving = echo(b);
        let all = join_all((0..200).map(|nth| exchange(&a.client, peer, nth)));
        let failed: Vec<_> = within(all)
            .await
            .into_iter()
            .filter_map(Result::err)
            .collect();
        assert!(
            failed.is_empty(),
            "{over:?}: {} failed: {:?}",
            failed.len(),
            failed.first()
        );
    }
}

#[tokio::test]
async fn two_thousand_streams_at_once_are_served_or_refused_and_the_rest_lives() {
    const STREAMS: u32 = 2000;
    for over in BOTH {
        let mut receiver = common::config();
        receiver.streams.max_inbound_per_peer = 300;
        let mut sender = common::config();
        sender.streams.tuning.max_outbound_per_connection = STREAMS as usize;
        let yamux = &mut sender.transport.yamux;
        yamux.max_streams *= 2;
        yamux.connection_window_bytes *= 2;
        let (a, mut b) = pair_with(over, sender, receiver).await;
        // Opened and held: the peer's limit is met whatever the order of things.
        let opened = within(join_all(
            (0..STREAMS).map(|_| a.client.open_stream(b.peer())),
        ))
        .await;
        let mut senders: Vec<_> = opened.into_iter().filter_map(Result::ok).collect();
        let ask = senders.iter_mut().map(|stream| async {
            stream.send("hello".into()).await.ok()?;
            match stream.next_within(Duration::from_secs(10)).await {
                Some(Ok(frame)) if frame == "hello" => Some(()),
                _ => None,
            }
        });
        let mut held = Vec::new();
        let mut refused = 0;
        let serve = async {
            // Refused streams are reported and served ones are held; together they are all that were opened.
            while held.len() + refused < STREAMS as usize {
                match within(b.events.next()).await.expect("running") {
                    NetworkEvent::Stream(StreamEvent::Opened { mut stream, .. }) => {
                        let frame = within(stream.next()).await.unwrap().unwrap();
                        within(stream.send(frame)).await.unwrap();
                        held.push(stream);
                    }
                    NetworkEvent::Stream(StreamEvent::Refused { peer, count, .. }) => {
                        assert_eq!(peer, a.peer());
                        refused += usize::try_from(count).unwrap();
                    }
                    NetworkEvent::Connection(ConnectionEvent::Disconnected { reason, .. }) => {
                        panic!("{over:?}: {reason:?}")
                    }
                    _ => {}
                }
            }
        };
        let (answers, ()) = within(futures::future::join(join_all(ask), serve)).await;
        let served = answers.iter().flatten().count();
        assert_eq!(served, 300, "{over:?}: {refused} refused");
        assert_eq!(held.len(), 300);
        drop(held);
        drop(senders);
        assert_works(&a, &mut b).await;
    }
}
