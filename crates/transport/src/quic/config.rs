//! What [`QuicConfig`] means to `quinn`.

use std::{net::IpAddr, sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use calimero_network_primitives::config::QuicConfig;
use libp2p_identity::{Keypair, PeerId};
use quinn::{
    EndpointConfig, IdleTimeout, MtuDiscoveryConfig, VarInt,
    congestion::CubicConfig,
    crypto::{
        CryptoError, HmacKey,
        rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig},
    },
};
use quinn_proto::HashedConnectionIdGenerator;

use super::{Error, congestion::BbrFactory, stream_limit::StreamLimit};
use crate::crypto::{Crypto, FoundPeer};

/// Largest UDP payload accepted, in bytes: the most QUIC can announce (RFC 9000, section 18.2).
///
/// The peer sends what its path carries, up to this; on loopback that is all of it.
pub(super) const MAX_UDP_PAYLOAD_BYTES: u16 = 65_527;

/// Largest UDP payload probed for on paths that leave the machine, in bytes: Ethernet's 1500
/// less 48 of IPv6 and UDP.
const PATH_MTU_BYTES: u16 = 1_452;

/// Largest UDP payload probed for on loopback, in bytes.
///
/// `quinn` hands the kernel up to ten datagrams at once, which together must fit the 65,507 bytes
/// of one UDP datagram over IPv4: above a tenth of that the kernel refuses full batches and they
/// count as lost. Measured: 1.0 to 1.5 CPU seconds a GiB instead of 2.2 to 3.4 with
/// [`PATH_MTU_BYTES`], and 2.4 to 3.1 with 9000.
const LOOPBACK_MTU_BYTES: u16 = 6_500;

/// Connections that sent their first packet and are not accepted yet, at most: as many as TCP
/// keeps in its backlog.
const MAX_INCOMING: usize = 1024;

/// Bytes kept of such a connection, at most. A first flight with a post-quantum key is 3 KiB.
const INCOMING_BUFFER_BYTES: u64 = 16 << 10;

/// Bytes kept of all such connections, at most.
const INCOMING_BUFFERS_BYTES: u64 = 4 << 20;

/// Inbound handshakes under way from which on a peer has to prove that it receives at the address
/// it sends from, which costs it a round trip: half of the handshakes allowed by default.
const VALIDATE_ABOVE: usize = 64;

/// Domain of the key that stateless resets are authenticated with; the same keeps them valid
/// when a node that ran `libp2p-quic` is started again with this transport.
const RESET_KEY_DOMAIN: &[u8] = b"libp2p quic stateless reset key";

/// Domain of the key that authenticates connection ids of this endpoint. It must not change, as above:
/// otherwise a restarted node would not reset the connections of its former process.
const CONNECTION_ID_DOMAIN: &[u8] = b"calimero quic connection id key";

/// QUIC version 1 (RFC 9000).
const VERSION: u32 = 1;

/// Everything an endpoint and its connections are configured with.
#[derive(Clone)]
pub(super) struct Settings {
    crypto: Crypto,
    endpoint: EndpointConfig,
    path: PathSettings,
    loopback: PathSettings,
    /// Time for a handshake to end.
    pub(super) handshake_timeout: Duration,
    /// Inbound streams that one connection may have open.
    pub(super) max_streams: u32,
    /// Inbound handshakes under way from which on addresses are validated.
    pub(super) validate_above: usize,
}

/// What depends on whether packets leave the machine.
#[derive(Clone)]
struct PathSettings {
    transport: Arc<quinn::TransportConfig>,
    server: Arc<quinn::ServerConfig>,
}

impl Settings {
    pub(super) fn new(
        crypto: Crypto,
        keypair: &Keypair,
        config: &QuicConfig,
        handshake_timeout: Duration,
    ) -> Result<Self, NoInitialCipherSuite> {
        let tls = Arc::new(QuicServerConfig::try_from(crypto.server())?);
        let path = |transport: quinn::TransportConfig| {
            let transport = Arc::new(transport);
            let server = Arc::new(server(Arc::clone(&tls), Arc::clone(&transport)));
            PathSettings { transport, server }
        };
        Ok(Self {
            crypto,
            endpoint: endpoint(keypair),
            path: path(transport(config)),
            loopback: path(loopback(transport(config))),
            handshake_timeout,
            max_streams: config.tuning.max_streams,
            validate_above: VALIDATE_ABOVE,
        })
    }

