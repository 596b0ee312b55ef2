//! Blobs of the data folder.

use std::pin::pin;

use axum::{
    Extension,
    body::{Body, BodyDataStream, Bytes},
    http::{HeaderMap, HeaderValue, header::CONTENT_LENGTH},
    response::Response,
};
use calimero_network::{BlobId, ContextId, Multiaddr, blob::store::StoreError};
use futures::{Stream, StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use utoipa::{IntoParams, ToSchema};

use super::{
    Served, State,
    access::BodyPause,
    answer::{self, Refusal},
    extract::{Query, Segment},
    json_text,
    schema::{AddressText, Answer, BlobIdText, Content, ContextIdText, StreamEvent},
};
use crate::{
    blob::{
        Added, DEFAULT_CONTEXT, Lines, Running, Wanted, blocking,
        lines::{Line, Usage},
        local,
    },
    error::{CommandError, Failure},
};

/// Pieces of an upload that wait to be stored, of 64 KiB at most.
const PIECES_AHEAD: usize = 16;

/// Records of a fetch that wait for the client.
const LINES_AHEAD: usize = 16;

/// The type of content.
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// The content of a blob store.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename = "blobs")]
pub(crate) struct StorePage {
    /// Id and size in bytes of each blob.
    pub(crate) blobs: Vec<(String, u64)>,
    /// Ids of downloads that are not complete.
    pub(crate) partials: Vec<String>,
    pub(crate) usage: Usage,
}

pub(super) fn running(served: &Served) -> Result<&Running, CommandError> {
    served.blobs.as_ref().ok_or(CommandError::NoStore)
}

/// The next part of a body, or `None` after the last one. Fails after a pause that is too long, and
/// if the client closed its connection.
pub(super) async fn next_piece(
    pieces: &mut BodyDataStream,
    BodyPause(pause): BodyPause,
) -> Result<Option<Bytes>, CommandError> {
    match timeout(pause, pieces.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(piece))) => Ok(Some(piece)),
        Ok(Some(Err(_))) => Err(CommandError::ClientLeft),
        Err(_) => Err(CommandError::BodyPaused { after: pause }),
    }
}

/// A whole body of at most `limit` bytes. `None` if it is longer.
pub(super) async fn whole(
    body: Body,
    pause: BodyPause,
    limit: usize,
) -> Result<Option<Vec<u8>>, CommandError> {
    let mut pieces = body.into_data_stream();
    let mut whole = Vec::new();
    while let Some(piece) = next_piece(&mut pieces, pause).await? {
        if whole.len() + piece.len() > limit {
            return Ok(None);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(Some(whole))
}

/// The blobs, the partial downloads and the space in use.
#[utoipa::path(
    get,
    path = "/v1/blobs",
    operation_id = "list_blobs",
    tag = "blobs",
    responses(
        (status = 200, description = "The content of the store.", body = Answer<StorePage>),
        (status = 409, description = "The node has no store.", body = Answer<Failure>),
    ),
)]
pub(super) async fn list(state: State) -> Result<Response, Refusal> {
    let store = running(&state)?.store.clone();
    let page = blocking(move || Ok(local::list(&store))).await?;
    Ok(answer::record(&page))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AddQuery {
    /// Context in which the blob is offered, in base58. By default 32 zero bytes.
    #[param(value_type = Option<ContextIdText>)]
    context: Option<ContextId>,
}

/// Store the body as a blob and announce it.
///
/// The body is stored as it arrives. If the client closes the connection before the end, nothing
/// is kept. With `Content-Length`, a body that does not fit is refused before it is sent.
#[utoipa::path(
    post,
    path = "/v1/blobs",
    operation_id = "add_blob",
    tag = "blobs",
    params(AddQuery),
    request_body(
        content = Content,
        description = "The content.",
        content_type = "application/octet-stream",
    ),
    responses(
        (status = 200, description = "The blob is stored: `added`.", body = Answer<Line>),
        (status = 400, description = "A parameter is malformed.", body = Answer<Failure>),
        (status = 408, description = "The body did not arrive.", body = Answer<Failure>),
        (status = 409, description = "The node has no store.", body = Answer<Failure>),
        (status = 413, description = "The content is larger than a blob or the store.", body = Answer<Failure>),
        (status = 507, description = "The store or the disk is full.", body = Answer<Failure>),
    ),
)]
pub(super) async fn add(
    state: State,
    Query(query): Query<AddQuery>,
    Extension(pause): Extension<BodyPause>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let context = query.context.unwrap_or(DEFAULT_CONTEXT);
    let blobs = running(&state)?;
    let size_bytes = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    let store = blobs.store.clone();
    // Before the body is read, so that a client that waits for `100 Continue` sends nothing.
    blocking(move || Ok(local::check_space(&store, size_bytes)?)).await?;
    let (pieces, received) = mpsc::channel(PIECES_AHEAD);
    let (store, announcer) = (blobs.store.clone(), blobs.announcer.clone());
    // A task of its own: this future is dropped if the client leaves after the end of the body, and
    // a body that has arrived is stored and announced.
    let storing = tokio::spawn(async move {
        let mut writing = pin!(blocking(move || write(&store, received, context)));
        let reading = pin!(forward(body.into_data_stream(), pieces, pause));
        let added = tokio::select! {
            added = &mut writing => added,
            read = reading => {
                let added = writing.await;
                // The writer ends because the body did not arrive.
                read?;
                added
            }
        }?;
        let _ = announcer.announce(context, added.id).await;
        Ok(added)
    });
    let stored: Result<Added, CommandError> = storing.await.map_err(CommandError::Task)?;
    let Added { id, size_bytes } = stored?;
    Ok(answer::record(&Line::Added {
        id: id.to_string(),
        size_bytes,
        file: None,
    }))
}

