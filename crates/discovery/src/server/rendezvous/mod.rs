//! A rendezvous server: peers register in namespaces and discover the other members.
//!
//! It serves `/rendezvous/1.0.0` ([specification]) from a registry of its own. The server of
//! libp2p-rendezvous 0.18 returns the same page to every client, scans all registrations for each
//! request, and keeps for each cookie a list of everything that it returned.
//!
//! Differences from that server, within the specification:
//!
//! - The first answer is a random page. [`registry`] describes the pages and the cookies.
//! - A peer at its limit of registrations may renew each of them.
//! - A discovery in all namespaces is refused (`E_NOT_AUTHORIZED`): a peer that does not know the
//!   name of an overlay does not learn its members.
//! - A request above the rate limit waits its turn.
//!
//! [specification]: https://github.com/libp2p/specs/tree/master/rendezvous

#[cfg(feature = "libp2p")]
mod behaviour;
mod cookie;
#[cfg(feature = "libp2p")]
mod handler;
#[cfg(feature = "libp2p")]
mod record;
pub mod registry;
#[cfg(feature = "libp2p")]
mod throttle;

#[cfg(feature = "libp2p")]
pub use self::{
    behaviour::{Behaviour, Event},
    handler::{Failure, Handler, NotServed, Pending, Permit, Server},
    record::verify,
};

/// The messages of the protocol as bytes.
pub use crate::wire::rendezvous as wire;
