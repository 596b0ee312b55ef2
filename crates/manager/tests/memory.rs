//! What streams may cost in memory: 500 that claim 8 MiB each, 500 with unread data, 2,000 at once.
//! Alone in their process, whose memory they measure, and one after the other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod common;

use std::{io, task::Poll};

use calimero_network::{Substream, resources::Resource};
use common::{BOTH, GENERAL, Node, Over, assert_works, config, pair_with, resident_bytes, within};
use futures::{AsyncWriteExt as _, StreamExt as _, stream::FuturesUnordered};

/// What the growth must stay below, in bytes, of both ends together: both are in this process.
const ALLOWED_BYTES: usize = 16 << 20;

#[tokio::test]
async fn streams_cost_what_they_carry() {
    claims_cost_nothing().await;
    unread_data_is_limited().await;
    a_flood_leaves_nothing_behind().await;
}

async fn claims_cost_nothing() {
    for over in BOTH {
        let mut eager = config();
        eager.streams.tuning.max_outbound_per_connection = 1000;
        let (liar, mut node) = pair_with(over, eager, config()).await;
        assert_works(&liar, &mut node).await;
        let before = resident_bytes();
        let mut claims = Vec::new();
        let mut waiting = Vec::new();
        for _ in 0..500 {
            let mut raw = within(liar.client.open_raw_stream(node.peer(), GENERAL))
                .await
                .unwrap();
            raw.write_all(&(8u32 << 20).to_be_bytes()).await.unwrap();
            raw.flush().await.unwrap();
            claims.push(raw);
            let mut stream = node.inbound().await;
            let (read, begun) = tokio::sync::oneshot::channel();
            waiting.push(tokio::spawn(async move {
                let next = stream.next();
                let mut next = std::pin::pin!(next);
                assert!(futures::poll!(&mut next).is_pending());
                let _ = read.send(());
                next.await
            }));
            within(begun).await.unwrap();
        }
        let grown = resident_bytes().saturating_sub(before);
        assert!(
            grown < ALLOWED_BYTES,
            "{over:?}: grew by {} KiB",
            grown / 1024
        );
        drop(claims);
        for reading in waiting {
            let end = within(reading).await.unwrap();
            assert!(matches!(end, Some(Err(_))), "{end:?}");
        }
        assert_works(&liar, &mut node).await;
    }
}

/// What one peer may hold unread, in bytes.
const UNREAD_BYTES: u64 = 32 << 20;

/// The data of all streams, so that the senders need no memory for it.
static WINDOW: [u8; 256 << 10] = [0; 256 << 10];

async fn unread_bytes(node: &Node) -> u64 {
    let status = within(node.client.status()).await.unwrap();
    let mut usages = status.resources.iter();
    let usage = usages.find(|usage| usage.resource == Resource::UnreadBytes);
    usage.unwrap().used
}

async fn unread_data_is_limited() {
    let mut eager = config();
    eager.streams.tuning.max_outbound_per_connection = 1000;
    let (sender, mut node) = pair_with(Over::Tcp, eager, config()).await;
    assert_works(&sender, &mut node).await;
    let (mut unread, mut streams) = (Vec::new(), Vec::new());
    for _ in 0..500 {
        let mut raw = within(sender.client.open_raw_stream(node.peer(), GENERAL))
            .await
            .unwrap();
        raw.write_all(&[0]).await.unwrap();
        raw.flush().await.unwrap();
        streams.push(raw);
        unread.push(node.inbound().await);
    }
    let write = |mut raw: Substream| async move {
        raw.write_all(&WINDOW[1..]).await?;
        raw.flush().await?;
        // The stream stays open.
        io::Result::Ok(raw)
    };
    let mut writing: FuturesUnordered<_> = streams.into_iter().map(write).collect();
    let reset = async {
        let mut open = Vec::new();
        while let Some(written) = writing.next().await {
            match written {
                Ok(raw) => open.push(raw),
                Err(error) => return (error, open),
            }
        }
        panic!("all streams took their data");
    };
    let (error, open) = within(reset).await;
    // The error of a write to a stream that the peer has reset.
    assert_eq!(error.kind(), io::ErrorKind::WriteZero, "{error}");
    // The memory of this process has the data that the sender could not send as well.
    let used = unread_bytes(&node).await;
    let within_limit = UNREAD_BYTES / 2..=UNREAD_BYTES;
    assert!(within_limit.contains(&used), "{used} bytes unread");
    drop((open, unread, writing));
    assert_works(&sender, &mut node).await;
    // Streams end as their resets arrive.
    within(async {
        while unread_bytes(&node).await > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// What 2,000 streams at once may leave behind, in bytes, at both ends together.
const LEFT_BYTES: usize = 32 << 20;

async fn a_flood_leaves_nothing_behind() {
    for over in BOTH {
        let mut eager = config();
        eager.streams.tuning.max_outbound_per_connection = 2000;
        eager.transport.yamux.max_streams *= 2;
        eager.transport.yamux.connection_window_bytes *= 2;
        let (a, mut b) = pair_with(over, eager, config()).await;
        let mut before = None;
        // The first rounds fill the allocator's pools; from then on nothing may grow.
        for round in 0..4 {
            let all = (0..2000).map(|_| a.client.open_stream(b.peer()));
            let opened = within(futures::future::join_all(all)).await;
            drop(opened);
            // Places are free again once the other side has seen the resets.
            while b.client.open_inbound_streams() > 0 {
                match futures::poll!(std::pin::pin!(b.events.next())) {
                    Poll::Ready(event) => drop(event.expect("running")),
                    Poll::Pending => tokio::task::yield_now().await,
                }
            }
            assert_works(&a, &mut b).await;
            if round == 1 {
                before = Some(resident_bytes());
            }
        }
        let grown = resident_bytes().saturating_sub(before.unwrap());
        assert!(grown < LEFT_BYTES, "{over:?}: grew by {} KiB", grown / 1024);
    }
}
