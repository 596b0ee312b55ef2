//! The budget of bytes for frames that have not arrived in full, and the rate at which a frame has
//! to arrive while others wait for its memory.
//!
//! A frame is reserved whole before more than a page of it is read, so that frames which have
//! begun can end: two that wait for each other's memory cannot exist. What is not granted is not
//! read, and the peer meets the back-pressure of its stream.
//!
//! A peer that claims a frame and does not send it would hold its reservation for ever. Therefore a
//! receiver in the middle of a frame looks every [`ROUND`] whether others wait for memory in a scope
//! that it is part of, and ends if it has been too slow; see [`judge`].

use std::{
    task::{Context, Poll, ready},
    time::Duration,
};

use calimero_network_primitives::{
    limits::KIB,
    resources::{Acquire, Contention, Holder, Permit, Resource},
};
use futures::FutureExt;
use futures_timer::Delay;

use crate::{decoder::FIRST_BUFFER_BYTES, error::FrameError, read_budget::ReadBudget};

/// Time between two examinations of a receiver in the middle of a frame.
///
/// Longer than a round trip on any path, so that a stream which moves at all has moved.
const ROUND: Duration = Duration::from_secs(2);

/// Rate below which a frame stalls, in bytes per second. A 56 kbit/s link delivers it.
const MIN_RATE: u64 = 4 * KIB as u64;

/// Time that every frame has while peers wait for its memory, in addition to what
/// [`CONTENDED_RATE`] gives it.
const CONTENDED_GRACE: Duration = Duration::from_secs(10);

/// Average rate that is demanded of a frame while peers wait for its memory, in bytes per second: an
/// 8 MiB frame arrives within 42 s. Peers that keep all memory in use cannot do so by trickling.
const CONTENDED_RATE: u64 = 256 * KIB as u64;

/// Time after which a receiver that waits for memory gives up.
///
/// Longer than a frame may take while others wait. Reached only where memory is held by receivers
/// that this node does not poll.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The memory for incomplete frames of one peer: [`Resource::FrameBytes`] in the scopes of a
/// [`Holder`].
///
/// Substreams carry one, and [`Substream::into_frames`](crate::Substream::into_frames) applies it.
/// Where a substream is wrapped before it is read in frames,
/// [`FrameReceiver::with_budget`](crate::FrameReceiver::with_budget) takes the
/// [`reader`](Self::reader) of its budget.
#[derive(Clone, Debug)]
pub struct FrameBudget(Holder);

impl FrameBudget {
    /// A budget that counts for `holder`.
    #[must_use]
    pub fn new(holder: Holder) -> Self {
        Self(holder)
    }

    /// The scopes that the memory counts in.
    #[must_use]
    pub fn holder(&self) -> &Holder {
        &self.0
    }

    /// The budget as one receiver uses it.
    #[must_use]
    pub fn reader(&self) -> Box<dyn ReadBudget> {
        Box::new(Reader {
            holder: self.0.clone(),
            held: None,
            wait: None,
        })
    }
}

/// The budget of one receiver.
#[derive(Debug)]
struct Reader {
    holder: Holder,
    held: Option<Held>,
    wait: Option<Wait>,
}

/// Memory beyond the first page. The page is free: the limit of streams bounds it.
#[derive(Debug)]
struct Held {
    permit: Permit,
    /// The frame that arrives; `None` while the memory is a buffer for reuse.
    frame: Option<Progress>,
    round: Delay,
}

/// A receiver that waits for memory.
#[derive(Debug)]
struct Wait {
    acquire: Acquire,
    more: u64,
    deadline: Delay,
}

/// How a frame arrives.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Bytes of the frame that have a reservation.
    size: u64,
    /// Bytes that arrived in the current round.
    arrived: u64,
    /// Rounds that began after the frame did.
    rounds: u32,
    /// The last of those in a row in which the frame stalled.
    stalled: u32,
}

