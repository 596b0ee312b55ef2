//! Errors: one type for each operation, with the values that its caller acts on.

use std::{io, sync::Arc, time::Duration};

#[cfg(feature = "blobs")]
use calimero_network_blob::{error::RecordError, fetch::FetchError, store::StoreError};
#[cfg(feature = "blobs")]
use calimero_network_primitives::BlobId;
use calimero_network_primitives::{ConfigError, Multiaddr, PeerId, resources::Refused};
use calimero_network_pubsub as pubsub;
use calimero_network_transport::{AddressError, BuildError};
use libp2p::{
    allow_block_list::{Blocked, NotAllowed},
    swarm::ConnectionDenied,
};

/// The manager has stopped: it was shut down, or its last client was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the network manager has stopped")]
pub struct Stopped;

/// The cause for which a manager did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration contradicts itself or a limit.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// Gossip could not be set up.
    #[error(transparent)]
    Pubsub(#[from] pubsub::BuildError),
    /// Discovery could not be set up.
    #[error("discovery: {0}")]
    Discovery(#[from] calimero_network_discovery::behaviour::BuildError),
    /// A transport could not be set up.
    #[error("transport: {0}")]
    Transport(#[from] BuildError),
    /// A configured address could not be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The network thread or its runtime could not be started.
    #[error("network thread: {0}")]
    Thread(#[source] io::Error),
}

/// The cause for which the node does not listen on an address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The manager has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// No configured transport listens on such an address.
    #[error("cannot listen on {address}: no configured transport supports it")]
    Unsupported {
        /// The address of the call or the configuration.
        address: Multiaddr,
    },
    /// The operating system refused, or the listener closed before it was ready.
    #[error("cannot listen on {address}: {source}")]
    Io {
        /// The address of the call or the configuration.
        address: Multiaddr,
        /// The error of the operating system, with its number.
        source: io::Error,
    },
    /// The listener reported no address in time, for example because no interface is up.
    #[error("{address} reported no address to listen on within {after:?}")]
    Deadline {
        /// The address of the call or the configuration.
        address: Multiaddr,
        /// The deadline that passed, [`LISTEN_TIMEOUT`](calimero_network_primitives::limits::LISTEN_TIMEOUT).
        after: Duration,
    },
}

/// The cause for which [`bootstrap`](crate::NetworkClient::bootstrap) found no peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BootstrapError {
    /// The manager has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// No boot node is configured, the peer cache is empty, and mDNS is off.
    #[error("no peer to connect to: no boot node, no cached peer, no mDNS")]
    NoKnownPeers,
    /// No peer answered in time. Discovery goes on.
    #[error("no peer answered within {after:?}")]
    Deadline {
        /// The deadline that passed, [`dial_timeout`](calimero_network_primitives::config::ConnectionsTuning::dial_timeout).
        after: Duration,
    },
}

/// An address of a dial, with the cause of its failure.
#[derive(Clone, Debug)]
pub struct AddressFailure {
    /// The address that was dialled.
    pub address: Multiaddr,
    /// The cause of the failure.
    pub cause: AddressError,
}

/// The cause for which a dial ended without a connection. All callers that wait for the same dial
/// receive the same error.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The manager has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The peer is this node.
    #[error("{peer} is this node itself")]
    LocalPeer {
        /// This node's peer id.
        peer: PeerId,
    },
    /// No address was given and none is known.
    #[error("no address of {peer} is known")]
    NoAddresses {
        /// The peer to be dialled.
        peer: PeerId,
    },
    /// The address and the caller name two different peers.
    #[error("{address} does not name {expected}")]
    Contradiction {
        /// The address, which ends in another peer id.
        address: Multiaddr,
        /// The peer to be dialled.
        expected: PeerId,
    },
    /// A connection limit, the allow list or the block list refuses the connection.
    #[error("the connection is denied: {0}")]
    Denied(#[source] Denial),
    /// Every address of the peer failed.
    #[error("no address could be reached: {}", Listed(attempts))]
    Failed {
        /// Each address that was dialled, with its cause.
        attempts: Vec<AddressFailure>,
    },
    /// The dial was cancelled, because this node disconnected from the peer during it.
    #[error("the dial was aborted")]
    Aborted,
    /// The dial did not end in time.
    #[error("{target} did not connect within {after:?}")]
    Deadline {
        /// The target of the dial: an address or `/p2p/<peer>`.
        target: Multiaddr,
        /// The deadline that passed, [`dial_timeout`](calimero_network_primitives::config::ConnectionsTuning::dial_timeout).
        after: Duration,
    },
}

/// The cause for which the node is not subscribed to a topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The manager has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The limit of subscriptions is reached, in number or bytes.
    #[error(transparent)]
    Limit(#[from] pubsub::SubscribeError),
}

/// The cause for which a message was not published. The caller may publish it again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The manager has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The topic has no subscriber, the message is too large, or send queues are full.
    #[error(transparent)]
    NotSent(#[from] pubsub::PublishError),
    /// The send queues of all subscribers stayed full.
    #[error("the send queues of all subscribers stayed full for {after:?}")]
    Deadline {
        /// The deadline that passed, `pubsub.peers.publish_wait_ms`.
        after: Duration,
    },
}

/// The cause for which an invite request was not sent.
#[cfg(feature = "invites")]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InviteError {
    /// The manager has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The limit of pending requests is reached. Answers that are not read yet count as pending.
    #[error("{limit} requests are pending, or their answers are unread")]
    TooMany {
        /// Most requests to all peers at one time, `specialized.max_outbound`.
        limit: usize,
    },
}

