//! Files that change while they are stored, and names that a collection cannot have.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use super::*;
use crate::store::FsConfig;

#[test]
fn a_file_that_has_grown_is_not_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("grows");
    let read = |len: usize| {
        fs::write(&path, vec![7; len]).unwrap();
        read_small(&mut File::open(&path).unwrap(), &path).unwrap()
    };
    let most = PACK_MAX_BLOB_BYTES;
    assert_eq!(read(most).map(|content| content.len()), Some(most));
    assert_eq!(read(most + 1), None);
    assert_eq!(read(5 * most), None);
}

#[test]
fn a_name_that_is_not_text_is_refused_and_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let store = FsBlobStore::open(dir.path().join("store"), &FsConfig::default()).unwrap();
    let folder = dir.path().join("folder");
    fs::create_dir(&folder).unwrap();
    // Some file systems refuse such a name themselves.
    if fs::write(folder.join(OsStr::from_bytes(b"a\xff")), b"content").is_err() {
        return;
    }
    let refused = store.put_folder(&folder);
    let Err(StoreError::Collection(CollectionError::Path { reason, .. })) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(reason, "it is not UTF-8");
}
