//! What sessions bring, and how they end.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Duration, Instant, sleep},
};

use super::{Driver, Finished, planner_config, serial_config};
use crate::{
    ChunkList,
    fetch::{
        FetchError, InStore, ProviderError,
        session::{Ask, End, Event, EventKind, SessionId},
    },
    plan::{Failure, Input, Planner, WINDOW_CHUNKS},
    store::{BlobStore, Hold, PartialBlob, StoreError},
};

/// Time that another download of the same blob into the same store is waited for: 10 s. One that
/// was just given up still writes its last chunks.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Time between tries of that.
const BUSY_RETRY: Duration = Duration::from_millis(50);

/// A chunk that was handed to the store, and what became of it.
pub(super) struct Written {
    from: SessionId,
    index: u64,
    len: u64,
    result: Result<(), StoreError>,
}

impl Driver {
    pub(super) async fn received(&mut self, event: Event) -> Result<Option<Finished>, FetchError> {
        let Event { from, kind } = event;
        match kind {
            EventKind::List { list, size_bytes } if self.partial.is_none() => {
                // The list is proven, and with it the size but for the last chunk.
                self.check_size(list.size_bounds().0)?;
                self.book.size(size_bytes);
                let finished = self.begin_chunks(list, size_bytes).await?;
                self.plan(Input::Proven(from.peer));
                return Ok(finished);
            }
            EventKind::Inline(content) if self.partial.is_none() => {
                return self.keep_inline(from, content).await.map(Some);
            }
            EventKind::Size(size_bytes) if self.is_present(from) => self.book.size(size_bytes),
            EventKind::Chunk {
                index,
                data,
                permit,
            } => self.keep(from, index, data, Some(permit)),
            // A list of one chunk from another provider has already
            // arrived, and this is its content. It is at most 64 KiB
            // per provider, so it needs no permit.
            EventKind::Inline(content) if !content.is_empty() => self.keep(from, 0, content, None),
            EventKind::Has(chunks) if self.is_present(from) => self.on_has(from.peer, chunks),
            EventKind::Peers(peers) => self.reported(from.peer, peers),
            EventKind::Absent { index, retry_after } if self.is_present(from) => {
                let peer = from.peer;
                self.plan(Input::Absent {
                    peer,
                    index,
                    retry_after,
                });
            }
            EventKind::Has(_) | EventKind::Absent { .. } => {}
            EventKind::List { .. } => self.plan(Input::Proven(from.peer)),
            EventKind::Inline(_) | EventKind::Size(_) => {}
        }
        Ok(None)
    }

    /// Whether a session is the last one of its provider.
    fn is_present(&self, id: SessionId) -> bool {
        self.sessions
            .get(&id.peer)
            .is_some_and(|session| session.id == id)
    }

    async fn keep_inline(
        &mut self,
        from: SessionId,
        content: Bytes,
    ) -> Result<Finished, FetchError> {
        let id = self.context.request.blob_id;
        let size_bytes = content.len() as u64;
        self.check_size(size_bytes)?;
        let stored = self
            .target
            .store
            .put_batch(vec![(Some(id), content)])
            .await?;
        self.book.verified(from, size_bytes);
        let hold = stored.hold;
        Ok(Finished { size_bytes, hold })
    }

    fn check_size(&self, least_bytes: u64) -> Result<(), FetchError> {
        let (id, max_bytes) = (self.context.request.blob_id, self.context.request.max_bytes);
        match least_bytes > max_bytes {
            true => Err(FetchError::TooLarge {
                id,
                least_bytes,
                max_bytes,
            }),
            false => Ok(()),
        }
    }

    /// Turns from the list to the chunks, unless another transfer has stored the blob.
    async fn begin_chunks(
        &mut self,
        list: ChunkList,
        size_bytes: u64,
    ) -> Result<Option<Finished>, FetchError> {
        // What a provider of v0 has sent so far is not verified, so its session is dropped.
        let v0: Vec<_> = (self.sessions.iter())
            .filter(|(_, session)| session.asks.is_none())
            .map(|(peer, _)| *peer)
            .collect();
        for peer in v0 {
            self.sessions.remove(&peer);
        }
        self.waiting = self.book.v0();
        let (store, in_store) = (self.target.store.clone(), self.target.in_store.clone());
        let opening = open_partial(&*store, in_store.as_ref(), list);
        let partial = match self.off_the_clock(opening).await? {
            OpenedPartial::Partial(partial) => partial,
            OpenedPartial::Stored { size_bytes, hold } => {
                self.check_size(size_bytes)?;
                return Ok(Some(Finished { size_bytes, hold }));
            }
        };
        if let Some(store) = &in_store {
            let id = self.context.request.blob_id;
            self.downloading = Some(store.transfers.downloading(store.number, id));
        }
        let missing = self.book.begin_chunks(&*partial);
        let candidates = self.book.v1();
        self.planner = Planner::new(
            planner_config(&self.context, self.sources.searches()),
            missing,
        );
        self.v0 = Planner::new(serial_config(&self.context, self.sources.searches()), [0]);
        if let Some(store) = &in_store
            && store.swarms.serves(store.number)
        {
            let id = self.context.request.blob_id;
            let swarm = store.swarms.enter(store.number, id);
            self.offered = Some(swarm.fetch(&partial, size_bytes));
        }
        let _ = self.context.serves.set(self.offered.is_some());
        let sessions = self.sessions.values();
        for asks in sessions.filter_map(|session| session.asks.as_ref()) {
            let _ = asks.try_send(Ask::Watch);
        }
        self.partial = Some(partial);
        self.chunks_since = Some(self.now());
        self.plan_horizon();
        for peer in candidates {
            self.plan(Input::Found(peer));
        }
        self.plan(Input::Tick);
        Ok(None)
    }

