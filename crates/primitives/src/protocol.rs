//! Names of the protocols that peers negotiate.

use strum::{Display, EnumIter, EnumString, IntoStaticStr};

/// A protocol of this network that has a name of its own. libp2p's protocols (ping, identify,
/// gossipsub, relay, rendezvous, AutoNAT, DCUtR) keep libp2p's names.
///
/// ```
/// use calimero_network_primitives::ProtocolId;
///
/// assert_eq!(ProtocolId::Stream.to_string(), "/calimero/stream/0.0.2");
/// assert_eq!("/calimero/blob/0.0.2".parse(), Ok(ProtocolId::Blob));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Display, EnumIter, EnumString, IntoStaticStr)]
#[non_exhaustive]
pub enum ProtocolId {
    /// General streams of length-prefixed frames.
    #[strum(serialize = "/calimero/stream/0.0.2")]
    Stream,
    /// Version 0.0.2 of the blob transfer protocol.
    #[strum(serialize = "/calimero/blob/0.0.2")]
    Blob,
    /// The Kademlia of this network.
    #[strum(serialize = "/calimero/kad/1.0.0")]
    Kademlia,
    /// Specialized node invites, request and response.
    #[strum(serialize = "/calimero/specialized-node-invite/1.0.0")]
    SpecializedNodeInvite,
}

impl ProtocolId {
    /// The name as it is negotiated.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Protocol version that identify sends: `/calimero-network/<version of this crate>`.
pub const IDENTIFY_PROTOCOL_VERSION: &str =
    concat!("/calimero-network/", env!("CARGO_PKG_VERSION"));
