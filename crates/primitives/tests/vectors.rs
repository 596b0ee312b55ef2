//! The bytes that the published implementation produced, against this crate's own functions.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{fs, path::Path};

use calimero_network_primitives::{
    BlobId, ContextId, GLOBAL_RENDEZVOUS_NAMESPACE, IDENTIFY_PROTOCOL_VERSION, Keypair, PeerId,
    ProtocolId, Topic, limits,
};
use serde::Deserialize;
use serde_json::Value;

fn vectors() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/vectors.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The string at a JSON pointer.
fn text<'a>(vectors: &'a Value, pointer: &str) -> &'a str {
    vectors
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no text at {pointer}"))
}

fn list<'a>(vectors: &'a Value, pointer: &str) -> &'a [Value] {
    let list = vectors.pointer(pointer).and_then(Value::as_array);
    list.unwrap_or_else(|| panic!("no list at {pointer}"))
}

#[test]
fn ids() {
    let vectors = vectors();
    let context: ContextId = text(&vectors, "/ids/context_id_base58").parse().unwrap();
    assert_eq!(context.to_hex(), text(&vectors, "/ids/context_id_hex"));
    let blob: BlobId = text(&vectors, "/ids/blob_id_base58").parse().unwrap();
    assert_eq!(blob.to_hex(), text(&vectors, "/ids/blob_id_hex"));
    assert_eq!(
        blob,
        BlobId::from_hex(text(&vectors, "/ids/blob_id_hex")).unwrap()
    );
}

#[test]
fn blob_ids() {
    let vectors = vectors();
    let list = list(&vectors, "/blob_ids/vectors");
    assert_eq!(list.len(), 6);
    for vector in list {
        let id: BlobId = text(vector, "/blob_id_base58").parse().unwrap();
        assert_eq!(id.to_hex(), text(vector, "/blob_id_hex"));
        assert_eq!(id.to_base58(), text(vector, "/blob_id_base58"));
        let stored = text(vector, "/calimero_blobstore_0.11.0-rc.5_put/blob_id");
        assert_eq!(id.to_string(), stored);
    }
}

#[test]
fn ids_in_json() {
    #[derive(Deserialize)]
    struct Request {
        blob_id: BlobId,
        context_id: ContextId,
    }

    let vectors = vectors();
    for pointer in ["/blob_request/auth_null", "/blob_request/with_auth"] {
        let json = text(&vectors, &format!("{pointer}/json"));
        let request: Request = serde_json::from_str(json).unwrap();
        assert_eq!(
            request.blob_id.to_base58(),
            text(&vectors, "/ids/blob_id_base58")
        );
        assert_eq!(
            request.context_id.to_base58(),
            text(&vectors, "/ids/context_id_base58")
        );
        assert!(json.contains(&serde_json::to_string(&request.blob_id).unwrap()));
        assert!(json.contains(&serde_json::to_string(&request.context_id).unwrap()));
    }
}

#[test]
fn ids_in_borsh() {
    let vectors = vectors();
    let payload = hex::decode(text(&vectors, "/blob_auth_payload/borsh_hex")).unwrap();
    let (blob, context, timestamp): (BlobId, ContextId, u64) = borsh::from_slice(&payload).unwrap();
    assert_eq!(blob.to_hex(), text(&vectors, "/ids/blob_id_hex"));
    assert_eq!(context.to_hex(), text(&vectors, "/ids/context_id_hex"));
    assert_eq!(
        Some(timestamp),
        vectors.pointer("/ids/timestamp").and_then(Value::as_u64)
    );
    assert_eq!(borsh::to_vec(&(blob, context, timestamp)).unwrap(), payload);

    let key = hex::decode(text(&vectors, "/blob_provider_record/key_hex")).unwrap();
    assert_eq!(borsh::to_vec(&(context, blob)).unwrap(), key);
}

#[test]
fn peer_ids() {
    let vectors = vectors();
    let seed = text(&vectors, "/blob_provider_record/identity_seed_hex");
    let keypair = Keypair::ed25519_from_bytes(hex::decode(seed).unwrap()).unwrap();
    let peer = PeerId::from_public_key(&keypair.public());
    assert_eq!(
        peer.to_base58(),
        text(&vectors, "/blob_provider_record/peer_id")
    );
    assert_eq!(
        hex::encode(peer.to_bytes()),
        text(&vectors, "/blob_provider_record/peer_id_hex")
    );
    assert_eq!(
        text(&vectors, "/gossipsub/captured/source"),
        peer.to_base58()
    );
}

