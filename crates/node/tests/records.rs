//! What programs rely on: every command prints records of the documented schema, and ends with the
//! documented status.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod support;

use std::{collections::BTreeSet, fs, net::TcpListener, path::Path};

use serde_json::Value;
use support::{ClosedPort, Ended, Process, calnet, run, schema};

/// A valid peer id that no node has.
const ABSENT: &str = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";

/// An id that no blob has.
const MISSING: &str = "11111111111111111111111111111112";

/// Runs a command with `--json` and checks every line of both of its outputs.
fn json(arguments: &[&str]) -> Ended {
    let mut command = calnet();
    command.arg("--json").args(arguments);
    let ended = run(command);
    ended.json_lines();
    for line in ended.stderr.lines().filter(|line| line.starts_with('{')) {
        schema::check(&serde_json::from_str(line).unwrap());
    }
    ended
}

/// The names of the records on standard output of a command that succeeds.
fn events(arguments: &[&str]) -> Vec<String> {
    let ended = json(arguments);
    assert!(ended.success, "{arguments:?}: {}", ended.stderr);
    let lines = ended.json_lines();
    let names = lines.iter().map(|line| line["event"].as_str().unwrap());
    names.map(str::to_owned).collect()
}

/// The commands of the reference, without those that have commands themselves.
fn documented_commands() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/cli.md");
    let page = fs::read_to_string(path).unwrap();
    let heads = page
        .lines()
        .filter_map(|line| line.strip_prefix("## `calnet "));
    let all: BTreeSet<_> = heads
        .map(|head| head.trim_end_matches('`').to_owned())
        .collect();
    let has_commands = |name: &String| all.iter().any(|one| one.starts_with(&format!("{name} ")));
    all.iter()
        .filter(|name| !has_commands(name))
        .cloned()
        .collect()
}

#[test]
fn every_command_prints_documented_records() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (data, other) = (path("data"), path("other"));
    let listen = ["--listen", "/ip4/127.0.0.1/tcp/0", "--local"];
    let mut tested = BTreeSet::from(["boot", "demo", "run"].map(str::to_owned));
    let mut test = |arguments: &[&str], expected: &[&str]| {
        let names = events(arguments);
        for name in expected {
            assert!(
                names.iter().any(|one| one == name),
                "{arguments:?}: {names:?}"
            );
        }
        let count = usize::from(["blob", "config"].contains(&arguments[0])) + 1;
        tested.insert(arguments[..count].join(" "));
    };
    let at =
        |name: &'static str, data: &str| [name.to_owned(), "--data".to_owned(), data.to_owned()];
    let init = at("init", &data);
    let mut init: Vec<_> = init.iter().map(String::as_str).collect();
    init.extend(listen);
    test(&init, &["made"]);
    // Two nodes. Each record that they print is checked as it is read.
    let node = Process::node(&["--data", &data, "--local", "--perf", "--subscribe", "news"]);
    let peer = Process::node(&["--data", &other, "--local", "--subscribe", "news"]);
    let (here, there) = (node.addresses(1).remove(0), peer.addresses(1).remove(0));
    let id = there.rsplit('/').next().unwrap();
    test(&["connect", &there, "--data", &data], &["peer"]);
    node.event("subscribed");
    peer.event("subscribed");
    test(&["status", "--data", &data], &["status"]);
    test(&["peers", "--data", &data], &["peer"]);
    test(&["topics", "--data", &data], &["topic"]);
    test(
        &[
            "ping",
            id,
            "--count",
            "2",
            "--interval",
            "1",
            "--data",
            &data,
        ],
        &["path", "pong", "pings"],
    );
    test(
        &["publish", "news", "text", "--data", &data],
        &["published"],
    );
    peer.event("message");
    let subscriber = {
        let mut command = calnet();
        command.args(["subscribe", "news", "--json", "--data", &data]);
        Process::start(command)
    };
    subscriber.event("following");
    events(&["publish", "news", "more", "--data", &other]);
    subscriber.event("message");
    drop(subscriber);
    let file = path("file");
    fs::write(&file, vec![7; 400_000]).unwrap();
    test(&["blob", "add", &file, "--data", &data], &["added"]);
    let listed = json(&["blob", "ls", "--data", &data]).json_lines();
    let blob = listed[0]["id"].as_str().unwrap().to_owned();
    test(&["blob", "ls", "--data", &data], &["blob", "usage"]);
    test(
        &["blob", "get", &blob, "--dial", &here, "--data", &other],
        &["fetched"],
    );
    test(&["blob", "verify", "--data", &data], &["verified"]);
    test(&["blob", "rm", &blob, "--data", &data], &["removed"]);
    test(&["probe", &here], &["probed"]);
    // What a running node has seen, and a test by a boot node on this host.
    test(&["netcheck", "--data", &data], &["netcheck"]);
    test(&["netcheck", "--boot", &here], &["netcheck"]);
    let little = [
        "--upload-bytes",
        "1000",
        "--download-bytes",
        "1000",
        "--round-trips",
        "3",
    ];
    test(
        &[&["perf", &here][..], &little].concat(),
        &["round_trips", "throughput"],
    );
    test(&["config", "show", "--data", &data], &["config"]);
    test(&["config", "check", "--data", &data], &["config_accepted"]);
    let old = path("old.toml");
    fs::write(&old, "[swarm]\nport = 2428\nlisten = []\n").unwrap();
    let imported = json(&["config", "import", &old]);
    test_import(&imported);
    test(
        &["diag", "--data", &data, "-o", &path("diag.tar.gz")],
        &["diag_written"],
    );
    test(&["man", "-o", &path("man")], &["manual_written"]);
    let sender = {
        let mut command = calnet();
        command.args([
            "send",
            &file,
            "--json",
            "--local",
            "--listen",
            "/ip4/127.0.0.1/tcp/0",
        ]);
        Process::start(command)
    };
    let ticket = sender.event("ticket")["ticket"]
        .as_str()
        .unwrap()
        .to_owned();
    test(
        &["receive", &ticket, "--local", "-o", &path("received")],
        &["path", "received"],
    );
    sender.event("requested");
    test(&["block", id, "--data", &data], &["blocked"]);
    test(&["unblock", id, "--data", &data], &["unblocked"]);
    test(&["disconnect", id, "--data", &data], &["disconnecting"]);
    // It prints a script.
    let completions = {
        let mut command = calnet();
        command.args(["completions", "bash"]);
        run(command)
    };
    assert!(completions.success);
    tested.extend(["completions", "config import", "send", "subscribe"].map(str::to_owned));
    assert_eq!(tested, documented_commands());
}

