//! Blobs of a data folder.

use std::path::PathBuf;

use calimero_network::{BlobId, blob::store::FsBlobStore};

use super::lines::Line;
use crate::{error::CommandError, output::Output};

/// Stores files, each until it is removed.
pub(super) fn add(
    store: &FsBlobStore,
    files: &[PathBuf],
    output: &Output,
) -> Result<(), CommandError> {
    for file in files {
        let stored = store.put_file(file)?;
        store.tag(&tag(&stored.id), stored.id)?;
        output.print(&Line::Added {
            id: stored.id.to_string(),
            size_bytes: stored.size_bytes,
            file: file.display().to_string(),
        });
    }
    Ok(())
}

/// The tag that keeps a blob which a command has brought here.
pub(super) fn tag(id: &BlobId) -> String {
    format!("calnet/{id}")
}

pub(super) fn list(store: &FsBlobStore, output: &Output) -> Result<(), CommandError> {
    for (id, size_bytes) in store.list() {
        let id = id.to_string();
        output.print(&Line::Blob { id, size_bytes });
    }
    for id in store.partials() {
        let id = id.to_string();
        output.print(&Line::Partial { id });
    }
    let usage = store.usage();
    output.print(&Line::Usage {
        blobs: usage.blobs,
        used_bytes: usage.used_bytes,
        limit_bytes: usage.limit_bytes,
    });
    Ok(())
}

pub(super) fn remove(
    store: &FsBlobStore,
    ids: &[BlobId],
    output: &Output,
) -> Result<(), CommandError> {
    for id in ids {
        store.untag(&tag(id))?;
        let partial = store.discard_partial(id)?;
        let whole = store.remove(id)?;
        output.print(&Line::Removed {
            id: id.to_string(),
            was_there: partial || whole,
        });
    }
    Ok(())
}

/// Reads blobs again, all of them where none is named, and says which are damaged.
pub(super) fn verify(
    store: &FsBlobStore,
    ids: Vec<BlobId>,
    output: &Output,
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
        output.print(&Line::Verified {
            id: id.to_string(),
            error: error.map(|error| error.to_string()),
        });
    }
    match failed {
        0 => Ok(()),
        failed => Err(CommandError::Checks { failed, checks }),
    }
}
