//! Messages of `/rendezvous/1.0.0`: a length as an unsigned varint, then Protocol Buffers. Pure.
//!
//! Only what a server reads and writes: it reads requests and writes answers.
//! Specification: <https://github.com/libp2p/specs/tree/master/rendezvous>.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::protobuf::{Field, Fields, Value, put_bytes, put_varint, varint_len};
use crate::machine::{MAX_COOKIE_BYTES, Namespace};

/// Numbers of message types and of fields, as the specification has them.
mod number {
    pub(super) const REGISTER: u64 = 0;
    pub(super) const REGISTER_RESPONSE: u64 = 1;
    pub(super) const UNREGISTER: u64 = 2;
    pub(super) const DISCOVER: u64 = 3;
    pub(super) const DISCOVER_RESPONSE: u64 = 4;
}

/// What a peer asks of a rendezvous server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Remember me as a member.
    Register {
        /// Of which overlay.
        namespace: Namespace,
        /// The signed peer record, an envelope in Protocol Buffers. Not verified yet.
        record: Bytes,
        /// For how many seconds; `None`: as long as the server sees fit.
        ttl_s: Option<u64>,
    },
    /// Forget me. Has no answer.
    Unregister {
        /// As a member of which overlay.
        namespace: Namespace,
    },
    /// Tell me of members.
    Discover {
        /// Of which overlay; `None`: of all.
        namespace: Option<Namespace>,
        /// Where the last answer ended.
        cookie: Option<Bytes>,
        /// How many at most.
        limit: Option<u64>,
    },
}

/// Why a request is not answered as asked, as the specification names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// `E_INVALID_NAMESPACE`.
    #[error("no such namespace can be")]
    Namespace,
    /// `E_INVALID_SIGNED_PEER_RECORD`.
    #[error("the signed peer record does not hold")]
    Record,
    /// `E_INVALID_TTL`.
    #[error("a registration cannot live that long or that short")]
    Ttl,
    /// `E_INVALID_COOKIE`.
    #[error("the cookie is not of this server and namespace")]
    Cookie,
    /// `E_NOT_AUTHORIZED`.
    #[error("not allowed")]
    NotAuthorized,
    /// `E_UNAVAILABLE`.
    #[error("no room")]
    Unavailable,
}

impl Refusal {
    /// Its status on the wire.
    #[must_use]
    pub const fn code(self) -> u64 {
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

/// Why bytes are no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They are no message of the protocol, or none that asks for something. There is no answer
    /// to that.
    #[error("not a request of /rendezvous/1.0.0")]
    Malformed,
    /// The kind of request is clear, and one of its fields cannot hold.
    #[error("{refusal}")]
    Refused {
        /// Which kind of answer says so.
        answer: AnswerKind,
        /// Why.
        refusal: Refusal,
    },
}

/// Which kind of answer a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnswerKind {
    /// To `REGISTER`.
    Register,
    /// To `UNREGISTER`: none.
    Unregister,
    /// To `DISCOVER`.
    Discover,
}

/// One registration in an answer to `DISCOVER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The signed peer record, as it was registered.
    pub record: Arc<[u8]>,
    /// Seconds that are left of its life.
    pub ttl_s: u64,
}

/// Reads one request: a message without its length.
///
/// The record of a registration is a slice of `message`.
///
/// # Errors
///
/// [`DecodeError`].
pub fn decode(message: &Bytes) -> Result<Request, DecodeError> {
    let [kind, register, unregister, discover] = fields(message, [1, 2, 4, 5])?;
    let kind = match kind {
        Some(Value::Varint(kind)) => kind,
        _ => return Err(DecodeError::Malformed),
    };
    let body = |field: Option<Value<'_>>| match field {
        Some(Value::Bytes(bytes)) => Ok(message.slice_ref(bytes)),
        _ => Err(DecodeError::Malformed),
    };
    match kind {
        number::REGISTER => decode_register(&body(register)?),
        number::UNREGISTER => decode_unregister(&body(unregister)?),
        number::DISCOVER => decode_discover(&body(discover)?),
        _ => Err(DecodeError::Malformed),
    }
}

fn decode_register(body: &Bytes) -> Result<Request, DecodeError> {
    let [namespace, record, ttl] = fields(body, [1, 2, 3])?;
    let refused = |refusal| DecodeError::Refused {
        answer: AnswerKind::Register,
        refusal,
    };
    let namespace = namespace_of(namespace)?
        .ok_or(Refusal::Namespace)
        .and_then(|name| name)
        .map_err(refused)?;
    let record = match record {
        Some(Value::Bytes(bytes)) => body.slice_ref(bytes),
        None => return Err(refused(Refusal::Record)),
        Some(Value::Varint(_)) => return Err(DecodeError::Malformed),
    };
    Ok(Request::Register {
        namespace,
        record,
        ttl_s: number_of(ttl)?,
    })
}

fn decode_unregister(body: &Bytes) -> Result<Request, DecodeError> {
    let [namespace] = fields(body, [1])?;
    let namespace = namespace_of(namespace)?
        .ok_or(Refusal::Namespace)
        .and_then(|name| name)
        .map_err(|refusal| DecodeError::Refused {
            answer: AnswerKind::Unregister,
            refusal,
        })?;
    Ok(Request::Unregister { namespace })
}

fn decode_discover(body: &Bytes) -> Result<Request, DecodeError> {
    let [namespace, limit, cookie] = fields(body, [1, 2, 3])?;
    let refused = |refusal| DecodeError::Refused {
        answer: AnswerKind::Discover,
        refusal,
    };
    let cookie = match cookie {
        // An empty one is how some say that they have none.
        None | Some(Value::Bytes([])) => None,
        Some(Value::Bytes(bytes)) if bytes.len() > MAX_COOKIE_BYTES => {
            return Err(refused(Refusal::Cookie));
        }
        Some(Value::Bytes(bytes)) => Some(body.slice_ref(bytes)),
        Some(Value::Varint(_)) => return Err(DecodeError::Malformed),
    };
    Ok(Request::Discover {
        namespace: namespace_of(namespace)?.transpose().map_err(refused)?,
        cookie,
        limit: number_of(limit)?,
    })
}

