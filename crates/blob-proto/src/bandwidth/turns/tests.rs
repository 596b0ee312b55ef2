//! Streams that wait for turns, in paused time.

use std::{
    future::{Future, poll_fn},
    task::{Context, Poll, Waker},
};

use calimero_network_primitives::Keypair;

use super::*;

const BLOB: BlobId = BlobId::new([1; 32]);

fn peer(number: u8) -> Asking {
    let key = Keypair::ed25519_from_bytes([number; 32]).unwrap();
    Asking {
        peer: key.public().to_peer_id(),
        origin: None,
        protected: false,
    }
}

/// The turns of whole blobs at the smallest limit: one, and streams wait for it.
fn turns() -> Turns {
    let limit = Shared::new(1 << 16).unwrap();
    Turns::new(&limit, 1 << 16).1
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_leaves_wakes_others_only_for_a_free_turn() {
    let turns = turns();
    let wait = |number| turns.acquire(peer(number), BLOB, Duration::from_secs(8));
    let busy = wait(1).await.unwrap();
    let (mut changed, mut leaving) = (pin!(turns.0.changed.notified()), Box::pin(wait(2)));
    changed.as_mut().enable();
    poll_fn(|cx| {
        assert!(leaving.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    drop(leaving);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(changed.as_mut().poll(&mut cx).is_pending());
    drop(busy);
    assert!(changed.as_mut().poll(&mut cx).is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_peer_with_many_waiting_streams_is_refused_at_once() {
    let turns = turns();
    let wait = |number| turns.acquire(peer(number), BLOB, Duration::from_secs(8));
    let _busy = wait(1).await.unwrap();
    let mut waiting: Vec<_> = (0..64).map(|_| Box::pin(wait(2))).collect();
    poll_fn(|cx| {
        for one in &mut waiting {
            assert!(one.as_mut().poll(cx).is_pending());
        }
        Poll::Ready(())
    })
    .await;
    let begun = Instant::now();
    assert_eq!(wait(2).await.unwrap_err(), Duration::from_secs(30));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    // Another peer waits.
    assert!(wait(3).await.is_err());
    assert_eq!(begun.elapsed(), Duration::from_secs(8));
    drop(waiting.pop());
    // A further turn is granted, because nothing of the limit is used.
    assert!(wait(2).await.is_ok());
}
