use std::{fs, os::unix::fs::symlink};

use super::*;
use crate::store::disk::RealDisk;

fn parts(path: PathBuf) -> Arc<Parts> {
    Parts::new(Arc::new(RealDisk::DEFAULT), path)
}

fn create(path: PathBuf) -> Result<Whole, StoreError> {
    parts(path).create()
}

#[test]
fn a_second_writer_of_one_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let mut first = create(path.clone()).unwrap();
    first.write(b"the first half, ").unwrap();
    let refused = create(path.clone()).err().unwrap().to_string();
    assert!(
        refused.contains("another transfer is writing this file"),
        "{refused}"
    );
    first.write(b"the second half").unwrap();
    first.finish(None).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"the first half, the second half");

    let mut next = create(path.clone()).unwrap();
    next.write(b"next").unwrap();
    drop(next);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let mut last = create(path.clone()).unwrap();
    last.write(b"last").unwrap();
    last.finish(None).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"last");
}

#[test]
fn a_link_in_place_of_the_part_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("file"), dir.path().join("other"));
    fs::write(&other, "kept").unwrap();
    symlink(&other, beside(&path, ".whole.part")).unwrap();
    assert!(create(path).is_err());
    assert_eq!(fs::read(&other).unwrap(), b"kept");
}

#[test]
fn sessions_of_one_transfer_write_at_the_same_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let names = || fs::read_dir(dir.path()).unwrap().count();
    let parts = parts(path.clone());
    let mut slow = parts.create().unwrap();
    slow.write(b"the first ha").unwrap();
    let mut left = parts.create().unwrap();
    left.write(b"left").unwrap();
    drop(left);
    let mut quick = parts.create().unwrap();
    quick.write(b"the whole").unwrap();
    assert!(create(path.clone()).is_err(), "another transfer");
    quick.finish(None).unwrap();
    assert_eq!(names(), 1);

    // What is left of the transfer takes nothing from the next one.
    let mut next = create(path.clone()).unwrap();
    slow.write(b"lf").unwrap();
    slow.finish(None).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"the whole");
    drop(parts);
    next.write(b"next").unwrap();
    assert!(create(path.clone()).is_err(), "it is still locked");
    next.finish(None).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"next");
    assert_eq!(names(), 1);
}

#[test]
fn what_a_killed_process_left_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    for name in [".whole.part", ".whole.0.part", ".whole.3.part"] {
        fs::write(beside(&path, name), "left").unwrap();
    }
    let mut whole = create(path.clone()).unwrap();
    whole.write(b"new").unwrap();
    whole.finish(None).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
