//! The errors of failed dials: one vocabulary for every protocol that dials.

use std::{error::Error, fmt, io};

use calimero_network_primitives::{DialFailure, UnreachableCause};
use libp2p_core::{Multiaddr, transport::TransportError};
use libp2p_identity::PeerId;
use libp2p_swarm::DialError;

/// The cause of a failed dial: libp2p's [`DialError`] in a form that all requests that wait for the
/// dial can share.
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
    #[error("all addresses failed{}", Listed(.0))]
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
        if !self.0.is_empty() {
            f.write_str(":")?;
        }
        self.0.iter().try_for_each(|error| write!(f, " [{error}]"))
    }
}

impl DialCause {
    /// Converts `error`. Returns `None` if another dial of the peer is in
    /// progress.
    #[must_use]
    pub fn of(error: &DialError) -> Option<Self> {
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
                reason: text(cause),
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
        TransportError::Other(error) => io::Error::new(error.kind(), text(error)),
    }
}

/// Joins the text of an error and of all its sources.
fn text(error: &dyn Error) -> String {
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

/// Returns why a peer could not be reached. Returns `None` if another dial is in progress or this
/// one was aborted, so that nothing is known about the peer.
#[must_use]
pub fn unreachable_cause(error: &DialError) -> Option<UnreachableCause> {
    Some(match error {
        DialError::Transport(errors) => {
            // Addresses may fail for different reasons. The first that says something is reported.
            let mut causes = errors.iter().map(|(_, error)| address_cause(error));
            causes
                .find(|cause| !cause.is_other())
                .unwrap_or(UnreachableCause::Other)
        }
        DialError::WrongPeerId { obtained, .. } => UnreachableCause::WrongPeer {
            obtained: *obtained,
        },
        DialError::NoAddresses | DialError::LocalPeerId { .. } => UnreachableCause::NoAddress,
        DialError::Denied { .. } => UnreachableCause::Denied,
        DialError::Aborted | DialError::DialPeerConditionFalse(_) => return None,
    })
}

/// Returns why the dial of one address failed.
#[must_use]
pub fn address_cause(error: &TransportError<io::Error>) -> UnreachableCause {
    let TransportError::Other(error) = error else {
        return UnreachableCause::NoAddress;
    };
    chain(error)
        .find_map(known_cause)
        .unwrap_or(UnreachableCause::Other)
}

/// The transport of this project names the cause. For other transports, the error of the operating
/// system does.
fn known_cause(error: &(dyn Error + 'static)) -> Option<UnreachableCause> {
    if let Some(failure) = error.downcast_ref::<DialFailure>() {
        return Some(failure.cause());
    }
    match error.downcast_ref::<io::Error>()?.kind() {
        io::ErrorKind::ConnectionRefused => Some(UnreachableCause::Refused),
        io::ErrorKind::TimedOut => Some(UnreachableCause::TimedOut),
        io::ErrorKind::NetworkUnreachable => Some(UnreachableCause::NoRoute),
        io::ErrorKind::HostUnreachable => Some(UnreachableCause::HostUnreachable),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Some(UnreachableCause::Closed),
        _ => None,
    }
}

/// Returns an error and its causes. The inner error of an [`io::Error`] is not its source, so it is
/// followed separately.
pub fn chain(error: &io::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    std::iter::from_fn(move || {
        let current = next?;
        let inner = current.downcast_ref().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => current.source(),
        };
        Some(current)
    })
}

#[cfg(test)]
mod tests {
    use libp2p_swarm::{ConnectionDenied, dial_opts::PeerCondition};

    use super::*;

    fn cause(error: impl Into<Box<dyn Error + Send + Sync>>) -> UnreachableCause {
        // Transports wrap the error of the socket any number of times.
        let error = io::Error::other(io::Error::other(error));
        address_cause(&TransportError::Other(error))
    }

    #[test]
    fn the_cause_is_found_below_any_number_of_wrappers() {
        for (kind, expected) in [
            (io::ErrorKind::ConnectionRefused, UnreachableCause::Refused),
            (io::ErrorKind::TimedOut, UnreachableCause::TimedOut),
            (io::ErrorKind::NetworkUnreachable, UnreachableCause::NoRoute),
            (
                io::ErrorKind::HostUnreachable,
                UnreachableCause::HostUnreachable,
            ),
            (io::ErrorKind::UnexpectedEof, UnreachableCause::Closed),
            (io::ErrorKind::Other, UnreachableCause::Other),
        ] {
            assert_eq!(cause(io::Error::from(kind)), expected);
            let bare = TransportError::Other(kind.into());
            assert_eq!(address_cause(&bare), expected);
        }
        assert_eq!(cause("no"), UnreachableCause::Other);
        let unsupported = TransportError::MultiaddrNotSupported(Multiaddr::empty());
        assert_eq!(address_cause(&unsupported), UnreachableCause::NoAddress);
    }

    #[test]
    fn the_cause_that_a_transport_names_counts() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let failure = DialFailure::new(UnreachableCause::Handshake, refused);
        assert_eq!(cause(failure), UnreachableCause::Handshake);
    }

    #[test]
    fn a_cause_that_says_something_is_preferred() {
        let errors = ["no", "timed out"].map(|text| {
            let error = match text {
                "no" => io::Error::other(text),
                _ => io::ErrorKind::TimedOut.into(),
            };
            (Multiaddr::empty(), TransportError::Other(error))
        });
        let error = DialError::Transport(errors.into());
        assert_eq!(unreachable_cause(&error), Some(UnreachableCause::TimedOut));
        assert_eq!(unreachable_cause(&DialError::Aborted), None);
    }

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
