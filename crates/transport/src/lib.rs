//! Transports.

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
mod link;

pub use self::{
    crypto::{CertificateError, CryptoError},
    error::{AddressError, BuildError, Cause, classify},
    link::{Bytes, Cipher, Link, Links, MuxerKind, SecurityKind, Totals, TransportKind},
};
