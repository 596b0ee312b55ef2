//! Messages of AutoNAT v2, by the [specification].
//!
//! [specification]: https://github.com/libp2p/specs/blob/master/autonat/autonat-v2.md

use bytes::Bytes;
use calimero_network_primitives::Multiaddr;
use prost::Message as _;

use super::Malformed;
use crate::machine::ProbeOutcome;

/// Longest message of a dial request, in bytes: one part of the data that a server asks for.
pub const MAX_MESSAGE_BYTES: usize = 4_200;

/// Longest dial request, 8 KiB, as go-libp2p's server reads it: some two hundred addresses.
pub const MAX_REQUEST_BYTES: usize = 8_192;

/// Longest message of a dial-back, in bytes: a nonce.
pub const MAX_DIAL_BACK_BYTES: usize = 16;

/// Data that a server may ask for before it dials an address other than the one it sees, in bytes.
/// The specification names 30 to 100 kB: a request then costs its sender more than the victim.
pub const DATA_BYTES: std::ops::RangeInclusive<u64> = 30_000..=100_000;

/// Data in one message, in bytes.
const DATA_PART_BYTES: u64 = 4_096;

const E_REQUEST_REJECTED: i32 = 100;
const E_DIAL_REFUSED: i32 = 101;
const STATUS_OK: i32 = 200;
const DIAL_UNUSED: i32 = 0;
const E_DIAL_ERROR: i32 = 100;
const E_DIAL_BACK_ERROR: i32 = 101;
const DIAL_OK: i32 = 200;

const MALFORMED: Malformed = Malformed {
    protocol: "/libp2p/autonat/2",
};

/// What a server sends in answer to a dial request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The server ended the probe.
    Outcome(ProbeOutcome),
    /// The server wants this many bytes of data before it dials. Always within the
    /// specification's range.
    DataRequested(u64),
}

/// What a server sends at the end of a dial request. The number is the position of the address in
/// the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No address of the request is dialled.
    Refused,
    /// The peer sends too many requests.
    Rejected,
    /// The peer confirmed the nonce at the address.
    Reached(u32),
    /// The address was dialled without a connection.
    NotReached(u32),
    /// There was a connection, and the nonce was not confirmed on it.
    NotConfirmed(u32),
}

/// The request to dial `address` and to bring `nonce` back, with its length before it.
#[must_use]
pub fn encode_request(address: &Multiaddr, nonce: u64) -> Bytes {
    encode(Kind::Request(DialRequest {
        addresses: vec![address.to_vec()],
        nonce,
    }))
}

/// Messages with `bytes` bytes of data in all, each with its length before it.
pub fn encode_data(bytes: u64) -> impl Iterator<Item = Bytes> {
    let parts = bytes.div_ceil(DATA_PART_BYTES);
    (0..parts).map(move |part| {
        let length = (bytes - part * DATA_PART_BYTES).min(DATA_PART_BYTES);
        let data = vec![0; usize::try_from(length).unwrap_or_default()];
        encode(Kind::Data(DialData { data }))
    })
}

/// The acknowledgement of a dial-back, with its length before it.
#[must_use]
pub fn encode_dial_back_response() -> Bytes {
    DialBackResponse { status: 0 }
        .encode_length_delimited_to_vec()
        .into()
}

/// Reads what a server says to a request for one address: a message without its length.
///
/// # Errors
///
/// [`Malformed`] for anything that a server must not send at this point, a request for data
/// outside the specification's range included.
pub fn decode_answer(message: &[u8]) -> Result<Answer, Malformed> {
    let Message { kind } = Message::decode(message).map_err(|_| MALFORMED)?;
    match kind {
        // Index 0 is the only address that was sent.
        Some(Kind::Response(response)) => Ok(Answer::Outcome(
            match (response.status, response.address, response.dial_status) {
                (STATUS_OK, 0, DIAL_OK) => ProbeOutcome::Reached,
                (STATUS_OK, 0, E_DIAL_ERROR | E_DIAL_BACK_ERROR) => ProbeOutcome::NotReached,
                _ => ProbeOutcome::NotTried,
            },
        )),
        Some(Kind::DataRequest(wanted))
            if wanted.address == 0 && DATA_BYTES.contains(&wanted.bytes) =>
        {
            Ok(Answer::DataRequested(wanted.bytes))
        }
        _ => Err(MALFORMED),
    }
}

/// Reads the addresses and the nonce of a dial request: a message without its length. Bytes that
/// are not an address are read as the empty address, so that positions are those of the client.
///
/// # Errors
///
/// [`Malformed`] for any other message.
pub fn decode_request(message: &[u8]) -> Result<(Vec<Multiaddr>, u64), Malformed> {
    let Message { kind } = Message::decode(message).map_err(|_| MALFORMED)?;
    let Some(Kind::Request(DialRequest { addresses, nonce })) = kind else {
        return Err(MALFORMED);
    };
    let addresses = addresses
        .into_iter()
        .map(|bytes| Multiaddr::try_from(bytes).unwrap_or_else(|_| Multiaddr::empty()));
    Ok((addresses.collect(), nonce))
}

