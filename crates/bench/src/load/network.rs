//! What everybody who loads the network knows: who is in it, what is expected, what went wrong.

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
    member::{Member, Place},
};

/// Faults told in words; more are counted.
const MAX_FAULTS: usize = 50;

/// What is counted beside messages.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) refused: AtomicU64,
    pub(crate) streams: AtomicU64,
    pub(crate) echoed_bytes: AtomicU64,
    pub(crate) fetches: AtomicU64,
    pub(crate) fetched_bytes: AtomicU64,
    /// Streams and fetches one of whose ends left meanwhile.
    pub(crate) cut: AtomicU64,
    pub(crate) restarts: AtomicU64,
    pub(crate) blobs_checked: AtomicU64,
    pub(crate) faults: AtomicU64,
}

/// Times of what happens seldom, all of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    pub(crate) joins: Vec<Duration>,
    pub(crate) rejoins: Vec<Duration>,
    pub(crate) shutdowns: Vec<Duration>,
}

/// A network under load.
pub(crate) struct Network {
    pub(crate) args: LoadArgs,
    pub(crate) config: NetworkConfig,
    pub(crate) topics: Vec<Topic>,
    places: Vec<Mutex<Place>>,
    ledger: Mutex<Ledger>,
    /// Those that run, by place.
    present: Mutex<Vec<Option<Arc<Member>>>>,
    /// Those that should have everything, by place.
    settled: Mutex<Vec<Option<Arc<Member>>>>,
    pub(crate) tally: Tally,
    times: Mutex<Times>,
    faults: Mutex<Vec<String>>,
    /// How late a turn of the harness came at the most, in microseconds.
    late_micros: AtomicU64,
}

impl Network {
    pub(crate) fn new(
        args: LoadArgs,
        config: NetworkConfig,
        topics: Vec<Topic>,
        places: Vec<Place>,
    ) -> Self {
        Self {
            args,
            config,
            topics,
            ledger: Mutex::default(),
            present: Mutex::new(vec![None; places.len()]),
            settled: Mutex::new(vec![None; places.len()]),
            places: places.into_iter().map(Mutex::new).collect(),
            tally: Tally::default(),
            times: Mutex::default(),
            faults: Mutex::default(),
            late_micros: AtomicU64::new(0),
        }
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    pub(crate) fn place(&self, place: usize) -> MutexGuard<'_, Place> {
        lock(&self.places[place])
    }

    pub(crate) fn times(&self) -> MutexGuard<'_, Times> {
        lock(&self.times)
    }

    /// Something that must not happen has happened.
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

    /// How late a turn of the process came at the most: what nobody in it can be faster than.
    pub(crate) fn latest_turn(&self) -> Duration {
        Duration::from_micros(self.late_micros.load(Ordering::Relaxed))
    }

    /// A turn came so late.
    pub(crate) fn late(&self, by: Duration) {
        let micros = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        self.late_micros.fetch_max(micros, Ordering::Relaxed);
    }

    pub(crate) fn appear(&self, member: &Arc<Member>) {
        lock(&self.present)[member.place] = Some(member.clone());
    }

    /// From now on it takes part in everything and everything is expected of it.
    pub(crate) fn settle(&self, member: &Arc<Member>) {
        self.ledger().settle(member.incarnation);
        lock(&self.settled)[member.place] = Some(member.clone());
    }

    /// It takes part no more, and is about to end.
    pub(crate) fn leave(&self, member: &Member) {
        lock(&self.settled)[member.place] = None;
        lock(&self.present)[member.place] = None;
        self.ledger().leave(member.incarnation, Instant::now());
    }

    /// Whether both have stayed.
    pub(crate) fn both_stayed(&self, one: &Member, other: &Member) -> bool {
        let settled = lock(&self.settled);
        [one, other].iter().all(|member| {
            let there = settled[member.place].as_ref();
            there.is_some_and(|there| there.incarnation == member.incarnation)
        })
    }

    pub(crate) fn present(&self) -> Vec<Arc<Member>> {
        lock(&self.present).iter().flatten().cloned().collect()
    }

    pub(crate) fn settled_count(&self) -> usize {
        lock(&self.settled).iter().flatten().count()
    }

    /// Somebody who is settled.
    pub(crate) fn anybody(&self) -> Option<Arc<Member>> {
        let settled: Vec<_> = lock(&self.settled).iter().flatten().cloned().collect();
        settled.choose(&mut rand::rng()).cloned()
    }

    /// Two who are settled and connected.
    pub(crate) async fn two_connected(&self) -> Option<(Arc<Member>, Arc<Member>)> {
        let one = self.anybody()?;
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

    /// A store has said that a blob is there. Gives one to be removed, the oldest of too many.
    pub(crate) fn acknowledged(&self, place: usize, blob: BlobId) -> Option<BlobId> {
        let mut place = self.place(place);
        if place.acknowledged.contains(&blob) {
            return None;
        }
        place.acknowledged.push_back(blob);
        (place.acknowledged.len() > self.args.blobs_kept)
            .then(|| place.acknowledged.pop_front())
            .flatten()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
