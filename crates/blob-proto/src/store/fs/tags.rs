//! Names that protect blobs from garbage collection, one file each.
//!
//! The file's name is the SHA-256 of the tag's name in hexadecimal, so a tag may have any name.
//! Format, version 1: "CALTAG01" (8), blob id (32), the name (all up to the digest), SHA-256 of
//! all before (32).

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::dir::Dir;
use crate::{BlobId, store::error::StoreError};

/// Longest name of a tag, in bytes.
pub const MAX_TAG_BYTES: usize = 255;

/// Most tags of a store: 65 536. They are held in memory, about 20 MiB at their longest.
pub const MAX_TAGS: usize = 65_536;

const MAGIC: &[u8; 8] = b"CALTAG01";
const DIGEST_BYTES: usize = 32;

/// Longest file of a tag, in bytes.
const MAX_FILE_BYTES: u64 = (MAGIC.len() + 32 + MAX_TAG_BYTES + DIGEST_BYTES) as u64;

/// The tags, in memory and on the disk alike.
#[derive(Debug)]
pub(super) struct Tags {
    dir: Dir,
    by_name: BTreeMap<String, BlobId>,
    /// Files that cannot be read. What they protect is unknown.
    damaged: usize,
}

impl Tags {
    pub(super) fn open(dir: Dir) -> Result<Self, StoreError> {
        let mut tags = Self {
            by_name: BTreeMap::new(),
            damaged: 0,
            dir,
        };
        for file in tags.dir.sweep()? {
            let content = tags.dir.read(&file, MAX_FILE_BYTES)?;
            let content = content.as_deref().and_then(decode);
            match content.filter(|(name, _)| file_name(name) == file) {
                Some((name, id)) if tags.by_name.len() < MAX_TAGS => {
                    tags.by_name.insert(name.to_owned(), id);
                }
                _ => tags.damaged += 1,
            }
        }
        Ok(tags)
    }

    pub(super) fn damaged(&self) -> usize {
        self.damaged
    }

    pub(super) fn all(&self) -> &BTreeMap<String, BlobId> {
        &self.by_name
    }

    /// Sets tags, each in place of what it protected before.
    pub(super) fn set(&mut self, tags: &[(String, BlobId)]) -> Result<(), StoreError> {
        let mut new = BTreeSet::new();
        for (name, _) in tags {
            if !(1..=MAX_TAG_BYTES).contains(&name.len()) {
                return Err(StoreError::TagName {
                    len_bytes: name.len(),
                    max_bytes: MAX_TAG_BYTES,
                });
            }
            if !self.by_name.contains_key(name) {
                new.insert(name);
            }
        }
        if !new.is_empty() && self.by_name.len() + new.len() > MAX_TAGS {
            return Err(StoreError::TooMany {
                what: "tags",
                max: MAX_TAGS,
            });
        }
        let files = tags
            .iter()
            .map(|(name, id)| (file_name(name), encode(name, *id)));
        self.dir.write_all(files)?;
        self.dir.flush()?;
        self.by_name.extend(tags.iter().cloned());
        Ok(())
    }

    /// Removes a tag and says what it protected.
    pub(super) fn remove(&mut self, name: &str) -> Result<Option<BlobId>, StoreError> {
        if !self.by_name.contains_key(name) {
            return Ok(None);
        }
        self.dir.remove(&file_name(name))?;
        self.dir.flush()?;
        Ok(self.by_name.remove(name))
    }
}

fn file_name(tag: &str) -> String {
    BlobId::new(Sha256::digest(tag).into()).to_hex()
}

fn encode(name: &str, id: BlobId) -> Vec<u8> {
    let mut file = [MAGIC.as_slice(), id.as_bytes(), name.as_bytes()].concat();
    let digest = Sha256::digest(&file);
    file.extend_from_slice(&digest);
    file
}

fn decode(file: &[u8]) -> Option<(&str, BlobId)> {
    let (signed, digest) = file.split_last_chunk::<DIGEST_BYTES>()?;
    let (id, name) = signed.strip_prefix(MAGIC)?.split_first_chunk::<32>()?;
    let whole = name.len() <= MAX_TAG_BYTES && Sha256::digest(signed)[..] == digest[..];
    let name = str::from_utf8(name).ok()?;
    whole.then_some((name, BlobId::new(*id)))
}
