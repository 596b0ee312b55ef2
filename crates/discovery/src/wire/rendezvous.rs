//! Messages of `/rendezvous/1.0.0`, by the [specification]: requests of clients and answers of
//! servers, each with its encoder and its decoder.
//!
//! [specification]: https://github.com/libp2p/specs/blob/master/rendezvous/README.md

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;

use super::Malformed;
use crate::machine::{Cookie, MAX_COOKIE_BYTES, Namespace};

/// Name of the protocol.
pub const PROTOCOL: &str = "/rendezvous/1.0.0";

/// Longest answer that a client reads, in bytes: 1 MiB, the most that libp2p-rendezvous 0.18
/// sends.
pub const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Life of a registration, in seconds, where the server names none (specification: 2 h).
const DEFAULT_TTL_S: u64 = 2 * 3600;

const MALFORMED: Malformed = Malformed { protocol: PROTOCOL };

/// Numbers of message types, as the specification has them.
mod kind {
    pub(super) const REGISTER: i32 = 0;
    pub(super) const REGISTER_RESPONSE: i32 = 1;
    pub(super) const UNREGISTER: i32 = 2;
    pub(super) const DISCOVER: i32 = 3;
    pub(super) const DISCOVER_RESPONSE: i32 = 4;
}

const OK: i32 = 0;

#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(int32, optional, tag = "1")]
    kind: Option<i32>,
    #[prost(message, optional, tag = "2")]
    register: Option<Register>,
    #[prost(message, optional, tag = "3")]
    register_response: Option<RegisterResponse>,
    #[prost(message, optional, tag = "4")]
    unregister: Option<Unregister>,
    #[prost(message, optional, tag = "5")]
    discover: Option<Discover>,
    #[prost(message, optional, tag = "6")]
    discover_response: Option<DiscoverResponse>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Register {
    #[prost(string, optional, tag = "1")]
    namespace: Option<String>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    signed_peer_record: Option<Bytes>,
    #[prost(uint64, optional, tag = "3")]
    ttl: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RegisterResponse {
    #[prost(int32, optional, tag = "1")]
    status: Option<i32>,
    #[prost(uint64, optional, tag = "3")]
    ttl: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Unregister {
    #[prost(string, optional, tag = "1")]
    namespace: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Discover {
    #[prost(string, optional, tag = "1")]
    namespace: Option<String>,
    #[prost(uint64, optional, tag = "2")]
    limit: Option<u64>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    cookie: Option<Bytes>,
}

/// The registrations are nested messages, kept as bytes: one that is malformed does not spoil the
/// others, and those above the client's limit are never decoded.
#[derive(Clone, PartialEq, prost::Message)]
struct DiscoverResponse {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    registrations: Vec<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    cookie: Option<Bytes>,
    #[prost(int32, optional, tag = "3")]
    status: Option<i32>,
}

/// What a client asks of a rendezvous server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Registers the client as a member of a namespace.
    Register {
        /// Namespace to register in.
        namespace: Namespace,
        /// The signed peer record, an envelope in Protocol Buffers. The codec does not verify it.
        record: Bytes,
        /// Life asked for, in seconds; `None` leaves it to the server.
        ttl_s: Option<u64>,
    },
    /// Removes the client's registration. The protocol has no answer to it.
    Unregister {
        /// Namespace of the registration to remove.
        namespace: Namespace,
    },
    /// Asks for members of a namespace.
    Discover {
        /// Namespace whose members are asked for; `None` for those of all namespaces.
        namespace: Option<Namespace>,
        /// Position at which the previous answer ended.
        cookie: Option<Bytes>,
        /// Largest number of registrations wanted.
        limit: Option<u64>,
    },
}

/// Why a server refuses a request, as the specification names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// `E_INVALID_NAMESPACE`: the namespace is missing, empty or too long.
    #[error("the namespace is invalid")]
    Namespace,
    /// `E_INVALID_SIGNED_PEER_RECORD`: the record is missing or not signed by its peer.
    #[error("the signed peer record is invalid")]
    Record,
    /// `E_INVALID_TTL`: the life is out of range.
    #[error("the life asked for is out of range")]
    Ttl,
    /// `E_INVALID_COOKIE`: the cookie is unknown or too long.
    #[error("the cookie is not of this server and namespace")]
    Cookie,
    /// `E_NOT_AUTHORIZED`: the client may not send this request.
    #[error("the client is not authorized")]
    NotAuthorized,
    /// `E_UNAVAILABLE`: a limit of the server is reached.
    #[error("a limit of the server is reached")]
    Unavailable,
}

impl Refusal {
    /// Every refusal that the specification names and this crate uses.
    const ALL: [Self; 6] = [
        Self::Namespace,
        Self::Record,
        Self::Ttl,
        Self::Cookie,
        Self::NotAuthorized,
        Self::Unavailable,
    ];

    /// The status number of the refusal on the wire.
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            Self::Namespace => 100,
            Self::Record => 101,
            Self::Ttl => 102,
            Self::Cookie => 103,
            Self::NotAuthorized => 200,
            Self::Unavailable => 400,
        }
    }
}

