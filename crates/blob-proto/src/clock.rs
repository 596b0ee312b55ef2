//! The one place where the wall clock is read: signatures say when they were made.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since the Unix epoch, zero before it.
#[expect(
    clippy::disallowed_methods,
    reason = "the shell's clock, handed to what is pure"
)]
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
