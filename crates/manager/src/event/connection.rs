//! Events of connections and of the peers at their other end.

use std::{fmt, sync::Arc};

use calimero_network_primitives::PeerId;
use calimero_network_transport::CloseCause;
use libp2p::swarm::ConnectionId;
use serde::Serialize;

use super::{Class, Key, Subject, queue::Unread};
use crate::{
    json,
    status::{Connection, PeerInfo},
};

/// An event of a connection, or of the peer at its other end.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ConnectionEvent {
    /// A connection was established. A peer can have several connections.
    Connected(Connection),
    /// A connection to a peer closed.
    Disconnected {
        /// The id of the remote peer.
        #[serde(serialize_with = "json::text")]
        peer: PeerId,
        /// The number of the connection in this process.
        #[serde(serialize_with = "json::text")]
        connection: ConnectionId,
        /// The cause of the close.
        #[serde(serialize_with = "json::text")]
        reason: CloseReason,
        /// Number of connections with the same peer that are still open.
        remaining: u32,
    },
    /// The best connection with a peer changed: a direct one was added to a relayed one, or the
    /// direct one closed and a relayed one remains. Carries the connection that is best now.
    PathChanged(Connection),
    /// An attempt to replace a relayed connection by a direct one ended.
    HolePunched {
        /// The id of the remote peer.
        #[serde(serialize_with = "json::text")]
        peer: PeerId,
        /// Whether a direct connection exists now.
        direct: bool,
    },
    /// A peer sent its identify information. Emitted again when the information changes.
    Identified {
        /// The id of the remote peer.
        #[serde(serialize_with = "json::text")]
        peer: PeerId,
        /// The information. Only the peer id is verified.
        #[serde(flatten, serialize_with = "json::shared")]
        info: Arc<PeerInfo>,
    },
}

impl ConnectionEvent {
    pub(super) fn class(&mut self, unread: &mut Unread<'_>) -> Class {
        let state = |kind, peer: &PeerId| Class::State(Key::new(kind, Subject::Connected(*peer)));
        let link = |id: &ConnectionId| Key::new("connection", Subject::Connection(*id));
        match self {
            Self::Connected(connection) => Class::State(link(&connection.id)),
            Self::PathChanged(connection) => state("path", &connection.peer),
            Self::HolePunched { peer, .. } => state("hole punch", peer),
            Self::Identified { peer, .. } => state("identity", peer),
            Self::Disconnected {
                peer,
                connection,
                remaining,
                ..
            } => {
                if *remaining == 0 {
                    unread.forget(peer);
                }
                let key = link(connection);
                let was_returned = unread.was_returned(connection);
                match unread.retract(&key) {
                    // The connection began and ended unread. Only a caller that it was returned to
                    // knows of it, and that caller has to learn that it closed.
                    Some(_) if was_returned => Class::State(Key::new("lost", Subject::Peer(*peer))),
                    Some(_) => Class::Void,
                    None => Class::State(key),
                }
            }
        }
    }
}

impl fmt::Display for ConnectionEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected(connection) => write!(f, "connected {connection}"),
            Self::Disconnected {
                peer,
                reason,
                remaining,
                ..
            } => write!(
                f,
                "disconnected {peer}: {reason}, {remaining} connections left"
            ),
            Self::PathChanged(connection) => write!(f, "path changed {connection}"),
            Self::HolePunched { peer, direct } => {
                let end = if *direct { "direct" } else { "still relayed" };
                write!(f, "hole punched {peer}: {end}")
            }
            Self::Identified { peer, info } => write!(
                f,
                "identified {peer}: {}, {}",
                info.agent_version, info.protocol_version
            ),
        }
    }
}

/// The cause for which a connection closed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// This node closed it.
    Local,
    /// It carried no stream for `connections.idle_timeout_ms`.
    Idle,
    /// The peer left `connections.ping.max_failures` pings in a row unanswered.
    Unresponsive,
    /// The peer closed it, or the link broke.
    Remote {
        /// The cause, as far as the transport knows it.
        cause: CloseCause,
    },
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("closed here"),
            Self::Idle => f.write_str("idle"),
            Self::Unresponsive => f.write_str("unresponsive"),
            Self::Remote { cause } => fmt::Display::fmt(cause, f),
        }
    }
}
