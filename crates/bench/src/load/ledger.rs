//! Who should have which message, who has it, and what is missing. Pure: times are arguments.
//!
//! A message is expected of every member that was settled when it was published and is still
//! there [`GRACE`] later. It is closed [`WINDOW`] after it was published; whoever lacks it then
//! has lost it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// A member that leaves so soon after a message need not have it: 10 s, so that a process that
/// waits for its processor is not taken for one that loses.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// How long a message may take until it counts as lost: 60 s.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);

/// Upper ends of the classes that latencies are counted in: 0.1 ms, doubling, up to 52 s.
const CLASSES: usize = 20;
const FIRST_CLASS: Duration = Duration::from_micros(100);

/// One run of a node, from its start to its end. Numbered from 0.
pub(crate) type Incarnation = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    Expected,
    Made,
    /// Of somebody who need not have it.
    MadeUnasked,
    NotExpected,
}

#[derive(Debug)]
struct Open {
    published: Instant,
    publisher: Incarnation,
    /// By incarnation; those that came later are not in it.
    deliveries: Vec<Delivery>,
}

/// What is counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) published: u64,
    /// Deliveries expected of messages that are closed.
    pub(crate) expected: u64,
    /// Of these, made.
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    /// Messages told twice, and such as were told after they were closed.
    pub(crate) repeated: u64,
    /// Messages told that nobody published.
    pub(crate) unknown: u64,
    /// Deliveries made to those who need not have them: newcomers, and who was about to leave.
    pub(crate) unasked: u64,
    /// Messages whose publisher left within [`GRACE`], and what of them was not delivered.
    pub(crate) orphans: u64,
    pub(crate) orphans_missed: u64,
    latencies: [u64; CLASSES],
    pub(crate) slowest: Duration,
}

/// The accounts of all messages.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Those not closed, by number from `first` on. Nothing where a message was withdrawn.
    open: VecDeque<Option<Open>>,
    first: u64,
    /// Whether each incarnation is settled.
    settled: Vec<bool>,
    counts: Counts,
}

impl Ledger {
    /// A node has started.
    pub(crate) fn begin(&mut self) -> Incarnation {
        self.settled.push(false);
        self.settled.len() - 1
    }

    /// From now on it should have everything.
    pub(crate) fn settle(&mut self, member: Incarnation) {
        self.settled[member] = true;
    }

    /// It leaves: what it lacks of the last moments is not missed.
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

    /// A message is about to be published. Gives its number.
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

    /// It was not published.
    pub(crate) fn withdraw(&mut self, message: u64) {
        if let Some(open) = self.slot(message)
            && open.take().is_some()
        {
            self.counts.published -= 1;
        }
    }

    /// A node was told a message.
    pub(crate) fn deliver(&mut self, message: u64, to: Incarnation, now: Instant) {
        if message < self.first {
            self.counts.repeated += 1;
            return;
        }
        let Some(Some(open)) = self.slot(message) else {
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
                *delivery = Delivery::MadeUnasked;
                self.counts.unasked += 1;
            }
            Delivery::Made | Delivery::MadeUnasked => self.counts.repeated += 1,
        }
    }

    /// Closes what was published [`WINDOW`] ago. Gives each loss: the message and who lacks it.
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
                    Delivery::MadeUnasked | Delivery::NotExpected => continue,
                }
                self.counts.expected += 1;
            }
            self.first += 1;
        }
        self.counts.lost += lost.len() as u64;
        lost
    }

    /// Messages whose deliveries are not all made.
    pub(crate) fn incomplete(&self) -> usize {
        let lacks = |open: &&Open| open.deliveries.contains(&Delivery::Expected);
        self.open.iter().flatten().filter(lacks).count()
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    fn slot(&mut self, message: u64) -> Option<&mut Option<Open>> {
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

    /// The end of the class below which a share of the deliveries were made.
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
    fn what_nobody_got_is_lost_and_what_came_twice_is_repeated() {
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
    fn newcomers_and_those_about_to_leave_need_not_have_it() {
        let (mut ledger, now) = three();
        let early = ledger.publish(0, now);
        let newcomer = ledger.begin();
        let late = ledger.publish(0, now + GRACE);
        ledger.leave(1, now + GRACE);
        for (message, to) in [(early, 2), (late, 2), (late, newcomer)] {
            ledger.deliver(message, to, now + GRACE);
        }
        assert_eq!(ledger.close(now + 2 * WINDOW), [(early, 1)]);
        assert_eq!(ledger.counts().unasked, 1);
    }

    #[test]
    fn a_publisher_that_leaves_at_once_leaves_orphans() {
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