    fn plan_horizon(&mut self) {
        if self.target.ordered {
            let ahead = WINDOW_CHUNKS as u64;
            self.plan(Input::Horizon(self.book.first_missing() + ahead));
        }
    }

    fn keep(
        &mut self,
        from: SessionId,
        index: u64,
        data: Bytes,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        let Some(partial) = &self.partial else {
            return;
        };
        if self.book.has(index) {
            let peer = from.peer;
            self.plan(Input::Verified { peer, index });
            return;
        }
        let len = data.len() as u64;
        // Beyond the end of any list where it does not fit.
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        let write = partial.write(at, data);
        let write = write.map(move |result| {
            drop(permit);
            Written {
                from,
                index,
                len,
                result,
            }
        });
        self.writing.push(write.boxed());
    }

    pub(super) fn written(&mut self, written: Written) -> Result<(), FetchError> {
        let Written {
            from,
            index,
            len,
            result,
        } = written;
        match result {
            Ok(()) => {
                let was_here = self.book.has(index);
                if self.book.chunk_verified(from, index, len) {
                    self.plan_horizon();
                }
                let peer = from.peer;
                if !was_here {
                    self.offer(peer, index);
                }
                self.plan(Input::Verified { peer, index });
                Ok(())
            }
            Err(StoreError::Chunk(error)) => {
                self.failed(from, ProviderError::Chunk(error));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn ended(
        &mut self,
        id: SessionId,
        end: End,
    ) -> Result<Option<Finished>, FetchError> {
        if !self.is_present(id) {
            return Ok(None);
        }
        let peer = id.peer;
        match end {
            End::Fine => {
                self.sessions.remove(&peer);
            }
            // It answered all that had reached it, and went while more was on its way.
            End::Closed { received_bytes } if self.planner.is_asked(&peer) => {
                self.failed(id, ProviderError::Closed { received_bytes });
            }
            End::Closed { .. } => {
                self.sessions.remove(&peer);
                let now = self.now();
                self.exchange.on_end(&peer, now);
            }
            End::V0(opened) => {
                self.sessions.remove(&peer);
                self.opened.insert(peer, opened);
                self.book.set_v0(peer);
                self.waiting.push(peer);
                let now = self.now();
                self.v0_since.get_or_insert(now);
                let failure = Failure::Refused;
                self.plan(Input::Failed { peer, failure });
            }
            End::Stored(stored) => {
                self.book.verified(id, stored.size_bytes);
                return Ok(Some(stored.into()));
            }
            End::Provider(error) => self.failed(id, error),
            End::Store(error) => return Err(error.into()),
        }
        Ok(None)
    }

    /// Whether a provider of v0 is asked for the blob.
    fn receives_v0(&self) -> bool {
        let mut sessions = self.sessions.values();
        sessions.any(|session| session.asks.is_none())
    }

    fn failed(&mut self, id: SessionId, error: ProviderError) {
        let peer = id.peer;
        self.sessions.remove(&peer);
        let failure = match &error {
            error if error.is_lie() => Failure::Lied,
            ProviderError::NotFound | ProviderError::Relayed { .. } => Failure::Refused,
            // Another provider of v0 may have filled the store, which is empty again when it ends.
            ProviderError::NoSpace { .. } if !self.receives_v0() => Failure::Refused,
            ProviderError::Open { .. } | ProviderError::OpenTimeout { .. } => Failure::Unreachable,
            ProviderError::Busy { retry_after } => Failure::Busy {
                retry_after: *retry_after,
            },
            _ => Failure::Broken,
        };
        self.book.failed(id, error);
        self.plan(Input::Failed { peer, failure });
        self.plan_v0(Input::Failed { peer, failure });
    }
}

/// A partial download that was opened, or the blob that was stored before it could be.
enum OpenedPartial {
    Partial(Arc<dyn PartialBlob>),
    Stored { size_bytes: u64, hold: Hold },
}

/// Opens the partial download. A cancelled transfer may still hold it for a moment, and another
/// transfer of this fetcher for as long as it runs.
async fn open_partial(
    store: &dyn BlobStore,
    in_store: Option<&InStore>,
    list: ChunkList,
) -> Result<OpenedPartial, StoreError> {
    let id = list.id();
    let hold = store.hold(id);
    let mut deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        // Another transfer may have stored the blob. There may be no space for a second copy.
        if let Some(size_bytes) = store.size(id).await? {
            return Ok(OpenedPartial::Stored { size_bytes, hold });
        }
        match store.partial(list.clone()).await {
            Err(error @ StoreError::Busy { .. }) => {
                let now = Instant::now();
                if in_store.is_some_and(|one| one.transfers.is_downloading(one.number, id)) {
                    deadline = now + BUSY_TIMEOUT;
                }
                if now >= deadline {
                    return Err(error);
                }
                sleep(BUSY_RETRY).await;
            }
            opened => return opened.map(OpenedPartial::Partial),
        }
    }
}