/// The cause for which a blob is not announced.
#[cfg(feature = "blobs")]
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnnounceBlobError {
    /// The manager has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The manager was started without a blob store.
    #[error("the manager was started without a blob store")]
    NoStore,
    /// The store does not hold the blob.
    #[error("blob {blob_id} is not in the store")]
    NotHere {
        /// The id of the blob.
        blob_id: BlobId,
    },
    /// The store returned an error.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// As many blobs are announced as the configuration permits.
    #[error("{limit} blobs are announced already")]
    TooMany {
        /// Most blobs announced at one time, [`MAX_ANNOUNCED_BLOBS`](calimero_network_primitives::limits::MAX_ANNOUNCED_BLOBS).
        limit: usize,
    },
    /// The announcement was withdrawn before a peer stored it.
    #[error("the announcement was withdrawn")]
    Withdrawn,
    /// The record could not be built: the public key of the identity is too large for it.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// No peer stores the announcement yet. The manager tries again automatically.
    #[error("no peer stores the announcement yet")]
    NotStored,
}

/// The cause for which a lookup of providers did not start.
#[cfg(feature = "blobs")]
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryBlobError {
    /// The manager has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The limit of lookups is reached. A later call succeeds when others have ended.
    #[error("{limit} lookups are running, which is the limit")]
    Busy {
        /// Most lookups at one time.
        limit: usize,
    },
}

/// The cause for which a blob was not fetched.
#[cfg(feature = "blobs")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchBlobError {
    /// The manager has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// No provider delivered the blob, or its destination failed.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

/// The rule of this node that refuses a connection.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Denial {
    /// A limit of `connections` in the configuration is reached.
    #[error(transparent)]
    Limit(Refused),
    /// The peer is on the block list.
    #[error("the peer is on the block list")]
    Blocked,
    /// An allow list is configured and the peer is not on it.
    #[error("the peer is not on the allow list")]
    NotAllowed,
    /// Another part of the node refuses the connection.
    #[error(transparent)]
    Other(Arc<dyn std::error::Error + Send + Sync>),
}

impl From<ConnectionDenied> for Denial {
    fn from(denied: ConnectionDenied) -> Self {
        if let Some(exceeded) = denied.downcast_ref::<Refused>() {
            return Self::Limit(*exceeded);
        }
        if denied.downcast_ref::<Blocked>().is_some() {
            return Self::Blocked;
        }
        if denied.downcast_ref::<NotAllowed>().is_some() {
            return Self::NotAllowed;
        }
        Self::Other(Arc::new(denied))
    }
}

/// Prints every failed address with its cause.
struct Listed<'a>(&'a [AddressFailure]);

impl std::fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (nth, failure) in self.0.iter().enumerate() {
            if nth > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{}: {}", failure.address, failure.cause)?;
        }
        Ok(())
    }
}
