//! Stored blobs are complete, by every way of storing them.

use std::{fs, thread};

use bytes::Bytes;
use calimero_network_blob::{
    blob_id,
    store::{MAX_READ_BYTES, PACK_MAX_BLOB_BYTES, StoreError, Usage},
};
use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;
use tempfile::TempDir;

use crate::{content, files, list, open, read_all};

#[test]
fn a_blob_is_there_after_reopening() {
    let dir = TempDir::new().unwrap();
    let sizes = [
        0,
        1,
        4096,
        BLOB_CHUNK_BYTES - 1,
        BLOB_CHUNK_BYTES,
        3 * BLOB_CHUNK_BYTES + 7,
    ];
    let blobs: Vec<_> = sizes.iter().map(|&len| content(len as u64, len)).collect();
    let store = open(&dir);
    for blob in &blobs {
        let stored = store.put(blob).unwrap();
        assert_eq!(
            (stored.id, stored.size_bytes),
            (blob_id(blob), blob.len() as u64)
        );
    }
    drop(store);
    let store = open(&dir);
    for blob in &blobs {
        let id = blob_id(blob);
        assert_eq!(store.size(&id), Some(blob.len() as u64));
        assert_eq!(read_all(&store, &id), *blob);
        store.verify(&id).unwrap();
        assert_eq!(
            store.reader(&id).unwrap().unwrap().list().unwrap(),
            list(blob)
        );
    }
    let mut listed: Vec<_> = blobs
        .iter()
        .map(|blob| (blob_id(blob), blob.len() as u64))
        .collect();
    listed.sort();
    assert_eq!(store.list(), listed);
    let used: usize = sizes.iter().sum();
    assert_eq!(
        store.usage(),
        Usage {
            blobs: 6,
            used_bytes: used as u64,
            partials: 0,
            partial_bytes: 0,
            reserved_bytes: 0,
            limit_bytes: 64 << 30,
        }
    );
}

#[test]
fn a_put_in_pieces_equals_a_put_at_once() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let blob = content(5, 2 * BLOB_CHUNK_BYTES + 99);
    let mut writer = store.writer().unwrap();
    blob.chunks(70_001)
        .for_each(|piece| writer.write(piece).unwrap());
    let stored = writer.finish(Some(blob_id(&blob))).unwrap();
    assert_eq!(stored.id, store.put(&blob).unwrap().id);
    let path = dir.path().join("source");
    fs::write(&path, &blob).unwrap();
    assert_eq!(stored.id, store.put_file(&path).unwrap().id);
    assert_eq!(store.usage().used_bytes, blob.len() as u64);
    assert_eq!(read_all(&store, &stored.id), blob);
}

#[test]
fn what_is_not_finished_or_not_expected_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let mut writer = store.writer().unwrap();
    writer.write(b"half").unwrap();
    drop(writer);
    let mut writer = store.writer().unwrap();
    writer.write(b"other bytes").unwrap();
    let expected = blob_id(b"these bytes");
    let actual = blob_id(b"other bytes");
    let error = writer.finish(Some(expected)).unwrap_err();
    assert!(matches!(
        error,
        StoreError::Mismatch { expected: e, actual: a } if (e, a) == (expected, actual)
    ));
    let mut batch = store.batch();
    batch.add(None, b"never committed").unwrap();
    drop(batch);
    assert!(store.list().is_empty());
    assert_eq!(store.usage().reserved_bytes, 0);
    assert!(files(&dir.path().join("blobs")).is_empty());
    assert!(files(&dir.path().join("packs")).is_empty());
}

#[test]
fn reads_are_bounded() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let blob = content(1, 9 * BLOB_CHUNK_BYTES);
    let reader = store
        .put(&blob)
        .map(|stored| store.reader(&stored.id).unwrap().unwrap())
        .unwrap();
    assert_eq!(reader.read(5..5).unwrap(), Bytes::new());
    assert_eq!(reader.read(3..1_100_000).unwrap(), blob[3..1_100_000]);
    for range in [
        0..MAX_READ_BYTES as u64 + 1,
        9 << 20..(9 << 20) + 1,
        u64::MAX - 1..u64::MAX,
        #[allow(
            clippy::reversed_empty_ranges,
            reason = "what a careless caller passes"
        )]
        {
            7..3
        },
    ] {
        assert!(matches!(reader.read(range), Err(StoreError::Range { .. })));
    }
    assert!(matches!(
        reader.chunk(u64::MAX),
        Err(StoreError::Range { .. })
    ));
}

#[test]
fn a_batch_mixes_small_large_known_and_repeated_blobs() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let known = store.put(b"known").unwrap();
    let blobs = [
        b"known".to_vec(),
        Vec::new(),
        content(1, 10),
        content(2, PACK_MAX_BLOB_BYTES),
        content(3, PACK_MAX_BLOB_BYTES + 1),
        content(4, 2 * BLOB_CHUNK_BYTES + 1),
        content(1, 10),
    ];
    let mut batch = store.batch();
    for blob in &blobs {
        assert_eq!(batch.add(Some(blob_id(blob)), blob).unwrap(), blob_id(blob));
    }
    let error = batch.add(Some(known.id), b"unknown").unwrap_err();
    assert!(matches!(error, StoreError::Mismatch { .. }));
    assert_eq!(store.list().len(), 1);
    let stored = batch.commit().unwrap();
    let ids: Vec<_> = blobs.iter().map(|blob| blob_id(blob)).collect();
    assert_eq!(stored.ids, ids);
    drop((store, known, stored));
    let store = open(&dir);
    for blob in &blobs {
        assert_eq!(read_all(&store, &blob_id(blob)), *blob);
        store.verify(&blob_id(blob)).unwrap();
    }
    assert_eq!(store.list().len(), 6);
}

#[test]
fn many_threads_put_the_same_and_other_blobs() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    thread::scope(|scope| {
        for worker in 0..8_u64 {
            let store = &store;
            scope.spawn(move || {
                for step in 0..10 {
                    drop(store.put(&content(step, 3000)).unwrap());
                    let own = store
                        .put(&content(1000 + worker * 10 + step, 3000))
                        .unwrap();
                    if step % 2 == 0 {
                        store.remove(&own.id).unwrap();
                    }
                    drop(own);
                    let mut batch = store.batch();
                    batch.add(None, &content(2000 + step, 300)).unwrap();
                    drop(batch.commit().unwrap());
                    store.remove(&blob_id(&content(2000 + step, 300))).unwrap();
                }
            });
        }
    });
    let listed = store.list();
    assert_eq!(listed.len(), 10 + 8 * 5);
    listed.iter().for_each(|(id, _)| store.verify(id).unwrap());
    drop(store);
    assert_eq!(open(&dir).list(), listed);
}
