//! Blob commands by a running node.

use std::{io::Read as _, io::Write as _, path::Path};

use bytes::Bytes;
use calimero_network::{
    BlobId, ContextId,
    blob::{BlobHasher, store::StoreError},
};
use futures::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{Method, body::Frame};

use super::{Checks, Lines, Source, Target, blocking, lines::Line};
use crate::{
    api::{Client, ConnectionPage, Query, StorePage, Wait, in_time},
    cli::{BlobCommand, GetArgs},
    error::{Chain, Code, CommandError},
    output::Output,
};

/// Bytes of a file that are read and sent at one time.
const PIECE_BYTES: usize = 256 << 10;

pub(super) async fn execute(
    node: &Client,
    command: BlobCommand,
    target: Option<Target>,
    output: Output,
    lines: Lines,
) -> Result<(), CommandError> {
    match command {
        BlobCommand::Add { files, context } => {
            for file in files {
                lines.send(add(node, &file, context).await?).await?;
            }
            Ok(())
        }
        BlobCommand::Get(get) => fetch(node, get, target, output, lines).await,
        BlobCommand::Ls => {
            let page: StorePage = node.get("/v1/blobs").await?;
            for line in page.lines() {
                lines.send(line).await?;
            }
            Ok(())
        }
        BlobCommand::Rm { ids } => {
            for id in ids {
                let target = format!("/v1/blobs/{id}");
                let line = node
                    .request(Method::DELETE, &target, Bytes::new(), Wait::WhileAlive)
                    .await?;
                lines.send(line).await?;
            }
            Ok(())
        }
        BlobCommand::Verify { ids, repair } => {
            let ids = match ids.is_empty() {
                true => {
                    let page: StorePage = node.get("/v1/blobs").await?;
                    page.blobs.into_iter().map(|(id, _)| id).collect()
                }
                false => ids.iter().map(BlobId::to_string).collect::<Vec<_>>(),
            };
            let mut checks = Checks::default();
            for id in ids {
                let target = Query::to(&format!("/v1/blobs/{id}/verify"))
                    .with("repair", &repair)
                    .build();
                let line = match node
                    .request(Method::POST, &target, Bytes::new(), Wait::WhileAlive)
                    .await
                {
                    Err(CommandError::Node {
                        code: Code::NotFound,
                        message: error,
                    }) => checks.count_absent(id, error),
                    line => checks.count(line?),
                };
                lines.send(line).await?;
            }
            checks.result()
        }
    }
}

/// Sends a file to the node, which stores and announces it.
async fn add(node: &Client, file: &Path, context: ContextId) -> Result<Line, CommandError> {
    let path = file.to_owned();
    let source = blocking(move || Source::open(&path)).await?;
    let size_bytes = source.size_bytes();
    let target = Query::to("/v1/blobs").with("context", &context).build();
    let pieces = stream::unfold(Some((source, 0)), |reading| async move {
        let (source, read_bytes) = reading?;
        let read = blocking(move || read_piece(source, read_bytes)).await;
        match read {
            Ok((_, _, piece)) if piece.is_empty() => None,
            Ok((source, read_bytes, piece)) => {
                Some((Ok(Frame::data(piece)), Some((source, read_bytes))))
            }
            // Ends the request before its end, so the node stores nothing.
            Err(error) => Some((Err(error), None)),
        }
    });
    let body = StreamBody::new(pieces.boxed());
    let answer = match size_bytes {
        Some(size_bytes) => {
            node.send(
                Method::POST,
                &target,
                Sized { body, size_bytes },
                Wait::WhileAlive,
            )
            .await?
        }
        None => {
            node.send(Method::POST, &target, body, Wait::WhileAlive)
                .await?
        }
    };
    match node.record(answer).await? {
        Line::Added { id, size_bytes, .. } => Ok(Line::Added {
            id,
            size_bytes,
            file: Some(file.display().to_string()),
        }),
        other => Ok(other),
    }
}

