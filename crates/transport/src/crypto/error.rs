//! What can be wrong with a certificate, and with making one.

use libp2p_identity::PeerId;
use libp2p_tls::certificate;

/// Why a certificate was refused for a reason that libp2p adds to TLS.
///
/// What is wrong with the certificate itself (encoding, extension, signature, validity) is a
/// [`rustls::Error::InvalidCertificate`] with the kind that `rustls` has for it. These travel
/// inside it, and [`CertificateError::of`] finds them again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The peer presented another number of certificates than one.
    #[error("expected one certificate, the peer presented {found}")]
    Chain {
        /// How many were presented.
        found: usize,
    },
    /// The certificate belongs to another peer than the one dialled.
    #[error("expected peer {expected}, found {found}")]
    WrongPeer {
        /// The peer that was dialled.
        expected: PeerId,
        /// The peer that answered.
        found: PeerId,
    },
}

impl CertificateError {
    /// The refusal inside of a TLS error, if that is what ended the handshake.
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

/// Why the TLS configuration of this node could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CryptoError {
    /// No certificate could be made for the key pair.
    #[error("the certificate could not be made")]
    Certificate(#[source] certificate::GenError),
    /// The cryptographic library refused the key or the configuration.
    #[error("the TLS configuration was refused")]
    Tls(#[from] rustls::Error),
    /// The operating system gave no randomness.
    #[error("no randomness is available")]
    Randomness,
}
