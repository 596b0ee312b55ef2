//! How many requests are under way, of one connection and of all.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Counts what is held of a limit. Clones count together.
#[derive(Clone, Debug, Default)]
pub(super) struct Gauge(Arc<AtomicUsize>);

impl Gauge {
    fn try_hold(&self, limit: usize) -> Option<Held> {
        let one_more = |held: usize| (held < limit).then_some(held + 1);
        // The count orders nothing but itself.
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()
            .map(|_| Held(self.clone()))
    }

    pub(super) fn held(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The place of one request. Dropping it frees the place.
#[derive(Debug)]
pub(super) struct Permit {
    _connection: Held,
    _all: Held,
}

/// A place, or the limit that is reached.
pub(super) fn admit(
    connection: &Gauge,
    connection_limit: usize,
    all: &Gauge,
    all_limit: usize,
) -> Result<Permit, usize> {
    let connection = connection
        .try_hold(connection_limit)
        .ok_or(connection_limit)?;
    let all = all.try_hold(all_limit).ok_or(all_limit)?;
    Ok(Permit {
        _connection: connection,
        _all: all,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearer_limit_refuses_and_dropping_frees_both() {
        let (all, one, other) = (Gauge::default(), Gauge::default(), Gauge::default());
        let first = admit(&one, 2, &all, 3).unwrap();
        let _second = admit(&one, 2, &all, 3).unwrap();
        assert_eq!(admit(&one, 2, &all, 3).unwrap_err(), 2);
        let _third = admit(&other, 2, &all, 3).unwrap();
        assert_eq!(admit(&other, 2, &all, 3).unwrap_err(), 3);
        drop(first);
        assert_eq!((one.held(), all.held()), (1, 2));
        let _fourth = admit(&other, 2, &all, 3).unwrap();
    }
}
