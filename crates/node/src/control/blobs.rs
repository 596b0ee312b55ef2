//! Blobs of the data folder.

use bytes::Bytes;
use calimero_network::{BlobId, ContextId, blob::store::StoreError};
use futures::{StreamExt as _, stream};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{
    answer::{self, Answer},
    server::Served,
    target::{Parameters, parse},
};
use crate::{
    blob::{
        Added, Lines, Running, Wanted, blocking,
        lines::{Line, Usage},
        local,
    },
    error::{CommandError, Failure},
    output::json_line,
};

/// Pieces of an upload that wait to be stored: 64 KiB each, as hyper reads them.
const PIECES_AHEAD: usize = 16;

/// Records of a fetch that wait for the client.
const LINES_AHEAD: usize = 16;

/// The content of a blob store.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename = "blobs")]
pub(crate) struct StorePage {
    pub(crate) blobs: Vec<(String, u64)>,
    pub(crate) partials: Vec<String>,
    pub(crate) usage: Usage,
}

fn running(served: &Served) -> Result<&Running, CommandError> {
    served.blobs.as_ref().ok_or(CommandError::NoStore)
}

fn blob_of(id: &str) -> Result<BlobId, CommandError> {
    parse("blob", id)
}

fn context_of(parameters: &Parameters) -> Result<ContextId, CommandError> {
    let named = parameters.last("context")?;
    Ok(named.unwrap_or(crate::blob::DEFAULT_CONTEXT))
}

pub(super) async fn list(served: &Served) -> Result<Answer, CommandError> {
    let store = running(served)?.store.clone();
    let page = blocking(move || Ok(local::list(&store))).await?;
    Ok(answer::record(&page))
}

/// Stores the body. A client that closes its connection before the end leaves nothing behind.
pub(super) async fn add(
    served: &Served,
    parameters: &Parameters,
    mut body: Incoming,
) -> Result<Answer, CommandError> {
    let context = context_of(parameters)?;
    let blobs = running(served)?;
    let size_bytes = body.size_hint().exact();
    let (pieces, mut received) = mpsc::channel::<Option<Bytes>>(PIECES_AHEAD);
    let store = blobs.store.clone();
    let writing = blocking(move || {
        local::check_space(&store, size_bytes)?;
        let mut writer = store.writer()?;
        loop {
            match received.blocking_recv() {
                Some(Some(piece)) => writer.write(&piece)?,
                Some(None) => break,
                // The client left. Dropping the writer removes what was written.
                None => return Err(CommandError::Interrupted),
            }
        }
        local::finish(&store, writer, context)
    });
    let reading = async move {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return };
            let Ok(piece) = frame.into_data() else {
                continue;
            };
            // A writer that has failed returns its error.
            if pieces.send(Some(piece)).await.is_err() {
                return;
            }
        }
        let _ = pieces.send(None).await;
    };
    let (added, ()) = futures::future::join(writing, reading).await;
    let added = added?;
    blobs.announcer.announce(context, added.id).await;
    let Added { id, size_bytes } = added;
    Ok(answer::record(&Line::Added {
        id: id.to_string(),
        size_bytes,
        file: None,
    }))
}

/// The content of a blob.
pub(super) async fn content(served: &Served, id: &str) -> Result<Answer, CommandError> {
    let id = blob_of(id)?;
    let store = running(served)?.store.clone();
    let reader = blocking(move || {
        let reader = store.reader(&id)?;
        Ok(reader.ok_or(StoreError::NotFound { id })?)
    })
    .await?;
    let size_bytes = reader.size_bytes();
    let chunks = calimero_network::blob::chunk_count(size_bytes);
    let content = stream::iter(0..chunks).then(move |index| {
        let reader = reader.clone();
        async move { blocking(move || Ok(reader.chunk(index)?)).await }
    });
    Ok(answer::bytes(size_bytes, content))
}

pub(super) async fn remove(served: &Served, id: &str) -> Result<Answer, CommandError> {
    let id = blob_of(id)?;
    Ok(answer::record(&running(served)?.remove(id).await?))
}

pub(super) async fn verify(served: &Served, id: &str) -> Result<Answer, CommandError> {
    let id = blob_of(id)?;
    let store = running(served)?.store.clone();
    let line = blocking(move || Ok(local::verify(&store, &id))).await?;
    Ok(answer::record(&line))
}

/// Fetches a blob into the store. The last record is `fetched` or `error`. The fetch ends when the
/// client closes the connection; verified chunks are kept.
pub(super) fn fetch(
    served: &Served,
    id: &str,
    parameters: &Parameters,
) -> Result<Answer, CommandError> {
    let wanted = Wanted {
        id: blob_of(id)?,
        context: context_of(parameters)?,
        dial: parameters.all("dial")?,
        search: true,
    };
    let blobs = running(served)?.clone();
    let (lines, received) = mpsc::channel(LINES_AHEAD);
    let work = async move {
        let end = blobs.fetch(wanted, Lines::to(lines)).await;
        end.err().map(|error| json_line(&Failure::from(&error)))
    };
    // The stream owns the work, so it ends with the stream.
    let lines = stream::unfold(received, |mut received: mpsc::Receiver<Line>| async move {
        let line = received.recv().await?;
        Some((Some(json_line(&line)), received))
    });
    let records = stream::select(lines, stream::once(work));
    let records = records.filter_map(|line| async move { line.map(Bytes::from) });
    Ok(answer::events(records))
}
