//! Why a request came to nothing, on either side.

use std::{io, time::Duration};

use calimero_network_primitives::resources::Scope;
use libp2p_identity::PeerId;
use libp2p_swarm::DialError;

use crate::{
    error::{DecodeError, EncodeError},
    message::Refusal,
};

/// Why a request that was sent has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboundFailure {
    /// The request is too large to be sent.
    #[error("request not sent: {0}")]
    Request(#[from] EncodeError),
    /// As many requests as may are waiting for their answers.
    #[error("request not sent: {limit} are waiting for an answer")]
    TooMany {
        /// Most requests of all peers at one time.
        limit: usize,
    },
    /// There is no connection to the peer and none could be made.
    #[error("peer not reached: {0}")]
    Dial(#[from] DialFailure),
    /// The peer does not speak the protocol.
    #[error("the peer does not speak the invite protocol")]
    Unsupported,
    /// The peer, not its application, says why there is no answer.
    #[error("request refused: {0}")]
    Refused(#[from] Refusal),
    /// The peer ended the stream without a word.
    #[error("the peer ended the stream without an answer")]
    Unanswered,
    /// What the peer sent is no answer, or one that is too large.
    #[error("answer not understood: {0}")]
    Answer(#[from] DecodeError),
    /// The connection closed. The peer may have served the request.
    #[error("connection closed before the answer")]
    ConnectionClosed,
    /// The deadline passed. The peer may have served the request.
    #[error("no answer within {after:?}")]
    Deadline {
        /// The time that was given, from sending on.
        after: Duration,
    },
    /// The stream failed.
    #[error("stream failed: {0}")]
    Io(#[from] io::Error),
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialFailure {
    /// No address of the peer is known.
    #[error("no address is known")]
    NoAddresses,
    /// No address answered.
    #[error("no address answers")]
    Unreachable,
    /// Somebody else answered.
    #[error("{obtained} answers in its place")]
    WrongPeer {
        /// Who.
        obtained: PeerId,
    },
    /// The peer is this node.
    #[error("the peer is this node")]
    Oneself,
    /// A rule of this node forbids the connection.
    #[error("a rule of this node forbids it")]
    Denied,
    /// The attempt was given up.
    #[error("the attempt was given up")]
    Aborted,
}

impl DialFailure {
    /// `None` where the dial was left to another one under way, so that nothing has failed yet.
    pub(crate) fn of(error: &DialError) -> Option<Self> {
        Some(match error {
            DialError::DialPeerConditionFalse(_) => return None,
            DialError::NoAddresses => Self::NoAddresses,
            DialError::Transport(_) => Self::Unreachable,
            DialError::WrongPeerId { obtained, .. } => Self::WrongPeer {
                obtained: *obtained,
            },
            DialError::LocalPeerId { .. } => Self::Oneself,
            DialError::Denied { .. } => Self::Denied,
            DialError::Aborted => Self::Aborted,
        })
    }
}

/// Why a request that came in was not answered, or its answer not taken.
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
    /// What arrived is no request. The peer was told if it showed a nonce.
    #[error("request not understood: {0}")]
    Request(#[from] DecodeError),
    /// The request did not arrive whole in time.
    #[error("request did not arrive within {after:?}")]
    Slow {
        /// The time that was given.
        after: Duration,
    },
    /// The [`ResponseChannel`](crate::ResponseChannel) was dropped. The peer was told.
    #[error("the response channel was dropped")]
    Unanswered,
    /// The [`ResponseChannel`](crate::ResponseChannel) was not used in time. The peer was told.
    #[error("no answer was given within {after:?}")]
    Late {
        /// The time that was given.
        after: Duration,
    },
    /// The peer did not take the answer in time.
    #[error("the peer did not take the answer within {after:?}")]
    NotTaken {
        /// The time that was given.
        after: Duration,
    },
    /// The connection closed before the answer was sent.
    #[error("connection closed before the answer")]
    ConnectionClosed,
    /// The stream failed.
    #[error("stream failed: {0}")]
    Io(#[from] io::Error),
}

/// Why an answer was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RespondError {
    /// The answer is too large. The peer is told that there is none.
    #[error("answer not sent: {0}")]
    Response(#[from] EncodeError),
    /// Nobody waits for it: the connection is closed or the time is over.
    #[error("nobody waits for the answer any more")]
    Gone,
}
