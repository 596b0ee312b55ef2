//! The commands, as processes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod support;

use std::process::Stdio;

use support::{ClosedPort, LIMIT, Process, calnet, run, run_within};

#[test]
fn the_demo_checks_what_it_does() {
    let mut command = calnet();
    command.args(["demo", "--json"]);
    // It moves half a gigabyte, which an unoptimised build on a busy machine takes minutes for.
    let ended = run_within(3 * LIMIT, command);
    assert!(ended.success, "{}\n{}", ended.stdout, ended.stderr);
    let lines = ended.json_lines();
    let count = |event: &str| lines.iter().filter(|line| line["event"] == event).count();
    assert_eq!(count("started"), 7);
    // Six edges and three newcomers at the boot node, from both ends; and those among newcomers.
    assert!(count("connected") > 18, "{}", ended.stdout);
    let met = lines.iter().find(|line| line["event"] == "met").unwrap();
    assert_eq!(met["nodes"].as_array().unwrap().len(), 3);
    assert_eq!(count("moved"), 6);
    let overlay = lines.iter().find(|line| line["event"] == "overlay");
    let overlay = overlay.unwrap();
    assert_eq!(overlay["delivered"], 300);
    assert!(overlay["median_ms"].as_f64().unwrap() > 0.0);
    // Two had the blob, and one of them was killed before all of it was there.
    assert!(count("progress") >= 3, "{}", ended.stdout);
    let delivered = lines.iter().find(|line| line["event"] == "delivered");
    let delivered = delivered.unwrap();
    let bytes = |key: &str| delivered[key].as_u64().unwrap();
    assert_eq!(bytes("size_bytes"), 64 << 20);
    assert!(bytes("killed_at_bytes") < 64 << 20, "{delivered}");
    let both = bytes("from_killed_bytes") + bytes("from_survivor_bytes");
    assert_eq!(both, 64 << 20, "{delivered}");
    let summary = lines.last().unwrap();
    assert_eq!(summary["event"], "summary");
    assert_eq!(summary["failed"], 0);
    assert_eq!(summary["checks"], count("check"));
    assert_eq!(summary["edges"].as_array().unwrap().len(), 6);
}

