//! The state of a partial download: the hashes of all chunks, and the chunks that were written.
//!
//! Format, version 1, integers little-endian:
//!
//! ```text
//! head      "CALPART" (7), version (u8), blob id (32), number of chunks (u32),
//!           SHA-256 of each chunk (32 each), SHA-256 of all before (32)
//! records   for each chunk written: index (u32),
//!           first 8 bytes of SHA-256 of blob id and the 4 bytes of the index
//! ```
//!
//! The head is written once and appears whole; a record is appended after the chunk it speaks of.
//! A head that is damaged, of another version or another blob's starts the download over. Records
//! end at the first that is torn or damaged. A record is a hint where to look, never a proof: who
//! resumes hashes each chunk it names, so not even a disk that lost what it had promised to keep
//! puts an unverified byte into a blob.
//!
//! A change of the format raises the version. A reader of an older version starts over.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::{BlobId, CHUNK_HASH_BYTES, ChunkList, MAX_BLOB_CHUNKS};

const MAGIC: &[u8; 8] = b"CALPART\x01";
const DIGEST_BYTES: usize = 32;
/// Magic, blob id and number of chunks.
const PREFIX_BYTES: usize = 8 + 32 + 4;
pub(super) const RECORD_BYTES: usize = 4 + 8;

/// Longest file of state that is read, in bytes: a list of [`MAX_BLOB_CHUNKS`] hashes, and two
/// records for each. Chunks are written once, so a longer file is foreign.
pub(super) const MAX_STATE_BYTES: u64 =
    (PREFIX_BYTES + DIGEST_BYTES + MAX_BLOB_CHUNKS * (CHUNK_HASH_BYTES + 2 * RECORD_BYTES)) as u64;

/// The state of a partial download, as its file says. Nothing of it is proven but the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialState {
    /// The chunk hashes, proven against the blob id.
    pub list: ChunkList,
    /// Chunks that are said to be there, in the order they were written. All below the number of
    /// chunks, and no more than two for each.
    pub claimed: Vec<u32>,
    /// Length of the part of the file that is whole. The next record belongs here.
    pub valid_bytes: usize,
}

impl PartialState {
    /// Reads a file of state. `None` where its head is torn, damaged, of another version, or does
    /// not belong to a blob.
    #[must_use]
    pub fn decode(file: &Bytes) -> Option<Self> {
        let (magic, rest) = file.split_first_chunk::<8>()?;
        let (id, rest) = rest.split_first_chunk::<32>()?;
        let (chunks, rest) = rest.split_first_chunk()?;
        if magic != MAGIC {
            return None;
        }
        let id = BlobId::new(*id);
        let chunks = usize::try_from(u32::from_le_bytes(*chunks)).ok()?;
        if chunks > MAX_BLOB_CHUNKS {
            return None;
        }
        let digests_bytes = chunks * CHUNK_HASH_BYTES;
        let (_, rest) = rest.split_at_checked(digests_bytes)?;
        let (digest, records) = rest.split_first_chunk::<DIGEST_BYTES>()?;
        let signed_bytes = PREFIX_BYTES + digests_bytes;
        if Sha256::digest(&file[..signed_bytes])[..] != digest[..] {
            return None;
        }
        let list = ChunkList::prove(id, file.slice(PREFIX_BYTES..signed_bytes)).ok()?;
        let claimed: Vec<u32> = records
            .chunks_exact(RECORD_BYTES)
            .map_while(|bytes| read_record(&id, bytes))
            .take_while(|&index| (index as usize) < chunks)
            .take(2 * chunks)
            .collect();
        let valid_bytes = signed_bytes + DIGEST_BYTES + claimed.len() * RECORD_BYTES;
        Some(Self {
            list,
            claimed,
            valid_bytes,
        })
    }
}

/// The head of a new file of state.
pub(super) fn head(list: &ChunkList) -> Vec<u8> {
    let mut head = Vec::with_capacity(PREFIX_BYTES + list.digests().len() + DIGEST_BYTES);
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(list.id().as_bytes());
    // At most MAX_BLOB_CHUNKS.
    head.extend_from_slice(&(list.len() as u32).to_le_bytes());
    head.extend_from_slice(list.digests());
    let digest = Sha256::digest(&head);
    head.extend_from_slice(&digest);
    head
}

