//! How many inbound requests are served at one time, of one connection and of all.

use calimero_network_primitives::{Place, Places};

use crate::failure::Scope;

/// The places of one request: among those of its connection, and among all.
pub(crate) type Permit = [Place; 2];

/// Admits the requests of one connection.
#[derive(Debug)]
pub(crate) struct Admission {
    connection: Places,
    connection_limit: usize,
    all: Places,
    all_limit: usize,
}

impl Admission {
    pub(crate) fn new(connection_limit: usize, all: Places, all_limit: usize) -> Self {
        Self {
            connection: Places::default(),
            connection_limit,
            all,
            all_limit,
        }
    }

    /// A place, or which limit is reached.
    pub(crate) fn admit(&self) -> Result<Permit, (Scope, usize)> {
        let take = |places: &Places, scope, limit| places.take(limit).ok_or((scope, limit));
        Ok([
            take(&self.connection, Scope::Connection, self.connection_limit)?,
            take(&self.all, Scope::All, self.all_limit)?,
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearer_limit_refuses_and_dropping_frees_both() {
        let all = Places::default();
        let one = Admission::new(2, all.clone(), 3);
        let other = Admission::new(2, all.clone(), 3);

        let first = one.admit().unwrap();
        let _second = one.admit().unwrap();
        assert_eq!(one.admit().unwrap_err(), (Scope::Connection, 2));
        let _third = other.admit().unwrap();
        assert_eq!(other.admit().unwrap_err(), (Scope::All, 3));
        assert_eq!(all.taken(), 3);

        drop(first);
        assert_eq!(all.taken(), 2);
        let _fourth = other.admit().unwrap();
        assert_eq!(one.admit().unwrap_err(), (Scope::All, 3));
    }
}