/// What becomes of a frame at the end of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Continue,
    Revoke,
}

/// Judges a frame at the end of a round.
///
/// A frame that stalls loses its memory if others wait for it: at once if its peer holds the most
/// memory of all, else after another round. A frame that moves keeps its memory while only streams
/// of the same peer wait. While other peers wait, it has [`CONTENDED_GRACE`] and the time that its
/// size takes at [`CONTENDED_RATE`].
fn judge(frame: Progress, contention: Contention, largest: bool) -> Verdict {
    let limit = CONTENDED_GRACE + Duration::from_secs(frame.size / CONTENDED_RATE);
    let late = ROUND * frame.rounds > limit;
    match contention {
        Contention::None => Verdict::Continue,
        _ if frame.stalled > 1 || (frame.stalled == 1 && largest) => Verdict::Revoke,
        Contention::Shared if late => Verdict::Revoke,
        _ => Verdict::Continue,
    }
}

impl Held {
    /// Polls the rounds of the frame at hand.
    fn poll_rounds(&mut self, cx: &mut Context<'_>, size: u64) -> Verdict {
        let Some(frame) = &mut self.frame else {
            // The round under way began before the frame and does not count.
            self.frame = Some(Progress {
                size,
                ..Progress::default()
            });
            self.round.reset(ROUND);
            let _ = self.round.poll_unpin(cx);
            return Verdict::Continue;
        };
        while self.round.poll_unpin(cx).is_ready() {
            self.round.reset(ROUND);
            frame.rounds += 1;
            let stalled = frame.arrived < MIN_RATE * ROUND.as_secs();
            frame.stalled = if stalled { frame.stalled + 1 } else { 0 };
            frame.arrived = 0;
            let holder = self.permit.holder();
            let contention = holder.contention(Resource::FrameBytes);
            let largest = || {
                let largest = holder.resources().largest_peer(Resource::FrameBytes);
                largest.map(|(peer, _)| peer) == holder.peer()
            };
            let largest = contention != Contention::None && largest();
            if judge(*frame, contention, largest) == Verdict::Revoke {
                return Verdict::Revoke;
            }
        }
        Verdict::Continue
    }
}

impl Reader {
    fn granted(&self) -> u64 {
        self.held.as_ref().map_or(0, |held| held.permit.amount())
    }

    /// Adds `permit` to what is held.
    fn hold(&mut self, permit: Permit) {
        match &mut self.held {
            Some(held) => {
                // Of the same holder, so it is never refused.
                let _ = held.permit.absorb(permit);
            }
            None => {
                self.held = Some(Held {
                    permit,
                    frame: None,
                    round: Delay::new(ROUND),
                });
            }
        }
    }

    /// Waits for `more` bytes.
    fn poll_wait(&mut self, cx: &mut Context<'_>, more: u64) -> Poll<Result<(), FrameError>> {
        if self.wait.as_ref().is_some_and(|wait| wait.more != more) {
            self.wait = None;
        }
        let holder = &self.holder;
        let wait = self.wait.get_or_insert_with(|| Wait {
            acquire: holder.acquire(Resource::FrameBytes, more),
            more,
            deadline: Delay::new(MAX_WAIT),
        });
        let after = match wait.acquire.poll_unpin(cx) {
            Poll::Ready(Ok(permit)) => {
                self.wait = None;
                self.hold(permit);
                return Poll::Ready(Ok(()));
            }
            // More than the budget of a peer: it will never be free.
            Poll::Ready(Err(_)) => Duration::ZERO,
            Poll::Pending => {
                ready!(wait.deadline.poll_unpin(cx));
                MAX_WAIT
            }
        };
        let wanted = usize::try_from(more).unwrap_or(usize::MAX);
        Poll::Ready(Err(FrameError::NoMemory { wanted, after }))
    }
}

