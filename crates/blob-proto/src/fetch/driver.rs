//! Carries out what the planners decide: opens sessions and stores what they receive.
//!
//! There are two planners: one for providers of v1, first over the list of chunk hashes as if it
//! were a single chunk, then over the chunks; and one for providers of v0, over the whole blob as
//! if it were a single chunk, one provider at a time and a second one where the first is very slow
//! or sends for long.
//! Providers of v0 are asked where no provider of v1 is left, or none has answered within a grace
//! period.

mod book;
mod decided;
mod exchange;
mod hope;
mod measured;
mod received;
mod sources;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use calimero_network_primitives::PeerId;
use futures::{
    StreamExt,
    future::{self, BoxFuture},
    stream::FuturesUnordered,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};

pub(super) use self::sources::Sources;
use self::{
    book::Book,
    decided::Handle,
    exchange::{Exchange, next_peer},
    hope::Hope,
    received::Written,
};
use super::{
    FetchError, Fetched, Progress, ProviderError, ProviderFailure, Target,
    session::{Context, End, Event, SessionId},
    shared::Downloading,
};
use crate::{
    id::CHUNK_BYTES,
    plan::{FLOOR_BYTES_PER_S, Input, Planner, PlannerConfig},
    store::{Hold, PartialBlob, StoreError, Stored, Verification},
    swarm::Fetching,
    transfer::{BoxDuplex, Opened},
};

/// Providers of one blob that are used: 64. A further one takes the place of one that has failed
/// and given nothing.
const MAX_PROVIDERS: usize = 64;

/// Longest burst of a provider of v0, in stall timeouts: 6, so a minute by default, in which a
/// chunk arrives at the default floor of 16 KiB/s.
const BURST_STALLS: u32 = 6;

/// Time between measurements while nothing else happens: a quarter of a second.
const SAMPLE: Duration = Duration::from_millis(250);

/// Time that providers of 1.0.0 have to answer before an older one is asked. Two seconds: a dial
/// and two round trips across the world.
const GRACE: Duration = Duration::from_secs(2);

/// Time that a provider of v0 sends before a second one is asked for the blob as well: 30 s. What
/// it sends is verified at its end alone, so one that never ends looks like one of a large blob. A
/// guess: most blobs are there by then, so that they are sent once.
const V0_COPY_AFTER: Duration = Duration::from_secs(30);

/// Rate of all providers of v1 together below which a provider of v0 is asked as well, in bytes a
/// second: 128 KiB, an eighth of what an untried provider is assumed to have.
const SLOW_BYTES_PER_S: u64 = 128 * 1024;

/// Time to close the streams to all providers at the end.
const FAREWELL: Duration = Duration::from_millis(500);

/// Events that wait for the driver. What they hold in memory is bounded by the permits for chunks.
pub(super) const EVENT_QUEUE: usize = 64;

/// How a transfer ended.
struct Finished {
    size_bytes: u64,
    hold: Hold,
}

impl From<Stored> for Finished {
    fn from(stored: Stored) -> Self {
        Self {
            size_bytes: stored.size_bytes,
            hold: stored.hold,
        }
    }
}

type Running = BoxFuture<'static, Option<(SessionId, End)>>;
type Writing = BoxFuture<'static, Written>;

pub(super) struct Driver {
    pub(super) context: Arc<Context>,
    target: Target,
    pub(super) progress: watch::Sender<Progress>,
    sources: Sources,
    events: mpsc::Receiver<Event>,
    planner: Planner,
    v0: Planner,
    book: Book,
    /// Providers of v0 that their planner does not know yet.
    waiting: Vec<PeerId>,
    /// Their streams, open already.
    opened: HashMap<PeerId, Opened<BoxDuplex>>,
    /// When the first of them was found.
    v0_since: Option<Duration>,
    partial: Option<Arc<dyn PartialBlob>>,
    /// Marks the partial download as open for other transfers. Dropped after it.
    downloading: Option<Downloading>,
    /// Offers what is verified to other peers.
    offered: Option<Fetching>,
    exchange: Exchange,
    /// When the chunks were first asked for.
    chunks_since: Option<Duration>,
    sessions: HashMap<PeerId, Handle>,
    running: FuturesUnordered<Running>,
    writing: FuturesUnordered<Writing>,
    /// When the transfer began, moved by the time that it has waited for its store.
    begun: Instant,
    /// Whether the transfer goes on.
    hope: Hope,
    /// Whether no provider can be asked at present.
    searching: bool,
    sessions_begun: u64,
    done: bool,
}

