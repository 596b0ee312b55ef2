//! Blobs of a data folder. These functions block on the disk.

use std::{io::Read as _, path::Path};

use calimero_network::{
    BlobId, ContextId,
    blob::{
        BlobHasher, chunk_count,
        store::{FsBlobStore, FsWriter, StoreError, Verification},
    },
};

use super::{
    DEFAULT_CONTEXT,
    files::Source,
    lines::{Line, Usage},
};
use crate::{
    api::StorePage,
    error::{Chain, CommandError},
};

/// What the tags of commands begin with.
const TAG: &str = "calnet/";

/// What the tags of blobs that are not announced begin with.
const PRIVATE_TAG: &str = "calnet-private/";

/// Bytes that are read and stored at one time.
const PIECE_BYTES: usize = 1 << 20;

/// The tag that protects a blob which a command has brought here, for a context.
pub(crate) fn tag(context: ContextId, id: &BlobId) -> String {
    match context == DEFAULT_CONTEXT {
        true => format!("{TAG}{id}"),
        false => format!("{TAG}{context}/{id}"),
    }
}

/// The tag that protects a blob which only the owners of a ticket with a secret may know: one that
/// `calnet send` stored, or that was fetched by such a ticket. It is not announced.
pub(crate) fn private_tag(id: &BlobId) -> String {
    format!("{PRIVATE_TAG}{id}")
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

/// A blob that was stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Added {
    pub(crate) id: BlobId,
    pub(crate) size_bytes: u64,
}

impl Added {
    /// The record of a blob that was read from a file.
    pub(super) fn line(&self, file: &Path) -> Line {
        Line::Added {
            id: self.id.to_string(),
            size_bytes: self.size_bytes,
            file: Some(file.display().to_string()),
        }
    }
}

/// Refuses content of a known size that the quota has no space for, before any of it is read.
pub(crate) fn check_space(store: &FsBlobStore, size_bytes: Option<u64>) -> Result<(), StoreError> {
    let usage = store.usage();
    let wanted_bytes = size_bytes.unwrap_or(0);
    let used_bytes = usage
        .used_bytes
        .saturating_add(usage.partial_bytes)
        .saturating_add(usage.reserved_bytes);
    if wanted_bytes <= usage.limit_bytes.saturating_sub(used_bytes) {
        return Ok(());
    }
    Err(StoreError::Quota {
        limit_bytes: usage.limit_bytes,
        used_bytes,
        partial_bytes: usage.partial_bytes,
        reserved_bytes: usage.reserved_bytes,
        wanted_bytes,
    })
}

/// Stores the content of a source and protects it by a tag until it is removed.
pub(crate) fn add(
    store: &FsBlobStore,
    source: Source,
    tag: impl FnOnce(&BlobId) -> String,
) -> Result<Added, CommandError> {
    check_space(store, source.size_bytes())?;
    finish(store, write(store, source)?, tag)
}

/// Writes the content of a source. It is stored once the writer is finished.
pub(super) fn write(store: &FsBlobStore, mut source: Source) -> Result<FsWriter, CommandError> {
    let mut writer = store.writer()?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match source.read(&mut piece) {
            Ok(0) => break,
            Ok(len) => writer.write(&piece[..len])?,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(source.failed("read", error)),
        }
    }
    source.check_size(writer.size_bytes())?;
    Ok(writer)
}

/// Makes content that is written durable and protects it by a tag until it is removed.
pub(crate) fn finish(
    store: &FsBlobStore,
    writer: FsWriter,
    tag: impl FnOnce(&BlobId) -> String,
) -> Result<Added, CommandError> {
    let stored = writer.finish(None)?;
    store.tag(&tag(&stored.id), stored.id)?;
    Ok(Added {
        id: stored.id,
        size_bytes: stored.size_bytes,
    })
}

/// What the store holds.
pub(crate) fn list(store: &FsBlobStore) -> StorePage {
    let usage = store.usage();
    let blobs = store.list().into_iter();
    StorePage {
        blobs: blobs.map(|(id, size)| (id.to_string(), size)).collect(),
        partials: store.partials().iter().map(ToString::to_string).collect(),
        usage: Usage {
            blobs: usage.blobs,
            used_bytes: usage.used_bytes,
            partials: usage.partials,
            reserved_bytes: usage.reserved_bytes,
            limit_bytes: usage.limit_bytes,
        },
    }
}

impl StorePage {
    /// The same as records.
    pub(super) fn lines(self) -> impl Iterator<Item = Line> {
        let blobs = self.blobs.into_iter();
        let partials = self.partials.into_iter();
        blobs
            .map(|(id, size_bytes)| Line::Blob { id, size_bytes })
            .chain(partials.map(|id| Line::Partial { id }))
            .chain([Line::Usage(self.usage)])
    }
}

/// Removes a blob, its partial download and its tags.
pub(crate) fn remove(store: &FsBlobStore, id: &BlobId) -> Result<Line, CommandError> {
    let tagged = contexts(store);
    for (context, _) in tagged.iter().filter(|(_, tagged)| tagged == id) {
        store.untag(&tag(*context, id))?;
    }
    store.untag(&private_tag(id))?;
    let partial = store.discard_partial(id)?;
    let whole = store.remove(id)?;
    Ok(Line::Removed {
        id: id.to_string(),
        was_there: partial || whole,
    })
}

/// Reads a blob and returns `true` if it has the content of its id, or `false` after damage or a
/// failure.
///
/// # Errors
///
/// [`CommandError::ClientLeft`] within a chunk once `is_wanted` returns `false`.
pub(crate) fn is_intact(
    store: &FsBlobStore,
    id: &BlobId,
    is_wanted: impl Fn() -> bool,
) -> Result<bool, CommandError> {
    let Ok(Some(reader)) = store.reader(id) else {
        return Ok(false);
    };
    let mut hasher = BlobHasher::new();
    for index in 0..chunk_count(reader.size_bytes()) {
        if !is_wanted() {
            return Err(CommandError::ClientLeft);
        }
        let Ok(chunk) = reader.chunk(index) else {
            return Ok(false);
        };
        if hasher.update(&chunk).is_err() {
            return Ok(false);
        }
    }
    Ok(hasher.finish().list.id() == *id)
}

/// Reads a blob and compares it with its id. With `repair`, a damaged blob is withdrawn.
///
/// # Errors
///
/// [`StoreError::NotFound`] if the blob is not in the store.
pub(crate) fn verify(store: &FsBlobStore, id: &BlobId, repair: bool) -> Result<Line, StoreError> {
    let text = id.to_string();
    let damaged = |error: &StoreError, withdrawn| Line::Damaged {
        id: id.to_string(),
        error: Chain(error).to_string(),
        withdrawn,
    };
    Ok(match store.check(id, repair) {
        Ok(Verification::Intact { .. }) => Line::Verified { id: text },
        Ok(Verification::Damaged { withdrawn }) => {
            damaged(&StoreError::Damaged { id: *id }, withdrawn)
        }
        Ok(Verification::Missing) => return Err(StoreError::NotFound { id: *id }),
        Err(error @ StoreError::NotFound { .. }) => return Err(error),
        Err(error) => damaged(&error, false),
    })
}
