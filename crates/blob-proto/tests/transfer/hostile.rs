//! Providers that lie, stall, flood and break off. Another one finishes the job each time, and
//! the error names the peer and what it did.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use asynchronous_codec::{Encoder, FramedRead};
use bytes::{Bytes, BytesMut};
use calimero_network_blob::{
    ChunkList, blob_id,
    error::{ChunkError, ChunkFrameError, HandshakeError},
    fetch::{BlobFetchConfig, FetchError, ProviderError},
    transfer::Version,
    v1::{ListPage, MessageError, PageError, ProviderCodec, Refusal, Request, Response},
    wire::BlobResponse,
};
use calimero_network_stream::FrameError;
use futures::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, FutureExt, StreamExt,
    channel::oneshot,
    future::{self, BoxFuture},
};

use crate::net::{
    Net, Socket, chunk_frame, content, fetch, folder, frame, impatient, list, peer, read_all,
};

const MIB: usize = 1 << 20;

/// A stream that takes some bytes and then hangs, and word of when it does.
pub(crate) fn cut_after(bytes: usize, io: Socket) -> (Cut, BoxFuture<'static, ()>) {
    let (said, heard) = oneshot::channel();
    let cut = Cut {
        io,
        left: bytes,
        said: Some(said),
    };
    (cut, heard.map(|_| ()).boxed())
}

pub(crate) struct Cut {
    io: Socket,
    left: usize,
    said: Option<oneshot::Sender<()>>,
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_read(cx, to)
    }
}

impl AsyncWrite for Cut {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.left == 0 {
            if let Some(said) = self.said.take() {
                let _ = said.send(());
            }
            return Poll::Pending;
        }
        let some = &from[..from.len().min(self.left)];
        let written = Pin::new(&mut self.io).poll_write(cx, some);
        if let Poll::Ready(Ok(len)) = &written {
            self.left -= len;
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(cx)
    }
}

/// What the hostile provider was found to do, after an honest one has finished the job.
async fn found(
    version: Version,
    len: usize,
    hostile: impl Fn(Socket) -> BoxFuture<'static, ()> + Send + Sync + 'static,
) -> ProviderError {
    let there = folder();
    let content = content(99, len);
    let id = there.store.put(&content).unwrap().id;
    let net = Net::default();
    let asked = Arc::new(AtomicBool::new(false));
    let was_asked = Arc::clone(&asked);
    net.add(peer(1), version, move |socket| {
        was_asked.store(true, Ordering::SeqCst);
        hostile(socket)
    })
    .await;
    // The hostile one alone: nothing of it is visible, and it is named.
    let here = folder();
    let config = BlobFetchConfig {
        max_failures: 1,
        ..impatient()
    };
    let alone = fetch(&net, &config, id, [peer(1)], &here.store).await;
    let Err(FetchError::NoProviders { failures, .. }) = alone else {
        panic!("{alone:?}")
    };
    assert!(!here.store.has(&id));
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].peer, peer(1));
    assert!(asked.load(Ordering::SeqCst));
    // With an honest one beside it, of either version, which may be slow once.
    let config = impatient();
    for honest in [Version::V1, Version::V0] {
        net.add_store(peer(2), honest, &there.store).await;
        let here = folder();
        let fetched = fetch(&net, &config, id, [peer(1), peer(2)], &here.store).await;
        fetched.unwrap_or_else(|error| panic!("{honest:?}: {error}"));
        assert!(read_all(&here.store, &id) == content);
    }
    failures[0].reason.clone()
}

/// Reads the request of 0.0.2 and writes what it is told, then waits for the requester to go.
fn older(answer: Vec<Bytes>, close: bool) -> impl Fn(Socket) -> BoxFuture<'static, ()> {
    move |mut socket| {
        let answer = answer.clone();
        async move {
            let mut len = [0; 4];
            socket.read_exact(&mut len).await.unwrap();
            let mut request = vec![0; u32::from_be_bytes(len) as usize];
            socket.read_exact(&mut request).await.unwrap();
            for piece in answer {
                if socket.write_all(&piece).await.is_err() {
                    return;
                }
            }
            if close {
                let _ = socket.close().await;
            }
            let _ = socket.read(&mut [0]).await;
        }
        .boxed()
    }
}

