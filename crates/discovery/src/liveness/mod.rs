//! Liveness: a ping on every connection, and the end of those that stop answering.
//!
//! A link can die without a word: a mapping lost in a NAT, a cable pulled, a machine frozen. TCP
//! keeps such a connection open for as long as nothing is sent. [`Watchdog`] counts the pings
//! that fail in a row and says when to close; the behaviour sends the pings and closes.
//!
//! The protocol is [`/ipfs/ping/1.0.0`] of the libp2p specifications.
//!
//! [`/ipfs/ping/1.0.0`]: https://github.com/libp2p/specs/blob/master/ping/ping.md

#[cfg(feature = "libp2p")]
mod behaviour;
#[cfg(feature = "libp2p")]
mod handler;
#[cfg(feature = "libp2p")]
mod protocol;
#[cfg(feature = "libp2p")]
mod upgrade;
mod watchdog;

pub use self::watchdog::{Input, Verdict, Watchdog};
#[cfg(feature = "libp2p")]
pub use self::{
    behaviour::{Behaviour, Event, Outcome},
    handler::{FailureKind, MAX_INBOUND_STREAMS},
};
