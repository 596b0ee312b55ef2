//! The newer protocol: vectors of another implementation, and hostile input.

#![allow(
    clippy::single_range_in_vec_init,
    reason = "chunks are asked for in ranges, often in one"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

use std::{ops::Range, sync::LazyLock};

use asynchronous_codec::{Decoder, Encoder, FramedRead, FramedWrite};
use bytes::{Bytes, BytesMut};
use calimero_network_blob::{
    BlobHasher, BlobId, CHUNK_HASH_BYTES,
    error::{AuthError, ListError},
    v1::{
        CodecError, Hello, ListAssembly, ListPage, MAX_HAVE_RANGES, MAX_NAMED_PEERS,
        MAX_PAGE_HASHES, MAX_PEER_ID_BYTES, MAX_RESPONSE_BYTES, MAX_RETRY_MS, MessageError,
        PageError, ProviderCodec, Refusal, Request, RequesterCodec, Response, SessionAuth,
    },
};
use calimero_network_primitives::{
    ContextId, PeerId,
    identity::ed25519::{self, SecretKey},
    limits::BLOB_CHUNK_BYTES,
};
use futures::{SinkExt, StreamExt, executor::block_on, io::Cursor};
use proptest::prelude::*;
use serde_json::Value;

static VECTORS: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../testdata/blob-v1.json")).expect("vectors are JSON")
});

const BLOB: BlobId = BlobId::new([0x22; 32]);
const CONTEXT: ContextId = ContextId::new([0x11; 32]);

fn bytes(value: &Value, key: &str) -> Vec<u8> {
    let text = value[key]
        .as_str()
        .unwrap_or_else(|| panic!("{key} is no text"));
    hex::decode(text).unwrap()
}

fn number(value: &Value, key: &str) -> u64 {
    value[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key} is no number"))
}

fn session() -> (ed25519::Keypair, PeerId, PeerId, u64) {
    let vector = &VECTORS["session_auth"];
    let seed = SecretKey::try_from_bytes(bytes(vector, "signer_seed_hex")).unwrap();
    let peer = |key| PeerId::from_bytes(&bytes(vector, key)).unwrap();
    let (requester, provider) = (peer("requester_peer_id_hex"), peer("provider_peer_id_hex"));
    (
        seed.into(),
        requester,
        provider,
        number(vector, "timestamp"),
    )
}

fn auth() -> SessionAuth {
    let (signer, requester, provider, timestamp) = session();
    SessionAuth::sign(&signer, &CONTEXT, &requester, &provider, timestamp).unwrap()
}

fn decode_request(wire: &[u8]) -> Result<Option<Request>, CodecError> {
    ProviderCodec.decode(&mut BytesMut::from(wire))
}

fn decode_response(wire: &[u8]) -> Result<Option<Response>, CodecError> {
    RequesterCodec.decode(&mut BytesMut::from(wire))
}

fn encode_request(request: &Request) -> BytesMut {
    let mut wire = BytesMut::new();
    RequesterCodec.encode(request.clone(), &mut wire).unwrap();
    wire
}

fn encode_response(response: &Response) -> BytesMut {
    let mut wire = BytesMut::new();
    ProviderCodec.encode(response.clone(), &mut wire).unwrap();
    wire
}

#[test]
fn requests() {
    let vectors = &VECTORS["requests"];
    let get = |name: &str| Request::Get {
        blob_id: BLOB,
        inline_max_bytes: number(&vectors[name], "inline_max_bytes"),
        from: number(&vectors[name], "from"),
    };
    let ranges = vectors["read"]["ranges"].as_array().unwrap().iter();
    let ranges = ranges.map(|range| range[0].as_u64().unwrap()..range[1].as_u64().unwrap());
    let hello = |auth| {
        Request::Hello(Hello {
            context_id: CONTEXT,
            auth,
        })
    };
    for (name, request) in [
        ("hello_without_auth", hello(None)),
        ("hello_with_auth", hello(Some(auth()))),
        ("get", get("get")),
        ("get_second_page", get("get_second_page")),
        (
            "read",
            Request::Read {
                blob_id: BLOB,
                ranges: ranges.collect(),
            },
        ),
    ] {
        let wire = bytes(&vectors[name], "frame_hex");
        assert_eq!(encode_request(&request), wire, "{name}");
        assert_eq!(decode_request(&wire).unwrap(), Some(request), "{name}");
    }
}

