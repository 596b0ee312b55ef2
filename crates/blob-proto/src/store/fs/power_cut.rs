//! The power is cut after every single operation of a script, and the store is opened on states
//! that the disk could have then: nothing acknowledged is lost, nothing wrong is visible, and
//! nothing that was removed returns.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;

use super::{FsBlobStore, FsConfig};
use crate::{
    BlobHasher, BlobId, ChunkList, blob_id,
    store::{StoreError, Verification, disk::sim::SimDisk},
};

const FOLDER: &str = "/store";

/// States of the disk that are tried for each cut, the two extremes among them.
const STATES: u64 = 6;

fn open(disk: &SimDisk) -> Result<FsBlobStore, StoreError> {
    let disk = Arc::new(disk.clone());
    FsBlobStore::open_on(disk, Path::new(FOLDER), &FsConfig::default())
}

fn content(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 512) as u8 ^ seed).collect()
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
    tags: BTreeMap<String, BTreeSet<Option<BlobId>>>,
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

    fn check(&self, store: &FsBlobStore, case: &str) {
        let listed: BTreeMap<_, _> = store.list().into_iter().collect();
        for id in &self.present {
            assert!(listed.contains_key(id), "{case}: {id} is lost");
        }
        for (id, size_bytes) in &listed {
            let content = self.contents.get(id);
            let content = content.unwrap_or_else(|| panic!("{case}: {id} is unknown"));
            assert_eq!(*size_bytes, content.len() as u64, "{case}: size of {id}");
            let found = store.check(id, false).unwrap();
            let size_bytes = *size_bytes;
            assert_eq!(found, Verification::Intact { size_bytes }, "{case}: {id}");
            assert!(!self.removed.contains(id), "{case}: {id} has returned");
        }
        let tags: BTreeMap<_, _> = store.tags().into_iter().collect();
        for (name, allowed) in &self.tags {
            let found = tags.get(name).copied();
            assert!(allowed.contains(&found), "{case}: tag {name} is {found:?}");
        }
        let used: u64 = listed.values().sum();
        assert_eq!(store.usage().used_bytes, used, "{case}");
        assert_eq!(store.usage().reserved_bytes, 0, "{case}");
    }
}

type Script = fn(&FsBlobStore, &mut Expected) -> Result<(), StoreError>;

fn put(store: &FsBlobStore, expected: &mut Expected, content: &[u8]) -> Result<BlobId, StoreError> {
    let id = expected.putting(content);
    drop(store.put(content)?);
    expected.present.insert(id);
    Ok(id)
}

fn put_batch(
    store: &FsBlobStore,
    expected: &mut Expected,
    contents: &[Vec<u8>],
) -> Result<Vec<BlobId>, StoreError> {
    let ids: Vec<_> = contents
        .iter()
        .map(|content| expected.putting(content))
        .collect();
    let mut batch = store.batch();
    for content in contents {
        batch.add(None, content)?;
    }
    drop(batch.commit()?);
    expected.present.extend(&ids);
    Ok(ids)
}

fn remove(store: &FsBlobStore, expected: &mut Expected, id: BlobId) -> Result<(), StoreError> {
    expected.removing(id);
    store.remove(&id)?;
    expected.removed.insert(id);
    Ok(())
}

fn collect(
    store: &FsBlobStore,
    expected: &mut Expected,
    victims: &[BlobId],
) -> Result<(), StoreError> {
    victims.iter().for_each(|id| expected.removing(*id));
    let collected = store.collect_garbage()?;
    assert_eq!(
        collected.iter().collect::<BTreeSet<_>>(),
        victims.iter().collect()
    );
    expected.removed.extend(victims);
    Ok(())
}

fn tag(
    store: &FsBlobStore,
    expected: &mut Expected,
    name: &str,
    id: Option<BlobId>,
) -> Result<(), StoreError> {
    expected.tagging(name, id);
    match id {
        Some(id) => store.tag(name, id)?,
        None => drop(store.untag(name)?),
    }
    expected.tagged(name, id);
    Ok(())
}

fn puts(store: &FsBlobStore, expected: &mut Expected) -> Result<(), StoreError> {
    let small = put(store, expected, &content(1, 700))?;
    let large = put(store, expected, &content(2, BLOB_CHUNK_BYTES + 9))?;
    // Again, over the first copy.
    put(store, expected, &content(1, 700))?;
    remove(store, expected, large)?;
    remove(store, expected, small)?;
    put(store, expected, &content(2, BLOB_CHUNK_BYTES + 9))?;
    Ok(())
}