/// Stores the pieces of a body. `None` is its end; without it nothing is kept.
fn write(
    store: &calimero_network::blob::store::FsBlobStore,
    mut pieces: mpsc::Receiver<Option<Bytes>>,
    context: ContextId,
) -> Result<Added, CommandError> {
    let mut writer = store.writer()?;
    loop {
        match pieces.blocking_recv() {
            Some(Some(piece)) => writer.write(&piece)?,
            Some(None) => return local::finish(store, writer, |id| local::tag(context, id)),
            // Dropping the writer removes what was written.
            None => return Err(CommandError::ClientLeft),
        }
    }
}

/// Passes a body on to the writer, which takes pieces as fast as the disk.
async fn forward(
    mut body: BodyDataStream,
    pieces: mpsc::Sender<Option<Bytes>>,
    pause: BodyPause,
) -> Result<(), CommandError> {
    loop {
        let piece = next_piece(&mut body, pause).await?;
        let is_end = piece.is_none();
        // A writer that has failed returns its error.
        if pieces.send(piece).await.is_err() || is_end {
            return Ok(());
        }
    }
}

/// The content of a blob.
///
/// Each chunk is verified before it is sent. A chunk that is damaged closes the connection; if it is
/// the first one, the answer is 422.
#[utoipa::path(
    get,
    path = "/v1/blobs/{id}",
    operation_id = "read_blob",
    tag = "blobs",
    params(("id" = BlobIdText, Path, description = "Id of the blob.")),
    responses(
        (
            status = 200,
            description = "The content.",
            body = Content,
            content_type = "application/octet-stream",
        ),
        (status = 400, description = "The id is malformed.", body = Answer<Failure>),
        (status = 404, description = "The blob is not in the store.", body = Answer<Failure>),
        (status = 409, description = "The node has no store.", body = Answer<Failure>),
        (status = 422, description = "The blob is damaged.", body = Answer<Failure>),
    ),
)]
pub(super) async fn content(
    state: State,
    Segment(id): Segment<BlobId>,
) -> Result<Response, Refusal> {
    let store = running(&state)?.store.clone();
    let (reader, list) = blocking(move || {
        let reader = store.reader(&id)?.ok_or(StoreError::NotFound { id })?;
        let list = reader.list()?;
        Ok((reader, list))
    })
    .await?;
    let size_bytes = reader.size_bytes();
    let chunks = list.len();
    let read = move |index: usize| {
        let (reader, list) = (reader.clone(), list.clone());
        blocking(move || {
            let chunk = reader.chunk(index as u64)?;
            list.verify(index, &chunk).map_err(StoreError::from)?;
            Ok(chunk)
        })
    };
    // Damage of the first chunk has an answer of its own.
    let first = match chunks {
        0 => None,
        _ => Some(read(0).await?),
    };
    // A chunk is read once the client has taken the one before.
    let others = stream::iter(1..chunks).then(move |index| {
        let chunk = read(index);
        async move {
            let chunk = chunk.await;
            if chunk.is_err() {
                // An error ends the connection at once. What was verified is written before.
                tokio::task::yield_now().await;
            }
            chunk
        }
    });
    let content = stream::iter(first.map(Ok)).chain(others);
    let mut response = answer::of_type(BYTES, Body::from_stream(content));
    let length = HeaderValue::from(size_bytes);
    response.headers_mut().insert(CONTENT_LENGTH, length);
    Ok(response)
}

