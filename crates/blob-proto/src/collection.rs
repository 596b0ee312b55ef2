//! A folder, or many files, under one blob id. Pure: bytes in, values out.
//!
//! A collection is a blob that lists other blobs with their names. `docs/protocol.md` specifies its
//! bytes, `testdata/blob-collection.json` holds vectors:
//!
//! ```text
//! "CALCOLL\x01" (8), number of entries (number), then for each entry, in ascending order of the
//! bytes of its path: length of the path (number), path (UTF-8), flags (1 byte: 01 executable),
//! size in bytes (number), blob id (32)
//! ```
//!
//! Numbers are unsigned varints in their shortest form. A path that could leave the folder that a
//! collection is written to cannot be made: see [`EntryPath`].

use std::{fmt, path::PathBuf, str::FromStr};

use unsigned_varint::encode;

use crate::{BlobId, MAX_BLOB_BYTES, varint};

/// Largest encoded collection that is read, in bytes: 64 MiB, about a million entries. Bounds what
/// a collection costs in memory.
pub const MAX_COLLECTION_BYTES: u64 = 64 * 1024 * 1024;

/// Longest path of an entry, in bytes: 4096, the limit of Linux.
pub const MAX_PATH_BYTES: usize = 4096;

/// Longest component of a path, in bytes: 255, the limit of most file systems.
pub const MAX_COMPONENT_BYTES: usize = 255;

const MAGIC: &[u8; 8] = b"CALCOLL\x01";
const EXECUTABLE: u8 = 0x01;

/// Smallest entry, in bytes: a path of one byte and a size below 128.
const MIN_ENTRY_BYTES: usize = 1 + 1 + 1 + 1 + 32;

/// Why a path or a collection was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CollectionError {
    /// The path could leave its folder, or cannot be written on every file system.
    #[error("the path {path:?} is refused: {reason}")]
    Path {
        /// The path that was refused.
        path: String,
        /// What is wrong about it.
        reason: &'static str,
    },
    /// Two entries have the same path, or a file is also the folder of another one.
    #[error("the paths {first:?} and {second:?} cannot both exist")]
    Conflict {
        /// The first of the paths.
        first: String,
        /// The second of the paths.
        second: String,
    },
    /// The bytes are no collection of a known version, or a malformed one.
    #[error("malformed collection: {reason}")]
    Malformed {
        /// What is wrong about it.
        reason: &'static str,
    },
    /// The collection is too large.
    #[error("a collection of {len_bytes} bytes, at most {max_bytes} are allowed")]
    TooLarge {
        /// Length of the collection, in bytes.
        len_bytes: u64,
        /// Largest that is allowed, in bytes.
        max_bytes: u64,
    },
}

/// Folders of a collection, at most: 262,144. A few large names of empty files could otherwise stand
/// for millions of folders.
const MAX_FOLDERS: usize = 1 << 18;

/// Returns the folders that files, ordered by path, are in, each with one of its files. A folder
/// whose files have others between them occurs again; one that a file shares with the file before
/// does not.
fn folders(entries: &[Entry]) -> impl Iterator<Item = (&str, &Entry)> {
    let mut before = "";
    entries.iter().flat_map(move |entry| {
        let path = entry.path.as_str();
        let shared = before.split('/').zip(path.split('/'));
        let shared = shared.take_while(|(a, b)| a == b).count();
        before = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let ends = path.match_indices('/').skip(shared);
        ends.map(move |(end, _)| (&path[..end], entry))
    })
}

/// The path of a file in a collection: relative, with `/` between its components.
///
/// A value of this type stays below the folder that it is joined to: it has no empty component, no
/// `.` and no `..`, no root, no backslash, no drive letter and no control character.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryPath(String);

impl EntryPath {
    /// Returns the path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the path below a folder.
    #[must_use]
    pub fn below(&self, folder: impl Into<PathBuf>) -> PathBuf {
        let mut path = folder.into();
        path.extend(self.0.split('/'));
        path
    }
}

impl FromStr for EntryPath {
    type Err = CollectionError;

    fn from_str(path: &str) -> Result<Self, CollectionError> {
        let refuse = |reason| {
            let path = path.chars().take(MAX_COMPONENT_BYTES).collect();
            Err(CollectionError::Path { path, reason })
        };
        if path.len() > MAX_PATH_BYTES {
            return refuse("it is longer than 4096 bytes");
        }
        // A backslash separates components on Windows, a colon ends a drive letter there.
        if path.contains(|c: char| c.is_control() || c == '\\' || c == ':') {
            return refuse("it contains a control character, a backslash or a colon");
        }
        for component in path.split('/') {
            match component {
                "" => return refuse("a component is empty"),
                "." | ".." => return refuse("a component is a dot or two dots"),
                long if long.len() > MAX_COMPONENT_BYTES => {
                    return refuse("a component is longer than 255 bytes");
                }
                _ => {}
            }
        }
        Ok(Self(path.to_owned()))
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A file of a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path of the file below the folder.
    pub path: EntryPath,
    /// Whether the file is a program.
    pub executable: bool,
    /// Size of the file, in bytes, as the maker of the collection claims.
    pub size_bytes: u64,
    /// The blob with the content of the file.
    pub id: BlobId,
}

/// A list of files, ordered by path. No two of them exclude each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collection {
    entries: Vec<Entry>,
}

