//! A process that works on the store is killed at any instant, some hundred times. Afterwards
//! nothing visible is wrong and nothing acknowledged is lost.

#![cfg(all(feature = "fs", unix))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

use std::{
    collections::{HashMap, HashSet},
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

use calimero_network_blob::{
    BlobHasher, BlobId, ChunkList,
    store::{FsBlobStore, FsConfig},
};
use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;
use tempfile::TempDir;

/// Folder of the store for the child, and the number of its round.
const DIR: &str = "BLOB_CRASH_DIR";
const ROUND: &str = "BLOB_CRASH_ROUND";

const ROUNDS: u64 = 200;

/// Acknowledgements after which a child is killed, at most.
const MAX_ACKS: u64 = 40;

/// Content that the child stores and the parent can compute as well.
fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut content = vec![0; len];
    for (number, block) in content.chunks_mut(4096).enumerate() {
        let tag = [seed.to_le_bytes(), (number as u64).to_le_bytes()].concat();
        let tagged = block.len().min(tag.len());
        block[..tagged].copy_from_slice(&tag[..tagged]);
    }
    content
}

/// The download that all rounds work on until it is done: six chunks.
fn download(number: u64) -> (Vec<u8>, ChunkList) {
    let content = content(u64::MAX - number, 5 * BLOB_CHUNK_BYTES + 3);
    let mut hasher = BlobHasher::new();
    hasher.update(&content).unwrap();
    (content, hasher.finish().list)
}