/// Withdraw a blob and remove it, with its partial download.
#[utoipa::path(
    delete,
    path = "/v1/blobs/{id}",
    operation_id = "remove_blob",
    tag = "blobs",
    params(("id" = BlobIdText, Path, description = "Id of the blob.")),
    responses(
        (
            status = 200,
            description = "The blob is not in the store any more: `removed`.",
            body = Answer<Line>,
        ),
        (status = 400, description = "The id is malformed.", body = Answer<Failure>),
        (status = 409, description = "The node has no store.", body = Answer<Failure>),
    ),
)]
pub(super) async fn remove(
    state: State,
    Segment(id): Segment<BlobId>,
) -> Result<Response, Refusal> {
    Ok(answer::record(&running(&state)?.remove(id).await?))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct VerifyQuery {
    /// Withdraw the blob if it is damaged: it is no longer listed, served and announced, and the next
    /// fetch or put stores it again. Intact chunks are kept.
    #[serde(default)]
    #[param(required = false)]
    repair: bool,
}

/// Read a blob and compare it with its id.
#[utoipa::path(
    post,
    path = "/v1/blobs/{id}/verify",
    operation_id = "verify_blob",
    tag = "blobs",
    params(("id" = BlobIdText, Path, description = "Id of the blob."), VerifyQuery),
    responses(
        (status = 200, description = "`verified` or `damaged`.", body = Answer<Line>),
        (status = 400, description = "The id or a parameter is malformed.", body = Answer<Failure>),
        (status = 404, description = "The blob is not in the store.", body = Answer<Failure>),
        (status = 409, description = "The node has no store.", body = Answer<Failure>),
    ),
)]
pub(super) async fn verify(
    state: State,
    Segment(id): Segment<BlobId>,
    Query(query): Query<VerifyQuery>,
) -> Result<Response, Refusal> {
    let line = running(&state)?.verify(id, query.repair).await?;
    Ok(answer::record(&line))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FetchQuery {
    /// Context in which the blob is offered, in base58. By default 32 zero bytes.
    #[param(value_type = Option<ContextIdText>)]
    context: Option<ContextId>,
    /// Multiaddress of a provider to dial. May be repeated.
    #[serde(default)]
    #[param(value_type = Option<Vec<AddressText>>)]
    dial: Vec<Multiaddr>,
}

/// Fetch a blob into the store and announce it.
///
/// The fetch ends when the client closes the connection. Verified chunks are kept and reused by the
/// next attempt. A failure after the start of the stream is its last record, `error`.
#[utoipa::path(
    post,
    path = "/v1/blobs/{id}/fetch",
    operation_id = "fetch_blob",
    tag = "blobs",
    params(("id" = BlobIdText, Path, description = "Id of the blob."), FetchQuery),
    responses(
        (
            status = 200,
            description = "A stream of `progress`, ended by `fetched` or `error`.",
            body = StreamEvent,
            content_type = "text/event-stream",
        ),
        (status = 400, description = "The id or a parameter is malformed.", body = Answer<Failure>),
        (status = 409, description = "The node has no store.", body = Answer<Failure>),
        (status = 429, description = "Too many streams are open.", body = Answer<Failure>),
    ),
)]
pub(super) async fn fetch(
    state: State,
    Segment(id): Segment<BlobId>,
    Query(query): Query<FetchQuery>,
) -> Result<Response, Refusal> {
    let wanted = Wanted {
        id,
        context: query.context.unwrap_or(DEFAULT_CONTEXT),
        dial: query.dial,
        search: true,
    };
    let blobs = running(&state)?.clone();
    transfer(
        &state,
        |lines| async move { blobs.fetch(wanted, lines).await },
    )
}

/// The records of a transfer as a stream, which owns the transfer. A failure is the last record.
pub(super) fn transfer<F>(
    served: &Served,
    work: impl FnOnce(Lines) -> F,
) -> Result<Response, Refusal>
where
    F: Future<Output = Result<(), CommandError>> + Send + 'static,
{
    let (lines, received) = mpsc::channel(LINES_AHEAD);
    answer::events(served, records(work(Lines::to(lines)), received))
}

/// The records that `work` sends, and its failure, as JSON.
fn records(
    work: impl Future<Output = Result<(), CommandError>>,
    received: mpsc::Receiver<Line>,
) -> impl Stream<Item = String> {
    let (failed, failure) = oneshot::channel();
    let work = async move {
        if let Err(error) = work.await {
            let _ = failed.send(json_text(&Failure::from(&error)));
        }
        None
    };
    let lines = stream::unfold(received, |mut received: mpsc::Receiver<Line>| async move {
        let line = received.recv().await?;
        Some((Some(json_text(&line)), received))
    });
    // The records that were sent before a failure come before it.
    let failure = stream::once(async { failure.await.ok() });
    let records = stream::select(lines, stream::once(work)).chain(failure);
    records.filter_map(std::future::ready)
}

#[cfg(test)]
mod tests;
