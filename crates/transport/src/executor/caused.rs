//! A future whose time is charged to the origins that give it work.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use super::Shared;

/// A future that charges the time of each poll to the origins whose tasks were polled since the
/// poll before, in proportion to their time.
///
/// The swarm is such a future: it handles what connections report to it.
#[derive(Debug)]
pub struct Caused<F> {
    future: Pin<Box<F>>,
    shared: Arc<Shared>,
}

impl<F: Future> Caused<F> {
    pub(super) fn new(shared: Arc<Shared>, future: F) -> Self {
        Self {
            future: Box::pin(future),
            shared,
        }
    }
}

impl<F: Future> Future for Caused<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let started = Instant::now();
        self.shared.begin_caused(started);
        let outcome = self.future.as_mut().poll(cx);
        self.shared.end_caused(started.elapsed());
        outcome
    }
}
