//! What goes into the machine and what comes out.

use calimero_network_primitives::PeerId;

/// What [`Repair`](super::Repair) hears. `C` names a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<C> {
    /// A connection with `peer` is established.
    Opened {
        /// The peer.
        peer: PeerId,
        /// The connection.
        connection: C,
        /// Whether this node dialled it.
        dialled: bool,
    },
    /// A connection with `peer` is closed.
    Closed {
        /// The peer.
        peer: PeerId,
        /// The connection.
        connection: C,
        /// Whether the peer closed it, or the link broke, while this node had topics to announce.
        by_peer: bool,
    },
    /// `peer` greets, which it does on what it takes for the first connection: what it has not
    /// announced after that, it does not follow.
    Greeted {
        /// The peer.
        peer: PeerId,
    },
    /// `peer` says that it follows a topic.
    Announced {
        /// The peer.
        peer: PeerId,
        /// The connection on which it says so.
        connection: C,
        /// Whether that was known.
        repeated: bool,
    },
    /// `peer` has left a topic.
    Left {
        /// The peer.
        peer: PeerId,
    },
    /// `peer` has sent a message of a topic that this node follows, and which `peer` has not
    /// announced.
    Unannounced {
        /// The peer.
        peer: PeerId,
        /// Whether the message is of another author.
        forwarded: bool,
    },
    /// A dial asked for has failed.
    DialFailed {
        /// The peer.
        peer: PeerId,
    },
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The two ends disagree about what was announced; close all connections with `peer`.
    /// [`Effect::Dial`] follows when they are closed.
    CloseAll {
        /// The peer.
        peer: PeerId,
    },
    /// Dial `peer`.
    Dial {
        /// The peer.
        peer: PeerId,
    },
    /// `peer` could not be dialled. It is left to whatever finds peers.
    GaveUp {
        /// The peer.
        peer: PeerId,
    },
}
