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

    /// Whether a frame that begins with this byte holds content or hashes of a blob.
    fn is_content(kind: u8) -> bool;

    fn read(frame: &Bytes) -> Result<Self, MessageError>;
}

impl Message for Response {
    const MAX_BYTES: usize = MAX_RESPONSE_BYTES;

    fn is_content(kind: u8) -> bool {
        Self::is_content(kind)
    }

    fn read(frame: &Bytes) -> Result<Self, MessageError> {
        Self::decode(frame)
    }
}

impl Message for Request {
    const MAX_BYTES: usize = MAX_REQUEST_BYTES;

    fn is_content(_: u8) -> bool {
        false
    }

    fn read(frame: &Bytes) -> Result<Self, MessageError> {
        Self::decode(frame)
    }
}

/// Counters of what has arrived on a stream, in bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrived {
    /// All of it.
    pub(crate) bytes: Arc<AtomicU64>,
    /// The part of it in frames with content or hashes of a blob. A small frame counts when it is
    /// complete, a large one as it arrives.
    pub(crate) content: Arc<AtomicU64>,
}

impl Arrived {
    /// Returns counters for a protocol in which all that arrives is content.
    pub(crate) fn of_content() -> Self {
        let bytes = Arc::<AtomicU64>::default();
        Self {
            content: Arc::clone(&bytes),
            bytes,
        }
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
    arrived: Arrived,
    ended: bool,
    message: PhantomData<fn() -> M>,
}

impl<R: AsyncRead + Unpin, M: Message> MessageReader<R, M> {
    pub(crate) fn new(io: R, arrived: Arrived) -> Self {
        Self {
            io,
            head: BytesMut::new(),
            body: None,
            scratch: vec![0; HEAD_BYTES.min(M::MAX_BYTES)].into(),
            kept: Vec::new(),
            arrived,
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
                    let frame = self.head.split_to(len).freeze();
                    self.count_content(frame.first().copied(), len);
                    return Poll::Ready(Ok(Some(frame)));
                }
                if len > HEAD_BYTES {
                    self.head.advance(prefix);
                    let mut body = self.buffer(len);
                    let there = self.head.len();
                    body[..there].copy_from_slice(&self.head);
                    self.head.clear();
                    self.count_content(body[..there].first().copied(), there);
                    self.body = Some((body, there));
                    continue;
                }
            }
            match ready!(poll_read(&mut self.io, cx, &mut self.scratch))? {
                0 if self.head.is_empty() => return Poll::Ready(Ok(None)),
                0 => return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())),
                len => {
                    self.head.extend_from_slice(&self.scratch[..len]);
                    self.arrived.bytes.fetch_add(len as u64, Ordering::Relaxed);
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
                let kind = body.first().copied();
                self.arrived.bytes.fetch_add(len as u64, Ordering::Relaxed);
                self.count_content(kind, len);
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

    /// Counts bytes of a frame of some kind.
    fn count_content(&self, kind: Option<u8>, len: usize) {
        if kind.is_some_and(M::is_content) {
            let content = &self.arrived.content;
            content.fetch_add(len as u64, Ordering::Relaxed);
        }
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
        let (io, gathered) = (&mut self.io, &mut self.gathered);
        // One deadline for all of it: a peer that takes a byte at a time must not renew it.
        within(self.deadline, async {
            // Advanced with each write, so that a dropped call tears no message.
            while !gathered.is_empty() {
                match io.write(gathered).await? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    len => gathered.advance(len),
                }
            }
            Ok(())
        })
        .await
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
    use futures::io::Cursor;
    use tokio::time::{Instant, Sleep, sleep_until};

    use super::*;

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
                MessageReader::<_, Response>::new(Cursor::new(wire), Arrived::default());
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

    /// Takes a byte every 19 seconds.
    struct Trickle(Pin<Box<Sleep>>);

    impl AsyncWrite for Trickle {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            ready!(self.0.as_mut().poll(cx));
            let next = Instant::now() + Duration::from_secs(19);
            self.0.as_mut().reset(next);
            Poll::Ready(Ok(1))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Each byte that a peer takes must not give it the whole deadline again.
    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_for_all_that_is_gathered() {
        let deadline = Duration::from_secs(20);
        let trickle = Trickle(Box::pin(sleep_until(Instant::now())));
        let mut writer = MessageWriter::new(trickle, deadline);
        writer.feed(b"head", &[7; 100]).await.unwrap();
        let begun = Instant::now();
        let error = writer.flush().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed(), deadline);
    }

    /// Reports of chunks, however many, are no content.
    #[tokio::test]
    async fn frames_with_content_are_counted_apart() {
        let small = Response::Chunk {
            index: 3,
            data: Bytes::from(vec![7; 100]),
        };
        let large = Response::Chunk {
            index: 4,
            data: Bytes::from(vec![7; BLOB_CHUNK_BYTES]),
        };
        let ranges = (0..500).map(|index| 2 * index..2 * index + 1).collect();
        let few = Vec::from([5..6, 7..9]);
        let news = [
            Response::Have { ranges },
            Response::Have { ranges: few },
            Response::Absent {
                index: 5,
                retry_after_ms: 1,
            },
        ];
        let mut wire = Vec::new();
        let mut content = 0;
        for response in news.into_iter().chain([small, large]) {
            let (head, payload) = response.parts().unwrap();
            let len = head.len() + payload.len();
            let mut prefix = unsigned_varint::encode::usize_buffer();
            let prefix = unsigned_varint::encode::usize(len, &mut prefix);
            wire.extend([prefix, &head[..], &payload[..]].concat());
            if matches!(response, Response::Chunk { .. }) {
                content += len as u64;
            }
        }
        let (all, arrived) = (wire.len() as u64, Arrived::default());
        let mut reader = MessageReader::<_, Response>::new(Cursor::new(wire), arrived.clone());
        while reader.next().await.unwrap().is_some() {}
        assert_eq!(arrived.content.load(Ordering::Relaxed), content);
        assert_eq!(arrived.bytes.load(Ordering::Relaxed), all);
    }
}
