//! The store in a folder, by its blocking methods and by its async face.

#![cfg(all(feature = "fs", unix))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

use std::{fs, os::unix::fs::FileExt, path::Path, sync::Arc, thread};

use bytes::Bytes;
use calimero_network_blob::{
    BlobHasher, BlobId, ChunkList, blob_id,
    error::ChunkError,
    store::{
        BlobStore, FsBlobStore, FsConfig, MAX_READ_BYTES, PACK_MAX_BLOB_BYTES, StoreError, Usage,
    },
};
use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;
use tempfile::TempDir;

/// Content that no other seed has.
fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut content: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| next()).collect();
    content.truncate(len);
    content
}

fn list(content: &[u8]) -> ChunkList {
    let mut hasher = BlobHasher::new();
    hasher.update(content).unwrap();
    hasher.finish().list
}

fn open(dir: &TempDir) -> FsBlobStore {
    FsBlobStore::open(dir.path(), &FsConfig::default()).unwrap()
}

fn read_all(store: &FsBlobStore, id: &BlobId) -> Vec<u8> {
    let reader = store.reader(id).unwrap().expect("the blob is there");
    let mut content = Vec::new();
    while (content.len() as u64) < reader.size_bytes() {
        content.extend_from_slice(
            &reader
                .chunk((content.len() / BLOB_CHUNK_BYTES) as u64)
                .unwrap(),
        );
    }
    content
}

fn files(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

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
        }
    ));
    assert!(matches!(writer.write(b"x"), Err(StoreError::Broken)));
    assert!(matches!(writer.finish(None), Err(StoreError::Broken)));
    // What the writer had set aside is free again.
    let two = content(4, 2 << 20);
    let partial = store.partial(list(&two)).unwrap();
    assert_eq!(store.usage().reserved_bytes, 2 << 20);
    assert!(matches!(store.put(b"x"), Err(StoreError::Quota { .. })));
    drop(partial);
    assert!(matches!(store.put(b"x"), Err(StoreError::Quota { .. })));
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

#[test]
fn a_download_resumes_with_what_was_verified() {
    let dir = TempDir::new().unwrap();
    let blob = content(9, 4 * BLOB_CHUNK_BYTES + 5);
    let id = blob_id(&blob);
    let chunks: Vec<_> = blob.chunks(BLOB_CHUNK_BYTES).collect();
    let store = open(&dir);
    let partial = store.partial(list(&blob)).unwrap();
    assert!(matches!(
        store.partial(list(&blob)),
        Err(StoreError::Busy { .. })
    ));
    assert!(matches!(
        store.discard_partial(&id),
        Err(StoreError::Busy { .. })
    ));
    assert_eq!(partial.missing(), 5);
    for index in [4, 1, 1] {
        partial.write(index, chunks[index]).unwrap();
    }
    let wrong = partial.write(0, chunks[1]).unwrap_err();
    assert!(matches!(
        wrong,
        StoreError::Chunk(ChunkError::Mismatch { index: 0 })
    ));
    let beyond = partial.write(5, chunks[1]).unwrap_err();
    assert!(matches!(
        beyond,
        StoreError::Chunk(ChunkError::OutOfRange {
            index: 5,
            chunks: 5
        })
    ));
    let early = partial.finish().unwrap_err();
    assert!(matches!(
        early,
        StoreError::Incomplete {
            missing_chunks: 3,
            ..
        }
    ));
    assert!(!store.has(&id));
    drop((partial, store));

    let store = open(&dir);
    assert_eq!(store.partials(), [id]);
    let partial = store.partial(list(&blob)).unwrap();
    let there: Vec<_> = (0..6).map(|index| partial.has(index)).collect();
    assert_eq!(there, [false, true, false, false, true, false]);
    thread::scope(|scope| {
        for index in [0, 2, 3, 3, 1] {
            let (partial, chunk) = (&partial, chunks[index]);
            scope.spawn(move || partial.write(index, chunk).unwrap());
        }
    });
    let stored = partial.finish().unwrap();
    assert_eq!((stored.id, stored.size_bytes), (id, blob.len() as u64));
    assert!(matches!(partial.finish(), Err(StoreError::Busy { .. })));
    assert!(store.partials().is_empty());
    assert_eq!(store.usage().reserved_bytes, 0);
    assert_eq!(read_all(&store, &id), blob);
    drop((partial, stored, store));
    assert_eq!(
        files(&dir.path().join("blobs")),
        [id.to_hex(), format!("{}.hashes", id.to_hex())]
    );
    open(&dir).verify(&id).unwrap();
}

#[test]
fn the_empty_blob_can_be_downloaded() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let partial = store.partial(list(b"")).unwrap();
    assert_eq!(partial.finish().unwrap().size_bytes, 0);
    assert!(store.has(&blob_id(b"")));
}

