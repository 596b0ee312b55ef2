//! Why bytes, claims and signatures are refused: one type for each operation, with what the
//! caller acts on. None holds anything that a peer could make large.

use calimero_network_primitives::BlobId;
#[cfg(feature = "peers")]
use calimero_network_primitives::PeerId;

/// Why code of the embedding program, such as a store, an authorizer or a signer, gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallbackError {
    /// The code of the program panicked.
    #[error("{what} panicked")]
    Panicked {
        /// The method that was called.
        what: &'static str,
    },
    /// The code did not answer in time.
    #[error("{what} did not answer within {after:?}")]
    TimedOut {
        /// The method that was called.
        what: &'static str,
        /// The time that it had.
        after: std::time::Duration,
    },
}

/// Why a list of chunk hashes was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// The bytes are no whole number of digests.
    #[error("{len_bytes} bytes are no whole number of 32-byte chunk hashes")]
    Ragged {
        /// Length of what was given, in bytes.
        len_bytes: usize,
    },
    /// More chunks than a blob may have.
    #[error("{chunks} chunks, at most {max_chunks} are allowed")]
    TooLong {
        /// Chunks in the list, or needed by the content.
        chunks: usize,
        /// Most that are allowed.
        max_chunks: usize,
    },
    /// It is the list of another blob.
    #[error("the chunk hashes are those of blob {actual}, not {id}")]
    Mismatch {
        /// The id that was asked for.
        id: BlobId,
        /// The id that the list has.
        actual: BlobId,
    },
}

/// Why a chunk was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// The blob has no such chunk.
    #[error("chunk {index} of a blob of {chunks} chunks")]
    OutOfRange {
        /// Index of the chunk.
        index: usize,
        /// Chunks of the blob.
        chunks: usize,
    },
    /// Too long, or too short for its place. Only the last chunk may be short, none is empty.
    #[error("chunk {index} has {len_bytes} bytes, which its place (at most {max_bytes}) forbids")]
    Length {
        /// Index of the chunk.
        index: usize,
        /// Its length, in bytes.
        len_bytes: usize,
        /// Length of every chunk but the last, in bytes.
        max_bytes: usize,
    },
    /// Other bytes than the list of chunk hashes says.
    #[error("chunk {index} does not have the content that its hash promises")]
    Mismatch {
        /// Index of the chunk.
        index: usize,
    },
}

/// Why the JSON of a handshake was refused or could not be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// Longer than any handshake is. Refused before it is parsed.
    #[error("a handshake of {len_bytes} bytes, at most {max_bytes} are allowed")]
    TooLong {
        /// Length of the payload, in bytes.
        len_bytes: usize,
        /// Longest that is parsed, in bytes.
        max_bytes: usize,
    },
    /// Not the JSON of this message.
    #[error("not a handshake message: {kind:?} at line {line}, column {column}")]
    Json {
        /// What kind of error it is.
        kind: JsonErrorKind,
        /// Line of the error, from one.
        line: usize,
        /// Column of the error, from one.
        column: usize,
    },
}

/// What kind of error JSON had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JsonErrorKind {
    /// It is not JSON.
    Syntax,
    /// It ends too early.
    Truncated,
    /// It is JSON, and not of this message: a key is missing or holds something else.
    Shape,
}

impl HandshakeError {
    pub(crate) fn json(error: &serde_json::Error) -> Self {
        use serde_json::error::Category;
        // The text of the error quotes the input, so only its place is kept.
        Self::Json {
            kind: match error.classify() {
                Category::Syntax => JsonErrorKind::Syntax,
                Category::Eof => JsonErrorKind::Truncated,
                Category::Data | Category::Io => JsonErrorKind::Shape,
            },
            line: error.line(),
            column: error.column(),
        }
    }
}

/// Why a frame is not a chunk, or why data does not fit into one frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkFrameError {
    /// Shorter than the length it begins with.
    #[error("a chunk frame of {frame_bytes} bytes has no length prefix")]
    NoLength {
        /// Length of the frame, in bytes.
        frame_bytes: usize,
    },
    /// The length inside and the length of the frame disagree.
    #[error("a chunk claims {claimed_bytes} bytes of data, its frame holds {actual_bytes}")]
    LengthMismatch {
        /// Length of the data by the prefix inside, in bytes.
        claimed_bytes: u32,
        /// Bytes that follow the prefix.
        actual_bytes: usize,
    },
    /// More data than a chunk may hold.
    #[error("a chunk of {len_bytes} bytes, at most {max_bytes} are allowed")]
    TooLong {
        /// Length of the data, in bytes.
        len_bytes: usize,
        /// Most that is allowed, in bytes.
        max_bytes: usize,
    },
}

/// Why a request's authentication was refused.
#[cfg(feature = "peers")]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// Signed too long ago.
    #[error("signed {age_s} s ago, at most {max_age_s} s are allowed")]
    Expired {
        /// Age by the clock of the verifier, in seconds.
        age_s: u64,
        /// Oldest that is accepted, in seconds.
        max_age_s: u64,
    },
    /// Signed in the future.
    #[error("signed {ahead_s} s in the future, at most {max_ahead_s} s are allowed")]
    Future {
        /// Distance by the clock of the verifier, in seconds.
        ahead_s: u64,
        /// Furthest that is accepted, in seconds.
        max_ahead_s: u64,
    },
    /// The public key is no point of the curve.
    #[error("the public key is not an Ed25519 key")]
    PublicKey,
    /// The signature is not this key's over this request.
    #[error("the signature does not belong to this request and key")]
    Signature,
    /// Another peer has presented it before.
    #[error("already presented by {first}")]
    Replayed {
        /// Who presented it first.
        first: PeerId,
    },
    /// The book of what was presented is full.
    #[error("{capacity} authentications are remembered already; try again within {max_age_s} s")]
    Busy {
        /// Entries that the book holds at most.
        capacity: usize,
        /// Time until the oldest of them is forgotten at the latest, in seconds.
        max_age_s: u64,
    },
}

/// Why a provider record was refused or could not be made.
#[cfg(feature = "peers")]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The key is not a context id and a blob id.
    #[error("a record key of {len_bytes} bytes, a provider record's has {expected_bytes}")]
    KeyLength {
        /// Length of the key, in bytes.
        len_bytes: usize,
        /// What it has to be, in bytes.
        expected_bytes: usize,
    },
    /// The value is longer than a record may be.
    #[error("a provider record of {len_bytes} bytes, at most {max_bytes} are allowed")]
    TooLong {
        /// Length of the value, in bytes.
        len_bytes: usize,
        /// Most that is allowed, in bytes.
        max_bytes: usize,
    },
    /// The value does not have the layout.
    #[error("the value does not have the layout of a provider record")]
    Layout,
    /// The peer id is not one.
    #[error("the peer id of a provider record is malformed")]
    PeerId,
    /// The public key is malformed or of an unsupported kind.
    #[error("the public key of a provider record is malformed or of an unsupported kind")]
    PublicKey,
    /// The public key is another peer's.
    #[error("the record names {named} and is signed by {signer}")]
    NotTheSigner {
        /// The peer that the record names as provider.
        named: PeerId,
        /// The peer whose key it carries.
        signer: Box<PeerId>,
    },
    /// The signature does not cover this key, peer and size.
    #[error("the signature of the record that names {named} is not valid")]
    Signature {
        /// The peer that the record names as provider.
        named: PeerId,
    },
    /// The keypair cannot sign.
    #[error("the keypair cannot sign")]
    CannotSign,
}
