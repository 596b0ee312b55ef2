//! Errors of building a transport, and of dialling or accepting a connection.

use std::{error::Error, fmt, io, sync::Arc, time::Duration};

use calimero_network_primitives::{UnreachableCause, addr::DialRefusal, config::ConfigError};
#[cfg(feature = "dns")]
use hickory_resolver::net::NetError;
use libp2p_core::transport::TransportError;
use libp2p_identity::PeerId;
#[cfg(feature = "relay")]
use libp2p_relay::outbound::hop::ConnectError;
use multiaddr::Multiaddr;
use multistream_select::{NegotiationError, ProtocolError};

#[cfg(feature = "quic")]
use crate::quic;
#[cfg(feature = "tcp")]
use crate::tcp::CongestionError;
#[cfg(feature = "websocket")]
use crate::websocket::CertificateFileError;
#[cfg(feature = "tls")]
use crate::{
    crypto::{CertificateError, CryptoError},
    tls::HandshakeError,
};

/// An error of building a transport.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The configuration is invalid.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// The certificate or the TLS configuration could not be created.
    #[cfg(feature = "tls")]
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// QUIC could not be configured.
    #[cfg(feature = "quic")]
    #[error(transparent)]
    Quic(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// The kernel refuses the congestion control of TCP.
    #[cfg(feature = "tcp")]
    #[error("transport.tcp.congestion: {0}")]
    Congestion(#[from] CongestionError),
    /// The certificate or key of WebSocket cannot be used.
    #[cfg(feature = "websocket")]
    #[error("transport.websocket: {0}")]
    WebSocket(#[from] CertificateFileError),
    /// The Noise key could not be signed with the identity.
    #[error("noise: {0}")]
    Noise(#[from] libp2p_noise::Error),
}

/// An error of dialling one address or of accepting one inbound connection.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// The connection was not authenticated and multiplexed before the
    /// deadline.
    #[error("no connection within {after:?}")]
    Timeout {
        /// Time limit for the connection setup.
        after: Duration,
    },
    /// A peer with another id answered. The connection is closed. With TLS and
    /// QUIC, it was never established on the other side.
    #[error("expected peer {expected}, found {found}")]
    WrongPeer {
        /// The peer id in the address.
        expected: PeerId,
        /// The peer id that was authenticated.
        found: PeerId,
    },
    /// The host refused the connection: no process listens on the port.
    #[error("connection refused")]
    Refused,
    /// This host has no route to the network of the address.
    #[error("network unreachable")]
    NetworkUnreachable,
    /// There is no route to the host.
    #[error("host unreachable")]
    Unreachable,
    /// The name does not exist, or has no record of the requested type.
    #[error("no such name")]
    NoSuchName,
    /// The name servers did not answer.
    #[error("name resolution: {0}")]
    Resolve(Cause),
    /// Both sides support libp2p, but no common security protocol or muxer.
    #[error("no protocol in common")]
    ProtocolNegotiation,
    /// The remote does not support libp2p.
    #[error("the remote does not support libp2p")]
    NotLibp2p,
    /// The security handshake failed: invalid keys, signature or certificate,
    /// or invalid data.
    #[error("security handshake: {0}")]
    Security(Cause),
    /// The relay refused the circuit, or cannot reach the peer.
    #[error("relay: {0}")]
    Relay(Cause),
    /// The QUIC handshake or the endpoint failed.
    #[error("QUIC: {0}")]
    Quic(Cause),
    /// The opening handshake of WebSocket failed, or the certificates to trust
    /// cannot be read.
    #[error("WebSocket: {0}")]
    WebSocket(Cause),
    /// No transport of this configuration supports the address.
    #[error("unsupported address {0}")]
    Unsupported(Multiaddr),
    /// The remote closed the connection before it was established.
    #[error("the remote closed the connection during the handshake")]
    Closed,
    /// All addresses to which a name resolved failed.
    #[error("all {} addresses of the name failed, the last with: {last}", .errors.len(), last = Last(.errors))]
    Resolved {
        /// The errors of all attempts, in order.
        errors: Vec<AddressError>,
    },
    /// The dial policy forbids the address. No socket was opened.
    #[error("not dialled: {0}")]
    NotAllowed(#[source] DialRefusal),
    /// Another error of the operating system.
    #[error("{0}")]
    Io(Cause),
}

/// An error of a dependency, shared so that [`AddressError`] implements
/// `Clone`.
#[derive(Clone, Debug)]
pub struct Cause(Arc<dyn Error + Send + Sync>);

impl Cause {
    pub(crate) fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(error))
    }

    /// Returns the error for a downcast.
    pub fn get(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Chain(&*self.0), f)
    }
}

