//! `calnet blob`: blobs of a data folder, and of the network. Where a node runs on the folder, it
//! is asked through its door.

mod announce;
mod get;
mod lines;
mod local;

use std::path::{Path, PathBuf, absolute};

use calimero_network::{ContextId, NetworkClient, blob::store::FsBlobStore};
use serde::Deserialize as _;
use tokio::sync::mpsc;

pub(crate) use self::announce::Announcer;
use self::lines::Line;
use crate::{
    cli::{BlobArgs, BlobCommand},
    data::DataFolder,
    door::{BlobRequest, Client, Request},
    error::CommandError,
    output::Output,
    progress::Shown,
};

/// The context of what is added or fetched without naming one.
const DEFAULT_CONTEXT: ContextId = ContextId::new([0; 32]);

/// Lines that wait to be printed.
const LINES_AHEAD: usize = 16;

pub(crate) async fn execute(args: BlobArgs) -> Result<(), CommandError> {
    let output = Output::new(args.json);
    let data = args.data.as_deref().map(DataFolder::open).transpose()?;
    let mut printed = Printed::new(&output);
    // Without a folder there is one thing that can be done.
    let Some(data) = data else {
        let BlobCommand::Get(get) = args.command else {
            return Err(CommandError::NoDataFolder);
        };
        let (lines, written) = Lines::new();
        let work = get::execute(get, None, lines);
        return printed.all(work, written).await;
    };
    if let Some(door) = Client::knock(&data.door()).await {
        let request = Request::Blob(request(args.command)?);
        let asked = door.ask(&request, |line| {
            if let Ok(line) = Line::deserialize(&line) {
                printed.one(&line);
            }
        });
        let end = tokio::select! {
            end = asked => end,
            // Which takes the connection away, and with it the request.
            _ = tokio::signal::ctrl_c() => Err(CommandError::Interrupted),
        };
        printed.end();
        return end;
    }
    let store = data.blobs(&calimero_network::config::BlobStoreConfig::default())?;
    let (lines, written) = Lines::new();
    match args.command {
        BlobCommand::Get(get) => {
            let work = get::execute(get, Some(store), lines);
            printed.all(work, written).await
        }
        other => {
            let work = on_disk(request(other)?, store, lines);
            printed.all(work, written).await
        }
    }
}

/// What a command asks of the node whose folder it is.
fn request(command: BlobCommand) -> Result<BlobRequest, CommandError> {
    Ok(match command {
        BlobCommand::Add { files, context } => BlobRequest::Add {
            files: files
                .iter()
                .map(|file| whole(file))
                .collect::<Result<_, _>>()?,
            context,
        },
        BlobCommand::Get(get) => BlobRequest::Get {
            id: get.id,
            context: get.context,
            output: get.output.as_deref().map(whole).transpose()?,
            dial: get.dial.into_iter().chain(get.boot).collect(),
        },
        BlobCommand::Ls => BlobRequest::Ls,
        BlobCommand::Rm { ids } => BlobRequest::Rm { ids },
        BlobCommand::Verify { ids } => BlobRequest::Verify { ids },
    })
}

/// A path as it is from everywhere: the node runs elsewhere.
fn whole(path: &Path) -> Result<PathBuf, CommandError> {
    absolute(path).map_err(|source| CommandError::Io {
        what: "a path",
        source,
    })
}

/// A node that runs, and its blobs.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) client: NetworkClient,
    pub(crate) store: FsBlobStore,
    pub(crate) announcer: Announcer,
}

/// Carries out what a running node is asked for.
pub(crate) async fn execute_running(
    request: BlobRequest,
    node: &Running,
    lines: mpsc::Sender<Line>,
) -> Result<(), CommandError> {
    let (store, announcer, lines) = (node.store.clone(), &node.announcer, Lines(lines));
    match request {
        BlobRequest::Add { files, context } => {
            let added = blocking(move || local::add(&store, &files, context, &lines)).await?;
            for id in added {
                announcer.announce(context, id).await;
            }
            Ok(())
        }
        BlobRequest::Get {
            id,
            context,
            output,
            dial,
        } => {
            let into = output.is_none().then_some(&node.store);
            let found = get::Wanted { id, context, dial };
            get::fetch(&node.client, found, output, into, &lines).await?;
            if into.is_some() {
                announcer.announce(context, id).await;
            }
            Ok(())
        }
        BlobRequest::Rm { ids } => {
            for (context, id) in announce::held(&store) {
                if ids.contains(&id) {
                    announcer.withdraw(context, id).await;
                }
            }
            on_disk(BlobRequest::Rm { ids }, store, lines).await
        }
        other => on_disk(other, store, lines).await,
    }
}

/// Carries out what needs no network.
async fn on_disk(
    request: BlobRequest,
    store: FsBlobStore,
    lines: Lines,
) -> Result<(), CommandError> {
    blocking(move || match request {
        BlobRequest::Add { files, context } => {
            local::add(&store, &files, context, &lines).map(|_| ())
        }
        BlobRequest::Ls => local::list(&store, &lines),
        BlobRequest::Rm { ids } => local::remove(&store, &ids, &lines),
        BlobRequest::Verify { ids } => local::verify(&store, ids, &lines),
        BlobRequest::Get { .. } => Err(CommandError::NoDestination),
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CommandError> + Send + 'static,
) -> Result<T, CommandError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(CommandError::Task)?
}

/// Where lines go. Whoever prints them may have gone away, which ends what says them.
#[derive(Clone)]
struct Lines(mpsc::Sender<Line>);

impl Lines {
    fn new() -> (Self, mpsc::Receiver<Line>) {
        let (lines, written) = mpsc::channel(LINES_AHEAD);
        (Self(lines), written)
    }

    /// From a thread that may block.
    fn say(&self, line: Line) -> Result<(), CommandError> {
        let said = self.0.blocking_send(line);
        said.map_err(|_| CommandError::Interrupted)
    }

    async fn tell(&self, line: Line) -> Result<(), CommandError> {
        let told = self.0.send(line).await;
        told.map_err(|_| CommandError::Interrupted)
    }
}

/// Lines as they are printed, progress as a bar where that is possible.
struct Printed<'a> {
    output: &'a Output,
    shown: Shown<'a>,
}

impl<'a> Printed<'a> {
    fn new(output: &'a Output) -> Self {
        Self {
            output,
            shown: Shown::new(output),
        }
    }

    fn one(&mut self, line: &Line) {
        if let Line::Progress(progress) = line {
            return self.shown.show(progress);
        }
        self.shown.end();
        self.output.print(line);
    }

    fn end(&self) {
        self.shown.end();
    }

    /// Prints what `work` says until it ends, or is interrupted.
    async fn all(
        &mut self,
        work: impl Future<Output = Result<(), CommandError>>,
        mut lines: mpsc::Receiver<Line>,
    ) -> Result<(), CommandError> {
        let printing = async {
            while let Some(line) = lines.recv().await {
                self.one(&line);
            }
        };
        let end = tokio::select! {
            (end, ()) = futures::future::join(work, printing) => end,
            _ = tokio::signal::ctrl_c() => Err(CommandError::Interrupted),
        };
        self.end();
        end
    }
}