/// A configuration of the published node is accepted, or refused with a record.
fn test_import(imported: &Ended) {
    match imported.success {
        true => assert_eq!(imported.json_lines()[0]["event"], "config_imported"),
        false => assert_eq!(failure(imported)["code"], "usage"),
    }
}

/// The last line on standard error of a command that failed.
fn failure(ended: &Ended) -> Value {
    let last = ended.stderr.lines().last().unwrap_or_default();
    let line: Value = serde_json::from_str(last).unwrap_or_else(|_| panic!("{}", ended.stderr));
    schema::check(&line);
    assert_eq!(line["event"], "error");
    line
}

#[test]
fn each_kind_of_failure_has_its_status_and_code() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let data = path("data");
    let refusing = ClosedPort::new();
    let closed = refusing.address();
    // Accepts connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("/ip4/127.0.0.1/tcp/{}", silent.local_addr().unwrap().port());
    let node = Process::node(&["--data", &data, "--local"]);
    let alive = node.addresses(1).remove(0);
    let damaged = path("damaged");
    let file = path("file");
    fs::write(&file, vec![3; 300_000]).unwrap();
    events(&["blob", "add", &file, "--data", &damaged]);
    damage(&Path::new(&damaged).join("blobs").join("blobs"));
    let absent = format!("{closed}/p2p/{ABSENT}");
    let mute = format!("{silent}/p2p/{ABSENT}");
    let (anonymous, used) = (&closed, &silent);
    let quota = path("quota");
    fs::create_dir(&quota).unwrap();
    let limits = "[blob.store]\nmax_bytes = 100000\n";
    fs::write(Path::new(&quota).join("node.toml"), limits).unwrap();
    let cases: [(&[&str], i32, &str); 27] = [
        (&["run", "--boot", anonymous], 2, "usage"),
        (&["run", "--listen", used], 6, "refused"),
        // The limits of a node hold while it does not run.
        (&["blob", "add", &file, "--data", &quota], 6, "refused"),
        (&["ping"], 2, "usage"),
        (&["ping", "nobody", "--data", &data], 2, "usage"),
        (
            &["ping", ABSENT, "--data", &data, "--interval", "0"],
            2,
            "usage",
        ),
        (&["status"], 2, "usage"),
        (&["receive", "ticket"], 2, "usage"),
        (&["config", "check", "--config", &file], 2, "usage"),
        (&["status", "--data", &path("nothing")], 3, "not_reachable"),
        (
            &["ping", ABSENT, "--data", &path("nothing")],
            3,
            "not_reachable",
        ),
        (
            &["ping", ABSENT, "--data", &data, "--count", "1"],
            3,
            "not_reachable",
        ),
        (&["connect", &closed, "--data", &data], 3, "not_reachable"),
        (&["probe", &silent, "--timeout-ms", "300"], 4, "timed_out"),
        (
            &[
                "publish",
                "weather",
                "rain",
                "--timeout-ms",
                "300",
                "--dial",
                &mute,
            ],
            4,
            "timed_out",
        ),
        (
            &[
                "publish",
                "weather",
                "rain",
                "--timeout-ms",
                "300",
                "--data",
                &data,
            ],
            4,
            "timed_out",
        ),
        (
            &[
                "blob",
                "get",
                MISSING,
                "-o",
                "-",
                "--timeout-ms",
                "300",
                "--dial",
                &mute,
            ],
            4,
            "timed_out",
        ),
        (
            &[
                "blob",
                "--data",
                &data,
                "get",
                MISSING,
                "--timeout-ms",
                "300",
                "--dial",
                &mute,
            ],
            4,
            "timed_out",
        ),
        (&["netcheck"], 2, "usage"),
        // Without a peer id, another node could answer.
        (&["netcheck", "--boot", &closed], 2, "usage"),
        (
            &["netcheck", "--data", &path("nothing")],
            3,
            "not_reachable",
        ),
        (&["netcheck", "--boot", &absent], 3, "not_reachable"),
        (
            &["netcheck", "--boot", &mute, "--timeout-ms", "300"],
            4,
            "timed_out",
        ),
        (
            &["blob", "add", &path("nothing"), "--data", &data],
            5,
            "not_found",
        ),
        (
            &["blob", "get", MISSING, "-o", "-", "--dial", &alive],
            5,
            "not_found",
        ),
        (&["run", "--data", &data], 6, "refused"),
        (&["blob", "verify", "--data", &damaged], 7, "check_failed"),
    ];
    for (arguments, status, code) in cases {
        let ended = json(arguments);
        assert_eq!(ended.code, Some(status), "{arguments:?}: {}", ended.stderr);
        let failure = failure(&ended);
        assert_eq!(failure["code"], code, "{arguments:?}: {failure}");
        assert!(!failure["message"].as_str().unwrap().is_empty());
    }
    // A peer that has stopped.
    let stopped = Process::node(&["--dial", &alive]);
    stopped.event("connected");
    let started = stopped.entries().remove(0).line;
    let peer = started["peer"].as_str().unwrap();
    // The side that dials is connected first.
    while node.event("connected")["peer"] != peer {}
    stopped.signal("-STOP");
    let pinged = json(&[
        "ping",
        peer,
        "--data",
        &data,
        "--count",
        "1",
        "--timeout-ms",
        "300",
    ]);
    assert_eq!(pinged.code, Some(4), "{}", pinged.stderr);
    assert_eq!(failure(&pinged)["code"], "timed_out");
    drop(stopped);
    let mut waiting = {
        let mut command = calnet();
        command.args([
            "ping",
            ABSENT,
            "--json",
            "--count",
            "0",
            "--interval",
            "60000",
        ]);
        command.args(["--data", &data]);
        Process::start(command)
    };
    waiting.event("no_pong");
    // It was asked to go on until a signal.
    assert_eq!(waiting.end_by("-INT").code(), Some(0));
    assert!(
        waiting
            .entries()
            .iter()
            .any(|entry| entry.line["event"] == "pings")
    );
}

/// Changes one byte of the largest file of a folder.
fn damage(folder: &Path) {
    let files = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let largest = files
        .max_by_key(|file| file.metadata().unwrap().len())
        .unwrap();
    let mut bytes = fs::read(largest.path()).unwrap();
    bytes[100] ^= 1;
    fs::write(largest.path(), bytes).unwrap();
}
