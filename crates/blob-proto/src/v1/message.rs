//! The messages, each one frame. Numbers are unsigned varints in their shortest form, and what
//! has no length of its own extends to the end of the frame.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use calimero_network_primitives::{BlobId, ContextId, limits::BLOB_CHUNK_BYTES};
use unsigned_varint::{decode, encode};

use super::SessionAuth;
use crate::{CHUNK_HASH_BYTES, MAX_BLOB_BYTES, MAX_BLOB_CHUNKS, varint};

/// Longest request, in bytes: 1 KiB. The longest that is valid, a read of 64
/// ranges, has 354.
pub const MAX_REQUEST_BYTES: usize = 1024;

/// Longest response, in bytes: one chunk or one page, and 16 bytes for what precedes it.
pub const MAX_RESPONSE_BYTES: usize = BLOB_CHUNK_BYTES + 16;

/// Longest prefix of a frame, in bytes: 2^21 and more, which no frame has, needs four.
pub const FRAME_PREFIX_MAX_BYTES: usize = 3;

/// Largest blob that is sent in place of its list, in bytes: 64 KiB.
///
/// A round trip costs more than sending that much twice, should another provider send it too.
pub const MAX_INLINE_BYTES: usize = 64 * 1024;

/// Chunk hashes in one page, at most: 1 MiB of them, for content of 32 GiB.
pub const MAX_PAGE_HASHES: usize = BLOB_CHUNK_BYTES / CHUNK_HASH_BYTES;

/// Ranges in one request, at most. A download with more holes sends more requests.
pub const MAX_READ_RANGES: usize = 64;

/// Chunks in one request, at most: 1 GiB, so that a request says how much it costs to answer.
pub const MAX_READ_CHUNKS: u64 = 1024;

/// Ranges in one [`Response::Have`], at most: 1,024, so below 7 KiB.
pub const MAX_HAVE_RANGES: usize = 1024;

/// Peers in one [`Response::Peers`], at most: 16.
pub const MAX_NAMED_PEERS: usize = 16;

/// Longest peer id in a message, in bytes: 64. Ids in use have 38 or 34.
pub const MAX_PEER_ID_BYTES: usize = 64;

/// Longest pause that a provider may ask for before a chunk is asked for again, in milliseconds:
/// 10 s.
pub const MAX_RETRY_MS: u64 = 10_000;

const HELLO: u8 = 0x00;
const GET: u8 = 0x01;
const READ: u8 = 0x02;
const WATCH: u8 = 0x03;
const GOT: u8 = 0x04;
const LIST: u8 = 0x80;
const INLINE: u8 = 0x81;
const CHUNK: u8 = 0x82;
const REFUSED: u8 = 0x83;
const HAVE: u8 = 0x84;
const PEERS: u8 = 0x85;
const ABSENT: u8 = 0x86;

/// Why a frame is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The frame claims more than any message of its direction has. Nothing is read for it.
    #[error("a frame of {len_bytes} bytes, at most {max_bytes} are allowed")]
    TooLong {
        /// Claimed length, in bytes.
        len_bytes: u64,
        /// Longest that is allowed, in bytes.
        max_bytes: usize,
    },
    /// A number is longer than its value needs, or than any value that is allowed.
    #[error("a number is malformed")]
    Number,
    /// The kind of message is unknown, or belongs to the other direction.
    #[error("unknown message {kind:#04x}")]
    Unknown {
        /// First byte of the message.
        kind: u8,
    },
    /// The message is shorter than its fields.
    #[error("a message ends too early")]
    Truncated,
    /// The message is longer than its fields.
    #[error("{extra_bytes} bytes follow a message in its frame")]
    Trailing {
        /// How many bytes are left.
        extra_bytes: usize,
    },
    /// A field holds what it may not hold.
    #[error("the field {field} is out of bounds")]
    Field {
        /// The name of the field.
        field: &'static str,
    },
}

/// The first message of a requester.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The context on whose behalf blobs are asked for.
    pub context_id: ContextId,
    /// Proof of who asks; without it only what is public can be had.
    pub auth: Option<SessionAuth>,
}

