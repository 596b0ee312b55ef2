//! Records which member must receive which message, and which messages are
//! missing. Pure: times are arguments.
//!
//! A message is expected by every member that was settled when it was published
//! and is still running [`GRACE`] later. The record of a message is closed
//! [`WINDOW`] after its publication. Members that have not received it by then
//! have lost it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Time before a member leaves in which it need not receive a new message: 10
/// s, so that a process that waits for CPU time does not count as losing
/// messages.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// Time after which a message that was not received counts as lost: 60 s.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);

/// Number of latency classes. Their upper ends double from 0.1 ms to 52 s.
const CLASSES: usize = 20;
const FIRST_CLASS: Duration = Duration::from_micros(100);

/// Identifier of one run of a node, from its start to its end. Numbered from 0.
pub(crate) type Incarnation = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    Expected,
    Made,
    /// Delivered to a member that need not receive it.
    MadeNotRequired,
    NotExpected,
}

#[derive(Debug)]
struct Open {
    published: Instant,
    publisher: Incarnation,
    /// State per incarnation. Later incarnations are not included.
    deliveries: Vec<Delivery>,
}

/// Counters of messages and deliveries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) published: u64,
    /// Expected deliveries of closed messages.
    pub(crate) expected: u64,
    /// Expected deliveries that were made.
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    /// Messages delivered twice, or delivered after they were closed.
    pub(crate) repeated: u64,
    /// Delivered messages that no member published.
    pub(crate) unknown: u64,
    /// Deliveries to members that need not receive them: new members, and
    /// members that leave soon.
    pub(crate) not_required: u64,
    /// Messages of publishers that left within [`GRACE`], and the missing
    /// deliveries of these messages.
    pub(crate) orphans: u64,
    pub(crate) orphans_missed: u64,
    latencies: [u64; CLASSES],
    pub(crate) slowest: Duration,
}

/// The record of all messages.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Open messages, numbered from `first`. `None` for a message that was
    /// withdrawn.
    open: VecDeque<Option<Open>>,
    first: u64,
    /// `true` for each incarnation that is settled.
    settled: Vec<bool>,
    counts: Counts,
    /// Whether the run is over.
    ended: bool,
}

impl Ledger {
    /// Adds a node that has started.
    pub(crate) fn begin(&mut self) -> Incarnation {
        self.settled.push(false);
        self.settled.len() - 1
    }

    /// Marks a member as settled. All later messages are expected by it.
    pub(crate) fn settle(&mut self, member: Incarnation) {
        self.settled[member] = true;
    }

    /// Marks a member as leaving. Recent messages that it has not received are
    /// no longer expected.
    pub(crate) fn leave(&mut self, member: Incarnation, now: Instant) {
        self.settled[member] = false;
        for open in self.open.iter_mut().flatten() {
            let young = now.saturating_duration_since(open.published) < GRACE;
            if !young {
                continue;
            }
            if open.publisher == member {
                self.counts.orphans += 1;
                for delivery in &mut open.deliveries {
                    if *delivery == Delivery::Expected {
                        *delivery = Delivery::NotExpected;
                        self.counts.orphans_missed += 1;
                    }
                }
            } else if let Some(delivery) = open.deliveries.get_mut(member)
                && *delivery == Delivery::Expected
            {
                *delivery = Delivery::NotExpected;
            }
        }
    }

    /// Adds a message that is about to be published and returns its number.
    pub(crate) fn publish(&mut self, publisher: Incarnation, now: Instant) -> u64 {
        let expect = |(member, settled): (usize, &bool)| {
            if *settled && member != publisher {
                Delivery::Expected
            } else {
                Delivery::NotExpected
            }
        };
        self.open.push_back(Some(Open {
            published: now,
            publisher,
            deliveries: self.settled.iter().enumerate().map(expect).collect(),
        }));
        self.counts.published += 1;
        self.first + self.open.len() as u64 - 1
    }

    /// Removes a message that was not published.
    pub(crate) fn withdraw(&mut self, message: u64) {
        if let Some(open) = self.entry(message)
            && open.take().is_some()
        {
            self.counts.published -= 1;
        }
    }

    /// Records the delivery of a message.
    pub(crate) fn deliver(&mut self, message: u64, to: Incarnation, now: Instant) {
        if self.ended {
            return;
        }
        if message < self.first {
            self.counts.repeated += 1;
            return;
        }
        let Some(Some(open)) = self.entry(message) else {
            self.counts.unknown += 1;
            return;
        };
        let took = now.saturating_duration_since(open.published);
        if open.deliveries.len() <= to {
            open.deliveries.resize(to + 1, Delivery::NotExpected);
        }
        let delivery = &mut open.deliveries[to];
        match *delivery {
            Delivery::Expected => {
                *delivery = Delivery::Made;
                self.counts.time(took);
            }
            Delivery::NotExpected => {
                *delivery = Delivery::MadeNotRequired;
                self.counts.not_required += 1;
            }
            Delivery::Made | Delivery::MadeNotRequired => self.counts.repeated += 1,
        }
    }

    /// Closes all messages. Deliveries after that are not recorded: members that began a moment ago
    /// still receive the last messages, which they need not.
    pub(crate) fn end(&mut self, now: Instant) -> Vec<(u64, Incarnation)> {
        self.ended = true;
        self.close(now + WINDOW)
    }

