//! An inbound stream: bytes to RPCs.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use calimero_network_primitives::{
    PeerId,
    resources::{Acquire, Contention, Holder, Permit, Resource},
};
use futures::{AsyncRead, FutureExt};
use futures_timer::Delay;

use super::now;
use crate::{
    machine::Received,
    rpc::{Message, Rpc, RpcError, next_frame, next_length},
    validate::Validator,
};

/// Bytes read from a stream or written to it at one time: four TLS records. A longer RPC needs a permit
/// for its memory.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;

/// RPCs and bytes of them that are handed over at one time, at most.
const MAX_RPCS: usize = 64;
const MAX_BATCH_BYTES: usize = 256 * 1024;

/// Time for an RPC to arrive.
#[derive(Clone, Copy)]
struct Allowance {
    /// Of every RPC.
    time: Duration,
    /// Further time: what it needs at this rate.
    bytes_per_s: u32,
}

/// 60 s, a guess: an RPC is written as a whole. And 4 KiB/s as for frames of streams: a link of
/// 56 kbit/s reaches it.
const ALONE: Allowance = Allowance {
    time: Duration::from_secs(60),
    bytes_per_s: 4 * 1024,
};

/// While other peers wait for the memory: 10 s and 256 KiB/s, as for frames of streams. Peers cannot
/// hold all memory by sending slowly.
const CONTENDED: Allowance = Allowance {
    time: Duration::from_secs(10),
    bytes_per_s: 256 * 1024,
};

/// Time between two checks of whether an RPC has had its time.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// An inbound stream. What has arrived of an RPC is all that it holds.
pub(super) struct Inbound<S> {
    stream: S,
    arrived: BytesMut,
    space: Box<[u8]>,
    memory: Memory,
}

impl<S: AsyncRead + Unpin> Inbound<S> {
    pub(super) fn new(stream: S, holder: Holder) -> Self {
        Self {
            stream,
            arrived: BytesMut::new(),
            space: vec![0; CHUNK_BYTES].into_boxed_slice(),
            memory: Memory {
                holder,
                claim: Claim::None,
                since: None,
                timer: None,
            },
        }
    }

    /// The next RPCs, and an error if the stream has ended behind them.
    pub(super) fn poll(
        &mut self,
        reader: &Reader,
        cx: &mut Context<'_>,
    ) -> Poll<(Vec<Received>, io::Result<()>)> {
        let (mut rpcs, mut bytes) = (Vec::new(), 0);
        let end = loop {
            match next_frame(&mut self.arrived, reader.max_rpc_bytes) {
                Ok(Some(frame)) => {
                    self.memory.release();
                    bytes += frame.len();
                    match reader.read(frame) {
                        Ok(rpc) => rpcs.push(rpc),
                        Err(error) => break Err(malformed(error)),
                    }
                    if rpcs.len() >= MAX_RPCS || bytes >= MAX_BATCH_BYTES {
                        return Poll::Ready((rpcs, Ok(())));
                    }
                }
                Ok(None) => match self.poll_read(reader.max_rpc_bytes, cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => break Err(error),
                    Poll::Pending if rpcs.is_empty() => return Poll::Pending,
                    Poll::Pending => break Ok(()),
                },
                Err(error) => break Err(malformed(error)),
            }
        };
        Poll::Ready((rpcs, end))
    }

    /// Reads more of an RPC, once there is memory for all of it.
    fn poll_read(&mut self, limit: usize, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let length = next_length(&self.arrived, limit).map_err(malformed)?;
        let total = length.map_or(0, |(prefix, claimed)| prefix + claimed);
        let read = match self.memory.poll_claim(total, cx)? {
            Poll::Ready(()) => {
                let mut space = &mut self.space[..];
                if total > CHUNK_BYTES {
                    // It gets memory of its own, as much as it needs. What follows is read later.
                    let fitting = total..=total + CHUNK_BYTES;
                    if !fitting.contains(&self.arrived.capacity()) {
                        let mut exact = BytesMut::with_capacity(total);
                        exact.extend_from_slice(&self.arrived);
                        self.arrived = exact;
                    }
                    let missing = total.saturating_sub(self.arrived.len());
                    space = &mut space[..missing.min(CHUNK_BYTES)];
                }
                Pin::new(&mut self.stream).poll_read(cx, space)?
            }
            Poll::Pending => Poll::Pending,
        };
        match read {
            Poll::Ready(0) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Poll::Ready(read) => {
                self.arrived.extend_from_slice(&self.space[..read]);
                Poll::Ready(Ok(()))
            }
            Poll::Pending if self.arrived.is_empty() => Poll::Pending,
            Poll::Pending => self.memory.poll_stalled(total, cx).map(Err),
        }
    }
}

