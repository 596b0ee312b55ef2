//! What goes, what stays, and how much there may be.

use std::fs;

use calimero_network_blob::{
    blob_id,
    store::{FsBlobStore, FsConfig, StoreError},
};
use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;
use tempfile::TempDir;

use crate::{content, files, list, open, read_all};

#[test]
fn removed_blobs_stay_removed_and_packs_shrink() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let blobs: Vec<_> = (0..100).map(|seed| content(seed, 1000)).collect();
    let mut batch = store.batch();
    blobs
        .iter()
        .for_each(|blob| assert_eq!(batch.add(None, blob).unwrap(), blob_id(blob)));
    drop(batch.commit().unwrap());
    let open_before = store.reader(&blob_id(&blobs[0])).unwrap().unwrap();
    let pack_bytes = || -> u64 {
        let packs = fs::read_dir(dir.path().join("packs"))
            .unwrap()
            .map(Result::unwrap);
        packs
            .filter(|file| file.path().extension().is_some_and(|end| end == "pack"))
            .map(|file| file.metadata().unwrap().len())
            .sum()
    };
    let full = pack_bytes();
    for blob in &blobs[..90] {
        assert!(store.remove(&blob_id(blob)).unwrap());
        assert!(!store.remove(&blob_id(blob)).unwrap());
    }
    assert!(
        pack_bytes() < full / 3,
        "the content of removed blobs is given back"
    );
    assert_eq!(open_before.read(0..1000).unwrap(), blobs[0]);
    assert_eq!(store.usage().used_bytes, 10_000);
    drop(store);

    let store = open(&dir);
    assert_eq!(store.usage().used_bytes, 10_000);
    for (number, blob) in blobs.iter().enumerate() {
        assert_eq!(store.has(&blob_id(blob)), number >= 90);
    }
    for blob in &blobs[90..] {
        assert_eq!(read_all(&store, &blob_id(blob)), *blob);
        store.remove(&blob_id(blob)).unwrap();
    }
    assert!(files(&dir.path().join("packs")).is_empty());

    let large = store.put(&content(7, 2 * BLOB_CHUNK_BYTES)).unwrap();
    assert!(store.remove(&large.id).unwrap());
    assert!(files(&dir.path().join("blobs")).is_empty());
}

#[test]
fn a_blob_in_two_packs_is_there_once_and_goes_for_good() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    // Two batches that each think they are first.
    let (mut one, mut two) = (store.batch(), store.batch());
    one.add(None, b"shared").unwrap();
    two.add(None, b"shared").unwrap();
    two.add(None, b"other").unwrap();
    drop((one.commit().unwrap(), two.commit().unwrap()));
    assert_eq!(store.usage().used_bytes, 11);
    assert!(store.remove(&blob_id(b"shared")).unwrap());
    drop(store);
    let store = open(&dir);
    assert_eq!(store.list(), [(blob_id(b"other"), 5)]);
}

#[test]
fn the_quota_holds_and_says_so() {
    let dir = TempDir::new().unwrap();
    let config = FsConfig {
        max_bytes: 3 << 20,
        ..FsConfig::default()
    };
    let store = FsBlobStore::open(dir.path(), &config).unwrap();
    let small = store.put(&content(1, 1 << 20)).unwrap();
    let mut writer = store.writer().unwrap();
    writer.write(&content(2, 1 << 20)).unwrap();
    let error = writer.write(&content(3, (1 << 20) + 1)).unwrap_err();
    assert!(matches!(
        error,
        StoreError::Quota {
            limit_bytes: 3_145_728,
            used_bytes: 2_097_152,
            wanted_bytes: 1_048_577,
            partial_bytes: 0,
            reserved_bytes: 1_048_576,
        }
    ));
    assert!(matches!(writer.write(b"x"), Err(StoreError::Broken)));
    assert!(matches!(writer.finish(None), Err(StoreError::Broken)));
    // What the writer had set aside is free again.
    let two = content(4, 2 << 20);
    let too_large = store.partial(list(&content(5, (2 << 20) + 1)));
    assert!(matches!(too_large, Err(StoreError::Quota { .. })));
    let partial = store.partial(list(&two)).unwrap();
    // The claim of a list takes its own length. Chunks take theirs as they are verified.
    assert_eq!(store.usage().partial_bytes, 64);
    store.put(b"x").unwrap();
    store.remove(&blob_id(b"x")).unwrap();
    partial.write(0, &two[..1 << 20]).unwrap();
    let full = partial.write(1, &two[1 << 20..]);
    assert!(matches!(full, Err(StoreError::Quota { .. })), "{full:?}");
    assert_eq!(store.usage().partial_bytes, (1 << 20) + 64);
    assert!(matches!(
        store.put(&two[..1 << 20]),
        Err(StoreError::Quota { .. })
    ));
    drop(partial);
    assert!(matches!(
        store.put(&two[..1 << 20]),
        Err(StoreError::Quota { .. })
    ));
    assert!(store.discard_partial(&blob_id(&two)).unwrap());
    store.put(&two).unwrap();
    assert!(matches!(store.put(b"x"), Err(StoreError::Quota { .. })));
    store.remove(&small.id).unwrap();
    store.put(b"x").unwrap();
}

#[test]
fn garbage_is_what_is_neither_tagged_nor_held() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let [tagged, held, plain, later] = [b"tagged".as_slice(), b"held", b"plain", b"later"]
        .map(|content| store.put(content).unwrap());
    let mut batch = store.batch();
    let packed = batch.add(None, b"packed").unwrap();
    drop(batch.commit().unwrap());
    store.tag("../../name with /slashes\0", tagged.id).unwrap();
    store.tag("name", later.id).unwrap();
    let plain_id = plain.id;
    drop((tagged.hold, plain.hold));
    let mut gone = store.collect_garbage().unwrap();
    gone.sort();
    let mut expected = [plain_id, packed];
    expected.sort();
    assert_eq!(gone, expected);
    drop((store, later.hold, held));

    let store = open(&dir);
    let names = store.tags();
    assert_eq!(
        names,
        [
            ("../../name with /slashes\0".to_owned(), blob_id(b"tagged")),
            ("name".to_owned(), blob_id(b"later")),
        ]
    );
    assert_eq!(store.untag("name").unwrap(), Some(blob_id(b"later")));
    assert_eq!(store.untag("name").unwrap(), None);
    assert_eq!(store.collect_garbage().unwrap().len(), 2);
    assert_eq!(store.list(), [(blob_id(b"tagged"), 6)]);
    assert!(matches!(
        store.tag("", plain_id),
        Err(StoreError::TagName { .. })
    ));
    assert!(matches!(
        store.tag(&"x".repeat(256), plain_id),
        Err(StoreError::TagName { .. })
    ));
}

#[test]
fn nothing_is_collected_while_a_tag_cannot_be_read() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    drop(store.put(b"precious").unwrap());
    store.tag("name", blob_id(b"precious")).unwrap();
    drop(store);
    let tag = dir
        .path()
        .join("tags")
        .join(&files(&dir.path().join("tags"))[0]);
    fs::write(&tag, b"rot").unwrap();
    let store = open(&dir);
    assert!(matches!(
        store.collect_garbage(),
        Err(StoreError::DamagedTags { damaged: 1 })
    ));
    assert!(store.has(&blob_id(b"precious")));
}
