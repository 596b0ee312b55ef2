//! Carries out what the planners decide: opens sessions, hands on what they bring, keeps it.
//!
//! Two planners: one for providers of 1.0.0, first over the list of chunk hashes as if it were a
//! single chunk, then over the chunks; and one for older providers, over the whole blob as if it
//! were a single chunk, one provider at a time. The older ones are asked where nobody else is
//! left, or nobody else has answered within a grace period.

mod book;
mod decided;
mod heard;
mod measured;

use std::{collections::HashMap, sync::Arc, time::Duration};

use calimero_network_primitives::PeerId;
use futures::{
    StreamExt,
    future::{self, BoxFuture},
    stream::{BoxStream, Fuse, FuturesUnordered},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};

use self::{book::Book, decided::Handle, heard::Written};
use super::{
    FetchError, Fetched, Progress,
    session::{Context, End, Event, SessionId},
};
use crate::{
    id::CHUNK_BYTES,
    plan::{Input, Planner, PlannerConfig},
    store::{BlobStore, PartialBlob, StoreError, Stored},
    transfer::{BoxDuplex, Opened},
};

/// Providers of one blob that are used: 64. Further ones are ignored.
const MAX_PROVIDERS: usize = 64;

/// Time between measurements while nothing else happens: a quarter of a second.
const SAMPLE: Duration = Duration::from_millis(250);

/// Time that providers of 1.0.0 have to answer before an older one is asked. Two seconds: a dial
/// and two round trips across the world.
const GRACE: Duration = Duration::from_secs(2);

/// Time for providers to be told that nothing more is wanted.
const FAREWELL: Duration = Duration::from_millis(500);

/// Events that wait for the driver. What they hold in memory is bounded by the places for chunks.
pub(super) const EVENT_QUEUE: usize = 64;

type Running = BoxFuture<'static, Option<(SessionId, End)>>;
type Writing = BoxFuture<'static, Written>;

pub(super) struct Driver {
    pub(super) context: Arc<Context>,
    pub(super) store: Arc<dyn BlobStore>,
    /// Whether chunks have to be kept in order.
    pub(super) ordered: bool,
    pub(super) progress: watch::Sender<Progress>,
    providers: Fuse<BoxStream<'static, PeerId>>,
    events: mpsc::Receiver<Event>,
    planner: Planner,
    older: Planner,
    book: Book,
    /// Older providers that are not told to their planner yet.
    waiting: Vec<PeerId>,
    /// Their streams, open already.
    opened: HashMap<PeerId, Opened<BoxDuplex>>,
    /// When the first of them was found.
    older_since: Option<Duration>,
    partial: Option<Arc<dyn PartialBlob>>,
    sessions: HashMap<PeerId, Handle>,
    running: FuturesUnordered<Running>,
    writing: FuturesUnordered<Writing>,
    begun: Instant,
    /// Since when there is nobody to ask.
    stuck_since: Option<Duration>,
    sessions_begun: u64,
    done: bool,
}

impl Driver {
    pub(super) fn new(
        context: Arc<Context>,
        events: mpsc::Receiver<Event>,
        store: Arc<dyn BlobStore>,
        ordered: bool,
        providers: BoxStream<'static, PeerId>,
        progress: watch::Sender<Progress>,
    ) -> Self {
        let planner = Planner::new(planner_config(&context), [0]);
        let older = Planner::new(serial_config(&context), [0]);
        Self {
            book: Book::new(MAX_PROVIDERS),
            context,
            store,
            ordered,
            progress,
            providers: providers.fuse(),
            events,
            planner,
            older,
            waiting: Vec::new(),
            opened: HashMap::new(),
            older_since: None,
            partial: None,
            sessions: HashMap::new(),
            running: FuturesUnordered::new(),
            writing: FuturesUnordered::new(),
            begun: Instant::now(),
            stuck_since: None,
            sessions_begun: 0,
            done: false,
        }
    }

