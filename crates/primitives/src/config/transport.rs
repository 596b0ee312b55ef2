//! Configuration of the transport crate.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    ConfigError, check, check_durations,
    compiled::{self, check_feature},
};
use crate::limits::{KIB, MIB, YAMUX_INITIAL_WINDOW_BYTES};

/// The transports: TCP with TLS or Noise and Yamux, QUIC, DNS and the relay client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransportConfig {
    /// TCP and its security protocols.
    #[serde(deserialize_with = "super::table::deserialize")]
    pub tcp: TcpConfig,
    /// QUIC version 1 (RFC 9000) and its settings.
    #[serde(deserialize_with = "super::table::deserialize")]
    pub quic: QuicConfig,
    /// WebSocket over TCP, for browsers and for networks that pass only web traffic.
    #[serde(deserialize_with = "super::table::deserialize")]
    pub websocket: WebSocketConfig,
    /// Whether `/dns`, `/dns4`, `/dns6` and `/dnsaddr` addresses are resolved, by the resolver
    /// configuration of the system.
    ///
    /// - Default: on, because addresses of boot nodes are often names. Off in a program without the
    ///   Cargo feature `dns`.
    /// - Reason: a host without a resolver, or one that must not send queries, turns it off.
    pub dns: bool,
    /// Whether circuit relay v2 addresses are dialled and listened on.
    ///
    /// - Default: on, because nodes behind a NAT are reached through relays.
    /// - Reason: a node of a network without relays turns it off.
    pub relay_client: bool,
    /// Limits of the Yamux multiplexer. Not a key.
    #[serde(skip)]
    pub yamux: YamuxTuning,
    /// Timers that tests shorten. Not a key.
    #[serde(skip)]
    pub tuning: TransportTuning,
}

/// Timers of all transports: values that no file sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportTuning {
    /// Time for a connection to become authenticated and multiplexed, from its first packet. Default
    /// 10 s: three round trips over a satellite link (about 2 s) and a relay, with one lost packet
    /// each.
    pub handshake_timeout: Duration,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            tcp: TcpConfig::default(),
            quic: QuicConfig::default(),
            websocket: WebSocketConfig::default(),
            dns: compiled::DNS,
            relay_client: compiled::RELAY,
            yamux: YamuxTuning::default(),
            tuning: TransportTuning::default(),
        }
    }
}

impl Default for TransportTuning {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

impl TransportConfig {
    /// Checks every value. Keys are named below `prefix`, which is empty or ends in a dot.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with the first key whose value is refused, and
    /// [`ConfigError::MissingFeature`] with a key of a transport that is not compiled in.
    pub fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        let prefers_tls = self.tcp.prefer == Security::Tls || self.tcp.tuning.tls;
        for (name, needed, is_compiled, feature) in [
            ("tcp.enabled", self.tcp.enabled, compiled::TCP, "tcp"),
            (
                "tcp.prefer",
                self.tcp.enabled && prefers_tls,
                compiled::TLS,
                "tls",
            ),
            (
                "tcp.congestion",
                !self.tcp.congestion.is_empty(),
                compiled::TCP,
                "tcp",
            ),
            ("quic.enabled", self.quic.enabled, compiled::QUIC, "quic"),
            (
                "websocket",
                self.websocket != WebSocketConfig::default(),
                compiled::WEBSOCKET,
                "websocket",
            ),
            ("dns", self.dns, compiled::DNS, "dns"),
            ("relay_client", self.relay_client, compiled::RELAY, "relay"),
        ] {
            check_feature(needed, is_compiled, feature, || key(name))?;
        }
        check(self.tcp.enabled || self.quic.enabled, || {
            (
                key("tcp.enabled"),
                "TCP and QUIC are both off, so no peer can be reached",
            )
        })?;
        self.tcp.validate(&key("tcp."))?;
        let tuning = &self.tcp.tuning;
        check(!self.tcp.enabled || tuning.tls || tuning.noise, || {
            (
                key("tcp.tuning.tls"),
                "TLS and Noise are both off, so no TCP connection can be secured",
            )
        })?;
        check_durations(
            prefix,
            &[("tuning.handshake_timeout", self.tuning.handshake_timeout)],
        )?;
        self.websocket.validate(&key("websocket."))?;
        self.yamux.validate(&key("yamux."))?;
        self.quic.validate(&key("quic."))
    }
}

/// Security protocol that a dialler offers first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// TLS 1.3 with the certificate extension of libp2p.
    Tls,
    /// Noise with the XX handshake.
    Noise,
}

impl Default for Security {
    fn default() -> Self {
        if compiled::TLS {
            Self::Tls
        } else {
            Self::Noise
        }
    }
}

/// Length of the longest name of a congestion control, 15: `TCP_CA_NAME_MAX` of Linux without the
/// byte that ends the name.
const MAX_CONGESTION_NAME: usize = 15;

