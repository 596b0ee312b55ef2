#![doc = include_str!("../README.md")]

pub mod codec;
mod error;
mod message;

pub use self::{
    codec::Message,
    error::{DecodeError, EncodeError, Part},
    message::{
        NONCE_BYTES, PUBLIC_KEY_BYTES, Refusal, SpecializedNodeInviteRequest,
        SpecializedNodeInviteResponse,
    },
};
