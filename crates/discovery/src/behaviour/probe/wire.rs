//! The messages of AutoNAT v2, by the [specification].
//!
//! [specification]: https://github.com/libp2p/specs/blob/master/autonat/autonat-v2.md

use std::io;

use calimero_network_primitives::Multiaddr;
use futures::{AsyncRead, AsyncWrite};

use super::super::frame;
use crate::machine::ProbeOutcome;

/// Longest message of an exchange, in bytes: a part of the data that a server asks for.
const MAX_MESSAGE_BYTES: usize = 4_200;

/// Longest dial back, in bytes: a nonce.
const MAX_DIAL_BACK_BYTES: usize = 16;

/// What a server may ask for before it dials an address other than the one it sees, in bytes
/// (specification: 30 to 100 kB), so that nobody has it dial others for nothing.
const DATA_BYTES: std::ops::RangeInclusive<u64> = 30_000..=100_000;

/// Data in one message, in bytes.
const DATA_PART_BYTES: u64 = 4_096;

const STATUS_OK: i32 = 200;
const E_DIAL_ERROR: i32 = 100;
const E_DIAL_BACK_ERROR: i32 = 101;
const DIAL_OK: i32 = 200;

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

/// Asks a server to dial `address`, and returns what it says about it.
pub(super) async fn request<S>(
    stream: &mut S,
    address: &Multiaddr,
    nonce: u64,
) -> io::Result<ProbeOutcome>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let addresses = vec![address.to_vec()];
    send(stream, Kind::Request(DialRequest { addresses, nonce })).await?;
    let mut answer = receive(stream).await?;
    if let Kind::DataRequest(wanted) = &answer {
        send_data(stream, wanted).await?;
        answer = receive(stream).await?;
    }
    let Kind::Response(response) = answer else {
        return Err(invalid("an answer was expected"));
    };
    // Of the one address there is.
    Ok(
        match (response.status, response.address, response.dial_status) {
            (STATUS_OK, 0, DIAL_OK) => ProbeOutcome::Reached,
            (STATUS_OK, 0, E_DIAL_ERROR | E_DIAL_BACK_ERROR) => ProbeOutcome::NotReached,
            _ => ProbeOutcome::NotTried,
        },
    )
}

/// Reads the nonce of a dial back.
pub(super) async fn dialled_back<S>(stream: &mut S) -> io::Result<u64>
where
    S: AsyncRead + Unpin,
{
    let DialBack { nonce } = frame::read(stream, MAX_DIAL_BACK_BYTES).await?;
    Ok(nonce)
}

/// Says that a dial back has arrived.
pub(super) async fn thank<S: AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    frame::write(stream, &DialBackResponse { status: 0 }).await
}

async fn send_data<S>(stream: &mut S, wanted: &DialDataRequest) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    if wanted.address != 0 || !DATA_BYTES.contains(&wanted.bytes) {
        return Err(invalid("more data is asked for than is given"));
    }
    let mut left = wanted.bytes;
    while left > 0 {
        let part = left.min(DATA_PART_BYTES);
        left -= part;
        let data = vec![0; usize::try_from(part).unwrap_or_default()];
        send(stream, Kind::Data(DialData { data })).await?;
    }
    Ok(())
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, kind: Kind) -> io::Result<()> {
    frame::write(stream, &Message { kind: Some(kind) }).await
}

async fn receive<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Kind> {
    let Message { kind } = frame::read(stream, MAX_MESSAGE_BYTES).await?;
    kind.ok_or_else(|| invalid("an empty message"))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
