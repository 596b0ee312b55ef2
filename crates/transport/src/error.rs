//! Errors of building a transport.

use crate::crypto;

/// Why a transport could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The certificate or the TLS configuration could not be made.
    #[error(transparent)]
    Crypto(#[from] crypto::CryptoError),
    /// QUIC could not be configured.
    #[error(transparent)]
    Quic(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}
