//! A provider of 1.0.0 and 1.1.0.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use calimero_network_primitives::{ContextId, resources::Resource};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, future};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

use super::{Requester, ServeError, Served, Source, to_end, totals::Tally};
use crate::{
    BlobId, CHUNK_HASH_BYTES, blob_id, chunk_count,
    clock::unix_seconds,
    id::CHUNK_BYTES,
    store::StoreError,
    swarm::{Reports, Watching},
    transfer::{Arrived, BoxDuplex, MessageReader, MessageWriter},
    v1::{Hello, ListPage, MAX_PAGE_HASHES, MAX_RETRY_MS, Refusal, Request, Response},
};

/// Requests of one stream that wait while one is answered: 64, each at most 1 KiB. Who sends
/// more waits.
const PIPELINE: usize = 64;

/// Small blobs and lists of one stream that are read at one time: 8, so at most 512 KiB of
/// content, within the one permit of 1 MiB that they take.
const GETS_AT_ONCE: usize = 8;

/// The answer where no permit is free. The time to wait is a guess.
const BUSY: Refusal = Refusal::Busy {
    retry_after_ms: 1000,
};

pub(super) async fn serve(
    requester: Arc<Requester>,
    stream: BoxDuplex,
    of_1_1: bool,
) -> Result<Served, ServeError> {
    let (reader, writer) = stream.split();
    let mut reader = MessageReader::<_, Request>::new(reader, Arrived::default());
    let writer = MessageWriter::new(writer, requester.config().tuning.stall_timeout);
    let after = requester.config().tuning.request_timeout;
    let hello = match timeout(after, reader.next()).await {
        Err(_) => return Err(ServeError::NoRequest { after }),
        Ok(first) => match first? {
            Some(Request::Hello(hello)) => hello,
            Some(_) => return Err(ServeError::Greeting),
            None => return Err(ServeError::Closed),
        },
    };
    let public_key = verify(&requester, &hello, unix_seconds())?;
    let (requests, queue) = mpsc::channel(PIPELINE);
    let unanswered = AtomicUsize::new(0);
    let idle_timeout = requester.config().tuning.idle_timeout;
    let reports = OnceLock::new();
    let listening = Listening {
        reader,
        of_1_1,
        requests,
        idle_timeout,
        unanswered: &unanswered,
        reports: &reports,
    };
    let answers = Answers {
        requester: &requester,
        access: Access {
            context_id: hello.context_id,
            public_key,
            of_1_1,
        },
        writer,
        queue,
        unanswered: &unanswered,
        open: None,
        tally: Tally::new(&requester.shared.totals),
        watching: None,
        reports: &reports,
    };
    let ((), served) = future::try_join(listening.run(), answers.run()).await?;
    Ok(served)
}

/// Reads the requests of one stream.
struct Listening<'a, R> {
    reader: MessageReader<R, Request>,
    of_1_1: bool,
    requests: mpsc::Sender<Request>,
    idle_timeout: Duration,
    unanswered: &'a AtomicUsize,
    /// Set when the requester watches a blob.
    reports: &'a OnceLock<Reports>,
}

impl<R: AsyncRead + Unpin> Listening<'_, R> {
    /// Queues requests until the requester ends its side, or asks for nothing for too long.
    async fn run(mut self) -> Result<(), ServeError> {
        loop {
            match timeout(self.idle_timeout, self.reader.next()).await {
                Ok(request) => match request? {
                    Some(Request::Hello(_)) => return Err(ServeError::Greeting),
                    Some(request) if request.is_of_1_1() && !self.of_1_1 => {
                        return Err(ServeError::Version);
                    }
                    // Not behind the requests: the time that it took counts.
                    Some(Request::Got { index }) => {
                        if let Some(reports) = self.reports.get() {
                            reports.on_verified(index);
                        }
                    }
                    Some(request) => {
                        self.unanswered.fetch_add(1, Ordering::Relaxed);
                        if self.requests.send(request).await.is_err() {
                            return Ok(());
                        }
                    }
                    None => return Ok(()),
                },
                Err(_) if self.unanswered.load(Ordering::Relaxed) > 0 => {}
                Err(_) => return Ok(()),
            }
        }
    }
}

/// The key of a requester that proves to hold it. `now_s` is in seconds since the Unix epoch.
fn verify(
    requester: &Requester,
    hello: &Hello,
    now_s: u64,
) -> Result<Option<[u8; 32]>, ServeError> {
    let Some(auth) = &hello.auth else {
        return Ok(None);
    };
    let (peer, local) = (&requester.peer, &requester.shared.local);
    auth.verify(&hello.context_id, peer, local, now_s)?;
    Ok(Some(auth.public_key))
}

