//! Liveness: a ping on every connection, and the close of connections that no longer answer.
//!
//! A link can fail without a packet: a NAT loses its mapping, a cable is pulled, a machine freezes.
//! TCP keeps such a connection open while nothing is sent. [`Watchdog`] counts the pings that fail
//! in a row and decides when to close; the behaviour sends the pings and closes.
//!
//! The protocol is [`/ipfs/ping/1.0.0`] of the libp2p specifications, by an implementation of this
//! crate. libp2p-ping 0.48 is not used for three reasons, of which `tests/liveness/stock.rs` shows
//! the first two:
//!
//! - It takes a stream that ends during the negotiation for a peer without ping, and never pings
//!   that connection again.
//! - It answers the newest stream of a peer only; the specification asks for two.
//! - It does not report the first failure in a row, so three in a row cannot be counted.
//!
//! [`/ipfs/ping/1.0.0`]: https://github.com/libp2p/specs/blob/master/ping/ping.md

#[cfg(feature = "libp2p")]
mod behaviour;
#[cfg(feature = "libp2p")]
mod handler;
#[cfg(feature = "libp2p")]
mod protocol;
#[cfg(feature = "libp2p")]
mod traffic;
#[cfg(feature = "libp2p")]
mod upgrade;
mod watchdog;

pub use self::watchdog::{Input, Verdict, Watchdog};
#[cfg(feature = "libp2p")]
pub use self::{
    behaviour::{Behaviour, Event, Outcome},
    handler::MAX_INBOUND_STREAMS,
    traffic::Carried,
    upgrade::FailureKind,
};
