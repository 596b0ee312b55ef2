//! Yamux: streams over one secured connection, by the `yamux` crate.

mod end;
mod frames;
mod io;
mod muxer;

pub(crate) use self::muxer::{Muxer, MuxerError};

/// The protocol name that both sides agree on.
pub(crate) const PROTOCOL: &str = "/yamux/1.0.0";

#[cfg(test)]
mod tests;
