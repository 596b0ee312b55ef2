//! The HTTP API of a running node, on its Unix socket and over TCP.

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
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    time::Instant,
};

use calimero_network::NetworkConfig;
use serde_json::Value;
use support::{ClosedPort, LIMIT, Process, calnet, run};
use tempfile::TempDir;

/// An id that no blob has.
const MISSING: &str = "11111111111111111111111111111112";

/// A connection of either kind.
trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

/// An answer that was read to its end.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{}\n{text}", self.head))
    }
}

fn read_answer(stream: &mut dyn Stream) -> Answer {
    let mut bytes = Vec::new();
    // A node that closes the connection before it has read everything resets it.
    let _ = stream.read_to_end(&mut bytes);
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&bytes)));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = bytes[end + 4..].to_vec();
    Answer { status, head, body }
}

/// The records of a stream of server-sent events.
struct Events(BufReader<Box<dyn Stream>>);

impl Events {
    fn next(&mut self) -> Value {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream ended");
            if let Some(data) = line.strip_prefix("data: ") {
                return serde_json::from_str(data).unwrap();
            }
        }
    }

    /// The next record of a name. Others are skipped.
    fn event(&mut self, name: &str) -> Value {
        loop {
            let record = self.next();
            if record["event"] == name {
                return record;
            }
        }
    }
}

/// A node with an API on its Unix socket and over TCP.
struct Node {
    process: Process,
    data: PathBuf,
    /// Address of its API.
    api: String,
    /// Multiaddress with its peer id.
    address: String,
    _folder: TempDir,
}