impl Driver {
    pub(super) fn new(
        context: Arc<Context>,
        events: mpsc::Receiver<Event>,
        target: Target,
        sources: Sources,
        progress: watch::Sender<Progress>,
    ) -> Self {
        let searches = sources.searches();
        let planner = Planner::new(planner_config(&context, searches), [0]);
        let v0 = Planner::new(serial_config(&context, searches), [0]);
        Self {
            book: Book::new(MAX_PROVIDERS),
            context,
            target,
            progress,
            sources,
            events,
            planner,
            v0,
            waiting: Vec::new(),
            opened: HashMap::new(),
            v0_since: None,
            partial: None,
            downloading: None,
            offered: None,
            exchange: Exchange::default(),
            chunks_since: None,
            sessions: HashMap::new(),
            running: FuturesUnordered::new(),
            writing: FuturesUnordered::new(),
            begun: Instant::now(),
            hope: Hope::new(FLOOR_BYTES_PER_S),
            searching: false,
            sessions_begun: 0,
            done: false,
        }
    }

    pub(super) async fn run(mut self) -> Result<Fetched, FetchError> {
        let id = self.context.request.blob_id;
        // Before it is verified: it could be collected in between.
        let hold = self.target.store.hold(id);
        // What does not verify is withdrawn and fetched again.
        let verifying = self.target.store.verify(id, true);
        if let Verification::Intact { size_bytes } = self.off_the_clock(verifying).await? {
            self.book.complete(size_bytes);
            self.publish();
            return Ok(self.book.fetched(id, size_bytes, hold));
        }
        drop(hold);
        let Finished { size_bytes, hold } = self.drive().await?;
        self.book.complete(size_bytes);
        self.sample();
        self.publish();
        Ok(self.book.fetched(id, size_bytes, hold))
    }

