//! The wire format compared with the published bytes, with Borsh's derive, and
//! on arbitrary bytes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so"
)]

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use calimero_network_specialized::{
    DecodeError, EncodeError, Message, Part, Refusal, SpecializedNodeInviteRequest as Request,
    SpecializedNodeInviteResponse as Response,
    codec::{MAX_MESSAGE_BYTES, PREFIX_BYTES, Receiver},
};
use proptest::{collection::vec, option, prelude::*};
use serde_json::Value;

/// The messages as `protocol.md` specifies them, with the derived Borsh
/// implementation.
#[derive(Debug, BorshSerialize, BorshDeserialize)]
enum PlainRequest {
    TeeAttestation {
        nonce: [u8; 32],
        quote_bytes: Vec<u8>,
        public_key: [u8; 32],
    },
}

#[derive(Debug, BorshSerialize, BorshDeserialize)]
struct PlainResponse {
    nonce: [u8; 32],
    invitation_bytes: Option<Vec<u8>>,
    error: Option<String>,
}

impl From<PlainRequest> for Request {
    fn from(plain: PlainRequest) -> Self {
        let PlainRequest::TeeAttestation {
            nonce,
            quote_bytes,
            public_key,
        } = plain;
        Self::TeeAttestation {
            nonce,
            quote_bytes: quote_bytes.into(),
            public_key,
        }
    }
}

impl From<PlainResponse> for Response {
    fn from(plain: PlainResponse) -> Self {
        Self {
            nonce: plain.nonce,
            invitation_bytes: plain.invitation_bytes.map(Bytes::from),
            error: plain.error,
        }
    }
}

fn request(quote_len: usize) -> Request {
    Request::TeeAttestation {
        nonce: [7; 32],
        quote_bytes: vec![1; quote_len].into(),
        public_key: [9; 32],
    }
}

/// Size of a request without its quote, in bytes.
const REQUEST_OVERHEAD: usize = 1 + 32 + 4 + 32;

fn framed(body: &[u8]) -> Bytes {
    let prefix = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&prefix[..], body].concat().into()
}

fn vectors() -> Value {
    let text = include_str!("../../../testdata/vectors.json");
    serde_json::from_str::<Value>(text).unwrap()["specialized_node_invite"].take()
}

