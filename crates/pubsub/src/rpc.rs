//! RPCs of [gossipsub] on the wire: one reader and one writer.
//!
//! An RPC is a protobuf message behind its length. [`next_frame`] separates RPCs, [`Rpc::decode`]
//! reads one, [`Message::parse`] reads a message in it without checking its signature. Entries are
//! counted before they are stored, so an RPC of a megabyte cannot become a hundred megabytes of
//! small objects.
//!
//! [gossipsub]: https://github.com/libp2p/specs/tree/master/pubsub

use bytes::{Buf, BufMut, Bytes, BytesMut};
use calimero_network_primitives::{PeerId, identity::PublicKey};
use prost::encoding::{WireType, decode_key, decode_varint, encode_varint, encoded_len_varint};

use crate::{ed25519::Verifier, wire::TopicHash};

/// Messages in one RPC, at most: 500, the limit of libp2p-gossipsub.
pub const MAX_MESSAGES: usize = 500;

/// Subscriptions, control entries and message ids in one RPC, at most: 16,384. A node that follows
/// 2,048 topics sends 2,048 subscriptions to a new peer, and offers up to 5,000 ids.
pub const MAX_ENTRIES: usize = 16_384;

/// Size of an RPC, in bytes, up to which it is copied out of the memory in which it has arrived:
/// what a stream reads at one time. A larger one arrives in memory of its own.
const MAX_COPIED_BYTES: usize = 64 * 1024;

/// Message ids that count as one control entry: each one is hashed and looked up, which takes less
/// time than a change of a mesh.
const IDS_PER_ENTRY: usize = 16;

/// Bytes that are signed before the message, by the specification.
const SIGNING_PREFIX: &[u8] = b"libp2p-pubsub:";

/// Longest length prefix, in bytes: seven bits each of a 32-bit number.
const MAX_PREFIX_BYTES: usize = 5;

/// Field of the control extensions that says how many topics the sender announces on a new
/// stream, after which its list is complete. In the range for experimental extensions, above
/// 0x200000; implementations that do not know it skip it.
const ANNOUNCED_TOPICS: u32 = 0x63_616c;

/// Why bytes are not an RPC. The stream on which they arrived cannot continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RpcError {
    /// The length claims more than is accepted. No memory was allocated for it.
    #[error("an RPC of {claimed} bytes, at most {limit} are accepted")]
    TooLarge {
        /// Most bytes that are accepted.
        limit: usize,
        /// Bytes that the length claims.
        claimed: usize,
    },
    /// The bytes are not valid protobuf.
    #[error("malformed protobuf")]
    Malformed,
    /// The RPC has too many messages or entries.
    #[error("more than {MAX_MESSAGES} messages or {MAX_ENTRIES} entries in one RPC")]
    TooMany,
}

/// Takes the next whole RPC, without its length, out of the bytes that have arrived. Returns `None`
/// if more bytes must arrive first.
///
/// # Errors
///
/// [`RpcError`] if no RPC can follow.
pub fn next_frame(arrived: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, RpcError> {
    let Some((prefix, claimed)) = next_length(arrived, limit)? else {
        return Ok(None);
    };
    if arrived.len() - prefix < claimed {
        return Ok(None);
    }
    arrived.advance(prefix);
    if claimed <= MAX_COPIED_BYTES {
        // It must not keep the memory of what arrived with it.
        let frame = Bytes::copy_from_slice(&arrived[..claimed]);
        arrived.advance(claimed);
        return Ok(Some(frame));
    }
    let frame = arrived.split_to(claimed).freeze();
    // What follows must not keep the memory of this RPC, which may be ignored.
    *arrived = BytesMut::from(&arrived[..]);
    Ok(Some(frame))
}

/// Lengths of the prefix of the next RPC and of the RPC. `None` until the prefix has arrived.
pub(crate) fn next_length(
    arrived: &[u8],
    limit: usize,
) -> Result<Option<(usize, usize)>, RpcError> {
    let mut rest = &arrived[..arrived.len().min(MAX_PREFIX_BYTES)];
    let claimed = match decode_varint(&mut rest) {
        Ok(claimed) => usize::try_from(claimed).unwrap_or(usize::MAX),
        Err(_) if arrived.len() < MAX_PREFIX_BYTES => return Ok(None),
        Err(_) => return Err(RpcError::Malformed),
    };
    if claimed > limit {
        return Err(RpcError::TooLarge { limit, claimed });
    }
    Ok(Some((encoded_prefix(arrived), claimed)))
}

/// Length of the varint at the start of `bytes`, which is there.
fn encoded_prefix(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| **byte & 0x80 != 0).count() + 1
}

