//! The pure part: it counts failures in a row for each connection.

use std::{collections::HashMap, hash::Hash};

/// An event of a connection `K`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<K> {
    /// The connection is established. Only connections that were opened in this way are watched.
    Opened(K),
    /// A ping was answered.
    Answered(K),
    /// A ping was not answered, or with another payload.
    Failed(K),
    /// A probe was not answered. The connection is given up, whatever its failures so far.
    Dead(K),
    /// The connection was closed by either side. It is no longer watched.
    Closed(K),
}

/// The consequence of a ping for its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The peer answered the ping.
    Alive,
    /// The peer did not answer. The connection stays open for now.
    Failing {
        /// Pings that failed since the last answer, or since the connection was opened.
        in_a_row: u32,
    },
    /// The connection must be closed. Returned once per connection.
    GiveUp {
        /// Pings that failed since the last answer, or since the connection was opened.
        failures: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    /// Failures since the last answer.
    Counting(u32),
    /// Whether the connection is being closed. Later inputs about it change nothing.
    GivenUp,
}

/// Counts the pings that fail in a row on each connection and decides when one must be closed.
///
/// Any answer resets the count. Memory: one small entry per connection between [`Input::Opened`]
/// and [`Input::Closed`]. Inputs about other connections are ignored.
#[derive(Clone, Debug)]
pub struct Watchdog<K> {
    max_failures: u32,
    connections: HashMap<K, Watch>,
}

impl<K: Copy + Eq + Hash> Watchdog<K> {
    /// Creates a watchdog that closes a connection at `max_failures` failures in a row (0 counts as
    /// 1).
    #[must_use]
    pub fn new(max_failures: u32) -> Self {
        Self {
            max_failures,
            connections: HashMap::new(),
        }
    }

    /// Handles an input about a connection. Returns `None` if nothing follows, which includes
    /// inputs about connections that are unknown or being closed.
    pub fn handle(&mut self, input: Input<K>) -> Option<Verdict> {
        match input {
            Input::Opened(connection) => {
                self.connections
                    .entry(connection)
                    .or_insert(Watch::Counting(0));
                None
            }
            Input::Closed(connection) => {
                self.connections.remove(&connection);
                None
            }
            Input::Answered(connection) => self.answered(connection),
            Input::Failed(connection) => self.failed(connection, self.max_failures),
            Input::Dead(connection) => self.failed(connection, 1),
        }
    }

    /// Returns the connections that are watched and not being closed.
    pub fn connections(&self) -> impl Iterator<Item = K> {
        self.connections.iter().filter_map(|(connection, watch)| {
            matches!(watch, Watch::Counting(_)).then_some(*connection)
        })
    }

    /// Returns the number of watched connections, those being closed included.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.connections.len()
    }

    fn answered(&mut self, connection: K) -> Option<Verdict> {
        match self.connections.get_mut(&connection)? {
            Watch::GivenUp => None,
            Watch::Counting(failures) => {
                *failures = 0;
                Some(Verdict::Alive)
            }
        }
    }

    fn failed(&mut self, connection: K, max_failures: u32) -> Option<Verdict> {
        let watch = self.connections.get_mut(&connection)?;
        let Watch::Counting(failures) = watch else {
            return None;
        };
        *failures = failures.saturating_add(1);
        let failures = *failures;
        if failures < max_failures {
            return Some(Verdict::Failing { in_a_row: failures });
        }
        *watch = Watch::GivenUp;
        Some(Verdict::GiveUp { failures })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn three_failures_in_a_row_give_a_connection_up_once() {
        let mut watchdog = Watchdog::new(3);
        watchdog.handle(Input::Opened(1));
        let verdicts: Vec<_> = (0..5).map(|_| watchdog.handle(Input::Failed(1))).collect();
        assert_eq!(
            verdicts,
            [
                Some(Verdict::Failing { in_a_row: 1 }),
                Some(Verdict::Failing { in_a_row: 2 }),
                Some(Verdict::GiveUp { failures: 3 }),
                None,
                None,
            ]
        );
    }

    #[test]
    fn an_answer_starts_the_count_anew() {
        let mut watchdog = Watchdog::new(2);
        watchdog.handle(Input::Opened(1));
        for _ in 0..10 {
            let failing = Some(Verdict::Failing { in_a_row: 1 });
            assert_eq!(watchdog.handle(Input::Failed(1)), failing);
            assert_eq!(watchdog.handle(Input::Answered(1)), Some(Verdict::Alive));
        }
    }

    #[test]
    fn a_connection_opened_again_under_the_same_key_is_watched_again() {
        let mut watchdog = Watchdog::new(1);
        for _ in 0..2 {
            watchdog.handle(Input::Opened(1));
            let given_up = Some(Verdict::GiveUp { failures: 1 });
            assert_eq!(watchdog.handle(Input::Failed(1)), given_up);
            watchdog.handle(Input::Closed(1));
        }
    }

    fn inputs() -> impl Strategy<Value = Vec<Input<u8>>> {
        let connection = 0..4u8;
        prop::collection::vec(
            prop_oneof![
                1 => connection.clone().prop_map(Input::Opened),
                2 => connection.clone().prop_map(Input::Answered),
                6 => connection.clone().prop_map(Input::Failed),
                1 => connection.clone().prop_map(Input::Dead),
                1 => connection.prop_map(Input::Closed),
            ],
            0..200,
        )
    }

    proptest! {
        /// Compares with the whole history of each open connection: it is closed exactly when its
        /// last `max_failures` pings failed or a probe did, once, and no entry remains of closed
        /// ones. The connections to probe are those that are open and not given up.
        #[test]
        fn gives_up_exactly_at_the_row(inputs in inputs(), max_failures in 1..5u32) {
            let mut watchdog = Watchdog::new(max_failures);
            let mut open: BTreeMap<u8, (Vec<bool>, bool)> = BTreeMap::new();
            for input in inputs {
                let verdict = watchdog.handle(input);
                match input {
                    Input::Opened(connection) => {
                        open.entry(connection).or_default();
                    }
                    Input::Closed(connection) => {
                        open.remove(&connection);
                    }
                    Input::Answered(connection)
                    | Input::Failed(connection)
                    | Input::Dead(connection) => {
                        let failed = !matches!(input, Input::Answered(_));
                        let dead = matches!(input, Input::Dead(_));
                        let Some((history, given_up)) = open.get_mut(&connection) else {
                            prop_assert_eq!(verdict, None);
                            continue;
                        };
                        history.push(failed);
                        let row = history.iter().rev().take_while(|failed| **failed).count();
                        let due = (dead || row >= max_failures as usize) && !*given_up;
                        prop_assert_eq!(matches!(verdict, Some(Verdict::GiveUp { .. })), due);
                        prop_assert_eq!(verdict.is_none(), *given_up);
                        *given_up |= due;
                    }
                }
                prop_assert_eq!(watchdog.watched(), open.len());
                let mut probed: Vec<_> = watchdog.connections().collect();
                probed.sort_unstable();
                let alive = open.iter().filter(|(_, (_, given_up))| !given_up);
                prop_assert_eq!(probed, alive.map(|(id, _)| *id).collect::<Vec<_>>());
            }
        }
    }
}