/// What a requester sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Who asks. First, and once.
    Hello(Hello),
    /// Asks for a blob: its content if that is small, else chunk hashes.
    Get {
        /// The id of the blob.
        blob_id: BlobId,
        /// Largest content that is wanted in place of the list, in bytes. At most
        /// [`MAX_INLINE_BYTES`].
        inline_max_bytes: u64,
        /// First chunk hash that is wanted. At most [`MAX_BLOB_CHUNKS`].
        from: u64,
    },
    /// Asks for some chunks of a blob.
    Read {
        /// The id of the blob.
        blob_id: BlobId,
        /// Indices of chunks: at least one range and at most [`MAX_READ_RANGES`], none empty,
        /// ascending without overlap, at most [`MAX_READ_CHUNKS`] chunks in all.
        ranges: Vec<Range<u64>>,
    },
    /// Requests reports of the chunks of a blob that the provider has, and which other peers fetch it,
    /// now and whenever that changes. Of 1.1.0, once in a stream.
    Watch {
        /// The id of the blob.
        blob_id: BlobId,
        /// Whether the requester serves the chunks that it has verified.
        serves: bool,
    },
    /// Reports that a chunk of the watched blob, sent by this provider, is verified. Of 1.1.0. It
    /// has no answer.
    Got {
        /// Its index. Below [`MAX_BLOB_CHUNKS`].
        index: u64,
    },
}

impl Request {
    /// Returns `true` for a message that 1.0.0 does not have.
    #[must_use]
    pub fn is_of_1_1(&self) -> bool {
        matches!(self, Self::Watch { .. } | Self::Got { .. })
    }
}

/// Some chunk hashes of a blob. A claim until all of them are proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage {
    /// Size of the blob in bytes, by the word of the provider. At most [`MAX_BLOB_BYTES`].
    pub size_bytes: u64,
    /// Index of the first hash.
    pub from: u64,
    /// The hashes one after another, at most [`MAX_PAGE_HASHES`].
    pub digests: Bytes,
}

/// Why a provider refuses a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It does not have the blob, or not all of what was asked for, or does not give it to this
    /// requester. It does not say which.
    NotFound,
    /// The provider is at its limit. The requester may retry later.
    Busy {
        /// Time to wait before a retry, in milliseconds.
        retry_after_ms: u64,
    },
    /// It failed on its own side.
    Failed,
}

/// What a provider sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// Some chunk hashes of a blob.
    List(ListPage),
    /// All of a small blob, at most [`MAX_INLINE_BYTES`].
    Inline {
        /// The content, to be verified against the id.
        content: Bytes,
    },
    /// One chunk of a blob.
    Chunk {
        /// Its index. Below [`MAX_BLOB_CHUNKS`].
        index: u64,
        /// Its content, to be verified against the list. 1 byte to 1 MiB.
        data: Bytes,
    },
    /// Nothing, or nothing more, of what was asked for.
    Refused(Refusal),
    /// Chunks of the watched blob that the provider has, in addition to those that it named
    /// before. Of 1.1.0. The first one answers [`Request::Watch`].
    Have {
        /// At most [`MAX_HAVE_RANGES`] ranges, none empty, ascending without overlap. May be empty.
        ranges: Vec<Range<u64>>,
    },
    /// Peers that fetch the watched blob and serve what they have of it. Of 1.1.0.
    Peers {
        /// Their peer ids as bytes: at least one and at most [`MAX_NAMED_PEERS`], each of 1 to
        /// [`MAX_PEER_ID_BYTES`] bytes.
        peers: Vec<Vec<u8>>,
    },
    /// One chunk that was asked for and is not sent. Of 1.1.0; other chunks of the request follow.
    Absent {
        /// Its index. Below [`MAX_BLOB_CHUNKS`].
        index: u64,
        /// 0 where the provider does not have the chunk. Otherwise the chunk is on its way to
        /// another requester that serves it, and this provider sends it when it is asked again
        /// after this time, at most [`MAX_RETRY_MS`].
        retry_after_ms: u64,
    },
}

impl Response {
    /// Returns `true` if a message that begins with this byte holds content or hashes of a blob.
    #[cfg(feature = "transfer")]
    pub(crate) fn is_content(kind: u8) -> bool {
        matches!(kind, LIST | INLINE | CHUNK)
    }

