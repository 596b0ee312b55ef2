//! Many small blobs at once.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use calimero_network_primitives::{ContextId, PeerId};
use futures::{AsyncReadExt, StreamExt, future, stream};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep, timeout},
};

use super::{
    Destination, FetchError, FetchRequest, Fetcher, ProviderError,
    session::{Context, Meter, refused},
};
use crate::{
    BlobId, blob_id,
    plan::Patience,
    store::{BlobStore, Hold, StoreError, Verification, blocking::blocking},
    transfer::{Arrived, MessageReader, MessageWriter, Version},
    v1::{MAX_INLINE_BYTES, Refusal, Request, Response},
};

/// Requests on one stream that wait for an answer: 64, as many as our provider queues.
const PIPELINE: usize = 64;

/// Content that is verified together, in bytes: 1 MiB.
const GROUP_BYTES: usize = 1024 * 1024;

/// Groups that wait to be verified.
const GROUP_QUEUE: usize = 2;

/// Content that is made durable together, in bytes: 8 MiB.
const STORE_BYTES: usize = 8 * 1024 * 1024;

/// Blobs that need more than one request, or that no provider has sent together with others: as
/// many are fetched at the same time, 8.
const LEFT_AT_ONE_TIME: usize = 8;

/// Time that a provider owes a blob before an idle one is asked for it as well: 250 ms, several
/// round trips. A guess.
const OVERDUE: Duration = Duration::from_millis(250);

/// Wanted blobs that are looked at for one that a provider has not refused: 256.
const LOOKED_AT: usize = 256;

/// Time between looks of an idle provider for overdue blobs.
const RECHECK: Duration = Duration::from_millis(50);

/// What came of a batch.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct FetchedBatch {
    /// The blobs that are in the store now, verified and durable.
    pub fetched: Vec<BlobId>,
    /// The blobs that no provider gave, or that another download has open, each with the reason.
    pub failed: Vec<(BlobId, FetchError)>,
    /// Bytes of content that came over the network.
    pub received_bytes: u64,
    /// Keeps what was fetched from garbage collection until it is tagged.
    pub holds: Vec<Hold>,
}

type Group = Vec<(BlobId, Bytes)>;

/// A blob that was asked for and has not arrived.
struct Asked {
    since: Instant,
    askers: u8,
}

/// The blobs that are missing.
#[derive(Default)]
struct Queue {
    /// Blobs that are not asked for.
    wanted: VecDeque<BlobId>,
    asked: HashMap<BlobId, Asked>,
    /// Blobs that need more than one request, or that all providers have refused.
    singly: Vec<BlobId>,
    /// The providers that are asked, or about to be.
    active: HashSet<PeerId>,
    /// Who refused a blob that is missing.
    refused: HashMap<BlobId, HashSet<PeerId>>,
}

impl Queue {
    fn is_settled(&self) -> bool {
        self.wanted.is_empty() && self.asked.is_empty()
    }

    /// Takes a blob to ask `peer` for. An idle provider is also given what another one owes for
    /// long.
    fn take(&mut self, peer: &PeerId, idle: bool, now: Instant) -> Option<BlobId> {
        let refused = &self.refused;
        let gives = |id: &BlobId| !refused.get(id).is_some_and(|peers| peers.contains(peer));
        // What another provider refused is at the end.
        if let Some(at) = self.wanted.iter().take(LOOKED_AT).position(&gives) {
            let id = self.wanted.remove(at)?;
            let (since, askers) = (now, 1);
            self.asked.insert(id, Asked { since, askers });
            return Some(id);
        }
        let overdue = |(id, asked): &(&BlobId, &mut Asked)| {
            asked.askers == 1 && now - asked.since >= OVERDUE && gives(id)
        };
        let mut owed = self.asked.iter_mut().filter(overdue);
        let (id, asked) = owed.next().filter(|_| idle)?;
        asked.askers += 1;
        Some(*id)
    }