    /// Closes messages that were published [`WINDOW`] ago. Returns each loss as
    /// message and member.
    pub(crate) fn close(&mut self, now: Instant) -> Vec<(u64, Incarnation)> {
        let mut lost = Vec::new();
        while let Some(front) = self.open.front() {
            let due = |open: &Open| now.saturating_duration_since(open.published) >= WINDOW;
            if !front.as_ref().is_none_or(due) {
                break;
            }
            for (member, delivery) in (self.open.pop_front().flatten().into_iter())
                .flat_map(|open| open.deliveries)
                .enumerate()
            {
                match delivery {
                    Delivery::Expected => lost.push((self.first, member)),
                    Delivery::Made => self.counts.delivered += 1,
                    Delivery::MadeNotRequired | Delivery::NotExpected => continue,
                }
                self.counts.expected += 1;
            }
            self.first += 1;
        }
        self.counts.lost += lost.len() as u64;
        lost
    }

    /// Returns the number of messages with missing deliveries.
    pub(crate) fn incomplete(&self) -> usize {
        let lacks = |open: &&Open| open.deliveries.contains(&Delivery::Expected);
        self.open.iter().flatten().filter(lacks).count()
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    fn entry(&mut self, message: u64) -> Option<&mut Option<Open>> {
        let nth = usize::try_from(message.checked_sub(self.first)?).ok()?;
        self.open.get_mut(nth)
    }
}

impl Counts {
    fn time(&mut self, took: Duration) {
        let above = |class: &usize| FIRST_CLASS * (1 << class) < took;
        let class = (0..CLASSES - 1).take_while(above).count();
        self.latencies[class] += 1;
        self.slowest = self.slowest.max(took);
    }

    /// Returns the upper end of the class that contains the given quantile.
    pub(crate) fn within(&self, share: f64) -> Duration {
        let all: u64 = self.latencies.iter().sum();
        let mut sum = 0;
        for (class, count) in self.latencies.iter().enumerate() {
            sum += count;
            if sum as f64 >= share * all as f64 {
                return FIRST_CLASS * (1 << class);
            }
        }
        self.slowest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn three() -> (Ledger, Instant) {
        let mut ledger = Ledger::default();
        for _ in 0..3 {
            let member = ledger.begin();
            ledger.settle(member);
        }
        (ledger, Instant::now())
    }

    #[test]
    fn deliveries_after_the_end_are_not_repeated() {
        let (mut ledger, now) = three();
        let message = ledger.publish(0, now);
        ledger.deliver(message, 1, now + SECOND);
        assert_eq!(ledger.end(now + SECOND), [(message, 2)]);
        ledger.deliver(message, 2, now + SECOND);
        assert_eq!((ledger.counts().lost, ledger.counts().repeated), (1, 0));
    }

    #[test]
    fn missing_deliveries_are_lost_and_second_ones_are_repeated() {
        let (mut ledger, now) = three();
        let message = ledger.publish(0, now);
        ledger.deliver(message, 1, now + SECOND);
        ledger.deliver(message, 1, now + SECOND);
        assert_eq!(ledger.incomplete(), 1);
        assert_eq!(ledger.close(now + WINDOW - SECOND), []);
        assert_eq!(ledger.close(now + WINDOW), [(message, 2)]);
        ledger.deliver(message, 2, now + WINDOW);
        ledger.deliver(7, 2, now);
        let counts = ledger.counts();
        assert_eq!((counts.expected, counts.delivered, counts.lost), (2, 1, 1));
        assert_eq!((counts.repeated, counts.unknown), (2, 1));
        assert!(counts.within(0.5) >= SECOND && counts.within(0.5) < 2 * SECOND);
    }

    #[test]
    fn new_and_leaving_members_need_not_receive_a_message() {
        let (mut ledger, now) = three();
        let early = ledger.publish(0, now);
        let newcomer = ledger.begin();
        let late = ledger.publish(0, now + GRACE);
        ledger.leave(1, now + GRACE);
        for (message, to) in [(early, 2), (late, 2), (late, newcomer)] {
            ledger.deliver(message, to, now + GRACE);
        }
        assert_eq!(ledger.close(now + 2 * WINDOW), [(early, 1)]);
        assert_eq!(ledger.counts().not_required, 1);
    }

    #[test]
    fn messages_of_a_leaving_publisher_are_orphans() {
        let (mut ledger, now) = three();
        let message = ledger.publish(0, now);
        ledger.deliver(message, 1, now);
        ledger.leave(0, now + SECOND);
        assert_eq!(ledger.close(now + WINDOW), []);
        let counts = ledger.counts();
        assert_eq!((counts.orphans, counts.orphans_missed), (1, 1));
        assert_eq!((counts.expected, counts.delivered), (1, 1));
    }

    #[test]
    fn a_message_that_was_refused_is_not_counted() {
        let (mut ledger, now) = three();
        let message = ledger.publish(0, now);
        ledger.withdraw(message);
        ledger.withdraw(message);
        assert_eq!(ledger.close(now + WINDOW), []);
        assert_eq!(ledger.counts().published, 0);
    }
}
