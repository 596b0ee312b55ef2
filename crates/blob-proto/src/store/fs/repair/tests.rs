//! Withdrawal on a simulated disk: what is intact or cannot be read stays.

use std::{path::Path, sync::Arc};

use super::*;
use crate::store::{
    disk::{Mode, sim::SimDisk},
    fs::{FsConfig, pack_name},
};

/// Lengths of blobs in a pack, in a file, and in several chunks.
const LENS: [usize; 3] = [700, 70_000, CHUNK_BYTES as usize + 9];

fn open(disk: &SimDisk) -> FsBlobStore {
    let disk = Arc::new(disk.clone());
    FsBlobStore::open_on(disk, Path::new("/store"), &FsConfig::default()).unwrap()
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 512) as u8 ^ 5).collect()
}

/// Adds contents in one batch.
fn add(store: &FsBlobStore, contents: &[&[u8]]) -> Result<Vec<BlobId>, StoreError> {
    let mut batch = store.batch();
    for content in contents {
        batch.add(None, content)?;
    }
    Ok(batch.commit()?.ids)
}

/// Flips a bit of the stored copy of a blob.
fn damage(store: &FsBlobStore, id: BlobId) {
    let entry = store.shared.index().entries[&id];
    let (dir, name, at) = match entry.location {
        Location::File => (&store.shared.blobs, content_name(&id), 0),
        Location::Pack { number, offset, .. } => (&store.shared.packs, pack_name(number), offset),
    };
    let file = dir.file(&name, Mode::Write).unwrap();
    let mut byte = Vec::new();
    file.read(&mut byte, 1, at).unwrap();
    file.write(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn a_blob_that_cannot_be_opened_is_not_withdrawn() {
    for len in LENS {
        let disk = SimDisk::default();
        let store = open(&disk);
        let content = content(len);
        let id = add(&store, &[&content]).unwrap()[0];
        store.tag("name", id).unwrap();
        disk.set_no_descriptors(true);
        let refused = add(&store, &[&content]);
        assert!(matches!(refused, Err(StoreError::Io { .. })), "{refused:?}");
        store.withdraw(&id).unwrap_err();
        store.check(&id, true).unwrap_err();
        disk.set_no_descriptors(false);
        store.verify(&id).unwrap();
        drop(store);
        open(&disk).verify(&id).unwrap();
    }
}

/// A reader that was opened before the damage was repaired reports damage for long after it.
#[test]
fn a_copy_that_was_stored_since_is_not_withdrawn() {
    for len in LENS {
        let disk = SimDisk::default();
        let store = open(&disk);
        let content = content(len);
        let id = add(&store, &[&content]).unwrap()[0];
        damage(&store, id);
        let reader = store.reader(&id).unwrap().unwrap();
        let damaged = store.shared.find_damage(id).unwrap().unwrap();
        drop(store.put(&content).unwrap());
        assert!(matches!(reader.rehash(), Err(StoreError::Damaged { .. })));
        assert!(!store.shared.withdraw_copy(id, damaged).unwrap());
        assert!(!store.withdraw(&id).unwrap());
        store.verify(&id).unwrap();
        drop(store);
        open(&disk).verify(&id).unwrap();
    }
}

#[test]
fn a_damaged_copy_that_was_copied_to_another_pack_is_withdrawn_from_there() {
    let disk = SimDisk::default();
    let store = open(&disk);
    let contents = [&content(900), &b"another"[..]];
    let ids = add(&store, &contents).unwrap();
    damage(&store, ids[0]);
    let damaged = store.shared.find_damage(ids[0]).unwrap().unwrap();
    let number = match store.shared.index().entries[&ids[0]].location {
        Location::Pack { number, .. } => number,
        Location::File => panic!("it is in a file"),
    };
    store.shared.rewrite_pack(number).unwrap();
    assert!(!store.shared.withdraw_copy(ids[0], damaged).unwrap());
    assert!(store.withdraw(&ids[0]).unwrap());
    assert_eq!(
        store.reader(&ids[0]).unwrap().map(|reader| reader.id()),
        None
    );
    drop(store);
    let store = open(&disk);
    assert!(!store.has(&ids[0]));
    store.verify(&ids[1]).unwrap();
}
