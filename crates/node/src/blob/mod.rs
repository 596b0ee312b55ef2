//! `calnet blob`: blobs of a data folder and of the network. If a node runs on the folder, it is used
//! through its API.

mod add;
mod announce;
pub(crate) mod files;
mod get;
pub(crate) mod lines;
pub(crate) mod local;
mod remote;
mod ticket;

use std::sync::Arc;

use calimero_network::{BlobId, ContextId, NetworkClient, blob::store::FsBlobStore};
use tokio::sync::{Semaphore, mpsc};

use self::{
    add::Adding,
    files::{Source, Target},
    lines::Line,
};
pub(crate) use self::{announce::Announcer, get::Wanted, local::Added};
use crate::{
    api::Client,
    cli::{BlobArgs, BlobCommand},
    data::DataFolder,
    error::{CommandError, within},
    output::Output,
    progress::Shown,
};

/// The context of blobs that are added or fetched without naming one.
pub(crate) const DEFAULT_CONTEXT: ContextId = ContextId::new([0; 32]);

/// Blobs that a node verifies at one time. Each is read as fast as the disk permits.
const VERIFICATIONS: usize = 2;
static VERIFYING: Semaphore = Semaphore::const_new(VERIFICATIONS);

/// Records that wait to be printed.
const LINES_AHEAD: usize = 16;

pub(crate) async fn execute(args: BlobArgs, output: Output) -> Result<(), CommandError> {
    let limit = match &args.command {
        BlobCommand::Get(get) => get.timeout_ms,
        _ => None,
    };
    within(limit, "the fetch", carry_out(args, output)).await
}

async fn carry_out(args: BlobArgs, output: Output) -> Result<(), CommandError> {
    // Files are checked before anything starts.
    let target = match &args.command {
        BlobCommand::Get(get) => get.output.as_deref().map(Target::prepare).transpose()?,
        _ => None,
    };
    let mut printed = Printed::new(&output, matches!(target, Some(Target::Stdout)));
    let Some(data) = &args.data else {
        // Without a folder there is one thing that can be done.
        let BlobCommand::Get(get) = args.command else {
            return Err(CommandError::NoDataFolder);
        };
        let (lines, written) = Lines::new();
        let work = get::execute(get, target, None, output.clone(), lines);
        return printed.all(work, written).await;
    };
    // Only `add` creates the folder.
    if !matches!(args.command, BlobCommand::Add { .. }) {
        DataFolder::existing(data)?;
    }
    let (lines, written) = Lines::new();
    if let Some(node) = Client::connect(&DataFolder::of_running(data).socket()).await? {
        let work = remote::execute(&node, args.command, target, output.clone(), lines);
        return printed.all(work, written).await;
    }
    let data = DataFolder::open(data)?;
    let _lock = data.lock()?;
    let store = data.configured_blobs()?;
    match args.command {
        BlobCommand::Get(get) => {
            let work = get::execute(get, target, Some(store), output.clone(), lines);
            printed.all(work, written).await
        }
        command => {
            let work = blocking(move || on_disk(command, &store, &lines));
            printed.all(work, written).await
        }
    }
}

/// Carries out a command that needs no network.
fn on_disk(command: BlobCommand, store: &FsBlobStore, lines: &Lines) -> Result<(), CommandError> {
    match command {
        BlobCommand::Add { files, context } => {
            let mut adding = Adding::new(store, context);
            let added =
                (files.iter()).try_for_each(|file| adding.add(file, |line| lines.say(line)));
            // Files before one that fails are added.
            adding.commit(|line| lines.say(line))?;
            added
        }
        BlobCommand::Ls => local::list(store)
            .lines()
            .try_for_each(|line| lines.say(line)),
        BlobCommand::Rm { ids } => ids
            .iter()
            .try_for_each(|id| lines.say(local::remove(store, id)?)),
        BlobCommand::Verify { ids, repair } => {
            let ids = match ids.is_empty() {
                true => store.list().into_iter().map(|(id, _)| id).collect(),
                false => ids,
            };
            let mut checks = Checks::default();
            for id in ids {
                let line = match local::verify(store, &id, repair) {
                    Ok(line) => checks.count(line),
                    Err(error) => checks.count_absent(id.to_string(), error.to_string()),
                };
                lines.say(line)?;
            }
            checks.result()
        }
        BlobCommand::Get(_) => Err(CommandError::NoDestination),
    }
}

/// Counts verified, damaged and absent blobs.
#[derive(Debug, Default)]
struct Checks {
    checks: usize,
    damaged: usize,
    absent: usize,
}

impl Checks {
    /// Counts a blob that was read, and returns its record.
    fn count(&mut self, line: Line) -> Line {
        self.checks += 1;
        self.damaged += usize::from(!matches!(line, Line::Verified { .. }));
        line
    }

    /// Counts a blob that is not in the store, and returns its record.
    fn count_absent(&mut self, id: String, error: String) -> Line {
        self.checks += 1;
        self.absent += 1;
        Line::Damaged {
            id,
            error,
            withdrawn: false,
        }
    }

