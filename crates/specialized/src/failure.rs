//! Reasons for which a request failed, on both sides.

use std::{io, sync::Arc, time::Duration};

use calimero_network_exchange::dial::DialCause;
use calimero_network_primitives::resources::Scope;

use crate::{
    error::{DecodeError, EncodeError},
    message::Refusal,
};

/// Reason for which an outbound request failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboundFailure {
    /// The request is too large. It was not sent.
    #[error("request not sent: {0}")]
    Request(#[from] EncodeError),
    /// The limit of pending requests is reached.
    #[error("request not sent: {limit} requests are pending, which is the limit")]
    TooMany {
        /// Limit of pending requests to all peers.
        limit: usize,
    },
    /// The peer is not connected, and the dial failed. All requests that waited
    /// for the dial share the cause.
    #[error("dial failed: {0}")]
    Dial(Arc<DialCause>),
    /// The peer does not support the protocol.
    #[error("the peer does not support the invite protocol")]
    Unsupported,
    /// The peer's node refused the request before its application answered.
    #[error("request refused: {0}")]
    Refused(#[from] Refusal),
    /// The peer closed the stream without a response.
    #[error("the peer closed the stream without a response")]
    Unanswered,
    /// The response is invalid or too large.
    #[error("invalid response: {0}")]
    Answer(#[from] DecodeError),
    /// The connection closed. The peer may have served the request.
    #[error("connection closed before the response")]
    ConnectionClosed,
    /// The deadline passed. The peer may have served the request.
    #[error("no response within {after:?}")]
    Deadline {
        /// Time from sending the request to the deadline.
        after: Duration,
    },
    /// The stream failed with an IO error.
    #[error("stream failed: {0}")]
    Io(io::Error),
}

impl From<io::Error> for OutboundFailure {
    /// A peer that has withdrawn the protocol refuses it on the stream, which was opened without
    /// waiting for its answer.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::Unsupported => Self::Unsupported,
            _ => Self::Io(error),
        }
    }
}

/// Reason for which an inbound request was not answered, or its response not
/// delivered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InboundFailure {
    /// The limit of requests that are served at one time is reached. The peer received a refusal.
    #[error("refused: at most {limit} requests are served at one time for {scope}")]
    TooMany {
        /// Largest number of requests that are served at one time.
        limit: usize,
        /// The scope that the limit applies to.
        scope: Scope,
    },
    /// The request is invalid. The peer got a refusal if the request contained
    /// a nonce.
    #[error("invalid request: {0}")]
    Request(#[from] DecodeError),
    /// The request did not arrive completely in time.
    #[error("request did not arrive within {after:?}")]
    Slow {
        /// Time limit for receiving a request.
        after: Duration,
    },
    /// The [`ResponseChannel`](crate::ResponseChannel) was dropped. The peer
    /// got a refusal.
    #[error("the response channel was dropped")]
    Unanswered,
    /// The [`ResponseChannel`](crate::ResponseChannel) was not used in time.
    /// The peer got a refusal.
    #[error("the application did not respond within {after:?}")]
    Late {
        /// Time limit for the application.
        after: Duration,
    },
    /// The peer did not read the response in time.
    #[error("the peer did not read the response within {after:?}")]
    NotTaken {
        /// Time limit for sending the response.
        after: Duration,
    },
    /// The connection closed before the response was sent.
    #[error("connection closed before the response")]
    ConnectionClosed,
    /// The stream failed with an IO error.
    #[error("stream failed: {0}")]
    Io(#[from] io::Error),
}

/// An error of sending a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RespondError {
    /// The response is too large. The peer gets a refusal.
    #[error("response not sent: {0}")]
    Response(#[from] EncodeError),
    /// The requester no longer waits: the connection is closed or the deadline
    /// passed.
    #[error("the requester no longer waits for the response")]
    Closed,
}