    /// Takes a blob back from a provider. It is asked of the others.
    fn give_back(&mut self, id: BlobId) {
        if let Some(asked) = self.asked.get_mut(&id) {
            asked.askers -= 1;
            if asked.askers == 0 {
                self.asked.remove(&id);
                self.want(id);
            }
        }
    }

    /// Queues a blob, unless all providers that are left have refused it.
    fn want(&mut self, id: BlobId) {
        match self.is_refused_by_all(&id) {
            true => self.singly.push(id),
            false => self.wanted.push_back(id),
        }
    }

    fn is_refused_by_all(&self, id: &BlobId) -> bool {
        let refused = self.refused.get(id);
        refused.is_some_and(|peers| self.active.is_subset(peers))
    }

    /// Notes that a provider does not have a blob.
    fn on_refused(&mut self, id: BlobId, peer: PeerId) {
        self.refused.entry(id).or_default().insert(peer);
        self.give_back(id);
    }

    /// Notes that a provider is not asked any more. What it owes goes to the others.
    fn on_end(&mut self, peer: &PeerId, owed: impl IntoIterator<Item = BlobId>) {
        self.active.remove(peer);
        owed.into_iter().for_each(|id| self.give_back(id));
        let wanted = std::mem::take(&mut self.wanted);
        wanted.into_iter().for_each(|id| self.want(id));
    }
}

struct Batch {
    context: Context,
    queue: Mutex<Queue>,
    /// Notified when nothing is missing any more.
    settled: Notify,
}

pub(super) async fn run(
    fetcher: Fetcher,
    context_id: ContextId,
    blobs: Vec<BlobId>,
    providers: Vec<PeerId>,
    store: Arc<dyn BlobStore>,
) -> Result<FetchedBatch, FetchError> {
    let mut queue = Queue::default();
    let mut batch = FetchedBatch::default();
    for id in blobs {
        // Before it is verified: it could be collected in between.
        let hold = store.hold(id);
        match store.verify(id, true).await? {
            Verification::Intact { .. } => {
                batch.fetched.push(id);
                batch.holds.push(hold);
            }
            _ => queue.wanted.push_back(id),
        }
    }
    let left = small(&fetcher, context_id, queue, &providers, &store, &mut batch).await?;
    let fetch_one = |blob_id| {
        let request = FetchRequest::new(context_id, blob_id);
        let to = Destination::Store(Arc::clone(&store));
        let fetch = fetcher.fetch(request, stream::iter(providers.clone()), to);
        async move { (blob_id, fetch.await) }
    };
    let mut fetches = stream::iter(left)
        .map(fetch_one)
        .buffer_unordered(LEFT_AT_ONE_TIME);
    while let Some((blob_id, fetched)) = fetches.next().await {
        match fetched {
            Ok(fetched) => {
                batch.received_bytes += fetched.received_bytes;
                batch.fetched.push(blob_id);
                batch.holds.extend(fetched.hold);
            }
            Err(error @ FetchError::NoProviders { .. }) => batch.failed.push((blob_id, error)),
            Err(error) if error.is_busy() => batch.failed.push((blob_id, error)),
            Err(error) => return Err(error),
        }
    }
    drop(fetches);
    Ok(batch)
}

/// Fetches what can be had in one request each. Yields the rest.
async fn small(
    fetcher: &Fetcher,
    context_id: ContextId,
    queue: Queue,
    providers: &[PeerId],
    store: &Arc<dyn BlobStore>,
    into: &mut FetchedBatch,
) -> Result<Vec<BlobId>, FetchError> {
    // The sessions here are not those of a single blob, and report no events.
    let mut queue = queue;
    queue.active = providers.iter().copied().collect();
    let (events, _) = mpsc::channel(1);
    let request = FetchRequest::new(context_id, blob_id(&[]));
    let batch = Batch {
        context: fetcher.shared(request, events),
        queue: Mutex::new(queue),
        settled: Notify::new(),
    };
    let (groups, received) = mpsc::channel(GROUP_QUEUE);
    let asking = providers
        .iter()
        .map(|peer| batch.ask(*peer, groups.clone()));
    let asking = future::join_all(asking);
    drop(groups);
    let keeping = batch.keep(received, store, into);
    match future::select(pin!(asking), pin!(keeping)).await {
        future::Either::Left((_, keeping)) => keeping.await?,
        // No provider is asked for what cannot be stored.
        future::Either::Right((kept, asking)) => {
            kept?;
            asking.await;
        }
    }
    let mut queue = batch.queue();
    let mut left = std::mem::take(&mut queue.singly);
    left.extend(queue.wanted.drain(..));
    Ok(left)
}

