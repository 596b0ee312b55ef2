//! Who opens.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use calimero_network::NetworkClient;
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, mpsc},
    time::timeout,
};

use super::{End, MAX_LINE_BYTES, Readers, Request, topics};
use crate::{
    blob::{self, Running},
    error::CommandError,
    http::status::StatusPage,
};

/// Requests answered at one time. Further ones wait in the backlog.
const MAX_CONNECTIONS: usize = 32;

/// Time for a request to be read.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// Time for a line of the answer to be taken: longer only for a reader that is stuck.
const LINE_TIME: Duration = Duration::from_secs(30);

/// Pause after a connection could not be accepted: no descriptors are left, and there may be soon.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Lines of an answer that wait to be written.
const LINES_AHEAD: usize = 16;

/// A socket that is listened on. Gone when dropped.
pub(crate) struct Door {
    listener: UnixListener,
    path: PathBuf,
}

impl Door {
    /// Opens the door at `path`, in a folder of its own that nobody else may enter. Whoever has
    /// been there before is gone: the caller holds the lock of the data folder.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        let path = path.to_owned();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// What a running node answers with.
pub(crate) struct Served {
    pub(crate) client: NetworkClient,
    pub(crate) blobs: Running,
    pub(crate) readers: Readers,
}

/// Answers whoever knocks until it is dropped.
pub(crate) async fn serve(door: Door, served: Served) {
    let served = Arc::new(served);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Ended with the node.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match door.listener.accept().await {
            Ok((stream, _)) => {
                let served = served.clone();
                connections.spawn(async move {
                    // Whoever went away knows.
                    let _ = connection(stream, &served).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection to the door was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Who asks.
pub(super) struct Asker {
    pub(super) reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

async fn connection(stream: UnixStream, served: &Served) -> io::Result<()> {
    let (reader, writer) = stream.into_split();
    let reader = BufReader::new(reader);
    let mut asker = Asker { reader, writer };
    let end = match timeout(REQUEST_TIME, asker.request()).await {
        Ok(Ok(request)) => asker.answer(request, served).await?,
        Ok(Err(error)) => Err(CommandError::Io {
            what: "no request",
            source: error,
        }),
        Err(_) => return Ok(()),
    };
    let end = match end {
        Ok(()) => End::Done {},
        Err(error) => End::Failed {
            error: error.to_string(),
        },
    };
    asker.write(&end).await
}

impl Asker {
    async fn request(&mut self) -> io::Result<Request> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.reader).take(MAX_LINE_BYTES as u64);
        bounded.read_until(b'\n', &mut line).await?;
        Ok(serde_json::from_slice(&line)?)
    }

    /// Carries a request out. The outer error is that the asker is gone.
    async fn answer(
        &mut self,
        request: Request,
        served: &Served,
    ) -> io::Result<Result<(), CommandError>> {
        let client = &served.client;
        match request {
            Request::Status => match client.status().await {
                Ok(status) => self.write(&StatusPage::of(&status)).await.map(Ok),
                Err(stopped) => Ok(Err(stopped.into())),
            },
            Request::Blob(request) => {
                let (lines, written) = mpsc::channel(LINES_AHEAD);
                let work = blob::execute_running(request, &served.blobs, lines);
                self.pass_on(work, written).await
            }
            Request::Subscribe { topics } => {
                let (lines, written) = mpsc::channel(LINES_AHEAD);
                let work = topics::subscribe(client, &served.readers, topics, lines);
                self.pass_on(work, written).await
            }
            Request::Publish { topic } => topics::publish(self, client, topic).await,
        }
    }

    /// Writes the lines of `work` as they come. Ends it when the asker goes away.
    async fn pass_on<T: Serialize>(
        &mut self,
        work: impl Future<Output = Result<(), CommandError>>,
        mut lines: mpsc::Receiver<T>,
    ) -> io::Result<Result<(), CommandError>> {
        let Self { reader, writer } = self;
        let writing = async {
            while let Some(line) = lines.recv().await {
                write(writer, &line).await?;
            }
            Ok(())
        };
        let working = futures::future::join(work, writing);
        tokio::select! {
            (end, written) = working => written.map(|()| end),
            // Nothing follows these requests but their end.
            gone = reader.read_u8() => Err(gone.err().unwrap_or(io::ErrorKind::InvalidData.into())),
        }
    }

    pub(super) async fn write(&mut self, line: &impl Serialize) -> io::Result<()> {
        write(&mut self.writer, line).await
    }
}

async fn write(writer: &mut OwnedWriteHalf, line: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(line)?;
    line.push(b'\n');
    timeout(LINE_TIME, writer.write_all(&line)).await?
}
