//! Why a command failed: its last line on standard error and its exit status.

use std::{
    error::Error,
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use calimero_network::{
    AcceptError, AnnounceBlobError, BuildError, ConfigError, DialError, FetchBlobError,
    ListenError, OpenError, PeerId, PublishError, StartError, Stopped, SubscribeError,
    blob::{
        collection::CollectionError,
        fetch::{FetchError, ProviderError},
        store::StoreError,
        ticket::TicketError,
    },
    discovery, pubsub,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    api::TokenError,
    identity::IdentityError,
    lock::LockError,
    printable::{Printable, PrintableLines},
};

/// An error with all of its causes.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        f.write_str(&text)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let next = error.to_string();
            // Many errors print their cause themselves.
            if !text.ends_with(&next) {
                write!(f, ": {next}")?;
                text = next;
            }
            cause = error.source();
        }
        Ok(())
    }
}

/// What kind of failure ended a command. Scripts act on it: it is the exit status, and with
/// `--json` the field `code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Code {
    /// Another failure. Exit status 1.
    Other,
    /// The command line or a configuration file is wrong. Exit status 2.
    Usage,
    /// No node runs there, or no address of it could be reached. Exit status 3.
    NotReachable,
    /// The time for the command has passed. Exit status 4.
    TimedOut,
    /// A blob, a file or a protocol does not exist there. Exit status 5.
    NotFound,
    /// A limit, a permission, a lock or the peer refuses it. Exit status 6.
    Refused,
    /// A check failed: a blob is damaged, or a message was not published. Exit status 7.
    CheckFailed,
    /// A signal interrupted the command. Exit status 128 and the number of the signal.
    Interrupted,
    /// The reader of standard output closed its end before the command ended. Exit status 141, as of
    /// programs that SIGPIPE ends.
    OutputClosed,
}

impl Code {
    /// The exit status of a command that fails with this code.
    pub(crate) fn status(self) -> u8 {
        match self {
            Self::Other => 1,
            Self::Usage => 2,
            Self::NotReachable => 3,
            Self::TimedOut => 4,
            Self::NotFound => 5,
            Self::Refused => 6,
            Self::CheckFailed => 7,
            Self::Interrupted => 130,
            Self::OutputClosed => 141,
        }
    }

    fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::AddrInUse
            | io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::ReadOnlyFilesystem => Self::Refused,
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable => Self::NotReachable,
            _ => Self::Other,
        }
    }

    fn of_store(error: &StoreError) -> Self {
        match error {
            StoreError::NotFound { .. } => Self::NotFound,
            StoreError::Damaged { .. } | StoreError::Mismatch { .. } | StoreError::Chunk(_) => {
                Self::CheckFailed
            }
            StoreError::DiskFull { .. }
            | StoreError::Quota { .. }
            | StoreError::TooLarge(_)
            | StoreError::TooMany { .. }
            | StoreError::Busy { .. }
            | StoreError::Locked { .. } => Self::Refused,
            StoreError::Io { source, .. } => Self::of_io(source),
            _ => Self::Other,
        }
    }

    fn of_start(error: &StartError) -> Self {
        match error {
            StartError::Listen(ListenError::Io { source, .. }) => Self::of_io(source),
            StartError::Listen(ListenError::Unsupported { .. })
            | StartError::Config(_)
            | StartError::Discovery(discovery::behaviour::BuildError::Config(_))
            | StartError::Pubsub(pubsub::BuildError::Config(_)) => Self::Usage,
            StartError::Transport(BuildError::Congestion(_)) => Self::Refused,
            StartError::Listen(ListenError::Deadline { .. }) => Self::TimedOut,
            _ => Self::Other,
        }
    }

    fn of_dial(error: &DialError) -> Self {
        match error {
            DialError::Denied(_) | DialError::LocalPeer { .. } | DialError::Aborted => {
                Self::Refused
            }
            DialError::Contradiction { .. } => Self::Usage,
            DialError::Deadline { .. } => Self::TimedOut,
            DialError::NoAddresses { .. } | DialError::Failed { .. } => Self::NotReachable,
            _ => Self::Other,
        }
    }

    fn of_fetch(error: &FetchBlobError) -> Self {
        match error {
            FetchBlobError::Fetch(FetchError::Store(error)) => Self::of_store(error),
            FetchBlobError::Fetch(FetchError::NoProviders { failures, .. }) => {
                let unreached = |reason: &ProviderError| match reason {
                    // A provider that serves no blobs was reached.
                    ProviderError::Open { source } => !matches!(
                        source.downcast_ref(),
                        Some(OpenError::UnsupportedProtocol { .. })
                    ),
                    ProviderError::OpenTimeout { .. } => true,
                    _ => false,
                };
                let is_unreached = failures.iter().all(|failure| unreached(&failure.reason));
                match is_unreached && !failures.is_empty() {
                    true => Self::NotReachable,
                    false => Self::NotFound,
                }
            }
            _ => Self::Other,
        }
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("{0}")]
    Usage(String),
    #[error("cannot start a runtime: {0}")]
    Runtime(#[source] io::Error),
    #[error("cannot log to the journal of systemd: {0} (use --log-format text)")]
    Journal(#[source] io::Error),
    #[error(
        "--otlp-endpoint: needs the Cargo feature `otel`, which this program was built without"
    )]
    #[cfg(not(feature = "otel"))]
    NoExport,
    #[error("cannot export spans: {0}")]
    #[cfg(feature = "otel")]
    Export(#[from] crate::log::ExportError),
    #[error("cannot read {}: {source}", path.display())]
    ReadConfig { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Config { path: PathBuf, source: ConfigError },
    #[error("data folder {}: {source}", path.display())]
    DataFolder { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("cannot serve HTTP at {address}: {source}")]
    Http {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("a task failed: {0}")]
    Task(#[source] tokio::task::JoinError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("cannot start: {0}")]
    Start(#[from] StartError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error("cannot connect: {0}")]
    Dial(#[from] DialError),
    #[error("cannot open a stream: {0}")]
    Open(#[from] OpenError),
    #[error("cannot subscribe to a topic: {0}")]
    Subscribe(#[from] SubscribeError),
    #[error("cannot announce a blob: {0}")]
    Announce(#[from] AnnounceBlobError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error("cannot accept streams: {0}")]
    Accept(#[from] AcceptError),
    #[error("{what} did not end within {} ms", after.as_millis())]
    Deadline { what: &'static str, after: Duration },
    #[error("{peer} did not answer the identify protocol")]
    Unidentified { peer: PeerId },
    #[error("{what}: {source}")]
    Io {
        what: &'static str,
        source: io::Error,
    },
    #[error("{peer} did not answer a ping: {source}")]
    Ping { peer: PeerId, source: io::Error },
    #[error("{peer} answered a ping with other bytes")]
    WrongEcho { peer: PeerId },
    #[error("{peer} sent {received} of {expected} bytes")]
    Short {
        peer: PeerId,
        received: u64,
        expected: u64,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Fetch(Arc<FetchBlobError>),
    #[error("{message}")]
    Node { code: Code, message: String },
    #[error("{} exists already and is not overwritten", path.display())]
    Exists { path: PathBuf },
    #[error("cannot make a ticket: {0}")]
    Ticket(#[from] TicketError),
    #[error("the ticket names no address of the sender that is dialled from here")]
    NoAddress,
    #[error(
        "the ticket names only addresses of one machine or link; --local dials those of this machine \
         and link"
    )]
    OnlyLocalAddresses,
    #[error("the ticket names a folder, which a blob store cannot hold as one: use calnet receive")]
    FolderTicket,
    #[error("no connection with {peer} is left")]
    NoConnection { peer: PeerId },
    #[error("a folder cannot be written to standard output: name it with -o")]
    FolderToPipe,
    #[error(transparent)]
    Collection(#[from] CollectionError),
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("cannot {doing} {}: it is {kind}", path.display())]
    FileKind {
        doing: &'static str,
        path: PathBuf,
        /// What it is instead of a regular file, with its article and a hint.
        kind: &'static str,
    },
    #[error("no node runs on this data folder: nothing listens at {}", path.display())]
    NotRunning { path: PathBuf },
    #[error("cannot reach the node at {at}: {source}")]
    Unreachable { at: String, source: io::Error },
    #[error("name a node: its data folder with --data, or its HTTP address with --http")]
    NoNode,
    #[error(
        "name a boot node with --boot, a node with --dial, or the folder of a running one with --data"
    )]
    NoPeers,
    #[error("cannot reach any of {count} boot nodes: {first}")]
    NoBootNode {
        count: usize,
        /// The cause for the first one.
        first: String,
    },
    #[error("the API has no {method} {path}")]
    NoRoute { method: hyper::Method, path: String },
    #[error("the message is longer than {limit} bytes")]
    TooLong { limit: usize },
    #[error("the client closed the connection before the end of the body")]
    ClientLeft,
    #[error("no part of the body arrived within {} s", after.as_secs())]
    BodyPaused { after: Duration },
    #[error("{limit} streams are open already, the most at one time")]
    TooManyStreams { limit: usize },
    #[error("--api needs a data folder for its token; name it with --data")]
    NoTokenFolder,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the node has no blob store")]
    NoStore,
    #[error("name a data folder with --data")]
    NoDataFolder,
    #[error("name a file with -o, or a data folder with --data")]
    NoDestination,
    #[error("interrupted")]
    Interrupted,
    #[error("standard output was closed before the command ended")]
    OutputClosed,
    #[error("{absent} of {checks} blobs are not in the store")]
    Absent { absent: usize, checks: usize },
    #[error("{failed} of {checks} checks failed")]
    Checks { failed: usize, checks: usize },
}

impl CommandError {
    /// The error of a new file that could not be written.
    pub(crate) fn of_new_file(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::AlreadyExists => Self::Exists { path },
            _ => Self::File {
                doing: "write",
                path,
                source,
            },
        }
    }

    /// The error of standard output that has not taken everything.
    pub(crate) fn of_output(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::Interrupted => Self::Interrupted,
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Io {
                what: "cannot write to standard output",
                source,
            },
        }
    }

    /// What kind of failure it is.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Usage(_)
            | Self::Config { .. }
            | Self::NoNode
            | Self::NoPeers
            | Self::NoDataFolder
            | Self::NoDestination
            | Self::FolderToPipe
            | Self::NoTokenFolder => Code::Usage,
            #[cfg(not(feature = "otel"))]
            Self::NoExport => Code::Usage,
            #[cfg(feature = "otel")]
            Self::Export(_) => Code::Usage,
            Self::ReadConfig { source, .. }
            | Self::DataFolder { source, .. }
            | Self::Http { source, .. }
            | Self::File { source, .. }
            | Self::Io { source, .. } => Code::of_io(source),
            // A connection that is lost, or an answer that is none.
            Self::Unreachable { source, .. } => match Code::of_io(source) {
                Code::Other => Code::NotReachable,
                code => code,
            },
            Self::Lock(LockError::Held { .. })
            | Self::Exists { .. }
            | Self::FileKind { .. }
            | Self::NoStore
            | Self::FolderTicket
            | Self::TooLong { .. }
            | Self::TooManyStreams { .. }
            | Self::Open(OpenError::TooManyWaiting { .. })
            | Self::Token(TokenError::TooOpen { .. } | TokenError::Malformed { .. })
            | Self::Identity(_)
            | Self::Publish(_)
            | Self::Subscribe(_) => Code::Refused,
            Self::Lock(LockError::Io { source, .. })
            | Self::Token(TokenError::Io { source, .. }) => Code::of_io(source),
            Self::Dial(error) => Code::of_dial(error),
            Self::Open(OpenError::UnsupportedProtocol { .. })
            | Self::NoRoute { .. }
            | Self::Absent { .. } => Code::NotFound,
            Self::Open(OpenError::Deadline { .. })
            | Self::Deadline { .. }
            | Self::BodyPaused { .. } => Code::TimedOut,
            Self::Open(
                OpenError::Dial { .. }
                | OpenError::NotConnected { .. }
                | OpenError::ConnectionClosed { .. }
                | OpenError::Io { .. },
            )
            | Self::Ping { .. }
            | Self::WrongEcho { .. }
            | Self::NotRunning { .. }
            | Self::NoBootNode { .. }
            | Self::NoConnection { .. }
            | Self::NoAddress
            | Self::OnlyLocalAddresses => Code::NotReachable,
            Self::Store(error) => Code::of_store(error),
            Self::Fetch(error) => Code::of_fetch(error),
            Self::Node { code, .. } => *code,
            Self::Start(error) => Code::of_start(error),
            Self::Interrupted | Self::ClientLeft => Code::Interrupted,
            Self::OutputClosed => Code::OutputClosed,
            Self::Checks { .. } | Self::Collection(_) => Code::CheckFailed,
            _ => Code::Other,
        }
    }
}

/// Waits for work, at most for `after` if that is set.
///
/// # Errors
///
/// [`CommandError::Deadline`], which names the work by `what`, and the error of the work.
pub(crate) async fn within<T>(
    after: Option<Duration>,
    what: &'static str,
    work: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    match after {
        Some(after) => {
            let late = |_| CommandError::Deadline { what, after };
            tokio::time::timeout(after, work).await.map_err(late)?
        }
        None => work.await,
    }
}

/// The last line of a command that failed, and the answer to a request that failed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "event", rename = "error")]
pub(crate) struct Failure {
    code: Code,
    message: String,
    /// Parameters or headers of a request that are concerned.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    fields: Vec<String>,
}

impl Failure {
    pub(crate) fn new(code: Code, message: String) -> Self {
        Self {
            code,
            message,
            fields: Vec::new(),
        }
    }

    /// Names the parameters or headers of a request that are concerned.
    pub(crate) fn with_fields(mut self, fields: Vec<String>) -> Self {
        self.fields = fields;
        self
    }
}

impl From<&CommandError> for Failure {
    fn from(error: &CommandError) -> Self {
        Self::new(error.code(), Chain(error).to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = &self.message;
        match self.code {
            // It quotes lines of the user's own file.
            Code::Usage => write!(f, "calnet: {}", PrintableLines(message)),
            _ => write!(f, "calnet: {}", Printable(message)),
        }
    }
}
