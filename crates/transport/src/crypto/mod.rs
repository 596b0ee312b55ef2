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
mod error;
mod provider;
#[cfg(test)]
mod tests;
mod verifier;

pub use self::error::{CertificateError, CryptoError};
#[cfg(feature = "websocket")]
pub(crate) use self::provider::provider;
pub(crate) use self::{config::Crypto, verifier::FoundPeer};

/// Starts a thread in which the cryptographic library collects its entropy.
///
/// The first key exchange of a process needs 66 to 118 ms for this (measured).
/// A program that calls this function at the start of `main` collects entropy
/// in parallel with its other work. Otherwise [`build`](crate::build) does it,
/// never a connection.
pub fn warm_up() {
    let thread = std::thread::Builder::new().name("entropy".to_owned());
    // If the thread cannot be started, `build` collects the entropy.
    let _ = thread.spawn(|| config::warm_up(&provider::provider()));
}
