//! What can go wrong when streams are opened and accepted.

use std::{fmt, io, sync::Arc, time::Duration};

use libp2p_core::{Multiaddr, transport::TransportError};
use libp2p_identity::PeerId;
use libp2p_swarm::{DialError, StreamProtocol};

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The peer answered that it does not speak the protocol.
    #[error("{peer} does not speak {protocol}")]
    UnsupportedProtocol {
        /// Who was asked.
        peer: PeerId,
        /// For what: where several would do, the one wanted most.
        protocol: StreamProtocol,
    },
    /// There is no connection, and no address to dial is known.
    #[error("not connected to {peer}, and no address of it is known")]
    NotConnected {
        /// Who was to be reached.
        peer: PeerId,
    },
    /// There was no connection, and the peer could not be dialled.
    #[error("could not dial {peer}: {cause}")]
    Dial {
        /// Who was dialled.
        peer: PeerId,
        /// Why, shared by all who waited for that dial.
        #[source]
        cause: Arc<DialCause>,
    },
    /// The last connection on which the stream could have been opened closed.
    #[error("the connection to {peer} closed before the stream was open")]
    ConnectionClosed {
        /// To whom.
        peer: PeerId,
    },
    /// The stream was not open in time.
    #[error("no stream to {peer} after {after:?}")]
    Deadline {
        /// To whom.
        peer: PeerId,
        /// The time that was given.
        after: Duration,
    },
    /// As many requests wait for this peer as may.
    #[error("{limit} streams to {peer} wait to be opened, which is the limit")]
    TooManyWaiting {
        /// For whom.
        peer: PeerId,
        /// How many may wait.
        limit: usize,
    },
    /// The behaviour is gone.
    #[error("the stream behaviour has stopped")]
    Stopped,
    /// The substream failed during negotiation, on every connection there is.
    #[error("negotiating {protocol} with {peer} failed: {source}")]
    Io {
        /// With whom.
        peer: PeerId,
        /// What was negotiated.
        protocol: StreamProtocol,
        /// What the last connection said.
        source: io::Error,
    },
}

/// Why a protocol could not be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// Another [`Incoming`](crate::Incoming) of the protocol lives.
    #[error("{protocol} is accepted already")]
    AlreadyAccepted {
        /// Which protocol.
        protocol: StreamProtocol,
    },
    /// The behaviour is gone.
    #[error("the stream behaviour has stopped")]
    Stopped,
}

/// Why a dial failed: libp2p's [`DialError`] in a form that all who waited can have.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialCause {
    /// No address to dial is known.
    #[error("no address is known")]
    NoAddresses,
    /// The peer is this node itself.
    #[error("{address} leads to this node")]
    LocalPeerId {
        /// Where it was found.
        address: Multiaddr,
    },
    /// Another peer answered.
    #[error("{address} answered as {obtained}")]
    WrongPeerId {
        /// Who answered.
        obtained: PeerId,
        /// Where.
        address: Multiaddr,
    },
    /// A behaviour of this node refused the connection.
    #[error("refused by this node: {reason}")]
    Denied {
        /// What the behaviour says.
        reason: String,
    },
    /// The attempt was aborted by this node.
    #[error("aborted")]
    Aborted,
    /// Every address failed.
    #[error("every address failed:{}", Listed(.0))]
    Transport(Vec<AddressError>),
}

/// Why one address could not be dialled.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {source}")]
pub struct AddressError {
    /// The address.
    pub address: Multiaddr,
    /// What the transport says; [`io::ErrorKind::Unsupported`] if none takes the address.
    pub source: io::Error,
}

struct Listed<'a>(&'a [AddressError]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|error| write!(f, " [{error}]"))
    }
}

impl DialCause {
    /// What `error` says; `None` where it says that another dial is under way.
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

/// An error of the same kind and words as `error`, which cannot be cloned.
fn copy(error: &TransportError<io::Error>) -> io::Error {
    match error {
        TransportError::MultiaddrNotSupported(_) => {
            io::Error::new(io::ErrorKind::Unsupported, "no transport for this address")
        }
        TransportError::Other(error) => io::Error::new(error.kind(), chain(error)),
    }
}

/// The words of an error and of all below it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        let more = error.to_string();
        // Many errors repeat what is below them.
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        below = error.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use libp2p_swarm::{ConnectionDenied, dial_opts::PeerCondition};

    use super::*;

    #[test]
    fn every_dial_error_keeps_what_it_says() {
        let address: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
        let obtained = PeerId::random();
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, "nobody home");
        let unsupported = TransportError::MultiaddrNotSupported(address.clone());
        for (error, words) in [
            (DialError::NoAddresses, "no address is known".to_owned()),
            (DialError::Aborted, "aborted".to_owned()),
            (
                DialError::LocalPeerId {
                    address: address.clone(),
                },
                format!("{address} leads to this node"),
            ),
            (
                DialError::WrongPeerId {
                    obtained,
                    address: address.clone(),
                },
                format!("{address} answered as {obtained}"),
            ),
            (
                DialError::Denied {
                    cause: ConnectionDenied::new(refused()),
                },
                "nobody home".to_owned(),
            ),
            (
                DialError::Transport(vec![
                    (address.clone(), TransportError::Other(refused())),
                    (address.clone(), unsupported),
                ]),
                format!("[{address}: nobody home] [{address}: no transport for this address]"),
            ),
        ] {
            let cause = DialCause::of(&error).unwrap().to_string();
            assert!(cause.contains(&words), "{cause}");
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