    pub(super) fn endpoint(&self) -> EndpointConfig {
        self.endpoint.clone()
    }

    fn towards(&self, remote: IpAddr) -> &PathSettings {
        if remote.is_loopback() {
            &self.loopback
        } else {
            &self.path
        }
    }

    /// What accepts a connection from `remote`.
    pub(super) fn server(&self, remote: IpAddr) -> Arc<quinn::ServerConfig> {
        Arc::clone(&self.towards(remote).server)
    }

    /// What dials `remote`, and where the peer that answers will be found.
    pub(super) fn client(
        &self,
        remote: IpAddr,
        expected: Option<PeerId>,
    ) -> Result<(quinn::ClientConfig, Option<FoundPeer>), Error> {
        let (tls, found) = match expected {
            None => (self.crypto.client(None), None),
            Some(peer) => {
                let (tls, found) = self.crypto.client_reporting(peer);
                (tls, Some(found))
            }
        };
        let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        client.transport_config(Arc::clone(&self.towards(remote).transport));
        Ok((client, found))
    }
}

fn endpoint(keypair: &Keypair) -> EndpointConfig {
    let mut endpoint = match keypair.derive_secret(RESET_KEY_DOMAIN) {
        Some(secret) => EndpointConfig::new(Arc::new(ResetKey::new(&secret))),
        // Keys that derive nothing get a random one: resets end with the process.
        None => EndpointConfig::default(),
    };
    if let Some([a, b, c, d, e, f, g, h, ..]) = keypair.derive_secret(CONNECTION_ID_DOMAIN) {
        let key = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        endpoint.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)));
    }
    endpoint.supported_versions(vec![VERSION]);
    // In range by its definition; the smaller default would work too.
    let _ = endpoint.max_udp_payload_size(MAX_UDP_PAYLOAD_BYTES);
    endpoint
}

fn server(
    tls: Arc<QuicServerConfig>,
    transport: Arc<quinn::TransportConfig>,
) -> quinn::ServerConfig {
    let mut server = quinn::ServerConfig::with_crypto(tls);
    server.transport_config(transport);
    // A peer is known to the rest of the node by its address.
    server.migration(false);
    server.max_incoming(MAX_INCOMING);
    server.incoming_buffer_size(INCOMING_BUFFER_BYTES);
    server.incoming_buffer_size_total(INCOMING_BUFFERS_BYTES);
    server
}

fn transport(config: &QuicConfig) -> quinn::TransportConfig {
    let mut transport = quinn::TransportConfig::default();
    transport.max_concurrent_uni_streams(VarInt::from_u32(0));
    transport.max_concurrent_bidi_streams(VarInt::from_u32(StreamLimit::first_grant(
        config.tuning.max_streams,
    )));
    transport.datagram_receive_buffer_size(None);
    transport.keep_alive_interval(Some(config.tuning.keep_alive));
    let idle_millis = u32::try_from(config.tuning.idle_timeout.as_millis()).unwrap_or(u32::MAX);
    transport.max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle_millis))));
    transport.allow_spin(false);
    transport.stream_receive_window(VarInt::from_u32(config.tuning.stream_window_bytes));
    transport.receive_window(VarInt::from_u32(config.tuning.connection_window_bytes));
    transport.send_window(u64::from(config.tuning.send_window_bytes));
    // Acknowledgements keep their defaults: asking for fewer changed nothing beyond the noise.
    transport.congestion_controller_factory(Arc::new(BbrFactory));
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(PATH_MTU_BYTES);
    transport.mtu_discovery_config(Some(mtu));
    transport
}

/// The same for packets that stay on the machine, whose interface carries large ones.
fn loopback(mut transport: quinn::TransportConfig) -> quinn::TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(LOOPBACK_MTU_BYTES);
    transport.mtu_discovery_config(Some(mtu));
    // Loopback has no rate and no round trip time to model, and loses packets only when a socket
    // buffer is full.
    transport.congestion_controller_factory(Arc::new(CubicConfig::default()));
    transport
}

/// HMAC-SHA-256 for stateless resets.
struct ResetKey(hmac::Key);

impl ResetKey {
    fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature: &mut [u8]) {
        let tag = hmac::sign(&self.0, data);
        for (to, from) in signature.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
    }

    fn signature_len(&self) -> usize {
        hmac::HMAC_SHA256.tag_len()
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        hmac::verify(&self.0, data, signature).map_err(|_| CryptoError)
    }
}
