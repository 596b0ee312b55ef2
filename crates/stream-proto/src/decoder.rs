//! The receive buffer: bytes in, frames out, no IO.

use std::{mem, ops::Range};

use bytes::{Buf, Bytes, BytesMut};
use calimero_network_primitives::limits::{FRAME_PREFIX_BYTES, KIB};

use crate::{codec::FrameCodec, config::FrameConfig, error::FrameError};

/// Size a receive buffer starts with, in bytes: one page. Thousands of streams that say nothing
/// cost a page each.
pub(crate) const FIRST_BUFFER_BYTES: usize = 4 * KIB;

/// Largest buffer kept while nothing is received, in bytes: what Yamux grants a stream unasked.
const IDLE_BUFFER_BYTES: usize = 256 * KIB;

/// A read that left the buffer emptier than one part in this many is copied out instead of
/// lending the buffer, so that a small frame which somebody keeps does not keep a large buffer.
const SPARSE: usize = 8;

/// Cuts a stream of bytes into frames, holding the buffer they arrive in.
///
/// The driver calls [`next_frame`](Self::next_frame) until it yields `None`, reads into
/// [`space`](Self::space), says how much arrived with [`arrived`](Self::arrived), and starts
/// again; at the end of the stream it asks [`end`](Self::end).
///
/// Frames are slices of the buffer. The buffer is initialised once and used again as soon as the
/// frames cut from it are dropped; where they are kept, another one takes its place. It doubles
/// with the bytes that arrive, up to the end of the frame at hand, and starts larger only where
/// the stream has already delivered a frame of that size: a claim alone allocates nothing.
///
/// ```
/// use calimero_network_stream::{FrameConfig, FrameDecoder};
///
/// let mut decoder = FrameDecoder::new(FrameConfig::default());
/// let wire = b"\0\0\0\x02hi\0\0\0\x05wor";
/// decoder.space()[..wire.len()].copy_from_slice(wire);
/// decoder.arrived(wire.len());
/// assert_eq!(decoder.next_frame()?.as_deref(), Some(&b"hi"[..]));
/// assert_eq!(decoder.next_frame()?, None);
/// assert!(decoder.end().is_err(), "two bytes of the second frame are missing");
/// # Ok::<_, calimero_network_stream::FrameError>(())
/// ```
#[derive(Debug)]
pub struct FrameDecoder {
    codec: FrameCodec,
    /// Most bytes asked for where no single frame needs more.
    read_buffer: usize,
    /// Where bytes arrive. All of it is initialised, the first `filled` bytes have arrived.
    buffer: BytesMut,
    filled: usize,
    /// Whole frames, prefixes included, not yet handed out.
    ready: Bytes,
    /// The buffer that `ready` was cut from, while it is lent.
    lent: Option<Lent>,
    /// Size of the buffer where no frame asks for more. Doubles when a read fills it.
    usual: usize,
    /// Size on the wire of the last frame above `read_buffer` that arrived whole, while no batch of
    /// smaller ones followed.
    proven: usize,
}

#[derive(Debug)]
struct Lent {
    whole: Bytes,
    /// Bytes behind the last whole frame, which belong to the next buffer.
    rest: Range<usize>,
}

impl FrameDecoder {
    /// An empty decoder.
    #[must_use]
    pub fn new(config: FrameConfig) -> Self {
        let read_buffer = config.read_buffer.max(FRAME_PREFIX_BYTES);
        Self {
            codec: FrameCodec::new(config.max_payload),
            read_buffer,
            buffer: BytesMut::new(),
            filled: 0,
            ready: Bytes::new(),
            lent: None,
            usual: FIRST_BUFFER_BYTES.min(read_buffer),
            proven: 0,
        }
    }

