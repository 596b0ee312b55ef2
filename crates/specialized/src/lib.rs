#![doc = include_str!("../README.md")]

#[cfg(feature = "libp2p")]
mod admission;
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
    config::SpecializedConfig,
    failure::{DialFailure, InboundFailure, OutboundFailure, RespondError, Scope},
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
