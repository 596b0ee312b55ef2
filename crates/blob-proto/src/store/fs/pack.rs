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
//! A second file says which of its blobs are removed. It gets its full length when the pack is
//! written, so that a removal overwrites one byte and needs no free space:
//!
//! ```text
//! "CALDEAD2" (8), for each blob one byte: 00 while it is stored, ff once it is removed
//! ```
//!
//! Of a byte that has another value the majority of its bits counts. A missing or foreign file
//! removes nothing: a blob that returns does less harm than a lost one. Version 1 ("CALDEAD1", one
//! bit for each blob, SHA-256 of all before) is read and replaced when the store is opened.

use std::io;

use sha2::{Digest, Sha256};

use crate::{BlobId, store::disk::DiskFile};

/// Largest blob that is put into a pack, in bytes: 64 KiB. Beyond it, a file of its own costs
/// little in proportion to its content.
pub const PACK_MAX_BLOB_BYTES: usize = 64 * 1024;

/// Content after which a batch begins another pack, in bytes: 64 MiB, what is copied at most when
/// a pack with many removals is rewritten.
pub const PACK_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Blobs after which a batch begins another pack. Bounds the index that is read at once to
/// 2.8 MiB.
pub const PACK_MAX_ENTRIES: usize = 65_536;

const MAGIC: &[u8; 8] = b"CALPACK1";
const DEAD_MAGIC: &[u8; 8] = b"CALDEAD2";
const DEAD_V1_MAGIC: &[u8; 8] = b"CALDEAD1";
/// The byte of a removed blob.
pub(super) const REMOVED: u8 = 0xff;
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

    /// Returns the number of blobs.
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
    pub(super) fn read(file: &dyn DiskFile) -> io::Result<Option<Self>> {
        let pack_bytes = file.len()?;
        let mut footer = Vec::new();
        let Some(footer_at) = pack_bytes.checked_sub(FOOTER_BYTES as u64) else {
            return Ok(None);
        };
        file.read(&mut footer, FOOTER_BYTES, footer_at)?;
        let Some((count, content_bytes)) = read_footer(&footer) else {
            return Ok(None);
        };
        // The count is bounded, so this allocates at most a full index.
        let tail_bytes = count * ENTRY_BYTES + FOOTER_BYTES;
        if content_bytes.checked_add(tail_bytes as u64) != Some(pack_bytes) {
            return Ok(None);
        }
        let mut tail = Vec::new();
        file.read(&mut tail, tail_bytes, content_bytes)?;
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

/// Which blobs of a pack are removed: one byte for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dead {
    marks: Vec<u8>,
}

/// Offset in the file of removals of the byte of an entry.
pub(super) fn dead_offset(entry: u32) -> u64 {
    DEAD_MAGIC.len() as u64 + u64::from(entry)
}

/// Length of the file of removals of a pack with that many blobs, in bytes.
pub(super) fn dead_len(entries: usize) -> u64 {
    (DEAD_MAGIC.len() + entries) as u64
}

impl Dead {
    pub(super) fn none(entries: usize) -> Self {
        Self {
            marks: vec![0; entries],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.marks.len()
    }

    pub(super) fn contains(&self, entry: usize) -> bool {
        let mark = self.marks.get(entry);
        mark.is_some_and(|mark| mark.count_ones() > 4)
    }

    pub(super) fn insert(&mut self, entry: usize) {
        if let Some(mark) = self.marks.get_mut(entry) {
            *mark = REMOVED;
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        [DEAD_MAGIC.as_slice(), &self.marks].concat()
    }

    /// Reads a file of removals. The flag is `true` where the file is of the current version.
    pub(super) fn decode(file: &[u8], entries: usize) -> Option<(Self, bool)> {
        if let Some(marks) = file.strip_prefix(DEAD_MAGIC) {
            let marks = marks.to_vec();
            return (marks.len() == entries).then_some((Self { marks }, true));
        }
        let (signed, digest) = file.split_last_chunk::<DIGEST_BYTES>()?;
        let bits = signed.strip_prefix(DEAD_V1_MAGIC)?;
        if bits.len() != entries.div_ceil(8) || Sha256::digest(signed)[..] != digest[..] {
            return None;
        }
        let mut dead = Self::none(entries);
        let removed = |entry: &usize| bits[entry / 8] & (1 << (entry % 8)) != 0;
        (0..entries)
            .filter(removed)
            .for_each(|entry| dead.insert(entry));
        Some((dead, false))
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

    #[test]
    fn removals_of_version_1_are_read_and_one_flipped_bit_removes_nothing() {
        use sha2::{Digest, Sha256};
        let mut file = [b"CALDEAD1".as_slice(), &[0b101, 0b1]].concat();
        let digest = Sha256::digest(&file);
        file.extend_from_slice(&digest);
        let (dead, current) = Dead::decode(&file, 9).unwrap();
        assert!(!current);
        let removed: Vec<_> = (0..9).filter(|entry| dead.contains(*entry)).collect();
        assert_eq!(removed, [0, 2, 8]);
        for bit in 0..8 {
            let mut file = Dead::none(1).encode();
            file[8] ^= 1 << bit;
            assert!(!Dead::decode(&file, 1).unwrap().0.contains(0));
            file[8] = 0xff ^ (1 << bit);
            assert!(Dead::decode(&file, 1).unwrap().0.contains(0));
        }
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
            let (read, current) = Dead::decode(&dead.encode(), entries).unwrap();
            prop_assert!(current);
            for entry in 0..entries {
                let picked = picks.iter().any(|pick| pick % entries == entry);
                prop_assert_eq!(read.contains(entry), picked);
            }
            prop_assert_eq!(Dead::decode(&dead.encode(), entries + 8), None);
        }
    }
}
