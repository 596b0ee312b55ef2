//! Configuration of the transport crate.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, check, check_duration};
use crate::limits::{KIB, MIB, YAMUX_INITIAL_WINDOW_BYTES, YAMUX_MAX_FRAME_BYTES};

/// What carries bytes between peers: TCP with TLS or Noise and Yamux, QUIC, DNS, relays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransportConfig {
    /// TCP and its security protocols.
    #[serde(deserialize_with = "super::table::deserialize")]
    pub tcp: TcpConfig,
    /// The multiplexer of TCP connections.
    #[serde(deserialize_with = "super::table::deserialize")]
    pub yamux: YamuxConfig,
    /// QUIC.
    #[serde(deserialize_with = "super::table::deserialize")]
    pub quic: QuicConfig,
    /// Whether `/dns`, `/dns4`, `/dns6` and `/dnsaddr` addresses are resolved, by the system's
    /// resolver configuration. On by default: boot addresses are often names.
    pub dns: bool,
    /// Whether circuit relay v2 addresses can be dialled and listened on. On by default: it is
    /// how nodes behind NATs are reached.
    pub relay_client: bool,
    /// Time for a connection to become authenticated and multiplexed, in milliseconds, counted
    /// from the first packet. Default 10 s: three round trips on a satellite link (about 2 s)
    /// and a relay between, with room for one lost packet each.
    #[serde(rename = "handshake_timeout_ms", with = "super::duration")]
    pub handshake_timeout: Duration,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            tcp: TcpConfig::default(),
            yamux: YamuxConfig::default(),
            quic: QuicConfig::default(),
            dns: true,
            relay_client: true,
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

impl TransportConfig {
    /// Refuses contradictions, naming the key below `prefix` (empty, or ending in a dot).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first key that cannot hold.
    pub fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        check(self.tcp.enabled || self.quic.enabled, || {
            (
                key("tcp.enabled"),
                "TCP and QUIC are both off, so no peer can be reached",
            )
        })?;
        check(!self.tcp.enabled || self.tcp.tls || self.tcp.noise, || {
            (
                key("tcp.tls"),
                "TLS and Noise are both off, so no TCP connection can be secured",
            )
        })?;
        check((1..=65_535).contains(&self.tcp.backlog), || {
            (key("tcp.backlog"), "must be from 1 to 65535")
        })?;
        check_duration(self.handshake_timeout, || key("handshake_timeout_ms"))?;
        self.yamux.validate(&key("yamux."))?;
        self.quic.validate(&key("quic."))
    }
}

/// Which security protocol a dialler offers first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// TLS 1.3 with libp2p's certificate extension.
    #[default]
    Tls,
    /// Noise XX.
    Noise,
}

/// TCP and its security protocols. Nagle's algorithm is always off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TcpConfig {
    /// Whether TCP addresses are dialled and listened on. On by default.
    pub enabled: bool,
    /// Whether TLS 1.3 is offered and accepted. On by default.
    pub tls: bool,
    /// Whether Noise is offered and accepted. On by default.
    pub noise: bool,
    /// Which of the two a dialler offers first, where both are on. Default `tls`: with AES
    /// instructions it moves more bytes a second than Noise, whose only cipher is
    /// ChaCha20-Poly1305.
    pub prefer: Security,
    /// Connections the kernel completes ahead of `accept`. Default 1024, the size of libp2p-tcp.
    /// At most 65535, above which some kernels keep the low 16 bits alone.
    pub backlog: u32,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            tls: true,
            noise: true,
            prefer: Security::Tls,
            backlog: 1024,
        }
    }
}

/// The Yamux multiplexer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct YamuxConfig {
    /// Streams open at one time on one connection, both directions together. Default 2048: what
    /// a busy peer of 2,000 requests holds; each costs a few hundred bytes until data arrives.
    pub max_streams: usize,
    /// Largest data frame written, in bytes. Default 256 KiB, the initial window: measured
    /// fastest, at half the CPU of the 16 KiB that the `yamux` crate defaults to. At most 1 MiB,
    /// above which the Rust `yamux` crate of the other side ends the connection.
    pub split_send_bytes: usize,
    /// Bytes all streams of one connection may hold unread, at most. Windows above the initial
    /// 256 KiB a stream are handed out of it as the path's bandwidth-delay product is learnt.
    /// At least 256 KiB times `max_streams`. The default leaves 16 MiB of growth.
    pub connection_window_bytes: usize,
}

