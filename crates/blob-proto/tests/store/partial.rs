//! Downloads that go on where they were left.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::Path,
    thread,
    time::{Duration, SystemTime},
};

use calimero_network_blob::{
    BlobId, ChunkList, blob_id,
    error::ChunkError,
    store::{MAX_PARTIALS, PARTIAL_MAX_AGE, StoreError},
};
use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;
use sha2::Digest;
use tempfile::TempDir;

use crate::{content, files, list, open, read_all};

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
fn a_list_of_made_up_hashes_takes_no_more_than_its_own_length() {
    use std::os::unix::fs::MetadataExt;

    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    // 4 GiB by the word of 128 KiB of hashes.
    let digests = content(1, 4096 * 32);
    let id = sha2::Sha256::digest(&digests);
    let list = ChunkList::prove(BlobId::new(id.into()), digests.into()).unwrap();
    let partial = store.partial(list.clone()).unwrap();
    assert_eq!(store.usage().partial_bytes, 4096 * 32);
    let part = dir
        .path()
        .join("blobs")
        .join(format!("{}.part", list.id().to_hex()));
    assert_eq!(fs::metadata(&part).unwrap().blocks(), 0);
    assert!(partial.write(0, &content(2, BLOB_CHUNK_BYTES)).is_err());
    assert_eq!(store.usage().partial_bytes, 4096 * 32);
    assert_eq!(fs::metadata(&part).unwrap().blocks(), 0);
    let usage = store.partial_usage();
    assert_eq!((usage.len(), usage[0].max_bytes), (1, 4 << 30));
}

#[test]
fn abandoned_downloads_expire() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let old = content(1, 2 * BLOB_CHUNK_BYTES);
    let fresh = content(2, 2 * BLOB_CHUNK_BYTES);
    for blob in [&old, &fresh] {
        let partial = store.partial(list(blob)).unwrap();
        partial.write(0, &blob[..BLOB_CHUNK_BYTES]).unwrap();
    }
    drop(store);
    let state = dir
        .path()
        .join("blobs")
        .join(format!("{}.state", blob_id(&old).to_hex()));
    let before = SystemTime::now() - PARTIAL_MAX_AGE - Duration::from_secs(60);
    let file = fs::OpenOptions::new().write(true).open(state).unwrap();
    file.set_modified(before).unwrap();
    let store = open(&dir);
    assert_eq!(store.partials(), [blob_id(&fresh)]);
    let names = files(&dir.path().join("blobs"));
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(store.usage().partial_bytes, (BLOB_CHUNK_BYTES + 64) as u64);
}

#[test]
fn abandoned_downloads_do_not_keep_others_from_beginning() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    // A first chunk that is not known, and a last one that is.
    let two_chunks = |seed: u64| {
        let digests = [content(seed, 32), sha2::Sha256::digest(b"end").to_vec()].concat();
        let id = BlobId::new(sha2::Sha256::digest(&digests).into());
        ChunkList::prove(id, digests.into()).unwrap()
    };
    // Those without a chunk leave nothing.
    for seed in 0..MAX_PARTIALS as u64 + 1 {
        drop(store.partial(two_chunks(seed)).unwrap());
    }
    assert_eq!(store.usage().partials, 0);
    assert!(files(&dir.path().join("blobs")).is_empty());
    // Those with a chunk give way to a new one where no transfer has them open.
    let begin = |seed: u64| {
        let partial = store.partial(two_chunks(seed)).unwrap();
        partial.write(1, b"end").unwrap();
        partial
    };
    let open: Vec<_> = (0..3).map(begin).collect();
    (3..MAX_PARTIALS as u64).for_each(|seed| drop(begin(seed)));
    assert_eq!(store.usage().partials, MAX_PARTIALS);
    drop(begin(5000));
    assert_eq!(store.usage().partials, MAX_PARTIALS);
    let kept = store.partials();
    assert!(open.iter().all(|open| kept.contains(&open.list().id())));
    assert!(kept.contains(&two_chunks(5000).id()));
}