/// An announcement that a peer subscribes to a topic, or unsubscribes from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The topic that is announced.
    pub topic: TopicHash,
    /// Subscribes if `true`, unsubscribes if `false`.
    pub subscribes: bool,
}

/// Control entries of an RPC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// IHAVE: ids of messages that the sender offers, by topic.
    pub ihave: Vec<(TopicHash, Vec<Bytes>)>,
    /// IWANT: ids of messages that the sender requests.
    pub iwant: Vec<Bytes>,
    /// GRAFT: topics in whose mesh the sender has taken the receiver.
    pub graft: Vec<TopicHash>,
    /// PRUNE: topics from whose mesh the sender has removed the receiver, with the back-off in
    /// seconds. Peers that are offered for exchange are skipped.
    pub prune: Vec<(TopicHash, Option<u64>)>,
    /// IDONTWANT: ids of messages that the sender has already received.
    pub idontwant: Vec<Bytes>,
    /// Number of topics that the sender announces on this stream, if it says so.
    pub announces: Option<u64>,
}

/// An RPC as it was read, or is to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rpc {
    /// Announcements, in the order they were sent.
    pub subscriptions: Vec<Subscription>,
    /// Messages that have not been parsed, in the order they were sent.
    pub messages: Vec<Bytes>,
    /// Control entries of the RPC.
    pub control: Control,
    /// Control entries that were read, the unit in which control is limited. Message ids count
    /// less.
    pub control_entries: usize,
}

/// A value of a protobuf field.
enum Value {
    Number(u64),
    Bytes(Bytes),
    Other,
}

impl Value {
    fn bytes(self) -> Result<Bytes, RpcError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(RpcError::Malformed),
        }
    }

    fn number(self) -> Result<u64, RpcError> {
        match self {
            Self::Number(number) => Ok(number),
            _ => Err(RpcError::Malformed),
        }
    }

    fn topic(self) -> Result<TopicHash, RpcError> {
        let bytes = self.bytes()?;
        let text = std::str::from_utf8(&bytes).map_err(|_| RpcError::Malformed)?;
        Ok(TopicHash::from_raw(text))
    }
}