#[test]
fn responses() {
    let vectors = &VECTORS["responses"];
    let list = |name: &str| {
        Response::List(ListPage {
            size_bytes: number(&vectors[name], "size_bytes"),
            from: number(&vectors[name], "from"),
            digests: bytes(&vectors[name], "digests_hex").into(),
        })
    };
    let chunk = Response::Chunk {
        index: number(&vectors["chunk"], "index"),
        data: bytes(&vectors["chunk"], "data_hex").into(),
    };
    let busy = Refusal::Busy {
        retry_after_ms: number(&vectors["refused_busy"], "retry_after_ms"),
    };
    for (name, response) in [
        ("list", list("list")),
        ("list_of_the_empty_blob", list("list_of_the_empty_blob")),
        (
            "inline",
            Response::Inline {
                content: bytes(&vectors["inline"], "content_hex").into(),
            },
        ),
        ("chunk", chunk),
        ("refused_not_found", Response::Refused(Refusal::NotFound)),
        ("refused_busy", Response::Refused(busy)),
        ("refused_failed", Response::Refused(Refusal::Failed)),
    ] {
        let wire = bytes(&vectors[name], "frame_hex");
        assert_eq!(encode_response(&response), wire, "{name}");
        assert_eq!(decode_response(&wire).unwrap(), Some(response), "{name}");
    }
}

fn ranges_of(value: &Value) -> Vec<Range<u64>> {
    let ranges = value["ranges"].as_array().unwrap().iter();
    let ranges = ranges.map(|range| range[0].as_u64().unwrap()..range[1].as_u64().unwrap());
    ranges.collect()
}

#[test]
fn messages_of_1_1() {
    let vectors = &VECTORS["requests_1_1"];
    let watch = |name: &str| Request::Watch {
        blob_id: BLOB,
        serves: vectors[name]["serves"].as_bool().unwrap(),
    };
    let index = number(&vectors["got"], "index");
    for (name, request) in [
        ("watch", watch("watch")),
        ("watch_and_serve", watch("watch_and_serve")),
        ("got", Request::Got { index }),
    ] {
        let wire = bytes(&vectors[name], "frame_hex");
        assert!(request.is_of_1_1(), "{name}");
        assert_eq!(encode_request(&request), wire, "{name}");
        assert_eq!(decode_request(&wire).unwrap(), Some(request), "{name}");
    }
    let vectors = &VECTORS["responses_1_1"];
    let have = |name: &str| Response::Have {
        ranges: ranges_of(&vectors[name]),
    };
    let absent = |name: &str| Response::Absent {
        index: number(&vectors[name], "index"),
        retry_after_ms: number(&vectors[name], "retry_after_ms"),
    };
    let peers = vectors["peers"]["peers_hex"].as_array().unwrap().iter();
    let peers = peers.map(|peer| hex::decode(peer.as_str().unwrap()).unwrap());
    for (name, response) in [
        ("have", have("have")),
        ("have_nothing", have("have_nothing")),
        (
            "peers",
            Response::Peers {
                peers: peers.collect(),
            },
        ),
        ("absent", absent("absent")),
        ("absent_for_now", absent("absent_for_now")),
    ] {
        let wire = bytes(&vectors[name], "frame_hex");
        assert!(response.is_of_1_1(), "{name}");
        assert_eq!(encode_response(&response), wire, "{name}");
        assert_eq!(decode_response(&wire).unwrap(), Some(response), "{name}");
    }
}

