//! Variables of the environment that other programs read too: no value of them ends a command.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod support;

use std::{
    ffi::{OsStr, OsString},
    os::unix::{ffi::OsStringExt as _, net::UnixDatagram},
    path::Path,
    process::{Command, Stdio},
};

use support::{LIMIT, Process, calnet, run};

/// Variables that this program or a library in it reads, and those of the terminal and the session.
const VARIABLES: [&str; 38] = [
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "COLUMNS",
    "HOME",
    "JOURNAL_STREAM",
    "LANG",
    "LC_ALL",
    "LINES",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "NO_COLOR",
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_BSP_MAX_CONCURRENT_EXPORTS",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SERVICE_NAME",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "RUST_BACKTRACE",
    "RUST_LOG",
    "TERM",
    "TOKIO_WORKER_THREADS",
    "TZ",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
];

/// A boot node on loopback, on a port that the system chooses.
fn boot(data: &Path) -> Command {
    let mut command = calnet();
    command.args(["boot", "--json", "--local"]);
    command.args(["--listen", "/ip4/127.0.0.1/tcp/0"]);
    command.arg("--data").arg(data);
    command.env_remove("RUST_LOG").env_remove("CALNET_LOG");
    command.stderr(Stdio::piped());
    command
}

/// The text that a node writes to standard error between its start and an orderly end.
fn log_of(command: Command) -> String {
    let mut process = Process::start(command);
    process.event("listening");
    assert!(process.end_by("-TERM").success());
    process.stderr()
}

/// Values of all kinds, each of which some variable does not support.
fn odd_values() -> Vec<OsString> {
    let texts = [
        "",
        " ",
        "0",
        "-1",
        "99999999999999999999",
        "18446744073709551615",
        "a\u{1b}[31m=\u{1},;%\n",
        "https://127.0.0.1:4318",
        "/no/such/file",
    ];
    let mut values: Vec<_> = texts.into_iter().map(OsString::from).collect();
    values.push(OsString::from_vec(vec![0xff, 0xfe]));
    values.push("x".repeat(4096).into());
    values
}

#[test]
fn no_value_of_them_ends_a_command() {
    let folder = tempfile::tempdir().unwrap();
    for value in odd_values().iter().map(Some).chain([None]) {
        let set = |command: &mut Command| {
            for variable in VARIABLES {
                match value {
                    Some(value) => command.env(variable, value),
                    None => command.env_remove(variable),
                };
            }
        };
        for arguments in [
            &["--help"][..],
            &["completions", "bash"],
            &["config", "show"],
            &["man"],
        ] {
            let mut command = calnet();
            set(command.args(arguments));
            let ended = run(command);
            assert_eq!(
                ended.code,
                Some(0),
                "{value:?} {arguments:?}: {}",
                ended.stderr
            );
            assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        }
        let mut command = boot(&folder.path().join("data"));
        set(&mut command);
        let log = log_of(command);
        assert!(!log.contains("panicked"), "{value:?}: {log}");
        assert!(!log.contains('\u{1b}'), "{value:?}: {log:?}");
    }
}

#[test]
fn an_ignored_value_is_named_with_what_is_supported() {
    let folder = tempfile::tempdir().unwrap();
    for (variable, value, supported) in [
        ("RUST_LOG", OsStr::new("calnet=debgu"), "TARGET=LEVEL"),
        (
            "TOKIO_WORKER_THREADS",
            OsStr::new("0"),
            "whole number from 1 to 1024",
        ),
    ] {
        let mut command = boot(&folder.path().join("data"));
        command.env(variable, value);
        let log = log_of(command);
        let warning = log.lines().find(|line| line.contains(variable));
        let warning = warning.unwrap_or_else(|| panic!("no warning of {variable}: {log}"));
        for part in ["WARN", supported, value.to_str().unwrap()] {
            assert!(warning.contains(part), "no {part}: {warning}");
        }
        // The log has the levels that it has without the variable.
        assert!(log.contains("without --external"), "{log}");
    }
}

#[test]
fn a_socket_of_a_service_manager_that_is_full_delays_neither_start_nor_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"full", &path).is_ok() {}
    let mut command = boot(&folder.path().join("data"));
    command.env("NOTIFY_SOCKET", &path);
    let log = log_of(command);
    assert!(log.contains("NOTIFY_SOCKET"), "{log}");
    drop(socket);
}

#[cfg(target_os = "linux")]
#[test]
fn a_service_manager_without_a_file_is_notified_and_a_watchdog_of_zero_is_none() {
    use std::os::{linux::net::SocketAddrExt as _, unix::net::SocketAddr};

    let folder = tempfile::tempdir().unwrap();
    let name = format!("calnet-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut command = boot(&folder.path().join("data"));
    command.env("NOTIFY_SOCKET", format!("@{name}"));
    command.env("WATCHDOG_USEC", "0");
    let log = log_of(command);
    assert!(!log.contains("NOTIFY_SOCKET"), "{log}");
    let receive = || {
        let mut message = [0; 4096];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length])
            .trim()
            .to_owned()
    };
    assert_eq!([receive(), receive()], ["READY=1", "STOPPING=1"]);
}
