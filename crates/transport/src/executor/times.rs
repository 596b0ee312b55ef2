//! Queues of several accounts, in the order of the time that each has used.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use super::Account;

/// Number of accounts up to which none is removed: 64, which need a few KiB. Removal examines all.
const FEW: usize = 64;

/// Largest number of idle accounts with more time than others. An entry needs about 100 bytes.
const MAX_IDLE: usize = 4096;

/// Queues of items, one for each account.
#[derive(Debug)]
pub(super) struct Times<T> {
    accounts: HashMap<Account, Queue<T>>,
    /// Accounts whose queue is not empty, by the time that they have used.
    waiting: BTreeSet<(Duration, u64, Account)>,
    /// Time used by the account whose item was taken last. It advances with idle time as well, and
    /// never decreases.
    now: Duration,
    /// The longest time used.
    longest: Duration,
    /// Number of entries of `waiting` so far: of two accounts with the same time, the one that waits
    /// longer is next.
    entries: u64,
    /// Number of accounts above which those that are idle are removed.
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
            accounts: HashMap::new(),
            waiting: BTreeSet::new(),
            now: Duration::ZERO,
            longest: Duration::ZERO,
            entries: 0,
            limit: FEW,
        }
    }
}

impl<T> Times<T> {
    /// Adds an item to the end of the queue of an account.
    pub(super) fn push(&mut self, account: Account, item: T) {
        if self.accounts.len() >= self.limit {
            self.forget();
        }
        let queue = self.accounts.entry(account).or_default();
        queue.items.push_back(item);
        if queue.items.len() == 1 {
            queue.used = queue.used.max(self.now);
            self.entries += 1;
            queue.entry = self.entries;
            self.waiting.insert((queue.used, queue.entry, account));
        }
    }

    /// Takes the first item of the account that has used least.
    pub(super) fn pop(&mut self) -> Option<T> {
        let (used, _, account) = self.waiting.pop_first()?;
        self.now = self.now.max(used);
        let queue = self.accounts.get_mut(&account)?;
        let item = queue.items.pop_front();
        if !queue.items.is_empty() {
            self.entries += 1;
            queue.entry = self.entries;
            self.waiting.insert((queue.used, queue.entry, account));
        }
        item
    }

    /// The thread had nothing to do for a time, in which accounts that used more than others waited.
    pub(super) fn idle(&mut self, time: Duration) {
        self.now = self.longest.min(self.now + time).max(self.now);
    }

    /// Adds to the time that an account has used.
    pub(super) fn charge(&mut self, account: Account, used: Duration) {
        let queue = self.accounts.entry(account).or_default();
        let entry = (queue.used, queue.entry, account);
        queue.used = queue.used.max(self.now) + used;
        self.longest = self.longest.max(queue.used);
        if self.waiting.remove(&entry) {
            self.waiting.insert((queue.used, queue.entry, account));
        }
    }

    /// Removes the accounts that are idle and have used no more than others, and if too many are left,
    /// all that are idle.
    fn forget(&mut self) {
        let now = self.now;
        self.accounts
            .retain(|_, queue| !queue.items.is_empty() || queue.used > now);
        if self.accounts.len() >= self.waiting.len() + MAX_IDLE {
            self.accounts.retain(|_, queue| !queue.items.is_empty());
        }
        self.limit = FEW.max(self.accounts.len() * 2);
    }

    #[cfg(test)]
    pub(super) fn accounts(&self) -> usize {
        self.accounts.len()
    }
}
