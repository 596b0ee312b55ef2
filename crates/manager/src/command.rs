//! What clients ask of the actor. Each command carries where its answer goes; an answer that
//! nobody waits for any more is dropped.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use calimero_network_blob::wire::RecordKey;
use calimero_network_primitives::{Multiaddr, PeerId, Topic};
use calimero_network_pubsub::{self as pubsub, MeshStats, MessageId};
use calimero_network_specialized::{OutboundRequestId, SpecializedNodeInviteRequest};
use libp2p::swarm::derive_prelude::ListenerId;
use tokio::sync::{mpsc, oneshot};

use crate::{
    error::{
        AnnounceBlobError, BootstrapError, DialError, InviteError, ListenError, PublishError,
        QueryBlobError,
    },
    status::{BlobProvider, Connection, PeerInfo, Status},
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
    /// Somebody who waited for a dial, a publish or a first peer went away.
    Forget,
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
    /// Look for peers now; answered once there is one.
    Bootstrap {
        reply: Reply<Result<(), BootstrapError>>,
    },
    /// Something about topics.
    Gossip(GossipCommand),
    /// Send an invite request.
    Invite {
        peer: PeerId,
        request: SpecializedNodeInviteRequest,
        reply: Reply<Result<OutboundRequestId, InviteError>>,
    },
    /// Something about blobs.
    Blob(BlobCommand),
    /// A snapshot.
    Status { reply: Reply<Status> },
    /// Everything that is counted, as text.
    Metrics { reply: Reply<String> },
    /// Stop.
    Shutdown { reply: Reply<()> },
}

impl Command {
    /// Whether what reads show changes by it, at once or by its end. A message does not change it.
    pub(crate) fn changes_state(&self) -> bool {
        match self {
            Self::Forget
            | Self::Identified { .. }
            | Self::Invite { .. }
            | Self::Blob(_)
            | Self::Status { .. }
            | Self::Metrics { .. } => false,
            Self::Gossip(command) => matches!(
                command,
                GossipCommand::Subscribe { .. }
                    | GossipCommand::Unsubscribe { .. }
                    | GossipCommand::Prefer { .. }
            ),
            _ => true,
        }
    }
}

/// What becomes of a message that cannot be sent at once.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Otherwise {
    /// It is refused.
    Fail,
    /// It waits for room in the queues of the peers.
    WaitForRoom,
    /// It waits for the first subscriber, for so long.
    WaitForPeers(Duration),
}

/// One request about blobs.
#[derive(Debug)]
pub(crate) enum BlobCommand {
    /// Say that this node has a blob.
    Announce {
        key: RecordKey,
        size_bytes: u64,
        reply: Reply<Result<(), AnnounceBlobError>>,
    },
    /// Say so no more.
    Withdraw { key: RecordKey, reply: Reply<bool> },
    /// Look for those that have a blob.
    Query {
        key: RecordKey,
        found: mpsc::Sender<BlobProvider>,
        reply: Reply<Result<(), QueryBlobError>>,
    },
}

/// One request about topics.
#[derive(Debug)]
pub(crate) enum GossipCommand {
    /// Follow a topic. `false` where it was followed.
    Subscribe {
        topic: Topic,
        reply: Reply<Result<bool, pubsub::SubscribeError>>,
    },
    /// Follow a topic no longer. `false` where it was not.
    Unsubscribe { topic: Topic, reply: Reply<bool> },
    /// Send a message.
    Publish {
        topic: Topic,
        data: Bytes,
        otherwise: Otherwise,
        reply: Reply<Result<MessageId, PublishError>>,
    },
    /// The peers in the mesh of a topic.
    MeshPeers {
        topic: Topic,
        reply: Reply<Vec<PeerId>>,
    },
    /// The connected peers that follow a topic.
    Subscribers {
        topic: Topic,
        reply: Reply<Vec<PeerId>>,
    },
    /// The state of all meshes.
    Stats { reply: Reply<MeshStats> },
    /// How much a peer is preferred.
    Prefer {
        peer: PeerId,
        preference: f64,
        reply: Reply<()>,
    },
}
