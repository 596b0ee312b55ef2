//! `calnet blob`, as processes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod support;

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Stdio,
    time::Instant,
};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use support::{ClosedPort, Ended, LIMIT, Process, calnet, run};

fn blob(data: Option<&Path>, args: &[&str]) -> Ended {
    let mut command = calnet();
    command.args(["blob", "--json"]);
    if let Some(data) = data {
        command.arg("--data").arg(data);
    }
    command.args(args);
    run(command)
}

/// An id that no blob has.
const MISSING: &str = "11111111111111111111111111111112";

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7) as u8).collect()
}

#[test]
fn a_blob_goes_from_folder_to_folder_and_file() {
    let dir = tempfile::tempdir().unwrap();
    let (there, here) = (dir.path().join("there"), dir.path().join("here"));
    // `add` creates the folder, `get` does not.
    fs::create_dir(&here).unwrap();
    let file = dir.path().join("some file");
    let bytes = content((3 << 20) + 5);
    fs::write(&file, &bytes).unwrap();

    let added = blob(Some(&there), &["add", file.to_str().unwrap()]);
    assert!(added.success, "{}", added.stderr);
    let id = added.json_lines()[0]["id"].as_str().unwrap().to_owned();

    let mut node = Process::node(&["--data", there.to_str().unwrap()]);
    let address = node.addresses(1).remove(0);
    // Into the other folder, and to a file.
    let got = blob(Some(&here), &["get", &id, "--dial", &address]);
    assert!(got.success, "{}", got.stderr);
    let fetched = got.json_lines().pop().unwrap();
    assert_eq!(fetched["event"], "fetched");
    assert_eq!(fetched["size_bytes"], bytes.len());
    let target = dir.path().join("copy");
    let target_name = target.to_str().unwrap();
    let got = blob(None, &["get", &id, "-o", target_name, "--dial", &address]);
    assert!(got.success, "{}", got.stderr);
    assert_eq!(fs::read(&target).unwrap(), bytes);
    // The folder of a node that runs is its own, so the node is asked.
    let listed = blob(Some(&there), &["ls"]).json_lines();
    assert_eq!(listed[0]["id"], id.as_str());
    assert!(node.end_by("-TERM").success());

    let listed = blob(Some(&here), &["ls"]).json_lines();
    assert_eq!(listed[0]["id"], id.as_str());
    let verified = blob(Some(&here), &["verify"]);
    assert!(verified.success);
    let removed = blob(Some(&here), &["rm", &id]).json_lines();
    assert_eq!(removed[0]["was_there"], true);
    let listed = blob(Some(&here), &["ls"]).json_lines();
    assert_eq!(listed[0]["event"], "usage");
    assert_eq!(listed[0]["blobs"], 0);
}

#[test]
fn an_absent_blob_is_not_found_and_a_damaged_one_fails_the_check() {
    const ABSENT: &str = "11111111111111111111111111111112";
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let file = dir.path().join("file");
    fs::write(&file, content(200_000)).unwrap();
    let added = blob(Some(&data), &["add", file.to_str().unwrap()]);
    let id = added.json_lines()[0]["id"].as_str().unwrap().to_owned();
    let check = || {
        let absent = blob(Some(&data), &["verify", &id, ABSENT]);
        assert_eq!(absent.code, Some(5), "{}", absent.stderr);
        assert!(absent.stderr.contains("1 of 2 blobs"), "{}", absent.stderr);
        let events: Vec<_> = absent.json_lines();
        assert_eq!(events[0]["event"], "verified");
        assert_eq!(events[1]["id"], ABSENT);
        assert_eq!(blob(Some(&data), &["verify"]).code, Some(0));
    };
    check();
    // The same of a running node.
    let mut node = Process::node(&["--data", data.to_str().unwrap()]);
    node.event("listening");
    check();
    assert!(node.end_by("-TERM").success());
    let blobs = data.join("blobs").join("blobs");
    let stored = fs::read_dir(&blobs).unwrap().next().unwrap().unwrap();
    let mut bytes = fs::read(stored.path()).unwrap();
    bytes[100] ^= 1;
    fs::write(stored.path(), bytes).unwrap();
    let damaged = blob(Some(&data), &["verify", &id, ABSENT]);
    assert_eq!(damaged.code, Some(7), "{}", damaged.stderr);
}