/// Why bytes are not a request that can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not a request. The protocol has no answer to that.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The kind of the request is known, and one of its fields is invalid.
    #[error("{refusal}")]
    Refused {
        /// Kind of the answer that carries the refusal.
        answer: AnswerKind,
        /// The field that is invalid.
        refusal: Refusal,
    },
}

/// Why an answer holds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The bytes are not an answer of the expected kind.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The server refused the request.
    #[error("the server refused the request: {0}")]
    Refused(Refusal),
    /// The server refused the request with a status that this crate does not know.
    #[error("the server refused the request with status {0}")]
    UnknownStatus(i32),
}

/// The kind of an answer, named after its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnswerKind {
    /// The answer to `REGISTER`.
    Register,
    /// The answer to `UNREGISTER`, which the protocol does not have.
    Unregister,
    /// The answer to `DISCOVER`.
    Discover,
}

/// One registration in an answer to `DISCOVER`, as the server sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The signed peer record, as it was registered.
    pub record: Arc<[u8]>,
    /// Life that is left, in seconds.
    pub ttl_s: u64,
}

/// An answer to `DISCOVER`, as the client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Signed peer records of members of the namespace that was asked for. Not verified.
    pub records: Vec<Bytes>,
    /// Position at which the answer ended.
    pub cookie: Option<Cookie>,
}

impl Request {
    /// The request as bytes, with its length before it.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let message = match self {
            Self::Register {
                namespace,
                record,
                ttl_s,
            } => Message {
                kind: Some(kind::REGISTER),
                register: Some(Register {
                    namespace: Some(namespace.as_str().to_owned()),
                    signed_peer_record: Some(record.clone()),
                    ttl: *ttl_s,
                }),
                ..Message::default()
            },
            Self::Unregister { namespace } => Message {
                kind: Some(kind::UNREGISTER),
                unregister: Some(Unregister {
                    namespace: Some(namespace.as_str().to_owned()),
                }),
                ..Message::default()
            },
            Self::Discover {
                namespace,
                cookie,
                limit,
            } => Message {
                kind: Some(kind::DISCOVER),
                discover: Some(Discover {
                    namespace: namespace.as_ref().map(|name| name.as_str().to_owned()),
                    limit: *limit,
                    cookie: cookie.clone(),
                }),
                ..Message::default()
            },
        };
        framed(&message)
    }

    /// The kind of the answer to this request.
    #[must_use]
    pub const fn answer(&self) -> AnswerKind {
        match self {
            Self::Register { .. } => AnswerKind::Register,
            Self::Unregister { .. } => AnswerKind::Unregister,
            Self::Discover { .. } => AnswerKind::Discover,
        }
    }
}

/// Reads one request: a message without its length.
///
/// The record of a registration is a slice of `message`.
///
/// # Errors
///
/// [`DecodeError`] where the bytes are not a request, or one with an invalid field.
pub fn decode(message: &Bytes) -> Result<Request, DecodeError> {
    let message = Message::decode(message.clone()).map_err(|_| MALFORMED)?;
    match message {
        Message {
            kind: Some(kind::REGISTER),
            register: Some(register),
            ..
        } => decode_register(register),
        Message {
            kind: Some(kind::UNREGISTER),
            unregister: Some(Unregister { namespace }),
            ..
        } => Ok(Request::Unregister {
            namespace: required(namespace, AnswerKind::Unregister)?,
        }),
        Message {
            kind: Some(kind::DISCOVER),
            discover: Some(discover),
            ..
        } => decode_discover(discover),
        _ => Err(MALFORMED.into()),
    }
}

