//! Providers of 1.0.0.

use std::{sync::Arc, time::Duration};

use asynchronous_codec::{Encoder, FramedRead};
use bytes::{Bytes, BytesMut};
use calimero_network_blob::{
    ChunkList, blob_id,
    error::ChunkError,
    fetch::{BlobFetchConfig, BlobFetchTuning, ProviderError},
    transfer::Version,
    v1::{ListPage, MessageError, PageError, ProviderCodec, Refusal, Request, Response},
};
use futures::{
    AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt,
    future::{self, BoxFuture},
};

use super::{MIB, found};
use crate::net::{Net, Socket, content, fetch, folder, impatient, list, peer, read_all};

/// Answers each request of 1.0.0 with the responses of `answer`.
pub(crate) fn v1(
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

/// Sends the true list, and the responses of `chunk` for chunks.
fn with_list(
    len: usize,
    chunk: impl Fn(u64) -> Vec<Response> + Send + Sync + 'static,
) -> impl Fn(Socket) -> BoxFuture<'static, ()> + Send + Sync + 'static {
    let list = list(&content(99, len));
    v1(move |request| match request {
        Request::Hello(_) | Request::Watch { .. } | Request::Got { .. } => vec![],
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
        v1(move |request| match request {
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
        v1(move |request| match request {
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
    let empty_list = v1(|request| match request {
        Request::Get { .. } => vec![page(&list(&[]), 0)],
        _ => vec![],
    });
    let reason = found(Version::V1, 5 * MIB, empty_list).await;
    assert!(matches!(reason, ProviderError::List(_)), "{reason}");
    let no_content = v1(|request| match request {
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
        v1(|request| match request {
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
            v1(move |request| match request {
                Request::Hello(_) | Request::Watch { .. } | Request::Got { .. } => vec![],
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

/// More bytes than the minimum rate, and none of a chunk.
#[tokio::test(flavor = "multi_thread")]
async fn reports_in_place_of_a_chunk() {
    let list = list(&content(99, 5 * MIB));
    let reason = found(Version::V1_1, 5 * MIB, move |socket: Socket| {
        let page = page(&list, 5 * MIB as u64);
        async move {
            let (reader, mut writer) = socket.split();
            let mut requests = FramedRead::new(reader, ProviderCodec);
            let all = Response::Have {
                ranges: Vec::from([0..5]),
            };
            let mut report = BytesMut::new();
            let ranges = (0..1000).map(|index| 2 * index..2 * index + 1).collect();
            ProviderCodec
                .encode(Response::Have { ranges }, &mut report)
                .unwrap();
            while let Some(Ok(request)) = requests.next().await {
                let mut wire = BytesMut::new();
                match request {
                    Request::Get { .. } => ProviderCodec.encode(page.clone(), &mut wire).unwrap(),
                    Request::Watch { .. } => ProviderCodec.encode(all.clone(), &mut wire).unwrap(),
                    Request::Read { .. } => break,
                    Request::Hello(_) | Request::Got { .. } => {}
                }
                let _ = writer.write_all(&wire).await;
            }
            let mut pause = tokio::time::interval(Duration::from_millis(50));
            while writer.write_all(&report).await.is_ok() {
                pause.tick().await;
            }
        }
        .boxed()
    })
    .await;
    assert!(matches!(reason, ProviderError::Stalled { .. }), "{reason}");
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
        v1(move |request| match request {
            Request::Hello(_) | Request::Watch { .. } | Request::Got { .. } => vec![],
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
        tuning: BlobFetchTuning {
            stall_timeout: crate::net::LONG,
            ..impatient().tuning
        },
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
