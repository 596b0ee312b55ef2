//! The messages in the bytes that peers send. Pure.
//!
//! One RPC of [gossipsub] is a protobuf message behind its length. [`split`] takes the published
//! messages out of it and leaves the rest, subscriptions and control, to libp2p-gossipsub.
//! Each message is checked by [`Published::verify`], which is the dearest thing a receiver does: so
//! that it is not done for copies of what has been seen, [`Published::parse`] comes first.
//!
//! [gossipsub]: https://github.com/libp2p/specs/tree/master/pubsub

use bytes::{Buf, Bytes, BytesMut};
use calimero_network_primitives::{PeerId, identity::PublicKey};

use crate::ed25519::Verifier;

/// Messages in one RPC, at most, the bound of libp2p-gossipsub: a message holds a few dozen bytes
/// and costs some hundred where it is decoded.
pub const MAX_MESSAGES: usize = 500;

/// What is signed before the message itself, by the specification.
const SIGNING_PREFIX: &[u8] = b"libp2p-pubsub:";

/// Longest length prefix, in bytes: seven bits each of a 32-bit number.
const MAX_PREFIX_BYTES: usize = 5;

/// Why bytes are no RPC. The stream they came on cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RpcError {
    /// The length claims more than is accepted. Nothing was allocated for it.
    #[error("an RPC of {claimed} bytes, at most {limit} are accepted")]
    TooLarge {
        /// Most bytes accepted.
        limit: usize,
        /// What the length says.
        claimed: usize,
    },
    /// The bytes are not protobuf.
    #[error("malformed protobuf")]
    Malformed,
    /// There are too many messages.
    #[error("more than {MAX_MESSAGES} messages in one RPC")]
    TooMany,
}

/// Takes the next whole RPC out of what has arrived, without its length. `None` if more must
/// arrive first.
///
/// # Errors
///
/// [`RpcError`] where none can follow.
pub fn next_frame(arrived: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, RpcError> {
    let mut rest = &arrived[..];
    let claimed = match varint(&mut rest) {
        Some(claimed) => usize::try_from(claimed).unwrap_or(usize::MAX),
        None if arrived.len() < MAX_PREFIX_BYTES => return Ok(None),
        None => return Err(RpcError::Malformed),
    };
    if claimed > limit {
        return Err(RpcError::TooLarge { limit, claimed });
    }
    let prefix = arrived.len() - rest.len();
    if rest.len() < claimed {
        return Ok(None);
    }
    arrived.advance(prefix);
    Ok(Some(arrived.split_to(claimed).freeze()))
}

/// Separates the messages of an RPC from all else, which is left as an RPC behind its length.
///
/// # Errors
///
/// [`RpcError`].
pub fn split(frame: &Bytes) -> Result<(Vec<Bytes>, BytesMut), RpcError> {
    const PUBLISH: u64 = 2;
    let (mut messages, mut others) = (Vec::new(), Vec::new());
    let mut rest = &frame[..];
    while !rest.is_empty() {
        let before = rest;
        let field = Field::next(&mut rest).ok_or(RpcError::Malformed)?;
        match field {
            Field {
                number: PUBLISH,
                value: Some(value),
            } => {
                if messages.len() == MAX_MESSAGES {
                    return Err(RpcError::TooMany);
                }
                messages.push(frame.slice_ref(value));
            }
            Field {
                number: PUBLISH, ..
            } => return Err(RpcError::Malformed),
            _ => others.extend_from_slice(&before[..before.len() - rest.len()]),
        }
    }
    let mut left = BytesMut::with_capacity(others.len() + MAX_PREFIX_BYTES);
    put_varint(&mut left, others.len() as u64);
    left.extend_from_slice(&others);
    Ok((messages, left))
}

/// A message as it was published, whose signature has not been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Who says to be the author.
    pub author: PeerId,
    /// Its number among those of the author.
    pub sequence_number: u64,
    /// The topic.
    pub topic: String,
    /// The payload.
    pub data: Bytes,
    /// What is to prove it.
    pub signature: Bytes,
    /// The author's public key, where it is not part of the peer id.
    pub key: Option<Bytes>,
    has_data: bool,
    has_sequence_number: bool,
}