impl Collection {
    /// Makes a collection of files in any order.
    ///
    /// # Errors
    ///
    /// [`CollectionError::Conflict`] where a path occurs twice, or is the folder of another one;
    /// [`CollectionError::Malformed`] where a size is above [`MAX_BLOB_BYTES`].
    pub fn new(mut entries: Vec<Entry>) -> Result<Self, CollectionError> {
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Self::of_sorted(entries)
    }

    fn of_sorted(entries: Vec<Entry>) -> Result<Self, CollectionError> {
        if entries
            .iter()
            .any(|entry| entry.size_bytes > MAX_BLOB_BYTES)
        {
            let reason = "a file is larger than a blob may be";
            return Err(CollectionError::Malformed { reason });
        }
        let conflict = |first: &Entry, second: &Entry| CollectionError::Conflict {
            first: first.path.to_string(),
            second: second.path.to_string(),
        };
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].path >= pair[1].path) {
            return Err(conflict(&pair[0], &pair[1]));
        }
        // Counted first, because each is looked up below.
        if folders(&entries).count() > MAX_FOLDERS {
            let reason = "it has more than 262,144 folders";
            return Err(CollectionError::Malformed { reason });
        }
        // "a" is a folder of "a/b", with "a-b" between the two in this order.
        for (folder, entry) in folders(&entries) {
            let found = entries.binary_search_by(|other| other.path.0.as_str().cmp(folder));
            if let Ok(found) = found {
                return Err(conflict(&entries[found], entry));
            }
        }
        Ok(Self { entries })
    }

    /// Returns the files, ordered by path.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the sum of the sizes of all files, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let sizes = self.entries.iter().map(|entry| entry.size_bytes);
        sizes.fold(0, u64::saturating_add)
    }

    /// Writes the content of the blob that is the collection.
    ///
    /// # Errors
    ///
    /// [`CollectionError::TooLarge`] above [`MAX_COLLECTION_BYTES`].
    pub fn encode(&self) -> Result<Vec<u8>, CollectionError> {
        let mut to = MAGIC.to_vec();
        put_number(&mut to, self.entries.len() as u64);
        for entry in &self.entries {
            put_number(&mut to, entry.path.0.len() as u64);
            to.extend_from_slice(entry.path.0.as_bytes());
            to.push(if entry.executable { EXECUTABLE } else { 0 });
            put_number(&mut to, entry.size_bytes);
            to.extend_from_slice(entry.id.as_bytes());
        }
        check_len(to.len())?;
        Ok(to)
    }

    /// Reads the content of the blob that is the collection. Allocates no more than a small
    /// multiple of its length.
    ///
    /// # Errors
    ///
    /// [`CollectionError`] with what is wrong.
    pub fn decode(content: &[u8]) -> Result<Self, CollectionError> {
        let malformed = |reason| CollectionError::Malformed { reason };
        check_len(content.len())?;
        let rest = content.strip_prefix(MAGIC);
        let mut rest = rest.ok_or(malformed("it does not begin with the name of the format"))?;
        let from = &mut rest;
        let count = take_number(from)?;
        if count > (from.len() / MIN_ENTRY_BYTES) as u64 {
            return Err(malformed("it is shorter than its entries"));
        }
        let mut entries: Vec<Entry> = Vec::new();
        for _ in 0..count {
            let len = usize::try_from(take_number(from)?).unwrap_or(usize::MAX);
            let path =
                str::from_utf8(take(from, len)?).map_err(|_| malformed("a path is not UTF-8"))?;
            let path: EntryPath = path.parse()?;
            let executable = match take(from, 1)? {
                [0] => false,
                [EXECUTABLE] => true,
                _ => return Err(malformed("unknown flags")),
            };
            let size_bytes = take_number(from)?;
            let id: [u8; 32] = take(from, 32)?
                .try_into()
                .map_err(|_| malformed("a blob id is cut"))?;
            entries.push(Entry {
                path,
                executable,
                size_bytes,
                id: id.into(),
            });
        }
        if !from.is_empty() {
            return Err(malformed("bytes follow the last entry"));
        }
        Self::of_sorted(entries)
    }
}

fn check_len(len: usize) -> Result<(), CollectionError> {
    let (len_bytes, max_bytes) = (len as u64, MAX_COLLECTION_BYTES);
    match len_bytes > max_bytes {
        true => Err(CollectionError::TooLarge {
            len_bytes,
            max_bytes,
        }),
        false => Ok(()),
    }
}

fn put_number(to: &mut Vec<u8>, number: u64) {
    let mut buffer = encode::u64_buffer();
    to.extend_from_slice(encode::u64(number, &mut buffer));
}

fn take_number(from: &mut &[u8]) -> Result<u64, CollectionError> {
    let (number, rest) = varint::read(from).map_err(|_| CollectionError::Malformed {
        reason: "a number is cut or not in its shortest form",
    })?;
    *from = rest;
    Ok(number)
}

fn take<'a>(from: &mut &'a [u8], len: usize) -> Result<&'a [u8], CollectionError> {
    let (taken, rest) = from
        .split_at_checked(len)
        .ok_or(CollectionError::Malformed {
            reason: "it is shorter than its entries",
        })?;
    *from = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests;