#[test]
fn messages_of_1_1_have_bounds() {
    let over = MAX_HAVE_RANGES as u64 + 1;
    let ranges = (0..over).map(|at| 2 * at..2 * at + 1).collect();
    let end = 1 << 20;
    for (response, field) in [
        (Response::Have { ranges }, "ranges"),
        (
            Response::Have {
                ranges: Vec::from([end - 1..end + 1]),
            },
            "range",
        ),
        (
            Response::Have {
                ranges: vec![4..5, 4..6],
            },
            "range",
        ),
        (Response::Peers { peers: Vec::new() }, "peers"),
        (
            Response::Peers {
                peers: vec![vec![1]; MAX_NAMED_PEERS + 1],
            },
            "peers",
        ),
        (
            Response::Peers {
                peers: vec![Vec::new()],
            },
            "peer",
        ),
        (
            Response::Peers {
                peers: vec![vec![1; MAX_PEER_ID_BYTES + 1]],
            },
            "peer",
        ),
        (
            Response::Absent {
                index: end,
                retry_after_ms: 0,
            },
            "index",
        ),
        (
            Response::Absent {
                index: 0,
                retry_after_ms: MAX_RETRY_MS + 1,
            },
            "retry_after_ms",
        ),
    ] {
        let result = ProviderCodec.encode(response.clone(), &mut BytesMut::new());
        let Err(CodecError::Message(MessageError::Field { field: named })) = result else {
            panic!("{response:?}: {result:?}")
        };
        assert_eq!(named, field, "{response:?}");
    }
    // The same limits hold for what is read; one more peer than allowed, and a peer that is cut.
    for wire in [
        &[3, 0x85, 17, 1][..],
        &[4, 0x85, 1, 2, 1],
        &[4, 0x86, 0, 0, 0],
        &[2, 0x84, 1],
        &[4, 0x84, 1, 0, 0],
    ] {
        let result = decode_response(wire);
        assert!(matches!(result, Err(CodecError::Message(_))), "{wire:?}");
    }
    let mut watch = bytes(&VECTORS["requests_1_1"]["watch"], "frame_hex");
    *watch.last_mut().unwrap() = 2;
    let result = decode_request(&watch);
    assert!(matches!(
        result,
        Err(CodecError::Message(MessageError::Field { field: "serves" }))
    ));
}

#[test]
fn what_is_invalid_is_refused() {
    for (name, wire) in VECTORS["invalid_requests"].as_object().unwrap() {
        let wire = hex::decode(wire.as_str().unwrap()).unwrap();
        let result = decode_request(&wire);
        assert!(
            matches!(result, Err(CodecError::Message(_))),
            "{name}: {result:?}"
        );
    }
    for (name, wire) in VECTORS["invalid_responses"].as_object().unwrap() {
        let wire = hex::decode(wire.as_str().unwrap()).unwrap();
        let result = decode_response(&wire);
        assert!(
            matches!(result, Err(CodecError::Message(_))),
            "{name}: {result:?}"
        );
    }
}

#[test]
fn what_is_invalid_is_not_written() {
    let many: Vec<Range<u64>> = (0..65).map(|at| 2 * at..2 * at + 1).collect();
    let reversed = vec![Range { start: 5, end: 3 }];
    let long = vec![Range {
        start: 0,
        end: 1025,
    }];
    for ranges in [vec![], many, reversed, vec![3..5, 4..6], long] {
        let request = Request::Read {
            blob_id: BLOB,
            ranges,
        };
        let result = RequesterCodec.encode(request, &mut BytesMut::new());
        assert!(matches!(
            result,
            Err(CodecError::Message(MessageError::Field { .. }))
        ));
    }
    let data = Bytes::from(vec![0; BLOB_CHUNK_BYTES + 1]);
    let result = ProviderCodec.encode(Response::Chunk { index: 0, data }, &mut BytesMut::new());
    assert!(matches!(
        result,
        Err(CodecError::Message(MessageError::Field { field: "data" }))
    ));
}

#[test]
fn the_session_is_bound_to_its_ends() {
    let (signer, requester, provider, timestamp) = session();
    let auth = auth();
    let vector = &VECTORS["session_auth"];
    assert_eq!(auth.public_key.as_slice(), bytes(vector, "public_key_hex"));
    assert_eq!(auth.signature.as_slice(), bytes(vector, "signature_hex"));
    assert!(
        signer
            .public()
            .verify(&bytes(vector, "signed_message_hex"), &auth.signature)
    );

    let verify = |requester, provider, now| auth.verify(&CONTEXT, requester, provider, now);
    assert_eq!(verify(&requester, &provider, timestamp + 30), Ok(()));
    assert_eq!(verify(&requester, &provider, timestamp - 10), Ok(()));
    assert_eq!(
        verify(&provider, &requester, timestamp),
        Err(AuthError::Signature)
    );
    assert_eq!(
        verify(&requester, &requester, timestamp),
        Err(AuthError::Signature)
    );
    let expired = verify(&requester, &provider, timestamp + 31);
    assert_eq!(
        expired,
        Err(AuthError::Expired {
            age_s: 31,
            max_age_s: 30
        })
    );
    let future = verify(&requester, &provider, timestamp - 11);
    assert_eq!(
        future,
        Err(AuthError::Future {
            ahead_s: 11,
            max_ahead_s: 10
        })
    );
    let other = auth.verify(&ContextId::new([9; 32]), &requester, &provider, timestamp);
    assert_eq!(other, Err(AuthError::Signature));
}

