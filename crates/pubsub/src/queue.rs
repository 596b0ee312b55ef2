//! A queue between a node and a consumer that may be slow.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// What comes out of an [`EventQueue`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Queued<C, M> {
    /// A control event.
    Control(C),
    /// A message.
    Message(M),
    /// Messages that were dropped since the last one that came out, because the consumer was too
    /// slow. Comes out where they are missing.
    Lagged {
        /// How many.
        missed: u64,
    },
}

/// A queue of messages `M` that is bounded in number and bytes, and of control events `C` that
/// always arrive.
///
/// - A message that does not fit pushes out the oldest ones, which are counted; the consumer is
///   told where they are missing. A message larger than the whole queue pushes out none and is
///   counted alone.
/// - Control events tell a state, and each names by its key `K` whose state. A newer one takes the
///   place of the one with the same key that has not been read, so there are never more than
///   there are keys, however slow the consumer is.
/// - Control events come out before messages.
#[derive(Debug)]
pub struct EventQueue<K, C, M> {
    max_messages: usize,
    max_bytes: usize,
    messages: VecDeque<Waiting<M>>,
    bytes: usize,
    /// Dropped after the last message that waits.
    missed: u64,
    missed_in_all: u64,
    control: VecDeque<K>,
    latest: HashMap<K, C>,
}

#[derive(Debug)]
struct Waiting<M> {
    message: M,
    bytes: usize,
    /// Dropped just before it.
    missed: u64,
}

impl<K: Clone + Eq + Hash, C, M> EventQueue<K, C, M> {
    /// A queue of at most `max_messages` messages of together at most `max_bytes` bytes.
    #[must_use]
    pub fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self {
            max_messages,
            max_bytes,
            messages: VecDeque::new(),
            bytes: 0,
            missed: 0,
            missed_in_all: 0,
            control: VecDeque::new(),
            latest: HashMap::new(),
        }
    }

    /// Adds a message of `bytes` bytes.
    pub fn push_message(&mut self, message: M, bytes: usize) {
        if bytes > self.max_bytes || self.max_messages == 0 {
            self.missed += 1;
            self.missed_in_all += 1;
            return;
        }
        while self.messages.len() >= self.max_messages || self.bytes > self.max_bytes - bytes {
            if !self.drop_oldest() {
                break;
            }
        }
        self.bytes += bytes;
        self.messages.push_back(Waiting {
            message,
            bytes,
            missed: std::mem::take(&mut self.missed),
        });
    }

    /// Adds a control event about `key`.
    pub fn push_control(&mut self, key: K, event: C) {
        if self.latest.insert(key.clone(), event).is_none() {
            self.control.push_back(key);
        }
    }

    /// Takes out what is next.
    pub fn pop(&mut self) -> Option<Queued<C, M>> {
        if let Some(key) = self.control.pop_front() {
            return self.latest.remove(&key).map(Queued::Control);
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

    /// Messages that wait.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.messages.len()
    }

    /// Bytes of the messages that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Control events that wait.
    #[must_use]
    pub fn controls(&self) -> usize {
        self.control.len()
    }

    /// Messages dropped since the beginning.
    #[must_use]
    pub fn missed_in_all(&self) -> u64 {
        self.missed_in_all
    }

    /// Drops the message that has waited longest; the gap moves on to what follows it.
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
    fn a_slow_consumer_is_told_what_it_missed_and_gets_the_latest() {
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
    fn bytes_are_bounded_as_well_and_a_giant_harms_nobody() {
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

    #[derive(Clone, Debug)]
    enum Step {
        Message(usize),
        Control(u8),
        Pop,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        prop::collection::vec(
            prop_oneof![
                3 => (0..12usize).prop_map(Step::Message),
                1 => (0..3u8).prop_map(Step::Control),
                2 => Just(Step::Pop),
            ],
            0..200,
        )
    }

    proptest! {
        /// Messages come out in order, each gap is exactly as long as told, the last control
        /// event of each key comes out, and the bounds hold.
        #[test]
        fn every_loss_is_told(steps in steps(), max_messages in 1..5usize, max_bytes in 1..20usize) {
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
                    Step::Pop => {
                        if let Some(event) = queue.pop() {
                            take(event, &mut latest);
                        }
                    }
                }
                prop_assert!(queue.messages() <= max_messages && queue.bytes() <= max_bytes);
            }
            let mut told = None;
            while let Some(event) = queue.pop() {
                told = Some(take(event, &mut latest));
            }
            prop_assert!(told.is_none_or(|told| told == pushed));
            prop_assert!(latest.is_empty());
        }
    }
}