fn found_size(size: u64) -> Bytes {
    frame(&BlobResponse::found(size).encode().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn older_more_bytes_than_said() {
    let flood: Vec<_> = std::iter::once(found_size(10))
        .chain((0..2000).map(|_| chunk_frame(&vec![7; MIB])))
        .collect();
    let reason = found(Version::V0, 2 * MIB, older(flood, true)).await;
    assert!(
        matches!(reason, ProviderError::More { said_bytes: 10 }),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn older_fewer_bytes_than_said() {
    let short = vec![
        found_size(2 * MIB as u64),
        chunk_frame(&content(99, 2 * MIB)[..MIB]),
        chunk_frame(&[]),
    ];
    let reason = found(Version::V0, 2 * MIB, older(short, true)).await;
    let expected = matches!(
        reason,
        ProviderError::Fewer { said_bytes, received_bytes }
            if said_bytes == 2 * MIB as u64 && received_bytes == MIB as u64
    );
    assert!(expected, "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn older_other_bytes() {
    let other = vec![
        found_size(MIB as u64),
        chunk_frame(&content(98, MIB)),
        chunk_frame(&[]),
    ];
    let reason = found(Version::V0, MIB, older(other, true)).await;
    let false_id = blob_id(&content(98, MIB));
    assert!(
        matches!(reason, ProviderError::Content { actual } if actual == false_id),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn older_an_empty_blob_that_is_none() {
    let empty = vec![found_size(0), chunk_frame(&[])];
    let reason = found(Version::V0, MIB, older(empty, true)).await;
    assert!(
        matches!(reason, ProviderError::Content { actual } if actual == blob_id(&[])),
        "{reason}"
    );
    // And content for the empty blob, which has none.
    let some = vec![found_size(0), chunk_frame(&[7; 10]), chunk_frame(&[])];
    let reason = found(Version::V0, 0, older(some, true)).await;
    assert!(
        matches!(reason, ProviderError::More { said_bytes: 0 }),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn older_early_close() {
    let cut = vec![found_size(2 * MIB as u64), chunk_frame(&[7; 1000])];
    let reason = found(Version::V0, 2 * MIB, older(cut, true)).await;
    assert!(
        matches!(
            reason,
            ProviderError::Closed {
                received_bytes: 1000
            }
        ),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn older_close_inside_a_frame() {
    let torn = chunk_frame(&[7; 1000]).slice(..500);
    let reason = found(
        Version::V0,
        2 * MIB,
        older(vec![found_size(2 * MIB as u64), torn], true),
    )
    .await;
    let cut = matches!(&reason, ProviderError::Frame { source } if matches!(**source, FrameError::Cut { .. }));
    assert!(cut, "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn older_close_without_an_answer() {
    let reason = found(Version::V0, MIB, older(vec![], true)).await;
    assert!(
        matches!(reason, ProviderError::Closed { received_bytes: 0 }),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn older_no_answer() {
    let reason = found(Version::V0, MIB, older(vec![], false)).await;
    assert!(matches!(reason, ProviderError::Stalled { .. }), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn older_no_end() {
    // All of it is there, and neither the empty chunk nor the close comes.
    let endless = vec![found_size(MIB as u64), chunk_frame(&content(99, MIB))];
    let reason = found(Version::V0, MIB, older(endless, false)).await;
    assert!(matches!(reason, ProviderError::Stalled { .. }), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn older_drips() {
    let reason = found(Version::V0, 2 * MIB, |mut socket: Socket| {
        async move {
            let _ = socket.write_all(&found_size(2 * MIB as u64)).await;
            let drip = chunk_frame(&[7; 100]);
            while socket.write_all(&drip).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        .boxed()
    })
    .await;
    assert!(matches!(reason, ProviderError::TooSlow { .. }), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn older_a_size_beyond_all_bounds() {
    for size_bytes in [1 << 63, u64::MAX, (1 << 40) + 1] {
        let reason = found(Version::V0, MIB, older(vec![found_size(size_bytes)], false)).await;
        assert!(
            matches!(reason, ProviderError::TooLarge { size_bytes: said, .. } if said == size_bytes),
            "{reason}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn older_a_chunk_of_eight_mib() {
    // Its claim is refused before it arrives.
    let prefix = (8 * MIB as u32).to_be_bytes();
    let large = vec![
        found_size(8 * MIB as u64 - 4),
        Bytes::copy_from_slice(&prefix),
    ];
    let reason = found(Version::V0, MIB, older(large, false)).await;
    let refused = matches!(&reason, ProviderError::Frame { source } if matches!(**source, FrameError::TooLarge { .. }));
    assert!(refused, "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn older_json_bombs() {
    let deep = "[".repeat(16_000);
    let reason = found(Version::V0, MIB, older(vec![frame(deep.as_bytes())], false)).await;
    assert!(
        matches!(
            reason,
            ProviderError::Handshake(HandshakeError::Json { .. })
        ),
        "{reason}"
    );
    let long = vec![b' '; MIB];
    let reason = found(Version::V0, MIB, older(vec![frame(&long)], false)).await;
    assert!(
        matches!(
            reason,
            ProviderError::Handshake(HandshakeError::TooLong { .. })
        ),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn older_borsh_claims() {
    let claim = frame(&[0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
    let reason = found(
        Version::V0,
        MIB,
        older(vec![found_size(MIB as u64), claim], false),
    )
    .await;
    assert!(
        matches!(
            reason,
            ProviderError::ChunkFrame(ChunkFrameError::TooLong { .. })
        ),
        "{reason}"
    );
    let lie = frame(&[9, 0, 0, 0, 1, 2, 3]);
    let reason = found(
        Version::V0,
        MIB,
        older(vec![found_size(MIB as u64), lie], false),
    )
    .await;
    assert!(
        matches!(
            reason,
            ProviderError::ChunkFrame(ChunkFrameError::LengthMismatch { .. })
        ),
        "{reason}"
    );
}

/// Answers each request of 1.0.0 with what it is told.
pub(crate) fn newer(
    answer: impl Fn(Request) -> Vec<Response> + Send + Sync + 'static,
) -> impl Fn(Socket) -> BoxFuture<'static, ()> + Send + Sync + 'static {
    let answer = Arc::new(answer);
    move |socket| {
        let answer = Arc::clone(&answer);
        async move {
            let (reader, mut writer) = socket.split();
            let mut requests = FramedRead::new(reader, ProviderCodec);
            while let Some(Ok(request)) = requests.next().await {
                for response in answer(request) {
                    let mut wire = BytesMut::new();
                    ProviderCodec.encode(response, &mut wire).unwrap();
                    if writer.write_all(&wire).await.is_err() {
                        return;
                    }
                }
            }
        }
        .boxed()
    }
}

fn page(list: &ChunkList, size_bytes: u64) -> Response {
    Response::List(ListPage {
        size_bytes,
        from: 0,
        digests: list.digests().clone(),
    })
}

/// Sends the true list, and for chunks what it is told.
fn with_list(
    len: usize,
    chunk: impl Fn(u64) -> Vec<Response> + Send + Sync + 'static,
) -> impl Fn(Socket) -> BoxFuture<'static, ()> + Send + Sync + 'static {
    let list = list(&content(99, len));
    newer(move |request| match request {
        Request::Hello(_) => vec![],
        Request::Get { .. } => vec![page(&list, len as u64)],
        Request::Read { ranges, .. } => ranges.into_iter().flatten().flat_map(&chunk).collect(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_chunk_is_caught_at_once() {
    let reason = found(
        Version::V1,
        5 * MIB,
        with_list(5 * MIB, |index| {
            let data = Bytes::from(content(98, MIB));
            vec![Response::Chunk { index, data }]
        }),
    )
    .await;
    assert!(
        matches!(reason, ProviderError::Chunk(ChunkError::Mismatch { .. })),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_of_another_length() {
    let reason = found(
        Version::V1,
        5 * MIB,
        with_list(5 * MIB, |index| {
            let data = Bytes::from_static(b"short");
            vec![Response::Chunk { index, data }]
        }),
    )
    .await;
    assert!(
        matches!(
            reason,
            ProviderError::Chunk(ChunkError::Length { .. } | ChunkError::Mismatch { .. })
        ),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_was_not_asked_for() {
    let reason = found(
        Version::V1,
        5 * MIB,
        with_list(5 * MIB, |index| {
            let data = Bytes::from(content(99, MIB));
            vec![Response::Chunk {
                index: index + 1,
                data,
            }]
        }),
    )
    .await;
    assert!(matches!(reason, ProviderError::Unexpected), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_chunks_than_were_asked_for() {
    let all = content(99, 5 * MIB);
    let reason = found(
        Version::V1,
        5 * MIB,
        with_list(5 * MIB, move |index| {
            let at = index as usize * MIB;
            let data = Bytes::copy_from_slice(&all[at..at + MIB]);
            // Each twice.
            vec![Response::Chunk { index, data }; 2]
        }),
    )
    .await;
    assert!(matches!(reason, ProviderError::Unexpected), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_another_blob() {
    let other = list(&content(98, 5 * MIB));
    let reason = found(
        Version::V1,
        5 * MIB,
        newer(move |request| match request {
            Request::Get { .. } => vec![page(&other, 5 * MIB as u64)],
            _ => vec![],
        }),
    )
    .await;
    assert!(
        matches!(reason, ProviderError::List(PageError::List(_))),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_shorter_than_its_size() {
    let true_list = list(&content(99, 5 * MIB));
    let reason = found(
        Version::V1,
        5 * MIB,
        newer(move |request| match request {
            Request::Get { .. } => vec![page(&true_list, 1 << 40)],
            _ => vec![],
        }),
    )
    .await;
    assert!(
        matches!(reason, ProviderError::List(PageError::Length { .. })),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_blob_that_is_none() {
    let empty_list = newer(|request| match request {
        Request::Get { .. } => vec![page(&list(&[]), 0)],
        _ => vec![],
    });
    let reason = found(Version::V1, 5 * MIB, empty_list).await;
    assert!(matches!(reason, ProviderError::List(_)), "{reason}");
    let no_content = newer(|request| match request {
        Request::Get { .. } => vec![Response::Inline {
            content: Bytes::new(),
        }],
        _ => vec![],
    });
    let reason = found(Version::V1, 100, no_content).await;
    assert!(
        matches!(reason, ProviderError::Content { actual } if actual == blob_id(&[])),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn small_content_of_another_blob() {
    let reason = found(
        Version::V1,
        100,
        newer(|request| match request {
            Request::Get { .. } => vec![Response::Inline {
                content: Bytes::from_static(b"other"),
            }],
            _ => vec![],
        }),
    )
    .await;
    assert!(matches!(reason, ProviderError::Content { .. }), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals() {
    for (refusal, expected) in [
        (Refusal::NotFound, "does not have"),
        (Refusal::Failed, "failed on its own side"),
        (
            Refusal::Busy {
                retry_after_ms: u64::MAX,
            },
            "busy",
        ),
    ] {
        let reason = found(
            Version::V1,
            2 * MIB,
            newer(move |request| match request {
                Request::Hello(_) => vec![],
                _ => vec![Response::Refused(refusal)],
            }),
        )
        .await;
        assert!(reason.to_string().contains(expected), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_message() {
    for (bytes, expected) in [
        (
            // A size of 2^63 in the list.
            &[
                0x0b, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0x00,
            ][..],
            "out of bounds",
        ),
        (&[0xff, 0xff, 0x7f], "are allowed"),
        (&[0x01, 0x7f], "unknown message"),
        (&[0x80, 0x80, 0x00], "malformed"),
    ] {
        let bytes = Bytes::copy_from_slice(bytes);
        let reason = found(Version::V1, MIB + 1, move |mut socket: Socket| {
            let bytes = bytes.clone();
            async move {
                let _ = socket.write_all(&bytes).await;
                let _ = socket.read(&mut [0; 64]).await;
                future::pending::<()>().await;
            }
            .boxed()
        })
        .await;
        assert!(
            matches!(
                reason,
                ProviderError::Message(
                    MessageError::Field { .. }
                        | MessageError::TooLong { .. }
                        | MessageError::Unknown { .. }
                        | MessageError::Number
                )
            ),
            "{reason}"
        );
        assert!(reason.to_string().contains(expected), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer() {
    let reason = found(Version::V1, MIB + 1, |socket: Socket| {
        async move {
            let _hold = socket;
            future::pending::<()>().await;
        }
        .boxed()
    })
    .await;
    assert!(matches!(reason, ProviderError::Stalled { .. }), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_never_ends() {
    let reason = found(
        Version::V1,
        5 * MIB,
        // Answers the list, and stays silent about chunks.
        with_list(5 * MIB, |_| vec![]),
    )
    .await;
    assert!(matches!(reason, ProviderError::Stalled { .. }), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drip() {
    let list = list(&content(99, 5 * MIB));
    let reason = found(Version::V1, 5 * MIB, move |mut socket: Socket| {
        let page = page(&list, 5 * MIB as u64);
        async move {
            let mut wire = BytesMut::new();
            ProviderCodec.encode(page, &mut wire).unwrap();
            let data = Bytes::from(content(99, MIB));
            let chunk = Response::Chunk { index: 0, data };
            let mut drip = BytesMut::new();
            ProviderCodec.encode(chunk, &mut drip).unwrap();
            let _ = socket.write_all(&wire).await;
            for byte in drip.chunks(64) {
                tokio::time::sleep(Duration::from_millis(200)).await;
                if socket.write_all(byte).await.is_err() {
                    return;
                }
            }
        }
        .boxed()
    })
    .await;
    assert!(matches!(reason, ProviderError::TooSlow { .. }), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_close() {
    let reason = found(Version::V1, 5 * MIB, |mut socket: Socket| {
        async move {
            let _ = socket.read(&mut [0; 64]).await;
            let _ = socket.close().await;
        }
        .boxed()
    })
    .await;
    assert!(
        matches!(
            reason,
            ProviderError::Closed { received_bytes: 0 } | ProviderError::Io { .. }
        ),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_between_requests() {
    // The request for chunks meets the close on its way, or just misses it. Either is said.
    for _ in 0..8 {
        let list = list(&content(99, 5 * MIB));
        let reason = found(Version::V1, 5 * MIB, move |socket: Socket| {
            let page = page(&list, 5 * MIB as u64);
            async move {
                let (reader, mut writer) = socket.split();
                let mut requests = FramedRead::new(reader, ProviderCodec);
                let _hello = requests.next().await;
                if let Some(Ok(Request::Get { .. })) = requests.next().await {
                    let mut wire = BytesMut::new();
                    ProviderCodec.encode(page, &mut wire).unwrap();
                    let _ = writer.write_all(&wire).await;
                }
                let _ = writer.close().await;
            }
            .boxed()
        })
        .await;
        let closed = matches!(
            reason,
            ProviderError::Closed { received_bytes: 0 } | ProviderError::Io { .. }
        );
        assert!(closed, "{reason}");
    }
}

/// Two providers of a small blob: one gives a list and no chunk, and once the chunk is asked of
/// it, the other one gives the content in its answer to the same question.
#[tokio::test(flavor = "multi_thread")]
async fn small_content_after_a_list() {
    let content = content(99, 100);
    let list = list(&content);
    let id = list.id();
    let asked = Arc::new(tokio::sync::Notify::new());
    let net = Net::default();
    // Of two that are alike, the lower one is asked first.
    let (gives, lists) = (peer(1).min(peer(2)), peer(1).max(peer(2)));
    let (page, say) = (page(&list, 100), Arc::clone(&asked));
    net.add(
        lists,
        Version::V1,
        newer(move |request| match request {
            Request::Hello(_) => vec![],
            Request::Get { .. } => vec![page.clone()],
            Request::Read { .. } => {
                say.notify_one();
                vec![]
            }
        }),
    )
    .await;
    let inline = Response::Inline {
        content: Bytes::from(content.clone()),
    };
    net.add(gives, Version::V1, move |mut socket: Socket| {
        let (inline, asked) = (inline.clone(), Arc::clone(&asked));
        async move {
            let mut wire = BytesMut::new();
            ProviderCodec.encode(inline, &mut wire).unwrap();
            asked.notified().await;
            let _ = socket.write_all(&wire).await;
            while matches!(socket.read(&mut [0; 512]).await, Ok(1..)) {}
        }
        .boxed()
    })
    .await;
    let here = folder();
    let patient = BlobFetchConfig {
        stall_timeout: crate::net::LONG,
        ..impatient()
    };
    let fetched = fetch(&net, &patient, id, [gives, lists], &here.store).await;
    assert_eq!(fetched.unwrap().providers, [(gives, 100)]);
    assert!(read_all(&here.store, &id) == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_inside_a_message() {
    let reason = found(Version::V1, 5 * MIB, |mut socket: Socket| {
        async move {
            let _ = socket.read(&mut [0; 512]).await;
            let _ = socket.write_all(&[0x20, 0x80]).await;
            let _ = socket.close().await;
        }
        .boxed()
    })
    .await;
    assert!(matches!(reason, ProviderError::Io { .. }), "{reason}");
}
