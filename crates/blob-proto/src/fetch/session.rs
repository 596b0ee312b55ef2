//! One stream to one provider: opened, asked, listened to.

use std::{
    collections::VecDeque,
    ops::{ControlFlow, Range},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use calimero_network_primitives::{ContextId, PeerId, config::BlobFetchConfig};
use futures::AsyncReadExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep, timeout},
};

use super::{FetchRequest, ProviderError};
use crate::{
    BlobId, ChunkList, blob_id,
    clock::unix_seconds,
    guard::{CALLBACK_TIMEOUT, guarded},
    store::{StoreError, Stored},
    transfer::{
        Arrived, BoxDuplex, DynOpener, Identity, MessageReader, MessageWriter, Opened, SignRequest,
        Signature, Version,
    },
    v1::{Hello, ListAssembly, MessageError, Refusal, Request, Response, SessionAuth},
};

/// Time for a stream to a provider to open: 30 s, the deadline of a dial.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Time between looks for a direct path: 1 s. A hole punch takes a few round trips.
const DIRECT_RECHECK: Duration = Duration::from_secs(1);

/// What the sessions of a transfer share.
pub(super) struct Context {
    pub(super) opener: Arc<dyn DynOpener>,
    pub(super) identity: Identity,
    pub(super) config: Arc<BlobFetchConfig>,
    pub(super) request: FetchRequest,
    /// A permit for each chunk that has arrived and is not verified yet.
    pub(super) verifying: Arc<Semaphore>,
    pub(super) events: mpsc::Sender<Event>,
    /// Set once the chunk hashes are known: whether this node serves what it has verified.
    pub(super) serves: OnceLock<bool>,
}

/// What the driver asks of a provider.
#[derive(Debug)]
pub(super) enum Ask {
    /// The list of the blob, or its content where that has at most so many bytes.
    List {
        inline_max_bytes: u64,
    },
    Chunks(Range<u64>),
    /// To report which chunks it has, and which peers fetch the blob.
    Watch,
    /// Nothing: a chunk of it is verified.
    Got(u64),
}

/// A session: its provider, and its number among all sessions of the transfer, counted from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SessionId {
    pub(super) peer: PeerId,
    pub(super) number: u64,
}

/// A report of a session to the driver.
pub(super) struct Event {
    pub(super) from: SessionId,
    pub(super) kind: EventKind,
}

pub(super) enum EventKind {
    /// The chunk hashes, proven, and the size that the provider claims.
    List { list: ChunkList, size_bytes: u64 },
    /// All of a small blob, verified.
    Inline(Bytes),
    /// The size that an older provider claims.
    Size(u64),
    /// A chunk, not verified yet.
    Chunk {
        index: u64,
        data: Bytes,
        permit: OwnedSemaphorePermit,
    },
    /// Chunks that the provider has, in addition to those that it named before.
    Has(Vec<Range<u64>>),
    /// Peers that fetch the blob as well.
    Peers(Vec<PeerId>),
    /// A chunk that the provider does not send now.
    Absent {
        index: u64,
        retry_after: Option<Duration>,
    },
}

/// How a session ended.
pub(super) enum End {
    /// Nothing more was asked of it.
    Fine,
    /// By the provider, when it had answered everything that it was asked.
    Closed { received_bytes: u64 },
    /// The provider speaks the older protocol alone.
    V0(Opened<BoxDuplex>),
    /// The blob is stored.
    Stored(Stored),
    /// The provider failed in some way.
    Provider(ProviderError),
    /// What came could not be kept.
    Store(StoreError),
}

impl From<ProviderError> for End {
    fn from(error: ProviderError) -> Self {
        Self::Provider(error)
    }
}

/// What the driver sees of a session while it runs.
#[derive(Clone)]
pub(super) struct Meter {
    /// What has arrived.
    pub(super) arrived: Arrived,
    /// Whether the stream is not open yet.
    pub(super) reaching: Arc<AtomicBool>,
}

