//! Who knocks.

use std::{io, path::Path};

use serde::Deserialize as _;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::{End, Request};
use crate::error::CommandError;

/// A connection to a node that runs, for one request.
#[derive(Debug)]
pub(crate) struct Client {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Client {
    /// The node whose door is at `path`, if one is there.
    pub(crate) async fn knock(path: &Path) -> Option<Self> {
        let (reader, writer) = UnixStream::connect(path).await.ok()?.into_split();
        let reader = BufReader::new(reader);
        Some(Self { reader, writer })
    }

    /// Asks, and gives each line of the answer to `each`.
    pub(crate) async fn ask(
        mut self,
        request: &Request,
        mut each: impl FnMut(Value),
    ) -> Result<(), CommandError> {
        self.send(request).await?;
        while let Some(line) = self.next().await? {
            each(line);
        }
        Ok(())
    }

    pub(crate) async fn send(&mut self, request: &Request) -> Result<(), CommandError> {
        let line = serde_json::to_vec(request)
            .map_err(io::Error::from)
            .map_err(lost)?;
        self.send_message(&line).await
    }

    /// A line of what belongs to the request.
    pub(crate) async fn send_message(&mut self, line: &[u8]) -> Result<(), CommandError> {
        self.writer.write_all(line).await.map_err(lost)?;
        self.writer.write_all(b"\n").await.map_err(lost)
    }

    /// The next line of the answer; nothing after the last one.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>, CommandError> {
        read(&mut self.reader).await
    }
}

async fn read(reader: &mut BufReader<OwnedReadHalf>) -> Result<Option<Value>, CommandError> {
    let mut line = String::new();
    if reader.read_line(&mut line).await.map_err(lost)? == 0 {
        return Err(lost(io::ErrorKind::UnexpectedEof.into()));
    }
    let line: Value = serde_json::from_str(&line)
        .map_err(io::Error::from)
        .map_err(lost)?;
    match End::deserialize(&line) {
        Ok(End::Done {}) => Ok(None),
        Ok(End::Failed { error }) => Err(CommandError::Node { error }),
        Err(_) => Ok(Some(line)),
    }
}

fn lost(source: io::Error) -> CommandError {
    CommandError::Io {
        what: "the node went away",
        source,
    }
}