fn batches(store: &FsBlobStore, expected: &mut Expected) -> Result<(), StoreError> {
    let contents: Vec<_> = (0..4).map(|seed| content(seed, 3000)).collect();
    let ids = put_batch(store, expected, &contents)?;
    // One of the pack gets a file of its own, and is removed from both.
    put(store, expected, &contents[0])?;
    remove(store, expected, ids[0])?;
    put_batch(store, expected, &[contents[0].clone(), content(9, 70_000)])?;
    // The pack becomes sparse and is rewritten, then empty.
    remove(store, expected, ids[1])?;
    remove(store, expected, ids[2])?;
    remove(store, expected, ids[3])?;
    put_batch(store, expected, &contents)?;
    Ok(())
}

fn garbage(store: &FsBlobStore, expected: &mut Expected) -> Result<(), StoreError> {
    let contents: Vec<_> = (0..5).map(|seed| content(seed, 2000)).collect();
    let ids = put_batch(store, expected, &contents)?;
    let file = put(store, expected, &content(20, 5000))?;
    tag(store, expected, "one", Some(ids[0]))?;
    tag(store, expected, "two", Some(file))?;
    collect(store, expected, &ids[1..])?;
    tag(store, expected, "two", Some(ids[0]))?;
    collect(store, expected, &[file])?;
    tag(store, expected, "one", None)?;
    tag(store, expected, "two", None)?;
    collect(store, expected, &[ids[0]])?;
    Ok(())
}

fn fetches(store: &FsBlobStore, expected: &mut Expected) -> Result<(), StoreError> {
    let content = content(7, 2 * BLOB_CHUNK_BYTES + 100);
    let id = expected.putting(&content);
    let chunks: Vec<_> = content.chunks(BLOB_CHUNK_BYTES).collect();
    let partial = store.partial(list(&content))?;
    partial.write(2, chunks[2])?;
    drop(partial);
    let partial = store.partial(list(&content))?;
    partial.write(0, chunks[0])?;
    partial.write(1, chunks[1])?;
    drop(partial.finish()?);
    expected.present.insert(id);
    remove(store, expected, id)?;
    let partial = store.partial(list(&content))?;
    partial.write(1, chunks[1])?;
    drop(partial);
    store.discard_partial(&id)?;
    Ok(())
}

fn withdrawals(store: &FsBlobStore, expected: &mut Expected) -> Result<(), StoreError> {
    let content = content(8, 2 * BLOB_CHUNK_BYTES + 100);
    let id = put(store, expected, &content)?;
    // Withdrawn as if it were damaged, and completed from what was kept.
    expected.removing(id);
    store.withdraw(&id)?;
    let partial = store.partial(list(&content))?;
    assert_eq!(partial.missing(), 0);
    drop(partial.finish()?);
    expected.present.insert(id);
    Ok(())
}

/// Runs a script with the power cut after each operation, and checks what is left.
fn cut_everywhere(name: &str, script: Script) {
    let whole = SimDisk::default();
    let mut expected = Expected::default();
    let store = open(&whole).unwrap();
    let opened = whole.operations();
    script(&store, &mut expected).unwrap();
    let operations = whole.operations();
    assert!(
        operations > opened + 10,
        "{name}: the script does something"
    );
    for power in 0..=operations {
        let disk = SimDisk::default().with_power(power);
        let mut expected = Expected::default();
        let ended = open(&disk).and_then(|store| script(&store, &mut expected));
        // The last operations may be ones whose failure does not matter.
        assert!(
            ended.is_ok() || power < operations,
            "{name} {power}: {ended:?}"
        );
        for seed in 0..STATES {
            let case = format!("{name} cut after {power}, state {seed}");
            let left = disk.after_cut(seed);
            let store = open(&left).unwrap_or_else(|error| panic!("{case}: {error}"));
            expected.check(&store, &case);
            drop(store);
            // Opening repairs: a second cut at once changes nothing.
            let store = open(&left.after_cut(seed)).unwrap();
            expected.check(&store, &format!("{case}, twice"));
        }
    }
}

#[test]
fn puts_and_removals_survive_power_cuts() {
    cut_everywhere("puts", puts);
}

#[test]
fn batches_survive_power_cuts() {
    cut_everywhere("batches", batches);
}

#[test]
fn garbage_collection_and_tags_survive_power_cuts() {
    cut_everywhere("garbage", garbage);
}

#[test]
fn fetches_survive_power_cuts() {
    cut_everywhere("fetches", fetches);
}

#[test]
fn withdrawals_survive_power_cuts() {
    cut_everywhere("withdrawals", withdrawals);
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
    expected.check(&store, "before the restart");
    drop(store);
    disk.leave_space(None);
    expected.check(&open(&disk.after_cut(0)).unwrap(), "after the restart");
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
    expected.check(&open(&disk.after_cut(2)).unwrap(), "after the restart");
}
