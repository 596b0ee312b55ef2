//! The client of the API.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

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
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
};

use super::socket_path::SocketPath;
use crate::error::{Code, CommandError, within};

/// Largest answer that is read as a whole, in bytes: the status of a node with thousands of
/// connections and overlays takes a few million.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Largest record of a stream, in bytes: a message of 1 MiB in hexadecimal, and its topic.
const MAX_RECORD_BYTES: usize = 8 << 20;

/// Time in which a node answers a request that is no work for it, 10 s as load balancers use.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Time between two checks that a node answers, while it works on a long request.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Longest pause between two parts of an answer: a stream without records has a comment every 15 s.
const PART_TIMEOUT: Duration = Duration::from_secs(45);

/// What did not arrive in time.
const ANSWER: &str = "the node's answer";

/// How long a command waits for the head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// [`ANSWER_TIMEOUT`]: the request is no work for the node.
    Short,
    /// As long as the node answers other requests: it dials, reads a disk or takes an upload.
    WhileAlive,
}

/// A request target with parameters.
#[derive(Debug)]
pub(crate) struct Query {
    path: String,
    parameters: Vec<(&'static str, String)>,
}

impl Query {
    /// The target `path` without parameters, which needs no encoding.
    pub(crate) fn to(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            parameters: Vec::new(),
        }
    }

    /// Adds a parameter.
    pub(crate) fn with(mut self, key: &'static str, value: &impl ToString) -> Self {
        self.parameters.push((key, value.to_string()));
        self
    }

    /// Returns the encoded target.
    pub(crate) fn build(self) -> String {
        // Pairs of text, so this does not fail.
        let query = serde_html_form::to_string(&self.parameters).unwrap_or_default();
        match query.is_empty() {
            true => self.path,
            false => format!("{}?{query}", self.path),
        }
    }
}

/// A running node, by its Unix socket or its HTTP address.
#[derive(Clone, Debug)]
pub(crate) enum Client {
    Unix(PathBuf),
    Http(SocketAddr),
}

/// Whether the data folder with this socket is a folder.
fn has_data_folder(socket: &Path) -> bool {
    let data = socket.parent().and_then(Path::parent);
    data.is_some_and(Path::is_dir)
}

async fn connect(path: &Path) -> io::Result<UnixStream> {
    let path = SocketPath::of(path)?;
    UnixStream::connect(&path).await
}

