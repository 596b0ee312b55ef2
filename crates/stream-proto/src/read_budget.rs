//! The interface between a receiver and the memory that it may use.

use std::{
    fmt,
    task::{Context, Poll},
};

use crate::error::FrameError;

/// Memory for frames that have not arrived in full. A receiver with a budget asks it before every
/// read.
///
/// [`FrameBudget`](crate::FrameBudget) is the budget of streams that the behaviour of this crate
/// opens and accepts.
pub trait ReadBudget: fmt::Debug + Send + Sync {
    /// Reserves a buffer of `needed` bytes, better of `wanted`, and returns its size in bytes.
    ///
    /// `needed` is the size of the frame at hand on the wire, or one page while its length is not
    /// known. The receiver does not read while this is pending: the peer meets back-pressure.
    ///
    /// # Errors
    ///
    /// [`FrameError::Revoked`] or [`FrameError::NoMemory`]. The receiver drops its buffer and ends.
    fn poll_reserve(
        &mut self,
        cx: &mut Context<'_>,
        needed: usize,
        wanted: usize,
    ) -> Poll<Result<usize, FrameError>>;

    /// Counts `n` bytes that arrived.
    fn on_arrived(&mut self, n: usize);

    /// Releases what is not needed, after the frame at hand has arrived in full.
    ///
    /// The receiver could reuse a buffer of `reusable` bytes, of which `begun` hold the beginning of
    /// the next frame. Returns how many bytes it may keep.
    fn settle(&mut self, begun: usize, reusable: usize) -> usize;
}