/// A small generator, so that a failing round can be run again.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Says that something is done, in one write, once it is.
fn acknowledge(what: &str, id: &BlobId, detail: impl std::fmt::Display) {
    let line = format!("ack {what} {id} {detail}\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

/// What is killed. Works until then.
#[test]
#[ignore = "runs as a child of the test below"]
fn child() {
    let (Ok(dir), Ok(round)) = (env::var(DIR), env::var(ROUND)) else {
        panic!("not a child");
    };
    let round: u64 = round.parse().unwrap();
    let store = FsBlobStore::open(dir, &FsConfig::default()).unwrap();
    let mut random = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for step in 0.. {
        let seed = (round << 32) + (step << 8);
        match next(&mut random) % 6 {
            0 => {
                let len = (next(&mut random) % 2_000_000) as usize;
                let stored = store.put(&content(seed, len)).unwrap();
                acknowledge("put", &stored.id, len);
            }
            1 | 2 => {
                let mut batch = store.batch();
                for part in 0..next(&mut random) % 50 {
                    let len = (next(&mut random) % 9000) as usize;
                    batch.add(None, &content(seed + part, len)).unwrap();
                }
                batch.add(None, &content(seed + 99, 100_000)).unwrap();
                for id in batch.commit().unwrap().ids {
                    acknowledge("put", &id, "");
                }
            }
            3 => {
                let listed = store.list();
                for _ in 0..next(&mut random) % 8 {
                    let pick = next(&mut random) as usize % listed.len().max(1);
                    if let Some((id, _)) = listed.get(pick) {
                        // Said before as well: once begun, it may be done.
                        acknowledge("removing", id, "");
                        if store.remove(id).unwrap() {
                            acknowledge("removed", id, "");
                        }
                    }
                }
            }
            _ => continue_download(&store, round / 8, &mut random),
        }
    }
}

fn continue_download(store: &FsBlobStore, number: u64, random: &mut u64) {
    let (content, list) = download(number);
    let id = list.id();
    if store.has(&id) {
        return;
    }
    let partial = store.partial(list).unwrap();
    for _ in 0..2 {
        let index = (next(random) % 6) as usize;
        let chunk = content.chunks(BLOB_CHUNK_BYTES).nth(index).unwrap();
        partial.write(index, chunk).unwrap();
        acknowledge("chunk", &id, index);
    }
    if partial.missing() == 0 {
        partial.finish().unwrap();
        acknowledge("put", &id, content.len());
    }
}

/// What has been acknowledged over all rounds.
#[derive(Default)]
struct Acknowledged {
    blobs: HashSet<BlobId>,
    removed: HashSet<BlobId>,
    chunks: HashMap<BlobId, HashSet<usize>>,
    lines: u64,
}

impl Acknowledged {
    fn take(&mut self, line: &str) {
        // The harness prints before the first one, on its line.
        let Some((_, words)) = line.split_once("ack ") else {
            return;
        };
        let mut words = words.splitn(3, ' ');
        let mut word = || words.next().expect("acknowledgements have three words");
        let (what, id, detail) = (word(), word(), word());
        let id: BlobId = id.parse().unwrap();
        self.lines += 1;
        match what {
            "put" => {
                self.blobs.insert(id);
                self.removed.remove(&id);
                self.chunks.remove(&id);
            }
            "chunk" => {
                self.chunks
                    .entry(id)
                    .or_default()
                    .insert(detail.parse().unwrap());
            }
            "removing" => {
                self.blobs.remove(&id);
            }
            "removed" => {
                self.removed.insert(id);
            }
            other => panic!("unknown acknowledgement {other}"),
        }
    }

    /// Reads what the child says, kills it after some acknowledgements, and reads the rest.
    fn collect(&mut self, mut child: Child, kill_after: u64) {
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let until = self.lines + kill_after;
        let mut line = Vec::new();
        let mut killed = false;
        loop {
            if self.lines >= until && !killed {
                child.kill().unwrap();
                killed = true;
            }
            line.clear();
            if output.read_until(b'\n', &mut line).unwrap() == 0 {
                break;
            }
            // A line that the kill cut off acknowledges nothing.
            if line.pop() == Some(b'\n') {
                self.take(str::from_utf8(&line).unwrap());
            }
        }
        assert!(killed, "the child ended by itself: {:?}", child.wait());
        child.wait().unwrap();
    }

    fn check(&self, dir: &Path, round: u64) {
        let store = FsBlobStore::open(dir, &FsConfig::default()).unwrap();
        for id in &self.blobs {
            assert!(
                store.has(id),
                "round {round}: {id} was acknowledged and is lost"
            );
        }
        for id in &self.removed {
            assert!(
                !store.has(id),
                "round {round}: {id} was removed and is back"
            );
        }
        for (id, size_bytes) in store.list() {
            assert_eq!(store.size(&id), Some(size_bytes));
            store
                .verify(&id)
                .unwrap_or_else(|error| panic!("round {round}: {id}: {error}"));
        }
        let (content, list) = download(round / 8);
        let id = list.id();
        if !store.has(&id) {
            let partial = store.partial(list).unwrap();
            for index in self.chunks.get(&id).into_iter().flatten() {
                assert!(
                    partial.has(*index),
                    "round {round}: chunk {index} of {id} is lost"
                );
            }
        } else if self.blobs.contains(&id) {
            assert_eq!(store.size(&id), Some(content.len() as u64));
        }
        let usage = store.usage();
        let used: u64 = store.list().iter().map(|(_, size_bytes)| size_bytes).sum();
        assert_eq!(usage.used_bytes, used);
    }
}

#[test]
fn killed_at_any_instant() {
    let dir = TempDir::new().unwrap();
    let mut acknowledged = Acknowledged::default();
    let mut random = 0x2545_f491_4f6c_dd1d;
    for round in 0..ROUNDS {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env(DIR, dir.path())
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        acknowledged.collect(child, next(&mut random) % MAX_ACKS);
        acknowledged.check(dir.path(), round);
        prune(dir.path(), &mut acknowledged);
    }
    assert!(acknowledged.lines > ROUNDS);
}

/// Keeps the store small, so that hundreds of rounds stay quick.
fn prune(dir: &Path, acknowledged: &mut Acknowledged) {
    let store = FsBlobStore::open(dir, &FsConfig::default()).unwrap();
    if store.usage().used_bytes > 12 << 20 {
        drop(store.collect_garbage().unwrap());
        assert!(store.list().is_empty());
        acknowledged.blobs.clear();
        acknowledged.removed.clear();
    }
}