/// TCP and its security protocols. Nagle's algorithm is always off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TcpConfig {
    /// Whether TCP addresses are dialled and listened on.
    ///
    /// - Default: on.
    /// - Range: `transport.quic.enabled` must be on where this is off.
    /// - Reason: a host whose firewall passes only UDP turns it off.
    pub enabled: bool,
    /// Security protocol that a dialler offers first, `tls` or `noise`.
    ///
    /// - Default: `tls`, which moves more bytes per second than Noise on processors with AES
    ///   instructions; the only cipher of Noise is ChaCha20-Poly1305. `noise` in a program without
    ///   the Cargo feature `tls`.
    /// - Reason: a processor without AES instructions is faster with Noise.
    pub prefer: Security,
    /// Name of the kernel's congestion control (`TCP_CONGESTION`) of all TCP and WebSocket sockets,
    /// such as `bbr` or `cubic`. QUIC has a congestion control of its own.
    ///
    /// - Default: empty, the congestion control that the kernel gives to new sockets
    ///   (`sysctl net.ipv4.tcp_congestion_control`).
    /// - Range: at most 15 ASCII characters without spaces; on Linux only. A node whose kernel
    ///   refuses the name does not start. `sysctl net.ipv4.tcp_available_congestion_control` lists
    ///   the names; a process without `CAP_NET_ADMIN` can choose from
    ///   `net.ipv4.tcp_allowed_congestion_control`. The `congctl` of a route takes precedence.
    /// - Reason: `bbr` fills long links that lose packets, which `cubic` does not; the setting of
    ///   the kernel would change every other program of the host as well.
    pub congestion: String,
    /// Security protocols that tests turn off. Not a key.
    #[serde(skip)]
    pub tuning: TcpTuning,
}

/// Security protocols of TCP: values that no file sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpTuning {
    /// Whether TLS 1.3 is offered and accepted. Default on, if it is compiled in.
    pub tls: bool,
    /// Whether Noise is offered and accepted. Default on.
    pub noise: bool,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            enabled: compiled::TCP,
            prefer: Security::default(),
            congestion: String::new(),
            tuning: TcpTuning::default(),
        }
    }
}

impl TcpConfig {
    fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let name = self.congestion.as_bytes();
        let key = || format!("{prefix}congestion");
        check(cfg!(target_os = "linux") || name.is_empty(), || {
            (key(), "can be set on Linux only; remove the key")
        })?;
        let is_name = name.len() <= MAX_CONGESTION_NAME && name.iter().all(u8::is_ascii_graphic);
        check(is_name, || {
            (
                key(),
                "must be at most 15 ASCII characters without spaces, such as `bbr`",
            )
        })
    }
}

impl Default for TcpTuning {
    fn default() -> Self {
        Self {
            tls: compiled::TLS,
            noise: true,
        }
    }
}

/// Limits of the Yamux multiplexer: values that no file sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YamuxTuning {
    /// Streams that are open on one connection, in both directions together. Default 2048, the
    /// requests of a busy peer; a stream takes a few hundred bytes until data arrives.
    pub max_streams: usize,
    /// Sum of the windows in bytes that the streams of one connection are granted. What they hold unread
    /// is limited by [`Resource::UnreadBytes`](crate::resources::Resource::UnreadBytes) as well.
    ///
    /// Windows above the initial 256 KiB of a stream are granted out of it as the bandwidth-delay
    /// product of the path is measured. At least 256 KiB times `max_streams`. The default adds
    /// 16 MiB, all of which one stream may take: 160 MB/s over 100 ms. Received frames may be as
    /// large as the window.
    pub connection_window_bytes: usize,
}

impl Default for YamuxTuning {
    fn default() -> Self {
        let max_streams = 2048;
        Self {
            max_streams,
            connection_window_bytes: max_streams * YAMUX_INITIAL_WINDOW_BYTES + 16 * MIB,
        }
    }
}

impl YamuxTuning {
    fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        check(self.max_streams > 0, || {
            (key("max_streams"), "must be above 0")
        })?;
        let least = self.max_streams.checked_mul(YAMUX_INITIAL_WINDOW_BYTES);
        check(
            least.is_some_and(|least| self.connection_window_bytes >= least),
            || {
                (
                    key("connection_window_bytes"),
                    "must be at least 256 KiB times max_streams, the initial windows of all streams",
                )
            },
        )
    }
}

/// WebSocket (RFC 6455) over TCP, with the security protocols of TCP inside. An address in `listen`
/// that ends in `/ws` accepts it, one that ends in `/tls/ws` or `/wss` accepts it inside of TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebSocketConfig {
    /// File with the certificate chain (PEM) that a listener on `/tls/ws` or `/wss` presents.
    ///
    /// - Default: empty, no certificate.
    /// - Range: a path, relative to the working directory of the process; `transport.websocket.key`
    ///   must be set where this is. The file is read when the node starts, and again after it
    ///   changed. If the new file cannot be used, the previous certificate is presented and a
    ///   warning is logged. Another one is logged from 7 days before a certificate expires.
    /// - Reason: pages that were loaded by HTTPS connect only to `/tls/ws` and `/wss`. A node behind
    ///   a reverse proxy that has the certificate listens on `/ws` and needs none.
    pub certificate: PathBuf,
    /// File with the private key (PEM) of `transport.websocket.certificate`.
    ///
    /// - Default: empty, no key.
    /// - Range: a path, relative to the working directory of the process;
    ///   `transport.websocket.certificate` must be set where this is.
    /// - Reason: as for `transport.websocket.certificate`.
    pub key: PathBuf,
    /// Certificates that tests trust. Not a key.
    #[serde(skip)]
    pub tuning: WebSocketTuning,
}