/// Pages of a list of `chunks` hashes of nothing in particular, and the id they prove.
fn pages(chunks: usize) -> (BlobId, Vec<ListPage>) {
    use sha2::{Digest, Sha256};
    let digests: Vec<u8> = (0..chunks)
        .flat_map(|at| Sha256::digest(at.to_le_bytes()))
        .collect();
    let id = BlobId::new(Sha256::digest(&digests).into());
    let digests = Bytes::from(digests);
    let starts = (0..chunks.max(1)).step_by(MAX_PAGE_HASHES);
    let page = |from: usize| ListPage {
        size_bytes: (chunks * BLOB_CHUNK_BYTES) as u64,
        from: from as u64,
        digests: digests
            .slice(from * CHUNK_HASH_BYTES..chunks.min(from + MAX_PAGE_HASHES) * CHUNK_HASH_BYTES),
    };
    (id, starts.map(page).collect())
}

#[test]
fn pages_make_a_list() {
    for chunks in [
        0,
        1,
        3,
        MAX_PAGE_HASHES,
        MAX_PAGE_HASHES + 1,
        2 * MAX_PAGE_HASHES,
    ] {
        let (id, pages) = pages(chunks);
        let mut assembly = ListAssembly::new(id);
        let (last, before) = pages.split_last().unwrap();
        for page in before {
            assert_eq!(assembly.push(page), Ok(None));
        }
        assert_eq!(assembly.next(), last.from);
        let list = assembly
            .push(last)
            .unwrap()
            .expect("that was the last page");
        assert_eq!((list.id(), list.len()), (id, chunks));
    }
    let mut hasher = BlobHasher::new();
    hasher.update(&vec![7; BLOB_CHUNK_BYTES + 1]).unwrap();
    let list = hasher.finish().list;
    let digests = list.digests().clone();
    let page = ListPage {
        size_bytes: BLOB_CHUNK_BYTES as u64 + 1,
        from: 0,
        digests,
    };
    assert_eq!(ListAssembly::new(list.id()).push(&page), Ok(Some(list)));
}

#[test]
fn pages_that_do_not_belong() {
    let (id, two) = pages(MAX_PAGE_HASHES + 5);
    let assembly = || {
        let mut assembly = ListAssembly::new(id);
        assert_eq!(assembly.push(&two[0]), Ok(None));
        assembly
    };
    let gap = PageError::Gap {
        from: 0,
        expected: MAX_PAGE_HASHES as u64,
    };
    assert_eq!(assembly().push(&two[0]), Err(gap));
    let grown = ListPage {
        size_bytes: two[1].size_bytes + 1,
        ..two[1].clone()
    };
    assert!(matches!(
        assembly().push(&grown),
        Err(PageError::Size { .. })
    ));
    let short = ListPage {
        digests: two[1].digests.slice(32..),
        ..two[1].clone()
    };
    let length = PageError::Length {
        hashes: 4,
        expected: 5,
    };
    assert_eq!(assembly().push(&short), Err(length));
    let lie = ListPage {
        digests: Bytes::from(vec![0; 5 * 32]),
        ..two[1].clone()
    };
    let refused = assembly().push(&lie);
    assert!(matches!(
        refused,
        Err(PageError::List(ListError::Mismatch { .. }))
    ));
}

#[test]
fn messages_travel_through_the_codec() {
    let requests = [
        Request::Hello(Hello {
            context_id: CONTEXT,
            auth: None,
        }),
        Request::Get {
            blob_id: BLOB,
            inline_max_bytes: 0,
            from: 7,
        },
        Request::Read {
            blob_id: BLOB,
            ranges: vec![0..3, 9..10],
        },
    ];
    let mut wire = FramedWrite::new(Cursor::new(Vec::new()), RequesterCodec);
    for request in &requests {
        block_on(wire.send(request.clone())).unwrap();
    }
    let bytes = wire.into_inner().into_inner();
    let read = FramedRead::new(bytes.as_slice(), ProviderCodec);
    let read: Vec<_> = block_on(read.map(Result::unwrap).collect());
    assert_eq!(read, requests);
    // An end inside a frame is an error.
    let mut cut = FramedRead::new(&bytes[..bytes.len() - 1], ProviderCodec);
    let mut results = Vec::new();
    while let Some(result) = block_on(cut.next()) {
        results.push(result);
        if results.len() > 3 || results.last().is_some_and(Result::is_err) {
            break;
        }
    }
    assert!(matches!(
        results[..],
        [Ok(_), Ok(_), Err(CodecError::Io(_))]
    ));
}

