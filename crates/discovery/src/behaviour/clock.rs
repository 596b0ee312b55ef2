//! The clock and the timer of the behaviour. The machine takes the time as an argument.

use std::{
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::FutureExt;
use futures_timer::Delay;

/// Returns the time. Only this function reads the clock.
#[allow(
    clippy::disallowed_methods,
    reason = "the machine takes the time as an argument; this is where it comes from"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A timer that wakes a task.
#[derive(Default)]
pub(crate) struct Timer {
    set: Option<(Instant, Delay)>,
}

impl Timer {
    /// Returns `Ready` from `at` on; before, it wakes the task of `cx` then.
    pub(crate) fn poll_at(&mut self, at: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = at else {
            self.set = None;
            return Poll::Pending;
        };
        let left = at.saturating_duration_since(now());
        if left == Duration::ZERO {
            self.set = None;
            return Poll::Ready(());
        }
        match &mut self.set {
            Some((set, _)) if *set == at => {}
            Some((set, delay)) => {
                *set = at;
                delay.reset(left);
            }
            None => self.set = Some((at, Delay::new(left))),
        }
        let Some((_, delay)) = &mut self.set else {
            return Poll::Pending;
        };
        match delay.poll_unpin(cx) {
            Poll::Ready(()) => {
                self.set = None;
                Poll::Ready(())
            }
            Poll::Pending => Poll::Pending,
        }
    }
}
