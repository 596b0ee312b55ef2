//! Signals that end a command: `SIGINT`, `SIGTERM` and `SIGHUP`.
//!
//! The first signal asks for an orderly end. A thread of its own receives the signals, so that the
//! second one ends the process also while every other thread is blocked.

use std::{
    io,
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
    /// Handles the signals from here on. The first one also ends all waits of `output` for its
    /// reader.
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
        let entered = runtime.enter();
        let streams = kinds.map(|kind| signal(kind).map(|stream| (kind, stream)));
        let [interrupt, terminate, hangup] = streams;
        let streams = [interrupt?, terminate?, hangup?];
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

fn status_of(kind: SignalKind) -> i32 {
    STATUS_OF_SIGNALS + kind.as_raw_value()
}

async fn receive(
    streams: [(SignalKind, Signal); 3],
    requested: &watch::Sender<Option<SignalKind>>,
    output: &Output,
) {
    let [mut first, mut second, mut third] = streams;
    let mut requests = Requests::default();
    loop {
        let kind = tokio::select! {
            Some(()) = first.1.recv() => first.0,
            Some(()) = second.1.recv() => second.0,
            Some(()) = third.1.recv() => third.0,
            else => return,
        };
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
