//! Queues of several origins, in the order of the time that each has used.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use calimero_network_primitives::resources::Origin;

/// Number of origins up to which none is removed: 64, which need a few KiB. Removal examines all.
const FEW: usize = 64;

/// Largest number of idle origins with more time than others. An entry needs about 100 bytes.
const MAX_IDLE: usize = 4096;

/// Queues of items, one for each origin.
#[derive(Debug)]
pub(super) struct Times<T> {
    origins: HashMap<Option<Origin>, Queue<T>>,
    /// Origins whose queue is not empty, by the time that they have used.
    waiting: BTreeSet<(Duration, u64, Option<Origin>)>,
    /// Time used by the origin whose item was taken last, or the longest once no item waits. It never
    /// decreases.
    now: Duration,
    /// The longest time used.
    longest: Duration,
    /// Number of entries of `waiting` so far: of two origins with the same time, the one that waits
    /// longer is next.
    entries: u64,
    /// Number of origins above which those that are idle are removed.
    limit: usize,
}

#[derive(Debug)]
struct Queue<T> {
    items: VecDeque<T>,
    used: Duration,
    /// The number of its entry in `waiting`.
    entry: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            items: VecDeque::new(),
            used: Duration::ZERO,
            entry: 0,
        }
    }
}

impl<T> Default for Times<T> {
    fn default() -> Self {
        Self {
            origins: HashMap::new(),
            waiting: BTreeSet::new(),
            now: Duration::ZERO,
            longest: Duration::ZERO,
            entries: 0,
            limit: FEW,
        }
    }
}

impl<T> Times<T> {
    /// Adds an item to the end of the queue of an origin.
    pub(super) fn push(&mut self, origin: Option<Origin>, item: T) {
        if self.origins.len() >= self.limit {
            self.forget();
        }
        let queue = self.origins.entry(origin).or_default();
        queue.items.push_back(item);
        if queue.items.len() == 1 {
            queue.used = queue.used.max(self.now);
            self.entries += 1;
            queue.entry = self.entries;
            self.waiting.insert((queue.used, queue.entry, origin));
        }
    }

    /// Takes the first item of the origin that has used least.
    pub(super) fn pop(&mut self) -> Option<T> {
        let Some((used, _, origin)) = self.waiting.pop_first() else {
            // The thread is not saturated, so no origin has to wait for others.
            self.now = self.longest;
            return None;
        };
        self.now = self.now.max(used);
        let queue = self.origins.get_mut(&origin)?;
        let item = queue.items.pop_front();
        if !queue.items.is_empty() {
            self.entries += 1;
            queue.entry = self.entries;
            self.waiting.insert((queue.used, queue.entry, origin));
        }
        item
    }

    /// Adds to the time that an origin has used.
    pub(super) fn charge(&mut self, origin: Option<Origin>, used: Duration) {
        let queue = self.origins.entry(origin).or_default();
        let entry = (queue.used, queue.entry, origin);
        queue.used = queue.used.max(self.now) + used;
        self.longest = self.longest.max(queue.used);
        if self.waiting.remove(&entry) {
            self.waiting.insert((queue.used, queue.entry, origin));
        }
    }

    /// Removes the origins that are idle and have used no more than others, and if too many are left,
    /// all that are idle.
    fn forget(&mut self) {
        let now = self.now;
        self.origins
            .retain(|_, queue| !queue.items.is_empty() || queue.used > now);
        if self.origins.len() >= self.waiting.len() + MAX_IDLE {
            self.origins.retain(|_, queue| !queue.items.is_empty());
        }
        self.limit = FEW.max(self.origins.len() * 2);
    }

    #[cfg(test)]
    pub(super) fn origins(&self) -> usize {
        self.origins.len()
    }
}
