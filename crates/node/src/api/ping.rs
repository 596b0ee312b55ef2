//! A ping of a peer, over the connection that the node would use for a stream.

use std::{fmt, time::Duration};

use axum::response::Response;
use calimero_network::{Path, PeerId, Status};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use utoipa::ToSchema;

use super::{
    State,
    answer::{self, Refusal},
    extract::Segment,
    schema::{Answer, PeerIdText},
};
use crate::{
    error::{CommandError, Failure},
    perf::ping::Pinger,
    text::{Stack, millis},
};

/// Time for a dial, if one is needed, and for the ping.
const TIME: Duration = Duration::from_secs(30);

/// A ping that a peer answered.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename = "pong")]
pub(crate) struct Pong {
    pub(crate) peer: String,
    /// The address of the best connection after the ping.
    pub(crate) address: String,
    #[serde(flatten)]
    pub(crate) stack: Stack,
    /// From the request to its answer. The negotiation of the stream is part of it.
    pub(crate) round_trip_ms: f64,
}

impl Pong {
    fn of(status: &Status, peer: PeerId, time: Duration) -> Option<Self> {
        let of_peer = status.connections.iter().filter(|one| one.peer == peer);
        let best = of_peer.min_by_key(|one| !matches!(one.path, Path::Direct))?;
        Some(Self {
            peer: peer.to_base58(),
            address: best.address.to_string(),
            stack: Stack::of(best),
            round_trip_ms: millis(time),
        })
    }
}

impl fmt::Display for Pong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            stack,
            round_trip_ms,
            ..
        } = self;
        write!(f, "pong {round_trip_ms:.1} ms at {address} ({stack})")
    }
}

/// Ping a peer, which is dialled if an address of it is known.
#[utoipa::path(
    post,
    path = "/v1/peers/{peer}/ping",
    operation_id = "ping_peer",
    tag = "peers",
    params(("peer" = PeerIdText, Path, description = "Id of the peer.")),
    responses(
        (status = 200, description = "The peer answered: `pong`.", body = Answer<Pong>),
        (status = 400, description = "The peer id is malformed.", body = Answer<Failure>),
        (status = 404, description = "The peer does not serve pings.", body = Answer<Failure>),
        (status = 409, description = "The peer may not be dialled.", body = Answer<Failure>),
        (status = 424, description = "The peer could not be reached or did not answer.", body = Answer<Failure>),
    ),
)]
pub(super) async fn ping(
    state: State,
    Segment(peer): Segment<PeerId>,
) -> Result<Response, Refusal> {
    let client = &state.client;
    if peer == client.peer_id() {
        let message = "peer: this is the node itself".to_owned();
        return Err(Refusal::of_parameter("peer", message));
    }
    let pinging = async {
        // As `connect` does, so that the failure of a dial has the same code and text.
        client.dial_peer(peer, []).await?;
        Pinger::once(client, peer).await
    };
    let pinging = timeout(TIME, pinging).await;
    let (what, after) = ("the ping", TIME);
    let time = pinging.map_err(|_| CommandError::Deadline { what, after })??;
    let pong = Pong::of(&client.status().await?, peer, time);
    // The connection closed after the answer.
    let pong = pong.ok_or(CommandError::NoConnection { peer })?;
    Ok(answer::record(&pong))
}
