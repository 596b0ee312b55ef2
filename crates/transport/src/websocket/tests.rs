//! The byte stream of a WebSocket on an in-memory byte stream.

use futures::{AsyncReadExt, AsyncWriteExt};

use super::{
    frames::{FrameError, Opcode, encode},
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
}
