#![cfg_attr(feature = "libp2p", doc = include_str!("../README.md"))]
//!
//! # Messages and bytes
//!
//! [`Message::encode`] and [`Message::decode`] are the wire format, whole; [`codec::Receiver`]
//! gathers a message that is still arriving. Both are there without the feature `libp2p`.
//!
//! ```
//! use calimero_network_specialized::{
//!     DecodeError, Message, SpecializedNodeInviteRequest as Request, codec::MAX_MESSAGE_BYTES,
//! };
//!
//! let request = Request::TeeAttestation {
//!     nonce: [7; 32],
//!     quote_bytes: (&b"a quote"[..]).into(),
//!     public_key: [9; 32],
//! };
//! let wire = request.encode(MAX_MESSAGE_BYTES)?;
//! assert_eq!(Request::decode(wire.clone(), MAX_MESSAGE_BYTES), Ok(request));
//!
//! // A limit of one's own holds both ways.
//! let (limit, claimed) = (64, wire.len() - 4);
//! let refused = DecodeError::TooLarge { limit, claimed };
//! assert_eq!(Request::decode(wire, limit), Err(refused));
//! # Ok::<_, calimero_network_specialized::EncodeError>(())
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "libp2p")]
mod behaviour;
#[cfg(feature = "libp2p")]
mod book;
pub mod codec;
#[cfg(feature = "libp2p")]
pub mod config;
mod error;
#[cfg(feature = "libp2p")]
mod exchange;
#[cfg(feature = "libp2p")]
mod failure;
#[cfg(feature = "libp2p")]
mod handler;
mod message;

#[cfg(feature = "libp2p")]
pub use self::{
    behaviour::{Behaviour, Event},
    book::OutboundRequestId,
    config::{SpecializedConfig, SpecializedTuning},
    failure::{DialFailure, InboundFailure, OutboundFailure, RespondError},
    handler::{InboundRequestId, ResponseChannel},
};
pub use self::{
    codec::Message,
    error::{DecodeError, EncodeError, Part},
    message::{
        NONCE_BYTES, PUBLIC_KEY_BYTES, Refusal, SpecializedNodeInviteRequest,
        SpecializedNodeInviteResponse,
    },
};
/// The scope of a limit that refused a request.
#[cfg(feature = "libp2p")]
pub use calimero_network_primitives::resources::Scope;

/// The crate of `Bytes`, in the version that is used.
pub use bytes;
/// Crates whose types occur in what is public here, in the versions that are used.
#[cfg(feature = "libp2p")]
pub use {libp2p_core, libp2p_identity, libp2p_swarm};