#[test]
fn topics() {
    let vectors = vectors();
    let map = list(&vectors, "/topics/map");
    let named = |topic: &Topic| !matches!(topic, Topic::Free(_));
    assert_eq!(map.len(), 3);
    for entry in map {
        let topic: Topic = text(entry, "/topic").parse().unwrap();
        assert!(named(&topic));
        assert_eq!(topic.to_string(), text(entry, "/hash"));
    }
    let captured: Topic = text(&vectors, "/gossipsub/captured/topic").parse().unwrap();
    let context: ContextId = text(&vectors, "/ids/context_id_base58").parse().unwrap();
    assert_eq!(captured, Topic::context(context));
}

#[test]
fn rendezvous_namespaces() {
    let vectors = vectors();
    let global = text(&vectors, "/rendezvous/global");
    assert_eq!(GLOBAL_RENDEZVOUS_NAMESPACE, global);
    let mut ours = vec![global.to_owned()];
    for entry in list(&vectors, "/topics/map") {
        let topic: Topic = text(entry, "/topic").parse().unwrap();
        ours.push(topic.rendezvous_namespace().unwrap());
    }
    for pointer in ["/rendezvous/expected", "/rendezvous/captured_registrations"] {
        assert_eq!(list(&vectors, pointer), ours);
    }
}

#[test]
fn protocol_names() {
    let vectors = vectors();
    let ours = [
        (ProtocolId::Stream, "stream"),
        (ProtocolId::Blob, "blob"),
        (ProtocolId::Kademlia, "kad"),
        (ProtocolId::SpecializedNodeInvite, "specialized_node_invite"),
    ];
    let told = list(&vectors, "/identify/protocols");
    for (protocol, key) in ours {
        let name = text(&vectors, &format!("/stream_protocols/{key}"));
        assert_eq!(protocol.as_str(), name);
        assert_eq!(protocol.to_string(), name);
        assert_eq!(name.parse(), Ok(protocol));
        assert!(told.contains(&Value::from(name)));
    }
    let (family, _) = text(&vectors, "/identify/protocol_version")
        .rsplit_once('/')
        .unwrap();
    assert_eq!(
        IDENTIFY_PROTOCOL_VERSION.rsplit_once('/').unwrap().0,
        family
    );
}

#[test]
fn sizes() {
    let vectors = vectors();
    let number = |pointer: &str| {
        let number = vectors.pointer(pointer).and_then(Value::as_u64);
        usize::try_from(number.unwrap()).unwrap()
    };
    assert_eq!(
        limits::MAX_FRAME_PAYLOAD_BYTES,
        number("/stream_protocols/max_frame_payload")
    );
    assert_eq!(
        limits::MAX_INVITE_MESSAGE_BYTES,
        number("/stream_protocols/max_invite_message")
    );
    for frame in list(&vectors, "/stream_frames/frames") {
        let payload = text(frame, "/payload_hex").len() / 2;
        let wire = text(frame, "/wire_hex").len() / 2;
        assert_eq!(wire, limits::FRAME_PREFIX_BYTES + payload);
    }
    for vector in list(&vectors, "/blob_ids/vectors") {
        let len = usize::try_from(vector["len"].as_u64().unwrap()).unwrap();
        let chunks = vector["chunk_sha256"].as_array().unwrap().len();
        assert_eq!(chunks, len.div_ceil(limits::BLOB_CHUNK_BYTES));
    }
    let signed = text(&vectors, "/blob_provider_record/layout_signed/value_hex");
    assert!(signed.len() / 2 <= limits::MAX_PROVIDER_RECORD_BYTES);
}

/// A new entry comes with a crate that tests it and a row of the README that says which.
#[test]
fn every_entry_has_a_crate() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let rows: Vec<_> = readme
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    for entry in vectors().as_object().unwrap().keys() {
        let has_row = rows.iter().any(|row| row.contains(&format!("`{entry}`")));
        assert!(has_row || entry == "made_by", "{entry} has no crate");
    }
}
