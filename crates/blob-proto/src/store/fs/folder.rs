//! A folder of the user, stored as a collection.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{FsBlobStore, PACK_MAX_BLOB_BYTES, write::open_regular};
use crate::{
    collection::{Collection, CollectionError, Entry, EntryPath},
    store::{
        Hold, Stored,
        error::{StoreError, io_error},
    },
};

/// Content of small files that becomes durable together, in bytes: 64 MiB, one pack.
const BATCH_BYTES: u64 = super::PACK_MAX_BYTES;

/// A folder that is stored.
#[derive(Debug)]
pub struct StoredFolder {
    /// The blob that is the collection.
    pub stored: Stored,
    /// The files of the folder.
    pub collection: Collection,
    /// Keep the files from garbage collection until they are tagged.
    pub holds: Vec<Hold>,
}

impl FsBlobStore {
    /// Stores all regular files below a folder, and a collection of them. Small files become
    /// durable together: 64 MiB of them cost one flush. Symbolic links are not followed.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotRegular`] for a link, a device, a pipe or a socket,
    /// [`StoreError::Collection`] for a name that a collection cannot have, as
    /// [`put_file`](Self::put_file), and what the system refuses.
    pub fn put_folder(&self, folder: impl AsRef<Path>) -> Result<StoredFolder, StoreError> {
        let folder = folder.as_ref();
        let mut files = Vec::new();
        walk(folder, &mut files)?;
        files.sort();
        let mut entries = Vec::with_capacity(files.len());
        let mut holds = Vec::new();
        let (mut batch, mut batch_bytes) = (self.batch(), 0);
        for path in files {
            let (mut file, size_bytes) = open_regular(&path)?;
            let metadata = file.metadata().map_err(io_error("reading", &path))?;
            let small = match size_bytes <= PACK_MAX_BLOB_BYTES as u64 {
                true => read_small(&mut file, &path)?,
                false => None,
            };
            let (id, size_bytes) = match small {
                Some(content) => {
                    batch_bytes += content.len() as u64;
                    (batch.add(None, &content)?, content.len() as u64)
                }
                None => {
                    let stored = self.put_file(&path)?;
                    holds.push(stored.hold);
                    (stored.id, stored.size_bytes)
                }
            };
            entries.push(Entry {
                path: entry_path(folder, &path)?,
                executable: metadata.mode() & 0o111 != 0,
                size_bytes,
                id,
            });
            if batch_bytes >= BATCH_BYTES {
                batch_bytes = 0;
                let full = std::mem::replace(&mut batch, self.batch());
                holds.push(full.commit()?.hold);
            }
        }
        holds.push(batch.commit()?.hold);
        let collection = Collection::new(entries)?;
        let stored = self.put(&collection.encode()?)?;
        Ok(StoredFolder {
            stored,
            collection,
            holds,
        })
    }
}

/// Reads a small file. `None` where it has grown since its size was read.
fn read_small(file: &mut File, path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let mut content = Vec::new();
    let limit = PACK_MAX_BLOB_BYTES as u64 + 1;
    let read = file.by_ref().take(limit).read_to_end(&mut content);
    read.map_err(io_error("reading", path))?;
    Ok((content.len() <= PACK_MAX_BLOB_BYTES).then_some(content))
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), StoreError> {
    let failed = || io_error("listing", folder);
    for entry in fs::read_dir(folder).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let path = entry.path();
        let kind = entry.file_type().map_err(failed())?;
        if kind.is_dir() {
            walk(&path, files)?;
        } else if kind.is_file() {
            files.push(path);
        } else {
            return Err(StoreError::NotRegular { path });
        }
    }
    Ok(())
}

fn entry_path(folder: &Path, path: &Path) -> Result<EntryPath, StoreError> {
    let below = path.strip_prefix(folder).unwrap_or(path);
    let Some(text) = below.to_str() else {
        let (path, reason) = (below.display().to_string(), "it is not UTF-8");
        return Err(CollectionError::Path { path, reason }.into());
    };
    Ok(text.parse()?)
}

#[cfg(test)]
mod tests;