/// Certificates of WebSocket: values that no file sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebSocketTuning {
    /// File with the certificates (PEM) that a dial of `/tls/ws` or `/wss` trusts. Default `None`:
    /// those of the system, or of the file that the environment variable `SSL_CERT_FILE` names.
    pub trusted: Option<PathBuf>,
}

impl WebSocketConfig {
    /// Returns whether a certificate is configured.
    #[must_use]
    pub fn has_certificate(&self) -> bool {
        !self.certificate.as_os_str().is_empty()
    }

    fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let has_key = !self.key.as_os_str().is_empty();
        check(has_key || !self.has_certificate(), || {
            (
                format!("{prefix}key"),
                "must name the file with the key of the certificate",
            )
        })?;
        check(self.has_certificate() || !has_key, || {
            (
                format!("{prefix}certificate"),
                "must name the file with the certificate of the key",
            )
        })
    }
}

/// The QUIC transport, version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuicConfig {
    /// Whether QUIC addresses are dialled and listened on.
    ///
    /// - Default: on. Off in a program without the Cargo feature `quic`.
    /// - Range: `transport.tcp.enabled` must be on where this is off.
    /// - Reason: a host whose firewall blocks UDP turns it off.
    pub enabled: bool,
    /// Timers and windows, which tests vary. Not a key.
    #[serde(skip)]
    pub tuning: QuicTuning,
}

/// Timers and windows of QUIC: values that no file sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuicTuning {
    /// Silence after which a connection is closed. Default 10 s, the value of libp2p: a path that
    /// failed without a sign is replaced within 20 s. The smaller value of both sides counts.
    pub idle_timeout: Duration,
    /// Silence after which a keep-alive packet is sent. Default 5 s: shorter than the 30 s after
    /// which home routers forget a UDP mapping. A packet that is lost is sent again before
    /// `idle_timeout`, which must be longer.
    pub keep_alive: Duration,
    /// Inbound streams that are open on one connection. Default 2048, as for Yamux.
    pub max_streams: u32,
    /// Bytes that one stream may hold unread. Default 16 MiB: one stream fills 500 Mbit/s over
    /// 200 ms, whose bandwidth-delay product is 12.5 MB. `quinn` grants more after an eighth of the
    /// window was read, so seven eighths of it have to cover the product: 14.7 MB. Memory is used
    /// only by bytes that arrived and were not read.
    pub stream_window_bytes: u32,
    /// Bytes that all streams of one connection may hold unread, and so the most that a peer can
    /// make one connection hold. Default 20 MiB, a quarter above `stream_window_bytes`: a stream that
    /// is not read leaves 4 MiB for the others. At least `stream_window_bytes`.
    pub connection_window_bytes: u32,
    /// Bytes of one connection that are written and not acknowledged. Default 16 MiB, the receive
    /// window of one stream.
    pub send_window_bytes: u32,
}

impl Default for QuicConfig {
    fn default() -> Self {
        Self {
            enabled: compiled::QUIC,
            tuning: QuicTuning::default(),
        }
    }
}

impl Default for QuicTuning {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(5),
            max_streams: 2048,
            stream_window_bytes: (16 * MIB) as u32,
            connection_window_bytes: (20 * MIB) as u32,
            send_window_bytes: (16 * MIB) as u32,
        }
    }
}

impl QuicConfig {
    fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}tuning.{name}");
        let tuning = &self.tuning;
        check(!tuning.keep_alive.is_zero(), || {
            (key("keep_alive"), "must be above 0")
        })?;
        check(tuning.keep_alive < tuning.idle_timeout, || {
            (
                key("keep_alive"),
                "must be below idle_timeout, else idle connections are closed",
            )
        })?;
        check(
            tuning.idle_timeout.as_millis() <= u128::from(u32::MAX),
            || (key("idle_timeout"), "must be at most 4294967295 ms"),
        )?;
        check(tuning.max_streams > 0, || {
            (key("max_streams"), "must be above 0")
        })?;
        check(tuning.stream_window_bytes as usize >= 64 * KIB, || {
            (key("stream_window_bytes"), "must be at least 64 KiB")
        })?;
        check(
            tuning.connection_window_bytes >= tuning.stream_window_bytes,
            || {
                (
                    key("connection_window_bytes"),
                    "must be at least stream_window_bytes",
                )
            },
        )?;
        check(tuning.send_window_bytes as usize >= 64 * KIB, || {
            (key("send_window_bytes"), "must be at least 64 KiB")
        })
    }
}
