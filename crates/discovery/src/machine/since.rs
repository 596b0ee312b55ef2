//! A state and the time at which it changed last.

use std::{mem::discriminant, time::Instant};

/// A state with the time of its last change. A change is one from a variant to another one: fields
/// of the same variant, such as the end of a renewed reservation, do not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Since<S> {
    state: S,
    changed_at: Instant,
}

impl<S> Since<S> {
    pub(super) fn new(state: S, now: Instant) -> Self {
        let changed_at = now;
        Self { state, changed_at }
    }

    pub(super) fn get(&self) -> &S {
        &self.state
    }

    pub(super) fn changed_at(&self) -> Instant {
        self.changed_at
    }

    /// Sets the state and returns the one before.
    pub(super) fn set(&mut self, state: S, now: Instant) -> S {
        if discriminant(&state) != discriminant(&self.state) {
            self.changed_at = now;
        }
        std::mem::replace(&mut self.state, state)
    }
}
