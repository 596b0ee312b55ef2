//! The process: signals, unread output, locks, logs, exit status.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod support;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use calimero_network::{
    Keypair, NetworkConfig, NetworkManager, StreamProtocol,
    futures::{AsyncReadExt as _, AsyncWriteExt as _},
};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use support::{ClosedPort, LIMIT, Process, calnet, full_pipe, run};

fn signal(process: u32, name: &str) {
    let process = process.to_string();
    let status = Command::new("kill").args([name, &process]).status();
    assert!(status.unwrap().success());
}

/// Waits for the end of a process and returns its exit status.
fn end(child: &mut std::process::Child) -> Option<i32> {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("the process did not end within {LIMIT:?}");
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn data(folder: &tempfile::TempDir) -> String {
    folder.path().join("data").to_str().unwrap().to_owned()
}

/// Waits until a node serves its control socket.
fn until_controlled(data: &str) -> UnixStream {
    let path = Path::new(data).join("control").join("socket");
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Ok(stream) = UnixStream::connect(&path) {
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            return stream;
        }
        assert!(Instant::now() < deadline, "no control socket at {path:?}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn the_second_signal_ends_a_process_that_is_blocked() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("config");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    // The process waits for a writer that never comes.
    let mut command = calnet();
    command.args(["run", "--config", pipe.to_str().unwrap()]);
    let (write, _read) = full_pipe();
    let mut child = command.stdout(write).spawn().unwrap();
    let process = child.id();
    // Signals are handled once the thread exists that receives them.
    let threads = format!("/proc/{process}/task");
    let deadline = Instant::now() + LIMIT;
    let has_thread = |name: &str| {
        fs::read_dir(&threads).unwrap().any(|task| {
            let name_of = task.unwrap().path().join("comm");
            fs::read_to_string(name_of).is_ok_and(|text| text.trim() == name)
        })
    };
    while !has_thread("signals") {
        assert!(Instant::now() < deadline, "no signal is handled");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let first = Instant::now();
    signal(process, "-TERM");
    // The same signal counts again after one second.
    while first.elapsed() < Duration::from_millis(1100) {
        std::thread::park_timeout(Duration::from_millis(50));
    }
    assert!(child.try_wait().unwrap().is_none());
    signal(process, "-TERM");
    assert_eq!(end(&mut child), Some(128 + 15));
}

/// `nohup` starts its command so, and the terminal that closes sends the signal.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(&folder);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP INT; exec \"$0\" \"$@\""]);
    command.arg(env!("CARGO_BIN_EXE_calnet"));
    command.args([
        "run",
        "--json",
        "--listen",
        "/ip4/127.0.0.1/tcp/0",
        "--data",
        &data,
    ]);
    let mut node = Process::start(command);
    node.event("listening");
    drop(until_controlled(&data));
    node.signal("-HUP");
    node.signal("-INT");
    // A handled signal would have ended it: the command is answered after the signals arrived.
    let mut status = calnet();
    status.args(["status", "--data", &data]);
    assert!(run(status).success);
    assert!(
        !node
            .entries()
            .iter()
            .any(|entry| entry.line["event"] == "stopped")
    );
    assert_eq!(node.end_by("-TERM").code(), Some(0));
}

#[test]
fn a_reader_that_closes_its_end_ends_a_subscription() {
    let node = Process::node(&[]);
    let address = node.addresses(1).remove(0);
    let mut command = calnet();
    command.args(["subscribe", "--json", "weather", "--dial", &address]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut first).unwrap();
    assert!(first.contains("following"), "{first}");
    // No message comes, so nothing is written any more.
    drop(reader);
    assert_eq!(end(&mut child), Some(0));
}

#[test]
fn a_command_that_loses_its_reader_before_its_end_fails() {
    let node = Process::node(&["--subscribe", "weather"]);
    let address = node.addresses(1).remove(0);
    let mut command = calnet();
    command.args(["publish", "--json", "weather", "--dial", &address]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Its input does not end.
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"rain\n").unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    assert!(first.contains("published"), "{first}");
    drop(reader);
    assert_eq!(end(&mut child), Some(141));
}

#[test]
fn input_that_cannot_be_read_is_an_error() {
    let node = Process::node(&[]);
    let address = node.addresses(1).remove(0);
    let folder = tempfile::tempdir().unwrap();
    let mut command = calnet();
    command.args(["publish", "weather", "--dial", &address]);
    command.stdin(std::fs::File::open(folder.path()).unwrap());
    let ended = run(command);
    assert_eq!(ended.code, Some(6), "{}", ended.stderr);
    assert!(ended.stderr.contains("standard input"), "{}", ended.stderr);
}

#[test]
fn a_signal_ends_a_command_whose_output_is_not_read() {
    let node = Process::node(&[]);
    let address = node.addresses(1).remove(0);
    let mut command = calnet();
    command.args(["probe", &address]);
    let (write, _read) = full_pipe();
    let mut child = command.stdout(write).spawn().unwrap();
    node.event("disconnected");
    signal(child.id(), "-TERM");
    // What it reports was not read.
    assert_eq!(end(&mut child), Some(128 + 15));
}

/// Processor time that a process has used, in ticks of the kernel.
fn processor_time(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name of the program, in parentheses, may have spaces.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<_> = fields.split_whitespace().collect();
    let [user, system] = [fields[11], fields[12]].map(|ticks| ticks.parse::<u64>().unwrap());
    user + system
}

/// Waits until a process seems to do nothing: it has used no processor time for a while.
fn until_idle(process: u32) {
    let (mut used, mut since) = (processor_time(process), Instant::now());
    while since.elapsed() < Duration::from_millis(200) {
        std::thread::park_timeout(Duration::from_millis(20));
        let now = processor_time(process);
        if now != used {
            (used, since) = (now, Instant::now());
        }
    }
}

#[test]
fn a_signal_interrupts_a_blob_that_is_not_read_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(&folder);
    let (short, long) = (folder.path().join("short"), folder.path().join("long"));
    // Less than the queue of standard output takes, and more.
    fs::write(&short, vec![7; 1 << 20]).unwrap();
    fs::write(&long, vec![8; 16 << 20]).unwrap();
    let mut add = calnet();
    add.args(["blob", "--json", "--data", &data, "add"]);
    add.arg(&short).arg(&long);
    let added = run(add).json_lines();
    let node = Process::node(&["--data", &data]);
    let address = node.addresses(1).remove(0);
    drop(until_controlled(&data));
    for blob in added {
        let id = blob["id"].as_str().unwrap();
        // From a peer, and from the node that runs on the folder.
        let sources: [&[&str]; 2] = [&["--dial", &address], &["--data", &data]];
        for source in sources {
            for _ in 0..2 {
                let mut command = calnet();
                match source[0] {
                    "--data" => command.args(["blob"]).args(source).arg("get"),
                    _ => command.args(["blob", "get"]).args(source),
                };
                command.args([id, "-o", "-"]);
                let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
                let mut output = child.stdout.take().unwrap();
                // Its signals are handled, and nothing more is read.
                output.read_exact(&mut [0; 1]).unwrap();
                until_idle(child.id());
                signal(child.id(), "-TERM");
                assert_eq!(end(&mut child), Some(128 + 15), "{source:?}");
            }
        }
    }
}

#[test]
fn messages_that_are_called_published_are_sent_after_the_reader_has_left() {
    const MESSAGES: usize = 6;
    let subscriber = Process::node(&["--subscribe", "weather"]);
    let address = subscriber.addresses(1).remove(0);
    let mut command = calnet();
    command.args(["publish", "--json", "weather", "--dial", &address]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"first\n").unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut published = |count: usize| {
        for _ in 0..count {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            assert!(line.contains(r#""event":"published""#), "{line}");
        }
    };
    published(1);
    assert_eq!(subscriber.event("message")["text"], "first");
    // The subscriber reads nothing for a while, so that messages wait in the queue.
    subscriber.signal("-STOP");
    for number in 0..MESSAGES {
        let mut message = format!("{number} ").into_bytes();
        message.resize(1_000_000, b'x');
        message.push(b'\n');
        input.write_all(&message).unwrap();
    }
    published(MESSAGES);
    // Its input does not end.
    drop(reader);
    let noticed = Instant::now() + Duration::from_secs(2);
    while child.try_wait().unwrap().is_none() && Instant::now() < noticed {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    subscriber.signal("-CONT");
    assert_eq!(end(&mut child), Some(141));
    for number in 0..MESSAGES {
        let message = subscriber.event("message");
        let text = message["text"].as_str().unwrap();
        assert!(text.starts_with(&format!("{number} ")), "{}", &text[..10]);
    }
}

#[test]
fn failures_are_objects_with_codes_and_exit_statuses() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(&folder);
    let closed = ClosedPort::new();
    let address = closed.address();
    let node = Process::node(&[]);
    let alive = node.addresses(1).remove(0);
    let missing = "11111111111111111111111111111112";
    let cases: [(&[&str], &str, i32); 7] = [
        (&["status"], "usage", 2),
        (&["no-such-command"], "usage", 2),
        (&["status", "--data", &data], "not_reachable", 3),
        (&["probe", &address], "not_reachable", 3),
        (&["perf", "--round-trips", "1", &alive], "not_found", 5),
        (&["blob", "--data", &data, "add", "/dev/zero"], "refused", 6),
        (
            &["blob", "get", missing, "-o", "-", "--dial", &alive],
            "not_found",
            5,
        ),
    ];
    for (arguments, code, status) in cases {
        for json_first in [true, false] {
            let mut command = calnet();
            match json_first {
                true => command.arg("--json").args(arguments),
                false => command.args(arguments).arg("--json"),
            };
            let ended = run(command);
            assert_eq!(ended.code, Some(status), "{arguments:?}: {}", ended.stderr);
            let last = ended.stderr.lines().last().unwrap();
            let last: serde_json::Value = serde_json::from_str(last).unwrap();
            assert_eq!(last["event"], "error");
            assert_eq!(last["code"], code, "{last}");
            assert!(!last["message"].as_str().unwrap().is_empty());
            assert!(last["time"].as_str().unwrap().ends_with('Z'));
        }
    }
}

#[test]
fn a_socket_that_may_not_be_opened_is_not_a_missing_node() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(&folder);
    // A file in the place of a folder, for root may enter every folder.
    fs::create_dir(&data).unwrap();
    fs::write(Path::new(&data).join("control"), b"").unwrap();
    let mut status = calnet();
    status.args(["status", "--data", &data]);
    let status = run(status);
    assert!(!status.success);
    assert!(!status.stderr.contains("no node runs"), "{}", status.stderr);
}

#[test]
fn redirected_logs_have_no_colours_and_events_have_times() {
    let mut command = calnet();
    command.args(["run", "--json", "--log", "debug"]);
    command.args(["--listen", "/ip4/127.0.0.1/tcp/0"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    signal(child.id(), "-TERM");
    let mut log = String::new();
    let mut stderr = child.stderr.take().unwrap();
    stderr.read_to_string(&mut log).unwrap();
    assert_eq!(end(&mut child), Some(0));
    assert!(!log.is_empty());
    assert!(!log.contains('\u{1b}'), "{log}");
}

/// A peer that sends garbage as fast as it can makes a few lines.
#[test]
fn a_peer_does_not_fill_the_log() {
    const STREAMS: usize = 300;
    let mut command = calnet();
    command.args(["boot", "--local", "--json", "--log", "warn"]);
    let folder = tempfile::tempdir().unwrap();
    command.args(["--listen", "/ip4/127.0.0.1/tcp/0", "--data"]);
    command.arg(folder.path()).stderr(Stdio::piped());
    let mut node = Process::start(command);
    let address = node.addresses(1).remove(0);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config = NetworkConfig {
            listen: Vec::new(),
            ..NetworkConfig::default()
        };
        let key = Keypair::generate_ed25519();
        let (client, _events) = NetworkManager::start(key, config).await.unwrap();
        let connection = client.dial(address.parse().unwrap()).await.unwrap();
        let protocol = StreamProtocol::new("/libp2p/autonat/2/dial-request");
        for _ in 0..STREAMS {
            let opened = client
                .open_raw_stream(connection.peer, protocol.clone())
                .await;
            let mut stream = opened.unwrap();
            stream.write_all(&[2, 0xff, 0xff]).await.unwrap();
            stream.close().await.unwrap();
            // The node has read the garbage once it ends the stream.
            let _ = stream.read(&mut [0; 64]).await;
        }
        client.shutdown().await.unwrap();
    });
    assert!(node.end_by("-TERM").success());
    let log = node.stderr();
    let lines = log.lines().count();
    assert!(lines <= 20, "{lines} lines:\n{log}");
}

/// One request over a TCP connection, with a `Host` and perhaps an `Origin`.
fn answer(address: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET /status HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn pages_of_strangers_do_not_read_the_status() {
    let node = Process::node(&["--metrics", "127.0.0.1:0", "--metrics-host", "node.example"]);
    let url = node.event("metrics")["url"].as_str().unwrap().to_owned();
    let address = url.strip_prefix("http://").unwrap();
    let address = address.strip_suffix("/metrics").unwrap();
    let own = format!("Host: {address}");
    for allowed in [own.as_str(), "Host: node.example:80"] {
        assert!(answer(address, allowed).contains(" 200 "), "{allowed}");
    }
    let elsewhere = format!("{own}\r\nOrigin: http://evil.example");
    for refused in ["Host: evil.example", &elsewhere] {
        assert!(answer(address, refused).contains(" 403 "), "{refused}");
    }
}

/// One request over the control socket: the head of the answer and its body.
fn control(data: &str, request: &str) -> (String, String) {
    let mut stream = until_controlled(data);
    let request = format!("{request}\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[test]
fn the_control_interface_answers_programs() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(&folder);
    let node = Process::node(&["--data", &data, "--subscribe", "weather"]);
    let address = node.addresses(1).remove(0);
    let other = Process::node(&["--dial", &address]);
    other.event("connected");
    node.event("connected");
    let socket = Path::new(&data).join("control").join("socket");
    let mode = fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let (head, body) = control(&data, "GET /healthz HTTP/1.1");
    assert!(head.contains(" 200 ") && body == "ok\n", "{head}\n{body}");
    let record = |request: &str| {
        let (head, body) = control(&data, request);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert!(body["time"].is_string(), "{body}");
        (head, body)
    };
    let (_, ready) = record("GET /readyz HTTP/1.1");
    assert_eq!(ready["ready"], true, "{ready}");
    let (_, peers) = record("GET /v1/peers HTTP/1.1");
    let peer = peers["connections"][0]["peer"].as_str().unwrap().to_owned();
    let (_, topics) = record("GET /v1/topics HTTP/1.1");
    assert_eq!(topics["topics"][0]["topic"], "weather");
    let (_, config) = record("GET /v1/config HTTP/1.1");
    assert!(config["config"].is_object(), "{config}");
    let (head, metrics) = control(&data, "GET /v1/metrics HTTP/1.1");
    assert!(head.contains("openmetrics-text"), "{head}");
    assert!(metrics.contains("calimero_network_peers 1"), "{metrics}");
    // A web page reaches the socket through a tunnel that ends at a port.
    for foreign in [
        "Host: evil.example",
        "Host: localhost\r\nOrigin: http://evil.example",
    ] {
        let mut stream = until_controlled(&data);
        let request = format!("GET /v1/status HTTP/1.1\r\n{foreign}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    }
    let (head, wrong) = record("DELETE /v1/peers/nobody HTTP/1.1");
    assert!(head.contains(" 400 "), "{head}");
    assert_eq!(wrong["code"], "usage");
    let missing = "GET /v1/blobs/11111111111111111111111111111112 HTTP/1.1";
    let (head, missing) = record(missing);
    assert!(head.contains(" 404 "), "{head}");
    assert_eq!(missing["code"], "not_found");
    // Events come as they happen.
    let mut events = until_controlled(&data);
    events
        .write_all(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut events = BufReader::new(events);
    let mut line = String::new();
    events.read_line(&mut line).unwrap();
    assert!(line.contains(" 200 "), "{line}");
    let block = format!("POST /v1/peers/{peer}/block HTTP/1.1\r\nContent-Length: 0");
    let (_, blocked) = record(&block);
    assert_eq!(blocked["event"], "blocked");
    let deadline = Instant::now() + LIMIT;
    while !line.contains(r#""event":"disconnected""#) {
        line.clear();
        events.read_line(&mut line).unwrap();
        assert!(Instant::now() < deadline && !line.is_empty());
    }
    node.event("disconnected");
}

#[test]
fn long_lines_are_refused_as_a_whole_by_a_running_node_too() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(&folder);
    let node = Process::node(&["--data", &data]);
    let address = node.addresses(1).remove(0);
    let reader = Process::node(&["--subscribe", "weather", "--dial", &address]);
    let reader_address = reader.addresses(1).remove(0);
    reader.event("connected");
    let longest = NetworkConfig::default().pubsub.max_message_bytes;
    for at in [["--data", &data], ["--dial", &reader_address]] {
        let mut command = calnet();
        command.args(["publish", "--json", "weather"]).args(at);
        command.stdin(Stdio::piped());
        let mut writer = Process::start(command);
        writer.write(&vec![b'a'; longest + 1]);
        writer.write(b"\nshort\n");
        writer.close_input();
        let failed = writer.event("publish_failed");
        let error = failed["error"].as_str().unwrap();
        for part in [longest, longest + 1] {
            assert!(error.contains(&part.to_string()), "{error}");
        }
        assert_eq!(writer.event("published")["bytes"], 5);
        assert_eq!(writer.wait().code(), Some(7));
        assert_eq!(reader.event("message")["text"], "short");
    }
    // The limit is that of the node.
    let folder = tempfile::tempdir().unwrap();
    let own = self::data(&folder);
    fs::create_dir(&own).unwrap();
    let limits = "[pubsub]\nmax_message_bytes = 2048\n";
    fs::write(Path::new(&own).join("node.toml"), limits).unwrap();
    let node_of_own = Process::node(&["--data", &own]);
    node_of_own.event("listening");
    drop(until_controlled(&own));
    let mut command = calnet();
    command.args(["publish", "--json", "weather", "--data", &own]);
    command.arg("b".repeat(2049));
    let refused = run(command);
    assert_eq!(refused.code, Some(7), "{}", refused.stderr);
    let refused = refused.json_lines().remove(0);
    let text = "payload of 2049 bytes, at most 2048 are allowed";
    assert_eq!(refused["error"], text, "{refused}");
    // A message with a line feed is one message.
    let mut command = calnet();
    command.args(["publish", "weather", "two\nlines", "--data", &data]);
    assert!(run(command).success);
    assert_eq!(reader.event("message")["text"], "two\nlines");
}
