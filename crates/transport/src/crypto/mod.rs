//! TLS 1.3 as libp2p speaks it, for TCP and for QUIC.
//!
//! The handshake is the one of the [libp2p TLS specification]: both sides present one self-signed
//! certificate whose libp2p extension binds it to the host key, the protocol is negotiated as
//! `libp2p`, and no server name is sent. Certificates are made and read by `libp2p-tls`; what is
//! chosen here is the order of the ciphers, which that crate fixes with ChaCha20 first.
//!
//! [libp2p TLS specification]: https://github.com/libp2p/specs/blob/master/tls/tls.md

mod config;
mod error;
mod provider;
#[cfg(test)]
mod tests;
mod verifier;

pub use self::error::{CertificateError, CryptoError};
pub(crate) use self::{config::Crypto, verifier::FoundPeer};

/// Starts a thread that makes the cryptographic library gather its entropy.
///
/// The first key exchange of a process waits 66 to 118 ms for it (measured). A program that
/// calls this first thing in `main` has that time pass beside its other preparations; one that
/// does not has it pass in [`build`](crate::build), never in a connection.
pub fn warm_up() {
    let thread = std::thread::Builder::new().name("entropy".to_owned());
    // Where no thread can be had, the first build gathers the entropy.
    let _ = thread.spawn(|| config::warm_up(&provider::provider()));
}
