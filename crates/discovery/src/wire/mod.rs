//! Messages of the protocols that this crate speaks itself, as bytes. Pure: nothing here opens a
//! stream or reads a clock.
//!
//! One encoder and decoder of each protocol serves both of its sides. All of them are Protocol
//! Buffers (prost), each message after its length as an unsigned varint.
//!
//! Every decoder takes bytes that a remote peer chose: it never panics, and it allocates no more
//! than a small multiple of the bytes that arrived.

pub mod autonat;
pub mod autonat_v1;
#[cfg(feature = "libp2p")]
pub(crate) mod frame;
pub mod rendezvous;

/// The bytes are not a message of the protocol, or not one that is valid at this point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid message of {protocol}")]
pub struct Malformed {
    /// Name of the protocol whose message was expected.
    pub protocol: &'static str,
}
