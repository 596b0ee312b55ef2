//! The power is cut after every operation of fetches into a file: a file that has its name is whole,
//! one that was acknowledged stays, and chunks that are resumed verify.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "an unexpected result ends a test"
)]

use std::{path::Path, sync::Arc};

use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;

use super::{FilePartial, chunks, complete::CompleteFile, whole::Parts};
use crate::{
    BlobHasher, ChunkList,
    store::{
        StoreError,
        disk::{Disk, Mode, sim::SimDisk},
    },
};

/// States of the disk that are tried for each cut, the two extremes among them.
const STATES: u64 = 8;

const FILE: &str = "/folder/file";

fn content() -> Vec<u8> {
    (0..2 * BLOB_CHUNK_BYTES + 100)
        .map(|at| (at / 512) as u8)
        .collect()
}

fn list(content: &[u8]) -> ChunkList {
    let mut hasher = BlobHasher::new();
    hasher.update(content).unwrap();
    hasher.finish().list
}

/// Fetches to a file. Sets `done` once that is acknowledged.
type Script = fn(&Arc<dyn Disk>, &[u8], &mut bool) -> Result<(), StoreError>;

/// Chunks in another order, in two tries.
fn by_chunks(disk: &Arc<dyn Disk>, content: &[u8], done: &mut bool) -> Result<(), StoreError> {
    let pieces: Vec<_> = content.chunks(BLOB_CHUNK_BYTES).collect();
    let open = || FilePartial::open(Arc::clone(disk), FILE.into(), list(content));
    open()?.write(2, pieces[2])?;
    let partial = open()?;
    partial.write(1, pieces[1])?;
    partial.write(0, pieces[0])?;
    partial.finish()?;
    *done = true;
    Ok(())
}

/// Content in order, over chunks of an earlier try.
fn in_order(disk: &Arc<dyn Disk>, content: &[u8], done: &mut bool) -> Result<(), StoreError> {
    let partial = FilePartial::open(Arc::clone(disk), FILE.into(), list(content))?;
    partial.write(0, &content[..BLOB_CHUNK_BYTES])?;
    drop(partial);
    let mut whole = Parts::new(Arc::clone(disk), FILE.into()).create()?;
    whole.write(&content[..1000])?;
    whole.write(&content[1000..])?;
    whole.finish(Some(list(content).id()))?;
    *done = true;
    Ok(())
}

/// A file that is complete and was not acknowledged, because its process was killed.
fn again(disk: &Arc<dyn Disk>, content: &[u8], done: &mut bool) -> Result<(), StoreError> {
    let file = disk.open(Path::new(FILE), Mode::Chunks { limit_bytes: 0 });
    let written = file.and_then(|file| file.write(content, 0));
    if written.is_ok() {
        let file = CompleteFile::find(disk, Path::new(FILE), &list(content)).unwrap();
        file.settle()?;
        *done = true;
    }
    Ok(())
}

fn disk() -> SimDisk {
    let disk = SimDisk::default();
    disk.create_dir(Path::new("/folder")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn check(left: SimDisk, content: &[u8], done: bool, torn: bool) -> Result<(), String> {
    let left: Arc<dyn Disk> = Arc::new(left);
    let found = left.read(Path::new(FILE), u64::MAX).unwrap();
    match found {
        Some(found) if found == content => {}
        Some(_) if torn && !done => {}
        None if !done => {}
        Some(_) => return Err("the file is wrong".to_owned()),
        None => return Err("the file is lost".to_owned()),
    }
    let partial = FilePartial::open(left, FILE.into(), list(content)).unwrap();
    chunks::verify_all(&partial)
}

/// `torn`: the script itself writes under the final name, as another program would.
fn cut_everywhere(script: Script, torn: bool) {
    let content = content();
    let whole = disk();
    let mut done = false;
    let shared: Arc<dyn Disk> = Arc::new(whole.clone());
    script(&shared, &content, &mut done).unwrap();
    assert!(done);
    for power in 1..=whole.operations() {
        let disk = disk().with_power(power);
        let mut done = false;
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let _ = script(&shared, &content, &mut done);
        for seed in 0..STATES {
            check(disk.after_cut(seed), &content, done, torn)
                .unwrap_or_else(|what| panic!("cut after {power}, state {seed}: {what}"));
        }
    }
}

#[test]
fn fetches_by_chunks_survive_power_cuts() {
    cut_everywhere(by_chunks, false);
}

#[test]
fn fetches_in_order_survive_power_cuts() {
    cut_everywhere(in_order, false);
}

#[test]
fn a_file_that_was_complete_is_durable_once_it_is_acknowledged() {
    cut_everywhere(again, true);
}
