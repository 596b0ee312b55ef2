//! Why a fetch, or one provider of it, failed.

use std::{error::Error, fmt, io, sync::Arc, time::Duration};

use calimero_network_primitives::PeerId;
use calimero_network_stream::FrameError;

use crate::{
    BlobId,
    error::{CallbackError, ChunkError, ChunkFrameError, HandshakeError},
    store::StoreError,
    v1::{CodecError, MessageError, PageError},
};

/// Why a blob was not fetched. What was verified is kept for the next try.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No provider is left that could be asked. Each that was asked is named with its last
    /// failure.
    #[error("no provider gave blob {id}{}", Failures(.failures))]
    NoProviders {
        /// The id of the blob.
        id: BlobId,
        /// What each provider did last, in order of their ids. Empty where none was found.
        failures: Vec<ProviderFailure>,
    },
    /// The blob is larger than the request accepts.
    #[error("blob {id} has at least {least_bytes} bytes, at most {max_bytes} are accepted")]
    TooLarge {
        /// The id of the blob.
        id: BlobId,
        /// Smallest size that it can have, in bytes.
        least_bytes: u64,
        /// Largest size that is accepted, in bytes.
        max_bytes: u64,
    },
    /// The destination could not keep what was fetched.
    #[error(transparent)]
    Store(Arc<StoreError>),
}

impl FetchError {
    /// Returns `true` where another download of the blob is open.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::Store(error) if matches!(**error, StoreError::Busy { .. }))
    }
}

impl From<StoreError> for FetchError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

/// A provider, and what it did.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{peer}: {reason}")]
pub struct ProviderFailure {
    /// The peer id of the provider.
    pub peer: PeerId,
    /// What the provider did last.
    #[source]
    pub reason: ProviderError,
}

/// Why a provider was left.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProviderError {
    /// The stream to it could not be opened.
    #[error("no stream could be opened: {source}")]
    Open {
        /// The error of the opener.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The stream to it did not open in time.
    #[error("no stream opened within {after:?}")]
    OpenTimeout {
        /// The time that was given.
        after: Duration,
    },
    /// It was reached through a relay alone, which does not carry the content.
    #[error("no direct path within {waited:?}, and relays do not carry blobs")]
    Relayed {
        /// Time that was waited for a direct path.
        waited: Duration,
    },
    /// It does not have the blob, or does not give it to this requester.
    #[error("does not have the blob, or does not give it")]
    NotFound,
    /// The signer of the request did not sign.
    #[error("the request to it was not signed: {0}")]
    Signer(CallbackError),
    /// It has too much to do.
    #[error("is busy for {retry_after:?}")]
    Busy {
        /// Time that it asks to wait.
        retry_after: Duration,
    },
    /// It says that it failed on its own side.
    #[error("failed on its own side")]
    Failed,
    /// Nothing came from it for too long.
    #[error("sent nothing for {after:?}")]
    Stalled {
        /// The time that was given.
        after: Duration,
    },
    /// Too little came from it.
    #[error("sent less than {floor_bytes_per_s} bytes a second")]
    TooSlow {
        /// The least that is accepted, in bytes a second.
        floor_bytes_per_s: u64,
    },
    /// It ended the stream before its answer did.
    #[error("ended the stream after {received_bytes} bytes of content, before all was sent")]
    Closed {
        /// Bytes of content that it had sent.
        received_bytes: u64,
    },
    /// The stream to it broke.
    #[error("the stream broke: {source}")]
    Io {
        /// The error of the stream.
        source: Arc<io::Error>,
    },
    /// It sent a frame that is none.
    #[error("sent a broken frame: {source}")]
    Frame {
        /// What is wrong about it.
        source: Arc<FrameError>,
    },
    /// It sent what is no message.
    #[error("sent a malformed message: {0}")]
    Message(MessageError),
    /// It answered what it was not asked.
    #[error("answered what it was not asked")]
    Unexpected,
    /// The transfer ended while a chunk of it waited to be verified.
    #[error("the transfer ended before a chunk of it was verified")]
    Ended,
    /// Its list of chunk hashes is not the blob's.
    #[error("sent a false list of chunk hashes: {0}")]
    List(PageError),
    /// It sent a chunk that is not the blob's.
    #[error("sent a false chunk: {0}")]
    Chunk(ChunkError),
    /// What it sent as the whole content is another blob.
    #[error("sent the content of {actual}")]
    Content {
        /// The blob that it sent.
        actual: BlobId,
    },
    /// Its answer to the handshake is none.
    #[error("sent a malformed handshake: {0}")]
    Handshake(HandshakeError),
    /// What it sent as a piece of content is none.
    #[error("sent a malformed chunk: {0}")]
    ChunkFrame(ChunkFrameError),
    /// What it sends, or claims to send, does not fit into the store. It is not verified, so the blob
    /// may be smaller.
    #[error("sends what does not fit into the store: {source}")]
    NoSpace {
        /// The error of the store.
        source: Arc<StoreError>,
    },
    /// It claims more than a blob may have.
    #[error("claims {size_bytes} bytes, at most {max_bytes} are allowed")]
    TooLarge {
        /// What it claims, in bytes.
        size_bytes: u64,
        /// Largest blob, in bytes.
        max_bytes: u64,
    },
    /// It sent more than it had said.
    #[error("sent more than the {said_bytes} bytes that it had announced")]
    More {
        /// What it had announced, in bytes.
        said_bytes: u64,
    },
    /// It ended the content before it had sent what it had said.
    #[error("sent {received_bytes} of the {said_bytes} bytes that it had announced")]
    Fewer {
        /// What it had announced, in bytes.
        said_bytes: u64,
        /// What came, in bytes.
        received_bytes: u64,
    },
}

impl ProviderError {
    /// Whether it is not to be asked for this blob again.
    pub(super) fn is_final(&self) -> bool {
        self.is_lie() || matches!(self, Self::NotFound)
    }

    /// Whether no honest provider does that.
    pub(super) fn is_lie(&self) -> bool {
        matches!(
            self,
            Self::Message(_)
                | Self::Unexpected
                | Self::List(_)
                | Self::Chunk(_)
                | Self::Content { .. }
                | Self::Handshake(_)
                | Self::ChunkFrame(_)
                | Self::TooLarge { .. }
                | Self::More { .. }
                | Self::Fewer { .. }
        ) || matches!(self, Self::Frame { source } if matches!(**source, FrameError::TooLarge { .. }))
    }
}

impl From<CodecError> for ProviderError {
    fn from(error: CodecError) -> Self {
        match error {
            CodecError::Io(source) => source.into(),
            CodecError::Message(error) => Self::Message(error),
        }
    }
}

impl From<io::Error> for ProviderError {
    fn from(source: io::Error) -> Self {
        let source = Arc::new(source);
        Self::Io { source }
    }
}

impl From<FrameError> for ProviderError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(source) => source.into(),
            error => Self::Frame {
                source: Arc::new(error),
            },
        }
    }
}

/// The failures of a list, after a colon.
struct Failures<'a>(&'a [ProviderFailure]);

impl fmt::Display for Failures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = ": ";
        for failure in self.0 {
            write!(f, "{before}{failure}")?;
            before = "; ";
        }
        Ok(())
    }
}