fn hex_of(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

#[track_caller]
fn same_both_ways<M: Message + PartialEq + std::fmt::Debug>(message: &M, wire: &[u8]) {
    let decoded = M::decode(Bytes::copy_from_slice(wire), MAX_MESSAGE_BYTES).unwrap();
    assert_eq!(&decoded, message);
    assert_eq!(message.encode(MAX_MESSAGE_BYTES).unwrap(), wire);
}

#[test]
fn the_published_bytes() {
    let vectors = vectors();
    let of = &vectors["request"];
    let message = Request::TeeAttestation {
        nonce: hex_of(&of["nonce_hex"]).try_into().unwrap(),
        quote_bytes: hex_of(&of["quote_hex"]).into(),
        public_key: hex_of(&of["public_key_hex"]).try_into().unwrap(),
    };
    same_both_ways(&message, &hex_of(&of["framed_hex"]));

    let of = &vectors["response_success"];
    let invitation = of["invitation_bytes_utf8"].as_str().unwrap().to_owned();
    let message = Response::invitation(*message.nonce(), invitation);
    same_both_ways(&message, &hex_of(&of["framed_hex"]));

    let of = &vectors["response_error"];
    let message = Response::error(message.nonce, of["error"].as_str().unwrap());
    same_both_ways(&message, &hex_of(&of["framed_hex"]));
}

/// All refusals, each exactly once.
#[test]
fn the_bytes_of_refusals() {
    let text = include_str!("../../../testdata/invite-refusals.json");
    let vectors: Value = serde_json::from_str(text).unwrap();
    let nonce = hex_of(&vectors["nonce_hex"]).try_into().unwrap();
    let mut told = Vec::new();
    for of in vectors["refusals"].as_object().unwrap().values() {
        let error = of["error"].as_str().unwrap();
        let message = Response::error(nonce, error);
        same_both_ways(&message, &hex_of(&of["framed_hex"]));
        let refusal = message.as_refusal().unwrap();
        assert_eq!(Response::refusal(nonce, refusal), message);
        told.push(refusal);
    }
    for refusal in Refusal::ALL {
        assert_eq!(told.iter().filter(|one| **one == refusal).count(), 1);
    }
}

#[test]
fn one_mebibyte_passes_and_one_byte_more_does_not() {
    let largest = request(MAX_MESSAGE_BYTES - REQUEST_OVERHEAD);
    let wire = largest.encode(usize::MAX).unwrap();
    assert_eq!(wire.len(), PREFIX_BYTES + MAX_MESSAGE_BYTES);
    assert_eq!(Request::decode(wire, usize::MAX), Ok(largest));

    let (limit, claimed) = (MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES + 1);
    let over = request(claimed - REQUEST_OVERHEAD);
    let refused = EncodeError::TooLarge { limit, claimed };
    assert_eq!(over.encode(usize::MAX), Err(refused));
    let refused = DecodeError::TooLarge { limit, claimed };
    let claim = Bytes::from_static(&[0, 0x10, 0, 1]);
    assert_eq!(Request::decode(claim, usize::MAX), Err(refused));
}

#[test]
fn invalid_messages_report_their_cause() {
    let decode_request = |body: &[u8]| Request::decode_body(Bytes::copy_from_slice(body));
    let decode_response = |body: &[u8]| Response::decode_body(Bytes::copy_from_slice(body));

    let variant = 1;
    assert_eq!(
        decode_request(&[variant]),
        Err(DecodeError::UnknownVariant { variant })
    );
    let (part, missing) = (Part::Nonce, 31);
    assert_eq!(
        decode_request(&[0, 7]),
        Err(DecodeError::Cut { part, missing })
    );

    let with = |tail: &[u8]| [&[7; 32][..], tail].concat();
    let (part, tag) = (Part::InvitationBytes, 2);
    assert_eq!(
        decode_response(&with(&[tag])),
        Err(DecodeError::BadOption { part, tag })
    );
    let (part, valid_up_to) = (Part::Error, 1);
    assert_eq!(
        decode_response(&with(b"\0\x01\x02\0\0\0a\xff")),
        Err(DecodeError::NotUtf8 { part, valid_up_to })
    );
    assert_eq!(
        decode_response(&with(&[0, 0, 0])),
        Err(DecodeError::Trailing { bytes: 1 })
    );

    let (part, missing) = (Part::Prefix, 1);
    assert_eq!(
        Response::decode(Bytes::from_static(&[0; 3]), usize::MAX),
        Err(DecodeError::Cut { part, missing })
    );
    let mut wire = Vec::from(request(1).encode(usize::MAX).unwrap());
    wire.push(0);
    assert_eq!(
        Request::decode(wire.into(), usize::MAX),
        Err(DecodeError::Trailing { bytes: 1 })
    );
}

#[test]
fn refusals_are_distinguished_from_answers() {
    for refusal in Refusal::ALL {
        let response = Response::refusal([7; 32], refusal);
        assert!(refusal.text().len() <= 64, "{refusal:?}");
        let wire = response.encode(128).expect("fits the least limit");
        let heard = Response::decode(wire, 128).unwrap();
        assert_eq!(heard.as_refusal(), Some(refusal));
    }
    assert_eq!(Response::error([7; 32], "bad quote").as_refusal(), None);
    let mut both = Response::refusal([7; 32], Refusal::Busy);
    both.invitation_bytes = Some(Bytes::new());
    assert_eq!(both.as_refusal(), None);
}

/// Passes `wire` to a receiver in pieces of at most `piece` bytes and checks
/// its memory use.
fn receive(wire: &[u8], limit: usize, piece: usize) -> Result<Option<Bytes>, DecodeError> {
    let mut receiver = Receiver::new(limit);
    let mut rest = wire;
    while !rest.is_empty() {
        let space = receiver.space();
        let n = space.len().min(piece).min(rest.len());
        if n == 0 {
            break;
        }
        space[..n].copy_from_slice(&rest[..n]);
        rest = &rest[n..];
        // The receiver doubles its buffer, and the allocator may double it
        // again.
        let arrived = wire.len() - rest.len();
        assert!(receiver.capacity() <= 4 * arrived.max(4096));
        if let Some(body) = receiver.arrived(n)? {
            assert!(rest.len() == wire.len() - PREFIX_BYTES - body.len());
            return Ok(Some(body));
        }
    }
    receiver.cut().map_or(Ok(None), Err)
}

#[test]
fn an_end_reports_the_missing_bytes() {
    assert_eq!(Receiver::new(64).cut(), None);
    let (part, missing) = (Part::Prefix, 2);
    assert_eq!(
        receive(&[0, 0], 64, 1),
        Err(DecodeError::Cut { part, missing })
    );
    let (part, missing) = (Part::Body, 5);
    assert_eq!(
        receive(&[0, 0, 0, 6, 1], 64, 9),
        Err(DecodeError::Cut { part, missing })
    );
}

#[test]
fn a_refused_claim_asks_for_nothing_more() {
    let mut receiver = Receiver::new(MAX_MESSAGE_BYTES);
    receiver.space().copy_from_slice(&[0xff, 0xff, 0xff, 0xfe]);
    let refused = Err(DecodeError::TooLarge {
        limit: MAX_MESSAGE_BYTES,
        claimed: 0xffff_fffe,
    });
    assert_eq!(receiver.arrived(4), refused);
    assert!(receiver.space().is_empty());
    assert!(receiver.capacity() <= 64);
    assert_eq!(receiver.arrived(0), refused);
}

fn any_request() -> impl Strategy<Value = PlainRequest> {
    (
        any::<[u8; 32]>(),
        vec(any::<u8>(), 0..6000),
        any::<[u8; 32]>(),
    )
        .prop_map(
            |(nonce, quote_bytes, public_key)| PlainRequest::TeeAttestation {
                nonce,
                quote_bytes,
                public_key,
            },
        )
}

fn any_response() -> impl Strategy<Value = PlainResponse> {
    (
        any::<[u8; 32]>(),
        option::of(vec(any::<u8>(), 0..6000)),
        option::of(any::<String>()),
    )
        .prop_map(|(nonce, invitation_bytes, error)| PlainResponse {
            nonce,
            invitation_bytes,
            error,
        })
}

/// Returns `true` if `slice` is inside `buffer`, which means that it was not
/// copied.
fn is_slice_of(slice: &[u8], buffer: &[u8]) -> bool {
    slice.is_empty() || buffer.as_ptr_range().contains(&slice.as_ptr())
}

proptest! {
    #[test]
    fn requests_are_borsh_and_come_back(plain in any_request()) {
        let body = borsh::to_vec(&plain).unwrap();
        let message = Request::from(plain);
        let wire = message.encode(MAX_MESSAGE_BYTES).unwrap();
        prop_assert_eq!(&wire, &framed(&body));
        let decoded = Request::decode(wire.clone(), MAX_MESSAGE_BYTES).unwrap();
        let Request::TeeAttestation { quote_bytes, .. } = &decoded else {
            return Err(TestCaseError::fail("another variant"));
        };
        prop_assert!(is_slice_of(quote_bytes, &wire));
        prop_assert_eq!(decoded, message);
    }

    #[test]
    fn responses_are_borsh_and_come_back(plain in any_response()) {
        let body = borsh::to_vec(&plain).unwrap();
        let message = Response::from(plain);
        let wire = message.encode(MAX_MESSAGE_BYTES).unwrap();
        prop_assert_eq!(&wire, &framed(&body));
        let decoded = Response::decode(wire.clone(), MAX_MESSAGE_BYTES).unwrap();
        prop_assert!(decoded.invitation_bytes.iter().all(|bytes| is_slice_of(bytes, &wire)));
        prop_assert_eq!(decoded, message);
    }

    /// Borsh and this decoder agree on every body, and therefore also on which
    /// bodies they refuse.
    #[test]
    fn any_bytes_are_read_as_borsh_reads_them(
        kind in 0..3_u8,
        mut body in vec(prop_oneof![0..3_u8, any::<u8>()], 0..120),
    ) {
        if kind == 0 && body.len() > 36 {
            // Some generated quotes have a matching length.
            body[0] = 0;
            body[33] %= 64;
            body[34..37].fill(0);
        }
        let plain = PlainRequest::try_from_slice(&body).ok().map(Request::from);
        prop_assert_eq!(Request::decode_body(body.clone().into()).ok(), plain);
        let plain = PlainResponse::try_from_slice(&body).ok().map(Response::from);
        prop_assert_eq!(Response::decode_body(body.clone().into()).ok(), plain);
        let _ = Request::decode(body.clone().into(), MAX_MESSAGE_BYTES);
        let _ = Response::decode(body.into(), MAX_MESSAGE_BYTES);
    }

    /// A length inside a message that exceeds the remaining bytes is refused
    /// with the number of missing bytes.
    #[test]
    fn claims_inside_a_message_are_checked(claimed in any::<u32>(), there in 0..64_usize) {
        let tail = vec![b'a'; there];
        let claim = claimed.to_le_bytes();
        let missing = (claimed as usize).checked_sub(there).filter(|&missing| missing > 0);
        let cut = |part| missing.map(|missing| DecodeError::Cut { part, missing });

        let body = [&[0; 33], &claim[..], &tail].concat();
        let refused = Request::decode_body(body.into()).unwrap_err();
        if let Some(cut) = cut(Part::QuoteBytes) {
            prop_assert_eq!(refused, cut);
        }
        for (part, head) in [(Part::InvitationBytes, &[1][..]), (Part::Error, &[0, 1])] {
            let body = [&[0; 32], head, &claim, &tail].concat();
            if let Some(cut) = cut(part) {
                prop_assert_eq!(Response::decode_body(body.into()), Err(cut));
            }
        }
    }

    /// A claimed length before a message uses memory only for received bytes.
    #[test]
    fn claims_before_a_message_allocate_nothing(
        claimed in prop_oneof![any::<u32>(), 0..=0x10_0000_u32],
        there in 0..20_000_usize,
        piece in 1..9000_usize,
    ) {
        let mut wire = claimed.to_be_bytes().to_vec();
        wire.resize(PREFIX_BYTES + there, 7);
        let claimed = claimed as usize;
        let limit = MAX_MESSAGE_BYTES;
        let expected = match claimed.checked_sub(there) {
            _ if claimed > limit => Err(DecodeError::TooLarge { limit, claimed }),
            Some(missing) if missing > 0 => Err(DecodeError::Cut { part: Part::Body, missing }),
            _ => Ok(Some(Bytes::from(vec![7; claimed]))),
        };
        prop_assert_eq!(receive(&wire, limit, piece), expected);
    }
}