impl Meter {
    /// Returns the meter of a session that has not begun to open its stream.
    pub(super) fn new(arrived: Arrived) -> Self {
        Self {
            arrived,
            reaching: Arc::new(AtomicBool::new(true)),
        }
    }

    /// Notes that the stream is open.
    pub(super) fn on_open(&self) {
        self.reaching.store(false, Ordering::Relaxed);
    }
}

impl Context {
    fn context_id(&self) -> ContextId {
        self.request.context_id
    }

    fn blob_id(&self) -> BlobId {
        self.request.blob_id
    }

    /// Opens a stream; where it is for content, not before there is a direct path.
    pub(super) async fn open(
        &self,
        peer: PeerId,
        for_content: bool,
        meter: &Meter,
    ) -> Result<Opened<BoxDuplex>, ProviderError> {
        meter.reaching.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        loop {
            let after = OPEN_TIMEOUT;
            let opened = timeout(after, self.opener.open_boxed(peer)).await;
            let opened = opened
                .map_err(|_| ProviderError::OpenTimeout { after })?
                .map_err(|source| ProviderError::Open { source })?;
            if !self.must_wait(&opened, for_content) {
                meter.on_open();
                return Ok(opened);
            }
            drop(opened);
            let waited = begun.elapsed();
            if waited >= self.config.tuning.direct_timeout {
                return Err(ProviderError::Relayed { waited });
            }
            sleep(DIRECT_RECHECK.min(self.config.tuning.direct_timeout - waited)).await;
        }
    }

    /// The greeting of a stream to `provider`, signed where there is a signer.
    pub(super) async fn hello(
        &self,
        blob_id: Option<BlobId>,
        provider: PeerId,
    ) -> Result<Hello, ProviderError> {
        let context_id = self.context_id();
        let timestamp = unix_seconds();
        let local = &self.identity.peer;
        let message = SessionAuth::message(&context_id, local, &provider, timestamp);
        let signature = self.sign(blob_id, provider, message).await?;
        let auth = signature.map(|signed| SessionAuth {
            public_key: signed.public_key,
            signature: signed.signature,
            timestamp,
        });
        Ok(Hello { context_id, auth })
    }

    /// Asks the signer of the request, or that of the fetcher.
    pub(super) async fn sign(
        &self,
        blob_id: Option<BlobId>,
        provider: PeerId,
        message: Vec<u8>,
    ) -> Result<Option<Signature>, ProviderError> {
        let own = self.request.signer.as_ref();
        let Some(signer) = own.or(self.identity.signer.as_ref()) else {
            return Ok(None);
        };
        let request = SignRequest {
            blob_id,
            context_id: self.context_id(),
            provider,
            message,
        };
        let signed = guarded("Signer::sign", CALLBACK_TIMEOUT, || signer.sign(request));
        signed.await.map_err(ProviderError::Signer)
    }

    /// Reports to the driver.
    pub(super) async fn report(&self, from: SessionId, kind: EventKind) {
        // The queue is closed where the driver has ended. The session is then about to be dropped.
        let _ = self.events.send(Event { from, kind }).await;
    }

    /// Reports a chunk that is complete, once there is a permit for it. A permit for a chunk that is
    /// being received would let a few slow providers hold all of them.
    pub(super) async fn report_chunk(
        &self,
        from: SessionId,
        index: u64,
        data: Bytes,
    ) -> Result<(), ProviderError> {
        let permit = Arc::clone(&self.verifying).acquire_owned().await;
        let permit = permit.map_err(|_| ProviderError::Ended)?;
        let chunk = EventKind::Chunk {
            index,
            data,
            permit,
        };
        self.report(from, chunk).await;
        Ok(())
    }

    pub(super) fn must_wait(&self, opened: &Opened<BoxDuplex>, for_content: bool) -> bool {
        for_content && opened.relayed && !self.config.through_relays
    }
}

