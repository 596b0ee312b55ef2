//! The memory budget for frames that have not arrived completely, and the
//! minimum rate of a frame while others wait for its memory.
//!
//! The receiver reserves a frame completely before it reads more than a page of
//! it. A frame that has started can therefore always complete, and two
//! receivers cannot wait for each other's memory. Without a reservation the
//! receiver does not read, which causes back-pressure on the peer.
//!
//! A peer that claims a frame and does not send it would hold its reservation
//! forever. A receiver in the middle of a frame therefore checks every
//! [`ROUND`] whether other receivers wait for memory in one of its scopes, and
//! ends if the frame was too slow; see [`judge`].

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

/// Interval between two checks of a receiver in the middle of a frame.
///
/// It is longer than a round trip on any usual path, so that a stream without
/// losses makes progress in every round.
const ROUND: Duration = Duration::from_secs(2);

/// Rate below which a frame counts as stalled, in bytes per second. A link of
/// 56 kbit/s reaches it.
const MIN_RATE: u64 = 4 * KIB as u64;

/// Time that every frame has while other peers wait for its memory, in addition
/// to the time that [`CONTENDED_RATE`] allows.
const CONTENDED_GRACE: Duration = Duration::from_secs(10);

/// Average rate that a frame must reach while other peers wait for its memory,
/// in bytes per second. A frame of 8 MiB must arrive within 42 s. Peers cannot
/// hold all memory by sending slowly.
const CONTENDED_RATE: u64 = 256 * KIB as u64;

/// Time after which a receiver that waits for memory fails.
///
/// It is longer than a frame may take under contention. A receiver reaches it
/// only if this node does not poll the receivers that hold the memory.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The memory budget for incomplete frames of one peer:
/// [`Resource::FrameBytes`] in the scopes of a [`Holder`].
///
/// Every substream has one, and
/// [`Substream::into_frames`](crate::Substream::into_frames) applies it. If a
/// substream is wrapped before frames are read from it, pass the
/// [`reader`](Self::reader) of its budget to
/// [`FrameReceiver::with_budget`](crate::FrameReceiver::with_budget).
#[derive(Clone, Debug)]
pub struct FrameBudget(Holder);

impl FrameBudget {
    /// Creates a budget that is accounted to `holder`.
    #[must_use]
    pub fn new(holder: Holder) -> Self {
        Self(holder)
    }

    /// Returns the scopes to which the memory is accounted.
    #[must_use]
    pub fn holder(&self) -> &Holder {
        &self.0
    }

    /// Creates the budget of one receiver.
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

/// Reserved memory beyond the first page. The first page is not reserved: the
/// limit of streams bounds it.
#[derive(Debug)]
struct Held {
    permit: Permit,
    /// The frame that is arriving; `None` while the memory is a buffer for
    /// reuse.
    frame: Option<Progress>,
    round: Delay,
}

/// A pending reservation of a receiver.
#[derive(Debug)]
struct Wait {
    acquire: Acquire,
    more: u64,
    deadline: Delay,
}

/// Progress of one frame.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Reserved bytes of the frame.
    size: u64,
    /// Bytes that arrived in the current round.
    arrived: u64,
    /// Number of complete rounds since the frame started.
    rounds: u32,
    /// Number of consecutive stalled rounds up to now.
    stalled: u32,
}

impl Progress {
    /// Counts a complete round, and starts the next one.
    fn end_round(&mut self) {
        let is_stalled = self.arrived < MIN_RATE * ROUND.as_secs();
        self.stalled = if is_stalled { self.stalled + 1 } else { 0 };
        self.rounds += 1;
        self.arrived = 0;
    }
}

/// Result of the check at the end of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Continue,
    Revoke,
}

/// Checks a frame at the end of a round.
///
/// If other receivers wait for memory, a stalled frame loses its reservation:
/// after one round if its peer holds the most memory of all peers, otherwise
/// after two. A frame that makes progress keeps its reservation while only
/// streams of the same peer wait. While other peers wait, it has
/// [`CONTENDED_GRACE`] and the time that its size takes at [`CONTENDED_RATE`].
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
    /// Polls the round timer of the current frame and checks the frame at the
    /// end of each round.
    fn poll_rounds(&mut self, cx: &mut Context<'_>, size: u64) -> Verdict {
        let Some(frame) = &mut self.frame else {
            // The current round started before the frame and does not count.
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
            frame.end_round();
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

    /// Adds `permit` to the reservation.
    fn hold(&mut self, permit: Permit) {
        match &mut self.held {
            Some(held) => {
                // Both permits have the same holder, so this never fails.
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

    /// Waits until `more` bytes are reserved.
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
            // The request is above the budget of the peer and can never
            // succeed.
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
            // A larger buffer makes reads larger. It is reserved only while at
            // least half of the memory is free.
            // This reservation never waits: only `needed` bytes are required
            // for progress.
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
        // The buffer is retained for reuse only while at least half of the
        // memory is free.
        let plentiful = self.holder.has_half_left(Resource::FrameBytes, 0);
        let keep = if plentiful { reusable } else { begun };
        let keep = (keep.saturating_sub(FIRST_BUFFER_BYTES) as u64).min(held.permit.amount());
        if keep == 0 {
            self.held = None;
            return FIRST_BUFFER_BYTES;
        }
        // A reduction always succeeds.
        let _ = held.permit.resize(keep);
        FIRST_BUFFER_BYTES.saturating_add(usize::try_from(keep).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod accounting;

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
