//! QUIC version 1 as libp2p speaks it.
//!
//! The wire is that of `libp2p-quic`: `/udp/<port>/quic-v1` addresses, the application protocol
//! `libp2p`, libp2p's TLS certificates in both directions, bidirectional streams and nothing
//! else. What differs is what that crate keeps to itself: the cipher order, the windows, the
//! socket's buffers and the packet size on loopback, and errors that say what happened.

mod addr;
mod config;
mod congestion;
mod connecting;
mod connection;
mod error;
mod hole_punch;
mod listener;
mod socket;
mod stream;
mod stream_limit;
#[cfg(test)]
mod tests;
mod transport;

pub(crate) use self::connection::Traffic;
pub use self::{
    connecting::Connecting,
    connection::Connection,
    error::{Error, WrongPeer},
    stream::Stream,
    transport::Transport,
};
