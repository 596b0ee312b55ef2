//! The opening handshake of WebSocket, on both sides.
//!
//! The lowest bit of the first byte of an input chooses the side, the second byte how many of the
//! bytes that follow it are the cuts of the rest, which is a request or a response.
#![no_main]

use calimero_network_transport::fuzzing::{self, MAX_HEAD_BYTES};
use futures::executor::block_on;
use libfuzzer_sys::fuzz_target;

#[path = "../shared/pieces.rs"]
mod pieces;

use pieces::Pieces;

const END: &[u8] = b"\r\n\r\n";

/// Length of a request or response with the empty line at its end.
fn head_len(bytes: &[u8]) -> Option<usize> {
    let start = bytes.windows(END.len()).position(|part| part == END)?;
    Some(start + END.len())
}

fn check_request(request: &[u8], cuts: &[u8]) {
    let mut io = Pieces::new(request, cuts);
    let is_accepted = block_on(fuzzing::accept(&mut io));
    let read = request.len() - io.unread.len();
    assert!(read <= MAX_HEAD_BYTES, "{read} bytes were read");
    match head_len(request).filter(|length| *length <= MAX_HEAD_BYTES) {
        // The bytes after the head are those of the frames.
        Some(length) => assert_eq!(read, length),
        None => assert!(!is_accepted),
    }
    let answer = String::from_utf8(io.written).expect("an answer is text");
    if is_accepted {
        let head = request[..read].to_ascii_lowercase();
        let has = |part: &[u8]| head.windows(part.len()).any(|found| found == part);
        assert!(has(b"get ") && has(b" http/1.1") && has(b"sec-websocket-key"));
        assert!(has(b"websocket") && has(b"upgrade"));
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert_eq!(answer.lines().count(), 5, "{answer}");
    } else if !answer.is_empty() {
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert!(answer.is_empty() || head_len(answer.as_bytes()) == Some(answer.len()));
}

fn check_response(response: &[u8], cuts: &[u8]) {
    let mut io = Pieces::new(response, cuts);
    let is_accepted = block_on(fuzzing::connect(&mut io, "127.0.0.1:1", "/"));
    // The key of the request is random: no prepared response answers it.
    assert!(!is_accepted);
    assert!(response.len() - io.unread.len() <= MAX_HEAD_BYTES);
    // The own server accepts the request.
    let mut server = Pieces::new(&io.written, cuts);
    assert!(block_on(fuzzing::accept(&mut server)));
}

fuzz_target!(|input: &[u8]| {
    let [side, cuts, rest @ ..] = input else {
        return;
    };
    let (cuts, head) = rest.split_at(usize::from(*cuts).min(rest.len()));
    match side & 1 {
        0 => check_request(head, cuts),
        _ => check_response(head, cuts),
    }
});
