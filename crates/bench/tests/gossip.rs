//! `netbench gossip` with real processes: every implementation delivers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

use std::process::Command;

use serde::Deserialize;

/// Messages of the run without a rate, and of the one with a rate.
const MESSAGES: u64 = 200;

#[derive(Debug, Deserialize)]
struct Row {
    rate: u32,
    implementation: String,
    delivered: u64,
    lost: u64,
    receiver_us: f64,
    publisher_us: f64,
    copies: f64,
}

#[test]
fn two_processes_lose_nothing() {
    let output = Command::new(env!("CARGO_BIN_EXE_netbench"))
        .args(["gossip", "--json", "--rounds", "1", "--nodes", "2"])
        .args(["--rate", "0", "200", "--seconds", "1", "--messages", "200"])
        .output()
        .expect("netbench starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let rows: Vec<Row> = String::from_utf8(output.stdout)
        .expect("text")
        .lines()
        .map(|line| serde_json::from_str(line).expect("a row"))
        .collect();
    assert_eq!(rows.len(), 8, "{rows:?}");
    for row in &rows {
        assert_eq!(row.delivered + row.lost, MESSAGES, "{row:?}");
        assert!(row.receiver_us > 0.0 && row.publisher_us > 0.0, "{row:?}");
        assert!(row.copies >= 1.0, "{row:?}");
        // What libp2p-gossipsub loses is not the concern of this test.
        if row.implementation.starts_with("stock") {
            continue;
        }
        assert_eq!(row.lost, 0, "{row:?}");
        // A receiver with one peer gets each message once.
        assert_eq!(row.copies, 1.0, "{row:?}");
    }
    let paced = rows.iter().filter(|row| row.rate == 200).count();
    assert_eq!(paced, 4, "{rows:?}");
}