/// Calls `on_field` with each field of a protobuf message, in order. Values share the buffer.
fn each_field(
    mut bytes: Bytes,
    mut on_field: impl FnMut(u32, Value) -> Result<(), RpcError>,
) -> Result<(), RpcError> {
    while bytes.has_remaining() {
        let (field, wire) = decode_key(&mut bytes).map_err(|_| RpcError::Malformed)?;
        let skip = match wire {
            WireType::Varint => {
                let number = decode_varint(&mut bytes).map_err(|_| RpcError::Malformed)?;
                on_field(field, Value::Number(number))?;
                continue;
            }
            WireType::LengthDelimited => {
                let length = decode_varint(&mut bytes).map_err(|_| RpcError::Malformed)?;
                let length = usize::try_from(length).map_err(|_| RpcError::Malformed)?;
                if length > bytes.len() {
                    return Err(RpcError::Malformed);
                }
                on_field(field, Value::Bytes(bytes.split_to(length)))?;
                continue;
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::StartGroup | WireType::EndGroup => return Err(RpcError::Malformed),
        };
        if skip > bytes.len() {
            return Err(RpcError::Malformed);
        }
        bytes.advance(skip);
        on_field(field, Value::Other)?;
    }
    Ok(())
}

/// Counts entries of one RPC, and the message ids among them.
struct Budget {
    left: usize,
    ids: usize,
}

impl Budget {
    fn take(&mut self) -> Result<(), RpcError> {
        self.left = self.left.checked_sub(1).ok_or(RpcError::TooMany)?;
        Ok(())
    }
}

/// Returns a copy of `part` if that is less than half of the `size` bytes of memory in which it
/// lies.
fn small_copy(part: &Bytes, size: usize) -> Bytes {
    if part.len() < size / 2 {
        Bytes::copy_from_slice(part)
    } else {
        part.clone()
    }
}

impl Rpc {
    /// Reads an RPC without its length.
    ///
    /// # Errors
    ///
    /// [`RpcError`] if the bytes are not an RPC, or one that is too long.
    pub fn decode(frame: Bytes) -> Result<Self, RpcError> {
        let mut rpc = Self::default();
        let mut budget = Budget {
            left: MAX_ENTRIES,
            ids: 0,
        };
        let size = frame.len();
        each_field(frame, |field, value| {
            match field {
                1 => {
                    budget.take()?;
                    rpc.subscriptions.extend(subscription(value.bytes()?)?);
                }
                2 if rpc.messages.len() == MAX_MESSAGES => return Err(RpcError::TooMany),
                2 => rpc.messages.push(value.bytes()?),
                3 => {
                    let entries = &mut rpc.control_entries;
                    control(value.bytes()?, &mut rpc.control, entries, &mut budget)?;
                }
                _ => {}
            }
            Ok(())
        })?;
        // A message that is kept keeps all of its RPC in memory, which is at most twice its own
        // size: a few bytes must not keep a megabyte of other fields or messages.
        for message in &mut rpc.messages {
            *message = small_copy(message, size);
        }
        rpc.control_entries += budget.ids / IDS_PER_ENTRY;
        Ok(rpc)
    }

    /// Writes the RPC behind its length.
    #[must_use]
    pub fn encode(&self) -> Frame {
        let mut body = BytesMut::new();
        for entry in &self.subscriptions {
            let topic = entry.topic.as_str().as_bytes();
            put_nested(&mut body, 1, 2 + field_len(topic), |body| {
                put_number(body, 1, u64::from(entry.subscribes));
                put_field(body, 2, topic);
            });
        }
        for message in &self.messages {
            put_field(&mut body, 2, message);
        }
        let control = self.control.encode();
        if !control.is_empty() {
            put_field(&mut body, 3, &control);
        }
        Frame::new(None, body.freeze())
    }
}

fn subscription(bytes: Bytes) -> Result<Option<Subscription>, RpcError> {
    let (mut topic, mut subscribes) = (None, false);
    each_field(bytes, |field, value| {
        match field {
            1 => subscribes = value.number()? != 0,
            2 => topic = Some(value.topic()?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(topic.map(|topic| Subscription { topic, subscribes }))
}

fn control(
    bytes: Bytes,
    control: &mut Control,
    entries: &mut usize,
    budget: &mut Budget,
) -> Result<(), RpcError> {
    each_field(bytes, |field, value| {
        if !(1..=6).contains(&field) {
            return Ok(());
        }
        budget.take()?;
        *entries += usize::from(field < 6);
        let (mut topic, mut ids, mut backoff) = (None, Vec::new(), None);
        each_field(value.bytes()?, |inner, value| {
            match (field, inner) {
                (1 | 3 | 4, 1) => topic = Some(value.topic()?),
                (1, 2) | (2 | 5, 1) => {
                    budget.take()?;
                    budget.ids += 1;
                    ids.push(value.bytes()?);
                }
                (4, 3) => backoff = Some(value.number()?),
                (6, ANNOUNCED_TOPICS) => control.announces = Some(value.number()?),
                _ => {}
            }
            Ok(())
        })?;
        match (field, topic) {
            (1, Some(topic)) => control.ihave.push((topic, ids)),
            (2, _) => control.iwant.append(&mut ids),
            (3, Some(topic)) => control.graft.push(topic),
            (4, Some(topic)) => control.prune.push((topic, backoff)),
            (5, _) => control.idontwant.append(&mut ids),
            _ => {}
        }
        Ok(())
    })
}

impl Control {
    /// Returns `true` if there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn encode(&self) -> BytesMut {
        let mut out = BytesMut::new();
        let lens = |ids: &[Bytes]| ids.iter().map(|id| field_len(id)).sum::<usize>();
        for (topic, ids) in &self.ihave {
            let topic = topic.as_str().as_bytes();
            put_nested(&mut out, 1, field_len(topic) + lens(ids), |out| {
                put_field(out, 1, topic);
                ids.iter().for_each(|id| put_field(out, 2, id));
            });
        }
        for (field, ids) in [(2, &self.iwant), (5, &self.idontwant)] {
            if !ids.is_empty() {
                put_nested(&mut out, field, lens(ids), |out| {
                    ids.iter().for_each(|id| put_field(out, 1, id));
                });
            }
        }
        for topic in &self.graft {
            let topic = topic.as_str().as_bytes();
            put_nested(&mut out, 3, field_len(topic), |out| {
                put_field(out, 1, topic)
            });
        }
        for (topic, backoff) in &self.prune {
            let topic = topic.as_str().as_bytes();
            let len = backoff.map_or(0, |seconds| 1 + encoded_len_varint(seconds));
            put_nested(&mut out, 4, field_len(topic) + len, |out| {
                put_field(out, 1, topic);
                if let Some(seconds) = backoff {
                    put_number(out, 3, *seconds);
                }
            });
        }
        if let Some(topics) = self.announces {
            let len = encoded_len_varint(tag(ANNOUNCED_TOPICS, 0)) + encoded_len_varint(topics);
            put_nested(&mut out, 6, len, |out| {
                put_number(out, ANNOUNCED_TOPICS, topics)
            });
        }
        out
    }
}

/// An RPC as it is written, length included. The body is shared by all peers that get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    head: [u8; 2 * MAX_PREFIX_BYTES + 1],
    head_len: u8,
    body: Bytes,
}

impl Frame {
    /// A frame of `body`, which is all of an RPC, or the one field `field` of it.
    fn new(field: Option<u32>, body: Bytes) -> Self {
        let mut head = Vec::with_capacity(2 * MAX_PREFIX_BYTES + 1);
        let inner = match field {
            Some(_) => 1 + encoded_len_varint(body.len() as u64),
            None => 0,
        };
        encode_varint((inner + body.len()) as u64, &mut head);
        if let Some(field) = field {
            encode_varint(tag(field, 2), &mut head);
            encode_varint(body.len() as u64, &mut head);
        }
        let mut frame = Self {
            head: Default::default(),
            head_len: head.len() as u8,
            body,
        };
        frame.head[..head.len()].copy_from_slice(&head);
        frame
    }

    /// The first bytes, which are few.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        &self.head[..usize::from(self.head_len)]
    }

    /// The bytes after [`head`](Self::head).
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Bytes of the frame on the wire.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.head_len) + self.body.len()
    }

    /// Returns `true` if the RPC has no content.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }
}

