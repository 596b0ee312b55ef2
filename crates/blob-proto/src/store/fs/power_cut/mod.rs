//! The power is cut after every single operation of a script, and the store is opened on states
//! that the disk could have then: nothing acknowledged is lost, nothing wrong is visible, and
//! nothing that was removed returns.
//!
//! The cuts are found by counting the operations of the disk, so every step of a script is covered
//! without being named. `coverage` requires that the scripts call every public function that
//! changes a store, and `every_flush_matters` that the checks notice a flush that does nothing.
//! `CALNET_POWER_CUTS=50` runs 50 random scripts and cuts every opening as well.

mod coverage;
mod scripts;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use self::scripts::{collect, content, put, put_batch, tag};
use super::{FsBlobStore, FsConfig, PARTIAL_MAX_AGE};
use crate::{
    BlobHasher, BlobId, ChunkList, blob_id,
    store::{StoreError, Verification, disk::sim::SimDisk},
};

const FOLDER: &str = "/store";

/// States of the disk that are tried for each cut, the two extremes among them.
const STATES: u64 = 6;

/// Cuts after which the opening is cut as well, unless everything is asked for: one of 7.
const OPENINGS: u64 = 7;

/// Operations after a flush within which a cut shows that it is missing.
const CUTS_AFTER_FLUSH: u64 = 12;

/// The number of random scripts, where the environment asks for more than a part.
fn random_scripts() -> Option<u64> {
    let count = std::env::var("CALNET_POWER_CUTS").ok()?;
    Some(count.parse().unwrap())
}

fn open(disk: &SimDisk) -> Result<FsBlobStore, StoreError> {
    let disk = Arc::new(disk.clone());
    FsBlobStore::open_on(disk, Path::new(FOLDER), &FsConfig::default())
}

fn list(content: &[u8]) -> ChunkList {
    let mut hasher = BlobHasher::new();
    hasher.update(content).unwrap();
    hasher.finish().list
}

/// What may be seen after a cut. A change that was begun and not acknowledged may be seen or not.
#[derive(Clone, Debug, Default)]
struct Expected {
    contents: BTreeMap<BlobId, Vec<u8>>,
    /// Acknowledged, and neither removed nor being removed.
    present: BTreeSet<BlobId>,
    /// Removed, and that was acknowledged.
    removed: BTreeSet<BlobId>,
    /// Damaged on the disk. A copy that was stored since may be intact.
    damaged: BTreeSet<BlobId>,
    tags: BTreeMap<String, BTreeSet<Option<BlobId>>>,
}

/// Returns an error that names the case unless the condition holds.
macro_rules! hold {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(format!($($what)+));
        }
    };
}

impl Expected {
    fn putting(&mut self, content: &[u8]) -> BlobId {
        let id = blob_id(content);
        self.contents.insert(id, content.to_vec());
        self.removed.remove(&id);
        id
    }

    fn removing(&mut self, id: BlobId) {
        self.present.remove(&id);
    }

    fn tagging(&mut self, name: &str, id: Option<BlobId>) {
        let before = self
            .tags
            .entry(name.to_owned())
            .or_insert_with(|| [None].into());
        before.insert(id);
    }

    fn tagged(&mut self, name: &str, id: Option<BlobId>) {
        self.tags.insert(name.to_owned(), [id].into());
    }

    /// The tags, once every change of them was acknowledged.
    fn tag_of(&self, name: &str) -> Option<BlobId> {
        self.tags.get(name)?.first().copied().flatten()
    }

    fn is_tagged(&self, id: &BlobId) -> bool {
        self.tags.keys().any(|name| self.tag_of(name) == Some(*id))
    }

    /// Checks what a store shows after a cut. Resumes all partial downloads.
    fn check(&self, store: &FsBlobStore) -> Result<(), String> {
        let listed: BTreeMap<_, _> = store.list().into_iter().collect();
        for id in &self.present {
            hold!(listed.contains_key(id), "{id} is lost");
        }
        for (id, size_bytes) in &listed {
            let content = self.contents.get(id);
            let content = content.ok_or_else(|| format!("{id} is unknown"))?;
            hold!(*size_bytes == content.len() as u64, "size of {id}");
            let found = store.check(id, false).map_err(|error| error.to_string())?;
            let size_bytes = *size_bytes;
            let intact = Verification::Intact { size_bytes };
            let may_be_damaged = self.damaged.contains(id) && !self.present.contains(id);
            let damaged = matches!(found, Verification::Damaged { .. });
            hold!(
                found == intact || (may_be_damaged && damaged),
                "{id} is {found:?}"
            );
            hold!(!self.removed.contains(id), "{id} has returned");
        }
        let tags: BTreeMap<_, _> = store.tags().into_iter().collect();
        for (name, allowed) in &self.tags {
            let found = tags.get(name).copied();
            hold!(allowed.contains(&found), "tag {name} is {found:?}");
        }
        let used: u64 = listed.values().sum();
        hold!(store.usage().used_bytes == used, "the used space is wrong");
        hold!(store.usage().reserved_bytes == 0, "space is reserved");
        (store.partials().iter()).try_for_each(|id| self.check_partial(store, id))
    }

