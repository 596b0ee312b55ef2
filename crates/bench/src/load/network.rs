//! State that all load tasks share: the members, the expected deliveries and
//! the faults.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use calimero_network::{BlobId, NetworkConfig, Topic};
use rand::seq::IndexedRandom as _;

use super::{
    LoadArgs,
    ledger::Ledger,
    member::{Member, NodeState},
};

/// Largest number of faults that are stored with their text. Further faults are
/// only counted.
const MAX_FAULTS: usize = 50;

/// Counters other than those of messages.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) refused: AtomicU64,
    pub(crate) streams: AtomicU64,
    pub(crate) echoed_bytes: AtomicU64,
    pub(crate) fetches: AtomicU64,
    pub(crate) fetched_bytes: AtomicU64,
    /// Streams and fetches that failed because one of their nodes left.
    pub(crate) cut: AtomicU64,
    pub(crate) restarts: AtomicU64,
    pub(crate) blobs_checked: AtomicU64,
    pub(crate) faults: AtomicU64,
}

/// Durations of rare operations.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    pub(crate) joins: Vec<Duration>,
    pub(crate) rejoins: Vec<Duration>,
    pub(crate) shutdowns: Vec<Duration>,
}

/// The network under load.
pub(crate) struct Network {
    pub(crate) args: LoadArgs,
    pub(crate) config: NetworkConfig,
    pub(crate) topics: Vec<Topic>,
    states: Vec<Mutex<NodeState>>,
    ledger: Mutex<Ledger>,
    /// Running members, by position.
    present: Mutex<Vec<Option<Arc<Member>>>>,
    /// Settled members, by position.
    settled: Mutex<Vec<Option<Arc<Member>>>>,
    pub(crate) tally: Tally,
    times: Mutex<Times>,
    faults: Mutex<Vec<String>>,
    /// Largest scheduling delay of the harness, in microseconds.
    late_micros: AtomicU64,
}

impl Network {
    pub(crate) fn new(
        args: LoadArgs,
        config: NetworkConfig,
        topics: Vec<Topic>,
        states: Vec<NodeState>,
    ) -> Self {
        Self {
            args,
            config,
            topics,
            ledger: Mutex::default(),
            present: Mutex::new(vec![None; states.len()]),
            settled: Mutex::new(vec![None; states.len()]),
            states: states.into_iter().map(Mutex::new).collect(),
            tally: Tally::default(),
            times: Mutex::default(),
            faults: Mutex::default(),
            late_micros: AtomicU64::new(0),
        }
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    pub(crate) fn position(&self, position: usize) -> MutexGuard<'_, NodeState> {
        lock(&self.states[position])
    }

    pub(crate) fn times(&self) -> MutexGuard<'_, Times> {
        lock(&self.times)
    }

    /// Records a fault.
    pub(crate) fn fault(&self, what: String) {
        self.tally.faults.fetch_add(1, Ordering::Relaxed);
        let mut faults = lock(&self.faults);
        if faults.len() < MAX_FAULTS {
            eprintln!("fault: {what}");
            faults.push(what);
        }
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        lock(&self.faults).clone()
    }

    /// Returns the largest scheduling delay of the process. No operation in it
    /// can be faster.
    pub(crate) fn largest_delay(&self) -> Duration {
        Duration::from_micros(self.late_micros.load(Ordering::Relaxed))
    }

    /// Records a scheduling delay.
    pub(crate) fn late(&self, by: Duration) {
        let micros = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        self.late_micros.fetch_max(micros, Ordering::Relaxed);
    }

    pub(crate) fn appear(&self, member: &Arc<Member>) {
        lock(&self.present)[member.position] = Some(member.clone());
    }

    /// Adds a member to the load and expects all later messages from it.
    pub(crate) fn settle(&self, member: &Arc<Member>) {
        self.ledger().settle(member.incarnation);
        lock(&self.settled)[member.position] = Some(member.clone());
    }

    /// Removes a member that is about to end.
    pub(crate) fn leave(&self, member: &Member) {
        lock(&self.settled)[member.position] = None;
        lock(&self.present)[member.position] = None;
        self.ledger().leave(member.incarnation, Instant::now());
    }

    /// Returns `true` if both members are still settled.
    pub(crate) fn both_stayed(&self, one: &Member, other: &Member) -> bool {
        let settled = lock(&self.settled);
        [one, other].iter().all(|member| {
            let there = settled[member.position].as_ref();
            there.is_some_and(|there| there.incarnation == member.incarnation)
        })
    }

    pub(crate) fn present(&self) -> Vec<Arc<Member>> {
        lock(&self.present).iter().flatten().cloned().collect()
    }

    pub(crate) fn settled_count(&self) -> usize {
        lock(&self.settled).iter().flatten().count()
    }

    /// Returns a random settled member.
    pub(crate) fn random_member(&self) -> Option<Arc<Member>> {
        let settled: Vec<_> = lock(&self.settled).iter().flatten().cloned().collect();
        settled.choose(&mut rand::rng()).cloned()
    }

    /// Returns two random settled members that are connected.
    pub(crate) async fn random_connected_pair(&self) -> Option<(Arc<Member>, Arc<Member>)> {
        let one = self.random_member()?;
        let topic = self.topics.choose(&mut rand::rng())?.clone();
        let known = one.client.subscribed_peers(&topic).await.ok()?;
        let settled = lock(&self.settled);
        let among: Vec<_> = (settled.iter().flatten())
            .filter(|other| known.contains(&other.peer()))
            .cloned()
            .collect();
        drop(settled);
        let other = among.choose(&mut rand::rng())?.clone();
        Some((one, other))
    }

    /// Records a blob that a store has confirmed. Returns the oldest blob if
    /// there are too many.
    pub(crate) fn acknowledged(&self, position: usize, blob: BlobId) -> Option<BlobId> {
        let mut position = self.position(position);
        if position.acknowledged.contains(&blob) {
            return None;
        }
        position.acknowledged.push_back(blob);
        (position.acknowledged.len() > self.args.blobs_kept)
            .then(|| position.acknowledged.pop_front())
            .flatten()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