fn decode_register(register: Register) -> Result<Request, DecodeError> {
    let answer = AnswerKind::Register;
    let namespace = required(register.namespace, answer)?;
    let record = register.signed_peer_record.ok_or(DecodeError::Refused {
        answer,
        refusal: Refusal::Record,
    })?;
    Ok(Request::Register {
        namespace,
        record,
        ttl_s: register.ttl,
    })
}

fn decode_discover(discover: Discover) -> Result<Request, DecodeError> {
    let answer = AnswerKind::Discover;
    // Some clients send an empty cookie where they have none.
    let cookie = discover.cookie.filter(|cookie| !cookie.is_empty());
    if (cookie.as_ref()).is_some_and(|cookie| cookie.len() > MAX_COOKIE_BYTES) {
        let refusal = Refusal::Cookie;
        return Err(DecodeError::Refused { answer, refusal });
    }
    let namespace = discover.namespace;
    Ok(Request::Discover {
        namespace: namespace
            .map(|name| required(Some(name), answer))
            .transpose()?,
        cookie,
        limit: discover.limit,
    })
}

fn required(namespace: Option<String>, answer: AnswerKind) -> Result<Namespace, DecodeError> {
    let namespace = namespace.and_then(|name| Namespace::new(&name).ok());
    let refusal = Refusal::Namespace;
    namespace.ok_or(DecodeError::Refused { answer, refusal })
}

/// The answer to a registration, with its length before it: the life in seconds, or the refusal.
#[must_use]
pub fn encode_registered(result: Result<u64, Refusal>) -> Bytes {
    framed(&Message {
        kind: Some(kind::REGISTER_RESPONSE),
        register_response: Some(RegisterResponse {
            status: Some(result.map_or_else(Refusal::code, |_| OK)),
            ttl: result.ok(),
        }),
        ..Message::default()
    })
}

/// The answer to a discovery, with its length before it.
#[must_use]
pub fn encode_discovered(namespace: &Namespace, found: &[Found], cookie: &[u8]) -> Bytes {
    let encoded = |found: &Found| {
        let register = Register {
            namespace: Some(namespace.as_str().to_owned()),
            signed_peer_record: Some(Bytes::from_owner(found.record.clone())),
            ttl: Some(found.ttl_s),
        };
        register.encode_to_vec().into()
    };
    discover_response(DiscoverResponse {
        registrations: found.iter().map(encoded).collect(),
        cookie: Some(Bytes::copy_from_slice(cookie)),
        status: Some(OK),
    })
}

/// Upper bound of the bytes that one registration takes in an answer.
pub(crate) fn found_len(namespace: &Namespace, found: &Found) -> usize {
    /// Tags and lengths of the registration and its three fields, and the longest number.
    const AROUND: usize = 5 * 6 + 10;
    namespace.as_str().len() + found.record.len() + AROUND
}

/// The answer that refuses a request of this kind, with its length before it; `None` where the
/// kind has no answer.
#[must_use]
pub fn encode_refusal(answer: AnswerKind, refusal: Refusal) -> Option<Bytes> {
    match answer {
        AnswerKind::Register => Some(encode_registered(Err(refusal))),
        AnswerKind::Unregister => None,
        AnswerKind::Discover => Some(discover_response(DiscoverResponse {
            status: Some(refusal.code()),
            ..DiscoverResponse::default()
        })),
    }
}

/// Reads the answer to a registration, a message without its length. Returns the life that the
/// server granted, in seconds.
///
/// # Errors
///
/// [`AnswerError`] where the server refused, or the bytes are not this answer.
pub fn decode_registered(message: &Bytes) -> Result<u64, AnswerError> {
    match Message::decode(message.clone()) {
        Ok(Message {
            kind: Some(kind::REGISTER_RESPONSE),
            register_response: Some(response),
            ..
        }) => {
            check(response.status)?;
            Ok(response.ttl.unwrap_or(DEFAULT_TTL_S))
        }
        _ => Err(MALFORMED.into()),
    }
}

