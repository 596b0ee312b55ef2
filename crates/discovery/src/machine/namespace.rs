//! Namespaces and cookies of the rendezvous protocol.

use std::{fmt, sync::Arc};

use calimero_network_primitives::limits::MAX_RENDEZVOUS_NAMESPACE_BYTES;

/// Longest cookie that is stored, 1,024 bytes: libp2p-rendezvous writes 16 bytes and the namespace.
/// A server that sends a longer one is asked from the beginning each time.
pub const MAX_COOKIE_BYTES: usize = 1024;

/// The rendezvous namespace of an overlay: 1 to 255 bytes. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);

/// The error for a text that is empty or longer than a rendezvous namespace may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a rendezvous namespace has 1 to 255 bytes, not {len}")]
pub struct NamespaceError {
    /// Length of the text, in bytes.
    pub len: usize,
}

impl Namespace {
    /// Checks the length of `text`.
    ///
    /// # Errors
    ///
    /// [`NamespaceError`] with the length that is out of bounds.
    pub fn new(text: &str) -> Result<Self, NamespaceError> {
        match text.len() {
            1..=MAX_RENDEZVOUS_NAMESPACE_BYTES => Ok(Self(text.into())),
            len => Err(NamespaceError { len }),
        }
    }

    /// Returns the text of the namespace.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The position at which the answer of a server ended, with which the next answer holds new members
/// only. Opaque; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie(Arc<[u8]>);

impl Cookie {
    /// Copies the bytes that a server sent. Returns `None` if they are longer than
    /// [`MAX_COOKIE_BYTES`].
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= MAX_COOKIE_BYTES).then(|| Self(bytes.into()))
    }

    /// Returns the bytes as the server sent them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
