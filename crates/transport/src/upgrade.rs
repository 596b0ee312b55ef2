//! Upgrades a byte stream to an authenticated and multiplexed connection:
//! negotiates the security protocol, runs its handshake, checks the peer id and
//! negotiates Yamux.

#[cfg(feature = "tls")]
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

#[cfg(feature = "tls")]
use calimero_network_primitives::config::Security;
use calimero_network_primitives::config::{TransportConfig, YamuxTuning};
use futures::{AsyncRead, AsyncWrite};
use libp2p_core::{
    connection::ConnectedPoint,
    muxing::StreamMuxerBox,
    upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade},
};
use libp2p_identity::{Keypair, PeerId};
use multiaddr::Protocol;
use multistream_select::{Negotiated, Version, dialer_select_proto, listener_select_proto};
#[cfg(feature = "tls")]
use rustls::pki_types::ServerName;

use crate::{
    AddressError, BuildError,
    executor::charge_to,
    link::{Links, Meter, MuxerKind, SecurityKind, TransportKind, Upgraded, origin_of},
    metered::Metered,
    optimistic::Optimistic,
    read_ahead::ReadAhead,
    yamux::{self, Muxer},
};
#[cfg(feature = "tls")]
use crate::{
    crypto::Crypto,
    tls::{self, TlsStream},
};

/// The protocol name of Noise XX.
const NOISE: &str = "/noise";

/// Keys and settings for the upgrade of byte streams.
pub(crate) struct Upgrade {
    #[cfg(feature = "tls")]
    crypto: Option<Crypto>,
    noise: Option<libp2p_noise::Config>,
    /// Names of the security protocols in order of preference.
    names: Vec<&'static str>,
    yamux: YamuxTuning,
    links: Links,
}

/// A byte stream of any transport.
///
/// The upgrade is compiled once for each security protocol, not for each transport as well: in the
/// development profile, the code of this crate is 2.9 MB in place of 4.2 MB. Each read and write of
/// a socket costs one call through a pointer.
pub(crate) type Socket = Box<dyn ByteStream>;

/// What the upgrade needs of a byte stream.
pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// The role of this node in a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Dialer,
    Listener,
}

impl Role {
    fn of(endpoint: &ConnectedPoint) -> Self {
        match endpoint {
            ConnectedPoint::Dialer { role_override, .. } if role_override.is_dialer() => {
                Self::Dialer
            }
            // Both sides of a hole punch dial; one of them takes the role of
            // the listener.
            _ => Self::Listener,
        }
    }
}

impl Upgrade {
    pub(crate) fn new(
        keypair: &Keypair,
        config: &TransportConfig,
        #[cfg(feature = "tls")] crypto: &Crypto,
        links: Links,
    ) -> Result<Self, BuildError> {
        let tcp = &config.tcp;
        let mut names = Vec::new();
        if tcp.tuning.noise {
            names.push(NOISE);
        }
        #[cfg(feature = "tls")]
        if tcp.tuning.tls {
            let first = tcp.prefer == Security::Tls;
            names.insert(if first { 0 } else { names.len() }, tls::PROTOCOL);
        }
        let noise = if tcp.tuning.noise {
            Some(libp2p_noise::Config::new(keypair)?)
        } else {
            None
        };
        Ok(Self {
            #[cfg(feature = "tls")]
            crypto: tcp.tuning.tls.then(|| crypto.clone()),
            noise,
            names,
            yamux: config.yamux.clone(),
            links,
        })
    }

    /// Upgrades `socket` as the connection `endpoint`.
    pub(crate) async fn apply(
        self: Arc<Self>,
        socket: Socket,
        endpoint: ConnectedPoint,
        transport: TransportKind,
    ) -> Result<Upgraded, AddressError> {
        let origin = origin_of(&endpoint);
        if let Some(origin) = origin {
            charge_to(origin);
        }
        let meter = self.links.meter(transport, origin);
        let upgraded = self.negotiate(socket, endpoint, meter.clone()).await;
        upgraded.map_err(|error| match error {
            // multistream-select does not distinguish an end of the stream from a refusal.
            AddressError::ProtocolNegotiation if !meter.has_received() => AddressError::Closed,
            other => other,
        })
    }

