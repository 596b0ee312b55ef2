//! A provider of 1.0.0.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use calimero_network_primitives::{ContextId, resources::Resource};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, StreamExt, future, stream};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{Requester, ServeError, Served, totals::Tally};
use crate::{
    BlobId, CHUNK_HASH_BYTES, blob_id, chunk_count,
    clock::unix_seconds,
    id::CHUNK_BYTES,
    store::{BlobReader, StoreError},
    transfer::{BoxDuplex, MessageReader, MessageWriter},
    v1::{Hello, ListPage, MAX_PAGE_HASHES, Refusal, Request, Response},
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

pub(super) async fn serve(requester: Requester, stream: BoxDuplex) -> Result<Served, ServeError> {
    let (reader, writer) = stream.split();
    let mut reader = MessageReader::<_, Request>::new(reader, Arc::default());
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
    let public_key = verify(&requester, &hello)?;
    let (requests, queue) = mpsc::channel(PIPELINE);
    let unanswered = AtomicUsize::new(0);
    let idle_timeout = requester.config().tuning.idle_timeout;
    let listening = listen(reader, requests, idle_timeout, &unanswered);
    let answers = Answers {
        requester: &requester,
        context_id: hello.context_id,
        public_key,
        writer,
        queue,
        unanswered: &unanswered,
        open: None,
        tally: Tally::new(&requester.shared.totals),
    };
    let ((), served) = future::try_join(listening, answers.run()).await?;
    Ok(served)
}

/// Queues requests until the requester ends its side, or asks for nothing for too long.
async fn listen<R: AsyncRead + Unpin>(
    mut reader: MessageReader<R, Request>,
    requests: mpsc::Sender<Request>,
    idle_timeout: Duration,
    unanswered: &AtomicUsize,
) -> Result<(), ServeError> {
    loop {
        match timeout(idle_timeout, reader.next()).await {
            Ok(request) => match request? {
                Some(Request::Hello(_)) => return Err(ServeError::Greeting),
                Some(request) => {
                    unanswered.fetch_add(1, Ordering::Relaxed);
                    if requests.send(request).await.is_err() {
                        return Ok(());
                    }
                }
                None => return Ok(()),
            },
            Err(_) if unanswered.load(Ordering::Relaxed) > 0 => {}
            Err(_) => return Ok(()),
        }
    }
}

/// The key of a requester that proves to hold it.
fn verify(requester: &Requester, hello: &Hello) -> Result<Option<[u8; 32]>, ServeError> {
    let Some(auth) = &hello.auth else {
        return Ok(None);
    };
    let (peer, local) = (&requester.peer, &requester.shared.local);
    auth.verify(&hello.context_id, peer, local, unix_seconds())?;
    Ok(Some(auth.public_key))
}

/// Answers the requests of one stream, in their order.
struct Answers<'a, W> {
    requester: &'a Requester,
    context_id: ContextId,
    public_key: Option<[u8; 32]>,
    writer: MessageWriter<W>,
    queue: mpsc::Receiver<Request>,
    unanswered: &'a AtomicUsize,
    /// The blob that was read last.
    open: Option<Arc<dyn BlobReader>>,
    tally: Tally,
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
                self.writer.flush().await?;
            }
            if self.queue.recv_many(&mut batch, PIPELINE).await == 0 {
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
                    // Refused where it is read.
                    Request::Hello(_) => {}
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
        let _permit = requester.acquire(Resource::BlobBytes, CHUNK_BYTES).await?;
        let begun = Instant::now();
        let count = gets.len();
        let (context_id, public_key) = (self.context_id, self.public_key);
        let mut answers = stream::iter(gets)
            .map(|get| async move {
                let opened = requester.open(context_id, get.blob_id, public_key).await;
                let (reader, response) = match opened {
                    Ok(Some(reader)) => (Some(Arc::clone(&reader)), respond(&*reader, &get).await),
                    Ok(None) => (None, Ok(Response::Refused(Refusal::NotFound))),
                    Err(error) => (None, Err(error)),
                };
                if let Err(error) = &response {
                    requester.on_store_error(get.blob_id, error).await;
                }
                (reader, response)
            })
            .buffered(GETS_AT_ONCE);
        while let Some((reader, response)) = answers.next().await {
            let response = response.unwrap_or(Response::Refused(Refusal::Failed));
            match &response {
                Response::Refused(_) => self.tally.refused(),
                Response::Inline { content } => self.tally.sent(content.len()),
                _ => {}
            }
            // The list of a blob is asked for before its chunks.
            if matches!(response, Response::List(_)) {
                self.open = reader;
            }
            let left = requester
                .config()
                .tuning
                .chunk_timeout
                .saturating_sub(begun.elapsed());
            let sent = timeout(left, self.writer.feed_response(&response)).await;
            let after = requester.config().tuning.chunk_timeout;
            sent.map_err(|_| ServeError::Slow { after })??;
        }
        drop(answers);
        self.answered(count);
        Ok(())
    }

    /// Answers a request for chunks.
    async fn read(&mut self, blob_id: BlobId, ranges: Vec<Range<u64>>) -> Result<(), ServeError> {
        let Ok(_transfer) = self.requester.holder.take(Resource::BlobTransfers, 1) else {
            return self.refuse(BUSY).await;
        };
        let open = self.open.take().filter(|open| open.id() == blob_id);
        let reader = match open {
            Some(reader) => Some(reader),
            None => {
                let opened = (self.requester)
                    .open(self.context_id, blob_id, self.public_key)
                    .await;
                match opened {
                    Ok(opened) => opened,
                    Err(error) => return self.fail(blob_id, &error).await,
                }
            }
        };
        let Some(reader) = reader else {
            return self.refuse(Refusal::NotFound).await;
        };
        let chunks = chunk_count(reader.size_bytes());
        if ranges.iter().any(|range| range.end > chunks) {
            return self.refuse(Refusal::NotFound).await;
        }
        self.send(&*reader, ranges).await?;
        self.open = Some(reader);
        Ok(())
    }

    /// Sends chunks, each while the next one is read.
    async fn send(
        &mut self,
        reader: &dyn BlobReader,
        ranges: Vec<Range<u64>>,
    ) -> Result<(), ServeError> {
        let requester = self.requester;
        let list = match reader.list().await {
            Ok(list) => list,
            Err(error) => return self.fail(reader.id(), &error).await,
        };
        let mut indices = ranges.into_iter().flatten();
        let read_next = async |index: Option<u64>| match index {
            Some(index) => {
                let read = requester.read(reader, &list, index).await?;
                let (data, permit) = read.ok_or(StoreError::Stopped)?;
                Ok(Some((index, data, permit)))
            }
            None => Ok::<_, ServeError>(None),
        };
        let mut next = read_next(indices.next()).await;
        loop {
            let (index, data, permit) = match next {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Ok(()),
                Err(ServeError::Store(error)) => return self.fail(reader.id(), &error).await,
                Err(ServeError::Busy { .. }) => return self.refuse(BUSY).await,
                Err(error) => return Err(error),
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

async fn respond(reader: &dyn BlobReader, get: &Get) -> Result<Response, StoreError> {
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
    let list = reader.list().await?;
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
