//! Connections of a node.

use axum::response::Response;
use calimero_network::{Multiaddr, PeerId, multiaddr::Protocol};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    ConnectionPage, State,
    answer::{self, Refusal},
    extract::{Query, Segment},
    schema::{AddressText, Answer, PeerIdText},
};
use crate::error::Failure;

/// All established connections of the node.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename = "peers")]
pub(crate) struct PeersPage {
    pub(crate) connections: Vec<ConnectionPage>,
}

/// All established connections.
#[utoipa::path(
    get,
    path = "/v1/peers",
    operation_id = "list_peers",
    tag = "peers",
    responses((status = 200, description = "The connections, the oldest first.", body = Answer<PeersPage>)),
)]
pub(super) async fn list(state: State) -> Result<Response, Refusal> {
    let status = state.client.status().await?;
    let connections = ConnectionPage::of_all(&status, status.connections.iter());
    Ok(answer::record(&PeersPage { connections }))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ConnectQuery {
    /// Multiaddress to dial, with or without `/p2p/PEER`. `/p2p/PEER` alone means the addresses of
    /// the peer that the node knows.
    #[param(value_type = AddressText)]
    address: Multiaddr,
}

/// Dial an address.
#[utoipa::path(
    post,
    path = "/v1/peers",
    operation_id = "connect_peer",
    tag = "peers",
    params(ConnectQuery),
    responses(
        (status = 200, description = "The connection.", body = Answer<ConnectionPage>),
        (status = 400, description = "The address is missing or malformed.", body = Answer<Failure>),
        (status = 409, description = "The peer or the address may not be dialled.", body = Answer<Failure>),
        (status = 424, description = "The peer could not be reached.", body = Answer<Failure>),
    ),
)]
pub(super) async fn connect(
    state: State,
    Query(query): Query<ConnectQuery>,
) -> Result<Response, Refusal> {
    if query.address.is_empty() {
        let message = "address: an empty multiaddress cannot be dialled".to_owned();
        return Err(Refusal::of_parameter("address", message));
    }
    let parts: Vec<_> = query.address.iter().collect();
    let connection = match parts[..] {
        [Protocol::P2p(peer)] => state.client.dial_peer(peer, []).await?,
        _ => state.client.dial(query.address).await?,
    };
    Ok(answer::record(&ConnectionPage::of(&connection)))
}

/// What was done with a peer.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
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

/// Close the connections of a peer.
#[utoipa::path(
    delete,
    path = "/v1/peers/{peer}",
    operation_id = "disconnect_peer",
    tag = "peers",
    params(("peer" = PeerIdText, Path, description = "Id of the peer.")),
    responses(
        (status = 200, description = "`disconnecting`.", body = Answer<PeerChange>),
        (status = 400, description = "The peer id is malformed.", body = Answer<Failure>),
    ),
)]
pub(super) async fn disconnect(
    state: State,
    Segment(peer): Segment<PeerId>,
) -> Result<Response, Refusal> {
    let was_connected = state.client.disconnect(peer).await?;
    Ok(answer::record(&PeerChange::Disconnecting {
        peer: peer.to_base58(),
        was_connected,
    }))
}

/// Close the connections of a peer and refuse new ones, until it is unblocked or the node ends.
#[utoipa::path(
    post,
    path = "/v1/peers/{peer}/block",
    operation_id = "block_peer",
    tag = "peers",
    params(("peer" = PeerIdText, Path, description = "Id of the peer.")),
    responses(
        (status = 200, description = "`blocked`.", body = Answer<PeerChange>),
        (status = 400, description = "The peer id is malformed.", body = Answer<Failure>),
    ),
)]
pub(super) async fn block(
    state: State,
    Segment(peer): Segment<PeerId>,
) -> Result<Response, Refusal> {
    state.client.block(peer).await?;
    let peer = peer.to_base58();
    Ok(answer::record(&PeerChange::Blocked { peer }))
}

/// Accept connections with a blocked peer again.
#[utoipa::path(
    delete,
    path = "/v1/peers/{peer}/block",
    operation_id = "unblock_peer",
    tag = "peers",
    params(("peer" = PeerIdText, Path, description = "Id of the peer.")),
    responses(
        (status = 200, description = "`unblocked`.", body = Answer<PeerChange>),
        (status = 400, description = "The peer id is malformed.", body = Answer<Failure>),
    ),
)]
pub(super) async fn unblock(
    state: State,
    Segment(peer): Segment<PeerId>,
) -> Result<Response, Refusal> {
    state.client.unblock(peer).await?;
    let peer = peer.to_base58();
    Ok(answer::record(&PeerChange::Unblocked { peer }))
}