    /// The next whole frame; `None` if more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLarge`] once the frames before the claim are handed out, and from then on.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        if self.ready.is_empty() {
            if let Some(lent) = &self.lent {
                // No whole frame is in the rest, but a refused claim may be.
                self.codec.claim(&lent.whole[lent.rest.clone()])?;
                return Ok(None);
            }
            self.stage()?;
        }
        Ok(self.pop())
    }

    /// Where the next bytes belong. Never empty.
    pub fn space(&mut self) -> &mut [u8] {
        self.space_within(usize::MAX)
    }

    /// [`space`](Self::space) in a buffer of at most `limit` bytes, or of [`needed`](Self::needed)
    /// bytes if that is more.
    pub fn space_within(&mut self, limit: usize) -> &mut [u8] {
        let limit = limit.max(self.needed());
        self.take_back(limit);
        let frame = self.frame_at_hand();
        if self.filled == self.buffer.len() || self.buffer.len() < self.usual.min(limit) {
            self.grow(frame, limit);
        }
        // A frame of its own buffer ends with it: what follows starts at the front of the next.
        let end = if frame > self.read_buffer && frame > self.filled {
            frame.min(self.buffer.len())
        } else {
            self.buffer.len()
        };
        &mut self.buffer[self.filled..end]
    }

    /// Says that the first `n` bytes of the [`space`](Self::space) have been filled.
    pub fn arrived(&mut self, n: usize) {
        self.filled = (self.filled + n).min(self.buffer.len());
        if self.filled == self.buffer.len() {
            self.usual = self.usual.saturating_mul(2).min(self.read_buffer);
        }
    }

    /// What an end of the stream means now.
    ///
    /// # Errors
    ///
    /// [`FrameError::Cut`] inside a frame, with what is missing.
    pub fn end(&self) -> Result<(), FrameError> {
        self.codec.end(self.pending())
    }

    /// Size of the smallest buffer in which the frame at hand can arrive, in bytes: the size of the
    /// frame on the wire, or one page if its length is not known.
    #[must_use]
    pub fn needed(&self) -> usize {
        let page = FIRST_BUFFER_BYTES.min(self.read_buffer);
        self.frame_at_hand().max(self.pending().len() + 1).max(page)
    }

    /// Size of the buffer that the next read would use without a limit, in bytes.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.needed().max(self.usual)
    }

    /// Returns `true` if no byte is buffered: neither a frame nor the beginning of one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.pending().is_empty()
    }

    /// Returns `true` if [`next_frame`](Self::next_frame) needs another read to yield a frame, as
    /// far as that is known.
    pub(crate) fn is_drained(&self) -> bool {
        self.ready.is_empty()
    }

    /// Bytes of the buffer that would be used again. Memory behind them was never touched.
    pub(crate) fn reusable(&self) -> usize {
        let lent = self.lent.as_ref();
        lent.map_or(self.buffer.len(), |lent| lent.whole.len())
    }

    /// Bytes that arrived of the frame at hand.
    pub(crate) fn begun(&self) -> usize {
        self.pending().len()
    }

    /// Drops a buffer of more than `limit` bytes that would be used again. What it holds of the
    /// frame at hand moves to a smaller one.
    pub(crate) fn shed(&mut self, limit: usize) {
        if !self.ready.is_empty() || self.reusable() <= limit {
            return;
        }
        self.buffer = match self.lent.take() {
            Some(Lent { whole, rest }) => {
                self.filled = rest.len();
                BytesMut::from(&whole[rest])
            }
            None => BytesMut::from(&self.buffer[..self.filled]),
        };
        self.usual = self.usual.min(FIRST_BUFFER_BYTES);
    }

    /// Says that nothing is to be read at present: a large empty buffer is given back.
    pub fn idle(&mut self) {
        self.take_back(usize::MAX);
        if self.filled == 0 && self.buffer.capacity() > IDLE_BUFFER_BYTES.max(self.read_buffer) {
            self.buffer = BytesMut::new();
        }
    }

    /// Bytes the buffer takes, used or not, beside those lent to frames that are still held.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.buffer.capacity() + self.lent.as_ref().map_or(0, |lent| lent.whole.len())
    }

    /// Bytes that arrived and belong to no frame handed out: whole frames, then the last one's
    /// beginning.
    #[must_use]
    pub fn into_rest(self) -> Bytes {
        let pending = self.pending();
        if self.ready.is_empty() {
            return Bytes::copy_from_slice(pending);
        }
        [&self.ready[..], pending].concat().into()
    }

    /// Bytes behind the last whole frame that was found.
    fn pending(&self) -> &[u8] {
        match &self.lent {
            Some(lent) => &lent.whole[lent.rest.clone()],
            None => &self.buffer[..self.filled],
        }
    }

    /// Size on the wire of the frame that is arriving; 0 where its length is not known or refused.
    fn frame_at_hand(&self) -> usize {
        match self.codec.claim(self.pending()) {
            Ok(Some(len)) => FRAME_PREFIX_BYTES + len,
            _ => 0,
        }
    }

    /// Makes room for at least one byte: up to the end of a frame of `frame` bytes, as far as
    /// twice what has arrived, or what a frame before it took; at most `limit`.
    fn grow(&mut self, frame: usize, limit: usize) {
        let earned = self.filled.saturating_mul(2).max(self.proven);
        let usual = self.usual.min(limit);
        let goal = frame.min(earned).max(usual).max(self.filled + 1);
        if self.filled == self.buffer.capacity() || self.buffer.capacity() < usual {
            self.buffer.reserve(goal.saturating_sub(self.buffer.len()));
        }
        // Zeroed piece by piece, just before it is written, while it is in the cache.
        let piece = goal
            .min(self.filled + self.read_buffer)
            .min(self.buffer.capacity());
        if piece > self.buffer.len() {
            self.buffer.resize(piece, 0);
        }
    }

    /// Takes back the lent buffer if its frames are dropped, else starts another one with what
    /// lay behind them.
    fn take_back(&mut self, limit: usize) {
        if !self.ready.is_empty() {
            return;
        }
        let Some(Lent { whole, rest }) = self.lent.take() else {
            return;
        };
        self.filled = rest.len();
        // A buffer that served larger frames than come now goes.
        let wanted = self.read_buffer.max(self.proven).saturating_mul(2);
        self.buffer = match whole.try_into_mut() {
            Ok(mut buffer) if buffer.capacity() <= wanted && buffer.len() <= limit => {
                buffer.copy_within(rest, 0);
                buffer
            }
            Ok(buffer) => BytesMut::from(&buffer[rest]),
            Err(whole) => self.fresh(&whole[rest], limit),
        };
    }

    /// A buffer as large as is usual here that begins with `rest`.
    fn fresh(&self, rest: &[u8], limit: usize) -> BytesMut {
        let mut buffer = BytesMut::with_capacity(self.usual.min(limit).max(rest.len()));
        buffer.extend_from_slice(rest);
        buffer
    }

    /// Finds the whole frames in the buffer and makes them ready.
    fn stage(&mut self) -> Result<(), FrameError> {
        let mut end = 0;
        let mut largest = 0;
        let arrived = &self.buffer[..self.filled];
        loop {
            match self.codec.claim(&arrived[end..]) {
                Ok(Some(len)) if arrived.len() - end - FRAME_PREFIX_BYTES >= len => {
                    end += FRAME_PREFIX_BYTES + len;
                    largest = largest.max(FRAME_PREFIX_BYTES + len);
                }
                Err(error) if end == 0 => return Err(error),
                _ => break,
            }
        }
        if end == 0 {
            return Ok(());
        }
        self.proven = if largest > self.read_buffer {
            largest
        } else {
            0
        };
        let rest = end..self.filled;
        if self.filled.saturating_mul(SPARSE) <= self.buffer.capacity() {
            self.ready = Bytes::copy_from_slice(&self.buffer[..end]);
            self.filled = rest.len();
            self.buffer.copy_within(rest, 0);
        } else {
            self.filled = 0;
            let whole = mem::take(&mut self.buffer).freeze();
            self.ready = whole.slice(..end);
            self.lent = Some(Lent { whole, rest });
        }
        Ok(())
    }

    /// Takes the first of the ready frames.
    fn pop(&mut self) -> Option<Bytes> {
        let len = self.codec.claim(&self.ready).ok().flatten()?;
        self.ready.advance(FRAME_PREFIX_BYTES);
        let frame = match len {
            // An empty slice would still hold the buffer.
            0 => Bytes::new(),
            _ => self.ready.split_to(len.min(self.ready.len())),
        };
        if self.ready.is_empty() {
            self.ready = Bytes::new();
        }
        Some(frame)
    }
}
