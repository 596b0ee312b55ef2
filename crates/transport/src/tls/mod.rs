//! TLS over TCP: the upgrade `/tls/1.0.0` and its encrypted stream.

mod session;
mod stream;

pub(crate) use self::stream::{HandshakeError, TlsStream};

/// The protocol name of TLS in the negotiation.
pub(crate) const PROTOCOL: &str = "/tls/1.0.0";

#[cfg(test)]
mod tests;
