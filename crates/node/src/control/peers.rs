//! Status and connections.

use calimero_network::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};

use super::{
    answer::{self, Answer},
    server::Served,
    target::{Parameters, parse},
};
use crate::{
    error::CommandError,
    http::status::{ConnectionPage, StatusPage},
};

pub(super) async fn status(served: &Served) -> Result<Answer, CommandError> {
    let status = served.client.status().await?;
    Ok(answer::record(&StatusPage::of(&status)))
}

/// All established connections of the node.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "peers")]
struct PeersPage {
    connections: Vec<ConnectionPage>,
}

pub(super) async fn list(served: &Served) -> Result<Answer, CommandError> {
    let status = served.client.status().await?;
    let connections = status.connections.iter().map(ConnectionPage::of).collect();
    Ok(answer::record(&PeersPage { connections }))
}

pub(super) async fn connect(
    served: &Served,
    parameters: &Parameters,
) -> Result<Answer, CommandError> {
    let address: Multiaddr = parameters.required("address")?;
    let connection = served.client.dial(address).await?;
    Ok(answer::record(&ConnectionPage::of(&connection)))
}

/// What was done with a peer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum PeerChange {
    Disconnecting {
        peer: String,
        /// Whether the peer was connected or being dialled.
        was_connected: bool,
    },
    Blocked {
        peer: String,
    },
    Unblocked {
        peer: String,
    },
}

impl std::fmt::Display for PeerChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Disconnecting {
                peer,
                was_connected: true,
            } => write!(f, "disconnecting {peer}"),
            Self::Disconnecting { peer, .. } => write!(f, "not connected {peer}"),
            Self::Blocked { peer } => write!(f, "blocked       {peer}"),
            Self::Unblocked { peer } => write!(f, "unblocked     {peer}"),
        }
    }
}

fn peer_of(text: &str) -> Result<PeerId, CommandError> {
    parse("peer", text)
}

pub(super) async fn disconnect(served: &Served, peer: &str) -> Result<Answer, CommandError> {
    let was_connected = served.client.disconnect(peer_of(peer)?).await?;
    Ok(answer::record(&PeerChange::Disconnecting {
        peer: peer.to_owned(),
        was_connected,
    }))
}

pub(super) async fn block(served: &Served, peer: &str) -> Result<Answer, CommandError> {
    served.client.block(peer_of(peer)?).await?;
    let peer = peer.to_owned();
    Ok(answer::record(&PeerChange::Blocked { peer }))
}

pub(super) async fn unblock(served: &Served, peer: &str) -> Result<Answer, CommandError> {
    served.client.unblock(peer_of(peer)?).await?;
    let peer = peer.to_owned();
    Ok(answer::record(&PeerChange::Unblocked { peer }))
}
