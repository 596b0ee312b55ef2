//! Identifiers and topics in every form: what is read is written back to the byte.
#![no_main]

use calimero_network_primitives::{
    BlobId, ContextId, FreeTopic, GroupId, NamespaceId, Topic,
    limits::{MAX_RENDEZVOUS_NAMESPACE_BYTES, MAX_TOPIC_BYTES},
};
use libfuzzer_sys::fuzz_target;

fn check_text(text: &str) {
    if let Ok(id) = ContextId::from_base58(text) {
        assert_eq!(id.to_base58(), text);
        assert_eq!(ContextId::from_hex(&id.to_hex()), Ok(id));
    }
    if let Ok(id) = GroupId::from_hex(text) {
        assert_eq!(id.to_hex(), text);
        assert_eq!(GroupId::from_base58(&id.to_base58()), Ok(id));
    }
    assert_eq!(
        text.parse::<BlobId>().is_ok(),
        BlobId::from_base58(text).is_ok()
    );
    assert_eq!(
        text.parse::<NamespaceId>().is_ok(),
        NamespaceId::from_hex(text).is_ok()
    );

    let Ok(topic) = text.parse::<Topic>() else {
        assert!(text.is_empty() || text.len() > MAX_TOPIC_BYTES);
        return;
    };
    assert_eq!(topic.to_string(), text);
    assert_eq!(
        FreeTopic::new(text).is_ok(),
        matches!(topic, Topic::Free(_))
    );
    match topic.rendezvous_namespace() {
        Some(namespace) => assert!(namespace.len() <= MAX_RENDEZVOUS_NAMESPACE_BYTES),
        None => assert!(text.len() > MAX_RENDEZVOUS_NAMESPACE_BYTES - "/calimero/ctx/".len()),
    }
    let json = serde_json::to_string(&topic).expect("a topic has a JSON form");
    assert_eq!(serde_json::from_str::<Topic>(&json).ok(), Some(topic));
}

fn check_bytes(bytes: &[u8]) {
    if let Ok(id) = borsh::from_slice::<BlobId>(bytes) {
        assert_eq!(id.as_bytes()[..], *bytes);
        assert_eq!(BlobId::try_from(bytes), Ok(id));
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    if let Ok(id) = serde_json::from_slice::<ContextId>(bytes) {
        let json = serde_json::to_vec(&id).expect("an id has a JSON form");
        assert_eq!(serde_json::from_slice::<ContextId>(&json).ok(), Some(id));
    }
    let _ = serde_json::from_slice::<Topic>(bytes);
}

fuzz_target!(|input: &[u8]| {
    check_bytes(input);
    if let Ok(text) = std::str::from_utf8(input) {
        check_text(text);
    }
});
