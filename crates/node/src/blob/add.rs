//! Many files that are added by one command. Small ones become durable together.

use std::{
    io::Read as _,
    mem,
    path::{Path, PathBuf},
};

use calimero_network::{
    ContextId,
    blob::store::{FsBatch, FsBlobStore, Hold, PACK_MAX_BLOB_BYTES},
};

use super::{
    files::Source,
    lines::Line,
    local::{self, Added},
};
use crate::error::CommandError;

/// Content that becomes durable together, in bytes: 8 MiB.
const BATCH_BYTES: u64 = 8 << 20;

/// Files that become durable together, at most: 4,096. Their records are printed once they are.
const BATCH_FILES: usize = 4096;

/// Adds files in their order.
pub(super) struct Adding<'a> {
    store: &'a FsBlobStore,
    context: ContextId,
    batch: FsBatch,
    batch_bytes: u64,
    /// Files that are not tagged yet.
    added: Vec<(PathBuf, Added)>,
    holds: Vec<Hold>,
}

impl<'a> Adding<'a> {
    pub(super) fn new(store: &'a FsBlobStore, context: ContextId) -> Self {
        Self {
            store,
            context,
            batch: store.batch(),
            batch_bytes: 0,
            added: Vec::new(),
            holds: Vec::new(),
        }
    }

    /// Stores a file. `say` takes the records of files once they are durable and tagged.
    ///
    /// # Errors
    ///
    /// Why the file cannot be read or stored, and what `say` returns. Files before it are added by
    /// [`commit`](Self::commit).
    pub(super) fn add(
        &mut self,
        path: &Path,
        say: impl FnMut(Line) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        let mut source = Source::open(path)?;
        local::check_space(self.store, source.size_bytes())?;
        let small = PACK_MAX_BLOB_BYTES as u64;
        let added = match source
            .size_bytes()
            .filter(|size_bytes| *size_bytes <= small)
        {
            Some(_) => self.add_small(&mut source)?,
            None => {
                let stored = local::write(self.store, source)?.finish(None)?;
                self.holds.push(stored.hold);
                Added {
                    id: stored.id,
                    size_bytes: stored.size_bytes,
                }
            }
        };
        self.added.push((path.to_owned(), added));
        let full = self.batch_bytes >= BATCH_BYTES || self.added.len() >= BATCH_FILES;
        match full || added.size_bytes > small {
            true => self.commit(say),
            false => Ok(()),
        }
    }

    fn add_small(&mut self, source: &mut Source) -> Result<Added, CommandError> {
        let mut content = Vec::new();
        let read = source.read_to_end(&mut content);
        read.map_err(|error| source.failed("read", error))?;
        let size_bytes = content.len() as u64;
        source.check_size(size_bytes)?;
        self.batch_bytes += size_bytes;
        let id = self.batch.add(None, &content)?;
        Ok(Added { id, size_bytes })
    }

    /// Makes all files durable, protects them by tags, and reports them in their order.
    ///
    /// # Errors
    ///
    /// What the store refuses, and what `say` returns.
    pub(super) fn commit(
        &mut self,
        say: impl FnMut(Line) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        let batch = mem::replace(&mut self.batch, self.store.batch());
        self.batch_bytes = 0;
        let added = mem::take(&mut self.added);
        let mut holds = mem::take(&mut self.holds);
        holds.push(batch.commit()?.hold);
        let tags = (added.iter()).map(|(_, added)| (local::tag(self.context, &added.id), added.id));
        self.store.tag_all(&tags.collect::<Vec<_>>())?;
        let lines = added.iter().map(|(file, added)| added.line(file));
        lines.into_iter().try_for_each(say)
    }
}

#[cfg(test)]
mod tests;
