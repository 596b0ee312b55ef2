//! `kill -9` at any instant of a fetch, as processes: nothing that is visible is wrong, what
//! was acknowledged stays, and the next try goes on where the last one was.
//!
//! `CALNET_KILLS` says how many kills there are, 24 without it; a few hundred take some minutes.
//! The instants are random, from the seed `CALNET_KILLS_SEED` where that is set. A failure prints
//! the seed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod support;

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use serde_json::Value;
use support::{Ended, LIMIT, Process, calnet, run};

const MIB: u64 = 1 << 20;

/// What of the verified bytes a kill may cost.
const MAX_LOST_BYTES: u64 = 4 * MIB;

/// What may be on its way when a kill comes: the window of one provider
/// (`blob.fetch.provider_window_chunks`), and half of it again for frames and hashes.
const MAX_IN_FLIGHT_BYTES: u64 = 12 * MIB;

/// What is received of a blob that is complete: 64 hashes of its chunks, and what frames them.
const MAX_LIST_BYTES: u64 = 64 * 32 + 100;

/// Kills come up to this long after the start of a process.
const LONGEST_LIFE: Duration = Duration::from_millis(900);

fn blob(data: Option<&Path>, args: &[&str]) -> Ended {
    run(blob_command(data, args))
}

fn blob_command(data: Option<&Path>, args: &[&str]) -> std::process::Command {
    let mut command = calnet();
    command.args(["blob", "--json"]);
    if let Some(data) = data {
        command.arg("--data").arg(data);
    }
    command.args(args);
    command
}

/// Content of which each chunk is another, and each seed as well.
fn content(seed: u8, len: u64) -> Vec<u8> {
    (0..len)
        .map(|at| (at / 7) as u8 ^ (at >> 20) as u8 ^ seed)
        .collect()
}

/// A node that has blobs.
struct Provider {
    _process: Process,
    address: String,
    ids: Vec<String>,
    files: Vec<PathBuf>,
}

fn provider(dir: &Path, count: u8, len: u64) -> Provider {
    let data = dir.join("there");
    let files: Vec<_> = (0..count)
        .map(|seed| {
            let file = dir.join(format!("content {seed}"));
            fs::write(&file, content(seed, len)).unwrap();
            file
        })
        .collect();
    let mut args = vec!["add"];
    args.extend(files.iter().map(|file| file.to_str().unwrap()));
    let added = blob(Some(&data), &args);
    assert!(added.success, "{}", added.stderr);
    let lines = added.json_lines();
    let ids = lines.iter().map(|line| line["id"].as_str().unwrap());
    let ids = ids.map(str::to_owned).collect();
    let process = Process::node(&["--data", data.to_str().unwrap()]);
    Provider {
        address: process.addresses(1).remove(0),
        _process: process,
        ids,
        files,
    }
}

/// Pseudo-random numbers from a xorshift generator (Marsaglia, 2003).
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        let seed = match env::var("CALNET_KILLS_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                now.unwrap().as_nanos() as u64 | 1
            }
        };
        println!("CALNET_KILLS_SEED={seed}");
        Self(seed)
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Duration::from_micros(self.0 % most.as_micros() as u64)
    }
}

/// What a fetch said last of its progress: bytes verified in all, in this try, and received.
fn last_progress(process: &Process) -> Option<(u64, u64, u64)> {
    let entries = process.entries();
    let lines = entries.iter().map(|entry| &entry.line);
    // Before its first chunk a try does not know what the one before has left.
    let mut told = lines.filter_map(|line| {
        let fresh = fresh_bytes(line)?;
        let bytes = |key: &str| line[key].as_u64().unwrap();
        (fresh > 0).then(|| (bytes("verified_bytes"), fresh, bytes("received_bytes")))
    });
    told.next_back()
}

/// Bytes that a try has verified itself.
fn fresh_bytes(line: &Value) -> Option<u64> {
    let providers = line["providers"].as_array()?;
    (line["event"] == "progress").then(|| {
        let bytes = providers.iter().map(|one| one["verified_bytes"].as_u64());
        bytes.map(Option::unwrap).sum()
    })
}

/// One blob on its way to one place, over many tries.
struct Fetch<'a> {
    id: &'a str,
    original: &'a Path,
    /// A file, or else the data folder.
    file: Option<PathBuf>,
    size: u64,
    /// Bytes that were verified by the word of the last try.
    verified: u64,
    /// Bytes that were received by the word of all tries.
    received: u64,
    kills: u64,
}

