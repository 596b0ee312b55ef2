//! Collections against their vectors, and folders that are stored as one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

use std::{path::Path, sync::LazyLock};

use calimero_network_blob::{
    BlobId,
    collection::{Collection, Entry, EntryPath},
};
use proptest::prelude::*;
use serde_json::Value;

static VECTORS: LazyLock<Value> = LazyLock::new(|| {
    let vectors = include_str!("../../../testdata/blob-collection.json");
    serde_json::from_str(vectors).expect("vectors are JSON")
});

fn entry(value: &Value) -> Entry {
    Entry {
        path: value["path"].as_str().unwrap().parse().unwrap(),
        executable: value["executable"].as_bool().unwrap(),
        size_bytes: value["size"].as_u64().unwrap(),
        id: BlobId::from_hex(value["id"].as_str().unwrap()).unwrap(),
    }
}

#[test]
fn valid_collections_are_read_and_written_to_the_byte() {
    for (name, vector) in VECTORS["valid"].as_object().unwrap() {
        let bytes = hex::decode(vector["hex"].as_str().unwrap()).unwrap();
        let entries: Vec<_> = vector["entries"]
            .as_array()
            .unwrap()
            .iter()
            .map(entry)
            .collect();
        let read = Collection::decode(&bytes).unwrap();
        assert_eq!(read.entries(), entries, "{name}");
        let made = Collection::new(entries.into_iter().rev().collect()).unwrap();
        assert_eq!(made.encode().unwrap(), bytes, "{name}");
    }
}

#[test]
fn invalid_collections_are_refused() {
    for (name, vector) in VECTORS["invalid"].as_object().unwrap() {
        let bytes = hex::decode(vector.as_str().unwrap()).unwrap();
        assert!(Collection::decode(&bytes).is_err(), "{name}");
    }
}

#[test]
fn a_collection_has_a_limit_of_folders() {
    let files = |files: usize, depth: usize| {
        let entries = (0..files).map(|number| Entry {
            path: format!("{number}/{}f", "a/".repeat(depth - 1))
                .parse()
                .unwrap(),
            executable: false,
            size_bytes: 0,
            id: BlobId::from([7; 32]),
        });
        Collection::new(entries.collect())
    };
    assert_eq!(files(1 << 9, 1 << 9).unwrap().entries().len(), 1 << 9);
    let error = files((1 << 9) + 1, 1 << 9).unwrap_err();
    assert!(error.to_string().contains("folders"), "{error}");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let headed = [b"CALCOLL\x01".as_slice(), &bytes].concat();
        for bytes in [bytes, headed] {
            if let Ok(collection) = Collection::decode(&bytes) {
                prop_assert_eq!(collection.encode().unwrap(), bytes);
            }
        }
    }

    #[test]
    fn a_path_stays_below_its_folder(path in "[a./\\\\:~ -]{0,12}") {
        if let Ok(path) = path.parse::<EntryPath>() {
            let root = Path::new("/some/folder");
            let joined = path.below(root);
            let below = joined.strip_prefix(root).unwrap();
            let normal = |part| matches!(part, std::path::Component::Normal(_));
            prop_assert!(below.components().count() > 0);
            prop_assert!(below.components().all(normal), "{}", path);
        }
    }
}

#[cfg(all(feature = "fs", unix))]
#[test]
fn a_folder_is_one_blob_and_its_small_files_one_pack() {
    use std::{fs, os::unix::fs::PermissionsExt};

    use calimero_network_blob::{
        collection::CollectionError,
        store::{FsBlobStore, FsConfig, StoreError},
    };

    let (dir, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let root = source.path();
    for number in 0..300_u32 {
        let folder = root.join(format!("part {}", number % 7));
        fs::create_dir_all(&folder).unwrap();
        fs::write(
            folder.join(number.to_string()),
            number.to_le_bytes().repeat(175),
        )
        .unwrap();
    }
    fs::write(root.join("large"), vec![7; 70_000]).unwrap();
    fs::set_permissions(root.join("large"), fs::Permissions::from_mode(0o755)).unwrap();
    let store = FsBlobStore::open(dir.path(), &FsConfig::default()).unwrap();
    let stored = store.put_folder(root).unwrap();
    let packs = fs::read_dir(dir.path().join("packs")).unwrap();
    let pack = |entry: &fs::DirEntry| entry.path().extension().is_some_and(|e| e == "pack");
    assert_eq!(
        packs.filter(|entry| pack(entry.as_ref().unwrap())).count(),
        1
    );
    let reader = store.reader(&stored.stored.id).unwrap().unwrap();
    let read = Collection::decode(&reader.read(0..reader.size_bytes()).unwrap()).unwrap();
    assert_eq!(read, stored.collection);
    assert_eq!(read.entries().len(), 301);
    assert_eq!(read.size_bytes(), 300 * 700 + 70_000);
    for entry in read.entries() {
        let reader = store.reader(&entry.id).unwrap().unwrap();
        let content = reader.read(0..entry.size_bytes).unwrap();
        assert!(
            content == fs::read(entry.path.below(root)).unwrap(),
            "{}",
            entry.path
        );
        assert_eq!(entry.executable, entry.path.as_str() == "large");
    }
    std::os::unix::fs::symlink("/etc", root.join("link")).unwrap();
    let refused = store.put_folder(root);
    assert!(
        matches!(refused, Err(StoreError::NotRegular { .. })),
        "{refused:?}"
    );
    fs::remove_file(root.join("link")).unwrap();
    fs::write(root.join("back\\slash"), b"").unwrap();
    let refused = store.put_folder(root);
    let named = matches!(
        refused,
        Err(StoreError::Collection(CollectionError::Path { .. }))
    );
    assert!(named, "{refused:?}");
}