#[test]
fn a_node_is_probed_over_every_transport() {
    let node = Process::node(&[]);
    for address in node.addresses(2) {
        let mut command = calnet();
        command.args(["probe", "--json", "--pings", "20", &address]);
        let ended = run(command);
        assert!(ended.success, "{}", ended.stderr);
        let report = &ended.json_lines()[0];
        assert!(address.ends_with(report["peer"].as_str().unwrap()));
        assert_eq!(report["path"], "direct");
        let transport = if address.contains("quic") {
            "quic"
        } else {
            "tcp"
        };
        assert_eq!(report["transport"], transport);
        let agent = report["agent_version"].as_str().unwrap();
        assert!(agent.starts_with("calimero-network/"), "{agent}");
        let protocols = report["protocols"].as_array().unwrap();
        assert!(
            protocols.iter().any(|p| p == "/calimero/stream/0.0.2"),
            "{report}"
        );
        assert!(report["ping_median_ms"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn a_probe_that_cannot_connect_says_why() {
    let closed = ClosedPort::new();
    let address = closed.address();
    let mut command = calnet();
    command.args(["probe", &address]);
    let ended = run(command);
    assert!(!ended.success);
    assert!(ended.stderr.contains(&address), "{}", ended.stderr);
    assert!(ended.stderr.contains("refused"), "{}", ended.stderr);
}

#[test]
fn a_probe_of_the_wrong_peer_names_both() {
    let node = Process::node(&[]);
    let address = node.addresses(1).remove(0);
    let (place, real) = address.rsplit_once('/').unwrap();
    let other = Process::node(&[]);
    let started = other.event("started");
    let expected = started["peer"].as_str().unwrap();
    let mut command = calnet();
    command.args(["probe", &format!("{place}/{expected}")]);
    let ended = run(command);
    assert!(!ended.success);
    for peer in [expected, real] {
        assert!(ended.stderr.contains(peer), "{}", ended.stderr);
    }
}

#[test]
fn a_node_is_measured_by_the_perf_protocol() {
    let node = Process::node(&["--perf"]);
    for address in node.addresses(2) {
        let mut command = calnet();
        command.args(["perf", "--json", "--round-trips", "50", "--streams", "3"]);
        command.args([
            "--upload-bytes",
            "3000001",
            "--download-bytes",
            "2000003",
            &address,
        ]);
        let ended = run(command);
        assert!(ended.success, "{}", ended.stderr);
        let lines = ended.json_lines();
        assert_eq!(lines[1]["event"], "round_trips");
        let tests: Vec<_> = lines[2..]
            .iter()
            .map(|line| {
                assert!(line["megabytes_per_second"].as_f64().unwrap() > 0.0);
                let name = line["test"].as_str().unwrap().to_owned();
                (
                    name,
                    line["streams"].as_u64().unwrap(),
                    line["bytes"].as_u64().unwrap(),
                )
            })
            .collect();
        let expected = [
            ("upload".to_owned(), 1, 3_000_001),
            ("download".to_owned(), 1, 2_000_003),
            ("upload".to_owned(), 3, 3_000_001),
            ("download".to_owned(), 3, 2_000_003),
        ];
        assert_eq!(tests, expected);
    }
}

/// On a slow path the default sizes take minutes: what was moved in the time of a test is reported.
#[test]
fn a_test_that_takes_long_ends_and_counts_what_was_moved() {
    const WANTED: u64 = 32 << 30;
    let node = Process::node(&["--perf"]);
    for address in node.addresses(2) {
        let mut command = calnet();
        let wanted = WANTED.to_string();
        command.args(["perf", "--json", "--test-ms", "300", "--streams", "2"]);
        command.args(["--upload-bytes", &wanted, "--download-bytes", &wanted]);
        command.args(["--round-trips", "1000000", &address]);
        let ended = run(command);
        assert!(ended.success, "{}", ended.stderr);
        let lines = ended.json_lines();
        let trips = lines[1]["count"].as_u64().unwrap();
        assert!((1..1_000_000).contains(&trips), "{trips}");
        assert_eq!(lines.len(), 6);
        for line in &lines[2..] {
            let bytes = line["bytes"].as_u64().unwrap();
            assert!((1..WANTED).contains(&bytes), "{line}");
            assert!(line["seconds"].as_f64().unwrap() >= 0.3, "{line}");
        }
    }
}

#[test]
fn a_node_that_does_not_answer_perf_is_named() {
    let node = Process::node(&[]);
    let address = node.addresses(1).remove(0);
    let mut command = calnet();
    command.args(["perf", "--round-trips", "1", &address]);
    let ended = run(command);
    assert!(!ended.success);
    assert!(ended.stderr.contains("/perf/1.0.0"), "{}", ended.stderr);
}

#[cfg(unix)]
#[test]
fn a_node_stops_gracefully_and_its_peers_hear_of_it() {
    for signal in ["-INT", "-TERM"] {
        let mut node = Process::node(&[]);
        let address = node.addresses(1).remove(0);
        let mut peer = Process::node(&["--dial", &address]);
        let connected = peer.event("connected");
        assert!(address.ends_with(connected["peer"].as_str().unwrap()));
        node.event("connected");
        let status = node.end_by(signal);
        assert!(status.success(), "{status}");
        node.event("stopped");
        peer.event("disconnected");
        assert!(peer.end_by(signal).success());
    }
}

#[test]
fn lines_go_from_one_node_to_another() {
    let listener = Process::node(&["--subscribe", "weather"]);
    let address = listener.addresses(1).remove(0);
    let mut publisher = Process::node_with_input(&["--publish", "weather", "--dial", &address]);
    publisher.write(b"rain\n");
    publisher.write(b"\xff\xfe\n");
    for (key, payload) in [("text", "rain"), ("hex", "fffe")] {
        let message = listener.event("message");
        assert_eq!(message["topic"], "weather");
        assert_eq!(message[key], payload, "{message}");
    }
    let published = publisher.event("published");
    assert_eq!(published["bytes"], 4);
}

/// As early as a reader of the records can send a signal.
#[cfg(unix)]
#[test]
fn no_signal_falls_between() {
    for signal in ["-INT", "-TERM"] {
        for line in ["started", "listening"] {
            let mut node = Process::node(&[]);
            node.event(line);
            let status = node.end_by(signal);
            assert!(status.success(), "{signal} at {line}: {status}");
            node.event("stopped");
        }
    }
}

#[cfg(unix)]
#[test]
fn a_lost_peer_is_dialled_again() {
    let folder = tempfile::tempdir().unwrap();
    let identity = folder.path().join("identity");
    let identity = identity.to_str().unwrap();
    let mut node = Process::node(&["--identity", identity]);
    let address = node.addresses(1).remove(0);
    let peer = Process::node(&["--dial", &address]);
    peer.event("connected");
    assert!(node.end_by("-KILL").code().is_none());
    peer.event("disconnected");
    let (listen, _) = address.split_once("/p2p/").unwrap();
    let mut command = calnet();
    command.args(["run", "--json", "--listen", listen, "--identity", identity]);
    let again = Process::start(command);
    again.event("connected");
    let connected = peer.event("connected");
    assert!(address.ends_with(connected["peer"].as_str().unwrap()));
}

#[test]
fn a_config_is_refused_by_file_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.toml");
    std::fs::write(&path, "[streams]\nmax_frames = 1\n").unwrap();
    let mut command = calnet();
    command.args(["run", "--config", path.to_str().unwrap()]);
    let ended = run(command);
    assert!(!ended.success);
    for part in ["node.toml", "streams.max_frames"] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
}

#[cfg(not(feature = "otel"))]
#[test]
fn a_collector_is_refused_with_the_name_of_the_feature_that_it_needs() {
    let mut command = calnet();
    command.args(["run", "--otlp-endpoint", "http://127.0.0.1:4318"]);
    let ended = run(command);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    let expected = "--otlp-endpoint: needs the Cargo feature `otel`";
    assert!(ended.stderr.contains(expected), "{}", ended.stderr);

    // The variable of the environment is for other programs too.
    let mut command = calnet();
    command.args(["run", "--json", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
    command.stderr(Stdio::piped());
    let mut node = Process::start(command);
    node.event("started");
    assert!(node.end_by("-TERM").success());
    let log = node.stderr();
    assert!(log.contains("without the Cargo feature `otel`"), "{log}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_congestion_control_that_the_kernel_lacks_is_an_error_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.toml");
    std::fs::write(&path, "transport.tcp.congestion = 'no_such_control'\n").unwrap();
    let mut command = calnet();
    command.args(["run", "--listen", "/ip4/127.0.0.1/tcp/0", "--config"]);
    let ended = run_within(LIMIT, {
        command.arg(&path);
        command
    });
    assert_eq!(ended.code, Some(6), "{}", ended.stderr);
    for part in ["transport.tcp.congestion", "no_such_control", "available:"] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
    assert_eq!(
        ended.stderr.matches("os error 2").count(),
        1,
        "{}",
        ended.stderr
    );
}

#[test]
fn a_file_of_a_published_node_is_converted_and_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (published, converted) = (at("config.toml"), at("node.toml"));
    let boot = "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWR5V4zmisVtVdGE6i8jfFwtgRNq5t8eDGxfckKuhXu7Eh";
    let text =
        format!("[swarm]\nlisten = ['/ip4/0.0.0.0/tcp/2528']\n[bootstrap]\nnodes = ['{boot}']\n");
    std::fs::write(&published, text).unwrap();
    let config = |args: &[&str]| {
        let mut command = calnet();
        command.arg("config").args(args);
        run(command)
    };
    let refused = config(&["check", "--config", &published]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("calnet config import"),
        "{}",
        refused.stderr
    );
    // Printed, and written to a file: the same text.
    let printed = config(&["import", &published]);
    assert!(printed.success, "{}", printed.stderr);
    assert!(config(&["import", &published, "-o", &converted]).success);
    let written = std::fs::read_to_string(&converted).unwrap();
    assert_eq!(printed.stdout.trim_end(), written.trim_end());
    assert!(written.contains(boot), "{written}");
    assert!(config(&["check", "--config", &converted]).success);
    // A file that exists is not overwritten, and one that is not of 0.11 is refused.
    let again = config(&["import", &published, "-o", &converted]);
    assert_eq!(again.code, Some(6), "{}", again.stderr);
    assert_eq!(std::fs::read_to_string(&converted).unwrap(), written);
    assert_eq!(config(&["import", &converted]).code, Some(2));
}
