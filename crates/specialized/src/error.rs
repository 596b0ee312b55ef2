//! Errors of encoding and decoding messages.

use std::fmt;

/// A part of a message, as errors name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// The 4-byte length prefix of the message.
    Prefix,
    /// The message after its prefix.
    Body,
    /// The variant number of a request.
    Variant,
    /// The nonce of either message.
    Nonce,
    /// The quote of a request.
    QuoteBytes,
    /// The public key of a request.
    PublicKey,
    /// The invitation of a response.
    InvitationBytes,
    /// The error text of a response.
    Error,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prefix => "length prefix",
            Self::Body => "message",
            Self::Variant => "variant number",
            Self::Nonce => "nonce",
            Self::QuoteBytes => "quote_bytes",
            Self::PublicKey => "public_key",
            Self::InvitationBytes => "invitation_bytes",
            Self::Error => "error",
        })
    }
}

/// An error of encoding a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The message is above the limit. Nothing was allocated for it.
    #[error("message of {claimed} bytes, the limit is {limit}")]
    TooLarge {
        /// Largest message that is sent, in bytes.
        limit: usize,
        /// Encoded size of the message, in bytes.
        claimed: usize,
    },
}

/// An error of decoding a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The prefix claims a length above the limit. Nothing was allocated for
    /// it.
    #[error("peer claims a message of {claimed} bytes, the limit is {limit}")]
    TooLarge {
        /// Largest message that is accepted, in bytes.
        limit: usize,
        /// Length in the prefix, in bytes.
        claimed: usize,
    },
    /// The bytes end inside a part of the message.
    #[error("{part} cut short: {missing} bytes missing")]
    Cut {
        /// Part in which the bytes end.
        part: Part,
        /// Number of bytes that are missing in this part.
        missing: usize,
    },
    /// Further bytes follow the message.
    #[error("{bytes} unexpected bytes after the message")]
    Trailing {
        /// Number of further bytes.
        bytes: usize,
    },
    /// The request has an unknown variant.
    #[error("request of unknown variant {variant}")]
    UnknownVariant {
        /// Variant number of the request.
        variant: u8,
    },
    /// The tag of an optional part is neither 0 nor 1.
    #[error("invalid tag {tag} of the optional field {part}: expected 0 or 1")]
    BadOption {
        /// The optional part of the message.
        part: Part,
        /// The invalid tag byte.
        tag: u8,
    },
    /// A text field is not valid UTF-8.
    #[error("{part} is not valid UTF-8 at byte {valid_up_to}")]
    NotUtf8 {
        /// The part that contains the text.
        part: Part,
        /// Length of the valid prefix of the text, in bytes.
        valid_up_to: usize,
    },
}
