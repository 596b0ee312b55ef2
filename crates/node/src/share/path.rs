//! The path to the peer that serves a ticket.

use std::fmt;

use calimero_network::{Path, PeerId, Status};

use super::lines::Line;

/// Content that a relayed path carries: a small blob in one answer.
pub(super) const RELAYED_MAX_BYTES: u64 = calimero_network::blob::v1::MAX_INLINE_BYTES as u64;

/// The best path to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// No connection.
    None,
    /// Through a relay, which does not carry the content: a hole punch is under way.
    Waiting,
    /// Through a relay, which carries the content.
    Relayed,
    /// A direct connection, with the name of its transport.
    Direct(String),
}

impl Route {
    /// The best path to `peer`. `is_small` is whether a relay carries the content.
    pub(super) fn of(status: &Status, peer: PeerId, is_small: bool) -> Self {
        let mut best = Self::None;
        for connection in status.connections.iter().filter(|one| one.peer == peer) {
            match connection.path {
                Path::Direct => return Self::Direct(connection.transport().to_string()),
                Path::Relayed { .. } if is_small => best = Self::Relayed,
                Path::Relayed { .. } => best = Self::Waiting,
            }
        }
        best
    }

    /// The name of the path in records.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Waiting => "waiting",
            Self::Relayed => "relayed",
            Self::Direct(_) => "direct",
        }
    }

    pub(super) fn line(&self, peer: PeerId) -> Line {
        Line::Path {
            peer: peer.to_base58(),
            path: self.name(),
            transport: match self {
                Self::Direct(transport) => Some(transport.clone()),
                _ => None,
            },
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("not connected"),
            Self::Waiting => f.write_str("waiting for a direct path"),
            Self::Relayed => f.write_str("relayed"),
            Self::Direct(transport) => write!(f, "direct, {}", transport.to_uppercase()),
        }
    }
}
