//! Checks of a message before it is delivered or forwarded: author, signature, repetition, age.
//!
//! The checks run where a connection reads, so that signatures are verified in parallel, and
//! cheapest first. A copy of a message that was verified before costs two hashes.
//!
//! # Replays
//!
//! An old message that a peer sends again is refused as follows. The sender is not blamed, since
//! it may have known no better, except where it repeats its own message.
//!
//! - A message among the last [`MemoryLimits::ids`] to twice as many is recognized by its id.
//! - Nodes of this kind use the time of publication as sequence number
//!   ([`crate::wire::time_of`]). Such a message is refused if it is more than 5 minutes
//!   old, or more than 30 s older than the newest message of its author, even at a node that has
//!   just started. A message that comes from its author directly is never too old, and
//!   shows how far the author's clock is off.
//! - rust-libp2p and go-libp2p count up from the time at which they started. Their messages are
//!   refused if they are far behind the newest one of their author. A node that has just started
//!   and has not received a message of that author cannot recognize an old one.
//! - js-libp2p chooses sequence numbers at random, which carry no order. Only the ids help.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use calimero_network_primitives::{PeerId, identity::PublicKey};

use crate::{
    ed25519::Verifier,
    rpc::Message,
    wire::{MessageId, TopicHash, is_plausible, time_of},
};

/// Age above which a message is refused whose sequence number is a time: 5 minutes. Clocks of
/// nodes may be off by as much; the blob protocol demands 30 s.
const MAX_AGE: Duration = Duration::from_secs(300);

/// How far a message may be behind the newest one of its author: 30 s. Members outside the mesh
/// get messages some heartbeats late, and queues hold them for some seconds.
const MAX_REORDER: u64 = 30_000_000_000;

/// The same for an author that counts messages: about a million messages, and 1 ms of the start
/// time of the author.
const MAX_COUNT_REORDER: u64 = 1 << 20;

/// How far the clock of an author may be ahead of what is known of it: a day, more than a time zone
/// that was set wrong.
const MAX_AHEAD: Duration = Duration::from_secs(86_400);

/// Authors whose key and order are remembered, in number, at most twice: some hundred bytes each.
const MAX_AUTHORS: usize = 4_096;

/// Messages of one author after which tables for its key are computed. Computing them takes as
/// long as checking three signatures, and each check takes half as long with them.
const TABLE_AFTER: u32 = 16;

/// Authors for whose keys there are tables, in number: 40 KiB each.
const MAX_TABLES: usize = 64;

/// A point in time: of the monotonic clock, and of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock, for all waits.
    pub at: Instant,
    /// Time since 1970 by the clock of the host, for the age of messages.
    pub unix: Duration,
}

/// How much is remembered of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Ids remembered, at most twice: 48 bytes each.
    pub ids: usize,
    /// Time after which the repetition of a message is a replay rather than a copy.
    pub settled: Duration,
    /// Largest payload accepted, in bytes.
    pub max_message_bytes: usize,
}

/// A keyed hash of a message id. The id itself is some 70 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key([u64; 2]);

/// Result of the checks of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The message is valid and has not been received before.
    New,
    /// The message has been received before.
    Copy {
        /// So long ago that no way through a mesh explains it.
        late: bool,
    },
    /// This node does not subscribe to the topic. Nothing else was checked.
    Unsubscribed,
    /// The payload is above the limit of this node.
    TooLarge,
    /// The message is older than what its author has published since, or than 5 minutes.
    Stale,
    /// The message is unsigned, signed by another key than its author's, or malformed.
    Invalid,
}

/// A message that has been checked.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The message that was checked.
    pub message: Message,
    /// The id of the message.
    pub id: MessageId,
    /// The hash of its id.
    pub key: Key,
    /// Result of the checks.
    pub verdict: Verdict,
}

/// The order of an author's sequence numbers, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Order {
    #[default]
    Unknown,
    /// Each number is a time of publication.
    Times,
    /// A counter that starts at a time.
    Counter,
    /// The numbers have no order.
    Random,
}

#[derive(Clone, Debug)]
struct Author {
    text: Arc<str>,
    key: PublicKey,
    verified: u32,
    verifier: Option<Arc<Verifier>>,
    order: Order,
    /// The last number was marked as a time. A counter carries the mark once in 65,536 numbers, so
    /// two marks in a row are no accident.
    marked: bool,
    highest: u64,
    /// The author's clock minus ours, in nanoseconds, as its own connection showed it.
    ahead: i128,
}