    /// Returns `true` for a message that 1.0.0 does not have.
    #[must_use]
    pub fn is_of_1_1(&self) -> bool {
        matches!(
            self,
            Self::Have { .. } | Self::Peers { .. } | Self::Absent { .. }
        )
    }
}

impl Request {
    /// Writes the message, without the prefix of its frame.
    ///
    /// # Errors
    ///
    /// [`MessageError::Field`] where a field is out of its bounds.
    pub fn encode(&self, to: &mut BytesMut) -> Result<(), MessageError> {
        self.check()?;
        match self {
            Self::Hello(hello) => {
                to.put_u8(HELLO);
                to.put_slice(hello.context_id.as_bytes());
                to.put_u8(hello.auth.is_some().into());
                if let Some(auth) = &hello.auth {
                    to.put_slice(&auth.public_key);
                    to.put_slice(&auth.signature);
                    put_number(to, auth.timestamp);
                }
            }
            Self::Get {
                blob_id,
                inline_max_bytes,
                from,
            } => {
                to.put_u8(GET);
                to.put_slice(blob_id.as_bytes());
                put_number(to, *inline_max_bytes);
                put_number(to, *from);
            }
            Self::Read { blob_id, ranges } => {
                to.put_u8(READ);
                to.put_slice(blob_id.as_bytes());
                put_ranges(to, ranges);
            }
            Self::Watch { blob_id, serves } => {
                to.put_u8(WATCH);
                to.put_slice(blob_id.as_bytes());
                to.put_u8((*serves).into());
            }
            Self::Got { index } => {
                to.put_u8(GOT);
                put_number(to, *index);
            }
        }
        Ok(())
    }

    /// Reads the message of a frame.
    ///
    /// # Errors
    ///
    /// [`MessageError`] with what is wrong about it.
    pub fn decode(mut frame: &[u8]) -> Result<Self, MessageError> {
        let from = &mut frame;
        let request = match take_byte(from)? {
            HELLO => Self::Hello(take_hello(from)?),
            GET => Self::Get {
                blob_id: take_array(from)?.into(),
                inline_max_bytes: take_number(from)?,
                from: take_number(from)?,
            },
            READ => Self::Read {
                blob_id: take_array(from)?.into(),
                ranges: take_ranges(from, MAX_READ_RANGES)?,
            },
            WATCH => Self::Watch {
                blob_id: take_array(from)?.into(),
                serves: match take_byte(from)? {
                    0 => false,
                    1 => true,
                    _ => return Err(MessageError::Field { field: "serves" }),
                },
            },
            GOT => Self::Got {
                index: take_number(from)?,
            },
            kind => return Err(MessageError::Unknown { kind }),
        };
        if !frame.is_empty() {
            return Err(MessageError::Trailing {
                extra_bytes: frame.len(),
            });
        }
        request.check()?;
        Ok(request)
    }

    fn check(&self) -> Result<(), MessageError> {
        match self {
            Self::Hello(_) => Ok(()),
            Self::Get {
                inline_max_bytes,
                from,
                ..
            } => {
                check(
                    *inline_max_bytes <= MAX_INLINE_BYTES as u64,
                    "inline_max_bytes",
                )?;
                check(*from <= MAX_BLOB_CHUNKS as u64, "from")
            }
            Self::Read { ranges, .. } => {
                check((1..=MAX_READ_RANGES).contains(&ranges.len()), "ranges")?;
                check(check_ranges(ranges)? <= MAX_READ_CHUNKS, "chunks")
            }
            Self::Watch { .. } => Ok(()),
            Self::Got { index } => check(*index < MAX_BLOB_CHUNKS as u64, "index"),
        }
    }
}

