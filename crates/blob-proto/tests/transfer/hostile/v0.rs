//! Providers of 0.0.2.

use std::time::Duration;

use bytes::Bytes;
use calimero_network_blob::{
    blob_id,
    error::{ChunkFrameError, HandshakeError},
    fetch::ProviderError,
    transfer::Version,
    v0::BlobResponse,
};
use calimero_network_stream::FrameError;
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, future::BoxFuture};

use super::{MIB, found};
use crate::net::{Socket, chunk_frame, content, frame};

/// Reads the request of 0.0.2, writes `answer`, then waits for the requester to close.
fn v0(answer: Vec<Bytes>, close: bool) -> impl Fn(Socket) -> BoxFuture<'static, ()> {
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
async fn more_bytes_than_said() {
    let flood: Vec<_> = std::iter::once(found_size(10))
        .chain((0..2000).map(|_| chunk_frame(&vec![7; MIB])))
        .collect();
    let reason = found(Version::V0, 2 * MIB, v0(flood, true)).await;
    assert!(
        matches!(reason, ProviderError::More { said_bytes: 10 }),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_bytes_than_said() {
    let short = vec![
        found_size(2 * MIB as u64),
        chunk_frame(&content(99, 2 * MIB)[..MIB]),
        chunk_frame(&[]),
    ];
    let reason = found(Version::V0, 2 * MIB, v0(short, true)).await;
    let expected = matches!(
        reason,
        ProviderError::Fewer { said_bytes, received_bytes }
            if said_bytes == 2 * MIB as u64 && received_bytes == MIB as u64
    );
    assert!(expected, "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bytes() {
    let other = vec![
        found_size(MIB as u64),
        chunk_frame(&content(98, MIB)),
        chunk_frame(&[]),
    ];
    let reason = found(Version::V0, MIB, v0(other, true)).await;
    let false_id = blob_id(&content(98, MIB));
    assert!(
        matches!(reason, ProviderError::Content { actual } if actual == false_id),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_blob_that_is_none() {
    let empty = vec![found_size(0), chunk_frame(&[])];
    let reason = found(Version::V0, MIB, v0(empty, true)).await;
    assert!(
        matches!(reason, ProviderError::Content { actual } if actual == blob_id(&[])),
        "{reason}"
    );
    // And content for the empty blob, which has none.
    let some = vec![found_size(0), chunk_frame(&[7; 10]), chunk_frame(&[])];
    let reason = found(Version::V0, 0, v0(some, true)).await;
    assert!(
        matches!(reason, ProviderError::More { said_bytes: 0 }),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn early_close() {
    let cut = vec![found_size(2 * MIB as u64), chunk_frame(&[7; 1000])];
    let reason = found(Version::V0, 2 * MIB, v0(cut, true)).await;
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
async fn close_inside_a_frame() {
    let torn = chunk_frame(&[7; 1000]).slice(..500);
    let reason = found(
        Version::V0,
        2 * MIB,
        v0(vec![found_size(2 * MIB as u64), torn], true),
    )
    .await;
    let cut = matches!(&reason, ProviderError::Frame { source } if matches!(**source, FrameError::Cut { .. }));
    assert!(cut, "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn close_without_an_answer() {
    let reason = found(Version::V0, MIB, v0(vec![], true)).await;
    assert!(
        matches!(reason, ProviderError::Closed { received_bytes: 0 }),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer() {
    let reason = found(Version::V0, MIB, v0(vec![], false)).await;
    assert!(matches!(reason, ProviderError::Stalled { .. }), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_end() {
    // All of it is there, and neither the empty chunk nor the close comes.
    let endless = vec![found_size(MIB as u64), chunk_frame(&content(99, MIB))];
    let reason = found(Version::V0, MIB, v0(endless, false)).await;
    assert!(matches!(reason, ProviderError::Stalled { .. }), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn drips() {
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
async fn a_size_beyond_all_bounds() {
    for size_bytes in [1 << 63, u64::MAX, (1 << 40) + 1] {
        let reason = found(Version::V0, MIB, v0(vec![found_size(size_bytes)], false)).await;
        assert!(
            matches!(reason, ProviderError::TooLarge { size_bytes: said, .. } if said == size_bytes),
            "{reason}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_of_eight_mib() {
    // Its claim is refused before it arrives.
    let prefix = (8 * MIB as u32).to_be_bytes();
    let large = vec![
        found_size(8 * MIB as u64 - 4),
        Bytes::copy_from_slice(&prefix),
    ];
    let reason = found(Version::V0, MIB, v0(large, false)).await;
    let refused = matches!(&reason, ProviderError::Frame { source } if matches!(**source, FrameError::TooLarge { .. }));
    assert!(refused, "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_bombs() {
    let deep = "[".repeat(16_000);
    let reason = found(Version::V0, MIB, v0(vec![frame(deep.as_bytes())], false)).await;
    assert!(
        matches!(
            reason,
            ProviderError::Handshake(HandshakeError::Json { .. })
        ),
        "{reason}"
    );
    let long = vec![b' '; MIB];
    let reason = found(Version::V0, MIB, v0(vec![frame(&long)], false)).await;
    assert!(
        matches!(
            reason,
            ProviderError::Handshake(HandshakeError::TooLong { .. })
        ),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn borsh_claims() {
    let claim = frame(&[0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
    let reason = found(
        Version::V0,
        MIB,
        v0(vec![found_size(MIB as u64), claim], false),
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
        v0(vec![found_size(MIB as u64), lie], false),
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
