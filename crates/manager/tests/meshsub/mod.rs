//! RPCs of gossipsub, written by hand.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "test support: a surprise ends the test"
)]

use calimero_network::{Keypair, Topic};

fn varint(mut value: u64, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    to.push(u8::try_from(value).unwrap());
}

fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 12);
    varint(number << 3 | 2, &mut out);
    varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

/// An RPC behind its length.
pub fn frame(rpc: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(rpc.len() + 5);
    varint(rpc.len() as u64, &mut out);
    out.extend_from_slice(rpc);
    out
}

/// What of a message is to be as its author made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    Right,
    Wrong,
    Missing,
}

/// Creates the RPC of a published message.
pub fn publish(
    key: &Keypair,
    number: u64,
    topic: &Topic,
    data: &[u8],
    signature: Signature,
) -> Vec<u8> {
    let mut message = [
        field(1, &key.public().to_peer_id().to_bytes()),
        field(2, data),
        field(3, &number.to_be_bytes()),
        field(4, topic.to_string().as_bytes()),
    ]
    .concat();
    let mut signed = key
        .sign(&[b"libp2p-pubsub:".as_slice(), &message].concat())
        .unwrap();
    if signature == Signature::Wrong {
        signed[0] ^= 1;
    }
    if signature != Signature::Missing {
        message.extend(field(5, &signed));
    }
    field(2, &message)
}

pub fn subscribe(topic: &Topic) -> Vec<u8> {
    let joins = [1 << 3, 1];
    let name = field(2, topic.to_string().as_bytes());
    field(1, &[&joins[..], &name].concat())
}

pub fn grafts_and_prunes(topic: &Topic, count: usize) -> Vec<u8> {
    let name = field(1, topic.to_string().as_bytes());
    let both = [field(3, &name), field(4, &name)].concat();
    field(3, &both.repeat(count))
}

/// Offers of messages and requests for them.
pub fn offers_and_requests(topic: &Topic, ids: impl Iterator<Item = String>) -> Vec<u8> {
    let (mut offer, mut request) = (field(1, topic.to_string().as_bytes()), Vec::new());
    for id in ids {
        offer.extend(field(2, id.as_bytes()));
        request.extend(field(1, id.as_bytes()));
    }
    field(3, &[field(1, &offer), field(2, &request)].concat())
}
