//! Where providers come from, and when the search for them is repeated.

use std::time::Duration;

use calimero_network_primitives::PeerId;
use futures::{StreamExt, stream::BoxStream, stream::SelectAll};
use tokio::sync::mpsc;

use crate::fetch::Providers;

/// Pause before the search is repeated for the first time, doubled with each: 1 s. A provider that
/// has just announced the blob is found soon.
const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// Longest such pause: 15 s, a quarter of the default of `search_timeout`.
const PAUSE_MAX: Duration = Duration::from_secs(15);

type Search = Box<dyn FnMut() -> BoxStream<'static, PeerId> + Send>;

/// The listed providers of a transfer and of those that joined it, and the searches.
pub(in crate::fetch) struct Sources {
    found: SelectAll<BoxStream<'static, PeerId>>,
    searches: Vec<Search>,
    joining: mpsc::Receiver<Providers>,
    pause: Duration,
    /// When the search is repeated. `None` while it runs.
    due: Option<Duration>,
}

impl Sources {
    pub(in crate::fetch) fn new(providers: Providers, joining: mpsc::Receiver<Providers>) -> Self {
        let mut sources = Self {
            found: SelectAll::new(),
            searches: Vec::new(),
            joining,
            pause: PAUSE_FIRST,
            due: None,
        };
        sources.add(providers);
        sources
    }

    fn add(&mut self, providers: Providers) {
        self.found.push(providers.listed);
        if let Some(mut search) = providers.search {
            self.found.push(search());
            self.searches.push(search);
        }
    }

    /// Whether providers may still come: a list has not ended, or there is a search.
    pub(super) fn may_yield(&self) -> bool {
        !self.found.is_empty() || self.searches()
    }

    /// Whether there is a search that can be repeated.
    pub(super) fn searches(&self) -> bool {
        !self.searches.is_empty()
    }

    /// The next provider. Pending where none is known at present.
    pub(super) async fn next(&mut self) -> PeerId {
        loop {
            tokio::select! {
                Some(peer) = self.found.next(), if !self.found.is_empty() => return peer,
                Some(joined) = self.joining.recv(), if !self.joining.is_closed() => self.add(joined),
                else => std::future::pending().await,
            }
        }
    }

    /// Repeats the search where it has ended and its pause is over. Called while bytes are missing.
    pub(super) fn repeat(&mut self, now: Duration) {
        if !self.found.is_empty() || !self.searches() {
            self.due = None;
            return;
        }
        let due = *self.due.get_or_insert(now + self.pause);
        if now >= due {
            self.due = None;
            self.pause = self.pause.saturating_mul(2).min(PAUSE_MAX);
            let searches = self.searches.iter_mut().map(|search| search());
            self.found.extend(searches);
        }
    }

    /// Searches again soon: a provider was lost.
    pub(super) fn hurry(&mut self) {
        self.pause = PAUSE_FIRST;
    }

    pub(super) fn next_timeout(&self) -> Option<Duration> {
        self.due
    }
}