impl Batch {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing is missing any more.
    async fn settled(&self) {
        loop {
            // Before the look, so that no notification is missed.
            let settled = self.settled.notified();
            if self.queue().is_settled() {
                return;
            }
            settled.await;
        }
    }

    /// Asks one provider for as much as it gives. What it did not answer goes back.
    async fn ask(&self, peer: PeerId, groups: mpsc::Sender<Group>) {
        let mut asked = VecDeque::with_capacity(PIPELINE);
        if let Err(error) = self.talk(peer, &groups, &mut asked).await {
            tracing::debug!(%peer, %error, "a provider of a batch failed");
        }
        let mut queue = self.queue();
        queue.on_end(&peer, asked);
        if queue.is_settled() {
            self.settled.notify_waiters();
        }
    }

    async fn talk(
        &self,
        peer: PeerId,
        groups: &mpsc::Sender<Group>,
        asked: &mut VecDeque<BlobId>,
    ) -> Result<(), ProviderError> {
        let meter = Meter::new(Arrived::default());
        let opened = tokio::select! {
            opened = self.context.open(peer, false, &meter) => opened?,
            () = self.settled() => return Ok(()),
        };
        // A provider of v0 sends one blob a stream, which is too slow here, and relays carry one
        // or two small blobs.
        if opened.version == Version::V0 || self.context.must_wait(&opened, true) {
            return Ok(());
        }
        let after = self.context.config.tuning.stall_timeout;
        let (reader, writer) = opened.stream.split();
        let mut reader = MessageReader::<_, Response>::new(reader, Arrived::default());
        let mut writer = MessageWriter::new(writer, after);
        let hello = Request::Hello(self.context.hello(None, peer).await?);
        writer
            .feed_request(&hello)
            .map_err(ProviderError::Message)?;
        let mut group = Group::new();
        let mut group_bytes = 0;
        let begun = Instant::now();
        let (mut patience, mut paused_until) = (Patience::default(), begun);
        let ended = loop {
            // Asked in halves of the pipeline, so that requests travel together.
            if asked.len() <= PIPELINE / 2 && Instant::now() >= paused_until {
                // What arrived before a failure counts, so none ends this early.
                let taken = self.take(&peer, asked, &mut writer, Instant::now());
                let flushed = match taken {
                    Ok(()) => writer.flush().await.map_err(ProviderError::from),
                    Err(error) => Err(error),
                };
                if let Err(error) = flushed {
                    break Err(error);
                }
            }
            if asked.is_empty() {
                // Others still owe something.
                tokio::select! {
                    () = self.settled() => break Ok(()),
                    () = sleep(RECHECK) => continue,
                }
            }
            let response = tokio::select! {
                response = timeout(after, reader.next()) => response,
                () = self.settled() => break Ok(()),
            };
            let response = match response {
                Ok(Ok(Some(response))) => response,
                Ok(Ok(None)) => break Err(ProviderError::Closed { received_bytes: 0 }),
                Ok(Err(error)) => break Err(error.into()),
                Err(_) => break Err(ProviderError::Stalled { after }),
            };
            let Some(id) = asked.pop_front() else {
                break Err(ProviderError::Unexpected);
            };
            let first = match &response {
                Response::Refused(busy @ Refusal::Busy { retry_after_ms }) => {
                    self.queue().give_back(id);
                    let after = Duration::from_millis(*retry_after_ms);
                    if !patience.on_busy(after, begun.elapsed()) {
                        break Err(refused(*busy));
                    }
                    let tuning = &self.context.config.tuning;
                    let pause = patience.pause(tuning.rest_initial, tuning.rest_max, 0);
                    paused_until = Instant::now() + pause;
                    false
                }
                Response::Refused(_) => {
                    self.queue().on_refused(id, peer);
                    false
                }
                _ => self.queue().asked.remove(&id).is_some(),
            };
            match response {
                Response::Inline { content } if first => {
                    // The store verifies it later. Only what is known to be right shows that the
                    // provider has blobs, and ends a time for which it was busy.
                    if patience.lacks_proof() && blob_id(&content) == id {
                        patience.on_verified(false, begun.elapsed());
                    }
                    group_bytes += content.len();
                    group.push((id, content));
                }
                // Another provider was faster, or is asked.
                _ if !first => {}
                // Too large for one request.
                Response::List(_) => self.queue().singly.push(id),
                _ => {
                    self.queue().singly.push(id);
                    break Err(ProviderError::Unexpected);
                }
            }
            if self.queue().is_settled() {
                self.settled.notify_waiters();
            }
            if group_bytes >= GROUP_BYTES {
                group_bytes = 0;
                if groups.send(std::mem::take(&mut group)).await.is_err() {
                    break Ok(());
                }
            }
        };
        // What arrived before a failure counts.
        let _ = groups.send(group).await;
        // The provider waits for it. Whether it arrives does not matter here.
        let _ = writer.close().await;
        ended
    }

