//! The cost of a hostile collection, counted in folders that are looked up.

use super::*;

fn entry(path: &str) -> Entry {
    Entry {
        path: path.parse().unwrap(),
        executable: false,
        size_bytes: 0,
        id: BlobId::new([7; 32]),
    }
}

#[test]
fn a_folder_of_many_files_is_looked_up_once() {
    let deep = "a/".repeat(2_000);
    let files = 1_000;
    let entries: Vec<_> = (0..files)
        .map(|at| entry(&format!("{deep}{at:05}")))
        .collect();
    assert_eq!(folders(&entries).count(), 2_000);
    assert_eq!(Collection::new(entries).unwrap().entries().len(), files);
}

#[test]
fn a_file_is_found_that_is_a_folder_of_another_one() {
    for paths in [
        &["a", "a/b"][..],
        &["a", "a-b", "a/b"],
        &["a/b", "a/b/c"],
        &["a/b", "a/b-c/d", "a/b/c/d", "a/b/c/e"],
        &["a/b/c/d", "a/b/c/e/f", "a/b/c/e"],
    ] {
        let made = Collection::new(paths.iter().map(|path| entry(path)).collect());
        assert!(
            matches!(made, Err(CollectionError::Conflict { .. })),
            "{paths:?}"
        );
    }
    let paths = ["a/b", "a/c/d", "a-b/b", "b/a", "c"];
    Collection::new(paths.map(entry).to_vec()).unwrap();
}