/// The last value of each of the fields `wanted`. Others are passed over, as Protocol Buffers
/// want it.
fn fields<const N: usize>(
    bytes: &[u8],
    wanted: [u32; N],
) -> Result<[Option<Value<'_>>; N], DecodeError> {
    let mut found = [None; N];
    for field in Fields::new(bytes) {
        let Field { number, value } = field.map_err(|_| DecodeError::Malformed)?;
        if let Some(at) = wanted.iter().position(|wanted| *wanted == number) {
            found[at] = value;
        }
    }
    Ok(found)
}

type NamespaceField = Option<Result<Namespace, Refusal>>;

fn namespace_of(field: Option<Value<'_>>) -> Result<NamespaceField, DecodeError> {
    match field {
        None => Ok(None),
        Some(Value::Varint(_)) => Err(DecodeError::Malformed),
        Some(Value::Bytes(bytes)) => {
            let text = str::from_utf8(bytes).map_err(|_| DecodeError::Malformed)?;
            Ok(Some(Namespace::new(text).map_err(|_| Refusal::Namespace)))
        }
    }
}

fn number_of(field: Option<Value<'_>>) -> Result<Option<u64>, DecodeError> {
    match field {
        None => Ok(None),
        Some(Value::Varint(value)) => Ok(Some(value)),
        Some(Value::Bytes(_)) => Err(DecodeError::Malformed),
    }
}

/// The answer to a registration: its life in seconds, or why there is none.
#[must_use]
pub fn encode_registered(result: Result<u64, Refusal>) -> Bytes {
    let mut body = BytesMut::new();
    match result {
        Ok(ttl_s) => {
            put_varint(&mut body, 1, 0);
            put_varint(&mut body, 3, ttl_s);
        }
        Err(refusal) => put_varint(&mut body, 1, refusal.code()),
    }
    message(number::REGISTER_RESPONSE, 3, &body)
}

/// The answer to a discovery that found something, or nothing.
#[must_use]
pub fn encode_discovered(namespace: &Namespace, found: &[Found], cookie: &[u8]) -> Bytes {
    let room: usize = found.iter().map(|one| found_len(namespace, one) + 8).sum();
    let mut body = BytesMut::with_capacity(room + cookie.len() + 16);
    let mut one = BytesMut::new();
    for registration in found {
        one.clear();
        put_bytes(&mut one, 1, namespace.as_str().as_bytes());
        put_bytes(&mut one, 2, &registration.record);
        put_varint(&mut one, 3, registration.ttl_s);
        put_bytes(&mut body, 1, &one);
    }
    put_bytes(&mut body, 2, cookie);
    put_varint(&mut body, 3, 0);
    message(number::DISCOVER_RESPONSE, 6, &body)
}

/// Bytes that one registration takes in an answer, at most.
pub(super) fn found_len(namespace: &Namespace, found: &Found) -> usize {
    /// Tags and lengths of the registration and its three fields, and the longest number.
    const AROUND: usize = 5 * 6 + 10;
    namespace.as_str().len() + found.record.len() + AROUND
}

/// The answer that refuses a request of this kind; `None` where the kind has no answer.
#[must_use]
pub fn encode_refusal(answer: AnswerKind, refusal: Refusal) -> Option<Bytes> {
    match answer {
        AnswerKind::Register => Some(encode_registered(Err(refusal))),
        AnswerKind::Unregister => None,
        AnswerKind::Discover => {
            let mut body = BytesMut::new();
            put_varint(&mut body, 3, refusal.code());
            Some(message(number::DISCOVER_RESPONSE, 6, &body))
        }
    }
}

/// A message with its length before it.
fn message(kind: u64, field: u32, body: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(body.len() + 16);
    put_varint(&mut message, 1, kind);
    put_bytes(&mut message, field, body);
    let mut whole = BytesMut::with_capacity(message.len() + varint_len(message.len() as u64));
    super::protobuf::put_length(&mut whole, message.len());
    whole.put_slice(&message);
    whole.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nested(kind: Option<u64>, field: u32, body: &[u8]) -> Bytes {
        let mut bytes = BytesMut::new();
        if let Some(kind) = kind {
            put_varint(&mut bytes, 1, kind);
        }
        put_bytes(&mut bytes, field, body);
        bytes.freeze()
    }

    fn body(fields: &[(u32, Value<'_>)]) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        for (number, value) in fields {
            match value {
                Value::Varint(value) => put_varint(&mut bytes, *number, *value),
                Value::Bytes(value) => put_bytes(&mut bytes, *number, value),
            }
        }
        bytes.to_vec()
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
            (Bytes::new(), DecodeError::Malformed),
            (nested(None, 2, b""), DecodeError::Malformed),
            (nested(Some(0), 5, b""), DecodeError::Malformed),
            (nested(Some(1), 3, b""), DecodeError::Malformed),
            (nested(Some(7), 2, b""), DecodeError::Malformed),
            (nested(Some(0), 2, b"\xff"), DecodeError::Malformed),
            (
                nested(Some(0), 2, &body(&[(1, Value::Bytes(b"\xff")), record])),
                DecodeError::Malformed,
            ),
            (
                nested(Some(0), 2, &body(&[(1, Value::Varint(1)), record])),
                DecodeError::Malformed,
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

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&Bytes::from(bytes));
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
