//! Damage is found and repaired. Foreign files and stores in use are left alone.

use std::{
    fs,
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
};

use calimero_network_blob::{
    BlobId,
    store::{FsBlobStore, FsConfig, StoreError, Verification},
};
use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;
use tempfile::TempDir;

use crate::{content, files, list, open, read_all};

#[test]
fn damage_is_found() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let blob = content(3, 2 * BLOB_CHUNK_BYTES);
    let id = store.put(&blob).unwrap().id;
    let path = dir.path().join("blobs").join(id.to_hex());
    let hashes = path.with_extension("hashes");

    // A damaged list of chunk hashes is computed again.
    fs::write(&hashes, [0; 64]).unwrap();
    assert_eq!(
        store.reader(&id).unwrap().unwrap().list().unwrap(),
        list(&blob)
    );

    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[blob[77] ^ 1], 77).unwrap();
    assert!(matches!(store.verify(&id), Err(StoreError::Damaged { id: found }) if found == id));
    fs::write(&hashes, [0; 64]).unwrap();
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
    let packs = dir.path().join("packs");
    let mut names = files(&packs);
    names.retain(|name| name.ends_with(".pack"));
    let pack = packs.join(&names[0]);
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
fn one_process_at_a_time() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let second = FsBlobStore::open(dir.path(), &FsConfig::default());
    assert!(matches!(second, Err(StoreError::Locked { .. })));
    drop(store);
    drop(open(&dir));
    fs::write(dir.path().join("format"), "calimero blob store 2\n").unwrap();
    let v1 = FsBlobStore::open(dir.path(), &FsConfig::default());
    assert!(matches!(v1, Err(StoreError::Format { .. })));
}

#[test]
fn a_folder_with_something_else_is_refused_and_left_alone() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("1.tmp"), b"somebody's").unwrap();
    fs::write(dir.path().join("letter.txt"), b"somebody's").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let refused = FsBlobStore::open(dir.path(), &FsConfig::default());
    assert!(matches!(refused, Err(StoreError::Format { .. })));
    assert_eq!(files(dir.path()), ["1.tmp", "letter.txt"]);
    let mode = fs::metadata(dir.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
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

/// Ways to damage a stored blob.
const DAMAGES: [fn(&Path); 3] = [
    |path| {
        let byte = fs::read(path).unwrap()[5] ^ 1;
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(&[byte], 5).unwrap();
    },
    |path| {
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(3).unwrap();
    },
    |path| fs::remove_file(path).unwrap(),
];

fn batch(store: &FsBlobStore, contents: &[&[u8]]) -> Vec<BlobId> {
    let mut batch = store.batch();
    for content in contents {
        batch.add(None, content).unwrap();
    }
    batch.commit().unwrap().ids
}

#[test]
fn adding_a_damaged_blob_repairs_it() {
    for damage in DAMAGES {
        for len in [700, 70_000, BLOB_CHUNK_BYTES + 1] {
            let dir = TempDir::new().unwrap();
            let store = open(&dir);
            let blob = content(3, len);
            let id = store.put(&blob).unwrap().id;
            let path = dir.path().join("blobs").join(id.to_hex());
            damage(&path);
            store.verify(&id).unwrap_err();
            store.put(&blob).unwrap();
            store.verify(&id).unwrap();
            damage(&path);
            assert_eq!(batch(&store, &[&blob]), [id]);
            store.verify(&id).unwrap();
            drop(store);
            open(&dir).verify(&id).unwrap();
        }
    }
}

#[test]
fn adding_a_damaged_blob_of_a_pack_repairs_it() {
    for again in [true, false] {
        let dir = TempDir::new().unwrap();
        let store = open(&dir);
        let [one, other] = [content(1, 700), content(2, 900)];
        let ids = batch(&store, &[&one, &other]);
        let packs = dir.path().join("packs");
        let mut names = files(&packs);
        names.retain(|name| name.ends_with(".pack"));
        DAMAGES[0](&packs.join(&names[0]));
        assert!(matches!(
            store.verify(&ids[0]),
            Err(StoreError::Damaged { .. })
        ));
        store.verify(&ids[1]).unwrap();
        match again {
            true => drop(batch(&store, &[&one, &other])),
            false => drop(store.put(&one).unwrap()),
        }
        store.verify(&ids[0]).unwrap();
        drop(store);
        let store = open(&dir);
        store.verify(&ids[0]).unwrap();
        assert_eq!(read_all(&store, &ids[1]), other);
    }
}

#[test]
fn what_is_intact_of_a_damaged_blob_is_kept_for_the_next_fetch() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let blob = content(4, 3 * BLOB_CHUNK_BYTES + 5);
    let id = store.put(&blob).unwrap().id;
    DAMAGES[0](&dir.path().join("blobs").join(id.to_hex()));
    let found = store.check(&id, false).unwrap();
    assert_eq!(found, Verification::Damaged { withdrawn: false });
    assert!(store.has(&id));
    let found = store.check(&id, true).unwrap();
    assert_eq!(found, Verification::Damaged { withdrawn: true });
    assert!(!store.has(&id));
    assert_eq!(store.check(&id, true).unwrap(), Verification::Missing);
    drop(store);

    let store = open(&dir);
    assert!(!store.has(&id));
    let partial = store.partial(list(&blob)).unwrap();
    assert_eq!(partial.missing(), 1);
    partial.write(0, &blob[..BLOB_CHUNK_BYTES]).unwrap();
    drop(partial.finish().unwrap());
    assert_eq!(read_all(&store, &id), blob);
    assert_eq!(store.usage().partial_bytes, 0);
}