#[test]
fn damage_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let file = dir.path().join("file");
    fs::write(&file, content(200_000)).unwrap();
    let added = blob(Some(&data), &["add", file.to_str().unwrap()]);
    let id = added.json_lines()[0]["id"].as_str().unwrap().to_owned();
    let blobs = data.join("blobs").join("blobs");
    let stored = fs::read_dir(&blobs).unwrap().next().unwrap().unwrap();
    let mut bytes = fs::read(stored.path()).unwrap();
    bytes[100] ^= 1;
    fs::write(stored.path(), bytes).unwrap();
    let verified = blob(Some(&data), &["verify", &id]);
    assert!(!verified.success);
    assert_eq!(verified.code, Some(7));
    let line = &verified.json_lines()[0];
    assert_eq!(line["event"], "damaged");
    assert!(
        line["error"].as_str().unwrap().contains("damaged"),
        "{line}"
    );
    assert_eq!(line["withdrawn"], false);
    // It is still listed until it is repaired, after which the file can be stored again.
    let repaired = blob(Some(&data), &["verify", "--repair"]);
    assert_eq!(repaired.code, Some(7));
    assert_eq!(repaired.json_lines()[0]["withdrawn"], true);
    assert_eq!(blob(Some(&data), &["ls"]).json_lines()[0]["blobs"], 0);
    blob(Some(&data), &["add", file.to_str().unwrap()]);
    let verified = blob(Some(&data), &["verify", "--repair", &id]);
    assert!(verified.success, "{}", verified.stderr);
}

#[test]
fn nobody_who_has_it_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let node = Process::node(&["--data", dir.path().to_str().unwrap()]);
    let address = node.addresses(1).remove(0);
    let id = "11111111111111111111111111111112";
    let file = dir.path().join("copy");
    let got = blob(
        None,
        &["get", id, "-o", file.to_str().unwrap(), "--dial", &address],
    );
    assert!(!got.success);
    assert!(
        got.stderr.contains("does not have the blob"),
        "{}",
        got.stderr
    );
    assert!(!file.exists());
}

#[test]
fn files_are_checked_before_anything_is_transferred() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let at = |name: &str| dir.path().join(name);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let pipe = at("pipe");
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, &pipe, FileType::Fifo, mode, 0).unwrap();
    fs::create_dir(at("folder")).unwrap();
    fs::write(at("file"), b"content").unwrap();
    // By the node that runs on the folder, and without one.
    for running in [true, false] {
        let mut node = Process::node(&["--data", data.to_str().unwrap()]);
        let address = node.addresses(1).remove(0);
        if !running {
            assert!(node.end_by("-TERM").success());
        }
        for path in [pipe.as_path(), &at("folder"), Path::new("/dev/zero")] {
            let added = blob(Some(&data), &["add", &text(path)]);
            assert_eq!(added.code, Some(6), "{}", added.stderr);
            assert!(added.stderr.contains("it is a"), "{}", added.stderr);
        }
        // Before a provider is dialled: the error is about the file.
        let id = "11111111111111111111111111111112";
        let targets = [&pipe, &at("folder"), &at("missing folder/file")];
        for (target, code) in targets.into_iter().zip([6, 6, 5]) {
            let arguments = ["get", id, "-o", &text(target), "--dial", &address];
            let got = blob(running.then_some(data.as_path()), &arguments);
            assert_eq!(got.code, Some(code), "{}", got.stderr);
            assert!(got.stderr.contains(&text(target)), "{}", got.stderr);
        }
        drop(node);
        let listed = blob(Some(&data), &["ls"]).json_lines();
        let usage = listed.last().unwrap();
        assert_eq!(usage["blobs"], 0);
        for key in ["partials", "reserved_bytes", "used_bytes"] {
            assert_eq!(usage[key], 0, "{usage}");
        }
        assert!(usage["limit_bytes"].as_u64().unwrap() > 0);
    }
}

