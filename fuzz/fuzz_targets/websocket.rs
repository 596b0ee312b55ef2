//! The frames of WebSocket against a decoder that could not be simpler: however the bytes are cut,
//! both read the same data, send the same answers and end in the same way.
//!
//! The lowest bit of the first byte of an input chooses the side, the second byte how many of the
//! bytes that follow it are the cuts of the rest.
#![no_main]

use std::io::ErrorKind;

use calimero_network_transport::fuzzing;
use futures::{AsyncRead, AsyncReadExt, AsyncWriteExt, executor::block_on};
use libfuzzer_sys::fuzz_target;

#[path = "../shared/pieces.rs"]
mod pieces;

use pieces::Pieces;

/// What a stream reads: the data, the frames that answer control frames, and the end.
#[derive(Debug, Default, PartialEq)]
struct Read {
    data: Vec<u8>,
    answers: Vec<u8>,
    error: Option<ErrorKind>,
}

/// Takes `count` bytes from the front, all of the rest if there are fewer.
fn take<'a>(wire: &mut &'a [u8], count: u64) -> Option<&'a [u8]> {
    let count = usize::try_from(count).ok()?;
    let (taken, rest) = wire.split_at_checked(count)?;
    *wire = rest;
    Some(taken)
}

/// Reads all frames at once, a copy for each payload.
fn naive(mut wire: &[u8], is_server: bool) -> Read {
    let mut read = Read::default();
    let mut in_message = false;
    while !wire.is_empty() && read.error.is_none() {
        let end = naive_frame(&mut wire, is_server, &mut in_message, &mut read);
        match end {
            Ok(true) => {}
            Ok(false) => break,
            Err(kind) => read.error = Some(kind),
        }
    }
    read
}

/// Reads one frame. Returns whether another one may follow.
fn naive_frame(
    wire: &mut &[u8],
    is_server: bool,
    in_message: &mut bool,
    read: &mut Read,
) -> Result<bool, ErrorKind> {
    const CUT: ErrorKind = ErrorKind::UnexpectedEof;
    const INVALID: ErrorKind = ErrorKind::InvalidData;
    let start = take(wire, 2).ok_or(CUT)?;
    let (is_last, reserved, opcode) = (start[0] & 0x80 != 0, start[0] & 0x70, start[0] & 0x0f);
    let (is_masked, short) = (start[1] & 0x80 != 0, start[1] & 0x7f);
    let is_control = matches!(opcode, 8..=10);
    if reserved != 0 || !(is_control || matches!(opcode, 0 | 2)) {
        return Err(INVALID);
    }
    if is_control && (!is_last || short > 125) {
        return Err(INVALID);
    }
    let more = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mut rest = *wire;
    let long = take(&mut rest, more).ok_or(CUT)?;
    let mask = take(&mut rest, if is_masked { 4 } else { 0 }).ok_or(CUT)?;
    *wire = rest;
    let length = match more {
        0 => u64::from(short),
        _ => long.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    };
    if length >= 1 << 63 || is_masked != is_server {
        return Err(INVALID);
    }
    if !is_control {
        if *in_message != (opcode == 0) {
            return Err(INVALID);
        }
        *in_message = !is_last;
    }
    let present = length.min(wire.len() as u64);
    let payload = take(wire, present).expect("they are present");
    let payload: Vec<u8> = match is_masked {
        true => payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, key)| byte ^ key)
            .collect(),
        false => payload.to_vec(),
    };
    if !is_control {
        read.data.extend(&payload);
    }
    if present < length {
        return Err(CUT);
    }
    match opcode {
        8 => {
            let code = payload
                .first_chunk()
                .copied()
                .unwrap_or(1000_u16.to_be_bytes());
            read.answers.extend([0x88, 2, code[0], code[1]]);
            return Ok(false);
        }
        9 => {
            read.answers.extend([0x8a, short]);
            read.answers.extend(payload);
        }
        _ => {}
    }
    Ok(true)
}

/// Reads a stream to its end, in steps of the lengths `cuts`.
async fn all(mut stream: impl AsyncRead + Unpin, cuts: &[u8]) -> (Vec<u8>, Option<ErrorKind>) {
    let mut data = Vec::new();
    let mut space = [0; 256];
    let mut cuts = cuts.iter().cycle();
    loop {
        let length = cuts.next().map_or(space.len(), |cut| usize::from(*cut) + 1);
        match stream.read(&mut space[..length]).await {
            Ok(0) => return (data, None),
            Ok(count) => data.extend(&space[..count]),
            Err(error) => return (data, Some(error.kind())),
        }
    }
}

fn check_frames(wire: &[u8], cuts: &[u8], is_server: bool) {
    let expected = naive(wire, is_server);
    let mut io = Pieces::new(wire, cuts);
    let (data, error) = block_on(async {
        match is_server {
            true => all(fuzzing::server(&mut io), cuts).await,
            false => all(fuzzing::client(&mut io), cuts).await,
        }
    });
    assert_eq!(data, expected.data);
    assert_eq!(error, expected.error);
    if is_server {
        assert_eq!(io.written, expected.answers);
    } else {
        // The answers of a client have random masks of four bytes, one each.
        assert!(io.written.len() >= expected.answers.len());
        assert_eq!(io.written.is_empty(), expected.answers.is_empty());
    }
}

/// Data that one side writes, in pieces of the lengths `cuts`, is what the other side reads.
fn check_round_trip(data: &[u8], cuts: &[u8], is_server: bool) {
    let mut io = Pieces::new(&[], &[]);
    block_on(async {
        let mut rest = data;
        let mut lengths = cuts.iter().cycle();
        let mut send = async |mut stream: Box<dyn futures::AsyncWrite + Unpin + '_>| {
            while !rest.is_empty() {
                let length = lengths
                    .next()
                    .map_or(rest.len(), |cut| usize::from(*cut) + 1);
                let (piece, behind) = rest.split_at(length.min(rest.len()));
                stream.write_all(piece).await.expect("the pipe is open");
                rest = behind;
            }
            stream.close().await.expect("the pipe is open");
        };
        match is_server {
            true => send(Box::new(fuzzing::server(&mut io))).await,
            false => send(Box::new(fuzzing::client(&mut io))).await,
        }
    });
    let written = io.written;
    let read = naive(&written, !is_server);
    assert_eq!((read.data.as_slice(), read.error), (data, None));
    check_frames(&written, cuts, !is_server);
}

fuzz_target!(|input: &[u8]| {
    let [side, cuts, rest @ ..] = input else {
        return;
    };
    let is_server = side & 1 == 0;
    let (cuts, wire) = rest.split_at(usize::from(*cuts).min(rest.len()));
    check_frames(wire, cuts, is_server);
    check_round_trip(wire, cuts, is_server);
});
