//! Hashing, and what the store in a folder does with it. Each sample ends durable.
//!
//! `TMPDIR` chooses the disk.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark that fails has nobody to tell but its operator"
)]

use calimero_network_blob::{
    BlobHasher, blob_id,
    store::{FsBlobStore, FsConfig},
};
use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;
use divan::{
    Bencher,
    counter::{BytesCount, ItemsCount},
};
use tempfile::TempDir;

fn main() {
    divan::main();
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

fn store() -> (TempDir, FsBlobStore) {
    let dir = TempDir::new().unwrap();
    let store = FsBlobStore::open(dir.path(), &FsConfig::default()).unwrap();
    (dir, store)
}

#[divan::bench(args = [4 << 10, 1 << 20, 64 << 20])]
fn hash(bencher: Bencher<'_, '_>, len: usize) {
    let content = content(len);
    bencher
        .counter(BytesCount::new(len))
        .bench(|| blob_id(divan::black_box(&content)));
}

#[divan::bench(args = [4 << 10, 1 << 20, 256 << 20], sample_count = 5, sample_size = 1)]
fn put(bencher: Bencher<'_, '_>, len: usize) {
    let content = content(len);
    bencher
        .counter(BytesCount::new(len))
        .with_inputs(store)
        .bench_values(|(dir, store)| {
            let mut writer = store.writer().unwrap();
            content
                .chunks(BLOB_CHUNK_BYTES)
                .for_each(|piece| writer.write(piece).unwrap());
            (writer.finish(None).unwrap(), store, dir)
        });
}

/// Chunks verified one by one against the list, as a download does, on `threads` at a time.
#[divan::bench(args = [1, 2], sample_count = 5, sample_size = 1)]
fn download_256_mib(bencher: Bencher<'_, '_>, threads: usize) {
    let content = content(256 << 20);
    let mut hasher = BlobHasher::new();
    hasher.update(&content).unwrap();
    let list = hasher.finish().list;
    bencher
        .counter(BytesCount::new(content.len()))
        .with_inputs(store)
        .bench_values(|(dir, store)| {
            let partial = store.partial(list.clone()).unwrap();
            std::thread::scope(|scope| {
                for thread in 0..threads {
                    let (partial, chunks) = (&partial, content.chunks(BLOB_CHUNK_BYTES));
                    scope.spawn(move || {
                        for (index, chunk) in chunks.enumerate().skip(thread).step_by(threads) {
                            partial.write(index, chunk).unwrap();
                        }
                    });
                }
            });
            (partial.finish().unwrap(), store, dir)
        });
}

#[divan::bench(args = [256 << 20], sample_count = 5, sample_size = 1)]
fn read(bencher: Bencher<'_, '_>, len: usize) {
    let (_dir, store) = store();
    let stored = store.put(&content(len)).unwrap();
    let reader = store.reader(&stored.id).unwrap().unwrap();
    bencher.counter(BytesCount::new(len)).bench(|| {
        for index in 0..calimero_network_blob::chunk_count(reader.size_bytes()) {
            divan::black_box(reader.chunk(index).unwrap());
        }
    });
}

#[divan::bench(args = [100, 10_000], sample_count = 5, sample_size = 1)]
fn batch_of_4_kib(bencher: Bencher<'_, '_>, count: usize) {
    let mut content = content(4096);
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(store)
        .bench_local_values(|(dir, store)| {
            let mut batch = store.batch();
            for number in 0..count {
                content[..8].copy_from_slice(&number.to_le_bytes());
                batch.add(None, &content).unwrap();
            }
            (batch.commit().unwrap(), store, dir)
        });
}

/// Opening a store of 10 000 small blobs.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn open_10_000(bencher: Bencher<'_, '_>) {
    let (dir, store) = store();
    let mut batch = store.batch();
    for number in 0..10_000_usize {
        batch.add(None, &number.to_le_bytes()).unwrap();
    }
    drop((batch.commit().unwrap(), store));
    bencher
        .counter(ItemsCount::new(10_000_usize))
        .bench_local(|| FsBlobStore::open(dir.path(), &FsConfig::default()).unwrap());
}