/// Reads the answer to a discovery in `namespace`, a message without its length. The first `limit`
/// registrations are decoded; those that are malformed or of another namespace are left out.
///
/// # Errors
///
/// [`AnswerError`] where the server refused, or the bytes are not this answer.
pub fn decode_discovered(
    message: &Bytes,
    namespace: &Namespace,
    limit: u32,
) -> Result<Page, AnswerError> {
    let Ok(Message {
        kind: Some(kind::DISCOVER_RESPONSE),
        discover_response: Some(response),
        ..
    }) = Message::decode(message.clone())
    else {
        return Err(MALFORMED.into());
    };
    check(response.status)?;
    let registrations = response.registrations.into_iter().take(limit as usize);
    let records = registrations
        .filter_map(|registration| Register::decode(registration).ok())
        .filter(|register| register.namespace.as_deref() == Some(namespace.as_str()))
        .filter_map(|register| register.signed_peer_record)
        .collect();
    let cookie = response.cookie.and_then(|cookie| Cookie::new(&cookie));
    Ok(Page { records, cookie })
}

fn check(status: Option<i32>) -> Result<(), AnswerError> {
    let status = status.unwrap_or(OK);
    if status == OK {
        return Ok(());
    }
    let known = Refusal::ALL
        .into_iter()
        .find(|known| known.code() == status);
    Err(known.map_or(AnswerError::UnknownStatus(status), AnswerError::Refused))
}

fn discover_response(response: DiscoverResponse) -> Bytes {
    framed(&Message {
        kind: Some(kind::DISCOVER_RESPONSE),
        discover_response: Some(response),
        ..Message::default()
    })
}

fn framed(message: &Message) -> Bytes {
    message.encode_length_delimited_to_vec().into()
}