impl Author {
    fn new(id: &PeerId, key: PublicKey) -> Self {
        Self {
            text: id.to_base58().into(),
            key,
            verified: 0,
            verifier: None,
            order: Order::Unknown,
            marked: false,
            highest: 0,
            ahead: 0,
        }
    }

    fn is_stale(&self, number: u64, unix: Duration) -> bool {
        if !is_plausible(number) || self.is_far_ahead(number, unix) {
            return false;
        }
        let time = time_of(number);
        let order = match time {
            Some(_) if self.marked => Order::Times,
            _ => self.order,
        };
        let reorder = match order {
            Order::Random => return false,
            Order::Counter => MAX_COUNT_REORDER,
            Order::Unknown | Order::Times => MAX_REORDER,
        };
        if number < self.highest.saturating_sub(reorder) {
            return true;
        }
        // A counter carries the mark of a time by accident.
        let time = time.filter(|_| order != Order::Counter);
        time.is_some_and(|time| nanos(unix) + self.ahead - nanos(time) > nanos(MAX_AGE))
    }

    /// Returns `true` if `number` looks like a time at which the author cannot have published yet:
    /// a random number.
    fn is_far_ahead(&self, number: u64, unix: Duration) -> bool {
        i128::from(number) > nanos(unix) + self.ahead.max(0) + nanos(MAX_AHEAD)
    }

    /// Learns from a valid message; `direct` if it came on a connection with its author.
    fn learn(&mut self, number: u64, direct: bool, unix: Duration) {
        let time = time_of(number);
        let before = std::mem::replace(&mut self.marked, time.is_some());
        let is_random = self.is_far_ahead(number, unix) && !(direct && time.is_some());
        if is_random || !is_plausible(number) {
            (self.order, self.marked, self.highest) = (Order::Random, false, 0);
            return;
        }
        match time {
            Some(time) if direct => {
                self.order = Order::Times;
                self.ahead = nanos(time) - nanos(unix);
                if number < self.highest.saturating_sub(MAX_REORDER) {
                    // The author's clock was set back.
                    self.highest = number;
                }
            }
            // The author may have been restarted as a node of this version.
            Some(_) if before || self.order == Order::Unknown => self.order = Order::Times,
            None if self.order != Order::Random => self.order = Order::Counter,
            _ => {}
        }
        self.highest = self.highest.max(number);
    }
}

fn nanos(time: Duration) -> i128 {
    i128::try_from(time.as_nanos()).unwrap_or(i128::MAX)
}