/// Leaves a partial download of which `chunks` are there, then changes its files.
fn tampered(change: impl FnOnce(&Path, &Path)) -> (TempDir, Vec<u8>, usize) {
    let dir = TempDir::new().unwrap();
    let blob = content(11, 3 * BLOB_CHUNK_BYTES);
    let store = open(&dir);
    let partial = store.partial(list(&blob)).unwrap();
    for index in [0, 1] {
        partial
            .write(index, &blob[index * BLOB_CHUNK_BYTES..][..BLOB_CHUNK_BYTES])
            .unwrap();
    }
    drop((partial, store));
    let path = dir.path().join("blobs").join(blob_id(&blob).to_hex());
    change(&path.with_extension("part"), &path.with_extension("state"));
    let store = open(&dir);
    let partial = store.partial(list(&blob)).unwrap();
    let missing = partial.missing();
    for (index, chunk) in blob.chunks(BLOB_CHUNK_BYTES).enumerate() {
        partial.write(index, chunk).unwrap();
    }
    drop(partial.finish().unwrap());
    assert_eq!(read_all(&store, &blob_id(&blob)), blob);
    drop((partial, store));
    (dir, blob, missing)
}

fn flip(path: &Path, byte: u64) {
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut old = [0];
    file.read_exact_at(&mut old, byte).unwrap();
    file.write_all_at(&[old[0] ^ 1], byte).unwrap();
}

fn resize(path: &Path, by: i64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(len.checked_add_signed(by).unwrap()).unwrap();
}

#[test]
fn a_partial_state_is_never_trusted() {
    assert_eq!(tampered(|_, _| {}).2, 1);
    // A torn record costs its chunk, a torn, changed or foreign head all of them.
    assert_eq!(tampered(|_, state| resize(state, -5)).2, 2);
    assert_eq!(tampered(|_, state| resize(state, -30)).2, 3);
    assert_eq!(tampered(|_, state| flip(state, 60)).2, 3);
    assert_eq!(
        tampered(|_, state| fs::write(state, b"CALPART\x01").unwrap()).2,
        3
    );
    assert_eq!(tampered(|_, state| fs::remove_file(state).unwrap()).2, 3);
    // Other content than the state says.
    assert_eq!(tampered(|part, _| flip(part, 1_048_576)).2, 2);
    assert_eq!(tampered(|part, _| resize(part, -1)).2, 2);
    assert_eq!(tampered(|part, _| fs::remove_file(part).unwrap()).2, 3);
    // Longer content than the blob has.
    let (dir, blob, missing) = tampered(|part, _| resize(part, 9 << 20));
    assert_eq!(missing, 1);
    let file = dir.path().join("blobs").join(blob_id(&blob).to_hex());
    assert_eq!(fs::metadata(file).unwrap().len(), 3 << 20);
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

#[tokio::test]
async fn the_async_face_does_the_same() {
    let dir = TempDir::new().unwrap();
    let store: Arc<dyn BlobStore> = Arc::new(open(&dir));
    let blob = Bytes::from(content(21, 2 * BLOB_CHUNK_BYTES + 1));
    let id = blob_id(&blob);
    assert_eq!(store.size(id).await.unwrap(), None);
    assert!(store.reader(id).await.unwrap().is_none());

    let mut writer = store.writer().await.unwrap();
    writer.write(blob.slice(..100)).await.unwrap();
    writer.write(blob.slice(100..)).await.unwrap();
    let stored = writer.finish(Some(id)).await.unwrap();
    assert_eq!(stored.size_bytes, blob.len() as u64);
    let reader = store.reader(id).await.unwrap().unwrap();
    assert_eq!((reader.id(), reader.size_bytes()), (id, blob.len() as u64));
    assert_eq!(reader.read(5..1_048_600).await.unwrap(), blob[5..1_048_600]);
    assert_eq!(reader.list().await.unwrap(), list(&blob));

    let other = Bytes::from(content(22, BLOB_CHUNK_BYTES + 9));
    let partial = store.partial(list(&other)).await.unwrap();
    let second = partial.write(1, other.slice(BLOB_CHUNK_BYTES..));
    drop(partial.write(0, other.slice(..BLOB_CHUNK_BYTES)));
    second.await.unwrap();
    assert!(
        !partial.has(0),
        "a future that is never polled does nothing"
    );
    assert!(partial.finish().await.is_err());
    partial
        .write(0, other.slice(..BLOB_CHUNK_BYTES))
        .await
        .unwrap();
    assert_eq!((partial.missing(), partial.list().len()), (0, 2));
    partial.finish().await.unwrap();
    assert_eq!(
        store.size(blob_id(&other)).await.unwrap(),
        Some(other.len() as u64)
    );

    let small = Bytes::from_static(b"small");
    let batch = vec![
        (Some(blob_id(b"small")), small.clone()),
        (None, Bytes::new()),
    ];
    let stored = store.put_batch(batch).await.unwrap();
    assert_eq!(stored.ids, [blob_id(b"small"), blob_id(b"")]);
    let refused = store.put_batch(vec![
        (None, Bytes::from_static(b"kept?")),
        (Some(id), small),
    ]);
    assert!(matches!(refused.await, Err(StoreError::Mismatch { .. })));
    assert_eq!(store.size(blob_id(b"kept?")).await.unwrap(), None);
}

#[test]
fn without_a_runtime_the_async_face_refuses() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let future = BlobStore::writer(&store);
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(result) = future.as_mut().poll(&mut context) else {
        panic!("it has nothing to wait for");
    };
    assert!(matches!(result, Err(StoreError::Stopped)));
}
