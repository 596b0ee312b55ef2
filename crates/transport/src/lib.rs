//! Transports.

mod buffer;
mod crypto;
mod error;
mod link;
mod metered;
pub mod quic;
mod read_ahead;
mod tls;
mod transport;
mod upgrade;
mod yamux;

pub use self::{
    crypto::{CertificateError, CryptoError, warm_up},
    error::{AddressError, BuildError, Cause, classify},
    link::{Bytes, Cipher, Link, Links, MuxerKind, SecurityKind, Totals, TransportKind},
    transport::{Transport, build, build_memory},
};
