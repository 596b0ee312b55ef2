//! Many small blobs in one file, so that a batch of them costs one flush of the disk.
//!
//! A pack is written once and never changed. Format, version 1, integers little-endian:
//!
//! ```text
//! content   the blobs, one after another
//! index     for each blob: id (32), offset (u64), length (u32)
//! footer    "CALPACK1" (8), number of blobs (u32), offset of the index (u64),
//!           SHA-256 of the index and of the 20 bytes before this field (32)
//! ```
//!
//! Which of its blobs are removed stands in a file beside it, replaced as a whole:
//!
//! ```text
//! "CALDEAD1" (8), one bit for each blob (lowest bit first), SHA-256 of all before (32)
//! ```
//!
//! A damaged file of removals removes nothing: a blob that returns does less harm than a lost one.

use std::{fs::File, io, os::unix::fs::FileExt};

use sha2::{Digest, Sha256};

use crate::BlobId;

/// Largest blob that is put into a pack, in bytes: 64 KiB. Beyond it, a file of its own costs
/// little beside the content.
pub const PACK_MAX_BLOB_BYTES: usize = 64 * 1024;

/// Content after which a batch begins another pack, in bytes: 64 MiB, what is copied at most when
/// a pack with many removals is written anew.
pub const PACK_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Blobs after which a batch begins another pack. Bounds the index that is read at once to
/// 2.8 MiB.
pub const PACK_MAX_ENTRIES: usize = 65_536;

const MAGIC: &[u8; 8] = b"CALPACK1";
const DEAD_MAGIC: &[u8; 8] = b"CALDEAD1";
const ENTRY_BYTES: usize = 32 + 8 + 4;
const DIGEST_BYTES: usize = 32;
const FOOTER_BYTES: usize = 8 + 4 + 8 + DIGEST_BYTES;

/// Where a blob is in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackEntry {
    pub(super) id: BlobId,
    pub(super) offset: u64,
    pub(super) len_bytes: u32,
}

/// The index at the end of a pack of small blobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackIndex {
    entries: Vec<PackEntry>,
    content_bytes: u64,
}

impl PackIndex {
    pub(super) fn entries(&self) -> &[PackEntry] {
        &self.entries
    }

    pub(super) fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    /// Number of blobs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the pack holds no blob.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether another blob goes into another pack.
    pub(super) fn is_full(&self) -> bool {
        self.content_bytes >= PACK_MAX_BYTES || self.entries.len() >= PACK_MAX_ENTRIES
    }

    /// Notes the next blob.
    pub(super) fn push(&mut self, id: BlobId, len_bytes: u32) {
        self.entries.push(PackEntry {
            id,
            offset: self.content_bytes,
            len_bytes,
        });
        self.content_bytes += u64::from(len_bytes);
    }

    /// What follows the content.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut tail = Vec::with_capacity(self.entries.len() * ENTRY_BYTES + FOOTER_BYTES);
        for entry in &self.entries {
            tail.extend_from_slice(entry.id.as_bytes());
            tail.extend_from_slice(&entry.offset.to_le_bytes());
            tail.extend_from_slice(&entry.len_bytes.to_le_bytes());
        }
        tail.extend_from_slice(MAGIC);
        // At most PACK_MAX_ENTRIES.
        tail.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        tail.extend_from_slice(&self.content_bytes.to_le_bytes());
        let digest = Sha256::digest(&tail);
        tail.extend_from_slice(&digest);
        tail
    }

    /// Reads what follows the content of a pack of `pack_bytes`. `tail` is the end of the pack,
    /// with all of the index; whatever of the content precedes it is ignored. `None` where it is
    /// no pack, or a damaged one.
    #[must_use]
    pub fn decode(tail: &[u8], pack_bytes: u64) -> Option<Self> {
        let (count, content_bytes) = read_footer(tail)?;
        let tail_bytes = count.checked_mul(ENTRY_BYTES)?.checked_add(FOOTER_BYTES)?;
        if content_bytes.checked_add(tail_bytes as u64)? != pack_bytes {
            return None;
        }
        let tail = &tail[tail.len().checked_sub(tail_bytes)?..];
        let (signed, digest) = tail.split_last_chunk::<DIGEST_BYTES>()?;
        if Sha256::digest(signed)[..] != digest[..] {
            return None;
        }
        let mut index = Self::default();
        for entry in signed[..count * ENTRY_BYTES].chunks_exact(ENTRY_BYTES) {
            let (id, place) = entry.split_first_chunk::<32>()?;
            let (offset, len) = place.split_first_chunk::<8>()?;
            if u64::from_le_bytes(*offset) != index.content_bytes {
                return None;
            }
            index.push((*id).into(), u32::from_le_bytes(len.try_into().ok()?));
        }
        (index.content_bytes == content_bytes).then_some(index)
    }

    /// Reads the index of a pack file. `Ok(None)` where it is no pack, or a damaged one.
    pub(super) fn read(file: &File) -> io::Result<Option<Self>> {
        let pack_bytes = file.metadata()?.len();
        let mut footer = [0; FOOTER_BYTES];
        let Some(footer_at) = pack_bytes.checked_sub(FOOTER_BYTES as u64) else {
            return Ok(None);
        };
        file.read_exact_at(&mut footer, footer_at)?;
        let Some((count, content_bytes)) = read_footer(&footer) else {
            return Ok(None);
        };
        // The count is bounded, so this allocates at most a full index.
        let mut tail = vec![0; count * ENTRY_BYTES + FOOTER_BYTES];
        if content_bytes.checked_add(tail.len() as u64) != Some(pack_bytes) {
            return Ok(None);
        }
        file.read_exact_at(&mut tail, content_bytes)?;
        Ok(Self::decode(&tail, pack_bytes))
    }
}

