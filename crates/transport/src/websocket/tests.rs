//! The byte stream of a WebSocket on an in-memory byte stream.

use std::io;

use futures::{AsyncReadExt, AsyncWriteExt, executor::block_on, poll};
use proptest::prelude::*;

use super::{
    frames::{FrameError, MAX_CONTROL_BYTES, Opcode, encode},
    stream::{Role, WebSocket},
};
use crate::pipe::{Pipe, pipe};

/// A frame of a client with the mask 1, 2, 3, 4.
fn frame(first: u8, claimed: usize, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let (mut header, end) = encode(Opcode::Binary, claimed, Some(mask));
    header[0] = first;
    let masked = payload.iter().zip(mask.iter().cycle());
    let payload = masked.map(|(byte, key)| byte ^ key);
    header[..end].iter().copied().chain(payload).collect()
}

/// A server that has received `bytes`, and the raw end of its client.
async fn server(bytes: &[u8]) -> (WebSocket<Pipe>, Pipe) {
    let (mut client, io) = pipe(1 << 20, &[3, 1, 1000, 7]);
    client.write_all(bytes).await.unwrap();
    (WebSocket::new(io, Role::Server), client)
}

async fn violation(bytes: &[u8]) -> FrameError {
    let (mut server, _client) = server(bytes).await;
    let error = server.read_to_end(&mut Vec::new()).await.unwrap_err();
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    *inner.unwrap_or_else(|| panic!("{error:?}"))
}

#[tokio::test]
async fn data_passes_in_both_directions() {
    let (near, far) = pipe(10_000, &[1, 5000, 13]);
    let (mut near, mut far) = (
        WebSocket::new(near, Role::Client),
        WebSocket::new(far, Role::Server),
    );
    let data: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
    for _ in 0..2 {
        let mut received = vec![0; data.len()];
        let send = async {
            near.write_all(&data).await.unwrap();
            near.flush().await.unwrap();
        };
        futures::join!(send, async { far.read_exact(&mut received).await.unwrap() });
        assert!(received == data);
        std::mem::swap(&mut near, &mut far);
    }
    let mut rest = Vec::new();
    let (closed, end) = futures::join!(near.close(), far.read_to_end(&mut rest));
    closed.unwrap();
    assert_eq!(end.unwrap(), 0);
}

#[tokio::test]
async fn bytes_are_returned_before_their_frame_is_complete() {
    let (mut server, _client) = server(&frame(0x82, 1 << 62, b"hello")).await;
    let mut bytes = [0; 5];
    server.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"hello");
}

#[tokio::test]
async fn fragments_and_control_frames_are_one_stream() {
    let parts = [
        frame(0x02, 2, b"he"),
        frame(0x89, 4, b"ping"),
        frame(0x00, 0, b""),
        frame(0x80, 3, b"llo"),
        frame(0x8a, 0, b""),
        frame(0x88, 2, &[0x03, 0xe8]),
    ];
    let (mut server, mut client) = server(&parts.concat()).await;
    let mut text = String::new();
    server.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello");
    let error = server.write(b"more").await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    drop(server);
    let mut answers = Vec::new();
    client.read_to_end(&mut answers).await.unwrap();
    assert_eq!(answers, b"\x8a\x04ping\x88\x02\x03\xe8");
}

#[tokio::test]
async fn violations_end_the_stream() {
    let mut unmasked = frame(0x82, 1, b"a");
    unmasked[1] &= 0x7f;
    assert_eq!(violation(&unmasked).await, FrameError::Mask);
    let (mut server, io) = pipe(100, &[100]);
    server.write_all(&frame(0x82, 1, b"a")).await.unwrap();
    let mut client = WebSocket::new(io, Role::Client);
    let error = client.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.to_string(), FrameError::Mask.to_string());
    assert_eq!(violation(&frame(0x80, 1, b"a")).await, FrameError::Fragment);
    let twice = [frame(0x02, 1, b"a"), frame(0x82, 1, b"a")].concat();
    assert_eq!(violation(&twice).await, FrameError::Fragment);
    assert_eq!(
        violation(&frame(0x81, 1, b"a")).await,
        FrameError::Opcode(1)
    );
}

#[tokio::test]
async fn an_end_inside_a_frame_is_an_error() {
    for cut in [1, 5, 8] {
        let bytes = frame(0x82, 9, b"incomplete");
        let (mut server, client) = server(&bytes[..cut]).await;
        drop(client);
        let error = server.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{cut}");
    }
}

