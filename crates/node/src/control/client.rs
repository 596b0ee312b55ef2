//! The client of the control interface.

use std::{io, path::Path};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Incoming},
    client::conn::http1,
    header::HOST,
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{net::UnixStream, task::JoinHandle};

use crate::error::{Code, CommandError};

/// Largest answer that is read as a whole, in bytes: the status of a node with thousands of
/// connections and overlays takes a few million.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Largest record of a stream, in bytes: a message of 1 MiB in hexadecimal, and its topic.
const MAX_RECORD_BYTES: usize = 8 << 20;

/// A running node, by the path of its control socket.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    path: std::path::PathBuf,
}

impl Client {
    /// Returns the node whose control socket is at `path`, or `None` if no node runs there.
    pub(crate) async fn connect(path: &Path) -> Result<Option<Self>, CommandError> {
        match UnixStream::connect(path).await {
            Ok(_) => Ok(Some(Self {
                path: path.to_owned(),
            })),
            // A killed node leaves its socket in the folder.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(None)
            }
            Err(source) => Err(CommandError::Control {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Returns the node whose control socket is at `path`.
    pub(crate) async fn require(path: &Path) -> Result<Self, CommandError> {
        let client = Self::connect(path).await?;
        client.ok_or_else(|| CommandError::NotRunning {
            path: path.to_owned(),
        })
    }

    /// Sends a request and reads its answer as a record.
    pub(crate) async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Result<T, CommandError> {
        let answer = self.send(method, target, Full::new(body)).await?;
        self.record(answer).await
    }

    /// Asks for a record.
    pub(crate) async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, CommandError> {
        self.request(Method::GET, target, Bytes::new()).await
    }

    /// Sends a request whose answer is a stream of records.
    pub(crate) async fn events(
        &self,
        method: Method,
        target: &str,
    ) -> Result<Events, CommandError> {
        let answer = self.send(method, target, Full::new(Bytes::new())).await?;
        Ok(Events {
            client: self.clone(),
            answer,
            read: BytesMut::new(),
        })
    }

    /// Sends a request. An answer that is a failure is the error.
    pub(crate) async fn send<B>(
        &self,
        method: Method,
        target: &str,
        body: B,
    ) -> Result<Answer, CommandError>
    where
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = UnixStream::connect(&self.path).await;
        let stream = stream.map_err(|error| self.lost(error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.lost(error))?;
        let connection = Aborted(tokio::spawn(async move {
            // The request reports the failure of its connection.
            let _ = connection.await;
        }));
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, "localhost")
            .body(body)
            .map_err(|error| CommandError::Usage(error.to_string()))?;
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| self.lost(error))?;
        let status = response.status();
        let answer = Answer {
            response,
            _connection: connection,
        };
        match status.is_success() {
            true => Ok(answer),
            false => Err(self.failure(status, answer).await),
        }
    }

    async fn bytes(&self, answer: Answer) -> Result<Bytes, CommandError> {
        let body = Limited::new(answer.response.into_body(), MAX_ANSWER_BYTES);
        let body = body.collect().await;
        let body = body.map_err(|error| self.lost(io::Error::other(error)))?;
        Ok(body.to_bytes())
    }

    pub(crate) async fn record<T: DeserializeOwned>(
        &self,
        answer: Answer,
    ) -> Result<T, CommandError> {
        let bytes = self.bytes(answer).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.lost(error))
    }

    async fn failure(&self, status: StatusCode, answer: Answer) -> CommandError {
        let bytes = match self.bytes(answer).await {
            Ok(bytes) => bytes,
            Err(error) => return error,
        };
        match serde_json::from_slice(&bytes) {
            Ok(Failed { code, message }) => CommandError::Node { code, message },
            // Refused before a handler saw it.
            Err(_) => CommandError::Node {
                code: match status {
                    StatusCode::NOT_FOUND => Code::NotFound,
                    StatusCode::PAYLOAD_TOO_LARGE => Code::Refused,
                    _ => Code::Other,
                },
                message: format!("{status}: {}", String::from_utf8_lossy(&bytes).trim_end()),
            },
        }
    }

    fn lost(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CommandError {
        CommandError::Control {
            path: self.path.clone(),
            source: io::Error::other(source),
        }
    }
}

/// The failure of a request, as the node reports it.
#[derive(Deserialize)]
struct Failed {
    code: Code,
    message: String,
}

/// A connection that is closed when dropped, which ends its request.
#[derive(Debug)]
struct Aborted(JoinHandle<()>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer with its connection.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    _connection: Aborted,
}

/// A stream of records.
#[derive(Debug)]
pub(crate) struct Events {
    client: Client,
    answer: Answer,
    read: BytesMut,
}

impl Events {
    /// The next record, or `None` after the last one. A record of a failure is the error.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, CommandError> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(end + 1);
                let Some(data) = line.strip_prefix(b"data:") else {
                    // A comment that keeps the connection alive, or the end of an event.
                    continue;
                };
                return match serde_json::from_slice(data) {
                    Ok(Failed { code, message }) => Err(CommandError::Node { code, message }),
                    Err(_) => serde_json::from_slice(data)
                        .map(Some)
                        .map_err(|error| self.client.lost(error)),
                };
            }
            if self.read.len() > MAX_RECORD_BYTES {
                return Err(self.client.lost("a record is too long"));
            }
            let frame = self.answer.response.body_mut().frame().await;
            let Some(frame) = frame else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| self.client.lost(error))?;
            if let Some(data) = frame.data_ref() {
                self.read.extend_from_slice(data);
            }
        }
    }
}
