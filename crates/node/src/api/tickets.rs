//! Tickets: one for a blob of the store, and the blob of a ticket.

use axum::{Extension, body::Body, response::Response};
use calimero_network::{
    BlobId,
    blob::ticket::{Kind, MAX_TICKET_CHARS, Ticket},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    State,
    access::BodyPause,
    answer::{self, Refusal},
    blobs::{running, transfer, whole},
    extract::{Query, Segment},
    schema::{Answer, BlobIdText, StreamEvent, TicketText},
};
use crate::error::{CommandError, Failure};

/// A ticket for a blob of the store.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "event", rename = "ticket")]
pub(super) struct TicketPage {
    #[schema(value_type = TicketText)]
    ticket: String,
    /// Id of the blob.
    id: String,
    /// Always `blob`.
    kind: String,
    size_bytes: u64,
    /// Always 1.
    files: usize,
    /// Peer id of this node.
    peer: String,
    /// Addresses in the ticket.
    addresses: Vec<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TicketQuery {
    /// Name of the file in the ticket: one component of a path that does not begin with a dot.
    name: Option<String>,
}

/// Make a ticket for a blob.
///
/// It has the addresses under which the node is reachable now, and no secret: the node serves the
/// blob to any peer that knows its id.
#[utoipa::path(
    get,
    path = "/v1/blobs/{id}/ticket",
    operation_id = "make_ticket",
    tag = "blobs",
    params(("id" = BlobIdText, Path, description = "Id of the blob."), TicketQuery),
    responses(
        (status = 200, description = "The ticket.", body = Answer<TicketPage>),
        (status = 400, description = "The id or the name is malformed.", body = Answer<Failure>),
        (status = 404, description = "The blob is not in the store.", body = Answer<Failure>),
        (status = 409, description = "The node has no store.", body = Answer<Failure>),
    ),
)]
pub(super) async fn make(
    state: State,
    Segment(id): Segment<BlobId>,
    Query(query): Query<TicketQuery>,
) -> Result<Response, Refusal> {
    let mut ticket = running(&state)?.ticket(id).await?;
    if let Some(name) = query.name {
        let named = ticket.with_name(&name);
        ticket = named.map_err(|error| Refusal::of_parameter("name", format!("name: {error}")))?;
    }
    Ok(answer::record(&TicketPage {
        ticket: ticket.to_string(),
        id: id.to_string(),
        kind: "blob".to_owned(),
        size_bytes: ticket.size_bytes().unwrap_or_default(),
        files: 1,
        peer: ticket.peer().to_base58(),
        addresses: ticket.addresses().iter().map(ToString::to_string).collect(),
    }))
}

/// Fetch the blob of a ticket into the store.
///
/// The ticket is the body, because a ticket can hold a secret, and targets of requests are written
/// to logs of proxies. The blob is announced unless the ticket has a secret. The node then serves it
/// to any peer that knows its id. The fetch ends when the client closes the connection.
#[utoipa::path(
    post,
    path = "/v1/tickets/fetch",
    operation_id = "fetch_ticket",
    tag = "blobs",
    request_body(
        content = TicketText,
        description = "The ticket of a file. Tickets of folders are refused.",
        content_type = "text/plain",
    ),
    responses(
        (
            status = 200,
            description = "A stream of `progress`, ended by `fetched` or `error`.",
            body = StreamEvent,
            content_type = "text/event-stream",
        ),
        (status = 400, description = "The ticket is malformed.", body = Answer<Failure>),
        (status = 408, description = "The body did not arrive.", body = Answer<Failure>),
        (status = 409, description = "The node has no store, or the ticket names a folder.", body = Answer<Failure>),
        (status = 429, description = "Too many streams are open.", body = Answer<Failure>),
    ),
)]
pub(super) async fn fetch(
    state: State,
    Extension(pause): Extension<BodyPause>,
    body: Body,
) -> Result<Response, Refusal> {
    let blobs = running(&state)?.clone();
    let malformed = |why: String| Refusal::of_parameter("body", format!("body: {why}"));
    let text = whole(body, pause, MAX_TICKET_CHARS).await?;
    let text = text.ok_or_else(|| {
        malformed(format!(
            "a ticket has at most {MAX_TICKET_CHARS} characters"
        ))
    })?;
    let text = std::str::from_utf8(&text).map_err(|error| malformed(error.to_string()))?;
    let ticket = text
        .trim()
        .parse::<Ticket>()
        .map_err(|error| malformed(format!("{error}")))?;
    if ticket.kind() == Kind::Collection {
        return Err(CommandError::FolderTicket.into());
    }
    transfer(&state, |lines| async move {
        blobs.fetch_ticket(ticket, lines).await
    })
}
