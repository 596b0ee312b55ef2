use calimero_network::blob::{blob_id, store::StoreError};

use super::*;

fn entry(path: &str, content: &[u8]) -> Entry {
    Entry {
        path: path.parse().unwrap(),
        executable: false,
        size_bytes: content.len() as u64,
        id: blob_id(content),
    }
}

#[test]
fn the_store_of_small_files_has_space_for_those_of_the_ticket() {
    let dir = tempfile::tempdir().unwrap();
    let parts = Parts::open(dir.path().join("parts")).unwrap();
    let blobs = |content: &[u8]| [(blob_id(content), content.len() as u64)];
    let path = parts.small_path();
    let store = Parts::open_small(&path, &blobs(b"of an earlier ticket")).unwrap();
    store.put(b"of an earlier ticket").unwrap();
    drop(store);
    let store = Parts::open_small(&path, &blobs(b"other")).unwrap();
    assert!(store.list().is_empty());
    let error = store.put(&[7; 5 + 1 + HASH_BYTES as usize]).unwrap_err();
    assert!(matches!(error, StoreError::Quota { .. }), "{error}");
    store.put(b"other").unwrap();
    drop(store);
    // What has arrived is kept for the next attempt.
    let store = Parts::open_small(&path, &blobs(b"other")).unwrap();
    assert_eq!(store.list().len(), 1);
}

#[test]
fn a_folder_without_parts_is_removed_and_one_with_parts_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("parts");
    drop(Parts::open(folder.clone()).unwrap());
    assert!(!folder.exists());
    let id = blob_id(b"content");
    let parts = Parts::open(folder.clone()).unwrap();
    fs::write(parts.file(&id), b"cont").unwrap();
    drop(parts);
    let parts = Parts::open(folder.clone()).unwrap();
    assert_eq!(fs::read(parts.file(&id)).unwrap(), b"cont");
    fs::remove_file(parts.file(&id)).unwrap();
    // The store of small files is a part too.
    drop(Parts::open_small(&parts.small_path(), &[(id, 7)]).unwrap());
    drop(parts);
    assert!(folder.exists());
}

#[test]
fn many_small_files_are_built_from_one_store() {
    const FILES: u32 = 100;
    let dir = tempfile::tempdir().unwrap();
    let parts = Parts::open(dir.path().join("parts")).unwrap();
    let content = |number: u32| (number / 2).to_le_bytes();
    let entries = (0..FILES).map(|number| entry(&format!("a/{number}"), &content(number)));
    let entries: Vec<_> = entries.collect();
    let blobs: Vec<_> = entries.iter().map(|it| (it.id, it.size_bytes)).collect();
    let store = Parts::open_small(&parts.small_path(), &blobs).unwrap();
    for number in 0..FILES {
        store.put(&content(number)).unwrap();
    }
    parts.set_small(store);
    let tree = parts.build(&Collection::new(entries).unwrap()).unwrap();
    for number in 0..FILES {
        let file = tree.join(format!("a/{number}"));
        assert_eq!(fs::read(&file).unwrap(), content(number), "{number}");
        assert_eq!(fs::metadata(&file).unwrap().nlink(), 1, "{number}");
    }
    parts.remove().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// As where a file system does not distinguish `README` from `readme`, or two forms of one letter.
#[test]
fn a_file_does_not_replace_another_one_of_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let parts = Parts::open(dir.path().join("parts")).unwrap();
    let (large, small) = (entry("README", b"large"), entry("readme", b"small"));
    fs::write(parts.file(&large.id), b"large").unwrap();
    let sizes = [(small.id, small.size_bytes)];
    let store = Parts::open_small(&parts.small_path(), &sizes).unwrap();
    store.put(b"small").unwrap();
    parts.set_small(store);
    let to = dir.path().join("readme");
    parts.place(&large, &to).unwrap();
    for entry in [&small, &large] {
        let refused = parts.place(entry, &to).unwrap_err().to_string();
        assert!(refused.contains("another file of the folder"), "{refused}");
    }
    // The name is a link to the part, which is kept for another attempt.
    assert_eq!(fs::read(&to).unwrap(), b"large");
    assert_eq!(fs::read(parts.file(&large.id)).unwrap(), b"large");
}