/// Formats an error and its causes without repetitions: `a: b: c`.
///
/// Some errors include the text of their cause. A cause that the output already
/// contains is not repeated.
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let part = error.to_string();
            if !text.contains(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
            cause = error.source();
        }
        f.write_str(&text)
    }
}

/// Formats the last of several errors.
struct Last<'a>(&'a [AddressError]);

impl fmt::Display for Last<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.last() {
            Some(error) => error.fmt(f),
            None => f.write_str("none"),
        }
    }
}

impl From<io::Error> for AddressError {
    fn from(error: io::Error) -> Self {
        if let Some(inner) = error.get_ref() {
            if let Some(found) = inner.downcast_ref::<Self>() {
                return found.clone();
            }
            if inner.is::<NegotiationError>() {
                return Self::ProtocolNegotiation;
            }
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::NetworkUnreachable => Self::NetworkUnreachable,
            io::ErrorKind::HostUnreachable => Self::Unreachable,
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io(Cause::new(error)),
        }
    }
}

impl From<NegotiationError> for AddressError {
    fn from(error: NegotiationError) -> Self {
        match error {
            NegotiationError::Failed => Self::ProtocolNegotiation,
            NegotiationError::ProtocolError(ProtocolError::IoError(error)) => error.into(),
            NegotiationError::ProtocolError(_) => Self::NotLibp2p,
        }
    }
}

impl From<libp2p_noise::Error> for AddressError {
    fn from(error: libp2p_noise::Error) -> Self {
        match error {
            libp2p_noise::Error::Io(error) if error.kind() != io::ErrorKind::InvalidData => {
                error.into()
            }
            other => Self::Security(Cause::new(other)),
        }
    }
}

#[cfg(feature = "tls")]
impl From<rustls::Error> for AddressError {
    fn from(error: rustls::Error) -> Self {
        match CertificateError::of(&error) {
            Some(CertificateError::WrongPeer { expected, found }) => {
                Self::WrongPeer { expected, found }
            }
            _ => Self::Security(Cause::new(error)),
        }
    }
}

#[cfg(feature = "tls")]
impl From<HandshakeError> for AddressError {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Io(error) => error.into(),
            HandshakeError::Tls(error) => error.into(),
        }
    }
}

impl From<libp2p_core::transport::memory::MemoryTransportError> for AddressError {
    fn from(_: libp2p_core::transport::memory::MemoryTransportError) -> Self {
        Self::Refused
    }
}

#[cfg(feature = "quic")]
impl From<quic::Error> for AddressError {
    fn from(error: quic::Error) -> Self {
        use quic::Error as Quic;
        match error {
            Quic::Timeout { after } => Self::Timeout { after },
            Quic::WrongPeer(wrong) => Self::WrongPeer {
                expected: wrong.expected,
                found: wrong.found,
            },
            Quic::Refused => Self::Refused,
            Quic::Version => Self::ProtocolNegotiation,
            Quic::Io(error) => error.into(),
            Quic::Reset | Quic::Closed { .. } => Self::Closed,
            error @ Quic::Tls { .. } => Self::Security(Cause::new(error)),
            other => Self::Quic(Cause::new(other)),
        }
    }
}

#[cfg(feature = "relay")]
impl From<libp2p_relay::client::transport::Error> for AddressError {
    fn from(error: libp2p_relay::client::transport::Error) -> Self {
        Self::Relay(Cause::new(error))
    }
}

#[cfg(feature = "dns")]
impl From<NetError> for AddressError {
    fn from(error: NetError) -> Self {
        if error.is_nx_domain() || error.is_no_records_found() {
            return Self::NoSuchName;
        }
        Self::Resolve(Cause::new(error))
    }
}

impl From<TransportError<Self>> for AddressError {
    fn from(error: TransportError<Self>) -> Self {
        match error {
            TransportError::MultiaddrNotSupported(address) => Self::Unsupported(address),
            TransportError::Other(error) => error,
        }
    }
}

