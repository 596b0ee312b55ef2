//! Files that are added together.

use std::fs;

use calimero_network::{
    blob::{blob_id, store::StoreError},
    config::BlobStoreConfig,
};

use super::*;
use crate::blob::DEFAULT_CONTEXT;

/// What is reported of a file: its id, size and path.
type Reported = (String, u64, String);

/// What is added, in order.
fn add(store: &FsBlobStore, files: &[PathBuf]) -> (Vec<Reported>, Result<(), CommandError>) {
    let mut lines = Vec::new();
    let mut say = |line| {
        let Line::Added {
            id,
            size_bytes,
            file,
        } = line
        else {
            unreachable!("nothing else is printed")
        };
        lines.push((id, size_bytes, file.unwrap()));
        Ok(())
    };
    let mut adding = Adding::new(store, DEFAULT_CONTEXT);
    let added = (files.iter()).try_for_each(|file| adding.add(file, &mut say));
    adding.commit(&mut say).unwrap();
    (lines, added)
}

#[test]
fn small_files_are_stored_together_and_reported_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("store");
    let store = FsBlobStore::open(&folder, &BlobStoreConfig::default()).unwrap();
    let mut files = Vec::new();
    for number in 0..300_u32 {
        // One is large, in the middle of the small ones, and one is there twice.
        let len = if number == 200 { 100_000 } else { 700 };
        let mut content = vec![7; len];
        content[..4].copy_from_slice(&(number.min(298)).to_le_bytes());
        let path = dir.path().join(number.to_string());
        fs::write(&path, content).unwrap();
        files.push(path);
    }
    let (lines, added) = add(&store, &files);
    added.unwrap();
    let expected = files.iter().map(|path| {
        let content = fs::read(path).unwrap();
        let id = blob_id(&content).to_string();
        (id, content.len() as u64, path.display().to_string())
    });
    assert_eq!(lines, expected.collect::<Vec<_>>());
    let stored = |folder_name: &str, ending: &str| {
        let entries = fs::read_dir(folder.join(folder_name)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(ending)).count()
    };
    // Those before the large one, and those after it.
    assert_eq!((stored("packs", ".pack"), stored("blobs", "")), (2, 1));
    assert_eq!(store.tags().len(), 299);
    drop(store);
    let store = FsBlobStore::open(&folder, &BlobStoreConfig::default()).unwrap();
    assert_eq!(store.tags().len(), 299);
    assert!(store.collect_garbage().unwrap().is_empty());
}

#[test]
fn files_before_one_that_fails_are_added() {
    let dir = tempfile::tempdir().unwrap();
    let config = BlobStoreConfig {
        max_bytes: 15,
        ..BlobStoreConfig::default()
    };
    let store = FsBlobStore::open(dir.path().join("store"), &config).unwrap();
    let file = |name: &str| {
        let path = dir.path().join(name);
        fs::write(&path, name).unwrap();
        path
    };
    let (first, second, missing) = (file("first"), file("second"), dir.path().join("missing"));
    let (lines, added) = add(&store, &[first, missing, second.clone()]);
    assert!(matches!(added, Err(CommandError::File { .. })), "{added:?}");
    assert_eq!(lines.len(), 1);
    assert_eq!(store.tags().len(), 1);
    // What is not committed yet counts against the limit.
    let (lines, added) = add(&store, &[second, file("third")]);
    let Err(CommandError::Store(StoreError::Quota { used_bytes, .. })) = added else {
        panic!("{added:?}")
    };
    assert_eq!((lines.len(), used_bytes), (1, 11));
}
