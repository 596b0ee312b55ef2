//! A future whose time is charged to the origins that wake it.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::Instant,
};

use calimero_network_primitives::resources::Origin;
use futures::task::AtomicWaker;

use super::{Shared, current_origin};

/// A future that charges the time of each poll to the origin whose task woke it.
///
/// The swarm is such a future: it handles what connections report to it. The time
/// after wake-ups by other tasks and threads is not charged. If several origins wake it before one poll, the first of
/// them is charged.
#[derive(Debug)]
pub struct Caused<F> {
    future: Pin<Box<F>>,
    shared: Arc<Shared>,
    cause: Arc<Cause>,
    waker: Waker,
}

impl<F: Future> Caused<F> {
    pub(super) fn new(shared: Arc<Shared>, future: F) -> Self {
        let cause = Arc::new(Cause::default());
        Self {
            future: Box::pin(future),
            shared,
            waker: Waker::from(Arc::clone(&cause)),
            cause,
        }
    }
}

impl<F: Future> Future for Caused<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        this.cause.task.register(cx.waker());
        let origin = this.cause.take();
        let started = Instant::now();
        let mut inner = Context::from_waker(&this.waker);
        let outcome = this.future.as_mut().poll(&mut inner);
        if origin.is_some() {
            this.shared.charge(origin, started.elapsed());
        }
        outcome
    }
}

/// The origin that woke the future, and the waker of the task that polls it.
#[derive(Debug, Default)]
struct Cause {
    origin: Mutex<Option<Origin>>,
    task: AtomicWaker,
}

impl Cause {
    fn take(&self) -> Option<Origin> {
        let mut origin = self.origin.lock().unwrap_or_else(PoisonError::into_inner);
        origin.take()
    }
}

impl Wake for Cause {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(current) = current_origin() {
            let mut origin = self.origin.lock().unwrap_or_else(PoisonError::into_inner);
            origin.get_or_insert(current);
        }
        self.task.wake();
    }
}
