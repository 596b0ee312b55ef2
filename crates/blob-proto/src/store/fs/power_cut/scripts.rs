//! What is done to a store while the power is cut.

use std::collections::BTreeSet;

use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;

use super::{Expected, FsBlobStore, list, random_scripts};
use crate::{
    BlobId,
    store::{
        StoreError,
        disk::Mode,
        error::io_error,
        fs::{content_name, dead_name, index::Location, pack_name},
    },
};

pub(super) fn content(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 512) as u8 ^ seed).collect()
}

pub(super) fn put(
    store: &FsBlobStore,
    expected: &mut Expected,
    content: &[u8],
) -> Result<BlobId, StoreError> {
    let id = expected.putting(content);
    drop(store.put(content)?);
    expected.present.insert(id);
    Ok(id)
}

pub(super) fn put_batch(
    store: &FsBlobStore,
    expected: &mut Expected,
    contents: &[Vec<u8>],
) -> Result<Vec<BlobId>, StoreError> {
    let ids: Vec<_> = contents
        .iter()
        .map(|content| expected.putting(content))
        .collect();
    let mut batch = store.batch();
    for content in contents {
        batch.add(None, content)?;
    }
    drop(batch.commit()?);
    expected.present.extend(&ids);
    Ok(ids)
}

pub(super) fn remove(
    store: &FsBlobStore,
    expected: &mut Expected,
    id: BlobId,
) -> Result<(), StoreError> {
    expected.removing(id);
    store.remove(&id)?;
    expected.removed.insert(id);
    Ok(())
}

pub(super) fn collect(
    store: &FsBlobStore,
    expected: &mut Expected,
    victims: &[BlobId],
) -> Result<(), StoreError> {
    victims.iter().for_each(|id| expected.removing(*id));
    let collected = store.collect_garbage()?;
    assert_eq!(
        collected.iter().collect::<BTreeSet<_>>(),
        victims.iter().collect()
    );
    expected.removed.extend(victims);
    Ok(())
}

pub(super) fn tag(
    store: &FsBlobStore,
    expected: &mut Expected,
    name: &str,
    id: Option<BlobId>,
) -> Result<(), StoreError> {
    expected.tagging(name, id);
    match id {
        Some(id) => store.tag(name, id)?,
        None => drop(store.untag(name)?),
    }
    expected.tagged(name, id);
    Ok(())
}

/// Sets tags together.
pub(super) fn tag_all(
    store: &FsBlobStore,
    expected: &mut Expected,
    tags: &[(&str, BlobId)],
) -> Result<(), StoreError> {
    for (name, id) in tags {
        expected.tagging(name, Some(*id));
    }
    let owned: Vec<_> = tags
        .iter()
        .map(|(name, id)| ((*name).to_owned(), *id))
        .collect();
    store.tag_all(&owned)?;
    for (name, id) in tags {
        expected.tagged(name, Some(*id));
    }
    Ok(())
}

/// Flips a bit of a blob on the disk and withdraws the blob.
pub(super) fn withdraw(
    store: &FsBlobStore,
    expected: &mut Expected,
    id: BlobId,
) -> Result<(), StoreError> {
    let entry = store.shared.index().entries.get(&id).copied();
    let Some(entry) = entry.filter(|entry| entry.size_bytes > 0) else {
        // What is not here, or cannot be damaged, is not withdrawn.
        assert!(!store.withdraw(&id)?);
        return Ok(());
    };
    expected.removing(id);
    expected.damaged.insert(id);
    let (dir, name, last) = match entry.location {
        Location::File => (&store.shared.blobs, content_name(&id), entry.size_bytes - 1),
        Location::Pack { number, offset, .. } => {
            let last = offset + entry.size_bytes - 1;
            (&store.shared.packs, pack_name(number), last)
        }
    };
    let file = dir.file(&name, Mode::Write)?;
    let mut byte = Vec::new();
    let failed = |error| io_error("damaging", dir.path())(error);
    file.read(&mut byte, 1, last).map_err(failed)?;
    byte[0] ^= 1;
    file.write(&byte, last).map_err(failed)?;
    assert!(store.withdraw(&id)?);
    expected.removed.insert(id);
    Ok(())
}

