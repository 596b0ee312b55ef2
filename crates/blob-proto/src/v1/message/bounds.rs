//! Each field at its limit, which is written and read, and one beyond, which is neither.

#![allow(
    clippy::single_range_in_vec_init,
    reason = "a request names ranges, often one"
)]

use super::*;

const BLOB: BlobId = BlobId::new([0x22; 32]);
const CHUNKS: u64 = MAX_BLOB_CHUNKS as u64;

fn field(error: MessageError) -> &'static str {
    match error {
        MessageError::Field { field } => field,
        other => panic!("{other:?}"),
    }
}

/// The field that is out of bounds, which writing and checking agree on.
fn refused(request: &Request) -> Option<&'static str> {
    let mut wire = BytesMut::new();
    let written = request.encode(&mut wire).err().map(field);
    if written.is_none() {
        assert_eq!(Request::decode(&wire).as_ref(), Ok(request));
    }
    written
}

fn refused_response(response: &Response) -> Option<&'static str> {
    match response.parts() {
        Ok((head, payload)) => {
            let wire = [&head[..], &payload].concat().into();
            assert_eq!(Response::decode(&wire).as_ref(), Ok(response));
            None
        }
        Err(error) => Some(field(error)),
    }
}

/// Why bytes of one kind of message, followed by numbers, are not read.
fn unread(kind: u8, numbers: &[u64]) -> Option<MessageError> {
    let mut wire = BytesMut::new();
    wire.put_u8(kind);
    numbers
        .iter()
        .for_each(|number| put_number(&mut wire, *number));
    match kind {
        0..0x80 => Request::decode(&wire).err(),
        _ => Response::decode(&wire.freeze()).err(),
    }
}

fn get(inline_max_bytes: u64, from: u64) -> Request {
    Request::Get {
        blob_id: BLOB,
        inline_max_bytes,
        from,
    }
}

fn read(ranges: Vec<Range<u64>>) -> Request {
    Request::Read {
        blob_id: BLOB,
        ranges,
    }
}

/// That many ranges of one chunk each, with gaps between them.
fn singles(count: u64) -> Vec<Range<u64>> {
    (0..count).map(|at| 2 * at..2 * at + 1).collect()
}

#[test]
fn requests_for_lists_have_limits() {
    let inline = MAX_INLINE_BYTES as u64;
    assert_eq!(refused(&get(inline, CHUNKS)), None);
    assert_eq!(refused(&get(inline + 1, 0)), Some("inline_max_bytes"));
    assert_eq!(refused(&get(0, CHUNKS + 1)), Some("from"));
    assert_eq!(refused(&Request::Got { index: CHUNKS - 1 }), None);
    assert_eq!(refused(&Request::Got { index: CHUNKS }), Some("index"));
    let index = MessageError::Field { field: "index" };
    assert_eq!(unread(GOT, &[CHUNKS - 1]), None);
    assert_eq!(unread(GOT, &[CHUNKS]), Some(index));
}

#[test]
fn requests_for_chunks_have_limits() {
    let most = MAX_READ_RANGES as u64;
    for (ranges, expected) in [
        (singles(1), None),
        (singles(most), None),
        (singles(0), Some("ranges")),
        (singles(most + 1), Some("ranges")),
        (Vec::from([0..MAX_READ_CHUNKS]), None),
        (vec![0..1, 1..MAX_READ_CHUNKS], None),
        (Vec::from([0..MAX_READ_CHUNKS + 1]), Some("chunks")),
        (vec![0..2, 2..MAX_READ_CHUNKS + 1], Some("chunks")),
        (Vec::from([CHUNKS - 1..CHUNKS]), None),
        (Vec::from([CHUNKS..CHUNKS + 1]), Some("range")),
        (vec![3..5, 5..6], None),
        (vec![3..5, 4..6], Some("range")),
        (Vec::from([3..3]), Some("range")),
    ] {
        assert_eq!(refused(&read(ranges.clone())), expected, "{ranges:?}");
    }
}

