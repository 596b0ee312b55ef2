//! Opening the folder: finished blobs are shown, unfinished files are deleted.

use std::{
    collections::HashSet,
    io,
    path::Path,
    sync::{Arc, Mutex},
};

use super::{
    FsConfig, Shared, dead_name,
    dir::{Dir, is_temporary},
    hashes_name,
    index::{Entry, Index, Location, MAX_PARTIALS, PartialInfo},
    pack::{Dead, PackIndex, dead_len},
    pack_name, part_name,
    partial::{is_expired, read_state},
    state_name,
    tags::Tags,
};
use crate::{
    BlobId,
    clock::unix_seconds,
    id::CHUNK_BYTES,
    store::{
        disk::{Disk, Lock, Mode},
        error::{StoreError, io_error},
    },
};

/// Content of the file that names the format.
const FORMAT: &[u8] = b"calimero blob store 1\n";

/// Longest file of the format that is read, in bytes: a later version may say more.
const FORMAT_MAX_BYTES: u64 = 1024;

pub(super) fn open(
    disk: &Arc<dyn Disk>,
    path: &Path,
    config: &FsConfig,
) -> Result<Shared, StoreError> {
    let (root, parents) = Dir::open(disk, path.to_owned())?;
    refuse_foreign(&root)?;
    let lock = lock(&root)?;
    check_format(&root)?;
    // The folder is a store of this version: nothing of a folder that is refused is changed.
    root.make_private();
    let mut index = Index::new(config.max_bytes);
    let blobs = root.subfolder("blobs")?;
    blobs.make_private();
    load_blobs(&blobs, &mut index)?;
    let packs = root.subfolder("packs")?;
    packs.make_private();
    load_packs(&packs, &mut index)?;
    let tags = root.subfolder("tags")?;
    tags.make_private();
    let tags = Tags::open(tags)?;
    root.flush()?;
    // Or the whole store could be lost with its own name.
    for parent in parents {
        match disk.sync_dir(&parent) {
            // A folder that the user may write to and not read cannot be flushed.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            flushed => flushed.map_err(io_error("flushing", &parent))?,
        }
    }
    Ok(Shared {
        blobs,
        packs,
        index: Mutex::new(index),
        tags: Mutex::new(tags),
        publishing: Mutex::new(()),
        limit_bytes: config.max_bytes,
        public: config.public,
        _lock: lock,
    })
}

/// Refuses a folder that holds files, but no store: they must not be deleted.
fn refuse_foreign(root: &Dir) -> Result<(), StoreError> {
    let path = root.path();
    let files = root.disk().files(path).map_err(io_error("listing", path))?;
    // A process that is interrupted while it creates the store leaves the other two.
    let foreign = |name: &String| name != "lock" && !is_temporary(name);
    if files.iter().any(|name| name == "format") || !files.iter().any(foreign) {
        return Ok(());
    }
    Err(StoreError::Format {
        path: path.to_owned(),
    })
}

/// Locks the store for this process. The system unlocks it however the process ends.
fn lock(root: &Dir) -> Result<Lock, StoreError> {
    let path = root.join("lock");
    let locked = root
        .disk()
        .lock(&path)
        .map_err(io_error("locking", &path))?;
    locked.ok_or_else(|| StoreError::Locked {
        path: root.path().to_owned(),
    })
}

fn check_format(root: &Dir) -> Result<(), StoreError> {
    let names = root.sweep()?;
    if !names.iter().any(|name| name == "format") {
        root.write("format", FORMAT)?;
        return root.flush();
    }
    match root.read("format", FORMAT_MAX_BYTES)? {
        Some(found) if found == FORMAT => Ok(()),
        _ => Err(StoreError::Format {
            path: root.join("format"),
        }),
    }
}

