//! The side of a stream on which requests arrive.

use std::{
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use futures::AsyncRead;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use crate::{serve::ServeError, swarm::Reports, transfer::MessageReader, v1::Request};

/// The requests of one stream that wait for an answer, and when the last answer was sent.
#[derive(Debug)]
pub(super) struct Unanswered(Mutex<(usize, Instant)>);

impl Unanswered {
    pub(super) fn new() -> Self {
        Self(Mutex::new((0, Instant::now())))
    }

    fn add(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
    }

    /// Notes that some of them are answered.
    pub(super) fn answered(&self, requests: usize) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = (state.0.saturating_sub(requests), Instant::now());
    }

    /// Returns the time since which the requester is to ask for something: now while it waits.
    fn idle_since(&self) -> Instant {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            (0, since) => since,
            _ => Instant::now(),
        }
    }
}

/// Reads the requests of one stream.
pub(super) struct Listening<'a, R> {
    pub(super) reader: MessageReader<R, Request>,
    pub(super) of_1_1: bool,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) idle_timeout: Duration,
    pub(super) unanswered: &'a Unanswered,
    /// Set when the requester watches a blob.
    pub(super) reports: &'a OnceLock<Reports>,
}

impl<R: AsyncRead + Unpin> Listening<'_, R> {
    /// Queues requests until the requester ends its side, or asks for nothing for too long.
    pub(super) async fn run(mut self) -> Result<(), ServeError> {
        let mut idle_until = Instant::now() + self.idle_timeout;
        loop {
            let next = timeout_at(idle_until, self.reader.next()).await;
            // A requester has this time from the last answer as well: with many requests at one
            // time the last one is answered long after it was read.
            let since = if next.is_ok() {
                Instant::now()
            } else {
                self.unanswered.idle_since()
            };
            let until = since + self.idle_timeout;
            match next {
                Ok(request) => match request? {
                    Some(Request::Hello(_)) => return Err(ServeError::Greeting),
                    Some(request) if request.is_of_1_1() && !self.of_1_1 => {
                        return Err(ServeError::Version);
                    }
                    // Not behind the requests: the time that it took counts.
                    Some(Request::Got { index }) => {
                        if let Some(reports) = self.reports.get() {
                            reports.on_verified(index);
                        }
                    }
                    Some(request) => {
                        self.unanswered.add();
                        if self.requests.send(request).await.is_err() {
                            return Ok(());
                        }
                    }
                    None => return Ok(()),
                },
                Err(_) if until > idle_until => {}
                Err(_) => return Ok(()),
            }
            idle_until = until;
        }
    }
}
