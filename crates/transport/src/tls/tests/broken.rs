//! Handshakes over a byte stream that takes no more bytes.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use futures::executor::block_on;
use rustls::AlertDescription;

use super::*;

/// One result of reading from a [`Broken`] byte stream.
enum Read {
    Bytes(&'static [u8]),
    /// Nothing has arrived yet.
    Later,
    /// Nothing will arrive.
    Never,
}

/// A byte stream whose writes fail. It ends after its last read.
struct Broken(VecDeque<Read>);

impl AsyncRead for Broken {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self.0.pop_front() {
            Some(Read::Bytes(bytes)) => {
                out[..bytes.len()].copy_from_slice(bytes);
                Poll::Ready(Ok(bytes.len()))
            }
            Some(Read::Later) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Read::Never) => {
                self.0.push_front(Read::Never);
                Poll::Pending
            }
            None => Poll::Ready(Ok(0)),
        }
    }
}

impl AsyncWrite for Broken {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn failure(reads: impl IntoIterator<Item = Read>) -> HandshakeError {
    let io = Broken(reads.into_iter().collect());
    let handshake = TlsStream::client(io, crypto().client(None), name());
    block_on(handshake).expect_err("nothing can be written")
}

/// The record of a fatal `handshake_failure` (RFC 8446, section 6).
const ALERT: &[u8] = &[21, 3, 3, 0, 2, 2, 40];

#[test]
fn the_alert_of_the_peer_explains_a_failed_write() {
    for reads in [vec![], vec![Read::Later]] {
        let (first, second) = ALERT.split_at(3);
        let pieces = [Read::Bytes(first), Read::Later, Read::Bytes(second)];
        let error = failure(reads.into_iter().chain(pieces));
        let alert = rustls::Error::AlertReceived(AlertDescription::HandshakeFailure);
        assert!(
            matches!(&error, HandshakeError::Tls(e) if *e == alert),
            "{error:?}"
        );
    }
}

#[test]
fn a_failed_write_without_an_alert_is_the_failure() {
    for reads in [vec![], vec![Read::Later], vec![Read::Never]] {
        let error = failure(reads);
        let kind = io::ErrorKind::BrokenPipe;
        assert!(
            matches!(&error, HandshakeError::Io(e) if e.kind() == kind),
            "{error:?}"
        );
    }
}