/// The request for `bytes` bytes of data before the address at position `address` is dialled, with
/// its length before it.
#[must_use]
pub fn encode_data_request(address: u32, bytes: u64) -> Bytes {
    encode(Kind::DataRequest(DialDataRequest { address, bytes }))
}

/// Reads one part of the data that a server asked for, a message without its length, and returns
/// how many bytes of data it has: at least one.
///
/// # Errors
///
/// [`Malformed`] for any other message, and for a part without data.
pub fn decode_data(message: &[u8]) -> Result<u64, Malformed> {
    let Message { kind } = Message::decode(message).map_err(|_| MALFORMED)?;
    match kind {
        Some(Kind::Data(DialData { data })) if !data.is_empty() => Ok(data.len() as u64),
        _ => Err(MALFORMED),
    }
}

/// The last message of a server for a dial request, with its length before it.
#[must_use]
pub fn encode_verdict(verdict: Verdict) -> Bytes {
    let (status, address, dial_status) = match verdict {
        Verdict::Refused => (E_DIAL_REFUSED, 0, DIAL_UNUSED),
        Verdict::Rejected => (E_REQUEST_REJECTED, 0, DIAL_UNUSED),
        Verdict::Reached(address) => (STATUS_OK, address, DIAL_OK),
        Verdict::NotReached(address) => (STATUS_OK, address, E_DIAL_ERROR),
        Verdict::NotConfirmed(address) => (STATUS_OK, address, E_DIAL_BACK_ERROR),
    };
    encode(Kind::Response(DialResponse {
        status,
        address,
        dial_status,
    }))
}

/// The dial-back with the nonce of the request, with its length before it.
#[must_use]
pub fn encode_dial_back(nonce: u64) -> Bytes {
    DialBack { nonce }.encode_length_delimited_to_vec().into()
}

/// Reads the acknowledgement of a dial-back: a message without its length.
///
/// # Errors
///
/// [`Malformed`] for anything else, a status other than success included.
pub fn decode_dial_back_response(message: &[u8]) -> Result<(), Malformed> {
    match DialBackResponse::decode(message) {
        Ok(DialBackResponse { status: 0 }) => Ok(()),
        _ => Err(MALFORMED),
    }
}

/// Reads the nonce of a dial-back: a message without its length.
///
/// # Errors
///
/// [`Malformed`] for anything else.
pub fn decode_dial_back(message: &[u8]) -> Result<u64, Malformed> {
    let DialBack { nonce } = DialBack::decode(message).map_err(|_| MALFORMED)?;
    Ok(nonce)
}

fn encode(kind: Kind) -> Bytes {
    let message = Message { kind: Some(kind) };
    message.encode_length_delimited_to_vec().into()
}

#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(message, tag = "1")]
    Request(DialRequest),
    #[prost(message, tag = "2")]
    Response(DialResponse),
    #[prost(message, tag = "3")]
    DataRequest(DialDataRequest),
    #[prost(message, tag = "4")]
    Data(DialData),
}

