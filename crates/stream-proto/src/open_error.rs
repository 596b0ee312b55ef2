//! Errors of opening and accepting streams.

use std::{fmt, io, sync::Arc, time::Duration};

use libp2p_core::{Multiaddr, transport::TransportError};
use libp2p_identity::PeerId;
use libp2p_swarm::{DialError, StreamProtocol};

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

/// The cause of a failed dial: libp2p's [`DialError`] in a form that all
/// waiting requests can share.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialCause {
    /// No address of the peer is known.
    #[error("no address is known")]
    NoAddresses,
    /// The address belongs to this node.
    #[error("{address} belongs to this node")]
    LocalPeerId {
        /// The address that was dialled.
        address: Multiaddr,
    },
    /// A peer with another id answered.
    #[error("{address} answered with peer id {obtained}")]
    WrongPeerId {
        /// Id of the peer that answered.
        obtained: PeerId,
        /// The address that was dialled.
        address: Multiaddr,
    },
    /// A behaviour of this node denied the connection.
    #[error("refused by this node: {reason}")]
    Denied {
        /// Text of the behaviour's error and of its sources.
        reason: String,
    },
    /// This node aborted the attempt.
    #[error("aborted")]
    Aborted,
    /// All addresses of the peer failed; the list has one entry per address.
    #[error("all addresses failed:{}", Listed(.0))]
    Transport(Vec<AddressError>),
}

/// The error of dialling one address.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {source}")]
pub struct AddressError {
    /// The address that was dialled.
    pub address: Multiaddr,
    /// The error of the transport; [`io::ErrorKind::Unsupported`] if no
    /// transport supports the address.
    pub source: io::Error,
}

struct Listed<'a>(&'a [AddressError]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|error| write!(f, " [{error}]"))
    }
}

impl DialCause {
    /// Converts `error`. Returns `None` if another dial of the peer is in
    /// progress.
    pub(crate) fn of(error: &DialError) -> Option<Self> {
        Some(match error {
            DialError::DialPeerConditionFalse(_) => return None,
            DialError::NoAddresses => Self::NoAddresses,
            DialError::LocalPeerId { address } => Self::LocalPeerId {
                address: address.clone(),
            },
            DialError::WrongPeerId { obtained, address } => Self::WrongPeerId {
                obtained: *obtained,
                address: address.clone(),
            },
            DialError::Denied { cause } => Self::Denied {
                reason: chain(cause),
            },
            DialError::Aborted => Self::Aborted,
            DialError::Transport(errors) => Self::Transport(
                errors
                    .iter()
                    .map(|(address, error)| AddressError {
                        address: address.clone(),
                        source: copy(error),
                    })
                    .collect(),
            ),
        })
    }
}

/// Copies the kind and the text of an error that cannot be cloned.
fn copy(error: &TransportError<io::Error>) -> io::Error {
    match error {
        TransportError::MultiaddrNotSupported(_) => {
            io::Error::new(io::ErrorKind::Unsupported, "no transport for this address")
        }
        TransportError::Other(error) => io::Error::new(error.kind(), chain(error)),
    }
}

/// Joins the text of an error and of all its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        let more = error.to_string();
        // Many errors repeat the text of their source.
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        below = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use libp2p_swarm::{ConnectionDenied, dial_opts::PeerCondition};

    use super::*;

    #[test]
    fn every_dial_error_keeps_its_text() {
        let address: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
        let obtained = PeerId::random();
        let refused = || {
            io::Error::new(
                io::ErrorKind::ConnectionRefused,
                "connection refused by test",
            )
        };
        let unsupported = TransportError::MultiaddrNotSupported(address.clone());
        for (error, text) in [
            (DialError::NoAddresses, "no address is known".to_owned()),
            (DialError::Aborted, "aborted".to_owned()),
            (
                DialError::LocalPeerId {
                    address: address.clone(),
                },
                format!("{address} belongs to this node"),
            ),
            (
                DialError::WrongPeerId {
                    obtained,
                    address: address.clone(),
                },
                format!("{address} answered with peer id {obtained}"),
            ),
            (
                DialError::Denied {
                    cause: ConnectionDenied::new(refused()),
                },
                "connection refused by test".to_owned(),
            ),
            (
                DialError::Transport(vec![
                    (address.clone(), TransportError::Other(refused())),
                    (address.clone(), unsupported),
                ]),
                format!(
                    "[{address}: connection refused by test] [{address}: no transport for this address]"
                ),
            ),
        ] {
            let cause = DialCause::of(&error).unwrap().to_string();
            assert!(cause.contains(&text), "{cause}");
        }
        let elsewhere = DialError::DialPeerConditionFalse(PeerCondition::NotDialing);
        assert!(DialCause::of(&elsewhere).is_none());
    }

    #[test]
    fn kinds_of_address_errors_are_kept() {
        let refused = TransportError::Other(io::ErrorKind::ConnectionRefused.into());
        assert_eq!(copy(&refused).kind(), io::ErrorKind::ConnectionRefused);
    }
}
