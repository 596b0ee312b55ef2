#![cfg_attr(feature = "libp2p", doc = include_str!("../README.md"))]
//!
//! # Messages and bytes
//!
//! [`Message::encode`] and [`Message::decode`] convert complete messages;
//! [`codec::Receiver`] buffers a message that is still arriving. Both are
//! available without the feature `libp2p`.
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
//! // A smaller limit applies to encoding and decoding.
//! let (limit, claimed) = (64, wire.len() - 4);
//! let refused = DecodeError::TooLarge { limit, claimed };
//! assert_eq!(Request::decode(wire, limit), Err(refused));
//! # Ok::<_, calimero_network_specialized::EncodeError>(())
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "libp2p")]
mod behaviour;
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
mod outbound;

#[cfg(feature = "libp2p")]
pub use self::{
    behaviour::{Behaviour, Event},
    config::{SpecializedConfig, SpecializedTuning},
    failure::{InboundFailure, OutboundFailure, RespondError},
    handler::{InboundRequestId, ResponseChannel},
    outbound::OutboundRequestId,
};
pub use self::{
    codec::Message,
    error::{DecodeError, EncodeError, Part},
    message::{
        NONCE_BYTES, PUBLIC_KEY_BYTES, Refusal, SpecializedNodeInviteRequest,
        SpecializedNodeInviteResponse,
    },
};
/// The cause of a failed dial.
#[cfg(feature = "libp2p")]
pub use calimero_network_exchange::dial::{AddressError, DialCause};
/// The scope of a limit that refused a request.
#[cfg(feature = "libp2p")]
pub use calimero_network_primitives::resources::Scope;

/// Re-export of the crate that defines `Bytes`, in the version that this crate
/// uses.
pub use bytes;
/// Re-exports of the libp2p crates with types in the public API, in the
/// versions that this crate uses.
#[cfg(feature = "libp2p")]
pub use {libp2p_core, libp2p_identity, libp2p_swarm};