/// Answers the requests of one stream, in their order.
struct Answers<'a, W> {
    requester: &'a Arc<Requester>,
    access: Access,
    writer: MessageWriter<W>,
    queue: mpsc::Receiver<Request>,
    unanswered: &'a AtomicUsize,
    /// The complete blob that was read last.
    open: Option<(BlobId, Source)>,
    /// The blob that the requester watches. It may have it.
    watching: Option<(BlobId, Watching)>,
    reports: &'a OnceLock<Reports>,
    tally: Tally,
}

/// What a requester said of itself at the beginning of its stream.
#[derive(Clone, Copy)]
struct Access {
    context_id: ContextId,
    public_key: Option<[u8; 32]>,
    of_1_1: bool,
}

impl Access {
    /// Opens a blob if the requester may have it: of 1.1.0, also one that is not complete.
    async fn open(
        self,
        requester: &Requester,
        blob_id: BlobId,
    ) -> Result<Option<Source>, StoreError> {
        let (context_id, public_key) = (self.context_id, self.public_key);
        match self.of_1_1 {
            true => requester.open_part(context_id, blob_id, public_key).await,
            false => {
                let opened = requester.open(context_id, blob_id, public_key);
                Ok(opened.await?.map(Source::Whole))
            }
        }
    }
}

/// A request for a list, or for a small blob.
struct Get {
    blob_id: BlobId,
    inline_max_bytes: u64,
    from: u64,
}

