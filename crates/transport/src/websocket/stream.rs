//! A byte stream in the binary messages of a WebSocket.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};

use super::frames::{
    Decoded, FrameError, Header, MAX_CONTROL_BYTES, MAX_HEADER_BYTES, Opcode, apply_mask, decode,
    encode,
};
use crate::buffer::Buffer;

/// Largest payload of a frame that is sent, in bytes: a Noise message of the largest size with its
/// length.
const MAX_SENT_BYTES: usize = 65_535 + 2;

/// Limit of encoded frames that wait for the socket, in bytes: one frame with data and two control
/// frames.
const SEND_LIMIT: usize = MAX_SENT_BYTES + 3 * MAX_HEADER_BYTES + 2 * MAX_CONTROL_BYTES;

/// Largest number of consecutive frames without data that one poll processes, 32. Then other
/// connections have their turn.
const MAX_EMPTY_FRAMES: usize = 32;

/// The status code of a regular close (RFC 6455, section 7.4.1).
const NORMAL_CLOSE: [u8; 2] = 1000_u16.to_be_bytes();

/// Side of a connection. Clients mask what they send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Client,
    Server,
}

/// State of the receiver.
#[derive(Debug)]
enum State {
    /// The header of the next frame is incomplete.
    Header {
        bytes: [u8; MAX_HEADER_BYTES],
        filled: usize,
    },
    /// A frame with data, of which `left` bytes are missing.
    Data {
        mask: Option<[u8; 4]>,
        left: u64,
        read: u64,
    },
    /// A control frame, of which the first `filled` bytes are known.
    Control {
        header: Header,
        payload: [u8; MAX_CONTROL_BYTES],
        filled: usize,
    },
    /// The remote has closed the connection.
    Closed,
}

impl State {
    const START: Self = Self::Header {
        bytes: [0; MAX_HEADER_BYTES],
        filled: 0,
    };
}

/// The payload of the frames of `S`.
///
/// Received bytes are returned as they arrive, before their frame is complete. A claimed length
/// therefore allocates nothing, and a frame may have any length. Each write is one frame.
#[derive(Debug)]
pub(crate) struct WebSocket<S> {
    io: S,
    role: Role,
    state: State,
    /// Whether a message has begun that more frames continue.
    in_message: bool,
    to_send: Buffer,
    /// Whether a close frame was sent. No frame follows it.
    closing: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Creates the stream of a connection after its opening handshake.
    pub(super) fn new(io: S, role: Role) -> Self {
        Self {
            io,
            role,
            state: State::START,
            in_message: false,
            to_send: Buffer::new(SEND_LIMIT),
            closing: false,
        }
    }

    /// Checks a header and starts to receive the payload.
    fn begin(&mut self, header: Header) -> Result<(), FrameError> {
        if header.mask.is_some() != (self.role == Role::Server) {
            return Err(FrameError::Mask);
        }
        match header.opcode {
            Opcode::Binary | Opcode::Continuation => {
                if self.in_message != (header.opcode == Opcode::Continuation) {
                    return Err(FrameError::Fragment);
                }
                self.in_message = !header.fin;
                self.state = State::Data {
                    mask: header.mask,
                    left: header.length,
                    read: 0,
                };
            }
            Opcode::Close | Opcode::Ping | Opcode::Pong => {
                self.state = State::Control {
                    header,
                    payload: [0; MAX_CONTROL_BYTES],
                    filled: 0,
                };
            }
        }
        Ok(())
    }

    /// Acts on a complete control frame.
    fn on_control(&mut self, opcode: Opcode, payload: &[u8]) {
        self.state = State::START;
        match opcode {
            // Without space for the answer the ping is ignored: the remote does not read.
            Opcode::Ping if !self.closing => self.queue(Opcode::Pong, payload),
            Opcode::Close => {
                self.state = State::Closed;
                self.queue_close(payload.first_chunk().unwrap_or(&NORMAL_CLOSE));
            }
            _ => {}
        }
    }

