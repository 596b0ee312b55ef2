//! Opening the folder: what a former process finished is shown, what it left half-done goes.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::Mutex,
};

use rustix::fs::{FlockOperation, flock};

use super::{
    FsConfig, Shared, dead_name,
    dir::{Dir, is_temporary},
    hashes_name,
    index::{Entry, Index, MAX_PARTIALS, PartialInfo, Place},
    pack::{Dead, PackIndex},
    pack_name, part_name,
    partial::read_state,
    state_name,
    tags::Tags,
};
use crate::{
    BlobId,
    store::error::{StoreError, io_error},
};

/// What the file of the format says.
const FORMAT: &[u8] = b"calimero blob store 1\n";

pub(super) fn open(path: &Path, config: &FsConfig) -> Result<Shared, StoreError> {
    let root = Dir::open(path.to_owned())?;
    refuse_foreign(&root)?;
    let lock = lock(&root)?;
    check_format(&root)?;
    let mut index = Index::new(config.max_bytes);
    let blobs = Dir::open(root.join("blobs"))?;
    load_blobs(&blobs, &mut index)?;
    let packs = Dir::open(root.join("packs"))?;
    load_packs(&packs, &mut index)?;
    let tags = Tags::open(Dir::open(root.join("tags"))?)?;
    root.flush()?;
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

/// Refuses a folder that holds something, but no store: nothing of it is ours to sweep.
fn refuse_foreign(root: &Dir) -> Result<(), StoreError> {
    let path = root.path();
    if root.join("format").exists() {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(io_error("listing", path))? {
        let name = entry.map_err(io_error("listing", path))?.file_name();
        // What a store leaves that was killed while it was created.
        if !name
            .to_str()
            .is_some_and(|name| name == "lock" || is_temporary(name))
        {
            return Err(StoreError::Format {
                path: path.to_owned(),
            });
        }
    }
    Ok(())
}

/// Locks the store for this process. The system unlocks it however the process ends.
fn lock(root: &Dir) -> Result<File, StoreError> {
    let path = root.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io_error("opening", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Locked {
            path: root.path().to_owned(),
        }),
        Err(error) => Err(io_error("locking", &path)(error.into())),
    }
}

fn check_format(root: &Dir) -> Result<(), StoreError> {
    root.sweep()?;
    let path = root.join("format");
    match fs::read(&path) {
        Ok(found) if found == FORMAT => Ok(()),
        Ok(_) => Err(StoreError::Format { path }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            root.write("format", FORMAT)?;
            root.flush()
        }
        Err(error) => Err(io_error("reading", &path)(error)),
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
            let size_bytes = size_of(dir.join(&name))?;
            let place = Place::File;
            index.insert(id, Entry { size_bytes, place });
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
        .try_for_each(|id| load_partial(dir, id, index))
}

/// Keeps a partial download that can be resumed, and deletes one that cannot.
fn load_partial(dir: &Dir, id: BlobId, index: &mut Index) -> Result<(), StoreError> {
    let useful = !index.entries.contains_key(&id) && index.partials.len() < MAX_PARTIALS;
    match read_state(dir, &id)?.filter(|_| useful) {
        Some(state) => {
            let (_, reserved_bytes) = state.list.size_bounds();
            index.reserve_existing(reserved_bytes);
            let open = false;
            index.partials.insert(
                id,
                PartialInfo {
                    reserved_bytes,
                    open,
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
    // Where a pack was written anew and the old one is still there, the new one counts.
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

/// Shows the blobs of a pack. A damaged pack is left alone: its blobs are not shown, and whoever
/// looks after the disk may still rescue something.
fn load_pack(dir: &Dir, number: u64, index: &mut Index) -> Result<(), StoreError> {
    let path = dir.join(&pack_name(number));
    let file = File::open(&path).map_err(io_error("opening", &path))?;
    let Some(pack) = PackIndex::read(&file).map_err(io_error("reading", &path))? else {
        return Ok(());
    };
    let dead_path = dir.join(&dead_name(number));
    let dead = match fs::read(&dead_path) {
        Ok(file) => Dead::decode(&file, pack.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(io_error("reading", &dead_path)(error)),
    };
    let duplicates = index.insert_pack(number, &pack, dead);
    let Some(info) = index.packs.get(&number) else {
        return Ok(());
    };
    if info.live == 0 {
        index.packs.remove(&number);
        dir.remove(&pack_name(number))?;
        return dir.remove(&dead_name(number));
    }
    if duplicates {
        // Or a blob that is removed where it counts would return from here.
        dir.write(&dead_name(number), &info.dead.encode())?;
    }
    Ok(())
}

fn size_of(path: PathBuf) -> Result<u64, StoreError> {
    let metadata = fs::metadata(&path).map_err(io_error("reading", &path))?;
    Ok(metadata.len())
}