impl Node {
    fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let mut arguments = vec!["--data", data.to_str().unwrap(), "--api", "127.0.0.1:0"];
        arguments.extend(more);
        let process = Process::node(&arguments);
        let peer = process.event("started")["peer"].clone();
        let url = process.event("api")["url"].as_str().unwrap().to_owned();
        let api = url.strip_prefix("http://").unwrap();
        let api = api.strip_suffix("/v1").unwrap().to_owned();
        let listening = process.event("listening");
        let (listening, peer) = (listening["address"].as_str(), peer.as_str());
        let address = format!("{}/p2p/{}", listening.unwrap(), peer.unwrap());
        Self {
            process,
            data,
            api,
            address,
            _folder: folder,
        }
    }

    fn peer(&self) -> &str {
        self.address.rsplit_once('/').unwrap().1
    }

    fn token(&self) -> String {
        let text = fs::read_to_string(self.data.join("control").join("token"));
        text.unwrap().trim().to_owned()
    }

    fn unix(&self) -> Box<dyn Stream> {
        let path = self.data.join("control").join("socket");
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Box::new(stream)
    }

    fn tcp(&self) -> Box<dyn Stream> {
        let stream = TcpStream::connect(&self.api).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Box::new(stream)
    }

    /// One request on the Unix socket. `request` is its method and target, perhaps with headers.
    fn ask(&self, request: &str, body: &[u8]) -> Answer {
        let (line, headers) = request.split_once('\n').unwrap_or((request, ""));
        let length = body.len();
        let mut stream = self.unix();
        write!(
            stream,
            "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n"
        )
        .unwrap();
        for header in headers.lines() {
            write!(stream, "{header}\r\n").unwrap();
        }
        stream.write_all(b"\r\n").unwrap();
        // The node may refuse the body before it has read it.
        let _ = stream.write_all(body);
        read_answer(stream.as_mut())
    }

    fn get(&self, target: &str) -> Answer {
        self.ask(&format!("GET {target}"), b"")
    }

    /// One request over TCP with these headers and no others.
    fn over_tcp(&self, line: &str, headers: &[&str]) -> Answer {
        let mut stream = self.tcp();
        let headers = headers.join("\r\n");
        write!(
            stream,
            "{line} HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        read_answer(stream.as_mut())
    }

    /// The first line of the answer to a request for a stream, which is closed then.
    fn status_of_events(&self) -> String {
        let mut stream = self.unix();
        write!(stream, "GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut status = String::new();
        BufReader::new(stream).read_line(&mut status).unwrap();
        status
    }

    /// Begins a request on the Unix socket whose answer is a stream. It is read no further than its
    /// first record, if it has one at once.
    fn events(&self, line: &str) -> Events {
        let mut stream = self.unix();
        write!(stream, "{line} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut events = Events(BufReader::new(stream));
        let mut status = String::new();
        events.0.read_line(&mut status).unwrap();
        assert!(status.contains(" 200 "), "{status}");
        events
    }
}

/// Waits until two nodes are connected.
fn connect(from: &Node, to: &Node) {
    let target = format!("POST /v1/peers?address={}", to.address);
    let answer = from.ask(&target, b"");
    assert_eq!(answer.status, 200, "{:?}", answer.json());
    to.process.event("connected");
}

#[test]
fn every_request_of_the_description_is_answered() {
    let (node, other) = (Node::start(&[]), Node::start(&["--subscribe", "a topic"]));
    connect(&node, &other);
    node.process.event("subscribed");
    let content = vec![7; 200_000];
    let added = node.ask("POST /v1/blobs", &content).json();
    let id = added["id"].as_str().unwrap().to_owned();
    assert_eq!(added["size_bytes"], content.len());
    let peer = other.peer();
    // Each request of the description, with a target, and the record of its answer.
    let requests = [
        ("GET /healthz", "/healthz".to_owned(), ""),
        ("GET /readyz", "/readyz".to_owned(), "readiness"),
        ("GET /metrics", "/metrics".to_owned(), ""),
        ("GET /status", "/status".to_owned(), "status"),
        ("GET /v1/status", "/v1/status".to_owned(), "status"),
        ("GET /v1/metrics", "/v1/metrics".to_owned(), ""),
        ("GET /v1/config", "/v1/config".to_owned(), "config"),
        ("GET /v1/openapi.json", "/v1/openapi.json".to_owned(), ""),
        ("GET /v1/log", "/v1/log".to_owned(), ""),
        ("GET /v1/netcheck", "/v1/netcheck".to_owned(), "netcheck"),
        ("GET /v1/peers", "/v1/peers".to_owned(), "peers"),
        ("GET /v1/topics", "/v1/topics".to_owned(), "topics"),
        (
            "POST /v1/topics/messages",
            "/v1/topics/messages?topic=a%20topic".to_owned(),
            "published",
        ),
        ("GET /v1/blobs", "/v1/blobs".to_owned(), "blobs"),
        (
            "POST /v1/blobs",
            format!("/v1/blobs?context={MISSING}"),
            "added",
        ),
        ("GET /v1/blobs/{id}", format!("/v1/blobs/{id}"), ""),
        (
            "POST /v1/blobs/{id}/verify",
            format!("/v1/blobs/{id}/verify"),
            "verified",
        ),
        (
            "GET /v1/blobs/{id}/ticket",
            format!("/v1/blobs/{id}/ticket?name=a%20file"),
            "ticket",
        ),
        (
            "DELETE /v1/blobs/{id}",
            format!("/v1/blobs/{id}"),
            "removed",
        ),
        (
            "POST /v1/peers",
            format!("/v1/peers?address={}", other.address),
            "peer",
        ),
        (
            "POST /v1/peers/{peer}/ping",
            format!("/v1/peers/{peer}/ping"),
            "pong",
        ),
        (
            "POST /v1/peers/{peer}/block",
            format!("/v1/peers/{peer}/block"),
            "blocked",
        ),
        (
            "DELETE /v1/peers/{peer}/block",
            format!("/v1/peers/{peer}/block"),
            "unblocked",
        ),
        (
            "DELETE /v1/peers/{peer}",
            format!("/v1/peers/{peer}"),
            "disconnecting",
        ),
    ];
    // Streams have tests of their own.
    let streams = [
        "GET /v1/events",
        "GET /v1/topics/messages",
        "POST /v1/blobs/{id}/fetch",
        "POST /v1/tickets/fetch",
    ];
    let description = node.get("/v1/openapi.json").json();
    let mut described = BTreeSet::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            described.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    let tested: BTreeSet<_> = (requests.iter().map(|(name, ..)| *name))
        .chain(streams)
        .map(str::to_owned)
        .collect();
    assert_eq!(described, tested);
    for (name, target, event) in requests {
        let method = name.split_once(' ').unwrap().0;
        let answer = node.ask(&format!("{method} {target}"), b"");
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
        if !event.is_empty() {
            let record = answer.json();
            assert_eq!(record["event"], event, "{name}: {record}");
            assert!(record["time"].as_str().unwrap().ends_with('Z'), "{record}");
        }
        match name {
            "GET /v1/blobs/{id}" => assert!(answer.body == content),
            "GET /v1/peers" => {
                assert_eq!(answer.json()["connections"][0]["peer"], peer);
            }
            _ => {}
        }
    }
}

#[test]
fn requests_over_tcp_need_the_token_and_an_allowed_host() {
    let node = Node::start(&["--api-host", "node.example"]);
    let file = node.data.join("control").join("token");
    let mode = fs::metadata(file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let host = format!("Host: {}", node.api);
    let token = node.token();
    let right = format!("Authorization: Bearer {token}");
    let basic = format!("Authorization: Basic {token}");
    let longer = format!("{right}0");
    let shorter = &right[..right.len() - 1];
    let status = "GET /v1/status";
    for headers in [
        [host.as_str(), right.as_str()],
        ["Host: node.example:9429", &right],
        [&host, &format!("authorization: bearer {token}")],
    ] {
        assert_eq!(node.over_tcp(status, &headers).status, 200, "{headers:?}");
    }
    let wrong: [&[&str]; 6] = [
        &[&host],
        &[&host, "Authorization: Bearer"],
        &[&host, &basic],
        &[&host, &longer],
        &[&host, shorter],
        &[&host, &right, &right],
    ];
    for headers in wrong {
        // What the request is about is not revealed.
        for line in [status, "GET /nothing", "DELETE /v1/peers/nobody"] {
            let answer = node.over_tcp(line, headers);
            assert_eq!(answer.status, 401, "{line} {headers:?}: {answer:?}");
            assert!(
                answer
                    .head
                    .to_lowercase()
                    .contains("www-authenticate: bearer")
            );
            assert_eq!(answer.json()["code"], "refused");
            assert_eq!(answer.json()["fields"][0], "Authorization");
        }
    }
    let elsewhere = ["Origin: http://evil.example", "Origin: null"];
    for headers in [
        ["Host: evil.example", right.as_str(), "A: b"],
        [&host, &right, elsewhere[0]],
        [&host, &right, elsewhere[1]],
        [&host, &right, "Host: evil.example"],
    ] {
        let answer = node.over_tcp(status, &headers);
        assert_eq!(answer.status, 403, "{headers:?}: {answer:?}");
        assert_eq!(answer.json()["code"], "refused");
    }
    // Probes need no token, and no web page reads them.
    for probe in ["GET /healthz", "GET /readyz"] {
        assert_eq!(node.over_tcp(probe, &[&host]).status, 200, "{probe}");
        let refused = node.over_tcp(probe, &[&host, elsewhere[0]]);
        assert_eq!(refused.status, 403, "{probe}");
    }
    // The token is in no answer.
    for target in ["/v1/status", "/v1/config", "/v1/metrics"] {
        let body = String::from_utf8(node.get(target).body).unwrap();
        assert!(!body.contains(&token), "{target}");
    }
}

#[test]
fn the_api_over_tcp_needs_a_folder_and_a_token_for_its_owner_alone() {
    let ended = {
        let mut command = calnet();
        command.args(["run", "--api", "127.0.0.1:0"]);
        run(command)
    };
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("--data"), "{}", ended.stderr);
    let folder = tempfile::tempdir().unwrap();
    let control = folder.path().join("control");
    fs::create_dir(&control).unwrap();
    let token = control.join("token");
    for (content, mode, part) in [
        ("0123456789abcdef0123456789abcdef\n", 0o644, "644"),
        ("short\n", 0o600, "32 to 512"),
    ] {
        fs::write(&token, content).unwrap();
        fs::set_permissions(&token, fs::Permissions::from_mode(mode)).unwrap();
        let mut command = calnet();
        command.args(["run", "--api", "127.0.0.1:0", "--data"]);
        command.arg(folder.path());
        let ended = run(command);
        assert_eq!(ended.code, Some(6), "{}", ended.stderr);
        for part in [part, token.to_str().unwrap()] {
            assert!(ended.stderr.contains(part), "{}", ended.stderr);
        }
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    fs::remove_file(&token).unwrap();
    let mut command = calnet();
    command.args(["run", "--api", &address, "--data"]);
    command.arg(folder.path());
    let ended = run(command);
    assert_eq!(ended.code, Some(6), "{}", ended.stderr);
    assert!(ended.stderr.contains(&address), "{}", ended.stderr);
}

/// A request, and the status, code and field of its answer.
type Case<'a> = (&'a str, u16, &'a str, Option<&'a str>);

#[test]
fn wrong_requests_are_answered_with_what_is_wrong() {
    let node = Node::start(&[]);
    let closed = ClosedPort::new();
    let unreachable = format!("POST /v1/peers?address={}", closed.address());
    let itself = format!("POST /v1/peers?address={}", node.address);
    let longest = NetworkConfig::default().pubsub.max_message_bytes;
    let missing = format!("GET /v1/blobs/{MISSING}");
    let verify = format!("POST /v1/blobs/{MISSING}/verify");
    let no_ticket = format!("GET /v1/blobs/{MISSING}/ticket");
    let ping_itself = format!("POST /v1/peers/{}/ping", node.peer());
    let absent = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";
    let ping_absent = format!("POST /v1/peers/{absent}/ping");
    let topic = "x".repeat(2000);
    let long_topic = format!("POST /v1/topics/messages?topic={topic}");
    let cases: [Case<'_>; 30] = [
        ("GET /v1/nothing", 404, "not_found", None),
        ("GET /page", 404, "not_found", None),
        ("POST /", 405, "usage", None),
        ("GET /v1/blobs/a/b/c", 404, "not_found", None),
        ("PUT /v1/status", 405, "usage", None),
        ("POST /metrics", 405, "usage", None),
        ("DELETE /v1/peers/nobody", 400, "usage", Some("peer")),
        ("DELETE /v1/peers/%ff", 400, "usage", Some("path")),
        ("POST /v1/peers//block", 400, "usage", Some("peer")),
        ("POST /v1/peers", 400, "usage", Some("query")),
        ("POST /v1/peers?address=", 400, "usage", Some("address")),
        ("POST /v1/peers?address=here", 400, "usage", Some("address")),
        ("POST /v1/peers?address=%ff", 400, "usage", Some("query")),
        ("POST /v1/peers?other=1", 400, "usage", Some("other")),
        (&unreachable, 424, "not_reachable", None),
        (&itself, 409, "refused", None),
        ("GET /v1/topics/messages", 400, "usage", Some("query")),
        ("POST /v1/topics/messages", 400, "usage", Some("query")),
        (&long_topic, 400, "usage", Some("topic")),
        ("POST /v1/blobs?context=0", 400, "usage", Some("context")),
        ("GET /v1/blobs/0", 400, "usage", Some("id")),
        ("GET /v1/blobs/0/ticket", 400, "usage", Some("id")),
        (&no_ticket, 404, "not_found", None),
        ("POST /v1/tickets/fetch", 400, "usage", Some("body")),
        ("POST /v1/peers/nobody/ping", 400, "usage", Some("peer")),
        (&ping_itself, 400, "usage", Some("peer")),
        (&ping_absent, 424, "not_reachable", None),
        (&missing, 404, "not_found", None),
        (&verify, 404, "not_found", None),
        ("POST /v1/blobs/0/fetch?dial=1", 400, "usage", Some("id")),
    ];
    for (request, status, code, field) in cases {
        let answer = node.ask(request, b"");
        assert_eq!(answer.status, status, "{request}: {answer:?}");
        assert!(answer.head.contains("application/json"), "{answer:?}");
        let failure = answer.json();
        assert_eq!(failure["event"], "error", "{request}: {failure}");
        assert_eq!(failure["code"], code, "{request}: {failure}");
        assert!(!failure["message"].as_str().unwrap().is_empty());
        if let Some(field) = field {
            assert_eq!(failure["fields"][0], field, "{request}: {failure}");
        }
        if status == 405 {
            let head = answer.head.to_lowercase();
            assert!(head.contains("allow: get"), "{request}: {head}");
        }
    }
    let publish = "POST /v1/topics/messages?topic=a";
    let refused = node.ask(publish, &vec![0; longest + 1]);
    assert_eq!(refused.status, 413, "{refused:?}");
    assert_eq!(refused.json()["code"], "refused");
    // Over TCP too the client has its answer once it has sent a body that is refused.
    let host = format!("Host: {}", node.api);
    let token = format!("Authorization: Bearer {}", node.token());
    let length = 20 << 20;
    let body = vec![0; length];
    for (line, headers, status) in [
        (publish, format!("{host}\r\n{token}"), 413),
        ("POST /v1/tickets/fetch", format!("{host}\r\n{token}"), 400),
        (
            "POST /v1/blobs?context=0",
            format!("{host}\r\n{token}"),
            400,
        ),
        ("POST /v1/nothing", format!("{host}\r\n{token}"), 404),
        ("POST /v1/blobs", host.clone(), 401),
    ] {
        let mut stream = node.tcp();
        write!(
            stream,
            "{line} HTTP/1.1\r\n{headers}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        )
        .unwrap();
        stream.write_all(&body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{line}: {answer}");
    }
    // A client that waits for the node to read the body is refused before it sends it.
    let mut upload = node.unix();
    write!(
        upload,
        "{publish} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\
         Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
    )
    .unwrap();
    assert_eq!(read_answer(upload.as_mut()).status, 403);
    // A body that does not fit is refused before it is sent.
    let mut upload = node.unix();
    write!(
        upload,
        "POST /v1/blobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        1_u64 << 60
    )
    .unwrap();
    assert_eq!(read_answer(upload.as_mut()).status, 413);
    // Heads over the limits, and what is not HTTP.
    let long = "x".repeat(100 << 10);
    let many: Vec<_> = (0..100).map(|number| format!("H{number}: x")).collect();
    for (line, headers) in [
        ("GET /v1/status", format!("Long: {long}")),
        ("GET /v1/status", many.join("\r\n")),
        (&format!("GET /{long}"), "A: b".to_owned()),
        ("\u{1}\u{2}", "A: b".to_owned()),
        ("GET /v1/status", "Content-Length: -1".to_owned()),
    ] {
        let mut stream = node.unix();
        let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n");
        let _ = stream.write_all(request.as_bytes());
        let status = read_answer(stream.as_mut()).status;
        assert!((400..500).contains(&status), "{status}");
    }
    assert_eq!(node.get("/healthz").status, 200);
}

#[test]
fn a_boot_node_has_an_api_without_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut command = calnet();
    command.args([
        "boot",
        "--json",
        "--local",
        "--listen",
        "/ip4/127.0.0.1/tcp/0",
    ]);
    command.arg("--data").arg(&data);
    let boot = Process::start(command);
    boot.event("listening");
    let mut status = calnet();
    status
        .args(["blob", "--json", "--data"])
        .arg(&data)
        .arg("ls");
    let listed = run(status);
    assert_eq!(listed.code, Some(6), "{}", listed.stderr);
    assert!(listed.stderr.contains("no blob store"), "{}", listed.stderr);
}

#[test]
fn a_client_that_does_not_read_stalls_nothing_and_learns_what_it_lost() {
    const MESSAGES: usize = 120;
    let node = Node::start(&["--subscribe", "weather"]);
    let publisher = Node::start(&[]);
    connect(&publisher, &node);
    publisher.process.event("subscribed");
    let mut messages = node.events("GET /v1/topics/messages?topic=weather");
    assert_eq!(messages.next()["event"], "following");
    let mut records = node.events("GET /v1/events");
    // Neither client reads what comes now. The node prints each message.
    for number in 0..MESSAGES {
        let mut text = format!("{number:06}");
        text.push_str(&"x".repeat(64 << 10));
        let sent = publisher.ask("POST /v1/topics/messages?topic=weather", text.as_bytes());
        assert_eq!(sent.status, 200, "{sent:?}");
        let message = node.process.event("message");
        let printed = message["text"].as_str().unwrap();
        assert_eq!(printed[..6], text[..6]);
    }
    assert_eq!(node.get("/v1/status").status, 200);
    let mut command = calnet();
    command.args(["status", "--data"]).arg(&node.data);
    assert!(run(command).success);
    // The oldest are lost, and counted.
    let (mut read, mut missed) = (0, 0);
    while read + missed < MESSAGES {
        let record = messages.next();
        match record["event"].as_str().unwrap() {
            "message" => {
                let number: usize = record["text"].as_str().unwrap()[..6].parse().unwrap();
                assert_eq!(number, read + missed);
                read += 1;
            }
            "lagged" => missed += record["missed"].as_u64().unwrap() as usize,
            other => panic!("{other}"),
        }
    }
    assert!(missed > 0 && read > 0, "{read} read, {missed} missed");
    let record = records.event("message");
    assert!(record["text"].is_string());
    // A subscription ends with its client.
    let listed = |node: &Node| node.get("/v1/topics").json()["topics"].clone();
    let mut other = node.events("GET /v1/topics/messages?topic=other");
    assert_eq!(other.next()["event"], "following");
    assert_eq!(listed(&node).as_array().unwrap().len(), 2);
    drop(other);
    let deadline = Instant::now() + LIMIT;
    while listed(&node).as_array().unwrap().len() != 1 {
        assert!(Instant::now() < deadline, "the subscription goes on");
    }
}

#[test]
fn a_message_that_is_long_in_json_is_not_held_as_an_event() {
    let node = Node::start(&["--subscribe", "weather"]);
    let publisher = Node::start(&[]);
    connect(&publisher, &node);
    publisher.process.event("subscribed");
    let mut messages = node.events("GET /v1/topics/messages?topic=weather");
    assert_eq!(messages.next()["event"], "following");
    let mut records = node.events("GET /v1/events");
    // Six times as long in JSON.
    let text = "\u{1}".repeat(50_000);
    for text in [text.as_str(), "short"] {
        let sent = publisher.ask("POST /v1/topics/messages?topic=weather", text.as_bytes());
        assert_eq!(sent.status, 200, "{sent:?}");
        assert_eq!(messages.next()["text"], text);
    }
    assert_eq!(records.event("lagged")["missed"], 1);
    assert_eq!(records.event("message")["text"], "short");
}

#[test]
fn clients_that_hold_connections_leave_others_theirs() {
    let node = Node::start(&[]);
    // More than a listener takes, and none says anything.
    let silent: Vec<_> = (0..100).map(|_| node.tcp()).collect();
    assert_eq!(node.get("/v1/status").status, 200);
    drop(silent);
    let mut streams: Vec<_> = (0..32).map(|_| node.events("GET /v1/events")).collect();
    assert!(node.status_of_events().contains(" 429 "));
    assert_eq!(node.get("/v1/status").status, 200);
    streams.pop();
    let deadline = Instant::now() + LIMIT;
    while !node.status_of_events().contains(" 200 ") {
        assert!(Instant::now() < deadline, "the stream is still open");
    }
}

#[test]
fn an_upload_whose_client_dies_leaves_nothing_behind() {
    let node = Node::start(&[]);
    let usage = || node.get("/v1/blobs").json()["usage"].clone();
    let deadline = Instant::now() + LIMIT;
    let until = |is_it: &dyn Fn(&Value) -> bool| {
        while !is_it(&usage()) {
            assert!(Instant::now() < deadline, "{}", usage());
        }
    };
    // With a length, and in chunks.
    for kind in ["Content-Length: 9000000", "Transfer-Encoding: chunked"] {
        let mut upload = TcpStream::connect(&node.api).unwrap();
        let token = node.token();
        let head = format!(
            "POST /v1/blobs HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n{kind}\r\n\r\n",
            node.api
        );
        upload.write_all(head.as_bytes()).unwrap();
        if kind.ends_with("chunked") {
            upload.write_all(b"2DC6C0\r\n").unwrap();
        }
        upload.write_all(&vec![1; 3_000_000]).unwrap();
        until(&|usage| usage["reserved_bytes"] != 0);
        drop(upload);
        until(&|usage| usage["reserved_bytes"] == 0);
        assert_eq!(usage()["blobs"], 0);
        assert_eq!(usage()["partials"], 0);
        let left = |name: &str| {
            let folder = fs::read_dir(node.data.join("blobs").join(name));
            folder.map_or(0, Iterator::count)
        };
        assert_eq!(left("blobs"), 0);
    }
}

#[test]
fn an_upload_whose_client_leaves_after_its_last_byte_is_announced() {
    let (node, other) = (Node::start(&["--local"]), Node::start(&["--local"]));
    connect(&node, &other);
    for number in 0..4 {
        let content = vec![number; 8_000_000];
        let mut upload = node.unix();
        let length = content.len();
        write!(
            upload,
            "POST /v1/blobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        )
        .unwrap();
        upload.write_all(&content).unwrap();
        drop(upload);
        let deadline = Instant::now() + LIMIT;
        let count = usize::from(number) + 1;
        while node.get("/v1/blobs").json()["usage"]["blobs"] != count {
            assert!(Instant::now() < deadline, "the blob is not stored");
        }
        node.process.event("blob_announced");
    }
}

#[test]
fn a_fetch_reports_its_progress() {
    let (here, there) = (Node::start(&[]), Node::start(&[]));
    let content: Vec<u8> = (0..3_000_000_u32).map(|at| (at / 7) as u8).collect();
    let added = there.ask("POST /v1/blobs", &content).json();
    let id = added["id"].as_str().unwrap();
    let mut fetch = here.events(&format!("POST /v1/blobs/{id}/fetch?dial={}", there.address));
    let fetched = fetch.event("fetched");
    assert_eq!(fetched["size_bytes"], content.len());
    assert_eq!(fetched["providers"][0], there.peer());
    assert!(here.get(&format!("/v1/blobs/{id}")).body == content);
    // A failure after the start of the stream is its last record.
    let closed = ClosedPort::new();
    let address = closed.address();
    let mut failed = here.events(&format!("POST /v1/blobs/{MISSING}/fetch?dial={address}"));
    let error = failed.next();
    assert_eq!(error["event"], "error", "{error}");
    assert_eq!(error["code"], "not_reachable", "{error}");
    // What is damaged is not sent as if it were the content.
    let blobs = here.data.join("blobs").join("blobs");
    let files = fs::read_dir(blobs).unwrap().map(Result::unwrap);
    let stored = files
        .max_by_key(|file| file.metadata().unwrap().len())
        .unwrap();
    let damage = |at: usize| {
        let mut bytes = fs::read(stored.path()).unwrap();
        bytes[at] ^= 1;
        fs::write(stored.path(), bytes).unwrap();
    };
    damage(2_900_000);
    let verified = here.ask(&format!("POST /v1/blobs/{id}/verify"), b"");
    assert_eq!(verified.json()["event"], "damaged");
    let read = here.get(&format!("/v1/blobs/{id}"));
    assert!(!read.body.is_empty(), "{}", read.head);
    assert!(content.starts_with(&read.body), "{}", read.head);
    assert!(read.body.len() < content.len(), "{}", read.head);
    damage(100);
    let read = here.get(&format!("/v1/blobs/{id}"));
    assert_eq!(read.status, 422);
    assert_eq!(read.json()["code"], "check_failed");
    let repaired = here.ask(&format!("POST /v1/blobs/{id}/verify?repair=true"), b"");
    assert_eq!(repaired.json()["withdrawn"], true);
    let listed = here.get("/v1/blobs").json();
    assert_eq!(listed["blobs"], serde_json::json!([]));
}

#[test]
fn the_configuration_has_its_origins_and_metrics_have_two_formats() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file.toml");
    fs::write(&file, "agent_version = 'mine'\n").unwrap();
    let node = Node::start(&["--config", file.to_str().unwrap()]);
    let answer = node.get("/v1/config").json();
    assert_eq!(answer["config"]["agent_version"], "mine");
    assert_eq!(answer["file"], file.to_str().unwrap());
    for (key, origin) in [
        ("agent_version", "file"),
        ("listen", "command_line"),
        ("discovery.members_target", "default"),
    ] {
        assert_eq!(answer["origins"][key][0], origin, "{key}");
    }
    // The command prints the same.
    let mut command = calnet();
    command.args(["config", "show", "--json", "--data"]);
    command.arg(&node.data);
    let shown = run(command).json_lines().remove(0);
    for part in ["config", "origins", "file"] {
        assert_eq!(shown[part], answer[part]);
    }
    let text = node.ask("GET /metrics\nAccept: text/plain", b"");
    assert!(
        text.head.contains("text/plain; version=0.0.4"),
        "{}",
        text.head
    );
    let text = String::from_utf8(text.body).unwrap();
    assert!(!text.contains("# EOF"));
    assert!(text.contains("_total counter\n"), "{text}");
    let openmetrics = node.ask("GET /v1/metrics\nAccept: application/openmetrics-text", b"");
    let head = openmetrics.head;
    assert!(
        head.contains("application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    assert!(openmetrics.body.ends_with(b"# EOF\n"));
}

#[test]
fn the_reference_is_what_a_node_serves() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/openapi.json");
    let written: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let node = Node::start(&[]);
    assert_eq!(node.get("/v1/openapi.json").json(), written);
}

#[test]
fn the_page_is_served_without_the_token_and_with_a_policy() {
    let node = Node::start(&[]);
    let host = format!("Host: {}", node.api);
    let page = node.over_tcp("GET /", &[&host]);
    assert_eq!(page.status, 200, "{}", page.head);
    let head = page.head.to_lowercase();
    for part in [
        "content-type: text/html; charset=utf-8",
        "default-src 'none'",
        "script-src 'self';",
        "require-trusted-types-for 'script'",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
    ] {
        assert!(head.contains(part), "{part}: {head}");
    }
    assert!(!head.contains("unsafe"), "{head}");
    let html = String::from_utf8(page.body).unwrap();
    let named = html.split('"').filter(|part| part.starts_with("/page/"));
    let named: Vec<_> = named.collect();
    assert!(named.len() >= 3, "{html}");
    for file in named {
        let answer = node.over_tcp(&format!("GET {file}"), &[&host]);
        assert_eq!(answer.status, 200, "{file}");
    }
    // A page of another name is not this one's.
    let rebound = node.over_tcp("GET /", &["Host: evil.example"]);
    assert_eq!(rebound.status, 403);
    // What the page asks for needs the token.
    assert_eq!(node.over_tcp("GET /v1/status", &[&host]).status, 401);
    // A proxy with TLS in front of the node keeps the host.
    let token = format!("Authorization: Bearer {}", node.token());
    let origin = format!("Origin: https://{}", node.api);
    let proxied = node.over_tcp("GET /v1/status", &[&host, &token, &origin]);
    assert_eq!(proxied.status, 200, "{}", proxied.head);
}

#[test]
fn a_blob_goes_from_node_to_node_by_a_ticket() {
    let nodes = [Node::start(&["--local"]), Node::start(&["--local"])];
    let [here, there] = &nodes;
    let content = vec![5; 1_000_000];
    let added = there.ask("POST /v1/blobs", &content).json();
    let id = added["id"].as_str().unwrap();
    let named = there.get(&format!("/v1/blobs/{id}/ticket?name=a%20file"));
    let ticket = named.json();
    assert_eq!(ticket["size_bytes"], content.len());
    assert_eq!(ticket["peer"], there.peer());
    assert!(!ticket["addresses"].as_array().unwrap().is_empty());
    let text = ticket["ticket"].as_str().unwrap();
    let answer = here.ask("POST /v1/tickets/fetch", text.as_bytes());
    let records = String::from_utf8(answer.body).unwrap();
    let last = records.lines().rfind(|line| line.starts_with("data: "));
    let last: Value = serde_json::from_str(&last.unwrap()[6..]).unwrap();
    assert_eq!(last["event"], "fetched", "{records}");
    assert_eq!(last["name"], "a file");
    assert!(here.get(&format!("/v1/blobs/{id}")).body == content);
    // A ticket of a wrong length, of other characters, and one that is changed.
    let other = if text.ends_with('a') { "b" } else { "a" };
    let wrong = format!("{}{other}", &text[..text.len() - 1]);
    for body in ["calnet", "ticket", &wrong, &"calnet".repeat(1000), "\u{ff}"] {
        let refused = here.ask("POST /v1/tickets/fetch", body.as_bytes());
        assert_eq!(refused.status, 400, "{body}: {refused:?}");
        assert_eq!(refused.json()["fields"][0], "body");
    }
    for name in ["..", ".hidden", "a%2Fb", ""] {
        let refused = there.get(&format!("/v1/blobs/{id}/ticket?name={name}"));
        assert_eq!(refused.status, 400, "{name}: {refused:?}");
        assert_eq!(refused.json()["fields"][0], "name");
    }
}