    fn take<W: futures::AsyncWrite + Unpin>(
        &self,
        peer: &PeerId,
        asked: &mut VecDeque<BlobId>,
        writer: &mut MessageWriter<W>,
        now: Instant,
    ) -> Result<(), ProviderError> {
        let idle = asked.is_empty();
        let mut queue = self.queue();
        while asked.len() < PIPELINE
            && let Some(blob_id) = queue.take(peer, idle, now)
        {
            asked.push_back(blob_id);
            let get = Request::Get {
                blob_id,
                inline_max_bytes: MAX_INLINE_BYTES as u64,
                from: 0,
            };
            writer.feed_request(&get).map_err(ProviderError::Message)?;
        }
        Ok(())
    }

    /// Verifies and stores what arrives.
    async fn keep(
        &self,
        mut groups: mpsc::Receiver<Group>,
        store: &Arc<dyn BlobStore>,
        into: &mut FetchedBatch,
    ) -> Result<(), StoreError> {
        let mut pending = Group::new();
        let mut pending_bytes = 0;
        while let Some(group) = groups.recv().await {
            let (good, bad) = blocking(move || {
                let parts: (Group, Group) = group
                    .into_iter()
                    .partition(|(id, content)| blob_id(content) == *id);
                Ok(parts)
            })
            .await?;
            self.queue()
                .singly
                .extend(bad.into_iter().map(|(id, _)| id));
            pending_bytes += good.iter().map(|(_, content)| content.len()).sum::<usize>();
            pending.extend(good);
            if pending_bytes >= STORE_BYTES {
                pending_bytes = 0;
                put(store, std::mem::take(&mut pending), into).await?;
            }
        }
        put(store, pending, into).await
    }
}

async fn put(
    store: &Arc<dyn BlobStore>,
    group: Group,
    into: &mut FetchedBatch,
) -> Result<(), StoreError> {
    if group.is_empty() {
        return Ok(());
    }
    into.received_bytes += group.iter().map(|(_, c)| c.len() as u64).sum::<u64>();
    let blobs = group.into_iter().map(|(id, content)| (Some(id), content));
    let stored = store.put_batch(blobs.collect()).await?;
    into.fetched.extend(stored.ids);
    into.holds.push(stored.hold);
    Ok(())
}
