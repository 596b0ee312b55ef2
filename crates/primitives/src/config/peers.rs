//! Lists of peer ids as base58 text in configuration files.

use std::str::FromStr;

use libp2p_identity::PeerId;
use serde::{Deserialize, Deserializer, Serializer, de::Error, ser::SerializeSeq};

/// Writes each peer id in its base58 form.
pub(super) fn serialize<S: Serializer>(peers: &[PeerId], to: S) -> Result<S::Ok, S::Error> {
    let mut seq = to.serialize_seq(Some(peers.len()))?;
    for peer in peers {
        seq.serialize_element(&peer.to_base58())?;
    }
    seq.end()
}

/// Reads each peer id from its base58 form.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PeerId>, D::Error> {
    let peers = Vec::<Base58Peer>::deserialize(from)?;
    Ok(peers.into_iter().map(|Base58Peer(peer)| peer).collect())
}

/// One peer id: an element of its own, so that an error names its index.
struct Base58Peer(PeerId);

impl<'de> Deserialize<'de> for Base58Peer {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        PeerId::from_str(&text)
            .map(Self)
            .map_err(|error| D::Error::custom(format_args!("peer id {text:?}: {error}")))
    }
}
