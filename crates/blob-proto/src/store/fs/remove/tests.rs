//! One operation of the disk fails, and the store is used on and opened again.

use std::{path::Path, sync::Arc};

use super::*;
use crate::store::{disk::sim::SimDisk, fs::FsConfig};

fn open(disk: &SimDisk) -> FsBlobStore {
    let disk = Arc::new(disk.clone());
    FsBlobStore::open_on(disk, Path::new("/store"), &FsConfig::default()).unwrap()
}

fn contents() -> Vec<Vec<u8>> {
    let content = |seed: u8, len: usize| vec![seed; len];
    let small = (1..5).map(|seed| content(seed, 900));
    small.chain([content(9, 70_000)]).collect()
}

fn add(store: &FsBlobStore, contents: &[Vec<u8>]) -> Result<Vec<BlobId>, StoreError> {
    let mut batch = store.batch();
    for content in contents {
        batch.add(None, content)?;
    }
    Ok(batch.commit()?.ids)
}

/// Does something, and once more after a failure. Counts the failures.
fn retried<T>(failures: &mut u32, mut step: impl FnMut() -> Result<T, StoreError>) -> T {
    step().unwrap_or_else(|_| {
        *failures += 1;
        step().unwrap()
    })
}

/// Stores blobs in packs and files, makes a pack sparse, and stores and removes all of it.
fn use_store(store: &FsBlobStore) -> u32 {
    let mut failures = 0;
    let contents = contents();
    let ids = retried(&mut failures, || add(store, &contents));
    for id in &ids[..3] {
        retried(&mut failures, || store.remove(id));
    }
    retried(&mut failures, || store.put(&contents[0]).map(drop));
    // In place of the copy in the pack.
    retried(&mut failures, || store.put(&contents[3]).map(drop));
    retried(&mut failures, || add(store, &contents));
    for id in &ids {
        retried(&mut failures, || store.remove(id));
        assert!(!store.has(id));
    }
    assert_eq!(store.usage().used_bytes, 0);
    failures
}

#[test]
fn removed_blobs_do_not_return_after_a_failed_operation() {
    let whole = SimDisk::default();
    let store = open(&whole);
    let opened = whole.operations();
    assert_eq!(use_store(&store), 0);
    let mut failed = 0;
    for operation in opened..whole.operations() {
        let disk = SimDisk::default();
        let store = open(&disk);
        let disk = disk.with_failure(operation);
        failed += use_store(&store);
        drop(store);
        let left = open(&disk).list();
        assert!(left.is_empty(), "{left:?} after {operation} failed");
    }
    assert!(failed > 10, "{failed}");
}
