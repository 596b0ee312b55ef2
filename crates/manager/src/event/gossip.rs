//! Events of topics.

use std::fmt;

use calimero_network_primitives::{PeerId, Topic};
use calimero_network_pubsub::Message;
use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use super::{Class, Key, NetworkEvent, Subject, queue::Unread};
use crate::json;

/// An event of topics.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum GossipEvent {
    /// A message of a subscribed topic. Its signature is verified, and it is emitted once.
    ///
    /// In JSON `peer` is the author and the payload is `text` where it is UTF-8, else `hex`.
    #[serde(serialize_with = "message_fields")]
    Message(Message),
    /// A peer subscribed to a topic, to which this node need not be subscribed.
    Subscribed {
        /// The id of the remote peer.
        #[serde(serialize_with = "json::text")]
        peer: PeerId,
        /// The topic of the subscription.
        topic: Topic,
    },
    /// A peer unsubscribed from a topic. The end of a connection ends all subscriptions of its peer
    /// without such an event.
    Unsubscribed {
        /// The id of the remote peer.
        #[serde(serialize_with = "json::text")]
        peer: PeerId,
        /// The topic of the subscription.
        topic: Topic,
    },
    /// Messages were dropped at this point of the sequence because the reader was too slow. Events
    /// that are not messages are never dropped.
    Lagged {
        /// Number of messages dropped.
        missed: u64,
    },
}

impl GossipEvent {
    pub(super) fn class(&mut self, unread: &mut Unread<'_>) -> Class {
        let (peer, topic, subscribes) = match self {
            Self::Message(message) => {
                let bytes = message.data.len();
                return Class::Message { bytes };
            }
            Self::Lagged { missed } => return Class::Missed { messages: *missed },
            Self::Subscribed { peer, topic } => (peer, topic, true),
            Self::Unsubscribed { peer, topic } => (peer, topic, false),
        };
        let key = Key::new("subscription", Subject::Subscription(*peer, topic.clone()));
        let undone = |event: &NetworkEvent| match event {
            NetworkEvent::Gossip(Self::Subscribed { .. }) => !subscribes,
            NetworkEvent::Gossip(Self::Unsubscribed { .. }) => subscribes,
            _ => false,
        };
        if unread.cancels(&key, undone) {
            return Class::Void;
        }
        Class::State(key)
    }
}

impl fmt::Display for GossipEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(message) => {
                write!(f, "message of {} on {}: ", message.source, message.topic)?;
                match std::str::from_utf8(&message.data) {
                    Ok(text) => f.write_str(text),
                    Err(_) => f.write_str(&hex::encode(&message.data)),
                }
            }
            Self::Subscribed { peer, topic } => write!(f, "subscribed {peer} to {topic}"),
            Self::Unsubscribed { peer, topic } => write!(f, "unsubscribed {peer} from {topic}"),
            Self::Lagged { missed } => write!(f, "lagged: {missed} messages were dropped"),
        }
    }
}

fn message_fields<S: Serializer>(message: &Message, to: S) -> Result<S::Ok, S::Error> {
    let text = std::str::from_utf8(&message.data).ok();
    let mut fields = to.serialize_struct("Message", 5)?;
    fields.serialize_field("peer", &message.source.to_base58())?;
    fields.serialize_field("topic", &message.topic)?;
    fields.serialize_field("propagated_by", &message.propagated_by.to_base58())?;
    fields.serialize_field("id", &String::from_utf8_lossy(message.id.as_bytes()))?;
    match text {
        Some(text) => fields.serialize_field("text", text)?,
        None => fields.serialize_field("hex", &hex::encode(&message.data))?,
    }
    fields.end()
}