#[test]
fn a_whole_chunk_fits_its_frame_and_is_not_copied_out_of_it() {
    let data = Bytes::from(vec![3; BLOB_CHUNK_BYTES]);
    let index = (1 << 20) - 1;
    let mut wire = encode_response(&Response::Chunk {
        index,
        data: data.clone(),
    });
    assert!(wire.len() <= MAX_RESPONSE_BYTES + 3);
    let inside = wire.as_ptr_range();
    match RequesterCodec.decode(&mut wire).unwrap() {
        Some(Response::Chunk {
            index: read,
            data: slice,
        }) => {
            assert_eq!((read, &slice), (index, &data));
            assert!(inside.contains(&slice.as_ptr()));
        }
        other => panic!("{other:?}"),
    }
    let digests = Bytes::from(vec![3; BLOB_CHUNK_BYTES]);
    let page = ListPage {
        size_bytes: 1 << 40,
        from: 1 << 20,
        digests,
    };
    let page = Response::List(page);
    assert_eq!(
        decode_response(&encode_response(&page)).unwrap(),
        Some(page)
    );
}

fn ranges() -> impl Strategy<Value = Vec<Range<u64>>> {
    prop::collection::vec((0_u64..9000, 1_u64..16), 1..=64).prop_map(|steps| {
        let mut end = 0;
        let range = |(gap, len): (u64, u64)| {
            let start = end + gap;
            end = start + len;
            start..end
        };
        steps.into_iter().map(range).collect()
    })
}

proptest! {
    #[test]
    fn reads_survive_a_round_trip(ranges in ranges(), blob in any::<[u8; 32]>()) {
        let request = Request::Read { blob_id: blob.into(), ranges };
        let wire = encode_request(&request);
        prop_assert!(wire.len() <= 1026);
        prop_assert_eq!(decode_request(&wire).unwrap(), Some(request));
    }

    #[test]
    fn hellos_survive_a_round_trip(
        key in any::<[u8; 32]>(), half in any::<[u8; 32]>(), timestamp in any::<u64>(),
    ) {
        let signature = [half, key].concat().try_into().unwrap();
        let auth = Some(SessionAuth { public_key: key, signature, timestamp });
        let request = Request::Hello(Hello { context_id: half.into(), auth });
        prop_assert_eq!(decode_request(&encode_request(&request)).unwrap(), Some(request));
    }

    #[test]
    fn chunks_survive_a_round_trip(
        index in 0_u64..1 << 20, data in prop::collection::vec(any::<u8>(), 1..3000),
    ) {
        let response = Response::Chunk { index, data: data.into() };
        prop_assert_eq!(decode_response(&encode_response(&response)).unwrap(), Some(response));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_have_one_encoding(
        bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0_u8..4,
    ) {
        // Framed, so that the message itself is reached.
        let framed = |kind| [&[bytes.len() as u8 % 128 + 1, kind], bytes.as_slice()].concat();
        for wire in [bytes.clone(), framed(kind), framed(kind | 0x80)] {
            let mut rest = BytesMut::from(wire.as_slice());
            if let Ok(Some(request)) = ProviderCodec.decode(&mut rest) {
                prop_assert_eq!(&encode_request(&request)[..], &wire[..wire.len() - rest.len()]);
            }
            let mut rest = BytesMut::from(wire.as_slice());
            if let Ok(Some(response)) = RequesterCodec.decode(&mut rest) {
                prop_assert_eq!(&encode_response(&response)[..], &wire[..wire.len() - rest.len()]);
            }
        }
    }

    #[test]
    fn a_frame_waits_for_its_end_without_room_for_it(
        cut in any::<prop::sample::Index>(), data in prop::collection::vec(any::<u8>(), 1..300),
    ) {
        let wire = encode_response(&Response::Chunk { index: 5, data: data.into() });
        let cut = cut.index(wire.len());
        let mut part = BytesMut::from(&wire[..cut]);
        let capacity = part.capacity();
        prop_assert!(matches!(RequesterCodec.decode(&mut part), Ok(None)));
        prop_assert_eq!((part.len(), part.capacity()), (cut, capacity));
    }
}