    /// Chunks that a partial download says it has are those of the blob.
    fn check_partial(&self, store: &FsBlobStore, id: &BlobId) -> Result<(), String> {
        let content = self.contents.get(id);
        let list = list(content.ok_or_else(|| format!("partial {id} is unknown"))?);
        let partial = store.partial(list.clone());
        let partial = partial.map_err(|error| error.to_string())?;
        for index in (0..list.len()).filter(|&index| partial.has(index)) {
            let chunk = partial.read(index).map_err(|error| error.to_string())?;
            let intact = chunk.is_some_and(|chunk| list.verify(index, &chunk).is_ok());
            hold!(intact, "chunk {index} of partial {id} is wrong");
        }
        Ok(())
    }
}

type Script = dyn Fn(&FsBlobStore, &mut Expected) -> Result<(), StoreError>;

/// One run of a script on a disk, until its power fails.
fn run(disk: &SimDisk, script: &Script) -> (Expected, Result<(), StoreError>) {
    let mut expected = Expected::default();
    let ended = open(disk).and_then(|store| script(&store, &mut expected));
    (expected, ended)
}

/// Opens a store on what a cut left, checks it, and does the same after a second cut, which comes
/// once the store is open.
fn check_state(left: &SimDisk, seed: u64, expected: &Expected) -> Result<(), String> {
    let store = open(left).map_err(|error| error.to_string())?;
    expected.check(&store)?;
    drop(store);
    let store = open(&left.after_cut(seed)).map_err(|error| error.to_string())?;
    expected
        .check(&store)
        .map_err(|what| format!("{what}, after a second cut"))
}

/// Cuts the power a second time, after each operation of the opening that repairs what the first
/// cut left.
fn cut_while_opening(disk: &SimDisk, seed: u64, expected: &Expected) -> Result<(), String> {
    let whole = disk.after_cut(seed);
    drop(open(&whole).map_err(|error| error.to_string())?);
    for power in 0..whole.operations() {
        let left = disk.after_cut(seed).with_power(power);
        let _ = open(&left);
        let store = open(&left.after_cut(seed + power)).map_err(|error| error.to_string())?;
        expected
            .check(&store)
            .map_err(|what| format!("{what}, cut after {power} operations of the repair"))?;
    }
    Ok(())
}

/// The store that a cut left does all that it did before, and partial downloads expire.
fn use_again(left: &SimDisk, expected: &Expected) -> Result<(), String> {
    let mut expected = expected.clone();
    let failed = |error: StoreError| format!("{error}, in further use");
    let store = open(left).map_err(failed)?;
    let contents: Vec<_> = expected.contents.values().cloned().collect();
    let ids = put_batch(&store, &mut expected, &contents).map_err(failed)?;
    if let Some(id) = ids.first() {
        scripts::remove(&store, &mut expected, *id).map_err(failed)?;
    }
    drop(store);
    let old = left.after_cut(0).with_age(PARTIAL_MAX_AGE * 2);
    let store = open(&old).map_err(failed)?;
    let partials = store.partials().len();
    hold!(partials == 0, "{partials} partial downloads do not expire");
    expected
        .check(&store)
        .map_err(|what| format!("{what}, in further use"))
}

/// Runs a script with the power cut after each operation, and checks what is left.
fn cut_everywhere(name: &str, script: &Script) {
    let whole = SimDisk::default();
    let opened = {
        drop(open(&whole).unwrap());
        whole.operations()
    };
    let whole = SimDisk::default();
    run(&whole, script).1.unwrap();
    let operations = whole.operations();
    assert!(
        operations > opened + 10,
        "{name}: the script does something"
    );
    for power in 0..=operations {
        let disk = SimDisk::default().with_power(power);
        let (expected, ended) = run(&disk, script);
        // The last operations may be ones whose failure does not matter.
        assert!(
            ended.is_ok() || power < operations,
            "{name} {power}: {ended:?}"
        );
        for seed in 0..STATES {
            check_state(&disk.after_cut(seed), seed, &expected)
                .unwrap_or_else(|what| panic!("{name} cut after {power}, state {seed}: {what}"));
        }
        if random_scripts().is_none() && power % OPENINGS != 0 {
            continue;
        }
        let seed = 2 + power % (STATES - 2);
        cut_while_opening(&disk, seed, &expected)
            .and_then(|()| use_again(&disk.after_cut(seed), &expected))
            .unwrap_or_else(|what| panic!("{name} cut after {power}, state {seed}: {what}"));
    }
}