/// A message as it was published, whose signature has not been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The peer that claims to be the author.
    pub author: PeerId,
    /// Payload. A missing field and an empty one are different for the signature.
    pub data: Option<Bytes>,
    /// Its number among those of the author.
    pub sequence_number: u64,
    /// The topic it was published to.
    pub topic: TopicHash,
    /// Signature of the author.
    pub signature: Bytes,
    /// Public key of the author, as a message may carry it.
    pub key: Option<Bytes>,
    /// The bytes that were read, if they are the only encoding of these fields.
    canonical: Option<Bytes>,
}

impl Message {
    /// A message that `author` is about to sign.
    pub(crate) fn unsigned(author: PeerId, number: u64, topic: TopicHash, data: Bytes) -> Self {
        Self {
            author,
            data: Some(data),
            sequence_number: number,
            topic,
            signature: Bytes::new(),
            key: None,
            canonical: None,
        }
    }

    /// Reads the fields of a message. Returns `None` if it lacks a field that strict signing
    /// requires, or has one that another implementation would refuse: author, sequence number of 8
    /// bytes, topic, signature.
    ///
    /// # Errors
    ///
    /// [`RpcError::Malformed`] if the bytes are not valid protobuf.
    pub fn parse(raw: &Bytes) -> Result<Option<Self>, RpcError> {
        let mut fields: [Option<Bytes>; 6] = Default::default();
        let (mut last, mut ordered) = (0, true);
        each_field(raw.clone(), |field, value| {
            ordered &= (last + 1..=6).contains(&field);
            last = field;
            let index = usize::try_from(field).unwrap_or(usize::MAX).wrapping_sub(1);
            if let Some(place) = fields.get_mut(index) {
                *place = Some(value.bytes()?);
            }
            Ok(())
        })?;
        let [author, data, number, topic, signature, key] = fields;
        let topic = topic.unwrap_or_default();
        let topic = std::str::from_utf8(&topic).map_err(|_| RpcError::Malformed)?;
        let number = number.and_then(|bytes| <[u8; 8]>::try_from(&bytes[..]).ok());
        let id = author.as_deref().map(PeerId::from_bytes);
        let (Some(from), Some(Ok(id)), Some(number), Some(signature)) =
            (author, id, number, signature)
        else {
            return Ok(None);
        };
        if topic.is_empty() || from != id.to_bytes() {
            return Ok(None);
        }
        let mut message = Self {
            author: id,
            data,
            sequence_number: u64::from_be_bytes(number),
            topic: TopicHash::from_raw(topic),
            signature,
            key,
            canonical: None,
        };
        // Known fields, each at most once, in order and as short as they can be written.
        if ordered && raw.len() == message.encoded_len() {
            message.canonical = Some(raw.clone());
        } else {
            // The payload must not keep fields in memory that are unknown or come twice.
            message.data = message.data.map(|data| small_copy(&data, raw.len()));
        }
        Ok(Some(message))
    }

