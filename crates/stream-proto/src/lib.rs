#![doc = include_str!("../README.md")]

mod codec;
pub mod config;
mod decoder;
mod encoder;
mod error;
mod frame_stream;
mod halves;

pub use self::{
    codec::FrameCodec,
    config::FrameConfig,
    decoder::FrameDecoder,
    error::{FrameError, FramePart},
    frame_stream::{FrameHalves, FrameParts, FrameStream},
    halves::{FrameReceiver, FrameSender},
};