impl Default for YamuxConfig {
    fn default() -> Self {
        let max_streams = 2048;
        Self {
            max_streams,
            split_send_bytes: 256 * KIB,
            connection_window_bytes: max_streams * YAMUX_INITIAL_WINDOW_BYTES + 16 * MIB,
        }
    }
}

impl YamuxConfig {
    fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        check(self.max_streams > 0, || {
            (key("max_streams"), "must be above 0")
        })?;
        check(
            (KIB..=YAMUX_MAX_FRAME_BYTES).contains(&self.split_send_bytes),
            || (key("split_send_bytes"), "must be from 1 KiB to 1 MiB"),
        )?;
        let least = self.max_streams.checked_mul(YAMUX_INITIAL_WINDOW_BYTES);
        check(
            least.is_some_and(|least| self.connection_window_bytes >= least),
            || {
                (
                    key("connection_window_bytes"),
                    "must be at least 256 KiB times max_streams, the window every stream may use unasked",
                )
            },
        )
    }
}

/// QUIC version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuicConfig {
    /// Whether QUIC addresses are dialled and listened on. On by default.
    pub enabled: bool,
    /// Silence after which a connection is given up, in milliseconds. Default 30 s, the value of
    /// go-libp2p. The smaller of both sides' values counts.
    #[serde(rename = "idle_timeout_ms", with = "super::duration")]
    pub idle_timeout: Duration,
    /// Silence after which a keep-alive packet is sent, in milliseconds. Default 5 s: shorter
    /// than the 30 s after which home routers forget a UDP mapping, and three of them fit into
    /// the 15 s that some peers wait. Must be below `idle_timeout_ms`.
    #[serde(rename = "keep_alive_ms", with = "super::duration")]
    pub keep_alive: Duration,
    /// Inbound streams open at one time on one connection. Default 2048, as for Yamux.
    pub max_streams: u32,
    /// Bytes one stream may hold unread. Default 4 MiB: 100 Mbit/s over 300 ms.
    pub stream_window_bytes: u32,
    /// Bytes all streams of one connection may hold unread. Default 16 MiB. At least
    /// `stream_window_bytes`.
    pub connection_window_bytes: u32,
    /// Bytes written and not yet acknowledged on one connection. Default 16 MiB, the receiver's
    /// window.
    pub send_window_bytes: u32,
}

impl Default for QuicConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            idle_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(5),
            max_streams: 2048,
            stream_window_bytes: (4 * MIB) as u32,
            connection_window_bytes: (16 * MIB) as u32,
            send_window_bytes: (16 * MIB) as u32,
        }
    }
}

impl QuicConfig {
    fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        check(!self.keep_alive.is_zero(), || {
            (key("keep_alive_ms"), "must be above 0")
        })?;
        check(self.keep_alive < self.idle_timeout, || {
            (
                key("keep_alive_ms"),
                "must be below idle_timeout_ms, else idle connections die",
            )
        })?;
        check(
            self.idle_timeout.as_millis() <= u128::from(u32::MAX),
            || (key("idle_timeout_ms"), "must be at most 2^32 - 1"),
        )?;
        check(self.max_streams > 0, || {
            (key("max_streams"), "must be above 0")
        })?;
        check(self.stream_window_bytes as usize >= 64 * KIB, || {
            (key("stream_window_bytes"), "must be at least 64 KiB")
        })?;
        check(
            self.connection_window_bytes >= self.stream_window_bytes,
            || {
                (
                    key("connection_window_bytes"),
                    "must be at least stream_window_bytes",
                )
            },
        )?;
        check(self.send_window_bytes as usize >= 64 * KIB, || {
            (key("send_window_bytes"), "must be at least 64 KiB")
        })
    }
}
