//! Liveness: a ping on every connection, and the end of those that stop answering.
//!
//! A link can die without a word: a mapping lost in a NAT, a cable pulled, a machine frozen. TCP
//! keeps such a connection open for as long as nothing is sent. [`Watchdog`] counts the pings
//! that fail in a row and says when to close; the behaviour sends the pings and closes.
//!
//! The protocol is `/ipfs/ping/1.0.0` of the libp2p specifications.

#[cfg(feature = "libp2p")]
mod behaviour;
mod watchdog;

#[cfg(feature = "libp2p")]
pub use self::behaviour::{Behaviour, Event, FailureKind, Outcome};
pub use self::watchdog::{Input, Verdict, Watchdog};