impl ReadBudget for Reader {
    fn poll_reserve(
        &mut self,
        cx: &mut Context<'_>,
        needed: usize,
        wanted: usize,
    ) -> Poll<Result<usize, FrameError>> {
        let beyond = |bytes: usize| bytes.saturating_sub(FIRST_BUFFER_BYTES) as u64;
        let (needed, wanted) = (beyond(needed), beyond(wanted));
        let granted = self.granted();
        if wanted > granted && wanted > needed {
            // More than is needed makes reads larger. It is taken while memory is plentiful.
            let more = wanted - granted;
            if self.holder.has_half_left(Resource::FrameBytes, more)
                && let Ok(permit) = self.holder.take(Resource::FrameBytes, more)
            {
                self.hold(permit);
            }
        }
        if needed > self.granted() {
            ready!(self.poll_wait(cx, needed - self.granted()))?;
        }
        if needed > 0
            && let Some(held) = &mut self.held
            && held.poll_rounds(cx, needed) == Verdict::Revoke
        {
            let held = usize::try_from(held.permit.amount()).unwrap_or(usize::MAX);
            self.held = None;
            return Poll::Ready(Err(FrameError::Revoked { held }));
        }
        let size = usize::try_from(self.granted()).unwrap_or(usize::MAX);
        Poll::Ready(Ok(FIRST_BUFFER_BYTES.saturating_add(size)))
    }

    fn on_arrived(&mut self, n: usize) {
        if let Some(frame) = self.held.as_mut().and_then(|held| held.frame.as_mut()) {
            frame.arrived += n as u64;
        }
    }

    fn settle(&mut self, begun: usize, reusable: usize) -> usize {
        let Some(held) = &mut self.held else {
            return FIRST_BUFFER_BYTES;
        };
        held.frame = None;
        // A buffer for reuse is kept while memory is plentiful.
        let plentiful = self.holder.has_half_left(Resource::FrameBytes, 0);
        let keep = if plentiful { reusable } else { begun };
        let keep = (keep.saturating_sub(FIRST_BUFFER_BYTES) as u64).min(held.permit.amount());
        if keep == 0 {
            self.held = None;
            return FIRST_BUFFER_BYTES;
        }
        // A smaller amount is always granted.
        let _ = held.permit.resize(keep);
        FIRST_BUFFER_BYTES.saturating_add(usize::try_from(keep).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use calimero_network_primitives::limits::MAX_FRAME_PAYLOAD_BYTES;

    use super::*;

    const MOVING: Progress = Progress {
        size: MAX_FRAME_PAYLOAD_BYTES as u64,
        arrived: 0,
        rounds: 3,
        stalled: 0,
    };

    #[test]
    fn nothing_is_demanded_while_no_other_stream_waits() {
        let stalled = Progress {
            rounds: 1000,
            stalled: 1000,
            ..MOVING
        };
        assert_eq!(judge(stalled, Contention::None, true), Verdict::Continue);
    }

    #[test]
    fn a_stalled_frame_is_revoked_that_of_the_largest_peer_first() {
        for contention in [Contention::Peer, Contention::Shared] {
            let stalled = |stalled| Progress { stalled, ..MOVING };
            assert_eq!(judge(stalled(1), contention, true), Verdict::Revoke);
            assert_eq!(judge(stalled(1), contention, false), Verdict::Continue);
            assert_eq!(judge(stalled(2), contention, false), Verdict::Revoke);
            assert_eq!(judge(MOVING, contention, true), Verdict::Continue);
        }
    }

    #[test]
    fn a_frame_that_trickles_is_revoked_for_other_peers_only() {
        let trickling = |rounds| Progress { rounds, ..MOVING };
        assert_eq!(
            judge(trickling(21), Contention::Shared, false),
            Verdict::Continue
        );
        assert_eq!(
            judge(trickling(22), Contention::Shared, false),
            Verdict::Revoke
        );
        assert_eq!(
            judge(trickling(1000), Contention::Peer, true),
            Verdict::Continue
        );
    }
}
