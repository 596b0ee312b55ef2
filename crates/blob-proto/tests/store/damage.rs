//! What is damaged, foreign or in use is told, and left alone.

use std::{fs, os::unix::fs::FileExt};

use calimero_network_blob::{
    BlobId,
    store::{FsBlobStore, FsConfig, StoreError},
};
use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;
use tempfile::TempDir;

use crate::{content, files, list, open, read_all};

#[test]
fn damage_is_found() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let blob = content(3, 2 * BLOB_CHUNK_BYTES);
    let id = store.put(&blob).unwrap().id;
    let path = dir.path().join("blobs").join(id.to_hex());
    let hashes = path.with_extension("hashes");

    // A damaged list of chunk hashes is computed anew.
    fs::write(&hashes, [0; 64]).unwrap();
    assert_eq!(
        store.reader(&id).unwrap().unwrap().list().unwrap(),
        list(&blob)
    );

    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[blob[77] ^ 1], 77).unwrap();
    assert!(matches!(store.verify(&id), Err(StoreError::Damaged { id: found }) if found == id));
    let damaged = store.reader(&id).unwrap().unwrap().list();
    assert!(matches!(damaged, Err(StoreError::Damaged { .. })));
    file.set_len(10).unwrap();
    assert!(matches!(store.verify(&id), Err(StoreError::Damaged { .. })));
    let missing = store.verify(&BlobId::new([0; 32]));
    assert!(matches!(missing, Err(StoreError::NotFound { .. })));
}

#[test]
fn a_damaged_pack_is_not_shown_and_not_overwritten() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let put = |store: &FsBlobStore, content: &[u8]| {
        let mut batch = store.batch();
        let id = batch.add(None, content).unwrap();
        drop(batch.commit().unwrap());
        id
    };
    put(&store, b"first");
    drop(store);
    let pack = dir
        .path()
        .join("packs")
        .join(&files(&dir.path().join("packs"))[0]);
    let mut bytes = fs::read(&pack).unwrap();
    bytes.pop();
    fs::write(&pack, &bytes).unwrap();
    let store = open(&dir);
    assert!(store.list().is_empty());
    let second = put(&store, b"second");
    assert_eq!(fs::read(&pack).unwrap(), bytes);
    assert_eq!(read_all(&store, &second), b"second");
}

#[test]
fn one_process_at_a_time() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let second = FsBlobStore::open(dir.path(), &FsConfig::default());
    assert!(matches!(second, Err(StoreError::Locked { .. })));
    drop(store);
    drop(open(&dir));
    fs::write(dir.path().join("format"), "calimero blob store 2\n").unwrap();
    let newer = FsBlobStore::open(dir.path(), &FsConfig::default());
    assert!(matches!(newer, Err(StoreError::Format { .. })));
}

#[test]
fn a_folder_with_something_else_is_refused_and_left_alone() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("1.tmp"), b"somebody's").unwrap();
    fs::write(dir.path().join("letter.txt"), b"somebody's").unwrap();
    let refused = FsBlobStore::open(dir.path(), &FsConfig::default());
    assert!(matches!(refused, Err(StoreError::Format { .. })));
    assert_eq!(files(dir.path()), ["1.tmp", "letter.txt"]);
}

#[test]
fn foreign_files_are_left_alone_and_torn_ones_go() {
    let dir = TempDir::new().unwrap();
    drop(open(&dir));
    let blobs = dir.path().join("blobs");
    let id = "ab".repeat(32);
    for name in [
        "notes.txt",
        "17.tmp",
        &format!("{id}.hashes"),
        &format!("{id}.part"),
    ] {
        fs::write(blobs.join(name), b"?").unwrap();
    }
    drop(open(&dir));
    assert_eq!(files(&blobs), ["notes.txt"]);
}
