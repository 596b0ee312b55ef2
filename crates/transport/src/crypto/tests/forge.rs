//! Forged certificates with exactly one defect.

use std::sync::Arc;

use libp2p_identity::Keypair;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::{
    ClientConfig, ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};

use crate::crypto::verifier::Verifier;

/// Object identifier of the libp2p extension.
const EXTENSION: [u64; 9] = [1, 3, 6, 1, 4, 1, 53594, 1, 1];
/// Object identifier of an extension that no implementation knows.
const UNKNOWN: [u64; 9] = [1, 3, 6, 1, 4, 1, 53594, 1, 4242];

/// The certificate of a test peer and its TLS settings.
pub(super) struct Peer {
    pub(super) host_key: Keypair,
    /// Prefix of the signed text in the libp2p extension.
    pub(super) signing_prefix: &'static [u8],
    /// `true` if the certificate has the libp2p extension.
    pub(super) extension: bool,
    /// An unknown extension, critical or not.
    pub(super) unknown: Option<bool>,
    /// First and last year of validity, each from its first day.
    pub(super) valid_years: (i32, i32),
    /// Number of copies of the certificate that are presented.
    pub(super) chain: usize,
    /// `true` if the signature of the certificate is corrupted.
    pub(super) damaged: bool,
    pub(super) alpn: Vec<Vec<u8>>,
    pub(super) version: &'static SupportedProtocolVersion,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            host_key: Keypair::generate_ed25519(),
            signing_prefix: b"libp2p-tls-handshake:",
            extension: true,
            unknown: None,
            valid_years: (1975, 4096),
            chain: 1,
            damaged: false,
            alpn: vec![b"libp2p".to_vec()],
            version: &TLS13,
        }
    }
}

impl Peer {
    fn identity(&self) -> Arc<SingleCertAndKey> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.not_before = rcgen::date_time_ymd(self.valid_years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(self.valid_years.1, 1, 1);
        if self.extension {
            let message = [self.signing_prefix, &key.public_key_der()].concat();
            let signature = self.host_key.sign(&message).expect("a signature");
            let public = self.host_key.public().encode_protobuf();
            let content = yasna::encode_der(&(public, signature));
            let mut extension = CustomExtension::from_oid_content(&EXTENSION, content);
            extension.set_criticality(true);
            params.custom_extensions.push(extension);
        }
        if let Some(critical) = self.unknown {
            let mut extension = CustomExtension::from_oid_content(&UNKNOWN, vec![5, 0]);
            extension.set_criticality(critical);
            params.custom_extensions.push(extension);
        }
        let mut der = params.self_signed(&key).expect("signs").der().to_vec();
        if self.damaged {
            // The last byte belongs to the second integer of the ECDSA
            // signature.
            *der.last_mut().expect("a certificate has bytes") ^= 1;
        }
        let certificate = CertificateDer::from(der);
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = aws_lc_rs::sign::any_supported_type(&key).expect("a key for signing");
        Arc::new(CertifiedKey::new(vec![certificate; self.chain], key).into())
    }

    /// Returns the configuration of this peer as listener.
    pub(super) fn server(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[self.version])
            .expect("versions fit")
            .with_client_cert_verifier(Arc::new(Verifier::default()))
            .with_cert_resolver(self.identity());
        config.alpn_protocols.clone_from(&self.alpn);
        Arc::new(config)
    }

    /// Returns the configuration of this peer as dialler.
    pub(super) fn client(&self) -> Arc<ClientConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[self.version])
            .expect("versions fit")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier::default()))
            .with_client_cert_resolver(self.identity());
        config.alpn_protocols.clone_from(&self.alpn);
        Arc::new(config)
    }
}
