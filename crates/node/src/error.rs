//! Why a command failed, as its last line on standard error.

use std::{error::Error, fmt, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use calimero_network::{
    AcceptError, AnnounceBlobError, ConfigError, DialError, FetchBlobError, OpenError, PeerId,
    PublishError, StartError, Stopped, SubscribeError, blob::store::StoreError,
};

use crate::identity::IdentityError;

/// An error with everything it comes from.
struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0, f)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("cannot start a runtime: {0}")]
    Runtime(#[source] io::Error),
    #[error("cannot read {}: {source}", path.display())]
    ReadConfig { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Config { path: PathBuf, source: ConfigError },
    #[error("data folder {}: {source}", path.display())]
    DataFolder { path: PathBuf, source: io::Error },
    #[error("cannot serve metrics at {address}: {source}")]
    Metrics {
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
    #[error("cannot open a stream: {}", Chain(.0))]
    Open(#[from] OpenError),
    #[error("cannot follow a topic: {0}")]
    Subscribe(#[from] SubscribeError),
    #[error("cannot announce a blob: {}", Chain(.0))]
    Announce(#[from] AnnounceBlobError),
    #[error("cannot publish: {0}")]
    Publish(#[from] PublishError),
    #[error("cannot accept streams: {0}")]
    Accept(#[from] AcceptError),
    #[error("{what} did not end within {} ms", after.as_millis())]
    Deadline { what: &'static str, after: Duration },
    #[error("{peer} did not say who it is: its identify protocol gave no answer")]
    Unidentified { peer: PeerId },
    #[error("{what}: {source}")]
    Io {
        what: &'static str,
        source: io::Error,
    },
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
    #[error("{error}")]
    Node { error: String },
    #[error("{} is there already and is not overwritten", path.display())]
    Exists { path: PathBuf },
    #[error("no node runs there: nobody answers at {}", path.display())]
    NotRunning { path: PathBuf },
    #[error("name a node: its data folder with --data, or its page with --http")]
    NoNode,
    #[error(
        "name a boot node with --boot, a node with --dial, or the folder of one that runs with --data"
    )]
    NobodyToAsk,
    #[error("name a data folder with --data")]
    NoDataFolder,
    #[error("name a file with -o, or a data folder with --data")]
    NoDestination,
    #[error("interrupted again before the peers were told")]
    Interrupted,
    #[error("{failed} of {checks} checks failed")]
    Checks { failed: usize, checks: usize },
}