fn load_blobs(dir: &Dir, index: &mut Index) -> Result<(), StoreError> {
    let mut endings = Vec::new();
    for name in dir.sweep()? {
        let (stem, ending) = name.split_once('.').unwrap_or((&name, ""));
        let Ok(id) = BlobId::from_hex(stem) else {
            continue;
        };
        if ending.is_empty() {
            let file = dir.file(&name, Mode::Read)?;
            let size_bytes = file.len().map_err(io_error("reading", &dir.join(&name)))?;
            index.insert(id, Entry::new(size_bytes, Location::File));
        } else {
            endings.push((id, ending.to_owned()));
        }
    }
    let mut parts = HashSet::new();
    for (id, ending) in endings {
        match ending.as_str() {
            "hashes" if !index.entries.contains_key(&id) => dir.remove(&hashes_name(&id))?,
            "part" | "state" => {
                parts.insert(id);
            }
            _ => {}
        }
    }
    parts
        .into_iter()
        .try_for_each(|id| load_partial(dir, id, index))?;
    // Or names that were removed now could return after blobs of the same id were stored.
    dir.flush()
}

/// Keeps a partial download that can be resumed, and deletes any other.
fn load_partial(dir: &Dir, id: BlobId, index: &mut Index) -> Result<(), StoreError> {
    let useful = !index.entries.contains_key(&id) && index.partials.len() < MAX_PARTIALS;
    let now_s = unix_seconds();
    match read_state(dir, &id)?.filter(|(_, written_s)| useful && !is_expired(*written_s, now_s)) {
        Some((state, written_s)) => {
            let (_, max_bytes) = state.list.size_bounds();
            let content_bytes = state.claimed.len() as u64 * CHUNK_BYTES;
            let hashes_bytes = state.list.digests().len() as u64;
            index.insert_partial(
                id,
                PartialInfo {
                    used_bytes: content_bytes.min(max_bytes) + hashes_bytes,
                    max_bytes,
                    written_s,
                    open: false,
                },
            );
            Ok(())
        }
        None => {
            dir.remove(&state_name(&id))?;
            dir.remove(&part_name(&id))
        }
    }
}

fn load_packs(dir: &Dir, index: &mut Index) -> Result<(), StoreError> {
    let names = dir.sweep()?;
    let number = |name: &str, ending| {
        let digits = name.strip_suffix(ending)?;
        u64::from_str_radix(digits, 16).ok()
    };
    let mut numbers: Vec<u64> = names
        .iter()
        .filter_map(|name| number(name, ".pack"))
        .collect();
    // Where a pack was rewritten and the old one still exists, the new one counts.
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    for &number in &numbers {
        index.occupy_pack(number);
        load_pack(dir, number, index)?;
    }
    for number in names.iter().filter_map(|name| number(name, ".dead")) {
        if !index.packs.contains_key(&number) && !numbers.contains(&number) {
            dir.remove(&dead_name(number))?;
        }
    }
    dir.flush()
}

/// Shows the blobs of a pack. A damaged pack stays and its blobs are not shown: an operator may
/// still rescue something.
fn load_pack(dir: &Dir, number: u64, index: &mut Index) -> Result<(), StoreError> {
    let name = pack_name(number);
    let file = dir.file(&name, Mode::Read)?;
    let read = PackIndex::read(&*file);
    let Some(pack) = read.map_err(io_error("reading", &dir.join(&name)))? else {
        return Ok(());
    };
    let marks = dir.read(&dead_name(number), dead_len(pack.len()))?;
    let marks = marks.and_then(|file| Dead::decode(&file, pack.len()));
    let (dead, current) = marks.unwrap_or_else(|| (Dead::none(pack.len()), false));
    let duplicates = index.insert_pack(number, &pack, &dead);
    let Some(info) = index.packs.get(&number) else {
        return Ok(());
    };
    if info.live == 0 {
        index.packs.remove(&number);
        dir.remove(&name)?;
        // In this order, and each flushed: without its removals a pack shows all its blobs.
        dir.flush()?;
        return dir.remove(&dead_name(number));
    }
    if !current || !duplicates.is_empty() {
        // Or a blob that is removed where it counts would return from here. Also gives a file of
        // removals that was lost, or has the older format, its full length.
        dir.write(&dead_name(number), &info.dead.encode())?;
    }
    Ok(())
}