#[test]
fn ranges_that_are_read_do_not_overflow() {
    let range = Some(MessageError::Field { field: "range" });
    let ranges = Some(MessageError::Field { field: "ranges" });
    assert_eq!(unread(HAVE, &[1, u64::MAX, 1]), range);
    assert_eq!(unread(HAVE, &[2, 1, 1, u64::MAX, 1]), range);
    assert_eq!(unread(HAVE, &[MAX_HAVE_RANGES as u64 + 1]), ranges);
    assert_eq!(unread(HAVE, &[2, 1, 1]), Some(MessageError::Truncated));
    assert_eq!(unread(HAVE, &[0]), None);
    let extra_bytes = 1;
    let trailing = Some(MessageError::Trailing { extra_bytes });
    assert_eq!(unread(HAVE, &[0, 0]), trailing);
    assert_eq!(unread(GOT, &[0, 0]), trailing);
}

#[test]
fn lists_and_contents_have_limits() {
    let list = |size_bytes, from, bytes| {
        Response::List(ListPage {
            size_bytes,
            from,
            digests: vec![7; bytes].into(),
        })
    };
    let inline = |bytes: usize| Response::Inline {
        content: vec![7; bytes].into(),
    };
    let chunk = |index, bytes| Response::Chunk {
        index,
        data: vec![7; bytes].into(),
    };
    for (response, expected) in [
        (list(MAX_BLOB_BYTES, CHUNKS, BLOB_CHUNK_BYTES), None),
        (list(MAX_BLOB_BYTES + 1, 0, 0), Some("size_bytes")),
        (list(0, CHUNKS + 1, 0), Some("from")),
        (list(0, 0, 31), Some("digests")),
        (list(0, 0, BLOB_CHUNK_BYTES + 32), Some("digests")),
        (inline(0), None),
        (inline(MAX_INLINE_BYTES), None),
        (inline(MAX_INLINE_BYTES + 1), Some("content")),
        (chunk(CHUNKS - 1, 1), None),
        (chunk(CHUNKS, 1), Some("index")),
        (chunk(0, BLOB_CHUNK_BYTES), None),
        (chunk(0, 0), Some("data")),
        (chunk(0, BLOB_CHUNK_BYTES + 1), Some("data")),
    ] {
        assert_eq!(refused_response(&response), expected);
    }
}

#[test]
fn reports_have_limits() {
    let have = |ranges| Response::Have { ranges };
    let peers = |count, bytes| Response::Peers {
        peers: vec![vec![7; bytes]; count],
    };
    let absent = |index, retry_after_ms| Response::Absent {
        index,
        retry_after_ms,
    };
    let most = MAX_HAVE_RANGES as u64;
    for (response, expected) in [
        (have(singles(0)), None),
        (have(singles(most)), None),
        (have(singles(most + 1)), Some("ranges")),
        (have(Vec::from([0..CHUNKS])), None),
        (have(Vec::from([0..CHUNKS + 1])), Some("range")),
        (peers(1, 1), None),
        (peers(MAX_NAMED_PEERS, MAX_PEER_ID_BYTES), None),
        (peers(0, 1), Some("peers")),
        (peers(MAX_NAMED_PEERS + 1, 1), Some("peers")),
        (peers(1, 0), Some("peer")),
        (peers(1, MAX_PEER_ID_BYTES + 1), Some("peer")),
        (absent(CHUNKS - 1, MAX_RETRY_MS), None),
        (absent(CHUNKS, 0), Some("index")),
        (absent(0, MAX_RETRY_MS + 1), Some("retry_after_ms")),
    ] {
        assert_eq!(refused_response(&response), expected, "{response:?}");
    }
    // A claim is refused before anything of it is read.
    let most = MAX_NAMED_PEERS as u64;
    let named = |field| Some(MessageError::Field { field });
    assert_eq!(unread(PEERS, &[most + 1]), named("peers"));
    assert_eq!(unread(PEERS, &[most]), Some(MessageError::Truncated));
    let longest = MAX_PEER_ID_BYTES as u64;
    assert_eq!(unread(PEERS, &[1, longest + 1]), named("peer"));
    assert_eq!(unread(PEERS, &[1, longest]), Some(MessageError::Truncated));
}