/// Number of blobs, bounded, and offset of the index.
fn read_footer(tail: &[u8]) -> Option<(usize, u64)> {
    let footer = tail.last_chunk::<FOOTER_BYTES>()?;
    let footer = footer.strip_prefix(MAGIC)?;
    let (count, footer) = footer.split_first_chunk()?;
    let (content_bytes, _) = footer.split_first_chunk()?;
    let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    (count <= PACK_MAX_ENTRIES).then_some((count, u64::from_le_bytes(*content_bytes)))
}

/// Which blobs of a pack are removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dead {
    bits: Vec<u8>,
}

impl Dead {
    pub(super) fn none(entries: usize) -> Self {
        Self {
            bits: vec![0; entries.div_ceil(8)],
        }
    }

    pub(super) fn contains(&self, entry: usize) -> bool {
        self.bits
            .get(entry / 8)
            .is_some_and(|bits| bits & (1 << (entry % 8)) != 0)
    }

    pub(super) fn insert(&mut self, entry: usize) {
        if let Some(bits) = self.bits.get_mut(entry / 8) {
            *bits |= 1 << (entry % 8);
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut file = [DEAD_MAGIC.as_slice(), &self.bits].concat();
        let digest = Sha256::digest(&file);
        file.extend_from_slice(&digest);
        file
    }

    pub(super) fn decode(file: &[u8], entries: usize) -> Option<Self> {
        let (signed, digest) = file.split_last_chunk::<DIGEST_BYTES>()?;
        let bits = signed.strip_prefix(DEAD_MAGIC)?;
        let whole = bits.len() == entries.div_ceil(8) && Sha256::digest(signed)[..] == digest[..];
        whole.then(|| Self {
            bits: bits.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Dead, PackIndex};

    fn index(lens: &[u32]) -> PackIndex {
        let mut index = PackIndex::default();
        for (number, len) in lens.iter().enumerate() {
            index.push([number as u8; 32].into(), *len);
        }
        index
    }

    #[test]
    fn the_format_is_pinned() {
        let tail = index(&[3]).encode();
        let (signed, digest) = tail.split_last_chunk::<32>().unwrap();
        let expected = format!(
            "{}{}{}{}{}{}",
            "00".repeat(32),
            "0000000000000000",
            "03000000",
            hex::encode("CALPACK1"),
            "01000000",
            "0300000000000000"
        );
        assert_eq!(hex::encode(signed), expected);
        assert_eq!(
            hex::encode(digest),
            "ae30b1bb9a07e7543fe5d807e2f2cfd137999083fcfb1044ca1379b73d2c6ef7"
        );
    }

    proptest! {
        #[test]
        fn an_index_survives_a_round_trip(lens in prop::collection::vec(any::<u32>(), 0..40)) {
            let index = index(&lens);
            let tail = index.encode();
            let pack_bytes = index.content_bytes() + tail.len() as u64;
            prop_assert_eq!(PackIndex::decode(&tail, pack_bytes), Some(index));
            prop_assert_eq!(PackIndex::decode(&tail, pack_bytes + 1), None);
        }

        #[test]
        fn a_changed_index_is_noticed(
            lens in prop::collection::vec(any::<u32>(), 1..9), at in any::<prop::sample::Index>(),
            bit in 0_u32..8,
        ) {
            let index = index(&lens);
            let mut tail = index.encode();
            let pack_bytes = index.content_bytes() + tail.len() as u64;
            let at = at.index(tail.len());
            tail[at] ^= 1_u8 << bit;
            prop_assert_eq!(PackIndex::decode(&tail, pack_bytes), None);
        }

        #[test]
        fn arbitrary_bytes_are_no_index(
            tail in prop::collection::vec(any::<u8>(), 0..200), pack_bytes in any::<u64>(),
        ) {
            prop_assert_eq!(PackIndex::decode(&tail, pack_bytes), None);
            prop_assert_eq!(Dead::decode(&tail, 800), None);
        }

        #[test]
        fn removals_survive_a_round_trip(entries in 1..100_usize, picks in any::<[usize; 5]>()) {
            let mut dead = Dead::none(entries);
            picks.iter().for_each(|pick| dead.insert(pick % entries));
            let read = Dead::decode(&dead.encode(), entries).unwrap();
            for entry in 0..entries {
                let picked = picks.iter().any(|pick| pick % entries == entry);
                prop_assert_eq!(read.contains(entry), picked);
            }
            prop_assert_eq!(Dead::decode(&dead.encode(), entries + 8), None);
        }
    }
}