/// A stream of 1.0.0 to a provider, for as long as it is asked for something.
pub(super) struct Session {
    pub(super) context: Arc<Context>,
    pub(super) id: SessionId,
    pub(super) meter: Meter,
    pub(super) asks: mpsc::Receiver<Ask>,
    /// Answers that are still to come, in order.
    expected: VecDeque<Expected>,
    assembly: ListAssembly,
    received_bytes: u64,
    /// Whether the stream is of 1.1.0.
    of_1_1: bool,
    /// Whether the provider reports which chunks it has.
    watched: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expected {
    List,
    Chunk(u64),
}

impl Session {
    pub(super) fn new(
        context: Arc<Context>,
        id: SessionId,
        meter: Meter,
        asks: mpsc::Receiver<Ask>,
    ) -> Self {
        Self {
            assembly: ListAssembly::new(context.blob_id()),
            context,
            id,
            meter,
            asks,
            expected: VecDeque::new(),
            received_bytes: 0,
            of_1_1: false,
            watched: false,
        }
    }

    /// Runs until the driver asks for nothing more, or the provider fails.
    pub(super) async fn run(mut self) -> End {
        match self.talk().await {
            Ok(end) => end,
            Err(error) => End::Provider(error),
        }
    }

    async fn talk(&mut self) -> Result<End, ProviderError> {
        let Some(mut ask) = self.asks.recv().await else {
            return Ok(End::Fine);
        };
        loop {
            let for_content = matches!(ask, Ask::Chunks(_));
            let opened = self
                .context
                .open(self.id.peer, for_content, &self.meter)
                .await?;
            if opened.version == Version::V0 {
                return Ok(End::V0(opened));
            }
            // A stream through a relay serves for the list, and is given up for the content.
            match self.talk_over(opened, ask).await? {
                ControlFlow::Continue(content) => ask = content,
                ControlFlow::Break(end) => return Ok(end),
            }
        }
    }

    /// Talks over one stream. Yields what has to be asked over another one.
    async fn talk_over(
        &mut self,
        opened: Opened<BoxDuplex>,
        first: Ask,
    ) -> Result<ControlFlow<End, Ask>, ProviderError> {
        let must_wait = self.context.must_wait(&opened, true);
        let (reader, writer) = opened.stream.split();
        let mut reader = MessageReader::<_, Response>::new(reader, self.meter.arrived.clone());
        let mut writer = MessageWriter::new(writer, self.context.config.tuning.stall_timeout);
        let blob_id = self.context.blob_id();
        let hello = self.context.hello(Some(blob_id), self.id.peer).await?;
        self.feed(&mut writer, &Request::Hello(hello))?;
        (self.of_1_1, self.watched) = (opened.version == Version::V1_1, false);
        if !must_wait {
            self.ask(&mut writer, Ask::Watch)?;
        }
        self.ask(&mut writer, first)?;
        loop {
            tokio::select! {
                ask = self.asks.recv() => match ask {
                    Some(ask @ Ask::Chunks(_)) if must_wait => {
                        return Ok(ControlFlow::Continue(ask));
                    }
                    Some(ask) => self.ask(&mut writer, ask)?,
                    None => {
                        // The provider waits for it; whether it arrives is its concern.
                        let _ = writer.close().await;
                        return Ok(ControlFlow::Break(End::Fine));
                    }
                },
                flushed = writer.flush(), if writer.is_dirty() => flushed?,
                message = reader.next() => match message? {
                    Some(response) => self.answered(&mut writer, response).await?,
                    None => {
                        let received_bytes = self.received_bytes;
                        return match self.expected.is_empty() {
                            true => Ok(ControlFlow::Break(End::Closed { received_bytes })),
                            false => Err(ProviderError::Closed { received_bytes }),
                        };
                    }
                },
            }
        }
    }

