//! Places of which there is a bounded number: for requests under way, of one peer or of all.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Counts how many places are taken, without a lock. Clones count together.
///
/// ```
/// use calimero_network_primitives::Places;
///
/// let places = Places::default();
/// let first = places.take(1).expect("one is free");
/// assert!(places.take(1).is_none());
/// drop(first);
/// assert_eq!(places.taken(), 0);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Places(Arc<AtomicUsize>);

impl Places {
    /// Takes a place if fewer than `limit` are taken.
    #[must_use]
    pub fn take(&self, limit: usize) -> Option<Place> {
        let one_more = |taken: usize| (taken < limit).then_some(taken + 1);
        // The count orders nothing but itself.
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()
            .map(|_| Place(self.clone()))
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A place that is taken. Dropping it frees the place.
#[derive(Debug)]
#[must_use = "a place that is dropped is free"]
pub struct Place(Places);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn never_more_are_taken_than_there_are() {
        const LIMIT: usize = 3;
        let places = Places::default();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let place = places.take(LIMIT);
                        assert!(places.taken() <= LIMIT);
                        drop(place);
                    }
                });
            }
        });
        assert_eq!(places.taken(), 0);
        let all: Vec<_> = (0..LIMIT).map_while(|_| places.take(LIMIT)).collect();
        assert_eq!((all.len(), places.taken()), (LIMIT, LIMIT));
        assert!(places.take(LIMIT).is_none());
        assert!(places.take(LIMIT + 1).is_some());
    }
}
