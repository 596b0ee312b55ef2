//! Certificate verification according to the libp2p TLS specification.

use std::sync::{Arc, OnceLock};

use libp2p_identity::PeerId;
use libp2p_tls::certificate;
use rustls::{
    DigitallySignedStruct, DistinguishedName, PeerIncompatible, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use super::CertificateError;

/// Signature schemes accepted in a handshake: those that `libp2p-tls` verifies,
/// elliptic curves first.
const SCHEMES: [SignatureScheme; 9] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
];

/// The peer id that a verifier found in a handshake.
///
/// QUIC reports a failed handshake only as an alert code and a text, so the id
/// of an unexpected peer is passed through this value.
pub(crate) type FoundPeer = Arc<OnceLock<PeerId>>;

/// Accepts exactly one self-signed certificate with a valid libp2p extension,
/// and only of the expected peer if there is one.
#[derive(Debug, Default)]
pub(super) struct Verifier {
    expected: Option<PeerId>,
    found: Option<FoundPeer>,
}

impl Verifier {
    pub(super) fn expecting(expected: PeerId, found: Option<FoundPeer>) -> Self {
        Self {
            expected: Some(expected),
            found,
        }
    }

    fn check(&self, leaf: &CertificateDer<'_>, more: usize) -> Result<(), rustls::Error> {
        if more != 0 {
            return Err(CertificateError::Chain { found: more + 1 }.into());
        }
        let found = certificate::parse(leaf)?.peer_id();
        if let Some(cell) = &self.found {
            // One verifier serves one handshake, so the cell is empty or
            // contains the same id.
            let _ = cell.set(found);
        }
        match self.expected {
            Some(expected) if expected != found => {
                Err(CertificateError::WrongPeer { expected, found }.into())
            }
            _ => Ok(()),
        }
    }
}

fn check_signature(
    message: &[u8],
    leaf: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    certificate::parse(leaf)?.verify_signature(signed.scheme, message, signed.signature())?;
    Ok(HandshakeSignatureValid::assertion())
}

/// Returns the error for a TLS 1.2 signature. The configuration never
/// negotiates TLS 1.2.
fn refuse_tls12() -> rustls::Error {
    rustls::Error::PeerIncompatible(PeerIncompatible::SupportedVersionsExtensionRequired)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(leaf, intermediates.len())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(refuse_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        check_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(leaf, intermediates.len())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(refuse_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        check_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}
