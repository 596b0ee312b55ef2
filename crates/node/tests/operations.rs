//! What operators depend on: messages to the service manager, forms of the log, secrets that stay
//! secret, and a Prometheus that evaluates the dashboard and the rules in `deploy`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod support;

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use calimero_network::Keypair;
use serde_json::Value;
use support::{LIMIT, Process, calnet, run};

/// Pause between two requests for a state that is reached by itself.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A boot node on loopback, on a port that the system chooses. It warns that it has no external
/// address.
fn boot(data: &Path) -> Command {
    let mut command = calnet();
    command.args(["boot", "--json", "--local"]);
    command.args(["--listen", "/ip4/127.0.0.1/tcp/0"]);
    command.arg("--data").arg(data);
    command.env_remove("RUST_LOG").env_remove("CALNET_LOG");
    command
}

/// The text that a node writes to standard error between its start and an orderly end.
fn log_of(mut command: Command) -> String {
    command.stderr(Stdio::piped());
    let mut process = Process::start(command);
    process.event("listening");
    assert!(process.end_by("-TERM").success());
    process.stderr()
}

#[test]
fn a_service_manager_learns_that_a_node_is_ready_alive_and_stopping() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut command = boot(&folder.path().join("data"));
    command.env("NOTIFY_SOCKET", &path);
    command.env("WATCHDOG_USEC", "200000");
    let mut process = Process::start(command);
    let receive = || {
        let mut message = [0; 4096];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    };
    let mut missing = BTreeSet::from(["READY=1", "WATCHDOG=1", "STATUS=0 peers"]);
    while !missing.is_empty() {
        let message = receive();
        assert!(!message.contains("STOPPING"), "{message}");
        missing.retain(|wanted| message.lines().all(|line| line != *wanted));
    }
    // The watchdog is reset as long as the node answers.
    (0..3).for_each(|_| assert!(receive().contains("WATCHDOG=1")));
    assert!(process.end_by("-TERM").success());
    while receive().trim() != "STOPPING=1" {}
}

#[test]
fn a_log_has_the_form_that_is_asked_for_and_no_colours_without_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let warning = "without --external";

    let text = log_of(boot(&data));
    assert!(text.contains("WARN") && text.contains(warning), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");

    let mut command = boot(&data);
    command.args(["--log-format", "json"]);
    let text = log_of(command);
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let line = lines.iter().find(|line| {
        let message = line["message"].as_str().unwrap();
        message.contains(warning)
    });
    let line = line.unwrap_or_else(|| panic!("{text}"));
    assert_eq!(line["level"], "WARN");
    assert!(
        line["timestamp"].is_string() && line["target"].is_string(),
        "{line}"
    );

    let mut command = boot(&data);
    command.env("RUST_LOG", "error");
    assert_eq!(log_of(command), "");
    let mut command = boot(&data);
    command.env("RUST_LOG", "error").args(["--log", "warn"]);
    assert!(log_of(command).contains(warning));
}

/// The journal is a socket under `/run`, which is replaced in a mount namespace.
#[cfg(target_os = "linux")]
#[test]
fn the_journal_gets_the_fields_of_an_event() {
    const JOURNAL: &str = r#"
import os, socket, subprocess, sys
os.makedirs('/run/systemd/journal')
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journal.bind('/run/systemd/journal/socket')
journal.settimeout(60)
node = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
try:
    while True:
        entry = journal.recv(65536)
        if b'--external' in entry:
            break
    while entry:
        key, _, rest = entry.partition(b'\n')
        if b'=' in key:
            print(key.decode())
        else:
            length = int.from_bytes(rest[:8], 'little')
            print(key.decode() + '=' + rest[8:8 + length].decode())
            rest = rest[9 + length:]
        entry = rest
finally:
    node.terminate()
    node.wait()
"#;
    let folder = tempfile::tempdir().unwrap();
    let node = boot(&folder.path().join("data"));
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg("mount -t tmpfs none /run && exec python3 -c \"$0\" \"$@\"");
    command.arg(JOURNAL);
    command.arg(node.get_program()).args(node.get_args());
    command.args(["--log-format", "journald"]);
    let ended = run(command);
    if ended.stderr.contains("Operation not permitted")
        || ended.stderr.contains("must be superuser")
    {
        eprintln!("skipped: mount namespaces need root");
        return;
    }
    assert!(ended.success, "{}", ended.stderr);
    for field in ["PRIORITY=4", "SYSLOG_IDENTIFIER=calnet", "TARGET=calnet"] {
        assert!(ended.stdout.contains(field), "{field}: {}", ended.stdout);
    }
}