#[derive(Clone, PartialEq, prost::Message)]
struct DialRequest {
    #[prost(bytes = "vec", repeated, tag = "1")]
    addresses: Vec<Vec<u8>>,
    #[prost(fixed64, tag = "2")]
    nonce: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DialDataRequest {
    #[prost(uint32, tag = "1")]
    address: u32,
    #[prost(uint64, tag = "2")]
    bytes: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DialResponse {
    #[prost(int32, tag = "1")]
    status: i32,
    #[prost(uint32, tag = "2")]
    address: u32,
    #[prost(int32, tag = "3")]
    dial_status: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DialData {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DialBack {
    #[prost(fixed64, tag = "1")]
    nonce: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DialBackResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

#[cfg(test)]
mod bounds;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(kind: Kind) -> Result<Answer, Malformed> {
        decode_answer(&Message { kind: Some(kind) }.encode_to_vec())
    }

    #[test]
    fn messages_are_pinned() {
        let address = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
        assert_eq!(
            encode_request(&address, 7).as_ref(),
            b"\x15\x0a\x13\x0a\x08\x04\xc0\x00\x02\x01\x06\x00\x01\x11\x07\0\0\0\0\0\0\0"
        );
        // Proto3 leaves a status of zero out.
        assert_eq!(encode_dial_back_response().as_ref(), b"\0");
        assert_eq!(decode_dial_back(b"\x09\x07\0\0\0\0\0\0\0"), Ok(7));
    }

    #[test]
    fn an_answer_is_judged_by_status_address_and_dial_status() {
        let respond = |status, address, dial_status| {
            decoded(Kind::Response(DialResponse {
                status,
                address,
                dial_status,
            }))
        };
        for (answer, outcome) in [
            (respond(200, 0, 200), ProbeOutcome::Reached),
            (respond(200, 0, 100), ProbeOutcome::NotReached),
            (respond(200, 0, 101), ProbeOutcome::NotReached),
            (respond(200, 1, 200), ProbeOutcome::NotTried),
            (respond(100, 0, 200), ProbeOutcome::NotTried),
        ] {
            assert_eq!(answer, Ok(Answer::Outcome(outcome)));
        }
    }

    #[test]
    fn data_is_given_within_the_range_of_the_specification() {
        let ask = |address, bytes| decoded(Kind::DataRequest(DialDataRequest { address, bytes }));
        assert_eq!(ask(0, 30_000), Ok(Answer::DataRequested(30_000)));
        assert_eq!(ask(0, 100_000), Ok(Answer::DataRequested(100_000)));
        for (address, bytes) in [(0, 29_999), (0, 100_001), (0, u64::MAX), (1, 30_000)] {
            assert_eq!(ask(address, bytes), Err(MALFORMED));
        }
        let sent: Vec<_> = encode_data(30_000).collect();
        assert!(sent.iter().all(|part| part.len() <= MAX_MESSAGE_BYTES + 2));
        let data = sent.iter().map(|part| {
            let part = Message::decode_length_delimited(part.clone()).unwrap();
            match part.kind {
                Some(Kind::Data(DialData { data })) => data.len(),
                _ => 0,
            }
        });
        assert_eq!(data.sum::<usize>(), 30_000);
    }

    #[test]
    fn a_server_reads_what_a_client_writes() {
        let unframed = |framed: &Bytes| {
            let message = Message::decode_length_delimited(framed.clone()).unwrap();
            message.encode_to_vec()
        };
        let address: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
        let request = unframed(&encode_request(&address, 7));
        assert_eq!(decode_request(&request), Ok((vec![address], 7)));
        let data: u64 = encode_data(30_000)
            .map(|part| decode_data(&unframed(&part)).unwrap())
            .sum();
        assert_eq!(data, 30_000);
        assert_eq!(decode_dial_back(&encode_dial_back(7)[1..]), Ok(7));
        let acknowledged = encode_dial_back_response();
        assert_eq!(decode_dial_back_response(&acknowledged[1..]), Ok(()));
        assert_eq!(decode_dial_back_response(&[8, 1]), Err(MALFORMED));
    }

    #[test]
    fn a_client_reads_what_a_server_writes() {
        let read = |framed: Bytes| {
            let message = Message::decode_length_delimited(framed).unwrap();
            decode_answer(&message.encode_to_vec())
        };
        let asked = read(encode_data_request(0, 40_000));
        assert_eq!(asked, Ok(Answer::DataRequested(40_000)));
        for (verdict, outcome) in [
            (Verdict::Reached(0), ProbeOutcome::Reached),
            (Verdict::NotReached(0), ProbeOutcome::NotReached),
            (Verdict::NotConfirmed(0), ProbeOutcome::NotReached),
            (Verdict::Refused, ProbeOutcome::NotTried),
            (Verdict::Rejected, ProbeOutcome::NotTried),
        ] {
            assert_eq!(read(encode_verdict(verdict)), Ok(Answer::Outcome(outcome)));
        }
    }

    #[test]
    fn bytes_that_are_no_address_keep_their_position() {
        let request = Message {
            kind: Some(Kind::Request(DialRequest {
                addresses: vec![vec![0xff; 3], vec![4, 192, 0, 2, 1]],
                nonce: 7,
            })),
        };
        let address: Multiaddr = "/ip4/192.0.2.1".parse().unwrap();
        assert_eq!(
            decode_request(&request.encode_to_vec()),
            Ok((vec![Multiaddr::empty(), address], 7))
        );
        let empty = Kind::Data(DialData::default());
        let empty = Message { kind: Some(empty) }.encode_to_vec();
        assert_eq!(decode_data(&empty), Err(MALFORMED));
    }

    #[test]
    fn what_a_server_must_not_send_is_malformed() {
        assert_eq!(decode_answer(b""), Err(MALFORMED));
        assert_eq!(decoded(Kind::Data(DialData::default())), Err(MALFORMED));
        assert_eq!(
            decoded(Kind::Request(DialRequest::default())),
            Err(MALFORMED)
        );
    }

    proptest! {
        #[test]
        fn nothing_makes_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = decode_answer(&bytes);
            let _ = decode_request(&bytes);
            let _ = decode_data(&bytes);
            let _ = decode_dial_back_response(&bytes);
            let _ = decode_dial_back(&bytes);
        }
    }
}
