//! TLS 1.3 according to libp2p, for TCP and for QUIC.
//!
//! The handshake follows the [libp2p TLS specification]: both sides present one
//! self-signed certificate with a libp2p extension that binds it to the host
//! key, the ALPN protocol is `libp2p`, and no server name is sent. `libp2p-tls`
//! creates and parses the certificates. This module selects the order of the
//! ciphers, because `libp2p-tls` always prefers ChaCha20.
//!
//! [libp2p TLS specification]: https://github.com/libp2p/specs/blob/master/tls/tls.md

mod config;
mod entropy;
mod error;
mod provider;
#[cfg(test)]
mod tests;
mod verifier;

#[cfg(feature = "websocket")]
pub(crate) use self::provider::provider;
pub(crate) use self::{config::Crypto, entropy::collected, verifier::FoundPeer};
pub use self::{
    entropy::warm_up,
    error::{CertificateError, CryptoError},
};