/// The forms in which a secret could be printed.
fn forms(secret: &[u8]) -> Vec<String> {
    let decimal: Vec<_> = secret.iter().map(u8::to_string).collect();
    let hex = hex::encode(secret);
    vec![
        hex.to_uppercase(),
        hex,
        bs58::encode(secret).into_string(),
        base64(secret),
        decimal.join(", "),
        decimal.join(","),
    ]
}

/// Base64 without padding, which a longer text may follow.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let whole = bytes.len() / 3 * 3;
    let mut text = String::new();
    for group in bytes[..whole].chunks(3) {
        let value = group
            .iter()
            .fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
        for shift in [18, 12, 6, 0] {
            text.push(char::from(LETTERS[value >> shift & 63]));
        }
    }
    text
}

#[test]
fn a_secret_is_searched_for_in_all_forms() {
    let forms = forms(&[0xfb, 0xff, 0x01, 0x80, 0x00, 0x10, 0x07]);
    let expected = [
        "FBFF0180001007",
        "fbff0180001007",
        "AYsbcYQiZU",
        "+/8BgAAQ",
        "251, 255, 1, 128, 0, 16, 7",
        "251,255,1,128,0,16,7",
    ];
    assert_eq!(forms, expected);
}

#[test]
fn the_secret_key_is_in_no_log_record_status_or_metric() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut command = boot(&data);
    // Everything that any crate logs, such as handshakes.
    command.args(["--log", "trace", "--metrics", "127.0.0.1:0"]);
    let log = folder.path().join("log");
    command.stderr(fs::File::create(&log).unwrap());
    let mut process = Process::start(command);
    let peer = process.event("started")["peer"]
        .as_str()
        .unwrap()
        .to_owned();
    let http = address(&process);
    let address = process.event("listening")["address"].clone();
    let address = format!("{}/p2p/{peer}", address.as_str().unwrap());
    // A peer, so that keys are used.
    let mut probe = calnet();
    probe.args(["probe", &address, "--pings", "1"]);
    assert!(run(probe).success);
    let mut texts = vec![get(http, "/metrics"), get(http, "/status")];
    for arguments in [&["status"] as &[&str], &["peers"], &["config", "show"]] {
        let mut command = calnet();
        command.args(arguments).arg("--data").arg(&data);
        let ended = run(command);
        texts.extend([ended.stdout, ended.stderr]);
    }
    assert!(process.end_by("-TERM").success());
    texts.push(fs::read_to_string(&log).unwrap());
    texts.extend(process.entries().iter().map(|entry| entry.line.to_string()));

    let file = fs::read(data.join("identity")).unwrap();
    let keypair = Keypair::from_protobuf_encoding(&file).unwrap();
    let keypair = keypair.try_into_ed25519().unwrap();
    let secret = keypair.secret();
    let all = texts.join("\n");
    assert!(
        all.contains("TRACE") && all.contains(&peer),
        "the log is empty"
    );
    for form in forms(secret.as_ref()) {
        assert!(!all.contains(&form), "the secret key is in an output");
    }
}

/// The HTTP address of a node.
fn address(process: &Process) -> SocketAddr {
    let line = process.event("metrics");
    let url = line["url"].as_str().unwrap();
    let authority = url.strip_prefix("http://").unwrap();
    authority.split_once('/').unwrap().0.parse().unwrap()
}

/// The body of a page.
fn get(at: SocketAddr, path: &str) -> String {
    try_get(at, path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn try_get(at: SocketAddr, path: &str) -> Result<String, String> {
    let request = format!("GET {path} HTTP/1.0\r\nHost: {at}\r\n\r\n");
    let fetch = || {
        let mut stream = TcpStream::connect(at)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    let answer = fetch().map_err(|error| error.to_string())?;
    let answer = String::from_utf8(answer).map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no head")?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(format!("{head}\n{body}")),
    }
}

fn deploy(path: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    root.join(path).canonicalize().unwrap()
}

/// A Prometheus that scrapes nodes. Killed when dropped.
struct Prometheus {
    child: Child,
    at: SocketAddr,
}

impl Prometheus {
    /// Starts it. `None` if it is not installed.
    fn start(folder: &Path, targets: &[SocketAddr]) -> Option<Self> {
        let targets: Vec<_> = targets.iter().map(SocketAddr::to_string).collect();
        let config = serde_json::json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": [deploy("prometheus/rules.yml")],
            "scrape_configs": [{
                "job_name": "calnet",
                "static_configs": [{ "targets": targets }],
            }],
        });
        // JSON is YAML.
        let file = folder.join("prometheus.yml");
        fs::write(&file, config.to_string()).unwrap();
        let deadline = Instant::now() + LIMIT;
        loop {
            // Another process may get the port before Prometheus, which ends then.
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let at = free.local_addr().unwrap();
            drop(free);
            let child = Command::new("prometheus")
                .arg(format!("--config.file={}", file.display()))
                .arg(format!(
                    "--storage.tsdb.path={}",
                    folder.join("tsdb").display()
                ))
                .arg(format!("--web.listen-address={at}"))
                .arg("--log.level=warn")
                .spawn()
                .ok()?;
            let mut prometheus = Self { child, at };
            while prometheus.child.try_wait().unwrap().is_none() {
                let Err(error) = try_get(at, "/-/ready") else {
                    return Some(prometheus);
                };
                assert!(
                    Instant::now() < deadline,
                    "Prometheus does not start: {error}"
                );
                std::thread::park_timeout(POLL_INTERVAL);
            }
        }
    }

    /// The series that a query returns.
    fn query(&self, query: &str) -> Vec<Value> {
        let quoted: String = query
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
                byte => format!("%{byte:02X}"),
            })
            .collect();
        let answer = try_get(self.at, &format!("/api/v1/query?query={quoted}"));
        let answer = answer.unwrap_or_else(|error| panic!("{query}\n{error}"));
        let answer: Value = serde_json::from_str(&answer).unwrap();
        answer["data"]["result"].as_array().unwrap().clone()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All queries of the dashboard, with its variables replaced.