impl Published {
    /// Reads the fields of a message. `None` without what strict signing requires: author, sequence
    /// number, signature.
    ///
    /// # Errors
    ///
    /// [`RpcError::Malformed`].
    pub fn parse(message: &Bytes) -> Result<Option<Self>, RpcError> {
        let mut fields: [Option<Bytes>; 6] = Default::default();
        let mut rest = &message[..];
        while !rest.is_empty() {
            let field = Field::next(&mut rest).ok_or(RpcError::Malformed)?;
            let known = usize::try_from(field.number - 1).ok();
            if let Some(place) = known.and_then(|index| fields.get_mut(index)) {
                let value = field.value.ok_or(RpcError::Malformed)?;
                *place = Some(message.slice_ref(value));
            }
        }
        let [author, data, sequence_number, topic, signature, key] = fields;
        let topic = topic.unwrap_or_default();
        let topic = std::str::from_utf8(&topic).map_err(|_| RpcError::Malformed)?;
        let (Some(author), Some(signature)) = (
            author.and_then(|author| PeerId::from_bytes(&author).ok()),
            signature,
        ) else {
            return Ok(None);
        };
        let number = match sequence_number.as_deref() {
            // Present and empty, which counts as number 0, as everywhere.
            Some([]) => 0,
            Some(bytes) => match bytes.try_into() {
                Ok(bytes) => u64::from_be_bytes(bytes),
                Err(_) => return Ok(None),
            },
            None => return Ok(None),
        };
        Ok(Some(Self {
            author,
            sequence_number: number,
            topic: topic.to_owned(),
            has_data: data.is_some(),
            has_sequence_number: sequence_number.is_some_and(|bytes| !bytes.is_empty()),
            data: data.unwrap_or_default(),
            signature,
            key,
        }))
    }

    /// The key that the message says to be signed with, if it is its author's.
    #[must_use]
    pub fn public_key(&self) -> Option<PublicKey> {
        let key = match self.key.as_deref().map(PublicKey::try_decode_protobuf) {
            Some(Ok(key)) => key,
            // An identity multihash: its code and its length stand before the key.
            _ => PublicKey::try_decode_protobuf(self.author.to_bytes().get(2..)?).ok()?,
        };
        (self.author == key.to_peer_id()).then_some(key)
    }

    /// Whether `key`, which is its author's, has signed it.
    #[must_use]
    pub fn verify(&self, key: &PublicKey) -> bool {
        key.verify(&self.signed(&self.author.to_bytes()), &self.signature)
    }

    /// As [`verify`](Self::verify), with the tables of the author's key.
    #[must_use]
    pub fn verify_with(&self, verifier: &Verifier) -> bool {
        verifier.verify(&self.signed(&self.author.to_bytes()), &self.signature)
    }

    /// The bytes that are signed: the message without signature and key, in the order of its
    /// fields.
    fn signed(&self, author: &[u8]) -> BytesMut {
        const OVERHEAD_BYTES: usize = 64;
        let variable = author.len() + self.data.len() + self.topic.len();
        let mut signed = BytesMut::with_capacity(SIGNING_PREFIX.len() + variable + OVERHEAD_BYTES);
        signed.extend_from_slice(SIGNING_PREFIX);
        put_field(&mut signed, 1, author);
        if self.has_data {
            put_field(&mut signed, 2, &self.data);
        }
        let number = self.sequence_number.to_be_bytes();
        let number = if self.has_sequence_number {
            &number[..]
        } else {
            &[]
        };
        put_field(&mut signed, 3, number);
        put_field(&mut signed, 4, self.topic.as_bytes());
        signed
    }
}

/// One field of a protobuf message.
struct Field<'a> {
    number: u64,
    /// The bytes of a field that has a length.
    value: Option<&'a [u8]>,
}

impl<'a> Field<'a> {
    /// Takes the next field off. `None` where there is none whole.
    fn next(rest: &mut &'a [u8]) -> Option<Self> {
        let tag = varint(rest)?;
        let number = tag >> 3;
        let fixed = match tag & 7 {
            0 => {
                varint(rest)?;
                0
            }
            1 => 8,
            2 => {
                let length = usize::try_from(varint(rest)?).ok()?;
                let value = take(rest, length)?;
                return (number > 0).then_some(Self {
                    number,
                    value: Some(value),
                });
            }
            5 => 4,
            _ => return None,
        };
        take(rest, fixed)?;
        (number > 0).then_some(Self {
            number,
            value: None,
        })
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for (index, byte) in rest.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if index == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * index);
        if byte & 0x80 == 0 {
            *rest = &rest[index + 1..];
            return Some(value);
        }
    }
    None
}

fn put_varint(to: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        to.extend_from_slice(&[(value & 0x7f) as u8 | 0x80]);
        value >>= 7;
    }
    to.extend_from_slice(&[value as u8]);
}

