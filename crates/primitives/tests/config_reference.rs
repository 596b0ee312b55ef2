//! The reference page of the configuration is generated from the code: documentation comments,
//! types and defaults. `WRITE_REFERENCE=1` writes the page; otherwise the test compares it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{collections::BTreeMap, fmt::Write as _, fs};

use calimero_network_primitives::{NetworkConfig, config::Preset};

const PAGE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/reference/configuration.md"
);
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config");

const HEAD: &str = "\
# Configuration

This page is generated from the code. Change the documentation comments in
`crates/primitives/src/config` and run `.ci/reference --write`.

A configuration file is TOML. A missing key has its default. `calnet config check FILE` validates a
file, `calnet config show` prints every key. Keys that end in `_ms` are milliseconds, keys that end in
`_bytes` are bytes. An unknown key, a key of an earlier version and a value out of range are refused
with the path of the key. A file of the published 0.11 node is converted by `calnet config import`.
";

/// One field of a struct: its documentation, its name in files and its type.
struct Field {
    docs: Vec<String>,
    key: String,
    kind: String,
}

/// A struct or enum of the sources.
#[derive(Default)]
struct Item {
    docs: Vec<String>,
    fields: Vec<Field>,
}

/// Reads the structs and enums of one source file.
fn read(source: &str, items: &mut BTreeMap<String, Item>) {
    let (mut docs, mut rename, mut skip) = (Vec::new(), None, false);
    let mut open: Option<(String, Item)> = None;
    for line in source.lines() {
        let text = line.trim();
        if let Some(doc) = text.strip_prefix("///") {
            docs.push(doc.strip_prefix(' ').unwrap_or(doc).to_owned());
            continue;
        }
        if text.starts_with("#[") {
            skip |= text == "#[serde(skip)]";
            let after = text.split_once("rename = \"").map(|(_, after)| after);
            rename = after
                .and_then(|after| after.split('"').next())
                .map(str::to_owned)
                .or(rename);
            continue;
        }
        let mut words = text.split_whitespace();
        match (words.next(), words.next(), words.next(), &mut open) {
            (Some("pub"), Some("struct" | "enum"), Some(name), None) if text.ends_with('{') => {
                let docs = std::mem::take(&mut docs);
                open = Some((
                    name.to_owned(),
                    Item {
                        docs,
                        fields: Vec::new(),
                    },
                ));
            }
            (Some("pub"), Some(name), Some(_), Some((_, item))) if !skip => {
                let kind = text.split_once(": ").unwrap().1.trim_end_matches(',');
                let key = rename
                    .take()
                    .unwrap_or(name.trim_end_matches(':').to_owned());
                item.fields.push(Field {
                    docs: std::mem::take(&mut docs),
                    key,
                    kind: kind.to_owned(),
                });
            }
            (Some(name), None, _, Some((_, item))) if name.ends_with(',') && !skip => {
                let name = name.trim_end_matches(',').to_owned();
                item.fields.push(Field {
                    docs: std::mem::take(&mut docs),
                    key: rename.take().unwrap_or(name.to_lowercase()),
                    kind: String::new(),
                });
            }
            (Some("}"), None, None, _) if line == "}" => items.extend(open.take()),
            _ => {}
        }
        docs.clear();
        (rename, skip) = (None, false);
    }
}

/// Returns the text of a comment without links to items.
fn plain(docs: &[String]) -> String {
    let mut text = docs.join("\n");
    while let Some(start) = text.find("](") {
        let end = start + text[start..].find(')').unwrap();
        text.replace_range(start + 1..=end, "");
        let open = text[..start].rfind('[').unwrap();
        text.remove(start);
        text.remove(open);
    }
    text.replace("[`", "`").replace("`]", "`")
}

/// Returns the value at a path, as TOML writes it.
fn value_at(defaults: &toml::Table, path: &str) -> toml::Value {
    let mut at = toml::Value::Table(defaults.clone());
    for part in path.split('.') {
        at = at
            .get(part)
            .unwrap_or_else(|| panic!("no key {path}"))
            .clone();
    }
    at
}

