//! Conversions between the types of the published crate and those of this repository.
//!
//! The published crate uses libp2p 0.56, this repository 0.57. They share no type, so ids and
//! addresses cross as bytes and keys as protobuf. The formats are the same on both sides: a value
//! that one library made is valid for the other.

use eyre::{Result, WrapErr as _, eyre};
use libp2p::{Multiaddr, PeerId, identity::Keypair};
use network::Topic;

/// A peer id for the manager.
pub(crate) fn peer_to_ours(peer: &PeerId) -> Result<network::PeerId> {
    network::PeerId::from_bytes(&peer.to_bytes()).wrap_err_with(|| format!("peer id {peer}"))
}

/// A peer id for the node.
pub(crate) fn peer_to_node(peer: &network::PeerId) -> Result<PeerId> {
    PeerId::from_bytes(&peer.to_bytes()).wrap_err_with(|| format!("peer id {peer}"))
}

/// Peer ids for the node. An id that cannot be converted is left out.
pub(crate) fn peers_to_node<'a>(
    peers: impl IntoIterator<Item = &'a network::PeerId>,
) -> Vec<PeerId> {
    let converted = peers.into_iter().map(peer_to_node);
    converted.filter_map(Result::ok).collect()
}

/// An address for the manager.
pub(crate) fn address_to_ours(address: &Multiaddr) -> Result<network::Multiaddr> {
    network::Multiaddr::try_from(address.to_vec()).wrap_err_with(|| format!("address {address}"))
}

/// An address for the node.
pub(crate) fn address_to_node(address: &network::Multiaddr) -> Result<Multiaddr> {
    Multiaddr::try_from(address.to_vec()).wrap_err_with(|| format!("address {address}"))
}

/// An identity for the manager.
pub(crate) fn keypair_to_ours(keypair: &Keypair) -> Result<network::Keypair> {
    let encoded = keypair.to_protobuf_encoding().wrap_err("identity")?;
    network::Keypair::from_protobuf_encoding(&encoded).wrap_err("identity")
}

/// A topic for the manager. The published crate names a topic by its text, which is its hash too.
pub(crate) fn topic_to_ours(text: &str) -> Result<Topic> {
    text.parse()
        .map_err(|error| eyre!("topic {text:?}: {error}"))
}