#[tokio::test]
async fn many_pings_queue_a_bounded_number_of_answers() {
    let pings = frame(0x89, 125, &[7; 125]).repeat(4_000);
    let (mut client, io) = pipe(4096, &[1000]);
    let mut server = WebSocket::new(io, Role::Server);
    let mut data = Vec::new();
    // Nothing reads the answers.
    let send = async {
        client.write_all(&pings).await.unwrap();
        client.close().await.unwrap();
    };
    let (end, ()) = futures::join!(server.read_to_end(&mut data), send);
    assert_eq!(end.unwrap(), 0);
    // All answers are 508,000 bytes. The queue holds one frame with data and two control frames.
    let mut answers = Vec::new();
    let flush = async move {
        server.flush().await.unwrap();
        drop(server);
    };
    let ((), read) = futures::join!(flush, client.read_to_end(&mut answers));
    read.unwrap();
    let len = answers.len();
    assert!(!answers.is_empty() && len < 80_000, "{len} bytes");
}

#[tokio::test]
async fn one_poll_processes_a_bounded_number_of_empty_frames() {
    let (mut client, io) = pipe(1 << 20, &[1000]);
    let mut server = WebSocket::new(io, Role::Server);
    let empty = [frame(0x02, 0, b""), frame(0x00, 0, b"").repeat(999)].concat();
    let last = [frame(0x80, 1, b"a"), frame(0x8a, 0, b"").repeat(1_000)].concat();
    client.write_all(&empty).await.unwrap();
    client.write_all(&last).await.unwrap();
    let mut byte = [0];
    let mut read = server.read(&mut byte);
    let mut polls = 1;
    while poll!(&mut read).is_pending() {
        polls += 1;
    }
    assert_eq!(byte, *b"a");
    assert_eq!(polls, 1_000 / 32 + 1);
    let mut read = server.read(&mut byte);
    for _ in 0..1_000 / 32 {
        assert!(poll!(&mut read).is_pending());
    }
}

/// All bytes that `received` contains for a stream of `role`, and how they end. The bytes arrive in
/// pieces of the lengths `cuts`.
fn read(received: &[u8], cuts: &[usize], role: Role) -> (Vec<u8>, Result<(), io::ErrorKind>) {
    block_on(async {
        let (mut far, io) = pipe(1 << 20, cuts);
        far.write_all(received).await.unwrap();
        far.close().await.unwrap();
        let mut data = Vec::new();
        let end = WebSocket::new(io, role).read_to_end(&mut data).await;
        (data, end.map(drop).map_err(|error| error.kind()))
    })
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1_usize..40, 1..8)
}

/// Bytes that begin as frames of a client or a server, so that most of them get past the header.
fn nearly_frames() -> impl Strategy<Value = Vec<u8>> {
    let first = prop::sample::select(vec![0x00, 0x02, 0x80, 0x82, 0x88, 0x89, 0x8a, 0x81, 0xc2]);
    let part = (
        first,
        0_u8..=255,
        prop::collection::vec(any::<u8>(), 0..140),
    );
    prop::collection::vec(part, 0..6).prop_map(|parts| {
        let parts = parts.into_iter();
        let bytes = parts.flat_map(|(first, second, rest)| [vec![first, second], rest].concat());
        bytes.collect()
    })
}

proptest! {
    #[test]
    fn the_cuts_of_received_bytes_do_not_matter(
        received in prop_oneof![nearly_frames(), prop::collection::vec(any::<u8>(), 0..300)],
        cuts in cuts(),
        is_server in any::<bool>(),
    ) {
        let role = if is_server { Role::Server } else { Role::Client };
        let (data, end) = read(&received, &cuts, role);
        prop_assert!(data.len() <= received.len());
        prop_assert_eq!((data, end), read(&received, &[usize::MAX], role));
    }

    /// A stream of fragments with control frames between them has the payload of the fragments.
    #[test]
    fn fragments_in_any_cuts_are_read_whole(
        parts in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), any::<bool>(), any::<bool>()), 1..12),
        cuts in cuts(),
    ) {
        let (mut received, mut expected, mut is_start) = (Vec::new(), Vec::new(), true);
        for (payload, is_last, has_ping) in parts {
            let opcode = if is_start { 0x02 } else { 0x00 };
            received.extend(frame(opcode | u8::from(is_last) << 7, payload.len(), &payload));
            if has_ping {
                let length = payload.len().min(MAX_CONTROL_BYTES);
                received.extend(frame(0x89, length, &payload[..length]));
            }
            expected.extend(payload);
            is_start = is_last;
        }
        prop_assert_eq!(read(&received, &cuts, Role::Server), (expected, Ok(())));
    }
}
