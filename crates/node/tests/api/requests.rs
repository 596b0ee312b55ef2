//! Each request of the description, and wrong ones.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    path::Path,
};

use calimero_network::NetworkConfig;
use serde_json::Value;

use crate::{
    node::{MISSING, Node, connect, read_answer},
    support::{ClosedPort, Process, calnet, run},
};

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
