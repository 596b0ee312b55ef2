//! Blobs of a data folder. These work on the disk until they are done.

use std::path::PathBuf;

use calimero_network::{BlobId, ContextId, blob::store::FsBlobStore};

use super::{DEFAULT_CONTEXT, Lines, lines::Line};
use crate::error::CommandError;

/// What the tags of commands begin with.
const TAG: &str = "calnet/";

/// The tag that keeps a blob which a command has brought here, for a context.
pub(super) fn tag(context: ContextId, id: &BlobId) -> String {
    match context == DEFAULT_CONTEXT {
        true => format!("{TAG}{id}"),
        false => format!("{TAG}{context}/{id}"),
    }
}

/// The contexts that blobs were brought here for, by their tags.
pub(super) fn contexts(store: &FsBlobStore) -> Vec<(ContextId, BlobId)> {
    let tags = store.tags().into_iter();
    tags.filter_map(|(name, id)| {
        let context = match name.strip_prefix(TAG)?.split_once('/') {
            None => DEFAULT_CONTEXT,
            Some((context, _)) => context.parse().ok()?,
        };
        (name == tag(context, &id)).then_some((context, id))
    })
    .collect()
}

/// Stores files, each until it is removed.
pub(super) fn add(
    store: &FsBlobStore,
    files: &[PathBuf],
    context: ContextId,
    lines: &Lines,
) -> Result<Vec<BlobId>, CommandError> {
    let mut added = Vec::with_capacity(files.len());
    for file in files {
        let stored = store.put_file(file)?;
        store.tag(&tag(context, &stored.id), stored.id)?;
        added.push(stored.id);
        lines.say(Line::Added {
            id: stored.id.to_string(),
            size_bytes: stored.size_bytes,
            file: file.display().to_string(),
        })?;
    }
    Ok(added)
}

pub(super) fn list(store: &FsBlobStore, lines: &Lines) -> Result<(), CommandError> {
    for (id, size_bytes) in store.list() {
        let id = id.to_string();
        lines.say(Line::Blob { id, size_bytes })?;
    }
    for id in store.partials() {
        let id = id.to_string();
        lines.say(Line::Partial { id })?;
    }
    let usage = store.usage();
    lines.say(Line::Usage {
        blobs: usage.blobs,
        used_bytes: usage.used_bytes,
        limit_bytes: usage.limit_bytes,
    })
}

pub(super) fn remove(
    store: &FsBlobStore,
    ids: &[BlobId],
    lines: &Lines,
) -> Result<(), CommandError> {
    let tagged = contexts(store);
    for id in ids {
        for (context, _) in tagged.iter().filter(|(_, tagged)| tagged == id) {
            store.untag(&tag(*context, id))?;
        }
        let partial = store.discard_partial(id)?;
        let whole = store.remove(id)?;
        lines.say(Line::Removed {
            id: id.to_string(),
            was_there: partial || whole,
        })?;
    }
    Ok(())
}

/// Reads blobs again, all of them where none is named, and says which are damaged.
pub(super) fn verify(
    store: &FsBlobStore,
    ids: Vec<BlobId>,
    lines: &Lines,
) -> Result<(), CommandError> {
    let ids = match ids.is_empty() {
        true => store.list().into_iter().map(|(id, _)| id).collect(),
        false => ids,
    };
    let checks = ids.len();
    let mut failed = 0;
    for id in ids {
        let error = store.verify(&id).err();
        failed += usize::from(error.is_some());
        lines.say(Line::Verified {
            id: id.to_string(),
            error: error.map(|error| error.to_string()),
        })?;
    }
    match failed {
        0 => Ok(()),
        failed => Err(CommandError::Checks { failed, checks }),
    }
}
