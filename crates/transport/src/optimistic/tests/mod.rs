#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod muxer;
mod stream;
mod wire;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake},
};

use futures::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use multistream_select::{Negotiated, NegotiationError, Version, dialer_select_proto};

use super::{Shared, Stream, wire::HEADER};
use crate::pipe::Pipe;

const NAME: &str = "/test/1";
const LINE: &[u8] = b"\x08/test/1\n";

/// The bytes of header and line.
fn proposal() -> Vec<u8> {
    [HEADER, LINE].concat()
}

/// A connection on which the peer has confirmed [`NAME`].
fn confirmed() -> Arc<Shared<Pipe>> {
    let shared = Arc::<Shared<_>>::default();
    shared.confirm(LINE);
    shared
}

/// Negotiates [`NAME`] as libp2p-swarm does.
async fn negotiate(
    stream: Stream<Pipe>,
    version: Version,
) -> Result<Negotiated<Stream<Pipe>>, NegotiationError> {
    let (name, stream) = dialer_select_proto(stream, [NAME], version).await?;
    assert_eq!(name, NAME);
    Ok(stream)
}

/// Returns a negotiated stream whose peer has sent nothing.
async fn early(io: Pipe, shared: &Arc<Shared<Pipe>>) -> Negotiated<Stream<Pipe>> {
    let stream = Stream::outbound(io, Arc::clone(shared));
    negotiate(stream, Version::V1).await.unwrap()
}

/// Reads `length` bytes.
async fn received(far: &mut Pipe, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    far.read_exact(&mut bytes).await.unwrap();
    bytes
}

/// Returns the bytes that have arrived.
fn arrived(far: &mut Pipe) -> Vec<u8> {
    let mut all = Vec::new();
    let mut bytes = [0; 256];
    let mut cx = Context::from_waker(std::task::Waker::noop());
    while let Poll::Ready(Ok(count @ 1..)) = Pin::new(&mut *far).poll_read(&mut cx, &mut bytes) {
        all.extend(&bytes[..count]);
    }
    all
}

/// Sends an answer.
async fn answer(far: &mut Pipe, bytes: &[u8]) {
    far.write_all(bytes).await.unwrap();
}

/// Counts how often it is woken.
#[derive(Debug, Default)]
struct Woken(AtomicUsize);

impl Woken {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
