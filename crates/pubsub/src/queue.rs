//! A queue between a node and a consumer that may be slow.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::Hash,
};

/// An item read from an [`EventQueue`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Queued<C, M> {
    /// A control event, of which none is dropped.
    Control(C),
    /// A message, in the order in which it arrived.
    Message(M),
    /// Messages were dropped because the consumer was too slow. Returned in their place.
    Lagged {
        /// Number of messages that are missing here.
        missed: u64,
    },
}

/// A queue of messages `M` that is bounded in number and bytes, and of control events `C` that
/// always arrive.
///
/// - Items are read in the order in which they were added.
/// - A message that does not fit pushes out the oldest ones, which are counted; the consumer reads
///   [`Queued::Lagged`] in their place. A message larger than the whole queue pushes out none and
///   is counted alone.
/// - A control event describes the state of its key `K`. A newer one replaces the one with the same
///   key that has not been read, and one that has become void is [retracted](Self::retract), so
///   there are never more than there are keys, however slow the consumer is.
#[derive(Debug)]
pub struct EventQueue<K, C, M> {
    max_messages: usize,
    max_bytes: usize,
    /// Number of the next item.
    next: u64,
    messages: VecDeque<Waiting<M>>,
    bytes: usize,
    /// Messages dropped after the last one that waits.
    missed: u64,
    missed_in_all: u64,
    /// The control events that wait, by their number.
    order: BTreeMap<u64, K>,
    latest: HashMap<K, (u64, C)>,
}

#[derive(Debug)]
struct Waiting<M> {
    number: u64,
    message: M,
    bytes: usize,
    /// Messages dropped just before this one.
    missed: u64,
}

