//! The reason why a peer has no direct connection.

use std::fmt;

/// The reason why a connected peer has no direct connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhyRelayed {
    /// A hole punch round is under way.
    Punching {
        /// Number of the round, from 1.
        round: u32,
    },
    /// The latest round ended without a direct connection: often because of the NAT of one side or
    /// of both.
    Failed {
        /// Rounds so far.
        rounds: u32,
    },
    /// The peer connected to this node through the relay, and begins the rounds. Only the peer knows
    /// when the next one is.
    DialledByPeer,
    /// This node repeats hole punch rounds with at most 1,024 peers, and this peer is not one of them.
    Untracked,
}

impl WhyRelayed {
    /// The reason without its number, for programs: `punching`, `failed`, `dialled_by_peer` or
    /// `untracked`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Punching { .. } => "punching",
            Self::Failed { .. } => "failed",
            Self::DialledByPeer => "dialled_by_peer",
            Self::Untracked => "untracked",
        }
    }
}

impl fmt::Display for WhyRelayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Punching { round } => write!(f, "hole punch round {round} is under way"),
            Self::Failed { rounds: 1 } => f.write_str("the hole punch round failed"),
            Self::Failed { rounds } => {
                write!(f, "hole punching failed, in the latest of {rounds} rounds")
            }
            Self::DialledByPeer => {
                f.write_str("the peer dialled, and it alone repeats hole punching")
            }
            Self::Untracked => {
                f.write_str("too many relayed peers for hole punch rounds with all of them")
            }
        }
    }
}