    /// Returns the author's public key if the message is by that author according to all fields:
    /// the key in the message, where there is one, must be the key of the peer id and be encoded in
    /// the one canonical way.
    #[must_use]
    pub fn public_key(&self) -> Option<PublicKey> {
        let key = match &self.key {
            Some(bytes) => {
                let key = PublicKey::try_decode_protobuf(bytes).ok()?;
                (key.encode_protobuf() == bytes[..]).then_some(key)?
            }
            // An identity multihash: code and length, then the key.
            None => PublicKey::try_decode_protobuf(self.author.to_bytes().get(2..)?).ok()?,
        };
        (self.author == key.to_peer_id()).then_some(key)
    }

    /// Returns `true` if `key`, which is the author's, has signed the message.
    #[must_use]
    pub fn verify(&self, key: &PublicKey) -> bool {
        key.verify(&self.signed(), &self.signature)
    }

    /// As [`verify`](Self::verify), with tables of the author's key.
    #[must_use]
    pub fn verify_with(&self, verifier: &Verifier) -> bool {
        verifier.verify(&self.signed(), &self.signature)
    }

    /// Bytes that are signed: the message without signature and key.
    pub(crate) fn signed(&self) -> BytesMut {
        let mut signed = BytesMut::with_capacity(SIGNING_PREFIX.len() + self.encoded_len());
        signed.extend_from_slice(SIGNING_PREFIX);
        self.put_signed(&mut signed);
        signed
    }

    fn put_signed(&self, out: &mut BytesMut) {
        put_field(out, 1, &self.author.to_bytes());
        if let Some(data) = &self.data {
            put_field(out, 2, data);
        }
        put_field(out, 3, &self.sequence_number.to_be_bytes());
        put_field(out, 4, self.topic.as_str().as_bytes());
    }

    fn encoded_len(&self) -> usize {
        let author = field_len(&self.author.to_bytes());
        let topic = field_len(self.topic.as_str().as_bytes());
        let data = self.data.as_ref().map_or(0, |data| field_len(data));
        let key = self.key.as_ref().map_or(0, |key| field_len(key));
        author + data + field_len(&[0; 8]) + topic + field_len(&self.signature) + key
    }

    /// Returns the RPC that carries this message alone, in the canonical encoding: fields that
    /// this implementation does not know are not forwarded, since others sign them. No copy is made
    /// of a message that arrived in the canonical encoding.
    #[must_use]
    pub fn frame(&self) -> Frame {
        let body = self.canonical.clone().unwrap_or_else(|| {
            let mut body = BytesMut::with_capacity(self.encoded_len());
            self.put_signed(&mut body);
            put_field(&mut body, 5, &self.signature);
            if let Some(key) = &self.key {
                put_field(&mut body, 6, key);
            }
            body.freeze()
        });
        Frame::new(Some(2), body)
    }

    /// Bytes of the payload.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.data.as_ref().map_or(0, Bytes::len)
    }
}

fn tag(field: u32, wire: u64) -> u64 {
    u64::from(field) << 3 | wire
}

fn field_len(bytes: &[u8]) -> usize {
    1 + encoded_len_varint(bytes.len() as u64) + bytes.len()
}

fn put_field(to: &mut BytesMut, field: u32, bytes: &[u8]) {
    put_nested(to, field, bytes.len(), |to| to.put_slice(bytes));
}

fn put_number(to: &mut BytesMut, field: u32, number: u64) {
    encode_varint(tag(field, 0), to);
    encode_varint(number, to);
}

fn put_nested(to: &mut BytesMut, field: u32, len: usize, put: impl FnOnce(&mut BytesMut)) {
    encode_varint(tag(field, 2), to);
    encode_varint(len as u64, to);
    put(to);
}

#[cfg(test)]
mod tests;
