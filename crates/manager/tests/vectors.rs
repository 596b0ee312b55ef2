//! Every entry of `testdata/vectors.json` has a test that reads it, and what concerns a whole node is
//! tested here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::{fs, path::PathBuf, sync::Arc};

use calimero_network::{
    Keypair, NetworkManager,
    blob::store::{FsBlobStore, FsConfig},
};
use common::{Node, Over, config, start, within};
use serde_json::Value;

/// Files in which entries are read, and the entries. `*` matches any one key or index.
const READ_BY: &[(&str, &[&str])] = &[
    (
        "primitives/tests/vectors.rs",
        &[
            "ids/*",
            "blob_ids/vectors/*/blob_id_base58",
            "blob_ids/vectors/*/blob_id_hex",
            "rendezvous/global",
            "rendezvous/expected/*",
            "rendezvous/captured_registrations/*",
            "topics/map/*/*",
            "stream_protocols/*",
        ],
    ),
    (
        "stream-proto/tests/codec.rs",
        &[
            "stream_frames/frames/*/payload_hex",
            "stream_frames/frames/*/wire_hex",
        ],
    ),
    (
        "blob-proto/tests/vectors.rs",
        &[
            "blob_ids/vectors/*/chunk_sha256/*",
            "blob_auth_payload/borsh_hex",
            "blob_chunk_borsh/*",
            "blob_request/auth_null/*",
            "blob_request/with_auth/*",
            "blob_response/*/*",
            "blob_provider_record/identity_seed_hex",
            "blob_provider_record/key_hex",
            "blob_provider_record/peer_id",
            "blob_provider_record/peer_id_hex",
            "blob_provider_record/size",
            "blob_provider_record/layout_0.11.0-rc.4/value_hex",
            "blob_provider_record/layout_0.11.0-rc.4/captured_put_value/key",
            "blob_provider_record/layout_0.11.0-rc.4/captured_put_value/publisher",
            "blob_provider_record/layout_0.11.0-rc.4/captured_put_value/value",
            "blob_provider_record/layout_signed/domain",
            "blob_provider_record/layout_signed/public_key_protobuf_hex",
            "blob_provider_record/layout_signed/signature_hex",
            "blob_provider_record/layout_signed/signed_message_hex",
            "blob_provider_record/layout_signed/value_hex",
        ],
    ),
    (
        "pubsub/tests/vectors.rs",
        &[
            "gossipsub/captured/*",
            "gossipsub/config/*",
            "gossipsub/max_transmit_size",
            "gossipsub/message_id_vector/*",
        ],
    ),
    (
        "specialized/tests/codec.rs",
        &[
            "specialized_node_invite/request/*",
            "specialized_node_invite/response_error/*",
            "specialized_node_invite/response_success/*",
        ],
    ),
    (
        "manager/tests/vectors.rs",
        &[
            "identify/protocol_version",
            "identify/protocols/*",
            "gossipsub/protocol_ids/*",
            "stream_frames/frames/*/payload_len",
        ],
    ),
];

/// Entries that say something to a reader alone: notes, inputs in words, and what other programs made
/// of the same content.
const WORDS: &[&str] = &[
    "made_by",
    "*/note",
    "*/*/note",
    "blob_ids/vectors/*/agree",
    "blob_ids/vectors/*/content",
    "blob_ids/vectors/*/len",
    // What a blob's id is not.
    "blob_ids/vectors/*/file_sha256",
    "blob_ids/vectors/*/calimero_blobstore_0.11.0-rc.5_put/*",
    // Whether records expire is the storing node's affair.
    "blob_provider_record/layout_0.11.0-rc.4/captured_put_value/has_expiry",
    "gossipsub/message_id",
    "gossipsub/signing",
    // The library that the published node was built on.
    "identify/agent_version",
];

