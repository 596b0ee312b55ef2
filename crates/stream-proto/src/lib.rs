#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod codec;
pub mod config;
mod decoder;
mod encoder;
mod error;
mod frame_stream;
mod halves;
mod read_budget;

#[cfg(feature = "libp2p")]
mod admission;
#[cfg(feature = "libp2p")]
mod behaviour;
#[cfg(feature = "libp2p")]
mod budget;
#[cfg(feature = "libp2p")]
mod control;
#[cfg(feature = "libp2p")]
mod handler;
#[cfg(feature = "libp2p")]
mod open_error;
#[cfg(feature = "libp2p")]
mod router;
#[cfg(feature = "libp2p")]
mod shared;
#[cfg(feature = "libp2p")]
mod substream;
#[cfg(feature = "libp2p")]
mod traffic;
#[cfg(feature = "libp2p")]
mod waiting;

#[cfg(feature = "libp2p")]
pub use self::{
    admission::RefuseReason,
    behaviour::{Behaviour, Event},
    budget::FrameBudget,
    control::{Control, Incoming},
    open_error::{AcceptError, OpenError},
    substream::{Inbound, Substream},
    traffic::Traffic,
};
pub use self::{
    codec::FrameCodec,
    config::FrameConfig,
    decoder::FrameDecoder,
    error::{FrameError, FramePart},
    frame_stream::{FrameHalves, FrameParts, FrameStream},
    halves::{FrameReceiver, FrameSender},
    read_budget::ReadBudget,
};
#[cfg(feature = "libp2p")]
pub use calimero_network_exchange::dial::{AddressError, DialCause};
#[cfg(feature = "libp2p")]
pub use libp2p_swarm::StreamProtocol;

/// Re-exports of the crates with types in the public API, in the versions that
/// this crate uses.
pub use {asynchronous_codec, bytes, futures};
/// Re-exports of the libp2p crates with types in the API of the behaviour.
#[cfg(feature = "libp2p")]
pub use {libp2p_core, libp2p_identity, libp2p_swarm};
