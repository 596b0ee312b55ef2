//! Client and server configurations around one certificate.

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

use super::{CertificateError, CryptoError, FoundPeer, provider::provider, verifier::Verifier};
use crate::BuildError;

/// The protocol both sides name in the handshake, by the libp2p TLS specification.
const ALPN: &[u8] = b"libp2p";

/// Lower versions must not be negotiated, by the libp2p TLS specification.
const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13];

/// The TLS configurations of one node, made once when the process starts.
///
/// One certificate serves every connection, as the specification allows: making one takes a key
/// generation and two signatures.
#[derive(Clone, Debug)]
pub(crate) struct Crypto {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Crypto {
    /// Makes a certificate for `keypair` and the configurations that present it.
    ///
    /// Takes up to 120 ms the first time in a process, while AWS-LC gathers entropy; no
    /// connection has to wait for that later.
    pub(crate) fn new(keypair: &Keypair) -> Result<Self, BuildError> {
        Ok(Self::with_provider(keypair, provider())?)
    }

    /// As [`Crypto::new`], with ciphers of the caller's choice.
    pub(super) fn with_provider(
        keypair: &Keypair,
        provider: CryptoProvider,
    ) -> Result<Self, CryptoError> {
        warm_up(&provider)?;
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
        // A resumed session is not verified again, and all peers share one server name: the
        // expected peer would go unchecked. What resumption saves is one certificate.
        client.resumption = Resumption::disabled();

        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(VERSIONS)?
            .with_client_cert_verifier(Arc::new(Verifier::default()))
            .with_cert_resolver(identity);
        server.alpn_protocols = vec![ALPN.to_vec()];
        // A stock libp2p dialler names ChaCha20 first whatever its processor; both sides gain if
        // the order measured here decides.
        server.ignore_client_order = true;
        server.send_tls13_tickets = 0;

        Ok(Self {
            client: Arc::new(client),
            server: Arc::new(server),
        })
    }

    /// The configuration of a dial, which ends in [`CertificateError::WrongPeer`] if another
    /// than the `expected` peer answers.
    pub(crate) fn client(&self, expected: Option<PeerId>) -> Arc<ClientConfig> {
        match expected {
            None => Arc::clone(&self.client),
            Some(expected) => self.expecting(Verifier::expecting(expected, None)),
        }
    }

    /// As [`Crypto::client`], with the place where the answering peer's id will be found after a
    /// handshake that failed. The configuration is for one handshake.
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

    /// The configuration of a listener.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// The peer that the certificates of a completed handshake belong to.
    pub(crate) fn peer_id(certificates: &[CertificateDer<'_>]) -> Result<PeerId, rustls::Error> {
        match certificates {
            [leaf] => Ok(certificate::parse(leaf)?.peer_id()),
            other => Err(CertificateError::Chain { found: other.len() }.into()),
        }
    }
}

/// Makes the library gather its entropy now, by one throwaway key exchange.
pub(super) fn warm_up(provider: &CryptoProvider) -> Result<(), CryptoError> {
    let mut bytes = [0; 32];
    provider
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| CryptoError::Randomness)?;
    if let Some(group) = provider.kx_groups.first() {
        group.start()?;
    }
    Ok(())
}
