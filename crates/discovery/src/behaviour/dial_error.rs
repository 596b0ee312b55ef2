//! What an error of a dial says: the cause, in the machine's terms.

use std::{error::Error, io};

use calimero_network_primitives::{Multiaddr, addr::is_dns};
use libp2p_core::transport::TransportError;
use libp2p_relay::outbound::hop::ConnectError;
use libp2p_swarm::DialError;

use crate::machine::UnreachableCause;

/// Returns why a peer could not be reached; `None` where the dial was left to another one or given
/// up, so that nothing is known about the peer.
pub(super) fn cause_of(error: &DialError) -> Option<UnreachableCause> {
    Some(match error {
        DialError::Transport(errors) => {
            let mut causes = errors
                .iter()
                .map(|(address, error)| cause_at(address, error));
            let first = causes.next().unwrap_or(UnreachableCause::Other);
            // One address may fail for a reason of its own; a specific cause says more.
            match first {
                UnreachableCause::Other => causes
                    .find(|cause| *cause != UnreachableCause::Other)
                    .unwrap_or(first),
                _ => first,
            }
        }
        DialError::WrongPeerId { obtained, .. } => UnreachableCause::WrongPeer {
            obtained: *obtained,
        },
        DialError::NoAddresses | DialError::LocalPeerId { .. } => UnreachableCause::NoAddress,
        DialError::Denied { .. } => UnreachableCause::Denied,
        DialError::Aborted | DialError::DialPeerConditionFalse(_) => return None,
    })
}

fn cause_at(address: &Multiaddr, error: &TransportError<io::Error>) -> UnreachableCause {
    let TransportError::Other(error) = error else {
        return UnreachableCause::NoAddress;
    };
    let known = kinds(error).find_map(|kind| match kind {
        io::ErrorKind::ConnectionRefused => Some(UnreachableCause::Refused),
        io::ErrorKind::TimedOut => Some(UnreachableCause::TimedOut),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
            Some(UnreachableCause::NoRoute)
        }
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Some(UnreachableCause::Closed),
        _ => None,
    });
    match known {
        Some(cause) => cause,
        // An error without an OS error at a name that was never dialled is the resolver's.
        None if is_dns(address) => UnreachableCause::UnknownName,
        None if error.to_string().contains("timed out") => UnreachableCause::TimedOut,
        None => UnreachableCause::Other,
    }
}

/// Returns whether this host has no route to the address. The address is not to blame then: a link
/// of this host is down.
pub(super) fn has_no_route(error: &TransportError<io::Error>) -> bool {
    match error {
        TransportError::Other(error) => {
            kinds(error).any(|kind| kind == io::ErrorKind::NetworkUnreachable)
        }
        TransportError::MultiaddrNotSupported(_) => false,
    }
}

/// Returns whether the relay of a circuit says that its target has no reservation there. The
/// address is of no use then, until the target registers again.
pub(super) fn has_no_reservation(error: &TransportError<io::Error>) -> bool {
    let TransportError::Other(error) = error else {
        return false;
    };
    chain(error).any(|error| {
        let refusal = error.downcast_ref::<ConnectError>();
        matches!(refusal, Some(ConnectError::NoReservation))
    })
}

fn kinds(error: &io::Error) -> impl Iterator<Item = io::ErrorKind> {
    chain(error).filter_map(|error| Some(error.downcast_ref::<io::Error>()?.kind()))
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
    use super::*;

    fn at(address: &str, error: io::Error) -> UnreachableCause {
        cause_at(&address.parse().unwrap(), &TransportError::Other(error))
    }

    #[test]
    fn a_link_that_is_down_is_told_from_an_address_that_is_dead() {
        let no_route = || io::Error::from(io::ErrorKind::NetworkUnreachable);
        for (error, expected) in [
            (no_route(), true),
            (io::Error::other(no_route()), true),
            (io::Error::other(io::Error::other(no_route())), true),
            (io::ErrorKind::ConnectionRefused.into(), false),
            (io::Error::other("no"), false),
        ] {
            assert_eq!(has_no_route(&TransportError::Other(error)), expected);
        }
        let unsupported = TransportError::MultiaddrNotSupported(Multiaddr::empty());
        assert!(!has_no_route(&unsupported));
    }

    #[test]
    fn the_cause_is_found_below_any_number_of_wrappers() {
        let ip = "/ip4/192.0.2.1/tcp/1";
        let wrapped =
            |kind: io::ErrorKind| io::Error::other(io::Error::other(io::Error::from(kind)));
        for (kind, cause) in [
            (io::ErrorKind::ConnectionRefused, UnreachableCause::Refused),
            (io::ErrorKind::TimedOut, UnreachableCause::TimedOut),
            (io::ErrorKind::HostUnreachable, UnreachableCause::NoRoute),
            (io::ErrorKind::UnexpectedEof, UnreachableCause::Closed),
            (io::ErrorKind::Other, UnreachableCause::Other),
        ] {
            assert_eq!(at(ip, wrapped(kind)), cause);
        }
        let name = "/dns4/boot.example/tcp/1";
        assert_eq!(
            at(name, io::Error::other("no such name")),
            UnreachableCause::UnknownName
        );
        assert_eq!(
            at(name, io::ErrorKind::ConnectionRefused.into()),
            UnreachableCause::Refused
        );
    }

    #[test]
    fn a_circuit_without_a_reservation_is_told_from_one_that_failed() {
        let refused = |error| TransportError::Other(io::Error::other(io::Error::other(error)));
        assert!(has_no_reservation(&refused(ConnectError::NoReservation)));
        assert!(!has_no_reservation(&refused(
            ConnectError::ConnectionFailed
        )));
    }
}
