//! The receive buffer: converts bytes to frames without IO.

use std::{mem, ops::Range};

use bytes::{Buf, Bytes, BytesMut};
use calimero_network_primitives::limits::{FRAME_PREFIX_BYTES, KIB};

use crate::{codec::FrameCodec, config::FrameConfig, error::FrameError};

/// Initial size of a receive buffer, in bytes: one page, so that an idle stream
/// costs at most one page.
pub(crate) const FIRST_BUFFER_BYTES: usize = 4 * KIB;

/// Largest buffer that an idle receiver retains, in bytes. Yamux grants a
/// stream the same initial window.
const IDLE_BUFFER_BYTES: usize = 256 * KIB;

/// Inverse of the fill ratio below which a read is copied out of the buffer.
/// The copy prevents a small frame that the caller retains from keeping a large
/// buffer allocated.
const SPARSE: usize = 8;

/// Splits a stream of bytes into frames and owns the receive buffer.
///
/// The caller calls [`next_frame`](Self::next_frame) until it returns `None`,
/// reads into [`space`](Self::space), reports the number of bytes with
/// [`arrived`](Self::arrived), and starts again. At the end of the stream it
/// calls [`end`](Self::end).
///
/// Frames are slices of the buffer. The decoder initialises the buffer once and
/// reuses it when all frames cut from it are dropped. If they are still alive,
/// it allocates a new one. The buffer doubles as bytes arrive, up to the end of
/// the current frame. It starts larger only if the stream has already delivered
/// a frame of that size, so a claimed length alone allocates nothing.
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
    /// Largest read, in bytes, unless a single frame needs more.
    read_buffer: usize,
    /// Receive buffer. All of it is initialised, and the first `filled` bytes
    /// have arrived.
    buffer: BytesMut,
    filled: usize,
    /// Complete frames with their prefixes that were not yet returned.
    ready: Bytes,
    /// The buffer that `ready` was cut from, until it is reclaimed.
    lent: Option<Lent>,
    /// Size of the buffer when no frame needs more. Doubles when a read fills
    /// it.
    usual: usize,
    /// Size on the wire of the last complete frame above `read_buffer`. Reset
    /// to 0 by a batch of smaller frames.
    proven: usize,
}

#[derive(Debug)]
struct Lent {
    whole: Bytes,
    /// Bytes after the last complete frame. They move to the next buffer.
    rest: Range<usize>,
}

impl FrameDecoder {
    /// Creates a decoder with an empty buffer.
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