impl<K: Clone + Eq + Hash, C, M> EventQueue<K, C, M> {
    /// A queue of at most `max_messages` messages of together at most `max_bytes` bytes.
    #[must_use]
    pub fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self {
            max_messages,
            max_bytes,
            next: 0,
            messages: VecDeque::new(),
            bytes: 0,
            missed: 0,
            missed_in_all: 0,
            order: BTreeMap::new(),
            latest: HashMap::new(),
        }
    }

    /// Adds a message of `bytes` bytes.
    pub fn push_message(&mut self, message: M, bytes: usize) {
        if bytes > self.max_bytes || self.max_messages == 0 {
            self.miss(1);
            return;
        }
        while self.messages.len() >= self.max_messages || self.bytes > self.max_bytes - bytes {
            if !self.drop_oldest() {
                break;
            }
        }
        self.bytes += bytes;
        let number = self.number();
        self.messages.push_back(Waiting {
            number,
            message,
            bytes,
            missed: std::mem::take(&mut self.missed),
        });
    }

    /// Counts messages as dropped that were never added.
    pub fn miss(&mut self, messages: u64) {
        self.missed += messages;
        self.missed_in_all += messages;
    }

    /// Adds a control event about `key`, which replaces the one that waits.
    pub fn push_control(&mut self, key: K, event: C) {
        if let Some((_, latest)) = self.latest.get_mut(&key) {
            *latest = event;
            return;
        }
        let number = self.number();
        self.order.insert(number, key.clone());
        self.latest.insert(key, (number, event));
    }

    /// Returns the control event about `key` that waits.
    pub fn control_mut(&mut self, key: &K) -> Option<&mut C> {
        self.latest.get_mut(key).map(|(_, event)| event)
    }

    /// Removes the control event about `key` that waits.
    pub fn retract(&mut self, key: &K) -> Option<C> {
        let (number, event) = self.latest.remove(key)?;
        self.order.remove(&number);
        Some(event)
    }

    /// Removes every control event that waits and for whose key `is_void` returns `true`.
    pub fn retract_where(&mut self, mut is_void: impl FnMut(&K) -> bool) {
        self.order.retain(|_, key| {
            let stays = !is_void(key);
            if !stays {
                self.latest.remove(key);
            }
            stays
        });
    }

    /// Removes and returns the next item.
    pub fn pop(&mut self) -> Option<Queued<C, M>> {
        let message = self.messages.front().map(|waiting| waiting.number);
        if let Some(control) = self.order.first_entry()
            && message.is_none_or(|message| *control.key() < message)
        {
            let (_, event) = self.latest.remove(&control.remove())?;
            return Some(Queued::Control(event));
        }
        let missed = match self.messages.front_mut() {
            Some(waiting) => &mut waiting.missed,
            None => &mut self.missed,
        };
        if *missed > 0 {
            let missed = std::mem::take(missed);
            return Some(Queued::Lagged { missed });
        }
        let Waiting { message, bytes, .. } = self.messages.pop_front()?;
        self.bytes -= bytes;
        Some(Queued::Message(message))
    }

    /// Returns how many messages wait.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.messages.len()
    }

    /// Returns how many bytes of messages wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns how many control events wait.
    #[must_use]
    pub fn controls(&self) -> usize {
        self.order.len()
    }

    /// Returns how many messages were dropped in all.
    #[must_use]
    pub fn missed_in_all(&self) -> u64 {
        self.missed_in_all
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Drops the message that has waited longest. The gap is counted with the one that follows it.
    fn drop_oldest(&mut self) -> bool {
        let Some(Waiting { bytes, missed, .. }) = self.messages.pop_front() else {
            return false;
        };
        self.bytes -= bytes;
        self.missed_in_all += 1;
        match self.messages.front_mut() {
            Some(next) => next.missed += missed + 1,
            None => self.missed += missed + 1,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Queue = EventQueue<u8, (u8, u32), u32>;

    fn drain(queue: &mut Queue) -> Vec<Queued<(u8, u32), u32>> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn a_slow_consumer_learns_what_it_missed_and_gets_the_latest() {
        let mut queue = Queue::new(3, 1000);
        (0..10).for_each(|n| queue.push_message(n, 1));
        let missed = 7;
        assert_eq!(
            drain(&mut queue),
            [
                Queued::Lagged { missed },
                Queued::Message(7),
                Queued::Message(8),
                Queued::Message(9)
            ]
        );
        queue.push_message(10, 1);
        assert_eq!(drain(&mut queue), [Queued::Message(10)]);
        assert_eq!(queue.missed_in_all(), 7);
    }

    #[test]
    fn bytes_are_bounded_as_well_and_a_giant_harms_no_other() {
        let mut queue = Queue::new(100, 10);
        queue.push_message(0, 6);
        queue.push_message(1, 4);
        queue.push_message(2, 11);
        assert_eq!((queue.messages(), queue.bytes()), (2, 10));
        queue.push_message(3, 1);
        assert_eq!((queue.messages(), queue.bytes()), (2, 5));
        let lagged = Queued::Lagged { missed: 1 };
        assert_eq!(
            drain(&mut queue),
            [
                lagged.clone(),
                Queued::Message(1),
                lagged,
                Queued::Message(3)
            ]
        );
    }

    #[test]
    fn control_events_always_arrive_and_their_number_is_that_of_their_keys() {
        let mut queue = Queue::new(2, 2);
        for n in 0..1000 {
            queue.push_control(u8::try_from(n % 3).unwrap(), (0, n));
            queue.push_message(n, 1);
        }
        assert_eq!(queue.controls(), 3);
        let out = drain(&mut queue);
        assert_eq!(
            out[..3],
            [
                Queued::Control((0, 999)),
                Queued::Control((0, 997)),
                Queued::Control((0, 998))
            ]
        );
        assert_eq!(out[3..].len(), 3);
    }

    #[test]
    fn what_fits_comes_out_in_the_order_it_came() {
        let mut queue = Queue::new(10, 10);
        queue.push_message(0, 1);
        queue.push_control(1, (1, 0));
        queue.push_message(1, 1);
        queue.push_control(2, (2, 0));
        assert_eq!(
            drain(&mut queue),
            [
                Queued::Message(0),
                Queued::Control((1, 0)),
                Queued::Message(1),
                Queued::Control((2, 0))
            ]
        );
    }

    #[test]
    fn what_is_retracted_does_not_come_out() {
        let mut queue = Queue::new(1, 1);
        queue.push_control(1, (1, 7));
        queue.push_control(2, (2, 7));
        assert_eq!(queue.control_mut(&1), Some(&mut (1, 7)));
        assert_eq!(queue.retract(&1), Some((1, 7)));
        assert_eq!(queue.retract(&1), None);
        queue.push_control(3, (3, 7));
        queue.retract_where(|key| *key == 3);
        assert_eq!(drain(&mut queue), [Queued::Control((2, 7))]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Message(usize),
        Control(u8),
        Retract(u8),
        Pop,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        prop::collection::vec(
            prop_oneof![
                3 => (0..12usize).prop_map(Step::Message),
                1 => (0..3u8).prop_map(Step::Control),
                1 => (0..3u8).prop_map(Step::Retract),
                2 => Just(Step::Pop),
            ],
            0..200,
        )
    }

    proptest! {
        /// Messages come out in order, each gap is exactly as long as counted, the last control
        /// event of each key comes out, and the bounds hold.
        #[test]
        fn every_loss_is_counted(steps in steps(), max_messages in 1..5usize, max_bytes in 1..20usize) {
            let mut queue = Queue::new(max_messages, max_bytes);
            let mut latest: HashMap<u8, u32> = HashMap::new();
            let (mut pushed, mut expected) = (0, 0);
            let mut take = |event, latest: &mut HashMap<u8, u32>| {
                match event {
                    Queued::Lagged { missed } => expected += u32::try_from(missed).unwrap(),
                    Queued::Message(number) => {
                        assert_eq!(number, expected);
                        expected += 1;
                    }
                    Queued::Control((key, number)) => {
                        assert_eq!(latest.remove(&key), Some(number));
                    }
                }
                expected
            };
            for (number, step) in (0..).zip(steps) {
                match step {
                    Step::Message(bytes) => {
                        queue.push_message(pushed, bytes);
                        pushed += 1;
                    }
                    Step::Control(key) => {
                        queue.push_control(key, (key, number));
                        latest.insert(key, number);
                    }
                    Step::Retract(key) => {
                        let waits = latest.remove(&key).map(|number| (key, number));
                        prop_assert_eq!(queue.retract(&key), waits);
                    }
                    Step::Pop => {
                        if let Some(event) = queue.pop() {
                            take(event, &mut latest);
                        }
                    }
                }
                prop_assert!(queue.messages() <= max_messages && queue.bytes() <= max_bytes);
            }
            let mut read = None;
            while let Some(event) = queue.pop() {
                read = Some(take(event, &mut latest));
            }
            prop_assert!(read.is_none_or(|read| read == pushed));
            prop_assert!(latest.is_empty());
        }
    }
}