impl AddressError {
    /// Returns the cause in the terms that discovery, events and metrics use.
    #[must_use]
    pub fn cause(&self) -> UnreachableCause {
        match self {
            Self::Timeout { .. } => UnreachableCause::TimedOut,
            Self::WrongPeer { found, .. } => UnreachableCause::WrongPeer { obtained: *found },
            Self::Refused => UnreachableCause::Refused,
            Self::NetworkUnreachable => UnreachableCause::NoRoute,
            Self::Unreachable => UnreachableCause::HostUnreachable,
            Self::NoSuchName | Self::Resolve(_) => UnreachableCause::UnknownName,
            Self::ProtocolNegotiation
            | Self::NotLibp2p
            | Self::Security(_)
            | Self::WebSocket(_) => UnreachableCause::Handshake,
            #[cfg(feature = "relay")]
            Self::Relay(cause) if has_no_reservation(cause) => UnreachableCause::NoReservation,
            Self::Relay(_) => UnreachableCause::Relay,
            Self::Unsupported(_) | Self::NotAllowed(_) => UnreachableCause::NoAddress,
            Self::Closed => UnreachableCause::Closed,
            Self::Resolved { errors } => {
                let mut causes = errors.iter().map(Self::cause);
                causes
                    .find(|cause| !cause.is_other())
                    .unwrap_or(UnreachableCause::Other)
            }
            Self::Io(cause) => match cause.get().downcast_ref::<io::Error>() {
                Some(error) if error.kind() == io::ErrorKind::TimedOut => {
                    UnreachableCause::TimedOut
                }
                _ => UnreachableCause::Other,
            },
            Self::Quic(_) => UnreachableCause::Other,
        }
    }

    /// Creates the error of a name from the errors of the addresses to which it
    /// resolved.
    #[cfg(feature = "dns")]
    pub(crate) fn of_name(mut errors: Vec<Self>) -> Self {
        match errors.pop() {
            Some(only) if errors.is_empty() => only,
            Some(last) => {
                errors.push(last);
                Self::Resolved { errors }
            }
            None => Self::NoSuchName,
        }
    }
}

/// Returns whether a relay says that the target of a circuit has no reservation there.
#[cfg(feature = "relay")]
fn has_no_reservation(cause: &Cause) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = Some(cause.get());
    while let Some(error) = next {
        if matches!(error.downcast_ref(), Some(ConnectError::NoReservation)) {
            return true;
        }
        next = error.source();
    }
    false
}

/// Converts an error of the transport to an [`AddressError`].
///
/// `error` is the error that a swarm reports for each address of a failed dial.
/// Errors of other transports are classified by their [`io::ErrorKind`].
pub fn classify(error: &TransportError<io::Error>) -> AddressError {
    match error {
        TransportError::MultiaddrNotSupported(address) => {
            AddressError::Unsupported(address.clone())
        }
        TransportError::Other(error) => {
            let mut cause: Option<&(dyn Error + 'static)> =
                error.get_ref().map(|inner| inner as &(dyn Error + 'static));
            while let Some(inner) = cause {
                if let Some(found) = inner.downcast_ref::<AddressError>() {
                    return found.clone();
                }
                cause = inner.source();
            }
            AddressError::from(os_error(error))
        }
    }
}

/// Returns the operating system error that `error` wraps, with its number and
/// text. Without one, returns an error with the kind and text of `error`.
#[must_use]
pub fn os_error(error: &io::Error) -> io::Error {
    fn find(error: &(dyn Error + 'static)) -> Option<io::Error> {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            if let Some(code) = error.raw_os_error() {
                return Some(io::Error::from_raw_os_error(code));
            }
            return error.get_ref().and_then(|inner| find(inner));
        }
        if let Some(AddressError::Io(cause)) = error.downcast_ref::<AddressError>() {
            return find(cause.get());
        }
        error.source().and_then(find)
    }
    find(error).unwrap_or_else(|| io::Error::new(error.kind(), Chain(error).to_string()))
}

/// Checks that the network interfaces of this host can be watched. Listening on
/// a wildcard address uses it.
///
/// # Errors
///
/// The error of the operating system, for example if a service manager forbids
/// netlink sockets.
#[cfg(any(feature = "quic", feature = "tcp"))]
pub fn check_interface_watch() -> io::Result<()> {
    if_watch::tokio::IfWatcher::new().map(|_| ())
}