    fn queue_close(&mut self, code: &[u8; 2]) {
        if !self.closing {
            self.queue(Opcode::Close, code);
            self.closing = true;
        }
    }

    /// Appends a frame to the bytes to send, if it fits.
    fn queue(&mut self, opcode: Opcode, payload: &[u8]) {
        let mask = (self.role == Role::Client).then(rand::random::<[u8; 4]>);
        let (header, header_len) = encode(opcode, payload.len(), mask);
        let len = header_len + payload.len();
        if len > self.to_send.space() {
            return;
        }
        let space = self.to_send.spare(len);
        space[..header_len].copy_from_slice(&header[..header_len]);
        let sent = &mut space[header_len..len];
        sent.copy_from_slice(payload);
        if let Some(mask) = mask {
            apply_mask(sent, mask, 0);
        }
        self.to_send.fill(len);
    }

    /// Writes all queued frames.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.to_send.is_empty() {
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, self.to_send.filled()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.to_send.consume(count);
            self.to_send.used(count);
        }
        Poll::Ready(Ok(()))
    }

    /// Makes one step of the receiver. Returns the number of bytes of data in `out`, or `None` if
    /// the step returned no data.
    fn poll_step(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<Option<usize>>> {
        match &mut self.state {
            State::Closed => return Poll::Ready(Ok(Some(0))),
            State::Header { bytes, filled } => match decode(&bytes[..*filled]).map_err(invalid)? {
                Decoded::Need(needed) => {
                    let space = &mut bytes[*filled..needed];
                    let count = ready!(Pin::new(&mut self.io).poll_read(cx, space))?;
                    match (count, *filled) {
                        (0, 0) => self.state = State::Closed,
                        (0, _) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                        _ => *filled += count,
                    }
                }
                Decoded::Header(header) => self.begin(header).map_err(invalid)?,
            },
            State::Data { left: 0, .. } => self.state = State::START,
            State::Data { mask, left, read } => {
                let space = out.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                let out = &mut out[..space];
                let count = ready!(Pin::new(&mut self.io).poll_read(cx, out))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                if let Some(mask) = *mask {
                    apply_mask(&mut out[..count], mask, *read);
                }
                *read += count as u64;
                *left -= count as u64;
                return Poll::Ready(Ok(Some(count)));
            }
            State::Control {
                header,
                payload,
                filled,
            } => {
                let length = usize::try_from(header.length).unwrap_or(MAX_CONTROL_BYTES);
                if *filled < length {
                    let space = &mut payload[*filled..length];
                    let count = ready!(Pin::new(&mut self.io).poll_read(cx, space))?;
                    if count == 0 {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                    *filled += count;
                } else {
                    let (opcode, mut payload) = (header.opcode, *payload);
                    let payload = &mut payload[..length];
                    if let Some(mask) = header.mask {
                        apply_mask(payload, mask, 0);
                    }
                    self.on_control(opcode, payload);
                    // The answer is sent now as far as the socket accepts it, else with the next
                    // write. One task polls both directions, so its waker is registered.
                    if self.poll_send(cx)?.is_ready() {
                        let _ = Pin::new(&mut self.io).poll_flush(cx)?;
                    }
                }
            }
        }
        Poll::Ready(Ok(None))
    }

    fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Header { filled: 0, .. })
    }
}

fn invalid(error: FrameError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if out.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut empty = 0;
        while empty < MAX_EMPTY_FRAMES {
            if let Some(count) = ready!(this.poll_step(cx, out))? {
                return Poll::Ready(Ok(count));
            }
            empty += usize::from(this.is_between_frames());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(this.poll_send(cx))?;
        if this.closing {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = data.len().min(MAX_SENT_BYTES);
        this.queue(Opcode::Binary, &data[..count]);
        // The frame is queued in any case. What the socket does not accept now is sent by a later
        // call.
        let _ = this.poll_send(cx)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        this.queue_close(&NORMAL_CLOSE);
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_close(cx)
    }
}
