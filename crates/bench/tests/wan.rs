//! QUIC over a link that is slow, long and loses packets: `netbench wan` between two network
//! namespaces.
//!
//! Needs Linux, root, `ip` and `/dev/net/tun`. Elsewhere the tests print why they are skipped. Each
//! bound is a ratio to another sender in the same run, so a slow machine does not break it.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

use std::{
    collections::HashMap,
    path::Path,
    process::Command,
    sync::{Mutex, PoisonError},
};

use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Row {
    sender: String,
    mb_per_second: f64,
    dropped: f64,
}

/// Held while a link is used, so that transfers of two tests do not compete for the processors.
static ALONE: Mutex<()> = Mutex::new(());

/// Returns why no link can be made here.
fn lab_is_possible() -> Result<(), String> {
    if !Path::new("/dev/net/tun").exists() {
        return Err("no /dev/net/tun".to_owned());
    }
    let name = format!("nbt{}", std::process::id());
    for action in ["add", "del"] {
        let output = Command::new("ip").args(["netns", action, &name]).output();
        let output = output.map_err(|error| format!("ip: {error}"))?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr);
            return Err(format!("ip netns {action}: {}", reason.trim()));
        }
    }
    Ok(())
}

/// Runs the senders over one link of 20 Mbit/s, 40 ms and a queue of one bandwidth-delay product.
/// Returns `None` where no link can be made.
fn rows(senders: &[&str], loss: &str) -> Option<HashMap<String, Row>> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(reason) = lab_is_possible() {
        eprintln!("skipped: no network namespaces with TUN devices here: {reason}");
        return None;
    }
    let output = Command::new(env!("CARGO_BIN_EXE_netbench"))
        .args(["wan", "--json", "--transfer-mb", "5", "--timeout-s", "60"])
        .args(["--rate-mbit", "20", "--rtt-ms", "40"])
        .args(["--queue-bytes", "100000", "--loss", loss, "--sender"])
        .args(senders)
        .output()
        .expect("netbench starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let rows: HashMap<String, Row> = String::from_utf8(output.stdout)
        .expect("text")
        .lines()
        .map(|line| serde_json::from_str::<Row>(line).expect("a row"))
        .map(|row| (row.sender.clone(), row))
        .collect();
    eprintln!("{rows:?}");
    Some(rows)
}

#[test]
fn quic_is_as_fast_as_the_kernels_tcp_where_nothing_is_lost() {
    let Some(rows) = rows(&["kernel", "quic"], "0") else {
        return;
    };
    let (kernel, ours) = (&rows["kernel TCP"], &rows["ours QUIC"]);
    assert!(ours.mb_per_second > 0.5 * kernel.mb_per_second, "{rows:?}");
    // Three times what the simulations permit with a queue of this size.
    assert!(ours.dropped < 0.1, "{rows:?}");
}

#[test]
fn quic_is_faster_than_cubic_where_packets_are_lost() {
    let Some(rows) = rows(&["kernel", "stock-quic", "quic"], "0.02") else {
        return;
    };
    let (cubic, ours) = (&rows["stock QUIC (Cubic)"], &rows["ours QUIC"]);
    let kernel = &rows["kernel TCP"];
    assert!(ours.mb_per_second > 1.5 * cubic.mb_per_second, "{rows:?}");
    assert!(ours.mb_per_second > 0.5 * kernel.mb_per_second, "{rows:?}");
    assert!(ours.dropped < 0.1, "{rows:?}");
}
