//! Gossip topics, and the rendezvous namespaces their members meet in.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    ids::{ContextId, GroupId, NamespaceId},
    limits::{MAX_RENDEZVOUS_NAMESPACE_BYTES, MAX_TOPIC_BYTES},
};

/// The rendezvous namespace in which all nodes meet, where the configuration names no other.
pub const GLOBAL_RENDEZVOUS_NAMESPACE: &str = "/calimero/devnet/global";

const GROUP_PREFIX: &str = "group/";
const NAMESPACE_PREFIX: &str = "ns/";

/// Why a text is not a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseTopicError {
    /// The text is empty.
    #[error("a topic must have at least one byte")]
    Empty,
    /// The text is longer than a topic may be.
    #[error("topic of {len} bytes, at most {limit} are allowed")]
    TooLong {
        /// Length of the text, in bytes.
        len: usize,
        /// Most bytes allowed: [`MAX_TOPIC_BYTES`].
        limit: usize,
    },
    /// The text is the topic of a context, group or namespace, not one of free choice.
    #[error("the text names a context, group or namespace")]
    Reserved,
}

/// A topic of free choice: 1 to [`MAX_TOPIC_BYTES`] bytes that name no context, group or
/// namespace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FreeTopic(Box<str>);

impl FreeTopic {
    /// Takes `text` as a topic.
    ///
    /// # Errors
    ///
    /// [`ParseTopicError`] where the text is empty, too long, or the topic of a context, group
    /// or namespace: [`Topic`] parses those.
    pub fn new(text: &str) -> Result<Self, ParseTopicError> {
        match text.parse()? {
            Topic::Free(topic) => Ok(topic),
            Topic::Context(_) | Topic::Group(_) | Topic::Namespace(_) => {
                Err(ParseTopicError::Reserved)
            }
        }
    }

    /// The topic as it goes over the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for FreeTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FreeTopic({:?})", self.0)
    }
}

/// A gossip topic. Its `Display` form is the topic string, which is the topic hash as well.
///
/// One string is one topic: parsing recognises the forms of contexts, groups and namespaces and
/// takes every other text as [`Topic::Free`].
///
/// ```
/// use calimero_network_primitives::{GroupId, Topic};
///
/// let topic = Topic::group(GroupId::new([0x44; 32]));
/// let text = topic.to_string();
/// assert_eq!(text, format!("group/{}", "44".repeat(32)));
/// assert_eq!(text.parse::<Topic>()?, topic);
/// assert_eq!(
///     topic.rendezvous_namespace(),
///     Some(format!("/calimero/grp/{}", "44".repeat(32))),
/// );
/// # Ok::<(), calimero_network_primitives::ParseTopicError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// The members of a context: the base58 text of its id.
    Context(ContextId),
    /// The members of a group: `group/` and 64 hexadecimal digits.
    Group(GroupId),
    /// The members of a namespace: `ns/` and 64 hexadecimal digits.
    Namespace(NamespaceId),
    /// Any other text of at most 1 KiB.
    Free(FreeTopic),
}

impl Topic {
    /// The topic of a context.
    #[must_use]
    pub const fn context(id: ContextId) -> Self {
        Self::Context(id)
    }

    /// The topic of a group.
    #[must_use]
    pub const fn group(id: GroupId) -> Self {
        Self::Group(id)
    }

    /// The topic of a namespace.
    #[must_use]
    pub const fn namespace(id: NamespaceId) -> Self {
        Self::Namespace(id)
    }

    /// A topic of free choice.
    ///
    /// # Errors
    ///
    /// As [`FreeTopic::new`].
    pub fn free(text: &str) -> Result<Self, ParseTopicError> {
        FreeTopic::new(text).map(Self::Free)
    }

    /// The rendezvous namespace in which the subscribers of this topic meet.
    ///
    /// `None` where it would exceed the 255 bytes of the rendezvous specification: such a topic
    /// works between peers that find each other in another way.
    #[must_use]
    pub fn rendezvous_namespace(&self) -> Option<String> {
        let namespace = match self {
            Self::Context(id) => format!("/calimero/ctx/{id}"),
            Self::Group(id) => format!("/calimero/grp/{id}"),
            Self::Namespace(id) => format!("/calimero/ns/{id}"),
            Self::Free(topic) => free_namespace(topic.as_str()),
        };
        (namespace.len() <= MAX_RENDEZVOUS_NAMESPACE_BYTES).then_some(namespace)
    }
}

/// Published nodes go by the prefix alone, whatever follows it.
fn free_namespace(topic: &str) -> String {
    if let Some(rest) = topic.strip_prefix(GROUP_PREFIX) {
        format!("/calimero/grp/{rest}")
    } else if let Some(rest) = topic.strip_prefix(NAMESPACE_PREFIX) {
        format!("/calimero/ns/{rest}")
    } else {
        format!("/calimero/ctx/{topic}")
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Context(id) => write!(f, "{id}"),
            Self::Group(id) => write!(f, "{GROUP_PREFIX}{id}"),
            Self::Namespace(id) => write!(f, "{NAMESPACE_PREFIX}{id}"),
            Self::Free(topic) => f.write_str(topic.as_str()),
        }
    }
}

impl FromStr for Topic {
    type Err = ParseTopicError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let len = text.len();
        if len == 0 {
            return Err(ParseTopicError::Empty);
        }
        if len > MAX_TOPIC_BYTES {
            return Err(ParseTopicError::TooLong {
                len,
                limit: MAX_TOPIC_BYTES,
            });
        }
        let named = if let Some(hex) = text.strip_prefix(GROUP_PREFIX) {
            GroupId::from_hex(hex).ok().map(Self::Group)
        } else if let Some(hex) = text.strip_prefix(NAMESPACE_PREFIX) {
            NamespaceId::from_hex(hex).ok().map(Self::Namespace)
        } else {
            ContextId::from_base58(text).ok().map(Self::Context)
        };
        Ok(named.unwrap_or_else(|| Self::Free(FreeTopic(text.into()))))
    }
}

impl From<ContextId> for Topic {
    fn from(id: ContextId) -> Self {
        Self::Context(id)
    }
}

impl From<GroupId> for Topic {
    fn from(id: GroupId) -> Self {
        Self::Group(id)
    }
}

impl From<NamespaceId> for Topic {
    fn from(id: NamespaceId) -> Self {
        Self::Namespace(id)
    }
}

impl Serialize for Topic {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Topic {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(D::Error::custom)
    }
}
