//! The store on a disk that is full. Needs the right to mount a file system in memory; where it
//! is missing, the test says so and does nothing.

#![cfg(all(feature = "fs", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

use std::{fs, path::Path, process::Command};

use calimero_network_blob::{
    BlobHasher, blob_id,
    store::{FsBlobStore, FsConfig, StoreError},
};
use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;
use tempfile::TempDir;

/// A disk of 8 MiB in memory, unmounted when dropped.
struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
            .arg(dir.path())
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then_some(Self { dir })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.dir.path()).status();
        assert!(
            unmounted.is_ok_and(|status| status.success()),
            "the test disk stays mounted"
        );
    }
}

fn is_full<T: std::fmt::Debug>(result: Result<T, StoreError>) -> bool {
    match result {
        Err(StoreError::DiskFull { .. }) => true,
        Err(other) => panic!("{other}"),
        Ok(_) => false,
    }
}

#[test]
fn a_full_disk_is_said_and_costs_nothing_that_was_there() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: no right to mount a file system");
        return;
    };
    let store = FsBlobStore::open(disk.path(), &FsConfig::default()).unwrap();
    let first = store.put(&vec![1; 3 << 20]).unwrap();
    let temporaries = || {
        let files = fs::read_dir(disk.path().join("blobs")).unwrap();
        files
            .filter(|file| {
                file.as_ref()
                    .unwrap()
                    .path()
                    .extension()
                    .is_some_and(|e| e == "tmp")
            })
            .count()
    };

    // Streaming and batches.
    assert!(is_full(store.put(&vec![2; 6 << 20])));
    assert_eq!(temporaries(), 0);
    let mut batch = store.batch();
    let full = (0..200_u32).find_map(|number| {
        let mut content = vec![3; 60_000];
        content[..4].copy_from_slice(&number.to_le_bytes());
        batch.add(None, &content).err()
    });
    assert!(matches!(full, Some(StoreError::DiskFull { .. })));
    assert!(matches!(batch.commit(), Err(StoreError::Broken)));

    // A download that does not fit keeps what it has, and ends once there is room.
    let content: Vec<u8> = (0..6 * BLOB_CHUNK_BYTES)
        .map(|at| (at / 4096) as u8)
        .collect();
    let mut hasher = BlobHasher::new();
    hasher.update(&content).unwrap();
    let list = hasher.finish().list;
    let partial = store.partial(list.clone()).unwrap();
    let chunks = || content.chunks(BLOB_CHUNK_BYTES).enumerate();
    let written = chunks()
        .take_while(|(at, chunk)| !is_full(partial.write(*at, chunk)))
        .count();
    assert!((1..6).contains(&written), "{written} chunks fit");
    assert_eq!(partial.missing(), 6 - written);
    drop((partial, store));

    let store = FsBlobStore::open(disk.path(), &FsConfig::default()).unwrap();
    assert_eq!(store.list(), [(first.id, 3 << 20)]);
    store.verify(&first.id).unwrap();
    store.remove(&first.id).unwrap();
    let partial = store.partial(list).unwrap();
    assert_eq!(partial.missing(), 6 - written);
    chunks().for_each(|(at, chunk)| partial.write(at, chunk).unwrap());
    drop(partial.finish().unwrap());
    store.verify(&blob_id(&content)).unwrap();

    // Tags and removals on the full disk.
    fs::write(disk.path().join("filler"), vec![0; 8 << 20]).unwrap_err();
    assert!(is_full(store.tag("name", first.id)));
    assert!(store.tags().is_empty());
    assert!(store.remove(&blob_id(&content)).unwrap());
    drop(store);
}
