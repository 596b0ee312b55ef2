//! What carries bytes between peers.

mod crypto;
mod error;
pub mod quic;

pub use self::{
    crypto::{CertificateError, CryptoError},
    error::BuildError,
};
