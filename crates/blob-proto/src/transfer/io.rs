//! Messages of 1.0.0 over a byte stream, with as few copies as the carrier allows.

use std::{
    future::poll_fn,
    io,
    marker::PhantomData,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;
use futures::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::{
    id::DISK_ALIGN_BYTES,
    v1::{
        CodecError, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, MessageError, Request, Response,
        frame_len,
    },
};

/// Bytes read at one time where no frame at hand asks for more: 16 KiB, one record of TLS.
const HEAD_BYTES: usize = 16 * 1024;

/// Buffers of large frames that are kept to be filled again: 2, so that a stream which waits
/// holds 2 MiB at most.
const KEPT_BUFFERS: usize = 2;

/// Payload that is gathered with what precedes it: one record of TLS.
const GATHERED_BYTES: usize = 16 * 1024;

/// What is written between two looks at the deadline: what a requester has to take in time.
const PIECE_BYTES: usize = 64 * 1024;

/// A kind of message that can be read from its frame.
pub(crate) trait Message: Sized {
    /// Longest frame, in bytes.
    const MAX_BYTES: usize;

    fn read(frame: &Bytes) -> Result<Self, MessageError>;
}

impl Message for Response {
    const MAX_BYTES: usize = MAX_RESPONSE_BYTES;

    fn read(frame: &Bytes) -> Result<Self, MessageError> {
        Self::decode(frame)
    }
}

impl Message for Request {
    const MAX_BYTES: usize = MAX_REQUEST_BYTES;

    fn read(frame: &Bytes) -> Result<Self, MessageError> {
        Self::decode(frame)
    }
}

/// Reads messages. A large frame is read into a buffer of its own, up to its end, so that it is
/// not copied; the buffer is filled again once the message is dropped.
///
/// Such a buffer has the length that the frame claims, at most one chunk: who reads responses
/// has asked for them, and requests are never that large.
pub(crate) struct MessageReader<R, M> {
    io: R,
    /// What has arrived of small frames, or of the beginning of a large one.
    head: BytesMut,
    /// The large frame that is arriving, all of it initialised, and how much of it is there.
    body: Option<(BytesMut, usize)>,
    scratch: Box<[u8]>,
    kept: Vec<Bytes>,
    /// Bytes that have arrived.
    received: Arc<AtomicU64>,
    ended: bool,
    message: PhantomData<fn() -> M>,
}

impl<R: AsyncRead + Unpin, M: Message> MessageReader<R, M> {
    pub(crate) fn new(io: R, received: Arc<AtomicU64>) -> Self {
        Self {
            io,
            head: BytesMut::new(),
            body: None,
            scratch: vec![0; HEAD_BYTES.min(M::MAX_BYTES)].into(),
            kept: Vec::new(),
            received,
            ended: false,
            message: PhantomData,
        }
    }

    /// The next message; `None` after a clean end. A dropped call loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<M>, CodecError> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<M>, CodecError>> {
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        let message = ready!(self.poll_frame(cx)).and_then(|frame| {
            let message = frame.map(|frame| M::read(&frame)).transpose();
            message.map_err(CodecError::from)
        });
        self.ended = !matches!(message, Ok(Some(_)));
        Poll::Ready(message)
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, CodecError>> {
        loop {
            if self.body.is_some() {
                return self.poll_body(cx).map(|frame| frame.map(Some));
            }
            if let Some((prefix, len)) = frame_len(&self.head, M::MAX_BYTES)? {
                if self.head.len() >= prefix + len {
                    self.head.advance(prefix);
                    return Poll::Ready(Ok(Some(self.head.split_to(len).freeze())));
                }
                if len > HEAD_BYTES {
                    self.head.advance(prefix);
                    let mut body = self.buffer(len);
                    let there = self.head.len();
                    body[..there].copy_from_slice(&self.head);
                    self.head.clear();
                    self.body = Some((body, there));
                    continue;
                }
            }
            match ready!(poll_read(&mut self.io, cx, &mut self.scratch))? {
                0 if self.head.is_empty() => return Poll::Ready(Ok(None)),
                0 => return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())),
                len => {
                    self.head.extend_from_slice(&self.scratch[..len]);
                    self.received.fetch_add(len as u64, Ordering::Relaxed);
                }
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, CodecError>> {
        while let Some((body, there)) = &mut self.body {
            if *there < body.len() {
                let len = ready!(poll_read(&mut self.io, cx, &mut body[*there..]))?;
                if len == 0 {
                    let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Poll::Ready(Err(error.into()));
                }
                *there += len;
                self.received.fetch_add(len as u64, Ordering::Relaxed);
                continue;
            }
            if let Some((body, _)) = self.body.take() {
                let frame = body.freeze();
                if self.kept.len() < KEPT_BUFFERS {
                    self.kept.push(frame.clone());
                }
                return Poll::Ready(Ok(frame));
            }
        }
        Poll::Pending
    }

    /// Returns an initialised buffer: a kept one that is not in use any more, or a new one.
    fn buffer(&mut self, len: usize) -> BytesMut {
        let free = self.kept.iter().position(Bytes::is_unique);
        let kept = free.map(|at| self.kept.swap_remove(at));
        match kept.and_then(|kept| kept.try_into_mut().ok()) {
            Some(mut buffer) => {
                buffer.resize(len, 0);
                buffer
            }
            None => aligned(len),
        }
    }
}

/// A buffer for a frame, placed so that a whole chunk at its end is aligned as a disk takes it
/// without a copy.
fn aligned(len: usize) -> BytesMut {
    let mut buffer = BytesMut::with_capacity(len + DISK_ALIGN_BYTES);
    let before = len.saturating_sub(BLOB_CHUNK_BYTES);
    let chunk = buffer.as_ptr().wrapping_add(before);
    let skipped = chunk.align_offset(DISK_ALIGN_BYTES).min(DISK_ALIGN_BYTES);
    buffer.resize(skipped + len, 0);
    buffer.advance(skipped);
    buffer
}

fn poll_read(
    io: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    to: &mut [u8],
) -> Poll<io::Result<usize>> {
    loop {
        match ready!(Pin::new(&mut *io).poll_read(cx, to)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return Poll::Ready(read),
        }
    }
}

/// Writes messages, each piece of them within a deadline.
pub(crate) struct MessageWriter<W> {
    io: W,
    gathered: BytesMut,
    deadline: Duration,
}

impl<W: AsyncWrite + Unpin> MessageWriter<W> {
    /// `deadline` is for each 64 KiB.
    pub(crate) fn new(io: W, deadline: Duration) -> Self {
        Self {
            io,
            gathered: BytesMut::new(),
            deadline,
        }
    }

    /// Adds a request to the buffer.
    pub(crate) fn feed_request(&mut self, request: &Request) -> Result<(), MessageError> {
        let mut message = BytesMut::new();
        request.encode(&mut message)?;
        self.put_len(message.len());
        self.gathered.extend_from_slice(&message);
        Ok(())
    }

    /// Sends a response, or gathers it where it is small.
    pub(crate) async fn feed_response(&mut self, response: &Response) -> Result<(), CodecError> {
        let (head, payload) = response.parts()?;
        self.put_len(head.len() + payload.len());
        Ok(self.feed(&head, &payload).await?)
    }

    /// Sends bytes, or gathers them where they are few.
    pub(crate) async fn feed(&mut self, head: &[u8], payload: &[u8]) -> io::Result<()> {
        self.gathered.extend_from_slice(head);
        let (first, rest) = payload.split_at(payload.len().min(GATHERED_BYTES));
        self.gathered.extend_from_slice(first);
        if !rest.is_empty() || self.gathered.len() >= PIECE_BYTES {
            self.write_gathered().await?;
            for piece in rest.chunks(PIECE_BYTES) {
                within(self.deadline, self.io.write_all(piece)).await?;
            }
        }
        Ok(())
    }

    /// Whether something is gathered and not written.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.gathered.is_empty()
    }

    /// Writes what is gathered and hands it to the carrier.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        self.write_gathered().await?;
        within(self.deadline, self.io.flush()).await
    }

    pub(crate) async fn close(&mut self) -> io::Result<()> {
        self.write_gathered().await?;
        within(self.deadline, self.io.close()).await
    }

    async fn write_gathered(&mut self) -> io::Result<()> {
        // Advanced with each write, so that a dropped call tears no message.
        while !self.gathered.is_empty() {
            match within(self.deadline, self.io.write(&self.gathered)).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                len => self.gathered.advance(len),
            }
        }
        Ok(())
    }

    fn put_len(&mut self, len: usize) {
        let mut prefix = unsigned_varint::encode::usize_buffer();
        let prefix = unsigned_varint::encode::usize(len, &mut prefix);
        self.gathered.extend_from_slice(prefix);
    }
}

