//! Signals that end a command: `SIGINT`, `SIGTERM` and `SIGHUP`.
//!
//! The first signal asks for an orderly end. A thread of its own receives the signals, so that the
//! second one ends the process also while every other thread is blocked.

use std::{
    io,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use crate::output::Output;

/// Time within which the same signal counts once. GNU `timeout` sends a signal to the process and to
/// its group, so it arrives twice within milliseconds; a person needs longer to press a key twice.
const REPEAT_TIME: Duration = Duration::from_secs(1);

/// What a shell adds to the number of a signal that ended a process.
const STATUS_OF_SIGNALS: i32 = 128;

/// What to do about a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Ask for an orderly end.
    Stop,
    /// Nothing: the signal repeats the first one.
    Ignore,
    /// End the process at once.
    Exit,
}

/// Decides what signals mean. Pure: the time is an argument.
#[derive(Debug, Default)]
struct Requests {
    first: Option<(SignalKind, Instant)>,
}

impl Requests {
    fn on_signal(&mut self, kind: SignalKind, now: Instant) -> Action {
        match self.first {
            None => {
                self.first = Some((kind, now));
                Action::Stop
            }
            Some((first, at)) if first == kind && now - at < REPEAT_TIME => Action::Ignore,
            Some(_) => Action::Exit,
        }
    }
}

/// Whether an orderly end has been requested. Clones see the same request.
#[derive(Clone, Debug)]
pub(crate) struct Signals(watch::Receiver<Option<SignalKind>>);

impl Signals {
    /// Handles the signals from here on, except those that were ignored at the start, as by `nohup`:
    /// they stay ignored. `SIGTERM` is always handled. The first signal also ends all waits of
    /// `output` for its reader.
    ///
    /// # Errors
    ///
    /// If the operating system refuses the handlers, a runtime or a thread.
    pub(crate) fn listen(output: Output) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        let ignored = ignored();
        let is_ignored =
            |kind: &SignalKind| *kind != SignalKind::terminate() && ignored & mask_of(*kind) != 0;
        let entered = runtime.enter();
        let handled = kinds.into_iter().filter(|kind| !is_ignored(kind));
        let streams = handled.map(|kind| signal(kind).map(|stream| (kind, stream)));
        let streams = streams.collect::<io::Result<Vec<_>>>()?;
        drop(entered);
        let (requested, receiver) = watch::channel(None);
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || runtime.block_on(receive(streams, &requested, &output)))?;
        Ok(Self(receiver))
    }

    /// Waits until an orderly end is requested. Returns at once if it has been. Cancel safe.
    pub(crate) async fn stop(&mut self) {
        if self.0.wait_for(Option::is_some).await.is_err() {
            // The thread that sends has ended, which happens with the process alone.
            std::future::pending().await
        }
    }

    /// The exit status of a command that a signal interrupted, if one did.
    pub(crate) fn status(&self) -> Option<u8> {
        let kind = *self.0.borrow();
        kind.and_then(|kind| u8::try_from(status_of(kind)).ok())
    }
}

/// The bit of a signal in the masks of `/proc/PID/status`.
fn mask_of(kind: SignalKind) -> u64 {
    let number = u32::try_from(kind.as_raw_value()).unwrap_or(0);
    number
        .checked_sub(1)
        .and_then(|bit| 1_u64.checked_shl(bit))
        .unwrap_or(0)
}

/// The mask of the signals that this process ignores. A child inherits it from its parent. Where the
/// system does not show it, as without `/proc`, no signal counts as ignored.
#[cfg(target_os = "linux")]
fn ignored() -> u64 {
    let status = procfs::process::Process::myself().and_then(|myself| myself.status());
    status.map_or(0, |status| status.sigign)
}

#[cfg(not(target_os = "linux"))]
fn ignored() -> u64 {
    0
}

fn status_of(kind: SignalKind) -> i32 {
    STATUS_OF_SIGNALS + kind.as_raw_value()
}

async fn receive(
    mut streams: Vec<(SignalKind, Signal)>,
    requested: &watch::Sender<Option<SignalKind>>,
    output: &Output,
) {
    let mut requests = Requests::default();
    loop {
        let next = std::future::poll_fn(|cx| {
            for (kind, stream) in &mut streams {
                if stream.poll_recv(cx) == Poll::Ready(Some(())) {
                    return Poll::Ready(*kind);
                }
            }
            Poll::Pending
        });
        let kind = next.await;
        match requests.on_signal(kind, Instant::now()) {
            Action::Stop => {
                requested.send_replace(Some(kind));
                output.release();
            }
            Action::Ignore => {}
            Action::Exit => std::process::exit(status_of(kind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_those_of_the_kernel() {
        assert_eq!(mask_of(SignalKind::hangup()), 1);
        assert_eq!(mask_of(SignalKind::interrupt()), 2);
        assert_eq!(mask_of(SignalKind::terminate()), 1 << 14);
    }

    #[test]
    fn the_same_signal_within_a_second_counts_once() {
        let (term, int) = (SignalKind::terminate(), SignalKind::interrupt());
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut requests = Requests::default();
        assert_eq!(requests.on_signal(term, at(0)), Action::Stop);
        assert_eq!(requests.on_signal(term, at(3)), Action::Ignore);
        assert_eq!(requests.on_signal(term, at(999)), Action::Ignore);
        assert_eq!(requests.on_signal(term, at(1000)), Action::Exit);
        let mut requests = Requests::default();
        assert_eq!(requests.on_signal(int, at(0)), Action::Stop);
        assert_eq!(requests.on_signal(term, at(3)), Action::Exit);
    }
}