impl Response {
    /// What precedes the payload of the message, without the prefix of its frame, and the
    /// payload, which need not be copied to be sent.
    ///
    /// # Errors
    ///
    /// [`MessageError::Field`] where a field is out of its bounds.
    pub fn parts(&self) -> Result<(BytesMut, Bytes), MessageError> {
        self.check()?;
        let mut head = BytesMut::with_capacity(16);
        let payload = match self {
            Self::List(page) => {
                head.put_u8(LIST);
                put_number(&mut head, page.size_bytes);
                put_number(&mut head, page.from);
                page.digests.clone()
            }
            Self::Inline { content } => {
                head.put_u8(INLINE);
                content.clone()
            }
            Self::Chunk { index, data } => {
                head.put_u8(CHUNK);
                put_number(&mut head, *index);
                data.clone()
            }
            Self::Refused(refusal) => {
                head.put_u8(REFUSED);
                put_refusal(&mut head, *refusal);
                Bytes::new()
            }
            Self::Have { ranges } => {
                head.put_u8(HAVE);
                put_ranges(&mut head, ranges);
                Bytes::new()
            }
            Self::Peers { peers } => {
                head.put_u8(PEERS);
                put_number(&mut head, peers.len() as u64);
                for peer in peers {
                    put_number(&mut head, peer.len() as u64);
                    head.put_slice(peer);
                }
                Bytes::new()
            }
            Self::Absent {
                index,
                retry_after_ms,
            } => {
                head.put_u8(ABSENT);
                put_number(&mut head, *index);
                put_number(&mut head, *retry_after_ms);
                Bytes::new()
            }
        };
        Ok((head, payload))
    }

    /// Reads the message of a frame. Its payload is a slice of it.
    ///
    /// # Errors
    ///
    /// [`MessageError`] with what is wrong about it.
    pub fn decode(frame: &Bytes) -> Result<Self, MessageError> {
        let mut rest = frame.as_ref();
        let from = &mut rest;
        let kind = take_byte(from)?;
        let response = match kind {
            LIST => Self::List(ListPage {
                size_bytes: take_number(from)?,
                from: take_number(from)?,
                digests: frame.slice_ref(from),
            }),
            INLINE => Self::Inline {
                content: frame.slice_ref(from),
            },
            CHUNK => Self::Chunk {
                index: take_number(from)?,
                data: frame.slice_ref(from),
            },
            REFUSED => Self::Refused(take_refusal(from)?),
            HAVE => Self::Have {
                ranges: take_ranges(from, MAX_HAVE_RANGES)?,
            },
            PEERS => Self::Peers {
                peers: take_peers(from)?,
            },
            ABSENT => Self::Absent {
                index: take_number(from)?,
                retry_after_ms: take_number(from)?,
            },
            kind => return Err(MessageError::Unknown { kind }),
        };
        if kind >= REFUSED && !rest.is_empty() {
            return Err(MessageError::Trailing {
                extra_bytes: rest.len(),
            });
        }
        response.check()?;
        Ok(response)
    }

    fn check(&self) -> Result<(), MessageError> {
        match self {
            Self::List(page) => {
                let len = page.digests.len();
                check(page.size_bytes <= MAX_BLOB_BYTES, "size_bytes")?;
                check(page.from <= MAX_BLOB_CHUNKS as u64, "from")?;
                let whole = len.is_multiple_of(CHUNK_HASH_BYTES);
                check(whole && len <= BLOB_CHUNK_BYTES, "digests")
            }
            Self::Inline { content } => check(content.len() <= MAX_INLINE_BYTES, "content"),
            Self::Chunk { index, data } => {
                check(*index < MAX_BLOB_CHUNKS as u64, "index")?;
                check((1..=BLOB_CHUNK_BYTES).contains(&data.len()), "data")
            }
            Self::Refused(_) => Ok(()),
            Self::Have { ranges } => {
                check(ranges.len() <= MAX_HAVE_RANGES, "ranges")?;
                check_ranges(ranges).map(|_| ())
            }
            Self::Peers { peers } => {
                check((1..=MAX_NAMED_PEERS).contains(&peers.len()), "peers")?;
                let fits = |peer: &Vec<u8>| (1..=MAX_PEER_ID_BYTES).contains(&peer.len());
                check(peers.iter().all(fits), "peer")
            }
            Self::Absent {
                index,
                retry_after_ms,
            } => {
                check(*index < MAX_BLOB_CHUNKS as u64, "index")?;
                check(*retry_after_ms <= MAX_RETRY_MS, "retry_after_ms")
            }
        }
    }
}

/// Checks that ranges are ascending, disjoint and within a blob. Returns their number of chunks.
fn check_ranges(ranges: &[Range<u64>]) -> Result<u64, MessageError> {
    let (mut end, mut chunks) = (0, 0);
    for range in ranges {
        let fits = end <= range.start && range.start < range.end;
        check(fits && range.end <= MAX_BLOB_CHUNKS as u64, "range")?;
        chunks += range.end - range.start;
        end = range.end;
    }
    Ok(chunks)
}

