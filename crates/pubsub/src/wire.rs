//! What goes over the wire: topic hashes and message ids. Pure.

use std::fmt;

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
        let mut text = author.to_base58();
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