impl Fetch<'_> {
    fn start(&self, data: &Path, address: &str) -> Process {
        let (mut args, data) = (vec!["get", self.id, "--dial", address], Some(data));
        let data = match &self.file {
            Some(file) => {
                args.extend(["-o", file.to_str().unwrap()]);
                None
            }
            None => data,
        };
        Process::start(blob_command(data, &args))
    }

    /// Notes a try that was killed.
    fn was_killed(&mut self, process: &Process) {
        self.kills += 1;
        let Some((verified, fresh, received)) = last_progress(process) else {
            return;
        };
        self.resumed(verified - fresh);
        self.verified = verified;
        self.received += received;
    }

    /// What a try has found of those before it.
    fn resumed(&self, bytes: u64) {
        assert!(
            bytes + MAX_LOST_BYTES >= self.verified,
            "{} of {} verified bytes were left for {:?}",
            bytes,
            self.verified,
            self.file
        );
    }

    /// Notes a try that has ended by itself.
    fn is_done(&mut self, process: &mut Process) {
        assert!(process.wait().success(), "{:#?}", process.entries());
        let fetched = process.event("fetched");
        let bytes = |key: &str| fetched[key].as_u64().unwrap();
        assert_eq!(bytes("size_bytes"), self.size);
        // A kill may have come between the blob and the word of it: then all of it was there.
        if bytes("received_bytes") > 0 {
            self.resumed(bytes("resumed_bytes"));
        }
        self.received += bytes("received_bytes");
        let most = self.size + self.size / 100;
        let most = most + self.kills * (MAX_LOST_BYTES + MAX_IN_FLIGHT_BYTES);
        assert!(
            self.received <= most,
            "{} bytes received over {} kills",
            self.received,
            self.kills
        );
        if let Some(file) = &self.file {
            assert!(fs::read(file).unwrap() == fs::read(self.original).unwrap());
        }
    }

    /// Forgets everything, to be fetched once more.
    fn begin_again(&mut self, data: &Path) {
        match &self.file {
            Some(file) => fs::remove_file(file).unwrap(),
            None => assert!(blob(Some(data), &["rm", self.id]).success),
        }
        (self.verified, self.received, self.kills) = (0, 0, 0);
    }

    /// A file is whole or not there.
    fn check_file(&self) {
        if let Some(file) = self.file.as_ref().filter(|file| file.exists()) {
            assert!(fs::read(file).unwrap() == fs::read(self.original).unwrap());
        }
    }
}

/// Everything in the folder is what its id says, and everything acknowledged is in it.
fn check_folder(data: &Path, acknowledged: &BTreeSet<String>) {
    let verified = blob(Some(data), &["verify"]);
    assert!(verified.success, "{}{}", verified.stdout, verified.stderr);
    let lines = verified.json_lines();
    let here: BTreeSet<_> = lines
        .iter()
        .map(|line| line["id"].as_str().unwrap().to_owned())
        .collect();
    assert!(
        here.is_superset(acknowledged),
        "{acknowledged:?} of {here:?}"
    );
}

#[test]
fn kills_at_any_instant_lose_nothing_and_show_nothing_wrong() {
    let kills = env::var("CALNET_KILLS").map_or(24, |kills| kills.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let size = 40 * MIB + 5;
    let provider = provider(dir.path(), 2, size);
    let here = dir.path().join("here");
    fs::create_dir(&here).unwrap();
    let mut chance = Chance::new();
    let fetch = |nth: usize, file: Option<PathBuf>| Fetch {
        id: &provider.ids[nth],
        original: &provider.files[nth],
        file,
        size,
        verified: 0,
        received: 0,
        kills: 0,
    };
    // One into the folder, one to a file, in turns.
    let mut fetches = [fetch(0, None), fetch(1, Some(dir.path().join("copy")))];
    let mut acknowledged = BTreeSet::new();
    let mut killed = 0;
    let mut completed = 0;
    for nth in (0..fetches.len()).cycle() {
        if killed >= kills {
            break;
        }
        let fetch = &mut fetches[nth];
        let mut process = fetch.start(&here, &provider.address);
        let ends_at = Instant::now() + chance.up_to(LONGEST_LIFE);
        if process.ends_by(ends_at) {
            fetch.is_done(&mut process);
            completed += 1;
            if fetch.file.is_none() {
                acknowledged.insert(fetch.id.to_owned());
                check_folder(&here, &acknowledged);
                acknowledged.clear();
            }
            fetch.begin_again(&here);
        } else {
            process.end_by("-KILL");
            killed += 1;
            fetch.was_killed(&process);
            fetch.check_file();
            check_folder(&here, &acknowledged);
        }
    }
    for fetch in &mut fetches {
        fetch.is_done(&mut fetch.start(&here, &provider.address));
    }
    check_folder(&here, &BTreeSet::from([provider.ids[0].clone()]));
    println!("{killed} kills, {completed} fetches ended between them");
}

#[test]
fn after_a_kill_in_the_middle_the_other_half_is_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let size = 64 * MIB;
    let provider = provider(dir.path(), 1, size);
    let here = dir.path().join("here");
    fs::create_dir(&here).unwrap();
    for file in [None, Some(dir.path().join("copy"))] {
        let fetch = Fetch {
            id: &provider.ids[0],
            original: &provider.files[0],
            file,
            size,
            verified: 0,
            received: 0,
            kills: 0,
        };
        let mut process = fetch.start(&here, &provider.address);
        let half = process.find(0, LIMIT, |line| {
            line["event"] == "progress" && line["verified_bytes"].as_u64() >= Some(size / 2)
        });
        assert!(half.is_some(), "{:#?}", process.entries());
        process.end_by("-KILL");
        let mut process = fetch.start(&here, &provider.address);
        assert!(process.wait().success());
        let fetched = process.event("fetched");
        let received = fetched["received_bytes"].as_u64().unwrap();
        assert!(received * 100 <= size * 52, "{fetched}");
        let resumed = fetched["resumed_bytes"].as_u64().unwrap();
        assert!(resumed >= size / 2 - MAX_LOST_BYTES, "{fetched}");
        // A kill that comes after the last byte and before the word of it costs nothing.
        let mut process = fetch.start(&here, &provider.address);
        assert!(process.wait().success());
        let fetched = process.event("fetched");
        assert_eq!(fetched["providers"], serde_json::json!([]), "{fetched}");
        let received = fetched["received_bytes"].as_u64().unwrap();
        assert!(received <= MAX_LIST_BYTES, "{fetched}");
    }
    check_folder(&here, &BTreeSet::from([provider.ids[0].clone()]));
}