fn check(holds: bool, field: &'static str) -> Result<(), MessageError> {
    if holds {
        Ok(())
    } else {
        Err(MessageError::Field { field })
    }
}

fn put_number(to: &mut BytesMut, number: u64) {
    to.put_slice(encode::u64(number, &mut encode::u64_buffer()));
}

fn put_ranges(to: &mut BytesMut, ranges: &[Range<u64>]) {
    put_number(to, ranges.len() as u64);
    let mut end = 0;
    for range in ranges {
        put_number(to, range.start - end);
        put_number(to, range.end - range.start);
        end = range.end;
    }
}

fn put_refusal(to: &mut BytesMut, refusal: Refusal) {
    let (reason, retry_after_ms) = match refusal {
        Refusal::NotFound => (0, 0),
        Refusal::Busy { retry_after_ms } => (1, retry_after_ms),
        Refusal::Failed => (2, 0),
    };
    to.put_u8(reason);
    put_number(to, retry_after_ms);
}

fn take_refusal(from: &mut &[u8]) -> Result<Refusal, MessageError> {
    let (reason, retry_after_ms) = (take_byte(from)?, take_number(from)?);
    match (reason, retry_after_ms) {
        (0, 0) => Ok(Refusal::NotFound),
        (1, retry_after_ms) => Ok(Refusal::Busy { retry_after_ms }),
        (2, 0) => Ok(Refusal::Failed),
        _ => Err(MessageError::Field { field: "reason" }),
    }
}

fn take_hello(from: &mut &[u8]) -> Result<Hello, MessageError> {
    let context_id = take_array(from)?.into();
    let auth = match take_byte(from)? {
        0 => None,
        1 => Some(SessionAuth {
            public_key: take_array(from)?,
            signature: take_array(from)?,
            timestamp: take_number(from)?,
        }),
        _ => return Err(MessageError::Field { field: "auth" }),
    };
    Ok(Hello { context_id, auth })
}

fn take_peers(from: &mut &[u8]) -> Result<Vec<Vec<u8>>, MessageError> {
    let count = take_number(from)?;
    check(count <= MAX_NAMED_PEERS as u64, "peers")?;
    let mut take = || {
        let len = usize::try_from(take_number(from)?).unwrap_or(usize::MAX);
        check(len <= MAX_PEER_ID_BYTES, "peer")?;
        let (peer, rest) = from.split_at_checked(len).ok_or(MessageError::Truncated)?;
        *from = rest;
        Ok(peer.to_vec())
    };
    (0..count).map(|_| take()).collect()
}

fn take_ranges(from: &mut &[u8], most: usize) -> Result<Vec<Range<u64>>, MessageError> {
    let count = take_number(from)?;
    check(count <= most as u64, "ranges")?;
    let mut end: u64 = 0;
    let mut take = || {
        let start = end.checked_add(take_number(from)?);
        let start = start.ok_or(MessageError::Field { field: "range" })?;
        let range_end = start.checked_add(take_number(from)?);
        end = range_end.ok_or(MessageError::Field { field: "range" })?;
        Ok(start..end)
    };
    (0..count).map(|_| take()).collect()
}

fn take_byte(from: &mut &[u8]) -> Result<u8, MessageError> {
    take_array::<1>(from).map(|[byte]| byte)
}

fn take_array<const N: usize>(from: &mut &[u8]) -> Result<[u8; N], MessageError> {
    let (array, rest) = from.split_first_chunk().ok_or(MessageError::Truncated)?;
    *from = rest;
    Ok(*array)
}

fn take_number(from: &mut &[u8]) -> Result<u64, MessageError> {
    let (number, len) = read_number(from)?.ok_or(MessageError::Truncated)?;
    *from = &from[len..];
    Ok(number)
}

/// A leading number and its length, or `None` where it is not all there.
pub(super) fn read_number(from: &[u8]) -> Result<Option<(u64, usize)>, MessageError> {
    match varint::read(from) {
        Ok((number, rest)) => Ok(Some((number, from.len() - rest.len()))),
        Err(decode::Error::Insufficient) => Ok(None),
        Err(_) => Err(MessageError::Number),
    }
}

#[cfg(test)]
mod bounds;
