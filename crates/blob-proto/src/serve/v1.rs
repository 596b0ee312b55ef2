//! A provider of 1.0.0 and 1.1.0.

mod get;
mod listen;

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, OnceLock},
    time::Duration,
};

use calimero_network_primitives::{ContextId, resources::Resource};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, future};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

use self::{
    get::{Answer, Get, Opened, take_fitting},
    listen::{Listening, Unanswered},
};
use super::{Requester, ServeError, Served, Source, to_end, totals::Tally};
use crate::{
    BlobId,
    bandwidth::Turn,
    chunk_count,
    clock::unix_seconds,
    id::CHUNK_BYTES,
    store::StoreError,
    swarm::{Reports, Watching},
    transfer::{Arrived, BoxDuplex, MessageReader, MessageWriter},
    v1::{Hello, MAX_RETRY_MS, Refusal, Request, Response},
};

/// Requests of one stream that wait while one is answered: 64, each at most 1 KiB. Who sends
/// more waits.
const PIPELINE: usize = 64;

/// Small blobs and lists of one stream that are opened at one time: 8. As many of them are read as
/// the one permit of 1 MiB covers that they take.
const GETS_AT_ONCE: usize = 8;

/// Longest wait of a request for its turn at the upload limit before it is refused: 3 s. Requesters
/// of older versions measure the least rate, 16 KiB/s over 20 s, from their request on. With a
/// share of 32 KiB/s, or two thirds of it while blobs are sent as a whole, they get it in the other
/// 17 s.
const TURN_PATIENCE: Duration = Duration::from_secs(3);

/// Content and hashes that one stream is sent before each of its turns, in bytes: 4 KiB, the hashes
/// of a blob of 128 MiB. A requester with nothing but a list can ask other providers for the
/// chunks.
const FREE_BYTES: u64 = 4096;

/// Stands for the blobs of a requester of lists and small blobs: it waits for one turn for all of
/// them.
const SEVERAL: BlobId = BlobId::new([0; 32]);

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
    let unanswered = Unanswered::new();
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
        turn: None,
        free_bytes: FREE_BYTES,
        tally: Tally::new(&requester.shared.totals),
        watching: None,
        reports: &reports,
    };
    let ((), served) = future::try_join(listening.run(), answers.run()).await?;
    Ok(served)
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
    unanswered: &'a Unanswered,
    /// The complete blob that was read last.
    open: Option<(BlobId, Source)>,
    /// The turn of the requester at the upload limit.
    turn: Option<Turn>,
    /// Bytes that it is sent before its next turn.
    free_bytes: u64,
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

