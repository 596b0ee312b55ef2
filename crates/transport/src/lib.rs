//! Transports.

mod error;
mod link;

pub use self::{
    error::{AddressError, BuildError, Cause, WrongPeer, classify},
    link::{Bytes, Cipher, Link, Links, MuxerKind, SecurityKind, Totals, TransportKind},
};
