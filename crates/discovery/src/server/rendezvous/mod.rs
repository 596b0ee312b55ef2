//! A rendezvous server: peers register in namespaces and ask who else did.
//!
//! Speaks `/rendezvous/1.0.0` ([specification]) with its own registry in place of the stock
//! server's, which tells everybody the same page, scans everything it holds for every request,
//! and keeps for each question a list of all it ever told (libp2p-rendezvous 0.18).
//!
//! What differs from the stock server, within the specification:
//!
//! - The first answer is a random page; what it holds and how a cookie goes on is told at
//!   [`registry`].
//! - A peer at its bound of registrations may renew each of them.
//! - A question about all namespaces is refused (`E_NOT_AUTHORIZED`): who does not know the name
//!   of an overlay is not told who is in it.
//! - A request that comes too fast waits its turn.
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

/// The messages, as bytes.
pub use crate::wire::rendezvous as wire;
