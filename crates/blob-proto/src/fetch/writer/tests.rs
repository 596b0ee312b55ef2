//! Writers that take a part of a chunk, or panic.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use super::*;
use crate::blob_id;

/// Takes some bytes, and then waits for ever or panics.
struct Takes {
    left: usize,
    panics: bool,
    taken: Arc<Mutex<Vec<u8>>>,
}

impl AsyncWrite for Takes {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        assert!(self.left > 0 || !self.panics, "the writer panics");
        if self.left == 0 {
            // The next session finds it ready again.
            self.left = usize::MAX;
            return Poll::Pending;
        }
        let len = from.len().min(self.left);
        self.left -= len;
        lock(&self.taken).extend_from_slice(&from[..len]);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn target(left: usize, panics: bool) -> WriterTarget {
    WriterTarget::new(Box::new(Takes {
        left,
        panics,
        taken: Arc::default(),
    }))
}

#[tokio::test]
async fn a_session_after_one_that_wrote_a_part_of_a_chunk_is_refused() {
    let target = target(100_000, false);
    let content = Bytes::from(vec![7; BLOB_CHUNK_BYTES]);
    let mut first = target.writer().await.unwrap();
    let mut writing = first.write(content.clone());
    // The piece is hashed on another thread before.
    while lock(&target.output.state).written_bytes == 0 && !target.output.state().torn {
        assert!(futures::poll!(&mut writing).is_pending());
        tokio::task::yield_now().await;
    }
    drop(writing);
    drop(first);
    let mut second = target.writer().await.unwrap();
    let refused = second.write(content.clone()).await;
    assert!(
        matches!(refused, Err(StoreError::Spoiled { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_panic_of_the_writer_is_an_error() {
    let target = target(10, true);
    let content = Bytes::from(vec![7; 100]);
    let put = target
        .put_batch(vec![(Some(blob_id(&content)), content)])
        .await;
    assert!(matches!(put, Err(StoreError::Writer { .. })));
}
