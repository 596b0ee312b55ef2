//! How many inbound requests are served at one time, of one connection and of all.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::failure::Scope;

/// Counts what is held of a limit. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauge(Arc<AtomicUsize>);

impl Gauge {
    fn try_hold(&self, limit: usize) -> Option<Held> {
        let one_more = |held: usize| (held < limit).then_some(held + 1);
        // The count orders nothing but itself.
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()
            .map(|_| Held(self.clone()))
    }

    pub(crate) fn held(&self) -> usize {
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
pub(crate) struct Permit {
    _connection: Held,
    _all: Held,
}

/// Admits the requests of one connection.
#[derive(Debug)]
pub(crate) struct Admission {
    connection: Gauge,
    connection_limit: usize,
    all: Gauge,
    all_limit: usize,
}

impl Admission {
    pub(crate) fn new(connection_limit: usize, all: Gauge, all_limit: usize) -> Self {
        Self {
            connection: Gauge::default(),
            connection_limit,
            all,
            all_limit,
        }
    }

    /// A place, or which limit is reached.
    pub(crate) fn admit(&self) -> Result<Permit, (Scope, usize)> {
        let connection = self
            .connection
            .try_hold(self.connection_limit)
            .ok_or((Scope::Connection, self.connection_limit))?;
        let all = self
            .all
            .try_hold(self.all_limit)
            .ok_or((Scope::All, self.all_limit))?;
        Ok(Permit {
            _connection: connection,
            _all: all,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearer_limit_refuses_and_dropping_frees_both() {
        let all = Gauge::default();
        let one = Admission::new(2, all.clone(), 3);
        let other = Admission::new(2, all.clone(), 3);

        let first = one.admit().unwrap();
        let _second = one.admit().unwrap();
        assert_eq!(one.admit().unwrap_err(), (Scope::Connection, 2));
        let _third = other.admit().unwrap();
        assert_eq!(other.admit().unwrap_err(), (Scope::All, 3));
        assert_eq!(all.held(), 3);

        drop(first);
        assert_eq!(all.held(), 2);
        let _fourth = other.admit().unwrap();
        assert_eq!(one.admit().unwrap_err(), (Scope::All, 3));
    }
}
