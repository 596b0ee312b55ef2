//! The place of blobs in a build without the feature `blobs`: no input ever comes.

use std::{convert::Infallible, future::pending};

use super::Actor;

/// Replaces the announcements and queues of blobs.
pub(super) struct Blobs;

impl Blobs {
    /// Never returns.
    pub(super) async fn next(&mut self) -> Infallible {
        pending().await
    }
}

impl Actor {
    pub(super) fn on_blob_input(&mut self, input: Infallible) {
        match input {}
    }
}