#[test]
fn a_refusal_has_a_time_only_where_it_is_busy() {
    for refusal in [
        Refusal::NotFound,
        Refusal::Busy { retry_after_ms: 0 },
        Refusal::Busy {
            retry_after_ms: u64::MAX,
        },
        Refusal::Failed,
    ] {
        assert_eq!(refused_response(&Response::Refused(refusal)), None);
    }
    let reason = Some(MessageError::Field { field: "reason" });
    for numbers in [[0, 1], [2, 1], [3, 0]] {
        assert_eq!(unread(REFUSED, &numbers), reason);
    }
}

#[test]
fn flags_are_zero_or_one_and_kinds_are_known() {
    let hello = |flag: u8| [&[HELLO][..], &[0x11; 32], &[flag]].concat();
    let watch = |flag: u8| [&[WATCH][..], &[0x22; 32], &[flag]].concat();
    assert!(Request::decode(&hello(0)).is_ok());
    assert_eq!(Request::decode(&hello(1)), Err(MessageError::Truncated));
    let auth = MessageError::Field { field: "auth" };
    assert_eq!(Request::decode(&hello(2)), Err(auth));
    for (flag, serves) in [(0, false), (1, true)] {
        let request = Request::Watch {
            blob_id: BLOB,
            serves,
        };
        assert_eq!(Request::decode(&watch(flag)), Ok(request));
    }
    let serves = MessageError::Field { field: "serves" };
    assert_eq!(Request::decode(&watch(2)), Err(serves));
    for kind in [GOT + 1, LIST - 1, LIST] {
        let unknown = Some(MessageError::Unknown { kind });
        assert_eq!(Request::decode(&[kind]).err(), unknown);
    }
    for kind in [HELLO, LIST - 1, ABSENT + 1] {
        let unknown = Some(MessageError::Unknown { kind });
        let frame = Bytes::copy_from_slice(&[kind]);
        assert_eq!(Response::decode(&frame).err(), unknown);
    }
    assert_eq!(Request::decode(&[]), Err(MessageError::Truncated));
}

#[test]
fn a_number_has_one_encoding() {
    for (bytes, read) in [
        (&[0x7f][..], Ok(Some((0x7f, 1)))),
        (&[0x80, 1], Ok(Some((0x80, 2)))),
        (&[0x80], Ok(None)),
        (&[], Ok(None)),
        (&[0x80, 0], Err(MessageError::Number)),
        (&[0xff; 10], Err(MessageError::Number)),
        (&[0xff; 11], Err(MessageError::Number)),
        (
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            Ok(Some((u64::MAX, 10))),
        ),
        // Bits beyond the 64th.
        (
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 3],
            Err(MessageError::Number),
        ),
    ] {
        assert_eq!(read_number(bytes), read, "{bytes:?}");
    }
}

#[test]
fn messages_of_1_1_are_told_from_those_of_1_0() {
    let blob_id = BLOB;
    let hello = Request::Hello(Hello {
        context_id: [0x11; 32].into(),
        auth: None,
    });
    for (request, is_of_1_1) in [
        (hello, false),
        (get(0, 0), false),
        (read(singles(1)), false),
        (
            Request::Watch {
                blob_id,
                serves: true,
            },
            true,
        ),
        (Request::Got { index: 0 }, true),
    ] {
        assert_eq!(request.is_of_1_1(), is_of_1_1, "{request:?}");
    }
    let (ranges, peers, content) = (Vec::new(), Vec::new(), Bytes::new());
    for (response, is_of_1_1) in [
        (Response::Inline { content }, false),
        (Response::Refused(Refusal::Failed), false),
        (Response::Have { ranges }, true),
        (Response::Peers { peers }, true),
        (
            Response::Absent {
                index: 0,
                retry_after_ms: 0,
            },
            true,
        ),
    ] {
        assert_eq!(response.is_of_1_1(), is_of_1_1, "{response:?}");
    }
}