    pub(super) async fn run(mut self) -> Result<Fetched, FetchError> {
        let id = self.context.request.blob_id;
        if let Some(size_bytes) = self.store.size(id).await? {
            self.book.complete(size_bytes);
            self.publish();
            return Ok(self.book.fetched(id, size_bytes, None));
        }
        let stored = self.drive().await?;
        self.book.complete(stored.size_bytes);
        self.sample();
        self.publish();
        Ok(self
            .book
            .fetched(stored.id, stored.size_bytes, Some(stored.hold)))
    }

    async fn drive(&mut self) -> Result<Stored, FetchError> {
        loop {
            if self.done && self.writing.is_empty() {
                return self.finish().await;
            }
            self.call_older();
            self.check_stuck()?;
            let due = self.begun + self.next_timeout();
            tokio::select! {
                Some(peer) = self.providers.next(), if !self.providers.is_done() => {
                    self.found(peer);
                }
                Some(event) = self.events.recv() => {
                    if let Some(stored) = self.happened(event).await? {
                        return Ok(stored);
                    }
                }
                Some(ended) = self.running.next() => {
                    if let Some((id, end)) = ended
                        && let Some(stored) = self.ended(id, end)?
                    {
                        return Ok(stored);
                    }
                }
                Some(written) = self.writing.next() => self.written(written)?,
                () = sleep_until(due) => {}
            }
            self.sample();
        }
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn next_timeout(&self) -> Duration {
        let timeouts = [self.planner.next_timeout(), self.older.next_timeout()];
        let sample = self.now() + SAMPLE;
        timeouts.into_iter().flatten().fold(sample, Duration::min)
    }

    fn found(&mut self, peer: PeerId) {
        if self.book.found(peer) {
            self.tell(Input::Found(peer));
        }
    }

    /// Turns to older providers where it is time to.
    fn call_older(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let now = self.now();
        let late = self.partial.is_none()
            && self
                .older_since
                .is_some_and(|since| now.saturating_sub(since) >= GRACE);
        if late || (self.planner.is_alone() && self.writing.is_empty() && !self.done) {
            for peer in std::mem::take(&mut self.waiting) {
                self.tell_older(Input::Found(peer));
            }
        }
    }

    /// Gives up where nobody is left to ask, and nobody comes.
    fn check_stuck(&mut self) -> Result<(), FetchError> {
        let hopeful = self.done
            || !self.writing.is_empty()
            || !self.waiting.is_empty()
            || !self.planner.is_alone()
            || !self.older.is_alone();
        if hopeful {
            self.stuck_since = None;
            return Ok(());
        }
        let now = self.now();
        let since = *self.stuck_since.get_or_insert(now);
        let late = now.saturating_sub(since) >= self.context.config.tuning.search_timeout;
        if late || self.providers.is_done() {
            let id = self.context.request.blob_id;
            let failures = self.book.failures();
            return Err(FetchError::NoProviders { id, failures });
        }
        Ok(())
    }

    /// Makes the blob visible, and lets providers go meanwhile.
    async fn finish(&mut self) -> Result<Stored, FetchError> {
        let Some(partial) = self.partial.take() else {
            return Err(FetchError::Store(StoreError::Stopped));
        };
        for session in self.sessions.values_mut() {
            session.asks = None;
        }
        self.events.close();
        let running = &mut self.running;
        let farewell = timeout(FAREWELL, async { while running.next().await.is_some() {} });
        let (stored, _) = future::join(partial.finish(), farewell).await;
        Ok(stored?)
    }
}

fn planner_config(context: &Context) -> PlannerConfig {
    PlannerConfig {
        seed: rand_seed(context),
        ..PlannerConfig::from(&*context.config)
    }
}

/// For older providers: one at a time.
fn serial_config(context: &Context) -> PlannerConfig {
    PlannerConfig {
        window_chunks: 1,
        provider_window_chunks: 1,
        ..planner_config(context)
    }
}

/// Differs from requester to requester, which is all that is wanted of it.
fn rand_seed(context: &Context) -> u64 {
    let peer = context.identity.peer.to_bytes();
    peer.iter().fold(CHUNK_BYTES, |seed, byte| {
        seed.wrapping_mul(31).wrapping_add(u64::from(*byte))
    })
}
