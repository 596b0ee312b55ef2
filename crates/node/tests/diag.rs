//! `calnet diag`: what is in the archive, and that no secret is in it, in the page or in a log.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use calimero_network::{Keypair, blob::ticket::Ticket};
use serde_json::Value;
use support::{Ended, Process, calnet, run};

/// Files of an archive by their names.
type Files = BTreeMap<String, Vec<u8>>;

fn diag(arguments: &[&str]) -> Ended {
    let mut command = calnet();
    command.args(["diag", "--json"]).args(arguments);
    run(command)
}

fn read(path: &Path) -> Files {
    let archive = fs::File::open(path).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(archive));
    let mut files = Files::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        files.insert(
            name.strip_prefix("calnet-diag/").unwrap().to_owned(),
            content,
        );
    }
    files
}

/// The forms in which a secret could be written.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex = hex::encode(secret);
    let numbers: Vec<_> = secret.iter().map(u8::to_string).collect();
    vec![
        secret.to_vec(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
        bs58::encode(secret).into_string().into_bytes(),
        numbers.join(",").into_bytes(),
        numbers.join(", ").into_bytes(),
    ]
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// The secret key of an identity file, without its public half.
fn secret_key(data: &Path) -> Vec<u8> {
    let bytes = fs::read(data.join("identity")).unwrap();
    let key = Keypair::from_protobuf_encoding(&bytes).unwrap();
    let key = key.try_into_ed25519().unwrap();
    key.secret().as_ref().to_vec()
}

fn text(files: &Files, name: &str) -> String {
    let file = files
        .get(name)
        .unwrap_or_else(|| panic!("{name} is not in {:?}", files.keys()));
    String::from_utf8(file.clone()).unwrap()
}

fn value(files: &Files, name: &str) -> Value {
    serde_json::from_str(&text(files, name)).unwrap()
}

/// Asks the API over the Unix socket.
fn ask(data: &Path, request: &str, body: &[u8]) -> Vec<u8> {
    use std::{io::Write as _, os::unix::net::UnixStream};

    let mut stream = UnixStream::connect(data.join("control").join("socket")).unwrap();
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn the_archive_of_a_running_node_has_its_state_and_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let file = dir.path().join("file");
    fs::write(&file, vec![9; 500_000]).unwrap();
    // Another program offers a file by a ticket with a secret.
    let mut send = calnet();
    send.args([
        "send",
        "--json",
        "--local",
        "--listen",
        "/ip4/127.0.0.1/tcp/0",
    ])
    .arg(&file);
    let sender = Process::start(send);
    let ticket = sender.event("ticket")["ticket"]
        .as_str()
        .unwrap()
        .to_owned();
    let parsed = ticket.parse::<Ticket>().unwrap();
    let id = *parsed.blob_id().as_bytes();
    let secret = parsed.secret().unwrap().key().secret().as_ref().to_vec();
    // A node with the most talkative log.
    let mut command = calnet();
    command.args([
        "run",
        "--json",
        "--local",
        "--listen",
        "/ip4/127.0.0.1/tcp/0",
        "--log",
        "trace",
    ]);
    command
        .args(["--api", "127.0.0.1:0", "--subscribe", "news", "--data"])
        .arg(&data);
    command.stderr(Stdio::piped());
    let mut node = Process::start(command);
    node.event("listening");
    let fetched = ask(&data, "POST /v1/tickets/fetch", ticket.as_bytes());
    let fetched = String::from_utf8(fetched).unwrap();
    assert!(fetched.contains("\"event\":\"fetched\""), "{fetched}");
    assert!(fetched.contains("\"name\":\"file\""), "{fetched}");
    let malformed = ask(&data, "POST /v1/tickets/fetch", &ticket.as_bytes()[..60]);
    let page = ask(&data, "GET /", b"");
    let path = dir.path().join("diag.tar.gz");
    let arguments = [
        "--data",
        data.to_str().unwrap(),
        "-o",
        path.to_str().unwrap(),
    ];
    let written = diag(&arguments);
    assert!(written.success, "{}", written.stderr);
    let record = &written.json_lines()[0];
    assert_eq!(record["running"], true);
    assert_eq!(record["missing"], serde_json::json!([]));
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let files = read(&path);
    assert_eq!(record["parts"].as_array().unwrap().len(), files.len());
    assert_eq!(value(&files, "status.json")["event"], "status");
    assert_eq!(
        value(&files, "config.json")["origins"]["listen"][0],
        "command_line"
    );
    assert_eq!(value(&files, "topics.json")["topics"][0]["topic"], "news");
    assert_eq!(value(&files, "store.json")["blobs"], 1);
    assert_eq!(value(&files, "about.json")["running"], true);
    assert!(text(&files, "metrics.txt").contains("process_resident_memory_bytes"));
    assert!(text(&files, "log.txt").lines().count() > 10);
    assert!(text(&files, "host/interfaces.txt").contains("127.0.0.1"));
    assert!(text(&files, "host/limits.txt").contains("Max open files"));
    assert!(text(&files, "data-folder.txt").contains("identity"));
    // It is not written a second time.
    let before = fs::read(&path).unwrap();
    let again = diag(&arguments);
    assert_eq!(again.code, Some(6), "{}", again.stderr);
    assert!(fs::read(&path).unwrap() == before);
    assert!(node.end_by("-TERM").success());
    let log = node.stderr();
    assert!(log.contains("TRACE"), "{log}");
    let token = fs::read_to_string(data.join("control").join("token")).unwrap();
    let mut secrets = forms(&secret_key(&data));
    secrets.extend(forms(&secret));
    secrets.push(token.trim().as_bytes().to_vec());
    secrets.push(ticket.into_bytes());
    let mut texts: Vec<(&str, &[u8])> = vec![
        ("log", log.as_bytes()),
        ("page", &page),
        ("record", written.stdout.as_bytes()),
        ("refusal of a ticket", &malformed),
    ];
    texts.extend(
        files
            .iter()
            .map(|(name, content)| (name.as_str(), content.as_slice())),
    );
    for (name, content) in texts {
        for secret in &secrets {
            assert!(!contains(content, secret), "{name} holds a secret");
        }
    }
    // Whoever reads the archive cannot fetch the blob.
    let ids = [hex::encode(id), bs58::encode(id).into_string()];
    for (name, content) in &files {
        for id in &ids {
            assert!(!contains(content, id.as_bytes()), "{name} has {id}");
        }
    }
}

#[test]
fn a_node_that_hangs_delays_the_archive_by_no_more_than_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("diag.tar.gz"));
    let data = data.to_str().unwrap();
    let node = Process::node(&["--data", data]);
    node.addresses(2);
    node.signal("-STOP");
    let start = Instant::now();
    let archive = file.to_str().unwrap();
    let ended = diag(&["--data", data, "--timeout-ms", "300", "-o", archive]);
    let took = start.elapsed();
    assert!(ended.success, "{}", ended.stderr);
    // One answer alone has 10 s otherwise.
    assert!(took < Duration::from_secs(10), "{took:?}");
    let written = ended.json_lines().remove(0);
    let missing = written["missing"].to_string();
    for part in ["status.json", "metrics.txt", "log.txt"] {
        assert!(missing.contains(part), "{written}");
    }
    assert!(missing.contains("not asked"), "{written}");
    assert_eq!(
        value(&read(&file), "about.json")["missing"],
        written["missing"]
    );
    node.signal("-CONT");
}