    async fn drive(&mut self) -> Result<Finished, FetchError> {
        loop {
            if self.done && self.writing.is_empty() {
                return self.finish().await.map(Finished::from);
            }
            self.call_v0();
            self.check_stuck()?;
            let due = self.begun + self.next_timeout();
            tokio::select! {
                peer = self.sources.next() => self.found(peer),
                peer = next_peer(&mut self.offered) => self.exchanged(peer),
                Some(event) = self.events.recv() => {
                    if let Some(stored) = self.received(event).await? {
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
            self.watch_again();
        }
    }

    /// Returns the time of the transfer since it began. It does not pass while the transfer waits
    /// for its store.
    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Waits for the store. The deadlines of providers and of the search do not run in that time:
    /// the driver then neither asks providers nor takes what they send.
    async fn off_the_clock<T>(&mut self, work: impl Future<Output = T>) -> T {
        let since = Instant::now();
        let done = work.await;
        self.begun += since.elapsed();
        done
    }

    fn next_timeout(&self) -> Duration {
        let timeouts = [
            self.planner.next_timeout(),
            self.v0.next_timeout(),
            self.sources.next_timeout(),
            self.exchange.next_timeout(),
        ];
        let sample = self.now() + SAMPLE;
        timeouts.into_iter().flatten().fold(sample, Duration::min)
    }

    fn found(&mut self, peer: PeerId) {
        let sessions = &self.sessions;
        if let Some(found) = self.book.found(peer, |peer| sessions.contains_key(peer)) {
            if let Some(before) = found.in_place_of {
                self.forget(before);
            }
            if found.is_early {
                self.hope.renew(self.now());
            }
            self.plan(Input::Found(peer));
            return;
        }
        // One that was given up may have come back.
        match self.book.is_v0(&peer) {
            Some(true) => self.plan_v0(Input::Found(peer)),
            Some(false) => self.plan(Input::Found(peer)),
            None => {}
        }
    }

    /// Forgets a provider whose place another one has taken.
    fn forget(&mut self, peer: PeerId) {
        self.waiting.retain(|waiting| *waiting != peer);
        self.opened.remove(&peer);
        self.exchange.forget(&peer);
        self.plan(Input::Forgotten(peer));
        self.plan_v0(Input::Forgotten(peer));
    }

    /// Asks providers of v0 where it is time to.
    fn call_v0(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let now = self.now();
        let late = self.partial.is_none()
            && self
                .v0_since
                .is_some_and(|since| now.saturating_sub(since) >= GRACE);
        // Providers of v1 that are slow, or send nothing any more, must not keep a transfer from a
        // provider of v0.
        let idle = self.hope.age(now) >= GRACE;
        let slow = (idle || self.planner.total_rate() < SLOW_BYTES_PER_S)
            && self
                .chunks_since
                .is_some_and(|since| now.saturating_sub(since) >= GRACE);
        if late || slow || (self.planner.is_alone() && self.writing.is_empty() && !self.done) {
            for peer in std::mem::take(&mut self.waiting) {
                self.plan_v0(Input::Found(peer));
            }
        }
    }

    /// Repeats the search while bytes are missing. Fails where no provider is left and none can
    /// come, or no content came for too long.
    fn check_stuck(&mut self) -> Result<(), FetchError> {
        let now = self.now();
        let busy = self.done || !self.writing.is_empty();
        if busy || self.is_hopeful() {
            self.hope.renew(now);
        }
        let busy = busy || !self.waiting.is_empty();
        if !self.done {
            self.sources.repeat(now);
        }
        let searching = !busy && self.sessions.is_empty();
        if std::mem::replace(&mut self.searching, searching) != searching {
            if searching {
                self.sources.hurry();
            }
            self.publish();
        }
        let late = self.hope.age(now) >= self.context.config.tuning.search_timeout;
        let hopeless = !busy && self.planner.is_alone() && self.v0.is_alone();
        if late || (hopeless && !self.sources.may_yield()) {
            self.name_idle();
            let id = self.context.request.blob_id;
            let failures = self.book.failures();
            if let Some(error) = no_space(&failures) {
                return Err(error);
            }
            return Err(FetchError::NoProviders { id, failures });
        }
        Ok(())
    }

    /// Notes the failure of providers that are connected and have sent too little for too long.
    fn name_idle(&mut self) {
        let open = self.sessions.values().filter(|session| session.was_open);
        let open = open.filter(|session| !self.book.has_failed(&session.id.peer));
        let idle: Vec<_> = open.map(|session| session.id).collect();
        for id in idle {
            let floor_bytes_per_s = FLOOR_BYTES_PER_S;
            self.book
                .failed(id, ProviderError::TooSlow { floor_bytes_per_s });
        }
    }

    /// Returns `true` if a provider is expected to send something, or has said when it will. An
    /// attempt to reach one is no reason, nor is one that has failed and given nothing since.
    fn is_hopeful(&mut self) -> bool {
        let mut hopeful = false;
        for (peer, session) in &mut self.sessions {
            if session.meter.reaching.load(Ordering::Relaxed) {
                continue;
            }
            let was_open = std::mem::replace(&mut session.was_open, true);
            // The planner ends a session of v0 that is silent or slow. One of v1 may be open and
            // owe nothing, so from then on its content counts.
            let counts = session.asks.is_none() || (!was_open && self.planner.is_useful(peer));
            hopeful |= counts && !self.book.has_failed(peer);
        }
        // The number of their attempts is bounded where there is no search.
        let rest = self.planner.is_resting() || self.v0.is_resting();
        hopeful || (rest && !self.sources.searches()) || self.planner.is_promised(self.now())
    }

    /// Makes the blob visible, and closes the streams to providers at the same time.
    async fn finish(&mut self) -> Result<Stored, FetchError> {
        let Some(partial) = self.partial.take() else {
            return Err(StoreError::Stopped.into());
        };
        for session in self.sessions.values_mut() {
            session.asks = None;
        }
        self.events.close();
        let running = &mut self.running;
        let farewell = timeout(FAREWELL, async { while running.next().await.is_some() {} });
        let (stored, _) = future::join(partial.finish(), farewell).await;
        // From here on it is served from the store.
        drop(self.offered.take());
        Ok(stored?)
    }
}

/// Returns the error of the store where nothing but its space has failed.
fn no_space(failures: &[ProviderFailure]) -> Option<FetchError> {
    let sources = failures.iter().map(|failure| match &failure.reason {
        ProviderError::NoSpace { source } => Some(source),
        _ => None,
    });
    let sources: Option<Vec<_>> = sources.collect();
    let first = sources?.into_iter().next()?;
    Some(FetchError::Store(Arc::clone(first)))
}

fn planner_config(context: &Context, searches: bool) -> PlannerConfig {
    let config = PlannerConfig {
        seed: rand_seed(context),
        ..PlannerConfig::from(&*context.config)
    };
    match searches {
        false => config,
        // The search timeout decides when to give up. Providers that were away are asked again.
        true => PlannerConfig {
            max_failures: u32::MAX,
            max_unreachable: u32::MAX,
            ..config
        },
    }
}

/// For providers of v0: one at a time, and a further one after a while. They may send each chunk of
/// 1 MiB in one burst.
fn serial_config(context: &Context, searches: bool) -> PlannerConfig {
    let config = planner_config(context, searches);
    let chunk = Duration::from_secs(CHUNK_BYTES / config.floor_bytes_per_s.max(1));
    let burst = chunk.min(config.stall_timeout * BURST_STALLS);
    PlannerConfig {
        window_chunks: 1,
        provider_window_chunks: 1,
        burst,
        copy_after: Some(V0_COPY_AFTER),
        floor_span: config.floor_span.max(2 * burst),
        ..config
    }
}

/// Differs from requester to requester, which is all that is wanted of it.
fn rand_seed(context: &Context) -> u64 {
    let peer = context.identity.peer.to_bytes();
    peer.iter().fold(CHUNK_BYTES, |seed, byte| {
        seed.wrapping_mul(31).wrapping_add(u64::from(*byte))
    })
}