impl<W: AsyncWrite + AsyncRead + Unpin> Answers<'_, futures::io::WriteHalf<W>> {
    async fn run(mut self) -> Result<Served, ServeError> {
        let mut batch = Vec::with_capacity(PIPELINE);
        loop {
            if self.queue.is_empty() {
                self.tell_news().await?;
                self.writer.flush().await?;
            }
            let received = self.queue.recv_many(&mut batch, PIPELINE);
            let received = match &mut self.watching {
                None => received.await,
                Some((_, watching)) => tokio::select! {
                    received = received => received,
                    () = watching.changed() => continue,
                },
            };
            if received == 0 {
                break;
            }
            let mut gets = Vec::new();
            for request in batch.drain(..) {
                match request {
                    Request::Get {
                        blob_id,
                        inline_max_bytes,
                        from,
                    } => gets.push(Get {
                        blob_id,
                        inline_max_bytes,
                        from,
                    }),
                    Request::Read { blob_id, ranges } => {
                        self.get_all(std::mem::take(&mut gets)).await?;
                        self.read(blob_id, ranges).await?;
                        self.answered(1);
                    }
                    Request::Watch { blob_id, serves } => {
                        self.get_all(std::mem::take(&mut gets)).await?;
                        self.watch(blob_id, serves).await?;
                        self.answered(1);
                    }
                    // Handled where they are read.
                    Request::Hello(_) | Request::Got { .. } => {}
                }
            }
            self.get_all(gets).await?;
        }
        self.writer.close().await?;
        Ok(self.tally.served())
    }

    fn answered(&mut self, requests: usize) {
        self.tally.requests(requests);
        self.unanswered.fetch_sub(requests, Ordering::Relaxed);
    }

    async fn open(&self, blob_id: BlobId) -> Result<Option<Source>, StoreError> {
        self.access.open(self.requester, blob_id).await
    }

    /// Starts to report to the requester which chunks of a blob this node has.
    async fn watch(&mut self, blob_id: BlobId, serves: bool) -> Result<(), ServeError> {
        if self.watching.is_some() {
            return Err(ServeError::WatchedTwice);
        }
        let source = match self.open(blob_id).await {
            Ok(Some(source)) => source,
            Ok(None) => return self.refuse(Refusal::NotFound).await,
            Err(error) => return self.fail(blob_id, &error).await,
        };
        let whole = match &source {
            Source::Whole(reader) => Some(chunk_count(reader.size_bytes())),
            Source::Part(_) => None,
        };
        let shared = &self.requester.shared;
        let swarm = shared.swarms.enter(shared.store_number, blob_id);
        let watching = swarm.watch(self.requester.peer, self.access.context_id, serves, whole);
        let _ = self.reports.set(watching.reports());
        self.watching = Some((blob_id, watching));
        self.keep_open(blob_id, source);
        self.tell_news().await
    }

    async fn tell_news(&mut self) -> Result<(), ServeError> {
        if let Some((_, watching)) = &mut self.watching {
            while let Some(news) = watching.next_news() {
                self.writer.feed_response(&news).await?;
            }
        }
        Ok(())
    }

    /// Keeps a complete blob open for the next request. One that is not may be complete by then.
    fn keep_open(&mut self, blob_id: BlobId, source: Source) {
        self.open = match source {
            Source::Whole(_) => Some((blob_id, source)),
            Source::Part(_) => None,
        };
    }

    /// Answers several requests, reading ahead.
    async fn get_all(&mut self, gets: Vec<Get>) -> Result<(), ServeError> {
        if gets.is_empty() {
            return Ok(());
        }
        let mut gets = gets.into_iter();
        loop {
            let group: Vec<_> = gets.by_ref().take(GETS_AT_ONCE).collect();
            if group.is_empty() {
                return Ok(());
            }
            self.get_group(group).await?;
        }
    }

    /// Answers as many requests as one permit covers, within the deadline of one chunk.
    async fn get_group(&mut self, gets: Vec<Get>) -> Result<(), ServeError> {
        let requester = self.requester;
        let permit = requester.acquire(Resource::BlobBytes, CHUNK_BYTES).await?;
        let after = requester.config().tuning.chunk_timeout;
        let deadline = Instant::now() + after;
        let count = gets.len();
        let (access, owner) = (self.access, Arc::clone(requester));
        let answer = move |get: Get| {
            let requester = Arc::clone(&owner);
            async move {
                let (source, response) = match access.open(&requester, get.blob_id).await {
                    Ok(Some(source)) => {
                        let response = respond(&source, &get).await;
                        (Some((get.blob_id, source)), response)
                    }
                    Ok(None) => (None, Ok(Response::Refused(Refusal::NotFound))),
                    Err(error) => (None, Err(error)),
                };
                if let Err(error) = &response {
                    requester.on_store_error(get.blob_id, error).await;
                }
                (source, response)
            }
        };
        let answers = future::join_all(gets.into_iter().map(answer));
        // All of a group are in memory under one permit.
        let (answers, _permit) = to_end(async move { (answers.await, permit) }).await?;
        for (source, response) in answers {
            let response = response.unwrap_or(Response::Refused(Refusal::Failed));
            match &response {
                Response::Refused(_) => self.tally.refused(),
                Response::Inline { content } => self.tally.sent(content.len()),
                _ => {}
            }
            // The list of a blob is asked for before its chunks.
            if matches!(response, Response::List(_))
                && let Some((blob_id, source)) = source
            {
                self.keep_open(blob_id, source);
            }
            let sent = timeout_at(deadline, self.writer.feed_response(&response)).await;
            sent.map_err(|_| ServeError::Slow { after })??;
        }
        self.answered(count);
        Ok(())
    }

    /// Answers a request for chunks.
    async fn read(&mut self, blob_id: BlobId, ranges: Vec<Range<u64>>) -> Result<(), ServeError> {
        let Ok(_transfer) = self.requester.holder.take(Resource::BlobTransfers, 1) else {
            return self.refuse(BUSY).await;
        };
        let open = self.open.take().filter(|(open, _)| *open == blob_id);
        let is_watched = (self.watching.as_ref()).is_some_and(|(watched, _)| *watched == blob_id);
        let opened = match open {
            Some((_, source)) => Ok(Some(source)),
            // It was authorized when the requester began to watch it.
            None if is_watched => self.requester.source(blob_id).await,
            None => self.open(blob_id).await,
        };
        let source = match opened {
            Ok(Some(source)) => source,
            // What was here a moment ago may be again.
            Ok(None) if is_watched => return self.all_absent(ranges).await,
            Ok(None) => return self.refuse(Refusal::NotFound).await,
            Err(error) => return self.fail(blob_id, &error).await,
        };
        let chunks = match &source {
            Source::Whole(reader) => chunk_count(reader.size_bytes()),
            Source::Part(part) => part.list.len() as u64,
        };
        if ranges.iter().any(|range| range.end > chunks) {
            return self.refuse(Refusal::NotFound).await;
        }
        self.send(blob_id, source, ranges, chunks, is_watched).await
    }

    async fn all_absent(&mut self, ranges: Vec<Range<u64>>) -> Result<(), ServeError> {
        for index in ranges.into_iter().flatten() {
            self.absent(index, Duration::ZERO).await?;
        }
        Ok(())
    }

    async fn absent(&mut self, index: u64, retry_after: Duration) -> Result<(), ServeError> {
        let retry_after_ms = u64::try_from(retry_after.as_millis()).unwrap_or(MAX_RETRY_MS);
        let absent = Response::Absent {
            index,
            retry_after_ms: retry_after_ms.min(MAX_RETRY_MS),
        };
        Ok(self.writer.feed_response(&absent).await?)
    }

    /// Sends chunks, each while the next one is read.
    async fn send(
        &mut self,
        blob_id: BlobId,
        source: Source,
        ranges: Vec<Range<u64>>,
        chunks: u64,
        is_watched: bool,
    ) -> Result<(), ServeError> {
        let requester = self.requester;
        let list = match &source {
            Source::Whole(reader) => requester.list(&**reader).await,
            Source::Part(part) => Ok(part.list.clone()),
        };
        let list = match list {
            Ok(list) => list,
            Err(ServeError::Store(error)) => return self.fail(blob_id, &error).await,
            Err(ServeError::Busy { .. }) => return self.refuse(BUSY).await,
            Err(error) => return Err(error),
        };
        let indices: Vec<u64> = ranges.into_iter().flatten().collect();
        // Chunks that are not here are not given.
        let here = |index: &u64| match &source {
            Source::Whole(_) => true,
            Source::Part(part) => part.has(*index),
        };
        let put_off = match &mut self.watching {
            Some((_, watching)) if is_watched => {
                let here: Vec<_> = indices.iter().copied().filter(here).collect();
                let decided = watching.give(&here, chunks);
                here.into_iter().zip(decided).collect()
            }
            _ => HashMap::new(),
        };
        let put_off = |index| put_off.get(&index).copied().flatten();
        let mut indices = indices.into_iter();
        let source_ref = &source;
        // A chunk that is put off, or not here, is `None`.
        let read_next = async |index: Option<u64>| {
            let Some(index) = index else { return Ok(None) };
            if put_off(index).is_some() {
                return Ok(Some((index, None)));
            }
            let read = match source_ref {
                Source::Whole(reader) => {
                    let read = requester.read(&**reader, &list, index).await?;
                    Some(read.ok_or(StoreError::Stopped)?)
                }
                Source::Part(part) => requester.read_part(part, index).await?,
            };
            Ok::<_, ServeError>(Some((index, read)))
        };
        let mut next = read_next(indices.next()).await;
        loop {
            let (index, chunk) = match next {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(ServeError::Store(error)) => return self.fail(blob_id, &error).await,
                Err(ServeError::Busy { .. }) => return self.refuse(BUSY).await,
                Err(error) => return Err(error),
            };
            self.tell_news().await?;
            let Some((data, permit)) = chunk else {
                let retry_after = put_off(index).unwrap_or_default();
                self.absent(index, retry_after).await?;
                next = read_next(indices.next()).await;
                continue;
            };
            self.tally.sent(data.len());
            let writer = &mut self.writer;
            let sending = async move {
                let response = Response::Chunk { index, data };
                let sent = requester.in_time(writer.feed_response(&response)).await;
                drop((response, permit));
                sent
            };
            // A failure of the store is handled after the chunk that was read before it is sent.
            let reading = async { Ok(read_next(indices.next()).await) };
            ((), next) = future::try_join(sending, reading).await?;
        }
        self.keep_open(blob_id, source);
        Ok(())
    }

    async fn fail(&mut self, blob_id: BlobId, error: &StoreError) -> Result<(), ServeError> {
        self.requester.on_store_error(blob_id, error).await;
        self.refuse(Refusal::Failed).await
    }

    async fn refuse(&mut self, refusal: Refusal) -> Result<(), ServeError> {
        self.tally.refused();
        let refused = Response::Refused(refusal);
        Ok(self.writer.feed_response(&refused).await?)
    }
}

async fn respond(source: &Source, get: &Get) -> Result<Response, StoreError> {
    let (list, size_bytes) = match source {
        Source::Part(part) => (part.list.clone(), part.size_bytes),
        Source::Whole(reader) => {
            let size_bytes = reader.size_bytes();
            if size_bytes <= get.inline_max_bytes {
                let content = reader.read(0..size_bytes).await?;
                let id = reader.id();
                // At most 64 KiB, hashed in less time than handing it to another thread takes.
                if blob_id(&content) != id {
                    return Err(StoreError::Damaged { id });
                }
                return Ok(Response::Inline { content });
            }
            (reader.list().await?, size_bytes)
        }
    };
    let hashes = list.len();
    let Some(from) = usize::try_from(get.from)
        .ok()
        .filter(|from| *from <= hashes)
    else {
        return Ok(Response::Refused(Refusal::NotFound));
    };
    let end = from.saturating_add(MAX_PAGE_HASHES).min(hashes);
    let digests = (list.digests()).slice(from * CHUNK_HASH_BYTES..end * CHUNK_HASH_BYTES);
    Ok(Response::List(ListPage {
        size_bytes,
        from: get.from,
        digests,
    }))
}