#[test]
fn an_archive_is_written_without_a_node_and_without_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut init = calnet();
    init.args(["init", "--local", "--data"]).arg(&data);
    assert!(run(init).success);
    let path = |name: &str| -> PathBuf { dir.path().join(name) };
    let stopped = path("stopped.tar.gz");
    let (data, out) = (data.to_str().unwrap(), stopped.to_str().unwrap());
    let written = diag(&["--data", data, "-o", out]);
    assert!(written.success, "{}", written.stderr);
    let record = &written.json_lines()[0];
    assert_eq!(record["running"], false);
    assert!(
        record["missing"][0]
            .as_str()
            .unwrap()
            .contains("no node runs"),
        "{record}"
    );
    let files = read(&stopped);
    assert_eq!(
        value(&files, "config.json")["origins"]["discovery.local_network"][0],
        "file"
    );
    assert!(!files.contains_key("status.json"));
    let secret = secret_key(Path::new(data));
    for content in files.values() {
        assert!(forms(&secret).iter().all(|form| !contains(content, form)));
    }
    // A file that is refused is a reason to write an archive.
    fs::write(Path::new(data).join("node.toml"), "listen = 7\n").unwrap();
    let refused = path("refused.tar.gz");
    let written = diag(&["--data", data, "-o", refused.to_str().unwrap()]);
    assert!(written.success, "{}", written.stderr);
    assert!(written.stdout.contains("node.toml"), "{}", written.stdout);
    // In the current folder, of this host alone.
    let mut command = calnet();
    command.current_dir(dir.path()).args(["diag", "--json"]);
    let written = run(command);
    assert!(written.success, "{}", written.stderr);
    let name = written.json_lines()[0]["file"].as_str().unwrap().to_owned();
    assert!(name.starts_with("calnet-diag-2"), "{name}");
    assert!(read(&path(&name)).contains_key("host/routes.txt"));
    let nowhere = path("nothing").join("a.tar.gz");
    let failed = diag(&["-o", nowhere.to_str().unwrap()]);
    assert_eq!(failed.code, Some(5), "{}", failed.stderr);
}

#[test]
fn an_archive_has_the_reason_of_a_node_that_is_not_ready_and_its_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("node.toml"), "listen = []\n").unwrap();
    let mut command = calnet();
    command
        .args(["boot", "--json", "--local", "--data"])
        .arg(&data);
    let mut node = Process::start(command);
    node.event("started");
    let socket = data.join("control").join("socket");
    let deadline = std::time::Instant::now() + support::LIMIT;
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
    let archive = dir.path().join("running.tar.gz");
    let (data, file) = (data.to_str().unwrap(), archive.to_str().unwrap());
    assert!(diag(&["--data", data, "-o", file]).success);
    let files = read(&archive);
    assert_eq!(value(&files, "ready.json")["ready"], false);
    let running = value(&files, "config.json");
    assert!(node.end_by("-TERM").success());
    // The defaults of a boot node are not those of another node.
    let archive = dir.path().join("stopped.tar.gz");
    assert!(diag(&["--data", data, "-o", archive.to_str().unwrap()]).success);
    let stopped = value(&read(&archive), "config.json");
    let limit = |config: &Value| config["config"]["connections"]["max_established"].clone();
    assert_eq!(limit(&stopped), limit(&running));
    let mut show = calnet();
    show.args(["config", "show", "--json", "--data", data]);
    assert_eq!(limit(&run(show).json_lines()[0]), limit(&running));
}
