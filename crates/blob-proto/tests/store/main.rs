//! The store in a folder, by its blocking methods and by its async face.

#![cfg(all(feature = "fs", unix))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test says what broke by panicking"
)]

mod blobs;
mod damage;
mod face;
mod partial;
mod removal;

use std::{fs, path::Path};

use calimero_network_blob::{
    BlobHasher, BlobId, ChunkList,
    store::{FsBlobStore, FsConfig},
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