async fn within<T>(deadline: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(deadline, work).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// A stream that counts what it reads.
pub(crate) struct Counted<S> {
    io: S,
    received: Arc<AtomicU64>,
}

impl<S> Counted<S> {
    pub(crate) fn new(io: S, received: Arc<AtomicU64>) -> Self {
        Self { io, received }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let len = ready!(Pin::new(&mut self.io).poll_read(cx, to))?;
        self.received.fetch_add(len as u64, Ordering::Relaxed);
        Poll::Ready(Ok(len))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Buf, Bytes};
    use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;
    use futures::io::Cursor;

    use super::{DISK_ALIGN_BYTES, MessageReader, Response};

    /// The second frame fills the buffer of the first one again, of the same message's length.
    #[tokio::test]
    async fn whole_chunks_are_aligned() {
        for index in [0, 200, 20_000] {
            let data = Bytes::from(vec![7; BLOB_CHUNK_BYTES]);
            let (head, payload) = Response::Chunk { index, data }.parts().unwrap();
            let mut prefix = unsigned_varint::encode::usize_buffer();
            let len = head.len() + payload.len();
            let prefix = unsigned_varint::encode::usize(len, &mut prefix);
            let wire = [prefix, &head[..], &payload[..]].concat().repeat(2);
            let mut reader =
                MessageReader::<_, Response>::new(Cursor::new(wire), Default::default());
            for _ in 0..2 {
                let message = reader.next().await.unwrap().unwrap();
                let Response::Chunk { data, .. } = message else {
                    panic!("{message:?}")
                };
                assert_eq!(data.chunk().as_ptr().align_offset(DISK_ALIGN_BYTES), 0);
                assert_eq!(data.len(), BLOB_CHUNK_BYTES);
            }
        }
    }
}