#[test]
fn content_goes_through_pipes_and_links_and_keeps_modes() {
    let dir = tempfile::tempdir().unwrap();
    let (there, here) = (dir.path().join("there"), dir.path().join("here"));
    let bytes = content((2 << 20) + 5);
    let node = Process::node(&["--data", there.to_str().unwrap()]);
    let address = node.addresses(1).remove(0);
    let other = Process::node(&["--data", here.to_str().unwrap()]);
    other.event("listening");
    // From standard input, through the node.
    let mut add = calnet();
    add.args(["blob", "--json", "--data"])
        .arg(&there)
        .args(["add", "-"]);
    add.stdin(Stdio::piped());
    let mut add = Process::start(add);
    add.write(&bytes);
    add.close_input();
    let added = add.event("added");
    assert_eq!(added["size_bytes"], bytes.len());
    let id = added["id"].as_str().unwrap();
    // To standard output, by a node of its own and by one that runs.
    for data in [None, Some(&here)] {
        let mut get = calnet();
        get.arg("blob");
        if let Some(data) = data {
            get.arg("--data").arg(data);
        }
        get.args(["get", id, "-o", "-", "--dial", &address]);
        let got = get.output().unwrap();
        assert!(got.status.success());
        assert!(got.stdout == bytes, "{} bytes", got.stdout.len());
    }
    // Through a link, to a file that others may read.
    for data in [None, Some(here.as_path())] {
        let file = dir.path().join("file");
        let link = dir.path().join("link");
        fs::write(&file, b"old").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        let _ = fs::remove_file(&link);
        symlink("file", &link).unwrap();
        let got = blob(
            data,
            &["get", id, "-o", link.to_str().unwrap(), "--dial", &address],
        );
        assert!(got.success, "{}", got.stderr);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::read(&file).unwrap() == bytes);
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o640
        );
    }
}

#[test]
fn an_upload_ends_with_its_client() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let node = Process::node(&["--data", data.to_str().unwrap()]);
    node.event("listening");
    let mut add = calnet();
    add.args(["blob", "--json", "--data"])
        .arg(&data)
        .args(["add", "-"]);
    add.stdin(Stdio::piped());
    let mut add = Process::start(add);
    // Some of the content is stored, and its end does not come.
    add.write(&content(3 << 20));
    let usage = || blob(Some(&data), &["ls"]).json_lines().pop().unwrap();
    let deadline = Instant::now() + LIMIT;
    while usage()["reserved_bytes"] == 0 {
        assert!(Instant::now() < deadline, "nothing is being stored");
    }
    assert_eq!(add.end_by("-TERM").code(), Some(128 + 15));
    while usage()["reserved_bytes"] != 0 {
        assert!(
            Instant::now() < deadline,
            "the upload goes on without its client"
        );
    }
    assert_eq!(usage()["blobs"], 0);
}

#[test]
fn a_running_node_fetches_without_boot_nodes_as_providers() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let node = Process::node(&["--local", "--data", data.to_str().unwrap()]);
    node.event("listening");
    let refused = blob(Some(&data), &["get", MISSING, "--local"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("discovery.local_network"),
        "{}",
        refused.stderr
    );
    // A boot node that is not reached is not needed, so the search goes on. A provider is needed.
    let dead = format!(
        "{}/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5",
        ClosedPort::new().address()
    );
    let absent = blob(
        Some(&data),
        &["get", MISSING, "--boot", &dead, "--timeout-ms", "1000"],
    );
    assert_eq!(absent.code, Some(4), "{}", absent.stderr);
    let unreached = blob(Some(&data), &["get", MISSING, "--dial", &dead]);
    assert_eq!(unreached.code, Some(3), "{}", unreached.stderr);
}
