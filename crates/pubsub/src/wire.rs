//! What goes over the wire: topic hashes and message ids. Pure.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use calimero_network_primitives::{PeerId, Topic};
use libp2p_gossipsub as gossipsub;

/// Bytes around the payload of a message, at most: author, sequence number, topic, signature, key
/// and lengths come to 1.5 KiB with the largest RSA key. The rest is what gossipsub counts on top:
/// it compares its limit with all bytes it has buffered, and it buffers by 8 KiB.
pub(crate) const OVERHEAD_BYTES: usize = 16 * 1024;

/// The topic as gossipsub names it: the topic string itself.
#[must_use]
pub fn topic_hash(topic: &Topic) -> gossipsub::TopicHash {
    gossipsub::TopicHash::from_raw(topic.to_string())
}

/// Names a message: the base58 text of its author's peer id, followed by its sequence number in
/// decimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(Vec<u8>);

impl MessageId {
    /// The id of message `sequence_number` of `author`.
    #[must_use]
    pub fn new(author: &PeerId, sequence_number: u64) -> Self {
        Self::with_text(author.to_base58(), sequence_number)
    }

    fn with_text(mut text: String, sequence_number: u64) -> Self {
        // Writing to a string cannot fail.
        let _ = fmt::Write::write_fmt(&mut text, format_args!("{sequence_number}"));
        Self(text.into_bytes())
    }

    /// The id as it goes over the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Authors whose base58 text is remembered, in number: 100 bytes each. Converting one takes longer
/// than everything else about an id.
const MAX_TEXTS: usize = 1024;

/// Names messages, remembering the text of their authors.
#[derive(Debug, Default)]
pub(crate) struct Namer {
    texts: Mutex<HashMap<PeerId, Box<str>>>,
}

impl Namer {
    pub(crate) fn name(&self, author: &PeerId, sequence_number: u64) -> MessageId {
        // Nothing in here panics.
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        if texts.len() >= MAX_TEXTS && !texts.contains_key(author) {
            texts.clear();
        }
        let text = texts
            .entry(*author)
            .or_insert_with(|| author.to_base58().into());
        MessageId::with_text(text.to_string(), sequence_number)
    }
}

impl From<gossipsub::MessageId> for MessageId {
    fn from(id: gossipsub::MessageId) -> Self {
        Self(id.0)
    }
}

impl From<MessageId> for gossipsub::MessageId {
    fn from(id: MessageId) -> Self {
        Self(id.0)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_with_and_without_memory() {
        let namer = Namer::default();
        let authors: Vec<_> = (0..MAX_TEXTS + 10).map(|_| PeerId::random()).collect();
        for number in [0, u64::MAX] {
            for author in &authors {
                let name = namer.name(author, number);
                assert_eq!(name, MessageId::new(author, number));
            }
        }
        assert!(namer.texts.lock().unwrap().len() <= MAX_TEXTS);
    }
}
