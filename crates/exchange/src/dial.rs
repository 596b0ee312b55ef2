//! The cause of a failed dial, in the terms of [`UnreachableCause`].

use std::{error::Error, io};

use calimero_network_primitives::{DialFailure, UnreachableCause};
use libp2p_core::transport::TransportError;
use libp2p_relay::outbound::hop::ConnectError;
use libp2p_swarm::DialError;

/// Returns why a peer could not be reached; `None` where the dial was left to another one or
/// aborted, so that nothing is known about the peer.
pub(super) fn cause_of(error: &DialError) -> Option<UnreachableCause> {
    Some(match error {
        DialError::Transport(errors) => {
            // Addresses may fail for different reasons. The first that says something is reported.
            let mut causes = errors.iter().map(|(_, error)| cause_at(error));
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
pub(super) fn cause_at(error: &TransportError<io::Error>) -> UnreachableCause {
    let TransportError::Other(error) = error else {
        return UnreachableCause::NoAddress;
    };
    chain(error)
        .find_map(known_cause)
        .unwrap_or(UnreachableCause::Other)
}

/// The transport of this project names the cause. For other transports, the error of the operating
/// system or of the relay client does.
fn known_cause(error: &(dyn Error + 'static)) -> Option<UnreachableCause> {
    if let Some(failure) = error.downcast_ref::<DialFailure>() {
        return Some(failure.cause());
    }
    if let Some(ConnectError::NoReservation) = error.downcast_ref() {
        return Some(UnreachableCause::NoReservation);
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

/// An error and its causes. The inner error of an [`io::Error`] is not its source, so it is
/// followed apart.
fn chain(error: &io::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
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
    use calimero_network_primitives::Multiaddr;

    use super::*;

    fn cause(error: impl Into<Box<dyn Error + Send + Sync>>) -> UnreachableCause {
        // Transports wrap the error of the socket any number of times.
        let error = io::Error::other(io::Error::other(error));
        cause_at(&TransportError::Other(error))
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
            assert_eq!(cause_at(&bare), expected);
        }
        assert_eq!(cause("no"), UnreachableCause::Other);
        let unsupported = TransportError::MultiaddrNotSupported(Multiaddr::empty());
        assert_eq!(cause_at(&unsupported), UnreachableCause::NoAddress);
    }

    #[test]
    fn the_cause_that_a_transport_names_counts() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let failure = DialFailure::new(UnreachableCause::Handshake, refused);
        assert_eq!(cause(failure), UnreachableCause::Handshake);
    }

    #[test]
    fn a_circuit_without_a_reservation_differs_from_one_that_failed() {
        assert_eq!(
            cause(ConnectError::NoReservation),
            UnreachableCause::NoReservation
        );
        assert_eq!(
            cause(ConnectError::ConnectionFailed),
            UnreachableCause::Other
        );
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
        assert_eq!(cause_of(&error), Some(UnreachableCause::TimedOut));
        assert_eq!(cause_of(&DialError::Aborted), None);
    }
}
