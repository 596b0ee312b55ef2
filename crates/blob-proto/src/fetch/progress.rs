//! How far a transfer is.

use std::{pin::Pin, time::Duration};

use calimero_network_primitives::PeerId;
use futures::{Stream, stream};
use tokio::sync::watch;

/// How far a transfer is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Size of the blob in bytes, once a provider has said or proven it.
    pub size_bytes: Option<u64>,
    /// Bytes that are verified and kept, those of earlier tries among them.
    pub verified_bytes: u64,
    /// Bytes that came over the network, all protocols' overhead above the stream included.
    pub received_bytes: u64,
    /// Bytes a second that are verified, smoothed over about two seconds.
    pub rate_bytes_per_s: u64,
    /// Whether no provider can be asked at present. The transfer waits for the search, or for a
    /// provider that failed to come back.
    pub searching: bool,
    /// The providers that were asked, in order of their ids.
    pub providers: Vec<ProviderProgress>,
}

/// What comes from one provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderProgress {
    /// The peer id of the provider.
    pub peer: PeerId,
    /// Bytes of content that came from it and were verified.
    pub verified_bytes: u64,
    /// Bytes a second that it sends, once that is known.
    pub rate_bytes_per_s: Option<u64>,
    /// Whether a stream to it is open.
    pub connected: bool,
}

/// Progress as it changes. What a slow reader misses is superseded, never queued.
pub type ProgressStream = Pin<Box<dyn Stream<Item = Progress> + Send>>;

/// The present progress, then each change, until the transfer ends.
pub(super) fn stream_of(receiver: watch::Receiver<Progress>) -> ProgressStream {
    Box::pin(stream::unfold(
        (receiver, true),
        |(mut receiver, first)| async move {
            if !first {
                receiver.changed().await.ok()?;
            }
            let progress = receiver.borrow_and_update().clone();
            Some((progress, (receiver, false)))
        },
    ))
}

/// A rate that is smoothed over seconds.
#[derive(Debug, Default)]
pub(super) struct Rate {
    since: Duration,
    bytes: u64,
    bytes_per_s: u64,
}

impl Rate {
    /// Span over which one measurement goes.
    const SPAN: Duration = Duration::from_millis(500);

    /// The rate now that `bytes` are there in all.
    pub(super) fn at(&mut self, now: Duration, bytes: u64) -> u64 {
        let span = now.saturating_sub(self.since);
        if span >= Self::SPAN {
            let came = u128::from(bytes.saturating_sub(self.bytes));
            let rate = came * 1_000_000 / span.as_micros().max(1);
            let rate = u64::try_from(rate).unwrap_or(u64::MAX);
            self.bytes_per_s = match self.bytes_per_s {
                0 => rate,
                old => old - old / 4 + rate / 4,
            };
            (self.since, self.bytes) = (now, bytes);
        }
        self.bytes_per_s
    }
}
