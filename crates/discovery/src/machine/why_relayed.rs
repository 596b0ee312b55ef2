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
    /// The latest round failed: a NAT of one side, or of both, does not let the other in.
    Failed {
        /// Rounds so far.
        rounds: u32,
    },
    /// The peer connected to this node through the relay, and begins the rounds.
    DialledByPeer,
    /// This node follows the rounds of as many relayed peers as it can.
    Untracked,
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
                f.write_str("the peer dialled, and begins the hole punch rounds")
            }
            Self::Untracked => {
                f.write_str("too many relayed peers for hole punch rounds with all of them")
            }
        }
    }
}
