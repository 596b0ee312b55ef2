//! TLS client and server configurations of a node.

use std::sync::Arc;

use libp2p_identity::{Keypair, PeerId};
use libp2p_tls::certificate;
use rustls::{
    ClientConfig, ServerConfig, SupportedProtocolVersion,
    client::Resumption,
    crypto::CryptoProvider,
    pki_types::CertificateDer,
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};

use super::{
    CertificateError, CryptoError, FoundPeer, entropy::warm_up, provider::provider,
    verifier::Verifier,
};
use crate::BuildError;

/// The ALPN protocol that the libp2p TLS specification requires.
const ALPN: &[u8] = b"libp2p";

/// The TLS versions. The libp2p TLS specification forbids versions below 1.3.
const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13];

/// The TLS configurations of one node, created once per process.
///
/// All connections use the same certificate, as the specification allows.
/// Creating one takes a key generation and two signatures.
#[derive(Clone, Debug)]
pub(crate) struct Crypto {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Crypto {
    /// Creates a certificate for `keypair` and the configurations that present
    /// it.
    ///
    /// Starts to collect the entropy of AWS-LC and does not wait for it. The
    /// key of the certificate is random by the operating system alone.
    pub(crate) fn new(keypair: &Keypair) -> Result<Self, BuildError> {
        warm_up();
        Ok(Self::with_provider(keypair, provider())?)
    }

    /// Same as [`Crypto::new`] with the given provider.
    pub(super) fn with_provider(
        keypair: &Keypair,
        provider: CryptoProvider,
    ) -> Result<Self, CryptoError> {
        let (certificate, key) =
            certificate::generate(keypair).map_err(CryptoError::Certificate)?;
        let key = provider.key_provider.load_private_key(key)?;
        let identity = Arc::new(SingleCertAndKey::from(CertifiedKey::new(
            vec![certificate],
            key,
        )));
        let provider = Arc::new(provider);

        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(VERSIONS)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier::default()))
            .with_client_cert_resolver(Arc::<SingleCertAndKey>::clone(&identity));
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.enable_sni = false;
        // A resumed session is not verified again, and all peers share one
        // server name, so the expected peer would not be checked. Resumption
        // would only save one certificate.
        client.resumption = Resumption::disabled();

        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(VERSIONS)?
            .with_client_cert_verifier(Arc::new(Verifier::default()))
            .with_cert_resolver(identity);
        server.alpn_protocols = vec![ALPN.to_vec()];
        // Other libp2p implementations prefer ChaCha20 on every processor. The
        // order of this node is based on its processor and benefits both sides.
        server.ignore_client_order = true;
        server.send_tls13_tickets = 0;

        Ok(Self {
            client: Arc::new(client),
            server: Arc::new(server),
        })
    }

    /// Returns the configuration of a dial. The handshake fails with
    /// [`CertificateError::WrongPeer`] if a peer other than `expected` answers.
    pub(crate) fn client(&self, expected: Option<PeerId>) -> Arc<ClientConfig> {
        match expected {
            None => Arc::clone(&self.client),
            Some(expected) => self.expecting(Verifier::expecting(expected, None)),
        }
    }

    /// Same as [`Crypto::client`], for a single handshake. After a failed
    /// handshake the second value contains the id of the peer that answered.
    pub(crate) fn client_reporting(&self, expected: PeerId) -> (Arc<ClientConfig>, FoundPeer) {
        let found = FoundPeer::default();
        let verifier = Verifier::expecting(expected, Some(Arc::clone(&found)));
        (self.expecting(verifier), found)
    }

    fn expecting(&self, verifier: Verifier) -> Arc<ClientConfig> {
        let mut client = ClientConfig::clone(&self.client);
        client
            .dangerous()
            .set_certificate_verifier(Arc::new(verifier));
        Arc::new(client)
    }

    /// Returns the configuration of a listener.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// Returns the peer id in the certificates of a completed handshake.
    pub(crate) fn peer_id(certificates: &[CertificateDer<'_>]) -> Result<PeerId, rustls::Error> {
        match certificates {
            [leaf] => Ok(certificate::parse(leaf)?.peer_id()),
            other => Err(CertificateError::Chain { found: other.len() }.into()),
        }
    }
}