fn dashboard_queries() -> Vec<String> {
    let text = fs::read_to_string(deploy("grafana/calnet.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    let queries = targets.map(|target| {
        let query = target["expr"].as_str().unwrap();
        let query = query
            .replace("$instance", ".+")
            .replace("$__rate_interval", "10s");
        assert!(!query.contains('$'), "an unknown variable: {query}");
        query
    });
    queries.collect()
}

/// Every panel of the dashboard shows something, and every rule is evaluated, in a network of three
/// nodes.
#[test]
fn the_dashboard_and_the_rules_work_with_a_prometheus_that_scrapes_three_nodes() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = boot(&folder.path().join("boot"));
    command.args(["--metrics", "127.0.0.1:0"]);
    let boot = Process::start(command);
    let peer = boot.event("started")["peer"].as_str().unwrap().to_owned();
    let mut targets = vec![address(&boot)];
    let at = boot.event("listening")["address"]
        .as_str()
        .unwrap()
        .to_owned();
    let at = format!("{at}/p2p/{peer}");
    let nodes: Vec<_> = (0..2)
        .map(|nth| {
            let data = folder.path().join(nth.to_string());
            let data = data.to_str().unwrap();
            Process::node(&[
                "--local",
                "--boot",
                &at,
                "--metrics",
                "127.0.0.1:0",
                "--data",
                data,
                "--subscribe",
                "news",
            ])
        })
        .collect();
    targets.extend(nodes.iter().map(address));
    let Some(prometheus) = Prometheus::start(folder.path(), &targets) else {
        eprintln!("skipped: prometheus is not installed (Debian package prometheus)");
        return;
    };
    for node in &nodes {
        node.event("connected");
    }
    // A rate needs two scrapes of every node, and a recording rule an evaluation after them.
    let deadline = Instant::now() + LIMIT;
    let are_scraped = || {
        let twice = prometheus.query("count_over_time(up{job=\"calnet\"}[1m]) >= 3");
        let peers = prometheus.query("calimero_network_peers > 0");
        twice.len() == 3 && peers.len() == 3
    };
    while !are_scraped() {
        assert!(Instant::now() < deadline, "{:#?}", prometheus.query("up"));
        std::thread::park_timeout(POLL_INTERVAL);
    }
    assert_eq!(prometheus.query("up == 1").len(), 3);
    let queries = dashboard_queries();
    assert!(queries.len() > 60, "{}", queries.len());
    let empty: Vec<_> = queries
        .iter()
        .filter(|query| prometheus.query(query).is_empty())
        .collect();
    assert!(empty.is_empty(), "queries without a result: {empty:#?}");

    let rules: Value = serde_json::from_str(&get(prometheus.at, "/api/v1/rules")).unwrap();
    let groups = rules["data"]["groups"].as_array().unwrap();
    let rules: Vec<_> = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
        .collect();
    assert!(rules.len() > 20, "{rules:#?}");
    for rule in rules {
        assert_eq!(rule["lastError"].as_str().unwrap_or_default(), "", "{rule}");
        // None of the alerts is about a network that works.
        assert_ne!(rule["state"], "firing", "{rule}");
    }
    // What nodes report of the process is what Prometheus expects of every exporter.
    assert_eq!(
        prometheus
            .query("process_resident_memory_bytes > 1e6")
            .len(),
        3
    );
    assert_eq!(
        prometheus
            .query("calnet:resource_use:ratio{resource=\"connections\"} > 0")
            .len(),
        3
    );
}