struct Reference {
    items: BTreeMap<String, Item>,
    defaults: toml::Table,
    page: String,
    keys: Vec<String>,
}

impl Reference {
    fn table(&mut self, name: &str, prefix: &str) {
        let item = self.items.remove(name).unwrap();
        let (tables, keys): (Vec<_>, Vec<_>) = (item.fields.into_iter()).partition(|field| {
            self.items.contains_key(&field.kind)
                && field.kind != "MeshConfig"
                && field.kind.ends_with("Config")
        });
        if !prefix.is_empty() && !keys.is_empty() {
            let table = prefix.trim_end_matches('.');
            let docs = plain(&item.docs);
            writeln!(self.page, "\n## `[{table}]`\n\n{docs}").unwrap();
        }
        for field in keys {
            self.key(&field, &format!("{prefix}{}", field.key));
        }
        for field in tables {
            self.table(&field.kind, &format!("{prefix}{}.", field.key));
        }
    }

    fn key(&mut self, field: &Field, path: &str) {
        let docs = plain(&field.docs);
        let first = docs.split("\n\n").next().unwrap();
        assert!(
            first.split_whitespace().count() >= 4,
            "{path}: no description"
        );
        assert!(docs.contains("- Default: "), "{path}: no default");
        assert!(docs.contains("- Reason: "), "{path}: no reason");
        let number = ["u32", "u64", "usize", "Duration"].contains(&field.kind.as_str());
        assert!(!number || docs.contains("- Range: "), "{path}: no range");
        let value = value_at(&self.defaults, path);
        let name = path.rsplit('.').next().unwrap();
        // The name and the version of the program change with each release.
        let shown = match name {
            "agent_version" => "\"calimero-network/<version>\"".to_owned(),
            _ => value.to_string(),
        };
        writeln!(
            self.page,
            "\n### `{path}`\n\n```toml\n{name} = {shown}\n```\n\n{docs}"
        )
        .unwrap();
        self.keys.push(path.to_owned());
    }

    fn presets(&mut self) {
        let item = self.items.remove("Preset").unwrap();
        self.page.push_str("\n## Presets\n\n`preset = \"…\"` at the top of a file names one. A key of the file overrides it.\n");
        for (preset, field) in Preset::ALL.into_iter().zip(&item.fields) {
            let docs = plain(&field.docs);
            writeln!(self.page, "\n### `preset = \"{}\"`\n\n{docs}", field.key).unwrap();
            let toml = NetworkConfig::preset(preset).to_toml().unwrap();
            let values: toml::Table = toml.parse().unwrap();
            for key in &self.keys {
                let (before, after) = (value_at(&self.defaults, key), value_at(&values, key));
                if before != after {
                    write!(self.page, "\n- `{key} = {after}`").unwrap();
                }
            }
            if NetworkConfig::preset(preset) != NetworkConfig::default() {
                self.page.push('\n');
            }
        }
    }
}

#[test]
fn the_reference_is_that_of_the_code() {
    let mut items = BTreeMap::new();
    for file in fs::read_dir(SOURCES).unwrap() {
        read(
            &fs::read_to_string(file.unwrap().path()).unwrap(),
            &mut items,
        );
    }
    let root = fs::read_to_string(format!("{SOURCES}/mod.rs")).unwrap();
    read(&root, &mut items);
    let defaults = NetworkConfig::default().to_toml().unwrap().parse().unwrap();
    let mut reference = Reference {
        items,
        defaults,
        page: HEAD.to_owned(),
        keys: Vec::new(),
    };
    reference.page.push_str("\n## Top level\n");
    reference.table("NetworkConfig", "");
    reference.presets();
    let count = reference.keys.len();
    writeln!(reference.page, "\nThere are {count} keys.").unwrap();
    if std::env::var_os("WRITE_REFERENCE").is_some() {
        fs::write(PAGE, &reference.page).unwrap();
    }
    let written = fs::read_to_string(PAGE).unwrap_or_default();
    assert!(
        written == reference.page,
        "docs/reference/configuration.md is out of date: run .ci/reference --write"
    );
}
