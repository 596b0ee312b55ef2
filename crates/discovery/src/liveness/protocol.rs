//! The protocol: 32 bytes are sent and the same 32 bytes are returned, any number of times on one
//! stream.
//!
//! <https://github.com/libp2p/specs/blob/master/ping/ping.md>

use std::{
    future::poll_fn,
    io,
    task::Poll::{Pending, Ready},
};

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Length of a ping in bytes, according to the specification.
pub(super) const PAYLOAD_BYTES: usize = 32;

/// The payload of a ping.
pub(super) type Payload = [u8; PAYLOAD_BYTES];

/// Pings that are answered in one poll. A stream that always has another one would otherwise occupy
/// the task, which drives the whole connection. A guess: little compared with the other work of a
/// poll.
const ANSWERS_PER_TURN: u32 = 16;

/// Sends `payload` and waits until it is returned.
///
/// # Errors
///
/// The error of the stream; [`io::ErrorKind::UnexpectedEof`] if it ends before the whole answer,
/// [`io::ErrorKind::InvalidData`] if the answer is another one.
pub(super) async fn ping<S>(stream: &mut S, payload: Payload) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&payload).await?;
    stream.flush().await?;
    let mut answer = Payload::default();
    stream.read_exact(&mut answer).await?;
    if answer == payload {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Answers pings until the peer closes the stream, and closes it as well.
///
/// # Errors
///
/// The error of the stream; [`io::ErrorKind::UnexpectedEof`] if it ends within a ping.
pub(super) async fn answer<S>(mut stream: S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut payload = Payload::default();
    loop {
        for _ in 0..ANSWERS_PER_TURN {
            let first = stream.read(&mut payload).await?;
            if first == 0 {
                return stream.close().await;
            }
            stream.read_exact(&mut payload[first..]).await?;
            stream.write_all(&payload).await?;
            stream.flush().await?;
        }
        next_turn().await;
    }
}

/// Yields to the other work of the task.
async fn next_turn() {
    let mut waited = false;
    poll_fn(|cx| {
        if waited {
            return Ready(());
        }
        waited = true;
        cx.waker().wake_by_ref();
        Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, future, io::Cursor};
    use proptest::prelude::*;
    use tokio::io::DuplexStream;
    use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

    use super::*;

    type End = Compat<DuplexStream>;

    /// Two ends of a pipe that holds `capacity` bytes each way.
    fn pipe(capacity: usize) -> (End, End) {
        let (near, far) = tokio::io::duplex(capacity);
        (near.compat(), far.compat())
    }

    #[tokio::test]
    async fn another_answer_is_invalid() {
        let (mut near, mut far) = pipe(64);
        far.write_all(&[1; PAYLOAD_BYTES]).await.unwrap();
        let error = ping(&mut near, [2; PAYLOAD_BYTES]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn half_an_answer_is_none() {
        let (mut near, mut far) = pipe(64);
        far.write_all(&[2; PAYLOAD_BYTES / 2]).await.unwrap();
        far.close().await.unwrap();
        let error = ping(&mut near, [2; PAYLOAD_BYTES]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn half_a_ping_is_not_answered() {
        let (mut near, far) = pipe(64);
        near.write_all(&[2; PAYLOAD_BYTES / 2]).await.unwrap();
        near.close().await.unwrap();
        let error = answer(far).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
    }

    /// A stream that is always ready: without turns, answering it would end in the first poll.
    #[test]
    fn a_flood_is_answered_in_turns() {
        struct Flood(Cursor<Vec<u8>>);
        impl AsyncRead for Flood {
            fn poll_read(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buffer: &mut [u8],
            ) -> std::task::Poll<io::Result<usize>> {
                std::pin::Pin::new(&mut self.0).poll_read(cx, buffer)
            }
        }
        impl AsyncWrite for Flood {
            fn poll_write(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
                bytes: &[u8],
            ) -> std::task::Poll<io::Result<usize>> {
                Ready(Ok(bytes.len()))
            }
            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<io::Result<()>> {
                Ready(Ok(()))
            }
            fn poll_close(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<io::Result<()>> {
                Ready(Ok(()))
            }
        }
        const TURNS: usize = 5;
        let pings = TURNS * ANSWERS_PER_TURN as usize;
        let flood = Flood(Cursor::new(vec![0; pings * PAYLOAD_BYTES]));
        let mut answering = Box::pin(answer(flood));
        for _ in 0..TURNS {
            assert!((&mut answering).now_or_never().is_none());
        }
        assert!(answering.now_or_never().unwrap().is_ok());
    }

    proptest! {
        /// The bytes may arrive in any pieces.
        #[test]
        fn every_ping_is_answered(
            payloads in prop::collection::vec(any::<Payload>(), 0..50),
            capacity in 1..100usize,
        ) {
            let (mut near, far) = pipe(capacity);
            let ask = async move {
                for payload in payloads {
                    ping(&mut near, payload).await?;
                }
                near.close().await?;
                // The remote end closes too.
                near.read(&mut [0]).await
            };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (asked, answered) = runtime.block_on(future::join(ask, answer(far)));
            prop_assert_eq!(asked.unwrap(), 0);
            answered.unwrap();
        }
    }
}