    async fn negotiate(
        &self,
        socket: Socket,
        endpoint: ConnectedPoint,
        meter: Meter,
    ) -> Result<Upgraded, AddressError> {
        let socket = Metered::new(socket, meter.clone());
        let role = Role::of(&endpoint);
        let expected = expected_peer(&endpoint);
        let (name, socket) = select(socket, self.names.clone(), role).await?;
        #[cfg(feature = "tls")]
        if let (tls::PROTOCOL, Some(crypto)) = (name, &self.crypto) {
            let (peer, stream) = tls_handshake(crypto, socket, role, expected).await?;
            if let Some(wrong) = wrong_peer(expected, peer) {
                return Err(wrong);
            }
            let cipher = stream.common().negotiated_cipher_suite().into();
            let security = SecurityKind::Tls { cipher };
            return self.multiplex(stream, role, peer, security, meter).await;
        }
        match (name, &self.noise) {
            (NOISE, Some(noise)) => {
                let (peer, stream) = noise_handshake(noise.clone(), socket, role).await?;
                if let Some(wrong) = wrong_peer(expected, peer) {
                    return Err(wrong);
                }
                self.multiplex(stream, role, peer, SecurityKind::Noise, meter)
                    .await
            }
            // Unreachable: `names` contains only configured protocols.
            _ => Err(AddressError::ProtocolNegotiation),
        }
    }

    async fn multiplex<S>(
        &self,
        stream: S,
        role: Role,
        peer: PeerId,
        security: SecurityKind,
        meter: Meter,
    ) -> Result<Upgraded, AddressError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (_, stream) = select(stream, vec![yamux::PROTOCOL], role).await?;
        let mode = match role {
            Role::Dialer => ::yamux::Mode::Client,
            Role::Listener => ::yamux::Mode::Server,
        };
        let link = meter.link(security, MuxerKind::Yamux);
        let holder = self.links.resources().holder(Some(peer), link.origin());
        let unread = self.links.unread();
        let muxer = Muxer::new(stream, &self.yamux, mode, Arc::clone(&link), holder, unread);
        Ok(Upgraded {
            peer,
            muxer: StreamMuxerBox::new(Optimistic::new(muxer)),
            link,
        })
    }
}

/// Negotiates one of `names`. A dialler with a single name does not wait for
/// the response, which it reads together with the first data.
async fn select<S>(
    io: S,
    names: Vec<&'static str>,
    role: Role,
) -> Result<(&'static str, Negotiated<S>), AddressError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    Ok(match role {
        Role::Dialer => dialer_select_proto(io, names, Version::V1Lazy).await?,
        Role::Listener => listener_select_proto(io, names).await?,
    })
}

#[cfg(feature = "tls")]
async fn tls_handshake<S>(
    crypto: &Crypto,
    io: S,
    role: Role,
    expected: Option<PeerId>,
) -> Result<(PeerId, TlsStream<S>), AddressError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stream = match role {
        Role::Dialer => {
            // The specification forbids a server name. Addresses are not sent
            // as server names.
            let name = ServerName::from(IpAddr::from(Ipv4Addr::UNSPECIFIED));
            TlsStream::client(io, crypto.client(expected), name).await?
        }
        Role::Listener => TlsStream::server(io, crypto.server()).await?,
    };
    let certificates = stream.common().peer_certificates().unwrap_or_default();
    let peer = Crypto::peer_id(certificates)?;
    Ok((peer, stream))
}

async fn noise_handshake<S>(
    noise: libp2p_noise::Config,
    io: S,
    role: Role,
) -> Result<(PeerId, libp2p_noise::Output<ReadAhead<S>>), AddressError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let io = ReadAhead::new(io);
    Ok(match role {
        Role::Dialer => noise.upgrade_outbound(io, NOISE).await?,
        Role::Listener => noise.upgrade_inbound(io, NOISE).await?,
    })
}

/// Returns the peer id at the end of a dialled address.
fn expected_peer(endpoint: &ConnectedPoint) -> Option<PeerId> {
    match endpoint {
        ConnectedPoint::Dialer { address, .. } => match address.iter().last() {
            Some(Protocol::P2p(peer)) => Some(peer),
            _ => None,
        },
        ConnectedPoint::Listener { .. } => None,
    }
}

fn wrong_peer(expected: Option<PeerId>, found: PeerId) -> Option<AddressError> {
    let expected = expected.filter(|expected| *expected != found)?;
    Some(AddressError::WrongPeer { expected, found })
}