    /// Returns the next complete frame, or `None` if more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLarge`] after all frames before the refused claim were
    /// returned, and on every later call.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        if self.ready.is_empty() {
            if let Some(lent) = &self.lent {
                // The rest contains no complete frame, but it may contain a
                // refused claim.
                self.codec.claim(&lent.whole[lent.rest.clone()])?;
                return Ok(None);
            }
            self.stage()?;
        }
        Ok(self.pop())
    }

    /// Returns the part of the buffer for the next bytes. It is never empty.
    pub fn space(&mut self) -> &mut [u8] {
        self.space_within(usize::MAX)
    }

    /// Same as [`space`](Self::space) in a buffer of at most `limit` bytes, or
    /// of [`needed`](Self::needed) bytes if that is more.
    pub fn space_within(&mut self, limit: usize) -> &mut [u8] {
        let limit = limit.max(self.needed());
        self.take_back(limit);
        let frame = self.frame_at_hand();
        if self.filled == self.buffer.len() || self.buffer.len() < self.usual.min(limit) {
            self.grow(frame, limit);
        }
        // A frame above `read_buffer` ends its buffer, so that the next frame
        // starts at offset 0 of a new buffer and needs no copy.
        let end = if frame > self.read_buffer && frame > self.filled {
            frame.min(self.buffer.len())
        } else {
            self.buffer.len()
        };
        &mut self.buffer[self.filled..end]
    }

    /// Reports that the first `n` bytes of [`space`](Self::space) were filled.
    pub fn arrived(&mut self, n: usize) {
        self.filled = (self.filled + n).min(self.buffer.len());
        if self.filled == self.buffer.len() {
            self.usual = self.usual.saturating_mul(2).min(self.read_buffer);
        }
    }

    /// Checks whether the stream may end at the current position.
    ///
    /// # Errors
    ///
    /// [`FrameError::Cut`] inside a frame, with the number of missing bytes.
    pub fn end(&self) -> Result<(), FrameError> {
        self.codec.end(self.pending())
    }

    /// Returns the size of the smallest buffer in which the current frame can
    /// arrive, in bytes: the size of the frame on the wire, or one page if its
    /// length is not known.
    #[must_use]
    pub fn needed(&self) -> usize {
        let page = FIRST_BUFFER_BYTES.min(self.read_buffer);
        self.frame_at_hand().max(self.pending().len() + 1).max(page)
    }

    /// Returns the size of the buffer that the next read would use without a
    /// limit, in bytes.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.needed().max(self.usual)
    }

    /// Returns `true` if no byte is buffered, neither of a complete nor of an
    /// incomplete frame.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.pending().is_empty()
    }

    /// Returns `true` if all complete frames found so far were returned.
    pub(crate) fn is_drained(&self) -> bool {
        self.ready.is_empty()
    }

    /// Returns the size of the buffer that can be reused. Memory after it was
    /// never touched.
    pub(crate) fn reusable(&self) -> usize {
        let lent = self.lent.as_ref();
        lent.map_or(self.buffer.len(), |lent| lent.whole.len())
    }

    /// Returns how many bytes of the current frame have arrived.
    pub(crate) fn begun(&self) -> usize {
        self.pending().len()
    }

    /// Drops the reusable buffer if it is larger than `limit` bytes. Received
    /// bytes of the current frame move to a smaller buffer.
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

    /// Reports that no data is available. The decoder drops a large empty
    /// buffer.
    pub fn idle(&mut self) {
        self.take_back(usize::MAX);
        if self.filled == 0 && self.buffer.capacity() > IDLE_BUFFER_BYTES.max(self.read_buffer) {
            self.buffer = BytesMut::new();
        }
    }

    /// Returns the size of the buffer, in bytes, without buffers that earlier
    /// frames keep allocated.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.buffer.capacity() + self.lent.as_ref().map_or(0, |lent| lent.whole.len())
    }

    /// Returns the received bytes that belong to no returned frame: complete
    /// frames first, then the start of the last one.
    #[must_use]
    pub fn into_rest(self) -> Bytes {
        let pending = self.pending();
        if self.ready.is_empty() {
            return Bytes::copy_from_slice(pending);
        }
        [&self.ready[..], pending].concat().into()
    }

    /// Returns the bytes after the last complete frame.
    fn pending(&self) -> &[u8] {
        match &self.lent {
            Some(lent) => &lent.whole[lent.rest.clone()],
            None => &self.buffer[..self.filled],
        }
    }

    /// Returns the size on the wire of the current frame, or 0 if its length is
    /// unknown or refused.
    fn frame_at_hand(&self) -> usize {
        match self.codec.claim(self.pending()) {
            Ok(Some(len)) => FRAME_PREFIX_BYTES + len,
            _ => 0,
        }
    }

    /// Extends the buffer by at least one byte. The new size is `frame`, but at
    /// most twice the received bytes or the size of the last large frame. It is
    /// at least the usual size as far as `limit` allows.
    fn grow(&mut self, frame: usize, limit: usize) {
        let earned = self.filled.saturating_mul(2).max(self.proven);
        let usual = self.usual.min(limit);
        let goal = frame.min(earned).max(usual).max(self.filled + 1);
        if self.filled == self.buffer.capacity() || self.buffer.capacity() < usual {
            self.buffer.reserve(goal.saturating_sub(self.buffer.len()));
        }
        // The buffer is zeroed in pieces directly before each read, while the
        // piece is in the cache.
        let piece = goal
            .min(self.filled + self.read_buffer)
            .min(self.buffer.capacity());
        if piece > self.buffer.len() {
            self.buffer.resize(piece, 0);
        }
    }

    /// Reclaims the lent buffer if its frames were dropped. Otherwise starts a
    /// new one with the bytes that followed them.
    fn take_back(&mut self, limit: usize) {
        if !self.ready.is_empty() {
            return;
        }
        let Some(Lent { whole, rest }) = self.lent.take() else {
            return;
        };
        self.filled = rest.len();
        // A buffer that served larger frames than the current ones is dropped.
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

    /// Allocates a buffer of the usual size that starts with `rest`.
    fn fresh(&self, rest: &[u8], limit: usize) -> BytesMut {
        let mut buffer = BytesMut::with_capacity(self.usual.min(limit).max(rest.len()));
        buffer.extend_from_slice(rest);
        buffer
    }

    /// Finds the complete frames in the buffer and moves them to `ready`.
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

    /// Removes and returns the first frame of `ready`.
    fn pop(&mut self) -> Option<Bytes> {
        let len = self.codec.claim(&self.ready).ok().flatten()?;
        self.ready.advance(FRAME_PREFIX_BYTES);
        let frame = match len {
            // An empty slice would keep the buffer allocated.
            0 => Bytes::new(),
            _ => self.ready.split_to(len.min(self.ready.len())),
        };
        if self.ready.is_empty() {
            self.ready = Bytes::new();
        }
        Some(frame)
    }
}