/// Returns `true` where the checks notice that a flush of a script did nothing, by a cut soon after.
fn is_noticed(script: &Script, flush: usize, at: u64, operations: u64) -> bool {
    (at..=operations.min(at + CUTS_AFTER_FLUSH)).any(|power| {
        let disk = SimDisk::default().with_lost_flush(flush).with_power(power);
        let (expected, _) = run(&disk, script);
        (0..STATES).any(|seed| check_state(&disk.after_cut(seed), seed, &expected).is_err())
    })
}

#[test]
fn puts_and_removals_survive_power_cuts() {
    cut_everywhere("puts", &scripts::puts);
}

#[test]
fn batches_survive_power_cuts() {
    cut_everywhere("batches", &scripts::batches);
}

#[test]
fn packs_that_become_empty_survive_power_cuts() {
    cut_everywhere("empty packs", &scripts::empty_packs);
}

#[test]
fn removals_whose_file_was_lost_survive_power_cuts() {
    cut_everywhere("lost removals", &scripts::lost_removals);
}

#[test]
fn garbage_collection_and_tags_survive_power_cuts() {
    cut_everywhere("garbage", &scripts::garbage);
}

#[test]
fn fetches_survive_power_cuts() {
    cut_everywhere("fetches", &scripts::fetches);
}

#[test]
fn withdrawals_survive_power_cuts() {
    cut_everywhere("withdrawals", &scripts::withdrawals);
}

#[test]
fn random_changes_survive_power_cuts() {
    for seed in 0..random_scripts().unwrap_or(1) {
        cut_everywhere(&format!("random {seed}"), &move |store, expected| {
            scripts::random(store, expected, seed)
        });
    }
}

/// The checks above can fail: they notice every flush that is left out, but these. Flushes 1 to 3 are
/// of folders that are empty, 7 and 17 of files of removals that have no removal.
#[test]
fn every_flush_matters() {
    let script = &scripts::garbage;
    let whole = SimDisk::default();
    run(&whole, script).1.unwrap();
    let (flushes, operations) = (whole.flushes(), whole.operations());
    let unnoticed = (flushes.iter().enumerate())
        .filter(|&(flush, &at)| !is_noticed(script, flush, at, operations))
        .map(|(flush, _)| flush);
    assert_eq!(unnoticed.collect::<Vec<_>>(), [1, 2, 3, 7, 17]);
}

#[test]
fn garbage_collection_needs_no_free_space() {
    let disk = SimDisk::default();
    let store = open(&disk).unwrap();
    let mut expected = Expected::default();
    let contents: Vec<_> = (0..9).map(|seed| content(seed, 2000)).collect();
    let ids = put_batch(&store, &mut expected, &contents).unwrap();
    let file = put(&store, &mut expected, &content(20, 5000)).unwrap();
    tag(&store, &mut expected, "kept", Some(ids[0])).unwrap();
    disk.leave_space(Some(0));
    let full = store.put(b"something");
    assert!(matches!(full, Err(StoreError::DiskFull { .. })), "{full:?}");
    let victims = [&ids[1..], &[file]].concat();
    collect(&store, &mut expected, &victims).unwrap();
    expected.check(&store).unwrap();
    drop(store);
    disk.leave_space(None);
    expected.check(&open(&disk.after_cut(0)).unwrap()).unwrap();
}

/// Where the disk refuses a removal, disk and memory still agree.
#[test]
fn a_refused_removal_is_shown_again() {
    let disk = SimDisk::default();
    let store = open(&disk).unwrap();
    let mut expected = Expected::default();
    let ids = put_batch(&store, &mut expected, &[content(1, 900), content(2, 900)]).unwrap();
    let used = store.usage();
    let disk = disk.clone().with_power(0);
    store.collect_garbage().unwrap_err();
    assert_eq!(store.usage(), used);
    assert!(store.has(&ids[0]) && store.has(&ids[1]));
    drop(store);
    expected.check(&open(&disk.after_cut(2)).unwrap()).unwrap();
}

/// Each of them has a file of its own.
#[test]
fn tags_that_are_set_together_cost_few_flushes() {
    let disk = SimDisk::default();
    let store = open(&disk).unwrap();
    let id = blob_id(b"content");
    let tags: Vec<_> = (0..300)
        .map(|number| (format!("tag {number}"), id))
        .collect();
    let before = disk.flushes().len();
    store.tag_all(&tags).unwrap();
    // Two groups of files, and their folder.
    assert_eq!(disk.flushes().len() - before, 3);
    drop(store);
    let store = open(&disk.after_cut(0)).unwrap();
    assert_eq!(store.tags().len(), 300);
}
