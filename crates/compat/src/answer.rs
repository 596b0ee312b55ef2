//! Answers of commands that cannot be lost.

use tokio::sync::oneshot;

/// The answer that a caller of the actor waits for. Callers of the published client panic if an
/// answer is dropped, so this one sends `otherwise()` if it is dropped unanswered: after the end of
/// the network, and when its task panics.
pub(crate) struct Answer<T, F: FnOnce() -> T> {
    pending: Option<(oneshot::Sender<T>, F)>,
}

impl<T, F: FnOnce() -> T> Answer<T, F> {
    pub(crate) fn new(outcome: oneshot::Sender<T>, otherwise: F) -> Self {
        Self {
            pending: Some((outcome, otherwise)),
        }
    }

    pub(crate) fn send(mut self, value: T) {
        if let Some((outcome, _)) = self.pending.take() {
            // A caller that no longer waits is no error.
            let _ = outcome.send(value);
        }
    }
}

impl<T, F: FnOnce() -> T> Drop for Answer<T, F> {
    fn drop(&mut self) {
        if let Some((outcome, otherwise)) = self.pending.take() {
            let _ = outcome.send(otherwise());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_answer_is_sent_all_the_same() {
        let (outcome, mut answered) = oneshot::channel();
        drop(Answer::new(outcome, || 7));
        assert_eq!(answered.try_recv(), Ok(7));

        let (outcome, mut answered) = oneshot::channel();
        Answer::new(outcome, || 7).send(8);
        assert_eq!(answered.try_recv(), Ok(8));
    }
}
