//! What clients ask of the actor. Each command carries where its answer goes; an answer that
//! nobody waits for any more is dropped.

use std::sync::Arc;

use calimero_network_primitives::{Multiaddr, PeerId};
use libp2p::swarm::derive_prelude::ListenerId;
use tokio::sync::oneshot;

use crate::{
    error::{DialError, ListenError},
    status::{Connection, PeerInfo, Status},
};

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<T>;

/// One request to the actor.
#[derive(Debug)]
pub(crate) enum Command {
    /// Connect to whoever answers at an address, which names no peer.
    DialAddress {
        address: Multiaddr,
        reply: Reply<Result<Connection, DialError>>,
    },
    /// Connect to a peer.
    DialPeer {
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        reply: Reply<Result<Connection, DialError>>,
    },
    /// Somebody who waited for a dial went away.
    ForgetDials,
    /// Close every connection with a peer and give up dialling it.
    Disconnect { peer: PeerId, reply: Reply<bool> },
    /// Listen on an address.
    Listen {
        address: Multiaddr,
        reply: Reply<Result<(ListenerId, Multiaddr), ListenError>>,
    },
    /// Close a listener.
    StopListening { id: ListenerId, reply: Reply<bool> },
    /// Refuse a peer, or no longer.
    Block {
        peer: PeerId,
        blocked: bool,
        reply: Reply<()>,
    },
    /// What a connected peer says of itself, once it has; nothing if it leaves before.
    Identified {
        peer: PeerId,
        reply: Reply<Option<Arc<PeerInfo>>>,
    },
    /// A snapshot.
    Status { reply: Reply<Status> },
    /// Stop.
    Shutdown { reply: Reply<()> },
}
