//! The side of a stream on which requests arrive.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::AsyncRead;
use tokio::{sync::mpsc, time::timeout};

use crate::{serve::ServeError, swarm::Reports, transfer::MessageReader, v1::Request};

/// Reads the requests of one stream.
pub(super) struct Listening<'a, R> {
    pub(super) reader: MessageReader<R, Request>,
    pub(super) of_1_1: bool,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) idle_timeout: Duration,
    pub(super) unanswered: &'a AtomicUsize,
    /// Set when the requester watches a blob.
    pub(super) reports: &'a OnceLock<Reports>,
}

impl<R: AsyncRead + Unpin> Listening<'_, R> {
    /// Queues requests until the requester ends its side, or asks for nothing for too long.
    pub(super) async fn run(mut self) -> Result<(), ServeError> {
        loop {
            match timeout(self.idle_timeout, self.reader.next()).await {
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
                        self.unanswered.fetch_add(1, Ordering::Relaxed);
                        if self.requests.send(request).await.is_err() {
                            return Ok(());
                        }
                    }
                    None => return Ok(()),
                },
                Err(_) if self.unanswered.load(Ordering::Relaxed) > 0 => {}
                Err(_) => return Ok(()),
            }
        }
    }
}
