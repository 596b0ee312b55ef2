//! The bytes of the published implementation.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so"
)]

use std::time::Duration;

use calimero_network_primitives::{PeerId, Topic, config::PubsubConfig};
use calimero_network_pubsub::{MessageId, topic_hash};
use serde_json::Value;

fn vectors() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/vectors.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn topic_hashes_are_those_of_the_published_implementation() {
    let vectors = vectors();
    let map = vectors["topics"]["map"].as_array().unwrap();
    assert!(map.len() >= 3);
    for entry in map {
        let topic: Topic = entry["topic"].as_str().unwrap().parse().unwrap();
        assert!(!matches!(topic, Topic::Free(_)));
        assert_eq!(topic_hash(&topic).as_str(), entry["hash"].as_str().unwrap());
    }
}

#[test]
fn message_ids_are_those_of_the_published_implementation() {
    let vectors = vectors();
    let gossipsub = &vectors["gossipsub"];
    for (vector, id) in [
        (&gossipsub["message_id_vector"], "id_utf8"),
        (&gossipsub["captured"], "id_at_publisher"),
        (&gossipsub["captured"], "id_at_receiver"),
    ] {
        let source: PeerId = vector["source"].as_str().unwrap().parse().unwrap();
        let number: u64 = vector["sequence_number"].as_str().unwrap().parse().unwrap();
        let ours = MessageId::new(&source, number);
        assert_eq!(ours.to_string(), vector[id].as_str().unwrap());
        assert_eq!(ours.as_bytes(), vector[id].as_str().unwrap().as_bytes());
    }
}

#[test]
fn the_mesh_is_shaped_as_by_the_published_implementation() {
    let vectors = vectors();
    let published = &vectors["gossipsub"]["config"];
    let number = |key: &str| usize::try_from(published[key].as_u64().unwrap()).unwrap();
    let seconds = |key: &str| Duration::from_secs(published[key].as_u64().unwrap());
    let ours = PubsubConfig::default();
    let mesh = &ours.mesh;
    assert_eq!(
        [mesh.low, mesh.target, mesh.high, mesh.outbound_min],
        ["mesh_n_low", "mesh_n", "mesh_n_high", "mesh_outbound_min"].map(number)
    );
    assert_eq!(
        [mesh.prune_backoff, mesh.unsubscribe_backoff],
        ["prune_backoff_s", "unsubscribe_backoff_s"].map(seconds)
    );
    assert_eq!(
        Some(mesh.flood_publish),
        published["flood_publish"].as_bool()
    );
    // What published nodes send is taken; what is larger than that they drop.
    let published_largest = vectors["gossipsub"]["max_transmit_size"].as_u64().unwrap();
    assert!(ours.max_message_bytes as u64 >= published_largest);
}
