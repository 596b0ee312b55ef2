#![doc = include_str!("../README.md")]

pub mod dial;
pub mod inbound;
pub mod outbound;

use std::{future::Future, pin::pin, time::Duration};

use futures::future::{Either, select};
use futures_timer::Delay;

/// Crates whose types occur in the public API, in the versions that are used.
pub use {futures, libp2p_core, libp2p_swarm};

/// Returns the result of `work`, or `None` if it takes longer than `limit`. `work` is dropped then.
pub async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    match select(pin!(work), Delay::new(limit)).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(((), _)) => None,
    }
}