/// Two generations of a table: when the newer one is full, it replaces the older one.
#[derive(Debug)]
struct Generations<K, V> {
    capacity: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + std::hash::Hash, V> Generations<K, V> {
    fn new(capacity: usize) -> Self {
        Self {
            capacity,
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }

    fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.capacity {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// Returns the value, which moves to the newer generation, or that of `new`.
    fn get_or_insert(&mut self, key: K, new: impl FnOnce() -> V) -> Option<&mut V>
    where
        K: Copy,
    {
        if !self.young.contains_key(&key) {
            let value = self.old.remove(&key).unwrap_or_else(new);
            self.insert(key, value);
        }
        self.young.get_mut(&key)
    }
}

#[derive(Debug)]
struct Known {
    subscribed: HashSet<TopicHash>,
    seen: Generations<Key, Instant>,
    authors: Generations<PeerId, Author>,
    tables: usize,
}

#[derive(Debug)]
struct Shared {
    limits: MemoryLimits,
    keys: [RandomState; 2],
    known: Mutex<Known>,
}

/// Checks messages. Clones share what they know.
#[derive(Clone, Debug)]
pub struct Validator(Arc<Shared>);

impl Validator {
    /// A validator that knows no message. `keys` are the random keys of its hashes.
    #[must_use]
    pub fn new(limits: MemoryLimits, keys: [RandomState; 2]) -> Self {
        Self(Arc::new(Shared {
            limits,
            keys,
            known: Mutex::new(Known {
                subscribed: HashSet::new(),
                seen: Generations::new(limits.ids),
                authors: Generations::new(MAX_AUTHORS),
                tables: 0,
            }),
        }))
    }

    /// Checks a message that came on a connection with `sender`.
    #[must_use]
    pub fn check(&self, message: Message, sender: &PeerId, now: Now) -> Checked {
        let author = self.known().authors.get(&message.author).cloned();
        // Author and key first: a fast path below may only see what is valid in every field.
        let known = match author {
            Some(author) if is_key_of(&message, &author.key) => Some(author),
            Some(_) => None,
            None => (message.public_key()).map(|key| Author::new(&message.author, key)),
        };
        let Some(author) = known else {
            let id = MessageId::with_text("", message.sequence_number);
            let key = self.key(id.as_bytes());
            return Checked {
                message,
                id,
                key,
                verdict: Verdict::Invalid,
            };
        };
        let id = MessageId::with_text(&author.text, message.sequence_number);
        let key = self.key(id.as_bytes());
        let verdict = self.judge(&message, &author, key, sender, now);
        Checked {
            message,
            id,
            key,
            verdict,
        }
    }

    fn judge(
        &self,
        message: &Message,
        author: &Author,
        key: Key,
        sender: &PeerId,
        now: Now,
    ) -> Verdict {
        let number = message.sequence_number;
        {
            let known = self.known();
            if !known.subscribed.contains(&message.topic) {
                return Verdict::Unsubscribed;
            }
            if let Some(since) = known.seen.get(&key) {
                let late = now.at.saturating_duration_since(*since) >= self.0.limits.settled;
                return Verdict::Copy { late };
            }
        }
        if message.payload_len() > self.0.limits.max_message_bytes {
            return Verdict::TooLarge;
        }
        let direct = message.author == *sender;
        if !direct && author.is_stale(number, now.unix) {
            return Verdict::Stale;
        }
        // The tables accept what the key accepts; a refusal is rare enough to be checked twice.
        let verifier = author.verifier.as_deref();
        let signed = verifier.is_some_and(|verifier| message.verify_with(verifier))
            || message.verify(&author.key);
        if !signed {
            return Verdict::Invalid;
        }
        self.learn(message, author, direct, now);
        Verdict::New
    }

    fn learn(&self, message: &Message, author: &Author, direct: bool, now: Now) {
        let mut known = self.known();
        let id = message.author;
        let Some(author) = known.authors.get_or_insert(id, || author.clone()) else {
            return;
        };
        author.learn(message.sequence_number, direct, now.unix);
        author.verified = author.verified.saturating_add(1);
        if author.verified != TABLE_AFTER {
            return;
        }
        let Some(verifier) = Verifier::new(&author.key) else {
            return;
        };
        author.verifier = Some(Arc::new(verifier));
        known.tables += 1;
        if known.tables > MAX_TABLES {
            known.drop_tables(&id);
        }
    }

    /// Remembers a message. Returns `false` if it was remembered before. Only a message that was
    /// verified may be remembered: a forged one would hide the real one.
    pub fn remember(&self, key: Key, now: Instant) -> bool {
        let mut known = self.known();
        let is_new = known.seen.get(&key).is_none();
        if is_new {
            known.seen.insert(key, now);
        }
        is_new
    }

    /// Returns `true` if the message with the hashed id `key` is remembered.
    #[must_use]
    pub fn has_seen(&self, key: Key) -> bool {
        self.known().seen.get(&key).is_some()
    }

    /// Returns the hash of a message id.
    #[must_use]
    pub fn key(&self, id: &[u8]) -> Key {
        Key([self.0.keys[0].hash_one(id), self.0.keys[1].hash_one(id)])
    }

    /// Accepts messages of `topic` from now on.
    pub fn subscribe(&self, topic: TopicHash) {
        self.known().subscribed.insert(topic);
    }

    /// Refuses messages of `topic` from now on.
    pub fn unsubscribe(&self, topic: &TopicHash) {
        self.known().subscribed.remove(topic);
    }

    /// The lock is held for some lookups at most, and none of them panics.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns `true` if the message names no other key than `key`, byte for byte.
fn is_key_of(message: &Message, key: &PublicKey) -> bool {
    message
        .key
        .as_ref()
        .is_none_or(|bytes| key.encode_protobuf() == bytes[..])
}

impl Known {
    /// Drops all tables but those of one author. Authors that still publish get new ones.
    fn drop_tables(&mut self, except: &PeerId) {
        let authors = self.authors.young.iter_mut().chain(&mut self.authors.old);
        for (_, author) in authors.filter(|(id, _)| *id != except) {
            if author.verifier.take().is_some() {
                author.verified = 0;
            }
        }
        self.tables = 1;
    }
}

#[cfg(test)]
mod tests;