fn put_field(to: &mut BytesMut, number: u64, value: &[u8]) {
    put_varint(to, number << 3 | 2);
    put_varint(to, value.len() as u64);
    to.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use calimero_network_primitives::Keypair;
    use proptest::prelude::*;

    use super::*;

    fn message(key: &Keypair, data: Option<&[u8]>, sign: bool) -> Bytes {
        let mut signed = BytesMut::new();
        put_field(&mut signed, 1, &key.public().to_peer_id().to_bytes());
        if let Some(data) = data {
            put_field(&mut signed, 2, data);
        }
        put_field(&mut signed, 3, &7_u64.to_be_bytes());
        put_field(&mut signed, 4, b"topic");
        if sign {
            let signature = key.sign(&[SIGNING_PREFIX, &signed].concat()).unwrap();
            put_field(&mut signed, 5, &signature);
        }
        signed.freeze()
    }

    fn rpc(parts: &[(u64, &[u8])]) -> BytesMut {
        let mut body = BytesMut::new();
        for (number, part) in parts {
            put_field(&mut body, *number, part);
        }
        let mut whole = BytesMut::new();
        put_varint(&mut whole, body.len() as u64);
        whole.extend_from_slice(&body);
        whole
    }

    fn whole(message: &Bytes) -> Published {
        Published::parse(message).unwrap().expect("complete")
    }

    #[test]
    fn what_the_author_signed_is_verified_and_nothing_else() {
        let key = Keypair::generate_ed25519();
        for data in [None, Some(&b""[..]), Some(b"payload")] {
            let published = whole(&message(&key, data, true));
            assert_eq!(published.author, key.public().to_peer_id());
            assert_eq!((published.sequence_number, &*published.topic), (7, "topic"));
            assert_eq!(published.data, data.unwrap_or_default());
            let signed = |p: &Published| p.public_key().is_some_and(|key| p.verify(&key));
            assert!(signed(&published));
            for change in [
                (|p: &mut Published| (p.data, p.has_data) = ("other".into(), true))
                    as fn(&mut Published),
                |p| p.sequence_number += 1,
                |p| p.topic.push('s'),
                |p| p.author = Keypair::generate_ed25519().public().to_peer_id(),
                |p| p.signature = p.signature.slice(1..),
                |p| {
                    p.key = Some(
                        Keypair::generate_ed25519()
                            .public()
                            .encode_protobuf()
                            .into(),
                    )
                },
            ] {
                let mut changed = published.clone();
                change(&mut changed);
                assert!(!signed(&changed), "{changed:?}");
            }
        }
        let unsigned = message(&key, Some(b"payload"), false);
        assert_eq!(Published::parse(&unsigned), Ok(None));
    }

    #[test]
    fn messages_are_taken_out_and_the_rest_is_left() {
        let (first, second) = (&b"first"[..], &b"second"[..]);
        let mut arrived = rpc(&[
            (1, b"subscription"),
            (2, first),
            (3, b"control"),
            (2, second),
        ]);
        let frame = next_frame(&mut arrived, 100).unwrap().unwrap();
        assert!(arrived.is_empty());
        let (messages, left) = split(&frame).unwrap();
        assert_eq!(messages, [first, second]);
        assert_eq!(left, rpc(&[(1, b"subscription"), (3, b"control")]));
    }

    #[test]
    fn limits_hold_before_anything_arrives() {
        let mut arrived = BytesMut::new();
        put_varint(&mut arrived, 101);
        let (limit, claimed) = (100, 101);
        let refused = Err(RpcError::TooLarge { limit, claimed });
        assert_eq!(next_frame(&mut arrived, limit), refused);
        let mut endless = BytesMut::from(&[0xff; 5][..]);
        assert_eq!(next_frame(&mut endless, limit), Err(RpcError::Malformed));
        let mut many = rpc(&[(2, &b""[..]); MAX_MESSAGES + 1]);
        let frame = next_frame(&mut many, 10_000).unwrap().unwrap();
        assert_eq!(split(&frame), Err(RpcError::TooMany));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            if let Ok((messages, left)) = split(&bytes) {
                for message in messages {
                    if let Ok(Some(published)) = Published::parse(&message) {
                        let _ = published.public_key().map(|key| published.verify(&key));
                    }
                }
                let mut left = left;
                prop_assert!(next_frame(&mut left, 200).is_ok_and(|frame| frame.is_some()));
            }
            let _ = Published::parse(&bytes);
        }

        #[test]
        fn frames_come_out_however_they_arrive(
            sizes in prop::collection::vec(0..300_usize, 1..5),
            step in 1..50_usize,
        ) {
            let mut wire = BytesMut::new();
            for size in &sizes {
                wire.extend_from_slice(&rpc(&[(3, &vec![7; *size])]));
            }
            let (mut arrived, mut out) = (BytesMut::new(), Vec::new());
            for part in wire.chunks(step) {
                arrived.extend_from_slice(part);
                while let Some(frame) = next_frame(&mut arrived, 1000).unwrap() {
                    out.push(frame.len());
                }
            }
            prop_assert_eq!(out.len(), sizes.len());
            prop_assert!(arrived.is_empty());
        }
    }
}
