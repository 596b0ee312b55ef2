//! Messages of AutoNAT v1, by the [specification]: the side that serves.
//!
//! [specification]: https://github.com/libp2p/specs/blob/master/autonat/autonat-v1.md

use bytes::Bytes;
use calimero_network_primitives::{Multiaddr, PeerId};
use prost::Message as _;

use super::Malformed;

/// Name of the protocol.
pub const PROTOCOL: &str = "/libp2p/autonat/1.0.0";

/// Longest request, 4 KiB, as go-libp2p's server reads it: some hundred addresses.
pub const MAX_REQUEST_BYTES: usize = 4_096;

const DIAL: i32 = 0;
const DIAL_RESPONSE: i32 = 1;

const OK: i32 = 0;
const E_DIAL_ERROR: i32 = 100;
const E_DIAL_REFUSED: i32 = 101;
const E_BAD_REQUEST: i32 = 200;

const MALFORMED: Malformed = Malformed { protocol: PROTOCOL };

/// A request for a dial-back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Peer that is dialled: the sender in a valid request.
    pub peer: PeerId,
    /// Addresses at which the sender may be reachable. Bytes that are not an address are left out.
    pub addresses: Vec<Multiaddr>,
}

/// The answer to a request. Its text names the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The peer was reached at this address.
    Reached(Multiaddr),
    /// All addresses were dialled without a connection.
    NotReached,
    /// No address of the request may be dialled for this peer.
    NoAddress,
    /// The peer, its IP prefix or all peers have had their dial-backs of this minute, or as many are
    /// under way as this node makes at one time.
    TooMany,
    /// This node was not able to dial.
    NotDialled,
    /// The request names another peer than its sender.
    OtherPeer,
}

impl Answer {
    const fn status(&self) -> i32 {
        match self {
            Self::Reached(_) => OK,
            Self::NotReached => E_DIAL_ERROR,
            Self::NoAddress | Self::TooMany | Self::NotDialled => E_DIAL_REFUSED,
            Self::OtherPeer => E_BAD_REQUEST,
        }
    }

    const fn text(&self) -> Option<&'static str> {
        match self {
            Self::Reached(_) => None,
            Self::NotReached => Some("no address was reached"),
            Self::NoAddress => Some("no address that may be dialled at the IP of this connection"),
            Self::TooMany => Some("too many dial-backs; try again in a minute"),
            Self::NotDialled => Some("this server was not able to dial"),
            Self::OtherPeer => Some("the request names another peer than its sender"),
        }
    }
}

/// Reads a request: a message without its length.
///
/// # Errors
///
/// [`Malformed`] for any other message, and for a request without a valid peer id.
pub fn decode_request(message: &[u8]) -> Result<Request, Malformed> {
    let message = Message::decode(message).map_err(|_| MALFORMED)?;
    let peer = match message {
        Message {
            kind: Some(DIAL),
            dial: Some(Dial { peer: Some(peer) }),
            ..
        } => peer,
        _ => return Err(MALFORMED),
    };
    let id = peer.id.ok_or(MALFORMED)?;
    let addresses = peer.addresses.into_iter();
    Ok(Request {
        peer: PeerId::from_bytes(&id).map_err(|_| MALFORMED)?,
        addresses: addresses
            .filter_map(|bytes| Multiaddr::try_from(bytes).ok())
            .collect(),
    })
}

/// The answer to a request, with its length before it.
#[must_use]
pub fn encode_answer(answer: &Answer) -> Bytes {
    let address = match answer {
        Answer::Reached(address) => Some(address.to_vec()),
        _ => None,
    };
    let message = Message {
        kind: Some(DIAL_RESPONSE),
        dial: None,
        response: Some(DialResponse {
            status: Some(answer.status()),
            text: answer.text().map(ToOwned::to_owned),
            address,
        }),
    };
    message.encode_length_delimited_to_vec().into()
}

#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(int32, optional, tag = "1")]
    kind: Option<i32>,
    #[prost(message, optional, tag = "2")]
    dial: Option<Dial>,
    #[prost(message, optional, tag = "3")]
    response: Option<DialResponse>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Dial {
    #[prost(message, optional, tag = "1")]
    peer: Option<PeerInfo>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PeerInfo {
    #[prost(bytes = "vec", optional, tag = "1")]
    id: Option<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    addresses: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DialResponse {
    #[prost(int32, optional, tag = "1")]
    status: Option<i32>,
    #[prost(string, optional, tag = "2")]
    text: Option<String>,
    #[prost(bytes = "vec", optional, tag = "3")]
    address: Option<Vec<u8>>,
}

#[cfg(test)]
mod tests;
