//! What carries bytes between peers.

#[cfg_attr(
    not(test),
    expect(
        dead_code,
        unused_imports,
        reason = "the transports that use it follow"
    )
)]
mod crypto;
mod error;

pub use self::{
    crypto::{CertificateError, CryptoError},
    error::BuildError,
};
