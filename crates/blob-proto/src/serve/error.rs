//! Why a stream was not served to its end.

use std::{io, time::Duration};

use calimero_network_primitives::resources::Refused;
use calimero_network_stream::FrameError;

use crate::{
    error::{AuthError, CallbackError, ChunkFrameError, HandshakeError},
    store::StoreError,
    v1::{CodecError, MessageError},
};

/// Why a stream was not served to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// No request came in time.
    #[error("no request within {after:?}")]
    NoRequest {
        /// The time that was given.
        after: Duration,
    },
    /// The stream ended before a request came.
    #[error("the stream ended without a request")]
    Closed,
    /// The stream broke, or the requester did not take what it had asked for in time.
    #[error("the stream broke: {0}")]
    Io(#[from] io::Error),
    /// The requester sent a frame that is none.
    #[error("broken frame: {0}")]
    Frame(FrameError),
    /// The requester sent what is no message.
    #[error("malformed message: {0}")]
    Message(#[from] MessageError),
    /// The first message is not a greeting, or a later one is.
    #[error("a greeting belongs at the beginning, once")]
    Greeting,
    /// The requester sent a message of 1.1.0 on a stream of 1.0.0.
    #[error("a message of 1.1.0 on a stream of 1.0.0")]
    Version,
    /// The requester watches a second blob on one stream.
    #[error("one blob is watched on a stream, once")]
    WatchedTwice,
    /// The requester's handshake is none.
    #[error("malformed handshake: {0}")]
    Handshake(#[from] HandshakeError),
    /// The requester's authentication was refused.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// A permit for a transfer or for a chunk in memory did not become free in time.
    #[error("no permit became free within {after:?}")]
    Busy {
        /// The time that was waited.
        after: Duration,
    },
    /// The requester took less of a chunk than it had time for.
    #[error("a chunk was not taken within {after:?}")]
    Slow {
        /// The time that was given.
        after: Duration,
    },
    /// The store of the server failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A limit is smaller than one answer needs.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The authorizer panicked or did not answer.
    #[error(transparent)]
    Callback(#[from] CallbackError),
    /// The store returned a chunk that is none.
    #[error(transparent)]
    Chunk(#[from] ChunkFrameError),
}

impl From<CodecError> for ServeError {
    fn from(error: CodecError) -> Self {
        match error {
            CodecError::Io(error) => error.into(),
            CodecError::Message(error) => error.into(),
        }
    }
}

impl From<FrameError> for ServeError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(error) => error.into(),
            error => Self::Frame(error),
        }
    }
}
