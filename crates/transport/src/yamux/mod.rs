//! Yamux: streams over one secured connection, implemented by the `yamux`
//! crate.

mod end;
mod frames;
mod io;
mod muxer;
mod unread;

pub(crate) use self::{
    muxer::{Muxer, MuxerError},
    unread::Connections,
};

/// The protocol name of Yamux in the negotiation.
pub(crate) const PROTOCOL: &str = "/yamux/1.0.0";

#[cfg(test)]
mod tests;
