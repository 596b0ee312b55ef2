//! Errors of certificates and of the TLS configuration.

use libp2p_identity::PeerId;
use libp2p_tls::certificate;

/// A reason to refuse a certificate that libp2p adds to those of TLS.
///
/// Defects of the certificate itself (encoding, extension, signature, validity)
/// are a [`rustls::Error::InvalidCertificate`] with the kind that `rustls`
/// defines. This type is contained in such an error, and
/// [`CertificateError::of`] extracts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The peer did not present exactly one certificate.
    #[error("expected one certificate, the peer presented {found}")]
    Chain {
        /// Number of presented certificates.
        found: usize,
    },
    /// The certificate belongs to a peer other than the dialled one.
    #[error("expected peer {expected}, found {found}")]
    WrongPeer {
        /// The peer id that was dialled.
        expected: PeerId,
        /// The peer id in the certificate.
        found: PeerId,
    },
}

impl CertificateError {
    /// Extracts this error from a TLS error, if it is the cause.
    #[must_use]
    pub fn of(error: &rustls::Error) -> Option<Self> {
        match error {
            rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => {
                other.0.downcast_ref().copied()
            }
            _ => None,
        }
    }
}

impl From<CertificateError> for rustls::Error {
    fn from(error: CertificateError) -> Self {
        Self::InvalidCertificate(rustls::CertificateError::Other(rustls::OtherError(
            std::sync::Arc::new(error),
        )))
    }
}

/// An error of creating the TLS configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CryptoError {
    /// The certificate could not be created for the key pair.
    #[error("cannot create the TLS certificate")]
    Certificate(#[source] certificate::GenError),
    /// The cryptographic library refused the key or the configuration.
    #[error("invalid TLS configuration")]
    Tls(#[from] rustls::Error),
}
