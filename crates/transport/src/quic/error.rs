//! Errors of QUIC connections.

use std::{io, net::SocketAddr, time::Duration};

use libp2p_identity::PeerId;
use quinn::{ConnectionError, TransportErrorCode};

/// An error that prevented or ended a connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The handshake, or waiting for the other side of a hole punch, did not end in time.
    #[error("no connection within {after:?}")]
    Timeout {
        /// Time limit for the handshake.
        after: Duration,
    },
    /// Another peer than the dialled one answered. The connection was closed.
    #[error(transparent)]
    WrongPeer(Box<WrongPeer>),
    /// The remote refuses new connections at present.
    #[error("connection refused")]
    Refused,
    /// No packet arrived within the idle timeout: the peer has stopped or the path is interrupted.
    #[error("no packet arrived within the idle timeout")]
    IdleTimeout,
    /// The remote no longer knows the connection, because its process was restarted.
    #[error("reset by the peer")]
    Reset,
    /// The remote supports no version of QUIC that this endpoint supports.
    #[error("no version of QUIC in common")]
    Version,
    /// The TLS handshake failed: a certificate, key or protocol was refused, here or there.
    #[error("the TLS handshake failed, alert {alert}: {reason}")]
    Tls {
        /// The TLS alert (RFC 8446, section 6).
        alert: u8,
        /// What the side that refused says about it.
        reason: Box<str>,
    },
    /// One side broke the rules of QUIC, or ran into one of its limits.
    #[error("protocol error: {code}")]
    Protocol {
        /// What was broken (RFC 9000, section 20.1).
        code: TransportErrorCode,
    },
    /// The peer closed the connection.
    #[error("closed by the peer, code {code}")]
    Closed {
        /// The code the peer gave; libp2p gives 0.
        code: u64,
    },
    /// The connection was closed on this side.
    #[error("closed on this side")]
    ClosedHere,
    /// A socket operation failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The dial cannot begin.
    #[error(transparent)]
    Dial(#[from] quinn::ConnectError),
    /// The TLS configuration cannot protect QUIC's first packets.
    #[error(transparent)]
    Cipher(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// A hole can only be punched from the port of a listener, and there is none for the
    /// address.
    #[error("no listener to punch a hole from")]
    NoListener,
    /// A hole to this address is being punched already.
    #[error("a hole to {0} is being punched already")]
    PunchInProgress(SocketAddr),
    /// As many holes are being punched as are allowed at one time.
    #[error("too many holes are being punched")]
    TooManyPunches,
    /// Sockets are driven by a tokio runtime, and this thread is in none.
    #[error("not in a tokio runtime")]
    NoRuntime,
}

/// Another peer answered than the one that was dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected peer {expected}, found {found}")]
pub struct WrongPeer {
    /// The peer that was dialled.
    pub expected: PeerId,
    /// The peer that answered.
    pub found: PeerId,
}

impl From<WrongPeer> for Error {
    fn from(error: WrongPeer) -> Self {
        Self::WrongPeer(Box::new(error))
    }
}

impl From<ConnectionError> for Error {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::VersionMismatch => Self::Version,
            ConnectionError::TransportError(error) => Self::of_code(error.code, error.reason),
            ConnectionError::ConnectionClosed(close) => Self::of_code(
                close.error_code,
                String::from_utf8_lossy(&close.reason).into_owned(),
            ),
            ConnectionError::ApplicationClosed(close) => Self::Closed {
                code: close.error_code.into_inner(),
            },
            ConnectionError::Reset => Self::Reset,
            ConnectionError::TimedOut => Self::IdleTimeout,
            ConnectionError::LocallyClosed => Self::ClosedHere,
            ConnectionError::CidsExhausted => Self::Protocol {
                code: TransportErrorCode::CONNECTION_ID_LIMIT_ERROR,
            },
        }
    }
}

impl Error {
    fn of_code(code: TransportErrorCode, reason: String) -> Self {
        match (code, u64::from(code)) {
            (TransportErrorCode::CONNECTION_REFUSED, _) => Self::Refused,
            // A side that closes before the handshake is over must not say so in the
            // application's words (RFC 9000, section 10.2.3).
            (TransportErrorCode::NO_ERROR | TransportErrorCode::APPLICATION_ERROR, code) => {
                Self::Closed { code }
            }
            // RFC 9000, section 20.1: the last byte of a CRYPTO_ERROR is the TLS alert.
            (_, crypto @ 0x0100..=0x01ff) => Self::Tls {
                alert: crypto.to_le_bytes()[0],
                reason: reason.into(),
            },
            (code, _) => Self::Protocol { code },
        }
    }

    /// The kind of [`io::Error`] that a stream reports for this end of its connection.
    fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::Timeout { .. } | Self::IdleTimeout => io::ErrorKind::TimedOut,
            Self::Refused => io::ErrorKind::ConnectionRefused,
            Self::Reset => io::ErrorKind::ConnectionReset,
            Self::Closed { .. } => io::ErrorKind::ConnectionAborted,
            Self::ClosedHere => io::ErrorKind::NotConnected,
            Self::Io(error) => error.kind(),
            _ => io::ErrorKind::Other,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => error,
            other => Self::new(other.io_kind(), other),
        }
    }
}