#[cfg(test)]
mod bounds;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A field of a message, written by hand.
    #[derive(Clone, Copy)]
    enum Value<'a> {
        Varint(u64),
        Bytes(&'a [u8]),
    }

    fn body(fields: &[(u32, Value<'_>)]) -> Vec<u8> {
        use prost::encoding::{WireType, encode_key, encode_varint};
        let mut bytes = Vec::new();
        for (number, value) in fields {
            match value {
                Value::Varint(value) => {
                    encode_key(*number, WireType::Varint, &mut bytes);
                    encode_varint(*value, &mut bytes);
                }
                Value::Bytes(value) => {
                    encode_key(*number, WireType::LengthDelimited, &mut bytes);
                    encode_varint(value.len() as u64, &mut bytes);
                    bytes.extend_from_slice(value);
                }
            }
        }
        bytes
    }

    fn nested(kind: Option<u64>, field: u32, inner: &[u8]) -> Bytes {
        let mut bytes = kind.map_or_else(Vec::new, |kind| body(&[(1, Value::Varint(kind))]));
        bytes.extend(body(&[(field, Value::Bytes(inner))]));
        bytes.into()
    }

    #[test]
    fn requests_are_pinned() {
        let register = b"\x08\x00\x12\x0d\x0a\x03ns1\x12\x03rec\x18\xa0\x38";
        let namespace = Namespace::new("ns1").unwrap();
        assert_eq!(
            decode(&Bytes::from_static(register)),
            Ok(Request::Register {
                namespace: namespace.clone(),
                record: Bytes::from_static(b"rec"),
                ttl_s: Some(7200),
            })
        );
        let unregister = b"\x08\x02\x22\x05\x0a\x03ns1";
        assert_eq!(
            decode(&Bytes::from_static(unregister)),
            Ok(Request::Unregister {
                namespace: namespace.clone()
            })
        );
        let discover = b"\x08\x03\x2a\x0b\x0a\x03ns1\x10\x05\x1a\x02co";
        assert_eq!(
            decode(&Bytes::from_static(discover)),
            Ok(Request::Discover {
                namespace: Some(namespace.clone()),
                cookie: Some(Bytes::from_static(b"co")),
                limit: Some(5),
            })
        );
        let all = b"\x08\x03\x2a\x00";
        assert_eq!(
            decode(&Bytes::from_static(all)),
            Ok(Request::Discover {
                namespace: None,
                cookie: None,
                limit: None,
            })
        );
    }

    #[test]
    fn answers_are_pinned() {
        assert_eq!(
            encode_registered(Ok(7200)).as_ref(),
            b"\x09\x08\x01\x1a\x05\x08\x00\x18\xa0\x38"
        );
        assert_eq!(
            encode_registered(Err(Refusal::Unavailable)).as_ref(),
            b"\x07\x08\x01\x1a\x03\x08\x90\x03"
        );
        let found = Found {
            record: Arc::from(*b"rec"),
            ttl_s: 7200,
        };
        let namespace = Namespace::new("ns1").unwrap();
        assert_eq!(
            encode_discovered(&namespace, &[found], b"co").as_ref(),
            b"\x19\x08\x04\x32\x15\x0a\x0d\x0a\x03ns1\x12\x03rec\x18\xa0\x38\x12\x02co\x18\x00"
        );
        assert_eq!(
            encode_refusal(AnswerKind::Discover, Refusal::Cookie)
                .unwrap()
                .as_ref(),
            b"\x06\x08\x04\x32\x02\x18\x67"
        );
        assert_eq!(
            encode_refusal(AnswerKind::Unregister, Refusal::Namespace),
            None
        );
    }

    #[test]
    fn what_cannot_hold_is_refused_by_name() {
        let long = "x".repeat(256);
        let refused = |answer, refusal| DecodeError::Refused { answer, refusal };
        let cookie = vec![b'c'; MAX_COOKIE_BYTES + 1];
        let record = (2, Value::Bytes(b"rec"));
        for (message, error) in [
            (Bytes::new(), DecodeError::Malformed(MALFORMED)),
            (nested(None, 2, b""), DecodeError::Malformed(MALFORMED)),
            (nested(Some(0), 5, b""), DecodeError::Malformed(MALFORMED)),
            (nested(Some(1), 3, b""), DecodeError::Malformed(MALFORMED)),
            (nested(Some(7), 2, b""), DecodeError::Malformed(MALFORMED)),
            (
                nested(Some(0), 2, b"\xff"),
                DecodeError::Malformed(MALFORMED),
            ),
            (
                nested(Some(0), 2, &body(&[(1, Value::Bytes(b"\xff")), record])),
                DecodeError::Malformed(MALFORMED),
            ),
            (
                nested(Some(0), 2, &body(&[(1, Value::Varint(1)), record])),
                DecodeError::Malformed(MALFORMED),
            ),
            (
                nested(Some(0), 2, &body(&[record])),
                refused(AnswerKind::Register, Refusal::Namespace),
            ),
            (
                nested(Some(0), 2, &body(&[(1, Value::Bytes(b"")), record])),
                refused(AnswerKind::Register, Refusal::Namespace),
            ),
            (
                nested(
                    Some(0),
                    2,
                    &body(&[(1, Value::Bytes(long.as_bytes())), record]),
                ),
                refused(AnswerKind::Register, Refusal::Namespace),
            ),
            (
                nested(Some(0), 2, &body(&[(1, Value::Bytes(b"ns"))])),
                refused(AnswerKind::Register, Refusal::Record),
            ),
            (
                nested(Some(2), 4, b""),
                refused(AnswerKind::Unregister, Refusal::Namespace),
            ),
            (
                nested(Some(3), 5, &body(&[(3, Value::Bytes(&cookie))])),
                refused(AnswerKind::Discover, Refusal::Cookie),
            ),
        ] {
            assert_eq!(decode(&message), Err(error), "{message:?}");
        }
    }

    #[test]
    fn unknown_fields_are_passed_over_and_the_last_value_counts() {
        let fields = body(&[
            (9, Value::Varint(u64::MAX)),
            (1, Value::Bytes(b"old")),
            (17, Value::Bytes(b"later")),
            (1, Value::Bytes(b"ns1")),
        ]);
        let message = nested(Some(3), 5, &fields);
        let Ok(Request::Discover { namespace, .. }) = decode(&message) else {
            panic!();
        };
        assert_eq!(namespace, Namespace::new("ns1").ok());
    }

    #[test]
    fn what_one_side_encodes_the_other_decodes() {
        let namespace = Namespace::new("ns1").unwrap();
        for request in [
            Request::Register {
                namespace: namespace.clone(),
                record: Bytes::from_static(b"rec"),
                ttl_s: Some(7200),
            },
            Request::Unregister {
                namespace: namespace.clone(),
            },
            Request::Discover {
                namespace: Some(namespace.clone()),
                cookie: Some(Bytes::from_static(b"co")),
                limit: Some(5),
            },
        ] {
            assert_eq!(decode(&request.encode().slice(1..)), Ok(request));
        }
        let found = Found {
            record: Arc::from(*b"rec"),
            ttl_s: 7200,
        };
        let answer = encode_discovered(&namespace, &[found.clone(), found], b"co").slice(1..);
        let page = decode_discovered(&answer, &namespace, 1).unwrap();
        assert_eq!(page.records, [&b"rec"[..]]);
        assert_eq!(page.cookie, Cookie::new(b"co"));
        let other = Namespace::new("ns2").unwrap();
        assert_eq!(
            decode_discovered(&answer, &other, 2).unwrap().records.len(),
            0
        );
        assert_eq!(
            decode_registered(&encode_registered(Ok(7)).slice(1..)),
            Ok(7)
        );
        for refusal in Refusal::ALL {
            let answer = encode_registered(Err(refusal)).slice(1..);
            let refused = AnswerError::Refused(refusal);
            assert_eq!(decode_registered(&answer), Err(refused));
            let answer = encode_refusal(AnswerKind::Discover, refusal)
                .unwrap()
                .slice(1..);
            assert_eq!(decode_discovered(&answer, &namespace, 1), Err(refused));
        }
    }

    #[test]
    fn a_malformed_registration_and_a_long_cookie_spoil_nothing_else() {
        let good = body(&[(1, Value::Bytes(b"ns1")), (2, Value::Bytes(b"rec"))]);
        let cookie = [0; MAX_COOKIE_BYTES + 1];
        let inner = body(&[
            (1, Value::Bytes(b"\xff")),
            (1, Value::Bytes(&good)),
            (2, Value::Bytes(&cookie)),
        ]);
        let namespace = Namespace::new("ns1").unwrap();
        let page = decode_discovered(&nested(Some(4), 6, &inner), &namespace, 64).unwrap();
        assert_eq!((page.records.len(), page.cookie), (1, None));
    }

    #[test]
    fn an_answer_to_another_request_is_malformed() {
        let namespace = Namespace::new("ns1").unwrap();
        let registered = encode_registered(Ok(7)).slice(1..);
        let malformed = AnswerError::Malformed(MALFORMED);
        assert_eq!(
            decode_discovered(&registered, &namespace, 1),
            Err(malformed)
        );
        let discovered = encode_discovered(&namespace, &[], b"").slice(1..);
        assert_eq!(decode_registered(&discovered), Err(malformed));
        let request = Request::Unregister { namespace }.encode().slice(1..);
        assert_eq!(decode_registered(&request), Err(malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            let _ = decode(&bytes);
            let _ = decode_registered(&bytes);
            let _ = decode_discovered(&bytes, &Namespace::new("ns1").unwrap(), 64);
        }

        #[test]
        fn a_registration_is_no_longer_than_said(
            record in prop::collection::vec(any::<u8>(), 0..600),
            name in "[a-z]{1,255}",
            ttl_s in any::<u64>(),
            count in 0usize..5,
        ) {
            let namespace = Namespace::new(&name).unwrap();
            let found = Found { record: record.into(), ttl_s };
            let cookie = b"12345678";
            let nothing = encode_discovered(&namespace, &[], cookie).len();
            let some = encode_discovered(&namespace, &vec![found.clone(); count], cookie).len();
            prop_assert!(some <= nothing + 8 + count * found_len(&namespace, &found));
        }
    }
}
