//! Carries out what the planners decide: opens sessions, hands on what they bring, keeps it.
//!
//! Two planners: one for providers of 1.0.0, first over the list of chunk hashes as if it were a
//! single chunk, then over the chunks; and one for older providers, over the whole blob as if it
//! were a single chunk, one provider at a time. The older ones are asked where nobody else is
//! left, or nobody else has answered within a grace period.

mod book;

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use calimero_network_primitives::PeerId;
use futures::{
    FutureExt, StreamExt,
    future::{self, AbortHandle, Abortable, BoxFuture},
    stream::{BoxStream, Fuse, FuturesUnordered},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use self::book::Book;
use super::{
    FetchError, Fetched, Progress, ProviderError,
    older::{Keep, Older},
    session::{Ask, Context, End, Event, EventKind, Meter, Session},
};
use crate::{
    ChunkList,
    id::CHUNK_BYTES,
    plan::{Cause, Effect, Failure, Input, Planner, PlannerConfig},
    store::{BlobStore, PartialBlob, StoreError, Stored},
    transfer::{BoxDuplex, Opened},
};

/// Time between measurements while nothing else happens: a quarter of a second.
const SAMPLE: Duration = Duration::from_millis(250);

/// Time that providers of 1.0.0 have to answer before an older one is asked. Two seconds: a dial
/// and two round trips across the world.
const GRACE: Duration = Duration::from_secs(2);

/// Time that another download of the same blob into the same store is waited for: 10 s. One that
/// was just given up still writes its last chunks.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Time between tries of that.
const BUSY_RETRY: Duration = Duration::from_millis(50);

/// Time for providers to be told that nothing more is wanted.
const FAREWELL: Duration = Duration::from_millis(500);

/// Events that wait for the driver. What they hold in memory is bounded by the places for chunks.
pub(super) const EVENT_QUEUE: usize = 64;

type Running = BoxFuture<'static, Option<(PeerId, u64, End)>>;
type Writing = BoxFuture<'static, (PeerId, u64, u64, Result<(), StoreError>)>;

/// A session that runs.
struct Handle {
    generation: u64,
    meter: Meter,
    /// Bytes of the meter that the planner was told of.
    sampled: u64,
    /// Absent for older providers, who are asked once.
    asks: Option<mpsc::Sender<Ask>>,
    abort: AbortHandle,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

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
    generations: u64,
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
            book: Book::new(context.config.max_providers),
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
            generations: 0,
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
                    if let Some((peer, generation, end)) = ended
                        && let Some(stored) = self.ended(peer, generation, end)?
                    {
                        return Ok(stored);
                    }
                }
                Some((peer, index, len, written)) = self.writing.next() => {
                    self.written(peer, index, len, written)?;
                }
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

    // What the planners decide.

    fn tell(&mut self, input: Input) {
        for effect in self.planner.handle(input, self.now()) {
            match effect {
                Effect::Read { peer, chunks } => {
                    let ask = match self.partial {
                        None => Ask::List,
                        Some(_) => Ask::Chunks(chunks),
                    };
                    self.ask(peer, ask);
                }
                Effect::Leave { peer, cause } => self.leave(peer, cause),
                Effect::Done => self.done = self.partial.is_some(),
                Effect::NoProviders { .. } => {}
            }
        }
    }

    fn tell_older(&mut self, input: Input) {
        for effect in self.older.handle(input, self.now()) {
            match effect {
                Effect::Read { peer, .. } => self.ask_older(peer),
                Effect::Leave { peer, cause } => self.leave(peer, cause),
                Effect::Done | Effect::NoProviders { .. } => {}
            }
        }
    }

    fn leave(&mut self, peer: PeerId, cause: Cause) {
        let config = &self.context.config;
        match cause {
            Cause::Failed(_) => {}
            Cause::Stalled => self.book.failed(
                peer,
                ProviderError::Stalled {
                    after: config.stall_timeout,
                },
            ),
            Cause::TooSlow => self.book.failed(
                peer,
                ProviderError::TooSlow {
                    floor_bytes_per_s: config.floor_bytes_per_s,
                },
            ),
        }
        self.sessions.remove(&peer);
    }

    fn ask(&mut self, peer: PeerId, ask: Ask) {
        let ask = match self.sessions.get(&peer).and_then(|open| open.asks.as_ref()) {
            None => ask,
            Some(asks) => match asks.try_send(ask) {
                Ok(()) => return,
                // The session has ended, or hangs: another one takes its place.
                Err(error) => error.into_inner(),
            },
        };
        // Each request is for a chunk at least, so the window bounds those that wait.
        let (asks, receiver) = mpsc::channel(self.context.config.provider_window_chunks + 1);
        let _ = asks.try_send(ask);
        let meter = Meter::default();
        let generation = self.next_generation();
        let session = Session::new(
            Arc::clone(&self.context),
            peer,
            generation,
            meter.clone(),
            receiver,
        );
        self.start(peer, generation, meter, Some(asks), session.run().boxed());
    }

    fn ask_older(&mut self, peer: PeerId) {
        let meter = Meter::default();
        let generation = self.next_generation();
        let older = Older {
            context: Arc::clone(&self.context),
            peer,
            generation,
            meter: meter.clone(),
        };
        let opened = self.opened.remove(&peer);
        let (store, partial) = (Arc::clone(&self.store), self.partial.clone());
        let transfer = async move {
            let keep = match partial {
                Some(partial) => Keep::Missing(partial),
                None => match store.writer().await {
                    Ok(writer) => Keep::Whole(writer),
                    Err(error) => return End::Store(error),
                },
            };
            older.run(opened, keep).await
        };
        self.start(peer, generation, meter, None, transfer.boxed());
    }

    fn next_generation(&mut self) -> u64 {
        self.generations += 1;
        self.generations
    }

    fn start(
        &mut self,
        peer: PeerId,
        generation: u64,
        meter: Meter,
        asks: Option<mpsc::Sender<Ask>>,
        session: BoxFuture<'static, End>,
    ) {
        let (abort, registration) = AbortHandle::new_pair();
        let handle = Handle {
            generation,
            meter,
            sampled: 0,
            asks,
            abort,
        };
        self.sessions.insert(peer, handle);
        let session = Abortable::new(session, registration)
            .map(move |end| end.ok().map(|end| (peer, generation, end)));
        self.running.push(session.boxed());
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
        let late = now.saturating_sub(since) >= self.context.config.search_timeout;
        if late || self.providers.is_done() {
            let id = self.context.request.blob_id;
            let failures = self.book.failures();
            return Err(FetchError::NoProviders { id, failures });
        }
        Ok(())
    }

    // What happens.

    async fn happened(&mut self, event: Event) -> Result<Option<Stored>, FetchError> {
        let Event {
            peer,
            generation,
            kind,
        } = event;
        let present = self.generation(&peer) == Some(generation);
        match kind {
            EventKind::List { list, size_bytes } if self.partial.is_none() => {
                self.book.size(size_bytes);
                self.begin_chunks(list).await?;
            }
            EventKind::Inline(content) if self.partial.is_none() => {
                return self.keep_inline(peer, content).await.map(Some);
            }
            EventKind::Size(size_bytes) if present => self.book.size(size_bytes),
            EventKind::Chunk { index, data, place } => self.keep(peer, index, data, place),
            EventKind::Inline(_) => {
                let (index, len) = (0, 0);
                self.written(peer, index, len, Ok(()))?;
            }
            EventKind::List { .. } | EventKind::Size(_) => {}
        }
        Ok(None)
    }

    fn generation(&self, peer: &PeerId) -> Option<u64> {
        self.sessions.get(peer).map(|open| open.generation)
    }

    async fn keep_inline(&mut self, peer: PeerId, content: Bytes) -> Result<Stored, FetchError> {
        let id = self.context.request.blob_id;
        let size_bytes = content.len() as u64;
        let stored = self.store.put_batch(vec![(Some(id), content)]).await?;
        self.book.verified(peer, size_bytes);
        Ok(Stored {
            id,
            size_bytes,
            hold: stored.hold,
        })
    }

    /// Turns from the list to the chunks.
    async fn begin_chunks(&mut self, list: ChunkList) -> Result<(), FetchError> {
        // What an older provider has sent so far cannot be told from what it should have sent.
        let older: Vec<_> = (self.sessions.iter())
            .filter(|(_, session)| session.asks.is_none())
            .map(|(peer, _)| *peer)
            .collect();
        for peer in older {
            self.sessions.remove(&peer);
        }
        self.waiting = self.book.older();
        let partial = open_partial(&*self.store, list).await?;
        let missing = self.book.begin_chunks(&*partial);
        let candidates = self.book.newer();
        self.planner = Planner::new(planner_config(&self.context), missing);
        self.older = Planner::new(serial_config(&self.context), [0]);
        self.partial = Some(partial);
        self.tell_horizon();
        for peer in candidates {
            self.tell(Input::Found(peer));
        }
        self.tell(Input::Tick);
        Ok(())
    }

    fn tell_horizon(&mut self) {
        if self.ordered {
            let ahead = self.context.config.window_chunks as u64;
            self.tell(Input::Horizon(self.book.first_missing() + ahead));
        }
    }

    fn keep(
        &mut self,
        peer: PeerId,
        index: u64,
        data: Bytes,
        place: tokio::sync::OwnedSemaphorePermit,
    ) {
        let Some(partial) = &self.partial else {
            return;
        };
        if self.book.has(index) {
            self.tell(Input::Verified { peer, index });
            return;
        }
        let len = data.len() as u64;
        // Beyond the end of any list where it does not fit.
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        let write = partial.write(at, data);
        let write = write.map(move |written| {
            drop(place);
            (peer, index, len, written)
        });
        self.writing.push(write.boxed());
    }

    fn written(
        &mut self,
        peer: PeerId,
        index: u64,
        len: u64,
        written: Result<(), StoreError>,
    ) -> Result<(), FetchError> {
        match written {
            Ok(()) => {
                if self.book.chunk_verified(peer, index, len) {
                    self.tell_horizon();
                }
                self.tell(Input::Verified { peer, index });
                Ok(())
            }
            Err(StoreError::Chunk(error)) => {
                self.failed(peer, ProviderError::Chunk(error));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn ended(
        &mut self,
        peer: PeerId,
        generation: u64,
        end: End,
    ) -> Result<Option<Stored>, FetchError> {
        if self.generation(&peer) != Some(generation) {
            return Ok(None);
        }
        match end {
            End::Fine => {
                let session = self.sessions.remove(&peer);
                let newer = session.is_some_and(|session| session.asks.is_some());
                // It ended between requests, with one on its way to it.
                if newer && self.planner.is_asked(&peer) {
                    let failure = Failure::Broken;
                    self.tell(Input::Failed { peer, failure });
                }
            }
            End::Older(opened) => {
                self.sessions.remove(&peer);
                self.opened.insert(peer, opened);
                self.book.set_older(peer);
                self.waiting.push(peer);
                let now = self.now();
                self.older_since.get_or_insert(now);
                let failure = Failure::Refused;
                self.tell(Input::Failed { peer, failure });
            }
            End::Stored(stored) => {
                self.book.verified(peer, stored.size_bytes);
                return Ok(Some(stored));
            }
            End::Provider(error) => self.failed(peer, error),
            End::Store(error) => return Err(error.into()),
        }
        Ok(None)
    }

    fn failed(&mut self, peer: PeerId, error: ProviderError) {
        self.sessions.remove(&peer);
        let failure = match &error {
            error if error.is_lie() => Failure::Lied,
            ProviderError::NotFound | ProviderError::Relayed { .. } => Failure::Refused,
            ProviderError::Busy { retry_after } => Failure::Busy {
                retry_after: *retry_after,
            },
            _ => Failure::Broken,
        };
        self.book.failed(peer, error);
        self.tell(Input::Failed { peer, failure });
        self.tell_older(Input::Failed { peer, failure });
    }

    /// Tells the planners what has arrived since, and everybody else how far it is.
    fn sample(&mut self) {
        let mut came = Vec::new();
        for (peer, session) in &mut self.sessions {
            use std::sync::atomic::Ordering::Relaxed;
            let received = session.meter.received.load(Relaxed);
            let bytes = received - std::mem::replace(&mut session.sampled, received);
            let reaching = session.meter.reaching.load(Relaxed);
            if bytes > 0 || reaching {
                came.push((*peer, session.asks.is_none(), reaching, bytes));
            }
        }
        for (peer, older, reaching, bytes) in came {
            self.book.received(bytes);
            let input = match reaching {
                true => Input::Reaching(peer),
                false => Input::Received { peer, bytes },
            };
            match older {
                true => self.tell_older(input),
                false => self.tell(input),
            }
        }
        self.tell(Input::Tick);
        if !self.older.is_alone() {
            self.tell_older(Input::Tick);
        }
        let now = self.now();
        if self.book.is_due(now) {
            self.publish();
        }
    }

    fn publish(&mut self) {
        let now = self.now();
        let (planner, sessions) = (&self.planner, &self.sessions);
        let progress = self.book.progress(now, |peer| {
            (planner.rate(peer), sessions.contains_key(peer))
        });
        self.progress.send_replace(progress);
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

/// Opens the partial download, which whoever was just given up may still hold.
async fn open_partial(
    store: &dyn BlobStore,
    list: ChunkList,
) -> Result<Arc<dyn PartialBlob>, StoreError> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        match store.partial(list.clone()).await {
            Err(StoreError::Busy { .. }) if Instant::now() < deadline => sleep(BUSY_RETRY).await,
            opened => return opened,
        }
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