fn read_piece(mut source: Source, read_bytes: u64) -> Result<(Source, u64, Bytes), CommandError> {
    let mut piece = vec![0; PIECE_BYTES];
    let len = loop {
        match source.read(&mut piece) {
            Ok(len) => break len,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(source.failed("read", error)),
        }
    };
    let read_bytes = read_bytes + len as u64;
    if len == 0 {
        source.check_size(read_bytes)?;
    }
    piece.truncate(len);
    Ok((source, read_bytes, piece.into()))
}

/// A body whose size the node learns before its content.
struct Sized<B> {
    body: B,
    size_bytes: u64,
}

impl<B: hyper::body::Body + Unpin> hyper::body::Body for Sized<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(cx)
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        hyper::body::SizeHint::with_exact(self.size_bytes)
    }
}

/// Lets the node fetch a blob into its store, and copies it from there to the target.
async fn fetch(
    node: &Client,
    get: GetArgs,
    target: Option<Target>,
    output: Output,
    lines: Lines,
) -> Result<(), CommandError> {
    if get.local {
        return Err(CommandError::Usage(
            "--local has no effect on the node that runs on the data folder: set \
             discovery.local_network in its configuration"
                .to_owned(),
        ));
    }
    // Boot nodes lead to providers and are none. One that is not reached is not needed.
    let boot = get.boot.iter().map(|address| async move {
        let target = Query::to("/v1/peers").with("address", address).build();
        let connected: Result<ConnectionPage, _> = node
            .request(Method::POST, &target, Bytes::new(), Wait::WhileAlive)
            .await;
        if let Err(error) = connected {
            tracing::warn!(%address, error = %Chain(&error), "cannot connect to a boot node");
        }
    });
    futures::future::join_all(boot).await;
    let id = get.id;
    let mut query = Query::to(&format!("/v1/blobs/{id}/fetch")).with("context", &get.context);
    for address in &get.dial {
        query = query.with("dial", address);
    }
    let mut events = node.events(Method::POST, &query.build()).await?;
    let mut fetched = None;
    while let Some(line) = events.next().await? {
        match line {
            line @ Line::Fetched { .. } => fetched = Some(line),
            line => lines.send(line).await?,
        }
    }
    let Some(fetched) = fetched else {
        return Err(CommandError::Io {
            what: "the node ended the fetch",
            source: std::io::ErrorKind::UnexpectedEof.into(),
        });
    };
    match target {
        None => {}
        Some(Target::Stdout) => {
            copy(node, id, |piece| output.write_bytes(piece.to_vec())).await?;
        }
        Some(Target::File(target)) => {
            let mut temporary = target.temporary()?;
            let file = temporary.as_file_mut();
            copy(node, id, |piece| {
                file.write_all(piece)
                    .map_err(|source| target.failed(source))
            })
            .await?;
            file.sync_all().map_err(|source| target.failed(source))?;
            let persisted = temporary.persist(target.path());
            persisted.map_err(|error| target.failed(error.error))?;
            target.restore_permissions()?;
        }
    }
    lines.send(fetched).await
}

/// Reads a blob from the store of the node, and verifies it.
async fn copy(
    node: &Client,
    id: BlobId,
    mut each: impl FnMut(&[u8]) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let target = format!("/v1/blobs/{id}");
    let empty = http_body_util::Empty::<Bytes>::new();
    let mut answer = node
        .send(Method::GET, &target, empty, Wait::WhileAlive)
        .await?;
    let mut hasher = BlobHasher::new();
    while let Some(frame) = in_time(answer.response.body_mut().frame()).await? {
        let frame = frame.map_err(|error| CommandError::Io {
            what: "cannot read the blob from the node",
            source: std::io::Error::other(error),
        })?;
        if let Some(piece) = frame.data_ref() {
            hasher.update(piece).map_err(StoreError::TooLarge)?;
            each(piece)?;
        }
    }
    let actual = hasher.finish().list.id();
    match actual == id {
        true => Ok(()),
        false => Err(StoreError::Mismatch {
            expected: id,
            actual,
        }
        .into()),
    }
}
