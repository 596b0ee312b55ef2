//! Commands that clients send to the actor. Each one carries the sender of its answer; the answer to
//! a caller that was dropped is discarded.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
#[cfg(feature = "blobs")]
use calimero_network_blob::record::RecordKey;
use calimero_network_primitives::{Multiaddr, PeerId, Topic};
use calimero_network_pubsub::{self as pubsub, MeshStats, MessageId};
#[cfg(feature = "invites")]
use calimero_network_specialized::{OutboundRequestId, SpecializedNodeInviteRequest};
use libp2p::swarm::derive_prelude::ListenerId;
#[cfg(feature = "blobs")]
use tokio::sync::mpsc;
use tokio::sync::oneshot;

#[cfg(feature = "invites")]
use crate::error::InviteError;
#[cfg(feature = "blobs")]
use crate::{
    error::{AnnounceBlobError, QueryBlobError},
    status::BlobProvider,
};
use crate::{
    error::{BootstrapError, DialError, ListenError, PublishError},
    status::{Connection, PeerInfo, Status},
};

/// Client calls that wait for the manager: 256. Further callers wait for a free entry.
pub(crate) const COMMAND_QUEUE: usize = 256;

/// The sender of the answer to a command.
pub(crate) type Reply<T> = oneshot::Sender<T>;

/// A command to the actor.
#[derive(Debug)]
pub(crate) enum Command {
    /// Dial an address that names no peer.
    DialAddress {
        address: Multiaddr,
        reply: Reply<Result<Connection, DialError>>,
    },
    /// Dial a peer at these addresses.
    DialPeer {
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        reply: Reply<Result<Connection, DialError>>,
    },
    /// Remove callers that were dropped while they waited for a dial, a message or a first peer.
    Forget,
    /// Close every connection with a peer and cancel its dial.
    Disconnect { peer: PeerId, reply: Reply<bool> },
    /// Listen on an address that a caller names.
    Listen {
        address: Multiaddr,
        reply: Reply<Result<(ListenerId, Multiaddr), ListenError>>,
    },
    /// Listen on an address of the configuration, now or later.
    ListenConfigured {
        address: Multiaddr,
        reply: Reply<Result<(), ListenError>>,
    },
    /// Close one of the listeners.
    StopListening { id: ListenerId, reply: Reply<bool> },
    /// Put a peer on the block list, or remove it.
    Block {
        peer: PeerId,
        blocked: bool,
        reply: Reply<()>,
    },
    /// Return the identify information of a connected peer once it is received, or `None` if the peer
    /// disconnects before.
    Identified {
        peer: PeerId,
        reply: Reply<Option<Arc<PeerInfo>>>,
    },
    /// Start discovery now; answered when a peer is connected.
    Bootstrap {
        reply: Reply<Result<(), BootstrapError>>,
    },
    /// A command of gossip.
    Gossip(GossipCommand),
    /// Send an invite request to a peer.
    #[cfg(feature = "invites")]
    Invite {
        peer: PeerId,
        request: SpecializedNodeInviteRequest,
        reply: Reply<Result<OutboundRequestId, InviteError>>,
    },
    /// A command of blobs.
    #[cfg(feature = "blobs")]
    Blob(BlobCommand),
    /// Return a snapshot of the manager.
    Status { reply: Reply<Status> },
    /// Refresh the metrics that describe a state.
    #[cfg(feature = "metrics")]
    Metrics { reply: Reply<()> },
    /// Stop the manager in order.
    Shutdown { reply: Reply<()> },
}

impl Command {
    /// Returns `true` if the command changes state that is visible through the read API. A message does
    /// not.
    pub(crate) fn changes_state(&self) -> bool {
        match self {
            Self::Forget | Self::Identified { .. } | Self::Status { .. } => false,
            #[cfg(feature = "blobs")]
            Self::Blob(_) => false,
            #[cfg(feature = "invites")]
            Self::Invite { .. } => false,
            #[cfg(feature = "metrics")]
            Self::Metrics { .. } => false,
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

/// How a node subscribes to a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Whether the subscribers of the topic form an overlay: this node registers under the topic at
    /// rendezvous servers and looks for other members. Default: `true`. Without it, the topic is
    /// shared among peers that are connected for another reason, which suits a topic that every
    /// node of a network subscribes to.
    pub overlay: bool,
}

impl Default for Subscription {
    fn default() -> Self {
        Self { overlay: true }
    }
}

/// The handling of a message that cannot be sent at once.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Otherwise {
    /// The message is refused with an error.
    Fail,
    /// The message waits until the send queue of a subscriber has space.
    WaitForRoom,
    /// The message waits for the first subscriber, for this time.
    WaitForPeers(Duration),
}

/// A command of blobs.
#[cfg(feature = "blobs")]
#[derive(Debug)]
pub(crate) enum BlobCommand {
    /// Announce a blob of this node.
    Announce {
        key: RecordKey,
        size_bytes: u64,
        reply: Reply<Result<(), AnnounceBlobError>>,
    },
    /// End the announcement of a blob.
    Withdraw { key: RecordKey, reply: Reply<bool> },
    /// Look up the providers of a blob.
    Query {
        key: RecordKey,
        found: mpsc::Sender<BlobProvider>,
        reply: Reply<Result<(), QueryBlobError>>,
    },
}

/// A command of gossip.
#[derive(Debug)]
pub(crate) enum GossipCommand {
    /// Subscribe to a topic. `false` where the node is subscribed already.
    Subscribe {
        topic: Topic,
        subscription: Subscription,
        reply: Reply<Result<bool, pubsub::SubscribeError>>,
    },
    /// Unsubscribe from a topic. `false` where the node is not subscribed.
    Unsubscribe { topic: Topic, reply: Reply<bool> },
    /// Publish a message on a topic.
    Publish {
        topic: Topic,
        data: Bytes,
        otherwise: Otherwise,
        reply: Reply<Result<MessageId, PublishError>>,
    },
    /// Return the peers in the mesh of a topic.
    MeshPeers {
        topic: Topic,
        reply: Reply<Vec<PeerId>>,
    },
    /// Return the connected subscribers of a topic.
    Subscribers {
        topic: Topic,
        reply: Reply<Vec<PeerId>>,
    },
    /// Return the state of all meshes.
    Stats { reply: Reply<MeshStats> },
    /// Set the application score of a peer.
    Prefer {
        peer: PeerId,
        preference: f64,
        reply: Reply<()>,
    },
}