    fn result(self) -> Result<(), CommandError> {
        let Self {
            checks,
            damaged,
            absent,
        } = self;
        match (damaged, absent) {
            (0, 0) => Ok(()),
            (0, absent) => Err(CommandError::Absent { absent, checks }),
            (damaged, absent) => Err(CommandError::Checks {
                failed: damaged + absent,
                checks,
            }),
        }
    }
}

/// A running node and its blobs.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) client: NetworkClient,
    pub(crate) store: FsBlobStore,
    pub(crate) announcer: Announcer,
}

impl Running {
    /// Fetches a blob into the store and announces it.
    pub(crate) async fn fetch(&self, wanted: Wanted, lines: Lines) -> Result<(), CommandError> {
        let (context, id) = (wanted.context, wanted.id);
        let fetched = get::into_store(&self.client, wanted, &self.store, &lines).await?;
        // Begun before the record is sent, because this future is dropped if the client has left.
        let announcing = self.announcer.announce(context, id);
        lines.send(fetched).await?;
        let _ = announcing.await;
        Ok(())
    }

    /// Removes a blob and withdraws it in each of its contexts. Once begun it goes on if this future is
    /// dropped.
    pub(crate) async fn remove(&self, id: BlobId) -> Result<Line, CommandError> {
        let this = self.clone();
        let removing = tokio::spawn(async move {
            let contexts = this.contexts(id);
            let store = this.store.clone();
            // The blob first: what is not there is not announced again, and what could not be removed
            // stays announced.
            let line = blocking(move || local::remove(&store, &id)).await?;
            this.withdraw(contexts, id).await;
            Ok(line)
        });
        removing.await.map_err(CommandError::Task)?
    }

    /// Reads a blob and compares it with its id. With `repair`, a damaged blob is withdrawn, here and
    /// in each of its contexts. If this future is dropped, reading ends, and a repair that was begun
    /// goes on.
    pub(crate) async fn verify(&self, id: BlobId, repair: bool) -> Result<Line, CommandError> {
        // The semaphore is never closed.
        let permit = VERIFYING.acquire().await.ok();
        let waiting = Arc::new(());
        let client = Arc::downgrade(&waiting);
        let this = self.clone();
        let verifying = tokio::spawn(async move {
            let _permit = permit;
            let contexts = this.contexts(id);
            let store = this.store.clone();
            let line = blocking(move || {
                let is_wanted = || client.strong_count() > 0;
                match local::is_intact(&store, &id, is_wanted)? {
                    true => Ok(Line::Verified { id: id.to_string() }),
                    // The store reads it once more and decides what damage is.
                    false => Ok(local::verify(&store, &id, repair)?),
                }
            });
            let line = line.await?;
            if let Line::Damaged {
                withdrawn: true, ..
            } = &line
            {
                this.withdraw(contexts, id).await;
            }
            Ok(line)
        });
        let line = verifying.await.map_err(CommandError::Task)?;
        drop(waiting);
        line
    }

    /// The contexts in which a blob is announced.
    fn contexts(&self, id: BlobId) -> Vec<ContextId> {
        let held = announce::held(&self.store).into_iter();
        held.filter(|(_, held)| *held == id)
            .map(|(context, _)| context)
            .collect()
    }

    /// Withdraws the announcements of a blob that is not in the store any more.
    async fn withdraw(&self, contexts: Vec<ContextId>, id: BlobId) {
        for context in contexts {
            // It may have been stored again.
            if !self.store.has(&id) {
                self.announcer.withdraw(context, id).await;
            }
        }
    }
}

/// Runs work that blocks on the disk.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CommandError> + Send + 'static,
) -> Result<T, CommandError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(CommandError::Task)?
}

/// The sender of records. Work ends when their reader does.
#[derive(Clone)]
pub(crate) struct Lines(mpsc::Sender<Line>);

impl Lines {
    fn new() -> (Self, mpsc::Receiver<Line>) {
        let (lines, written) = mpsc::channel(LINES_AHEAD);
        (Self(lines), written)
    }

    pub(crate) fn to(lines: mpsc::Sender<Line>) -> Self {
        Self(lines)
    }

    /// Sends a record from a thread that may block.
    fn say(&self, line: Line) -> Result<(), CommandError> {
        let sent = self.0.blocking_send(line);
        sent.map_err(|_| CommandError::Interrupted)
    }

    pub(crate) async fn send(&self, line: Line) -> Result<(), CommandError> {
        let sent = self.0.send(line).await;
        sent.map_err(|_| CommandError::Interrupted)
    }
}

/// Prints records, and progress as a bar on a terminal.
struct Printed<'a> {
    output: &'a Output,
    shown: Shown<'a>,
    /// Standard output holds the content of a blob, so no record is printed.
    quiet: bool,
}

impl<'a> Printed<'a> {
    fn new(output: &'a Output, quiet: bool) -> Self {
        Self {
            output,
            shown: Shown::new(output),
            quiet,
        }
    }

    fn one(&mut self, line: &Line) {
        if self.quiet {
            return;
        }
        if let Line::Progress(progress) = line {
            return self.shown.show(progress);
        }
        self.shown.end();
        self.output.print(line);
    }

    /// Prints the records of `work` until it ends.
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
        let (end, ()) = futures::future::join(work, printing).await;
        self.shown.end();
        end
    }
}

#[cfg(test)]
mod tests;