/// The memory of an RPC that has not arrived in full, and the time it has to arrive.
struct Memory {
    holder: Holder,
    claim: Claim,
    /// When the stream was first found empty in the middle of the RPC.
    since: Option<Instant>,
    /// Not reset with each RPC, because most arrive at once and a timer costs more than a message.
    timer: Option<Delay>,
}

enum Claim {
    None,
    Waiting(Acquire),
    /// Released when dropped.
    Held(#[allow(dead_code, reason = "it is held, not read")] Permit),
}

impl Memory {
    /// The RPC has arrived: what happens to it now is bounded elsewhere.
    fn release(&mut self) {
        (self.claim, self.since) = (Claim::None, None);
    }

    /// Waits for memory for an RPC of `total` bytes.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::OutOfMemory`] if it is larger than what the peer may hold.
    fn poll_claim(&mut self, total: usize, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        if total > CHUNK_BYTES && matches!(self.claim, Claim::None) {
            let acquire = self.holder.acquire(Resource::FrameBytes, total as u64);
            self.claim = Claim::Waiting(acquire);
        }
        let Claim::Waiting(acquire) = &mut self.claim else {
            return Ok(Poll::Ready(()));
        };
        match acquire.poll_unpin(cx) {
            Poll::Ready(Ok(permit)) => {
                (self.claim, self.since) = (Claim::Held(permit), None);
                Ok(Poll::Ready(()))
            }
            Poll::Ready(Err(refused)) => {
                let text = refused.to_string();
                Err(io::Error::new(io::ErrorKind::OutOfMemory, text))
            }
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    /// Ready once an RPC of `total` bytes has had its time. The time in which it waits for memory does
    /// not count.
    fn poll_stalled(&mut self, total: usize, cx: &mut Context<'_>) -> Poll<io::Error> {
        if matches!(self.claim, Claim::Waiting(_)) {
            return Poll::Pending;
        }
        let size = u32::try_from(total).unwrap_or(u32::MAX);
        let now = now().at;
        let elapsed = now.saturating_duration_since(*self.since.get_or_insert(now));
        loop {
            let contention = self.holder.contention(Resource::FrameBytes);
            let allowance = match (&self.claim, contention) {
                (Claim::Held(_), Contention::Shared) => CONTENDED,
                _ => ALONE,
            };
            let rate = allowance.bytes_per_s;
            if elapsed >= allowance.time + Duration::from_secs(1) * size / rate {
                let text = "an RPC did not arrive in time";
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            let timer = self.timer.get_or_insert_with(|| Delay::new(CHECK_INTERVAL));
            ready!(timer.poll_unpin(cx));
            self.timer = None;
        }
    }
}

fn malformed(error: RpcError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Reads RPCs of one peer.
pub(super) struct Reader {
    pub(super) peer: PeerId,
    pub(super) validator: Validator,
    pub(super) max_rpc_bytes: usize,
}

impl Reader {
    fn read(&self, frame: Bytes) -> Result<Received, RpcError> {
        let rpc = Rpc::decode(frame)?;
        let (mut messages, mut unsigned) = (Vec::with_capacity(rpc.messages.len()), 0);
        for raw in &rpc.messages {
            match Message::parse(raw)? {
                Some(message) => {
                    messages.push(self.validator.check(message, &self.peer, now()));
                }
                None => unsigned += 1,
            }
        }
        Ok(Received {
            subscriptions: rpc.subscriptions,
            messages,
            unsigned,
            control: rpc.control,
            control_entries: rpc.control_entries,
        })
    }
}

#[cfg(test)]
mod tests;