#[test]
fn what_is_left_of_a_blob_that_lost_its_end_is_kept_for_the_next_fetch() {
    let len = 2 * BLOB_CHUNK_BYTES + 5;
    // How much is left, whether the store was open when it happened, and the chunks that are left.
    for (left, open_before, intact) in [
        (len - 1, true, 2),
        (len - 1, false, 2),
        (BLOB_CHUNK_BYTES + 7, true, 1),
        (BLOB_CHUNK_BYTES + 7, false, 1),
        (BLOB_CHUNK_BYTES, false, 1),
        (len + 3, false, 2),
        (4 * BLOB_CHUNK_BYTES, false, 2),
    ] {
        let dir = TempDir::new().unwrap();
        let before = open(&dir);
        let blob = content(5, len);
        let id = before.put(&blob).unwrap().id;
        let before = open_before.then_some(before);
        let path = dir.path().join("blobs").join(id.to_hex());
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(left as u64).unwrap();
        let store = before.unwrap_or_else(|| open(&dir));
        assert!(store.withdraw(&id).unwrap(), "{left}");
        assert!(!store.has(&id));
        let partial = store.partial(list(&blob)).unwrap();
        assert_eq!(partial.missing(), 3 - intact, "{left} {open_before}");
        for (index, chunk) in blob.chunks(BLOB_CHUNK_BYTES).enumerate().skip(intact) {
            partial.write(index, chunk).unwrap();
        }
        drop(partial.finish().unwrap());
        assert_eq!(read_all(&store, &id), blob);
        store.verify(&id).unwrap();
    }
}

#[test]
fn lost_chunk_hashes_are_written_back() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let blob = content(6, 2 * BLOB_CHUNK_BYTES + 5);
    let id = store.put(&blob).unwrap().id;
    let path = dir.path().join("blobs").join(id.to_hex());
    let hashes = path.with_extension("hashes");
    fs::remove_file(&hashes).unwrap();
    assert_eq!(
        store.reader(&id).unwrap().unwrap().list().unwrap(),
        list(&blob)
    );
    // The next one reads nothing of the content: it would not verify.
    fs::write(&path, vec![0; blob.len()]).unwrap();
    assert_eq!(
        store.reader(&id).unwrap().unwrap().list().unwrap(),
        list(&blob)
    );
    // Hashes that are damaged are written again as well, and those of a removed blob are not.
    fs::write(&path, &blob).unwrap();
    fs::write(&hashes, b"damaged").unwrap();
    store.reader(&id).unwrap().unwrap().list().unwrap();
    assert_eq!(fs::read(&hashes).unwrap(), list(&blob).digests().to_vec());
    fs::remove_file(&hashes).unwrap();
    let reader = store.reader(&id).unwrap().unwrap();
    store.remove(&id).unwrap();
    assert_eq!(reader.list().unwrap(), list(&blob));
    assert!(!hashes.exists());
}

#[test]
fn folders_and_files_are_their_owners_alone() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("store");
    fs::create_dir(&root).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    let store = FsBlobStore::open(&root, &FsConfig::default()).unwrap();
    let id = store.put(&content(1, BLOB_CHUNK_BYTES + 1)).unwrap().id;
    store.tag("name", id).unwrap();
    batch(&store, &[b"small"]);
    let partial = store.partial(list(&content(2, 100))).unwrap();
    drop((partial, store));
    let mut folders = vec![root.clone()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
        for name in fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
        {
            match name.is_dir() {
                true => folders.push(name),
                false => assert_eq!(mode(&name), 0o600, "{}", name.display()),
            }
            seen += 1;
        }
    }
    assert!(seen > 8, "{seen}");
}

#[test]
fn only_regular_files_are_stored() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let pipe = dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    for path in [pipe.as_path(), Path::new("/dev/zero"), dir.path()] {
        let refused = store.put_file(path);
        assert!(
            matches!(refused, Err(StoreError::NotRegular { .. })),
            "{refused:?}"
        );
    }
    drop(store);
    let config = FsConfig {
        max_bytes: 1000,
        ..FsConfig::default()
    };
    let store = FsBlobStore::open(dir.path(), &config).unwrap();
    let large = dir.path().join("large");
    fs::File::create(&large).unwrap().set_len(1 << 40).unwrap();
    let refused = store.put_file(&large);
    assert!(
        matches!(refused, Err(StoreError::Quota { .. })),
        "{refused:?}"
    );
}