    fn ask<W: futures::AsyncWrite + Unpin>(
        &mut self,
        writer: &mut MessageWriter<W>,
        ask: Ask,
    ) -> Result<(), ProviderError> {
        let blob_id = self.context.blob_id();
        let request = match ask {
            Ask::List { inline_max_bytes } => {
                self.expected.push_back(Expected::List);
                Request::Get {
                    blob_id,
                    inline_max_bytes,
                    from: self.assembly.next(),
                }
            }
            Ask::Chunks(chunks) => {
                self.expected.extend(chunks.clone().map(Expected::Chunk));
                Request::Read {
                    blob_id,
                    ranges: vec![chunks],
                }
            }
            Ask::Watch => match self.context.serves.get() {
                Some(serves) if self.of_1_1 && !self.watched => {
                    self.watched = true;
                    let serves = *serves;
                    Request::Watch { blob_id, serves }
                }
                _ => return Ok(()),
            },
            Ask::Got(index) if self.watched => Request::Got { index },
            Ask::Got(_) => return Ok(()),
        };
        self.feed(writer, &request)
    }

    fn feed<W: futures::AsyncWrite + Unpin>(
        &self,
        writer: &mut MessageWriter<W>,
        request: &Request,
    ) -> Result<(), ProviderError> {
        writer.feed_request(request).map_err(ProviderError::Message)
    }

    async fn answered<W: futures::AsyncWrite + Unpin>(
        &mut self,
        writer: &mut MessageWriter<W>,
        response: Response,
    ) -> Result<(), ProviderError> {
        if self.watched && matches!(response, Response::Have { .. } | Response::Peers { .. }) {
            return self.on_news(response).await;
        }
        match (self.expected.pop_front(), response) {
            (_, Response::Refused(refusal)) => Err(refused(refusal)),
            (Some(Expected::List), Response::List(page)) => {
                match self.assembly.push(&page).map_err(ProviderError::List)? {
                    None => {
                        let inline_max_bytes = 0;
                        self.ask(writer, Ask::List { inline_max_bytes })?;
                    }
                    Some(list) => {
                        let size_bytes = page.size_bytes;
                        self.report(EventKind::List { list, size_bytes }).await;
                    }
                }
                Ok(())
            }
            (Some(Expected::List), Response::Inline { content }) => {
                // At most 64 KiB, hashed in less time than handing it to another thread takes.
                let actual = blob_id(&content);
                if actual != self.context.blob_id() {
                    return Err(ProviderError::Content { actual });
                }
                self.report(EventKind::Inline(content)).await;
                Ok(())
            }
            (Some(Expected::Chunk(expected)), Response::Chunk { index, data })
                if index == expected =>
            {
                self.received_bytes += data.len() as u64;
                self.context.report_chunk(self.id, index, data).await
            }
            (
                Some(Expected::Chunk(expected)),
                Response::Absent {
                    index,
                    retry_after_ms,
                },
            ) if index == expected && self.watched => {
                let retry_after = Duration::from_millis(retry_after_ms);
                let retry_after = (!retry_after.is_zero()).then_some(retry_after);
                self.report(EventKind::Absent { index, retry_after }).await;
                Ok(())
            }
            _ => Err(ProviderError::Unexpected),
        }
    }

    /// Handles what the provider of a watched blob reports between its answers.
    async fn on_news(&self, news: Response) -> Result<(), ProviderError> {
        match news {
            Response::Have { ranges } => self.report(EventKind::Has(ranges)).await,
            Response::Peers { peers } => {
                let peers = peers.iter().map(|peer| PeerId::from_bytes(peer));
                let peers: Result<Vec<_>, _> = peers.collect();
                let malformed = MessageError::Field { field: "peer" };
                let peers = peers.map_err(|_| ProviderError::Message(malformed))?;
                self.report(EventKind::Peers(peers)).await;
            }
            _ => return Err(ProviderError::Unexpected),
        }
        Ok(())
    }

    async fn report(&self, kind: EventKind) {
        self.context.report(self.id, kind).await;
    }
}

pub(super) fn refused(refusal: Refusal) -> ProviderError {
    match refusal {
        Refusal::NotFound => ProviderError::NotFound,
        Refusal::Busy { retry_after_ms } => ProviderError::Busy {
            retry_after: Duration::from_millis(retry_after_ms),
        },
        Refusal::Failed => ProviderError::Failed,
    }
}
