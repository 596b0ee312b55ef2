//! How numbers and connections read.

use std::time::Duration;

use calimero_network::{Connection, Path, PeerId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The last eight characters of a peer id: Ed25519 ids all begin alike.
pub(crate) fn short(peer: &PeerId) -> String {
    short_text(&peer.to_base58()).to_owned()
}

/// The same of a peer id in base58.
pub(crate) fn short_text(peer: &str) -> &str {
    let start = peer.len().saturating_sub(8);
    peer.get(start..).unwrap_or(peer)
}

/// Bytes with a binary unit.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" {
        format!("{count} B")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// Megabytes (10^6 bytes) a second.
pub(crate) fn megabytes_per_second(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64().max(1e-9)
}

/// Milliseconds with their fraction.
pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// How a connection is made, for both forms of output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Stack {
    pub(crate) transport: String,
    pub(crate) security: String,
    pub(crate) muxer: String,
    pub(crate) path: String,
}

impl Stack {
    pub(crate) fn of(connection: &Connection) -> Self {
        Self {
            transport: connection.transport().to_string(),
            security: connection.security().to_string(),
            muxer: connection.muxer().to_string(),
            path: match connection.path {
                Path::Direct => "direct",
                Path::Relayed { .. } => "relayed",
            }
            .to_owned(),
        }
    }
}

impl std::fmt::Display for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            transport,
            security,
            muxer,
            path,
        } = self;
        write!(f, "{transport}, {security}, {muxer}, {path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_told_apart_by_their_end() {
        let peer = PeerId::random();
        assert!(peer.to_base58().ends_with(&short(&peer)));
        assert_eq!(short(&peer).len(), 8);
    }

    #[test]
    fn bytes_read_with_their_unit() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (8 << 20, "8.0 MiB"),
            (u64::MAX, "16777216.0 TiB"),
        ];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
    }
}
