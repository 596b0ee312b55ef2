//! Reasons for which the remote peer or the network closed an established
//! connection.

use std::{error::Error, fmt, io};

use calimero_network_primitives::resources::Refused;

#[cfg(feature = "quic")]
use quinn::TransportErrorCode;

#[cfg(feature = "quic")]
use crate::quic;
use crate::{error::Chain, yamux::MuxerError};

/// Reason for which a connection ended that this node did not close.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseCause {
    /// The peer closed the connection regularly.
    Closed,
    /// The connection was reset: the process of the peer ended, its host has no
    /// state of the connection, or a relay closed the circuit.
    Reset,
    /// The host of the peer did not acknowledge data, or sent nothing, for the
    /// timeout of the transport.
    TimedOut,
    /// The host or the network of the peer is unreachable.
    Unreachable,
    /// One side reached a limit of the transport protocol.
    Limit(String),
    /// One side violated the transport protocol, or data was corrupted.
    Protocol(String),
    /// Another failure, with the text of all its causes.
    Other(String),
}

impl CloseCause {
    /// Classifies the error with which a connection of a swarm ended.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        if let Some(cause) = of_io(error) {
            return cause;
        }
        Self::Other(Chain(error).to_string())
    }

    /// Returns the name of the cause without details, for metrics and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::Limit(_) => "limit",
            Self::Protocol(_) => "protocol",
            Self::Other(_) => "other",
        }
    }
}

impl fmt::Display for CloseCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed by the peer"),
            Self::Reset => f.write_str("connection reset"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Unreachable => f.write_str("host unreachable"),
            Self::Limit(text) => write!(f, "limit reached: {text}"),
            Self::Protocol(text) => write!(f, "protocol error: {text}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

fn of_io(error: &io::Error) -> Option<CloseCause> {
    // A muxer wraps its error in an `io::Error` of kind `Other`, so the inner
    // error is checked first.
    if let Some(inner) = error.get_ref()
        && let Some(cause) = of_error(inner)
    {
        return Some(cause);
    }
    use io::ErrorKind as Kind;
    match error.kind() {
        // A write after the peer has closed fails with a broken pipe.
        Kind::UnexpectedEof | Kind::BrokenPipe | Kind::ConnectionAborted => {
            Some(CloseCause::Closed)
        }
        Kind::ConnectionReset => Some(CloseCause::Reset),
        Kind::TimedOut => Some(CloseCause::TimedOut),
        Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown => {
            Some(CloseCause::Unreachable)
        }
        Kind::InvalidData => Some(CloseCause::Protocol(Chain(error).to_string())),
        _ => None,
    }
}

fn of_error(error: &(dyn Error + 'static)) -> Option<CloseCause> {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return of_io(error);
    }
    #[cfg(feature = "quic")]
    if let Some(error) = error.downcast_ref::<quic::Error>() {
        return of_quic(error);
    }
    if let Some(error) = error.downcast_ref::<MuxerError>() {
        return of_yamux(error.cause());
    }
    if let Some(refused) = error.downcast_ref::<Refused>() {
        return Some(CloseCause::Limit(refused.to_string()));
    }
    error.source().and_then(of_error)
}

#[cfg(feature = "quic")]
fn of_quic(error: &quic::Error) -> Option<CloseCause> {
    Some(match error {
        quic::Error::Closed { code: 0 } => CloseCause::Closed,
        quic::Error::Reset => CloseCause::Reset,
        quic::Error::IdleTimeout | quic::Error::Timeout { .. } => CloseCause::TimedOut,
        quic::Error::Protocol {
            code: TransportErrorCode::STREAM_LIMIT_ERROR | TransportErrorCode::FLOW_CONTROL_ERROR,
        } => CloseCause::Limit(error.to_string()),
        quic::Error::Protocol { .. } | quic::Error::Tls { .. } | quic::Error::Closed { .. } => {
            CloseCause::Protocol(error.to_string())
        }
        quic::Error::Io(error) => return of_io(error),
        _ => return None,
    })
}

fn of_yamux(error: &yamux::ConnectionError) -> Option<CloseCause> {
    Some(match error {
        yamux::ConnectionError::Closed => CloseCause::Closed,
        yamux::ConnectionError::Io(error) => return of_io(error),
        yamux::ConnectionError::Decode(decode) => match decode.source().and_then(of_error) {
            Some(cause) => cause,
            None => CloseCause::Protocol(Chain(error).to_string()),
        },
        yamux::ConnectionError::TooManyStreams | yamux::ConnectionError::NoMoreStreamIds => {
            CloseCause::Limit(error.to_string())
        }
        _ => CloseCause::Protocol(Chain(error).to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn muxer(error: yamux::ConnectionError) -> io::Error {
        io::Error::other(MuxerError::from(error))
    }

    #[test]
    fn the_cause_is_found_inside_wrapping_errors() {
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        let cases = [
            (muxer(yamux::ConnectionError::Closed), "closed"),
            (muxer(reset().into()), "reset"),
            (muxer(io::Error::from_raw_os_error(110).into()), "timed_out"),
            (
                muxer(io::Error::from_raw_os_error(113).into()),
                "unreachable",
            ),
            (
                muxer(yamux::ConnectionError::InvalidWindowUpdate),
                "protocol",
            ),
            (muxer(yamux::ConnectionError::TooManyStreams), "limit"),
            (io::Error::other(io::Error::other(reset())), "reset"),
            (io::Error::other("anything"), "other"),
        ];
        for (error, name) in cases {
            assert_eq!(CloseCause::of(&error).name(), name, "{error:?}");
        }
    }

    #[cfg(feature = "quic")]
    #[test]
    fn the_cause_is_found_in_errors_of_quic() {
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        let cases = [
            (quic::Error::Closed { code: 0 }, "closed"),
            (quic::Error::Closed { code: 7 }, "protocol"),
            (quic::Error::IdleTimeout, "timed_out"),
            (quic::Error::Reset, "reset"),
            (quic::Error::Io(reset), "reset"),
        ];
        for (error, name) in cases {
            let error = io::Error::other(error);
            assert_eq!(CloseCause::of(&error).name(), name, "{error:?}");
        }
    }

    #[test]
    fn a_cause_without_a_name_keeps_its_text() {
        let inner = io::Error::other("unclassified failure");
        let cause = CloseCause::of(&io::Error::other(inner));
        assert_eq!(cause.to_string(), "unclassified failure");
    }
}
