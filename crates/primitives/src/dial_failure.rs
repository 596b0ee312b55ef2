//! Why a peer cannot be reached: one vocabulary for transports, discovery, events and metrics.

use std::{error::Error, fmt};

use libp2p_identity::PeerId;

/// Why a peer cannot be reached.
///
/// The text of the operating system and the address are in the error of the dial. This is what a
/// program decides by and what an event, a status and a metric report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum UnreachableCause {
    /// The host answers, and no process listens on the port.
    #[error("connection refused")]
    Refused,
    /// The peer did not answer within the time for a dial.
    #[error("no answer in time")]
    TimedOut,
    /// The peer at the address has another id.
    #[error("the peer at the address is {obtained}")]
    WrongPeer {
        /// Id of the peer that answered.
        obtained: PeerId,
    },
    /// The name in the address does not resolve.
    #[error("the name does not resolve")]
    UnknownName,
    /// This host has no route to the network of the address. A link of this host may be down.
    #[error("no route to the network")]
    NoRoute,
    /// The network of the address is known, and the host in it does not answer.
    #[error("host unreachable")]
    HostUnreachable,
    /// The peer closes connections during the handshake or right after it.
    #[error("the peer closes connections at once")]
    Closed,
    /// The peer answers, and no secure connection could be negotiated with it.
    #[error("the handshake failed")]
    Handshake,
    /// The relay of the address has no reservation for the peer.
    #[error("the relay has no reservation for the peer")]
    NoReservation,
    /// The relay of the address cannot be used, or could not reach the peer.
    #[error("the relay did not connect the peer")]
    Relay,
    /// No transport of this node dials the address, or the address must not be dialled.
    #[error("no address that this node can dial")]
    NoAddress,
    /// A rule or a limit of this node refused the connection.
    #[error("refused by a rule or limit of this node")]
    Denied,
    /// The dial failed for another reason.
    #[error("the dial failed")]
    Other,
}

impl UnreachableCause {
    /// The [names](Self::name) of all causes.
    pub const NAMES: [&'static str; 13] = [
        "refused",
        "timed_out",
        "wrong_peer",
        "unknown_name",
        "no_route",
        "host_unreachable",
        "closed",
        "handshake",
        "no_reservation",
        "relay",
        "no_address",
        "denied",
        "other",
    ];

    /// Returns the name of the cause in metrics and in JSON, such as `timed_out`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::WrongPeer { .. } => "wrong_peer",
            Self::UnknownName => "unknown_name",
            Self::NoRoute => "no_route",
            Self::HostUnreachable => "host_unreachable",
            Self::Closed => "closed",
            Self::Handshake => "handshake",
            Self::NoReservation => "no_reservation",
            Self::Relay => "relay",
            Self::NoAddress => "no_address",
            Self::Denied => "denied",
            Self::Other => "other",
        }
    }

    /// Returns whether this is [`Other`](Self::Other), which says nothing.
    #[must_use]
    pub const fn is_other(self) -> bool {
        matches!(self, Self::Other)
    }
}

/// An error of a transport together with its cause.
///
/// A transport that returns it lets every behaviour of a `Swarm` find the cause of a failed dial,
/// without a dependency on the transport: `DialFailure` is somewhere in the chain of sources.
#[derive(Debug)]
pub struct DialFailure {
    cause: UnreachableCause,
    error: Box<dyn Error + Send + Sync>,
}

impl DialFailure {
    /// Adds `cause` to `error`.
    pub fn new(cause: UnreachableCause, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let error = error.into();
        Self { cause, error }
    }

    /// Returns why the peer cannot be reached at the address.
    #[must_use]
    pub const fn cause(&self) -> UnreachableCause {
        self.cause
    }
}

/// Displays the error of the transport.
impl fmt::Display for DialFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for DialFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_names_has_every_cause() {
        let peer = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";
        let obtained = peer.parse().unwrap();
        let causes = [
            UnreachableCause::Refused,
            UnreachableCause::TimedOut,
            UnreachableCause::WrongPeer { obtained },
            UnreachableCause::UnknownName,
            UnreachableCause::NoRoute,
            UnreachableCause::HostUnreachable,
            UnreachableCause::Closed,
            UnreachableCause::Handshake,
            UnreachableCause::NoReservation,
            UnreachableCause::Relay,
            UnreachableCause::NoAddress,
            UnreachableCause::Denied,
            UnreachableCause::Other,
        ];
        assert_eq!(causes.map(UnreachableCause::name), UnreachableCause::NAMES);
    }
}