pub(super) fn puts(store: &FsBlobStore, expected: &mut Expected) -> Result<(), StoreError> {
    let small = put(store, expected, &content(1, 700))?;
    let large = put(store, expected, &content(2, BLOB_CHUNK_BYTES + 9))?;
    // Again, over the first copy.
    put(store, expected, &content(1, 700))?;
    remove(store, expected, large)?;
    remove(store, expected, small)?;
    put(store, expected, &content(2, BLOB_CHUNK_BYTES + 9))?;
    Ok(())
}

pub(super) fn batches(store: &FsBlobStore, expected: &mut Expected) -> Result<(), StoreError> {
    let contents: Vec<_> = (0..4).map(|seed| content(seed, 3000)).collect();
    let ids = put_batch(store, expected, &contents)?;
    // One of the pack gets a file of its own, and is removed from both.
    put(store, expected, &contents[0])?;
    remove(store, expected, ids[0])?;
    put_batch(store, expected, &[contents[0].clone(), content(9, 70_000)])?;
    // The pack becomes sparse and is rewritten, then empty.
    remove(store, expected, ids[1])?;
    remove(store, expected, ids[2])?;
    remove(store, expected, ids[3])?;
    let ids = put_batch(store, expected, &contents)?;
    tag(store, expected, "one", Some(ids[0]))?;
    tag_all(
        store,
        expected,
        &[("one", ids[1]), ("two", ids[2]), ("three", ids[3])],
    )?;
    Ok(())
}

/// Packs with removals become empty without being rewritten before.
pub(super) fn empty_packs(store: &FsBlobStore, expected: &mut Expected) -> Result<(), StoreError> {
    let contents: Vec<_> = (0..4).map(|seed| content(60 + seed, 900)).collect();
    for pair in contents.chunks(2) {
        let ids = put_batch(store, expected, pair)?;
        let packs = || -> Vec<_> { store.shared.index().packs.keys().copied().collect() };
        let before = packs();
        remove(store, expected, ids[0])?;
        assert_eq!(packs(), before, "the pack was rewritten");
        remove(store, expected, ids[1])?;
    }
    Ok(())
}

/// The file of removals is lost while the store is open, and written again by the next removal.
pub(super) fn lost_removals(
    store: &FsBlobStore,
    expected: &mut Expected,
) -> Result<(), StoreError> {
    let contents: Vec<_> = (0..3).map(|seed| content(70 + seed, 900)).collect();
    let ids = put_batch(store, expected, &contents)?;
    let packs: Vec<_> = store.shared.index().packs.keys().copied().collect();
    for number in packs {
        store.shared.packs.remove(&dead_name(number))?;
    }
    store.shared.packs.flush()?;
    remove(store, expected, ids[0])?;
    remove(store, expected, ids[1])?;
    Ok(())
}

pub(super) fn garbage(store: &FsBlobStore, expected: &mut Expected) -> Result<(), StoreError> {
    let contents: Vec<_> = (0..5).map(|seed| content(seed, 2000)).collect();
    let ids = put_batch(store, expected, &contents)?;
    let file = put(store, expected, &content(20, 5000))?;
    tag(store, expected, "one", Some(ids[0]))?;
    tag(store, expected, "two", Some(file))?;
    collect(store, expected, &ids[1..])?;
    tag(store, expected, "two", Some(ids[0]))?;
    collect(store, expected, &[file])?;
    tag(store, expected, "one", None)?;
    tag(store, expected, "two", None)?;
    collect(store, expected, &[ids[0]])?;
    Ok(())
}