/// Says that a chunk was written.
pub(super) fn record(id: &BlobId, index: u32) -> [u8; RECORD_BYTES] {
    let index = index.to_le_bytes();
    let digest = Sha256::new()
        .chain_update(id.as_bytes())
        .chain_update(index)
        .finalize();
    let mut record = [0; RECORD_BYTES];
    record[..4].copy_from_slice(&index);
    record[4..].copy_from_slice(&digest[..8]);
    record
}

fn read_record(id: &BlobId, bytes: &[u8]) -> Option<u32> {
    let index = u32::from_le_bytes(*bytes.first_chunk()?);
    (record(id, index) == bytes).then_some(index)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{PartialState, RECORD_BYTES, head, record};
    use crate::{BlobHasher, ChunkList};

    fn list(content: &[u8]) -> ChunkList {
        let mut hasher = BlobHasher::new();
        hasher.update(content).unwrap();
        hasher.finish().list
    }

    fn file(list: &ChunkList, claimed: &[u32]) -> Vec<u8> {
        let mut file = head(list);
        for index in claimed {
            file.extend_from_slice(&record(&list.id(), *index));
        }
        file
    }

    #[test]
    fn the_format_is_pinned() {
        let list = list(b"abc");
        let file = hex::encode(file(&list, &[0]));
        // The last two fields are computed by another implementation of SHA-256.
        let expected = format!(
            "{}01{}01000000{}{}{}",
            hex::encode("CALPART"),
            list.id().to_hex(),
            // SHA-256 of "abc", FIPS 180-2 appendix B.1.
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "336ac461acfb341cfdfe5a525a2381b2dc75f3e854ad60937afdc78fc62bffe6",
            "000000002df05b79271ea1bb",
        );
        assert_eq!(file, expected);
    }

    #[test]
    fn the_empty_blob_has_a_state() {
        let list = list(b"");
        let state = PartialState::decode(&file(&list, &[]).into()).unwrap();
        assert_eq!((state.list, state.claimed), (list, vec![]));
    }

    #[test]
    fn another_blobs_records_end_the_list() {
        let (ours, other) = (list(&vec![1; 3 << 20]), list(&vec![2; 3 << 20]));
        let mut torn = file(&ours, &[2]);
        let valid_bytes = torn.len();
        torn.extend_from_slice(&record(&other.id(), 1));
        torn.extend_from_slice(&record(&ours.id(), 0));
        let state = PartialState::decode(&torn.into()).unwrap();
        assert_eq!((state.claimed, state.valid_bytes), (vec![2], valid_bytes));
        let beyond = PartialState::decode(&file(&ours, &[1, 3, 2]).into()).unwrap();
        assert_eq!(beyond.claimed, [1]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_torn_file_keeps_whole_records(
            claimed in prop::collection::vec(0..3_u32, 0..6), cut in any::<prop::sample::Index>(),
        ) {
            let list = list(&vec![7; (2 << 20) + 1]);
            let head_bytes = head(&list).len();
            let mut file = file(&list, &claimed);
            file.truncate(cut.index(file.len() + 1));
            let records = file.len().checked_sub(head_bytes).map(|tail| tail / RECORD_BYTES);
            let state = PartialState::decode(&file.into());
            prop_assert_eq!(state.is_some(), records.is_some());
            if let (Some(state), Some(records)) = (state, records) {
                prop_assert_eq!(&state.claimed, &claimed[..records]);
                prop_assert_eq!(state.valid_bytes, head_bytes + records * RECORD_BYTES);
            }
        }

        #[test]
        fn a_changed_head_is_noticed(at in any::<prop::sample::Index>(), bit in 0_u32..8) {
            let list = list(b"some content");
            let mut file = head(&list);
            let at = at.index(file.len());
            file[at] ^= 1_u8 << bit;
            prop_assert_eq!(PartialState::decode(&file.into()), None);
        }

        #[test]
        fn arbitrary_bytes_are_no_state(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(PartialState::decode(&Bytes::from(bytes.clone())), None);
            let headed = [super::MAGIC.as_slice(), &bytes].concat();
            prop_assert_eq!(PartialState::decode(&headed.into()), None);
        }
    }
}
