//! The clock and the timer of the behaviour. The machine takes the time as an argument.

use std::{
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};

use futures::FutureExt;
use futures_timer::Delay;

/// Returns the time. Only this function reads the monotonic clock.
#[allow(
    clippy::disallowed_methods,
    reason = "the machine takes the time as an argument; this is where it comes from"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Interval at which [`Resumption`] reads both clocks, 2 s. The heartbeat of gossip wakes the same
/// task more often.
const RESUMPTION_INTERVAL: Duration = Duration::from_secs(2);

/// Time without a reading that counts as a stop of the process, 30 s: more than a loaded host delays
/// a task. After a shorter stop, the timeouts of the transports find the connections that are dead.
const STOPPED_AFTER: Duration = Duration::from_secs(30);

/// Detects that this process or host was stopped: `SIGSTOP`, a suspended laptop, a frozen virtual
/// machine.
///
/// The monotonic clock of Linux continues while a process is stopped, and does not advance while the
/// host is suspended. The time of day advances in both cases, and jumps when it is set, which costs one
/// needless probe of every connection.
pub(super) struct Resumption {
    read: (Instant, SystemTime),
    timer: Delay,
}

impl Default for Resumption {
    fn default() -> Self {
        Self {
            read: both_clocks(),
            timer: Delay::new(RESUMPTION_INTERVAL),
        }
    }
}

impl Resumption {
    /// Returns `Ready` once after each stop.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.timer.poll_unpin(cx).is_ready() {
            self.timer.reset(RESUMPTION_INTERVAL);
            let before = std::mem::replace(&mut self.read, both_clocks());
            if was_stopped(before, self.read) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

fn was_stopped(before: (Instant, SystemTime), after: (Instant, SystemTime)) -> bool {
    let monotonic = after.0.saturating_duration_since(before.0);
    let of_day = after.1.duration_since(before.1).unwrap_or_default();
    monotonic.max(of_day) >= STOPPED_AFTER
}

#[allow(
    clippy::disallowed_methods,
    reason = "nothing is decided by it but that the clocks jumped"
)]
fn both_clocks() -> (Instant, SystemTime) {
    (now(), SystemTime::now())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_either_clock_is_a_stop() {
        let before = both_clocks();
        let after = |monotonic, of_day| {
            let by = Duration::from_secs;
            (before.0 + by(monotonic), before.1 + by(of_day))
        };
        assert!(!was_stopped(before, after(2, 2)));
        assert!(!was_stopped(before, after(29, 29)));
        // SIGSTOP, and the suspension of the host.
        assert!(was_stopped(before, after(600, 600)));
        assert!(was_stopped(before, after(2, 600)));
        // The time of day was set back.
        assert!(!was_stopped(after(0, 3600), after(2, 0)));
    }
}
