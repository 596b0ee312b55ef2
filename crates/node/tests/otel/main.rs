//! Spans at a collector of OpenTelemetry, which is a socket of the test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod collector;
#[path = "../support/mod.rs"]
mod support;

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use self::{
    collector::{Collector, Received, Span},
    support::{LIMIT, Process, calnet, run},
};

/// Time for one batch, `EXPORT_TIME` of the exporter.
const EXPORT_TIME: Duration = Duration::from_secs(10);

/// A node that exports its spans to `endpoint`, with the text of its log.
fn exporting(endpoint: &str, variables: &[(&str, &str)], arguments: &[&str]) -> Process {
    let mut command = calnet();
    command.args(["run", "--json", "--log", "debug"]);
    command.args([
        "--listen",
        "/ip4/127.0.0.1/tcp/0",
        "--otlp-endpoint",
        endpoint,
    ]);
    command.args(arguments).envs(variables.iter().copied());
    command.stderr(Stdio::piped());
    Process::start(command)
}

/// Connects to a node and disconnects, so that it has a span to export.
fn visit(address: &str) {
    let mut command = calnet();
    command.args(["probe", address]);
    let ended = run(command);
    assert!(ended.success, "{}", ended.stderr);
}

#[test]
fn a_collector_receives_the_connection_with_a_peer() {
    let (collector, received) = Collector::start(200);
    let peer = Process::node(&[]);
    let address = peer.addresses(1).remove(0);
    let peer_id = address.rsplit_once('/').unwrap().1;
    let variables = [
        ("OTEL_SERVICE_NAME", "tested"),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization=Bearer no-such-token",
        ),
    ];
    let mut node = exporting(&collector.endpoint(), &variables, &["--dial", &address]);
    node.event("connected");
    assert!(node.end_by("-TERM").success());

    let mut spans: Vec<Span> = Vec::new();
    while let Ok(Received {
        request,
        spans: more,
        service,
    }) = received.try_recv()
    {
        assert!(
            request.starts_with("POST /v1/traces HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(
            request.contains("content-type: application/x-protobuf\r\n"),
            "{request}"
        );
        assert!(
            request.contains("authorization: Bearer no-such-token\r\n"),
            "{request}"
        );
        assert_eq!(service, "tested");
        spans.extend(more);
    }
    let of = |name: &str| {
        let found = spans.iter().find(|span| span.name == name);
        found.unwrap_or_else(|| panic!("no {name} in {spans:#?}"))
    };
    let connection = of("connection");
    for (key, value) in [
        ("peer", peer_id),
        ("direction", "outbound"),
        ("path", "direct"),
        ("transport", "tcp"),
        ("close_reason", "closed here"),
    ] {
        assert_eq!(connection.attributes[key], value, "{connection:#?}");
    }
    assert!(address.starts_with(connection.attributes["address"].as_str()));
    assert_ne!(connection.attributes["received_bytes"], "0");
    assert!(connection.end_ns > connection.start_ns, "{connection:#?}");
    assert_eq!(of("dial").attributes["peer"], peer_id);
    // Spans of libraries, of which each poll has one, stay here.
    let names = spans.iter().map(|span| span.name.as_str());
    assert!(
        names
            .clone()
            .all(|name| ["connection", "dial"].contains(&name)),
        "{spans:#?}"
    );
    let log = node.stderr();
    assert!(!log.contains("no-such-token"), "{log}");
}

#[test]
fn a_collector_that_does_not_answer_does_not_hold_up_the_end() {
    let (collector, _received) = Collector::stalled();
    let mut node = exporting(&collector.endpoint(), &[], &[]);
    visit(&node.addresses(1)[0]);
    let start = Instant::now();
    assert!(node.end_by("-TERM").success());
    let took = start.elapsed();
    assert!(took < EXPORT_TIME, "{took:?}");
    let log = node.stderr();
    assert!(log.contains("the last spans may be lost"), "{log}");
}

#[test]
fn a_collector_that_fails_costs_one_warning() {
    let (collector, received) = Collector::start(503);
    let variables = [("OTEL_BSP_SCHEDULE_DELAY", "50")];
    let mut node = exporting(&collector.endpoint(), &variables, &[]);
    let address = node.addresses(1).remove(0);
    for _ in 0..3 {
        visit(&address);
        received.recv_timeout(LIMIT).unwrap();
    }
    assert!(node.end_by("-TERM").success());
    let log = node.stderr();
    let warnings = log.matches("spans are dropped").count();
    assert_eq!(warnings, 1, "{log}");
    assert!(log.contains("503"), "{log}");
}

#[test]
fn an_endpoint_of_the_environment_that_cannot_be_used_is_a_warning() {
    for (endpoint, part) in [
        (
            "https://127.0.0.1:4318",
            "TLS is left to a collector on this host",
        ),
        ("http://user:secret@127.0.0.1", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("no URL", "is no URL"),
    ] {
        let mut command = calnet();
        command.args(["run", "--json", "--listen", "/ip4/127.0.0.1/tcp/0"]);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
        command.stderr(Stdio::piped());
        let mut node = Process::start(command);
        node.event("started");
        assert!(node.end_by("-TERM").success());
        let log = node.stderr();
        let warning = log
            .lines()
            .find(|line| line.contains("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let warning = warning.unwrap_or_else(|| panic!("no warning of {endpoint}: {log}"));
        assert!(warning.contains("no spans are exported"), "{warning}");
        assert!(warning.contains(part), "{warning}");
        assert!(!log.contains("secret"), "{log}");
    }
}

#[test]
fn values_that_the_exporter_does_not_support_are_ignored() {
    let (collector, received) = Collector::start(200);
    let variables = [
        // The first would end the program when it allocates the queue, the second keep a core busy.
        ("OTEL_BSP_MAX_QUEUE_SIZE", "18446744073709551615"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
    ];
    let mut node = exporting(&collector.endpoint(), &variables, &[]);
    visit(&node.addresses(1)[0]);
    assert!(node.end_by("-TERM").success());
    received.recv_timeout(LIMIT).unwrap();
    let log = node.stderr();
    for (variable, value) in variables {
        let warning = log.lines().find(|line| line.contains(variable));
        let warning = warning.unwrap_or_else(|| panic!("no warning of {variable}: {log}"));
        assert!(warning.contains(value), "{warning}");
    }
}

#[test]
fn an_endpoint_that_cannot_be_used_is_an_error_at_the_start() {
    for (endpoint, part) in [
        (
            "https://127.0.0.1:4318",
            "TLS is left to a collector on this host",
        ),
        ("http://user:word@127.0.0.1", "OTEL_EXPORTER_OTLP_HEADERS"),
    ] {
        let mut command = calnet();
        command.args(["run", "--otlp-endpoint", endpoint]);
        let ended = run(command);
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
        assert!(!ended.stderr.contains("word"), "{}", ended.stderr);
    }
}