impl<W: AsyncWrite + AsyncRead + Unpin> Answers<'_, futures::io::WriteHalf<W>> {
    async fn run(mut self) -> Result<Served, ServeError> {
        let mut batch = Vec::with_capacity(PIPELINE);
        loop {
            if self.queue.is_empty() {
                self.tell_news().await?;
                self.writer.flush().await?;
                self.turn = None;
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
        self.unanswered.answered(requests);
    }

    /// Returns `true` if the requester has the next bytes in its turn, as far as is known now.
    fn may_have_turn(&self, bytes: u64) -> bool {
        match (&self.turn, self.requester.shared.bandwidth.chunk_turns()) {
            (_, None) => true,
            (turn, Some(_)) => turn.as_ref().is_some_and(|turn| turn.may_cover(bytes)),
        }
    }

    /// Returns `true` if bytes may be sent in the turn that the requester has.
    fn has_turn(&mut self, bytes: u64) -> bool {
        match (
            &mut self.turn,
            self.requester.shared.bandwidth.chunk_turns(),
        ) {
            (_, None) => true,
            (turn, Some(_)) => turn.as_mut().is_some_and(|turn| turn.covers(bytes)),
        }
    }

    /// Waits until bytes may be sent, at most for `patience`. Yields the refusal where the turn of
    /// the requester comes later.
    async fn take_turn(
        &mut self,
        blob_id: BlobId,
        bytes: u64,
        patience: Duration,
    ) -> Result<Option<Refusal>, ServeError> {
        if self.has_turn(bytes) {
            return Ok(None);
        }
        self.turn = None;
        let requester = self.requester;
        let Some(turns) = requester.shared.bandwidth.chunk_turns() else {
            return Ok(None);
        };
        // What was sent before must not wait here.
        self.writer.flush().await?;
        match requester.turn(turns, blob_id, patience).await {
            Ok(mut turn) => {
                turn.covers(bytes);
                self.turn = Some(turn);
                self.free_bytes = FREE_BYTES;
                Ok(None)
            }
            Err(after) => Ok(Some(Refusal::Busy {
                retry_after_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
            })),
        }
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

    /// Answers requests under one permit, as many of them at one time as it covers.
    async fn get_group(&mut self, gets: Vec<Get>) -> Result<(), ServeError> {
        let requester = self.requester;
        let mut permit = requester.acquire(Resource::BlobBytes, CHUNK_BYTES).await?;
        let (access, owner) = (self.access, Arc::clone(requester));
        let open = gets.into_iter().map(move |get| {
            let requester = Arc::clone(&owner);
            async move { Opened::new(get, access.open(&requester, get.blob_id).await) }
        });
        let opening = future::join_all(open);
        let mut opened;
        (opened, permit) = to_end(async move { (opening.await, permit) }).await?;
        while !opened.is_empty() {
            let answers = take_fitting(&mut opened).into_iter().map(|opened| {
                let requester = Arc::clone(requester);
                async move { opened.answer(&requester).await }
            });
            let answering = future::join_all(answers);
            let answers;
            (answers, permit) = to_end(async move { (answering.await, permit) }).await?;
            self.send_answers(answers).await?;
        }
        Ok(())
    }

    /// Sends answers that are in memory, within the deadline of one chunk.
    async fn send_answers(&mut self, answers: Vec<Answer>) -> Result<(), ServeError> {
        let count = answers.len();
        let bytes = answers.iter().map(Answer::content_bytes).sum();
        let refusal = match self.free_bytes.checked_sub(bytes) {
            Some(left) => {
                self.free_bytes = left;
                None
            }
            // Without patience: the permit of what was read is held.
            None => self.take_turn(SEVERAL, bytes, Duration::ZERO).await?,
        };
        let after = self.requester.config().tuning.chunk_timeout;
        let deadline = Instant::now() + after;
        for answer in answers {
            let response = match refusal {
                Some(refusal) if answer.content_bytes() > 0 => Response::Refused(refusal),
                _ => (answer.response).unwrap_or(Response::Refused(Refusal::Failed)),
            };
            match &response {
                Response::Refused(_) => self.tally.refused(),
                Response::Inline { content } => self.tally.sent(content.len()),
                _ => {}
            }
            // The list of a blob is asked for before its chunks.
            if matches!(response, Response::List(_))
                && let Some(source) = answer.source
            {
                self.keep_open(answer.blob_id, source);
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
        let put_off = |index: &u64| put_off.get(index).copied().flatten();
        let (source_ref, list) = (&source, &list);
        // A chunk that is not here is `None`.
        let read = async |index: u64| match source_ref {
            Source::Whole(reader) => {
                let read = requester.read(&**reader, list, index).await?;
                Ok::<_, ServeError>(Some(read.ok_or(StoreError::Stopped)?))
            }
            Source::Part(part) => requester.read_part(part, index).await,
        };
        let len = |index: u64| {
            let rest = source_ref.size_bytes();
            rest.saturating_sub(index.saturating_mul(CHUNK_BYTES))
                .min(CHUNK_BYTES)
        };
        let mut indices = indices.into_iter().peekable();
        let mut ahead = None;
        while let Some(index) = indices.next() {
            self.tell_news().await?;
            if let Some(retry_after) = put_off(&index) {
                self.absent(index, retry_after).await?;
                continue;
            }
            if let Some(busy) = self.take_turn(blob_id, len(index), TURN_PATIENCE).await? {
                return self.refuse(busy).await;
            }
            let chunk = match ahead.take() {
                Some(chunk) => chunk,
                None => read(index).await,
            };
            let (data, permit) = match chunk {
                Ok(Some(chunk)) => chunk,
                Ok(None) => {
                    self.absent(index, Duration::ZERO).await?;
                    continue;
                }
                Err(ServeError::Store(error)) => return self.fail(blob_id, &error).await,
                Err(ServeError::Busy { .. }) => return self.refuse(BUSY).await,
                Err(error) => return Err(error),
            };
            // Not where another requester has its turn in between.
            let next = indices
                .peek()
                .copied()
                .filter(|next| put_off(next).is_none());
            let next = next.filter(|next| self.may_have_turn(len(*next)));
            self.tally.sent(data.len());
            let writer = &mut self.writer;
            let sending = async move {
                let response = Response::Chunk { index, data };
                let sent = requester.in_time(writer.feed_response(&response)).await;
                drop((response, permit));
                sent
            };
            // A failure of the store is handled after the chunk that was read before it is sent.
            let reading = async {
                Ok(match next {
                    Some(next) => Some(read(next).await),
                    None => None,
                })
            };
            ((), ahead) = future::try_join(sending, reading).await?;
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
