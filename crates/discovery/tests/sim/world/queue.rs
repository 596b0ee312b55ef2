//! What is to happen, in the order of its time.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

/// Of one time, what was put in first comes out first. Events lie still; what is sorted are
/// their times and places.
pub(super) struct Queue<E> {
    order: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    events: Vec<Option<E>>,
    free: Vec<usize>,
    sequence: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self {
            order: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            sequence: 0,
        }
    }
}

impl<E> Queue<E> {
    pub(super) fn push(&mut self, at: Duration, event: E) {
        let place = self.free.pop().unwrap_or(self.events.len());
        match self.events.get_mut(place) {
            Some(slot) => *slot = Some(event),
            None => self.events.push(Some(event)),
        }
        self.sequence += 1;
        self.order.push(Reverse((at, self.sequence, place)));
    }

    /// What is next, unless that is after `end`.
    pub(super) fn pop_until(&mut self, end: Duration) -> Option<(Duration, E)> {
        let Reverse((at, ..)) = self.order.peek()?;
        if *at > end {
            return None;
        }
        let Reverse((at, _, place)) = self.order.pop()?;
        self.free.push(place);
        Some((at, self.events[place].take()?))
    }
}