pub(super) fn fetches(store: &FsBlobStore, expected: &mut Expected) -> Result<(), StoreError> {
    let content = content(7, BLOB_CHUNK_BYTES + 100);
    let id = expected.putting(&content);
    let chunks: Vec<_> = content.chunks(BLOB_CHUNK_BYTES).collect();
    let partial = store.partial(list(&content))?;
    partial.write(1, chunks[1])?;
    drop(partial);
    let partial = store.partial(list(&content))?;
    partial.write(0, chunks[0])?;
    drop(partial.finish()?);
    expected.present.insert(id);
    remove(store, expected, id)?;
    let partial = store.partial(list(&content))?;
    partial.write(1, chunks[1])?;
    drop(partial);
    // Stored by another way while a part of it is there.
    put(store, expected, &content)?;
    remove(store, expected, id)?;
    let partial = store.partial(list(&content))?;
    partial.write(1, chunks[1])?;
    drop(partial);
    store.discard_partial(&id)?;
    Ok(())
}

pub(super) fn withdrawals(store: &FsBlobStore, expected: &mut Expected) -> Result<(), StoreError> {
    let content = content(8, BLOB_CHUNK_BYTES + 100);
    let id = put(store, expected, &content)?;
    // An intact blob is not withdrawn.
    assert!(!store.withdraw(&id)?);
    withdraw(store, expected, id)?;
    // It is completed from what was kept.
    expected.putting(&content);
    let partial = store.partial(list(&content))?;
    assert_eq!(partial.missing(), 1);
    partial.write(1, &content[BLOB_CHUNK_BYTES..])?;
    drop(partial.finish()?);
    expected.present.insert(id);
    // In a pack, and stored again by a batch that finds the damage.
    let small = self::content(3, 900);
    let ids = put_batch(store, expected, &[small.clone(), self::content(4, 900)])?;
    withdraw(store, expected, ids[0])?;
    put_batch(store, expected, &[small])?;
    Ok(())
}

/// The contents of random scripts: in a pack, in a file, and in several chunks if everything is asked
/// for.
fn sample(which: usize) -> Vec<u8> {
    let last = random_scripts().map_or(65_537, |_| BLOB_CHUNK_BYTES + 9);
    let lens = [0, 700, 3000, 2500, 70_000, last];
    let seed = which % lens.len();
    content(40 + seed as u8, lens[seed])
}

/// Steps of a random script.
const RANDOM_STEPS: usize = 12;

/// Changes in a random order.
pub(super) fn random(
    store: &FsBlobStore,
    expected: &mut Expected,
    seed: u64,
) -> Result<(), StoreError> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % below
    };
    for _ in 0..RANDOM_STEPS {
        let content = sample(next(6));
        let id = crate::blob_id(&content);
        match next(8) {
            0 => drop(put(store, expected, &content)?),
            1 | 2 => {
                let contents: Vec<_> = (0..=next(4)).map(|_| sample(next(6))).collect();
                put_batch(store, expected, &contents)?;
            }
            3 => remove(store, expected, id)?,
            4 => {
                let untagged = expected.present.iter().filter(|id| !expected.is_tagged(id));
                let untagged: Vec<_> = untagged.copied().collect();
                collect(store, expected, &untagged)?;
            }
            5 => {
                let name = ["one", "two"][next(2)];
                tag(store, expected, name, (next(3) > 0).then_some(id))?;
            }
            6 => fetch(store, expected, &content, next(2) == 0)?,
            _ => withdraw(store, expected, id)?,
        }
    }
    Ok(())
}

/// Fetches a blob, or its first chunk alone.
fn fetch(
    store: &FsBlobStore,
    expected: &mut Expected,
    content: &[u8],
    whole: bool,
) -> Result<(), StoreError> {
    let id = expected.putting(content);
    let partial = store.partial(list(content))?;
    for (index, chunk) in content.chunks(BLOB_CHUNK_BYTES).enumerate() {
        if index == 0 || whole {
            partial.write(index, chunk)?;
        }
    }
    if partial.missing() == 0 {
        drop(partial.finish()?);
        expected.present.insert(id);
    }
    Ok(())
}
