//! `/calimero/blob/1.0.0` and `1.1.0`, byte for byte: the list of chunk hashes first, then any chunks, from
//! any number of providers. `docs/protocol.md` specifies it. Pure: bytes in, values out.
//!
//! Frames are an unsigned varint length and one message. A requester opens with [`Hello`], then
//! sends any number of requests without waiting; the provider answers them in order:
//!
//! | request | answer |
//! |---|---|
//! | [`Request::Get`] | [`Response::Inline`] with the whole content of a small blob, or [`Response::List`] with a page of its chunk hashes |
//! | [`Request::Read`] | one [`Response::Chunk`] for each chunk asked for, in order |
//! | either | [`Response::Refused`], which ends the answer to that request |
//!
//! 1.1.0 has more messages, for providers that have only a part of a blob and requesters that serve
//! what they have: [`Request::Watch`] and [`Request::Got`], [`Response::Have`], [`Response::Peers`]
//! and [`Response::Absent`].
//!
//! Pages are gathered by a [`ListAssembly`], which yields a list only when it is proven.

mod codec;
mod list;
mod message;
mod session;

#[cfg(feature = "transfer")]
pub(crate) use self::codec::frame_len;
pub use self::{
    codec::{CodecError, ProviderCodec, RequesterCodec},
    list::{ListAssembly, PageError},
    message::{
        FRAME_PREFIX_MAX_BYTES, Hello, ListPage, MAX_HAVE_RANGES, MAX_INLINE_BYTES,
        MAX_NAMED_PEERS, MAX_PAGE_HASHES, MAX_PEER_ID_BYTES, MAX_READ_CHUNKS, MAX_READ_RANGES,
        MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, MAX_RETRY_MS, MessageError, Refusal, Request,
        Response,
    },
    session::SessionAuth,
};

/// Name under which the protocol is negotiated.
///
/// A change that a peer of this version could not read raises the major number; both names are
/// offered for as long as both are spoken, the newer first. A new kind of message is such a
/// change: unknown ones end the stream.
pub const PROTOCOL: &str = "/calimero/blob/1.0.0";

/// Name of the version in which providers of a part of a blob serve it.
pub const PROTOCOL_1_1: &str = "/calimero/blob/1.1.0";
