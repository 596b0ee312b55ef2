//! The interface between a receiver and its memory budget.

use std::{
    fmt,
    task::{Context, Poll},
};

use crate::error::FrameError;

/// A memory budget for frames that have not arrived completely. A receiver with
/// a budget asks it before every read.
///
/// [`FrameBudget`](crate::FrameBudget) implements it for the streams that the
/// behaviour of this crate opens and accepts.
pub trait ReadBudget: fmt::Debug + Send + Sync {
    /// Reserves a buffer of at least `needed` bytes, preferably `wanted`, and
    /// returns its size in bytes.
    ///
    /// `needed` is the size of the current frame on the wire, or one page while
    /// its length is not known. The receiver does not read while this is
    /// pending, which causes back-pressure on the peer.
    ///
    /// # Errors
    ///
    /// [`FrameError::Revoked`] or [`FrameError::NoMemory`]. The receiver then
    /// drops its buffer and ends.
    fn poll_reserve(
        &mut self,
        cx: &mut Context<'_>,
        needed: usize,
        wanted: usize,
    ) -> Poll<Result<usize, FrameError>>;

    /// Records that `n` bytes arrived.
    fn on_arrived(&mut self, n: usize);

    /// Releases memory that is not needed after the current frame arrived
    /// completely. Returns how many bytes the receiver may retain.
    ///
    /// The receiver could reuse a buffer of `reusable` bytes, in which `begun`
    /// bytes hold the start of the next frame.
    fn settle(&mut self, begun: usize, reusable: usize) -> usize;
}