impl Client {
    /// Returns the node whose Unix socket is at `path`, or `None` if no node runs there.
    pub(crate) async fn connect(path: &Path) -> Result<Option<Self>, CommandError> {
        match connect(path).await {
            Ok(_) => Ok(Some(Self::Unix(path.to_owned()))),
            // A killed node leaves its socket in the folder.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(None)
            }
            // The command says that the data folder is none. A file within it is another fault.
            Err(error)
                if error.kind() == io::ErrorKind::NotADirectory && !has_data_folder(path) =>
            {
                Ok(None)
            }
            Err(source) => Err(Self::Unix(path.to_owned()).failed(source)),
        }
    }

    /// Returns the node whose Unix socket is at `path`.
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
        wait: Wait,
    ) -> Result<T, CommandError> {
        let answer = self.send(method, target, Full::new(body), wait).await?;
        self.record(answer).await
    }

    /// Asks for a record.
    pub(crate) async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, CommandError> {
        self.request(Method::GET, target, Bytes::new(), Wait::Short)
            .await
    }

    /// Asks for a record whose status may be a failure too, such as `/readyz` with 503.
    pub(crate) async fn get_of_any_status<T: DeserializeOwned>(
        &self,
        target: &str,
    ) -> Result<T, CommandError> {
        let empty = Full::new(Bytes::new());
        let answer = self.exchange_of_any_status(Method::GET, target, empty);
        let answer = within(Some(ANSWER_TIMEOUT), ANSWER, answer).await?;
        self.record(answer).await
    }

    /// Sends a request whose answer is a stream of records.
    pub(crate) async fn events(
        &self,
        method: Method,
        target: &str,
    ) -> Result<Events, CommandError> {
        let empty = Full::new(Bytes::new());
        let answer = self.send(method, target, empty, Wait::Short).await?;
        Ok(Events {
            client: self.clone(),
            answer,
            read: BytesMut::new(),
        })
    }

    /// Sends a request. An answer that is a failure is the error.
    ///
    /// # Errors
    ///
    /// [`CommandError::Deadline`] if the node does not answer.
    pub(crate) async fn send<B>(
        &self,
        method: Method,
        target: &str,
        body: B,
        wait: Wait,
    ) -> Result<Answer, CommandError>
    where
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let answer = self.exchange(method, target, body);
        match wait {
            Wait::Short => within(Some(ANSWER_TIMEOUT), ANSWER, answer).await,
            Wait::WhileAlive => tokio::select! {
                answer = answer => answer,
                error = self.hangs() => Err(error),
            },
        }
    }

    /// Waits until the node does not answer in time. Cancel safe.
    async fn hangs(&self) -> CommandError {
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            let empty = Full::new(Bytes::new());
            let answer = self.exchange(Method::GET, "/healthz", empty);
            let answer = within(Some(ANSWER_TIMEOUT), ANSWER, answer).await;
            // A node that has ended is noticed by the request itself.
            if let Err(error @ CommandError::Deadline { .. }) = answer {
                return error;
            }
        }
    }

    async fn exchange<B>(
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
        let answer = self.exchange_of_any_status(method, target, body).await?;
        let status = answer.response.status();
        match status.is_success() {
            true => Ok(answer),
            false => Err(self.refusal(status, answer).await),
        }
    }

    async fn exchange_of_any_status<B>(
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
        let host = match self {
            Self::Unix(_) => "localhost".to_owned(),
            Self::Http(address) => address.to_string(),
        };
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, host)
            .body(body)
            .map_err(|error| CommandError::Usage(error.to_string()))?;
        match self {
            Self::Unix(path) => {
                let stream = connect(path).await;
                let stream = stream.map_err(|error| self.failed(error))?;
                self.send_over(stream, request).await
            }
            Self::Http(address) => {
                let stream = TcpStream::connect(address).await;
                let stream = stream.map_err(|error| self.failed(error))?;
                self.send_over(stream, request).await
            }
        }
    }

    async fn send_over<B>(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        request: Request<B>,
    ) -> Result<Answer, CommandError>
    where
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.lost(error))?;
        let connection = Aborted(tokio::spawn(async move {
            // The request reports the failure of its connection.
            let _ = connection.await;
        }));
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| self.lost(error))?;
        Ok(Answer {
            response,
            _connection: connection,
        })
    }

    /// Asks for text.
    pub(crate) async fn text(&self, target: &str) -> Result<String, CommandError> {
        let empty = Full::new(Bytes::new());
        let answer = self.send(Method::GET, target, empty, Wait::Short).await?;
        let bytes = self.bytes(answer).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn bytes(&self, answer: Answer) -> Result<Bytes, CommandError> {
        let mut body = Limited::new(answer.response.into_body(), MAX_ANSWER_BYTES);
        let mut bytes = BytesMut::new();
        while let Some(frame) = in_time(body.frame()).await? {
            let frame = frame.map_err(|error| self.lost(io::Error::other(error)))?;
            if let Some(data) = frame.data_ref() {
                bytes.extend_from_slice(data);
            }
        }
        Ok(bytes.freeze())
    }

    pub(crate) async fn record<T: DeserializeOwned>(
        &self,
        answer: Answer,
    ) -> Result<T, CommandError> {
        let bytes = self.bytes(answer).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.lost(error))
    }

    /// The error of an answer that is a failure.
    async fn refusal(&self, status: StatusCode, answer: Answer) -> CommandError {
        let bytes = match self.bytes(answer).await {
            Ok(bytes) => bytes,
            Err(error) => return error,
        };
        match serde_json::from_slice(&bytes) {
            Ok(Failed { code, message }) => CommandError::Node { code, message },
            // The request was not HTTP that the node reads, or another program answers.
            Err(_) => CommandError::Node {
                code: Code::Other,
                message: format!("{status}: {}", String::from_utf8_lossy(&bytes).trim_end()),
            },
        }
    }

    fn lost(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CommandError {
        self.failed(io::Error::other(source))
    }

    fn failed(&self, source: io::Error) -> CommandError {
        let at = match self {
            Self::Unix(path) => path.display().to_string(),
            Self::Http(address) => address.to_string(),
        };
        CommandError::Unreachable { at, source }
    }
}

/// The next part of an answer.
///
/// # Errors
///
/// [`CommandError::Deadline`] after a pause of [`PART_TIMEOUT`].
pub(crate) async fn in_time<T>(part: impl Future<Output = T>) -> Result<T, CommandError> {
    within(Some(PART_TIMEOUT), ANSWER, async { Ok(part.await) }).await
}

/// The body of an answer that is a failure.
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
            let frame = in_time(self.answer.response.body_mut().frame()).await?;
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
