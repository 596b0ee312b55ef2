//! What can go wrong with the bytes.

use std::fmt;

/// Part of a message, as decoding and its errors name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// The four bytes of the message's length.
    Prefix,
    /// What the length counts.
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

/// Why a message was not encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The message would exceed the limit. Nothing was allocated for it.
    #[error("message of {claimed} bytes, the limit is {limit}")]
    TooLarge {
        /// Largest message that is sent, in bytes.
        limit: usize,
        /// What this one would take, in bytes.
        claimed: usize,
    },
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The prefix claims more than the limit. Nothing was allocated for it.
    #[error("peer claims a message of {claimed} bytes, the limit is {limit}")]
    TooLarge {
        /// Largest message that is accepted, in bytes.
        limit: usize,
        /// What the prefix claims, in bytes.
        claimed: usize,
    },
    /// The bytes end inside `part`.
    #[error("{part} cut short: {missing} bytes missing")]
    Cut {
        /// Where the bytes end.
        part: Part,
        /// Bytes that this part still needs.
        missing: usize,
    },
    /// Bytes are left behind the message.
    #[error("{bytes} bytes behind the message")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A request of a kind that is not known.
    #[error("request of unknown variant {variant}")]
    UnknownVariant {
        /// Its number.
        variant: u8,
    },
    /// The byte that says whether an optional part is present is neither 0 nor 1.
    #[error("{part} is preceded by {tag}, neither 0 nor 1")]
    BadOption {
        /// The optional part.
        part: Part,
        /// The byte.
        tag: u8,
    },
    /// Text that is not UTF-8.
    #[error("{part} is not UTF-8 from byte {valid_up_to} on")]
    NotUtf8 {
        /// The text.
        part: Part,
        /// Bytes of it that are UTF-8.
        valid_up_to: usize,
    },
}