fn crates() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn vectors() -> Value {
    let path = crates().join("../testdata/vectors.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The path of every value that holds no others.
fn leaves(value: &Value, path: String, into: &mut Vec<String>) {
    let join = |key: &str| match path.as_str() {
        "" => key.to_owned(),
        path => format!("{path}/{key}"),
    };
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                leaves(value, join(key), into);
            }
        }
        Value::Array(entries) => {
            for (at, value) in entries.iter().enumerate() {
                leaves(value, join(&at.to_string()), into);
            }
        }
        _ => into.push(path),
    }
}

fn matches(pattern: &str, path: &str) -> bool {
    let (pattern, path) = (pattern.split('/'), path.split('/'));
    pattern.clone().count() == path.clone().count()
        && pattern
            .zip(path)
            .all(|(want, is)| want == "*" || want == is)
}

#[test]
fn every_entry_is_read_by_a_test() {
    let mut entries = Vec::new();
    leaves(&vectors(), String::new(), &mut entries);
    assert!(entries.len() > 150, "{} entries", entries.len());
    let patterns = (READ_BY.iter().flat_map(|(_, patterns)| *patterns)).chain(WORDS);
    let unread: Vec<_> = entries
        .iter()
        .filter(|entry| !patterns.clone().any(|pattern| matches(pattern, entry)))
        .collect();
    assert_eq!(unread, Vec::<&String>::new(), "read by no test");
    for pattern in patterns {
        let any = entries.iter().any(|entry| matches(pattern, entry));
        assert!(any, "{pattern} names no entry");
    }
}

/// The table must not name a test that checks something else.
#[test]
fn the_tests_named_read_what_they_are_named_for() {
    for (file, patterns) in READ_BY {
        let text = fs::read_to_string(crates().join(file)).unwrap();
        for pattern in *patterns {
            let named = pattern.split('/').rev().find(|part| *part != "*").unwrap();
            let quoted = format!("\"{named}\"");
            // Some tests speak of an entry by its path.
            let in_path =
                text.contains(&format!("/{named}")) || text.contains(&format!("{named}/"));
            assert!(text.contains(&quoted) || in_path, "{file} has no {named}");
        }
    }
}

#[test]
fn frames_are_as_long_as_they_say() {
    for frame in vectors()["stream_frames"]["frames"].as_array().unwrap() {
        let length = frame["payload_len"].as_u64().unwrap();
        let payload = frame["payload_hex"].as_str().unwrap();
        assert_eq!(payload.len() as u64, 2 * length);
    }
}

/// A node speaks everything that the published one spoke when it was recorded.
#[tokio::test]
async fn a_node_tells_what_the_published_one_tells() {
    // Blobs are spoken of by who has a store of them.
    let dir = tempfile::tempdir().unwrap();
    let store = FsBlobStore::open(dir.path(), &FsConfig::default()).unwrap();
    let (client, events) = NetworkManager::builder(Keypair::generate_ed25519(), config())
        .blobs(Arc::new(store))
        .start()
        .await
        .unwrap();
    let b = Node { client, events };
    let a = start(config()).await;
    let address = b.listen(Over::Tcp).await;
    within(a.client.dial(address)).await.unwrap();
    let info = within(a.client.identified(b.peer()))
        .await
        .unwrap()
        .unwrap();
    let spoken: Vec<_> = info.protocols.iter().map(ToString::to_string).collect();
    let vectors = vectors();
    let identify = &vectors["identify"];
    let recorded = identify["protocols"].as_array().unwrap();
    let gossip = vectors["gossipsub"]["protocol_ids"].as_array().unwrap();
    for name in recorded.iter().chain(gossip) {
        let name = name.as_str().unwrap();
        assert!(
            spoken.iter().any(|one| one == name),
            "{name} not in {spoken:?}"
        );
    }
    // The same family, of another version.
    let family = |version: &str| version.rsplit_once('/').unwrap().0.to_owned();
    let version = identify["protocol_version"].as_str().unwrap();
    assert_eq!(family(&info.protocol_version), family(version));
}
