//! Errors of opening and accepting streams.

use std::{io, sync::Arc, time::Duration};

use calimero_network_exchange::dial::DialCause;
use libp2p_identity::PeerId;
use libp2p_swarm::StreamProtocol;

/// An error of opening a stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The peer does not support the protocol.
    #[error("{peer} does not support {protocol}")]
    UnsupportedProtocol {
        /// The remote peer of the request.
        peer: PeerId,
        /// The requested protocol. If several were acceptable, this is the
        /// preferred one.
        protocol: StreamProtocol,
    },
    /// The peer is not connected, and no address of it is known.
    #[error("not connected to {peer}, and no address of it is known")]
    NotConnected {
        /// The remote peer of the request.
        peer: PeerId,
    },
    /// The peer was not connected, and the dial failed.
    #[error("could not dial {peer}: {cause}")]
    Dial {
        /// The remote peer of the request.
        peer: PeerId,
        /// The cause, shared by all requests that waited for this dial.
        #[source]
        cause: Arc<DialCause>,
    },
    /// The last usable connection closed before the stream was open.
    #[error("the connection to {peer} closed before the stream was open")]
    ConnectionClosed {
        /// The remote peer of the request.
        peer: PeerId,
    },
    /// The stream was not open before the deadline.
    #[error("no stream to {peer} within {after:?}")]
    Deadline {
        /// The remote peer of the request.
        peer: PeerId,
        /// The deadline that was given.
        after: Duration,
    },
    /// The limit of requests that wait for this peer is reached.
    #[error("{limit} requests for streams to {peer} wait, which is the limit")]
    TooManyWaiting {
        /// The remote peer of the request.
        peer: PeerId,
        /// Limit of waiting requests.
        limit: usize,
    },
    /// The behaviour was dropped.
    #[error("the stream behaviour has stopped")]
    Stopped,
    /// The negotiation of the substream failed on every connection.
    #[error("negotiating {protocol} with {peer} failed: {source}")]
    Io {
        /// The remote peer of the request.
        peer: PeerId,
        /// The protocol that was negotiated.
        protocol: StreamProtocol,
        /// The error on the last connection that was tried.
        source: io::Error,
    },
}

/// An error of accepting a protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// Another [`Incoming`](crate::Incoming) of the protocol exists.
    #[error("{protocol} is already accepted")]
    AlreadyAccepted {
        /// The protocol that is already accepted.
        protocol: StreamProtocol,
    },
    /// The behaviour was dropped.
    #[error("the stream behaviour has stopped")]
    Stopped,
}
