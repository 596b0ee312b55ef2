//! Every public function that changes a store is called by a script.

/// Functions that change the disk.
const CHANGING: &[&str] = &[
    "add",
    "batch",
    "collect_garbage",
    "commit",
    "discard_partial",
    "finish",
    "open",
    "partial",
    "put",
    "remove",
    "tag",
    "tag_all",
    "untag",
    "withdraw",
    "write",
    "writer",
];

/// Functions that are made of those above.
const COMPOSED: &[&str] = &["put_file", "put_folder"];

/// Functions that read, with `check` and `verify`, whose repair is `withdraw`.
const READING: &[&str] = &[
    "check",
    "chunk",
    "decode",
    "encode",
    "has",
    "hold",
    "id",
    "is_empty",
    "len",
    "list",
    "missing",
    "partial_usage",
    "partials",
    "read",
    "reader",
    "size",
    "size_bytes",
    "stored_list",
    "tags",
    "usage",
    "verify",
];

/// The modules of the store.
const SOURCES: &[&str] = &[
    include_str!("../batch.rs"),
    include_str!("../folder.rs"),
    include_str!("../mod.rs"),
    include_str!("../pack.rs"),
    include_str!("../partial.rs"),
    include_str!("../read.rs"),
    include_str!("../remove.rs"),
    include_str!("../repair.rs"),
    include_str!("../state.rs"),
    include_str!("../tags.rs"),
    include_str!("../write.rs"),
];

fn public(source: &str) -> impl Iterator<Item = &str> {
    source.lines().filter_map(|line| {
        let name = line.trim_start().strip_prefix("pub fn ")?;
        name.split(['(', '<']).next()
    })
}

/// A function that is new has to be put into a list here, and into a script if it changes the disk.
#[test]
fn scripts_call_every_public_function_that_changes_a_store() {
    let scripts = concat!(include_str!("scripts.rs"), include_str!("mod.rs"));
    for name in SOURCES.iter().flat_map(|source| public(source)) {
        let known = [CHANGING, COMPOSED, READING]
            .iter()
            .any(|list| list.contains(&name));
        assert!(known, "`{name}` is in no list of {}", file!());
    }
    // `put` calls `writer`, `write` and `finish`.
    for name in CHANGING.iter().filter(|name| **name != "writer") {
        let called = scripts.contains(&format!(".{name}(")) || *name == "open";
        assert!(called, "no script calls `{name}`");
    }
}
