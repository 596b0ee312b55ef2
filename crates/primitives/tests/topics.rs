//! Topics: one string is one topic, and each has at most one rendezvous namespace.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use calimero_network_primitives::{
    ContextId, FreeTopic, GroupId, NamespaceId, ParseTopicError, Topic, limits::MAX_TOPIC_BYTES,
};
use proptest::prelude::*;

fn topic(text: &str) -> Topic {
    text.parse().unwrap()
}

#[test]
fn named_topics_are_recognised() {
    let bytes = [0xab; 32];
    let hex = "ab".repeat(32);
    assert_eq!(
        topic(&ContextId::new(bytes).to_string()),
        Topic::from(ContextId::new(bytes))
    );
    assert_eq!(
        topic(&format!("group/{hex}")),
        Topic::from(GroupId::new(bytes))
    );
    assert_eq!(
        topic(&format!("ns/{hex}")),
        Topic::from(NamespaceId::new(bytes))
    );
}

#[test]
fn near_misses_are_free_and_keep_their_text() {
    let upper = format!("group/{}", "AB".repeat(32));
    for text in [
        upper.as_str(),
        "group/",
        "ns/abc",
        "Group/00",
        "chat",
        "a/b/c",
        "\u{1f980}",
        " ",
    ] {
        assert!(matches!(topic(text), Topic::Free(_)), "{text}");
        assert_eq!(topic(text).to_string(), text);
        assert_eq!(Topic::free(text).unwrap(), topic(text));
    }
}

#[test]
fn the_namespace_of_a_free_topic_goes_by_its_prefix() {
    for (text, namespace) in [
        ("chat", "/calimero/ctx/chat"),
        ("group/chat", "/calimero/grp/chat"),
        ("ns/chat", "/calimero/ns/chat"),
        ("group/", "/calimero/grp/"),
        ("ns", "/calimero/ctx/ns"),
        ("/group/x", "/calimero/ctx//group/x"),
    ] {
        assert_eq!(
            topic(text).rendezvous_namespace().as_deref(),
            Some(namespace)
        );
    }
}

#[test]
fn a_namespace_has_255_bytes_at_most() {
    for (prefix, namespace_prefix) in [
        ("", "/calimero/ctx/"),
        ("group/", "/calimero/grp/"),
        ("ns/", "/calimero/ns/"),
    ] {
        let rest = 255 - namespace_prefix.len();
        let longest = topic(&format!("{prefix}{}", "x".repeat(rest)));
        assert_eq!(longest.rendezvous_namespace().unwrap().len(), 255);
        let longer = topic(&format!("{prefix}{}", "x".repeat(rest + 1)));
        assert_eq!(longer.rendezvous_namespace(), None);
    }
}

#[test]
fn refusals_name_the_limit() {
    assert_eq!("".parse::<Topic>(), Err(ParseTopicError::Empty));
    assert!("x".repeat(MAX_TOPIC_BYTES).parse::<Topic>().is_ok());
    assert_eq!(
        "x".repeat(MAX_TOPIC_BYTES + 1).parse::<Topic>(),
        Err(ParseTopicError::TooLong {
            len: MAX_TOPIC_BYTES + 1,
            limit: MAX_TOPIC_BYTES
        })
    );
    let named = Topic::group(GroupId::new([1; 32])).to_string();
    assert_eq!(FreeTopic::new(&named), Err(ParseTopicError::Reserved));
}

#[test]
fn serde_is_the_text() {
    let topic = Topic::namespace(NamespaceId::new([3; 32]));
    let json = serde_json::to_string(&topic).unwrap();
    assert_eq!(json, format!("\"ns/{}\"", "03".repeat(32)));
    assert_eq!(serde_json::from_str::<Topic>(&json).unwrap(), topic);
    assert!(serde_json::from_str::<Topic>("\"\"").is_err());
}

proptest! {
    #[test]
    fn every_topic_survives_its_text(bytes: [u8; 32], kind in 0..3) {
        let topic = match kind {
            0 => Topic::context(bytes.into()),
            1 => Topic::group(bytes.into()),
            _ => Topic::namespace(bytes.into()),
        };
        prop_assert_eq!(topic.to_string().parse(), Ok(topic.clone()));
        prop_assert!(topic.rendezvous_namespace().is_some());
    }

    #[test]
    fn no_text_panics_and_all_keep_their_text(text in prop_oneof![
        any::<String>(),
        "(group/|ns/)?[0-9a-fA-F]{0,70}",
        "(group/|ns/)?[1-9A-HJ-NP-Za-km-z]{40,48}",
        "(group/|ns/)?x{200,1100}",
    ]) {
        match text.parse::<Topic>() {
            Ok(topic) => {
                prop_assert_eq!(topic.to_string(), text.clone());
                let namespace = topic.rendezvous_namespace();
                prop_assert!(namespace.as_ref().is_none_or(|name| name.len() <= 255));
                prop_assert!(namespace.is_some() || text.len() > 241);
            }
            Err(_) => prop_assert!(text.is_empty() || text.len() > MAX_TOPIC_BYTES),
        }
    }
}
