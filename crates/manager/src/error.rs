//! One error type per operation, each carrying what its caller acts on.

use std::{io, sync::Arc, time::Duration};

use calimero_network_blob::{error::RecordError, fetch::FetchError, store::StoreError};
use calimero_network_primitives::{BlobId, ConfigError, Multiaddr, PeerId};
use calimero_network_pubsub as pubsub;
use calimero_network_transport::{AddressError, BuildError};
use libp2p::{
    allow_block_list::{Blocked, NotAllowed},
    connection_limits::Exceeded,
    swarm::ConnectionDenied,
};

/// The manager has stopped: it was shut down, or its last client was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the network manager has stopped")]
pub struct Stopped;

/// Why a manager did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration contradicts itself.
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

/// Why an address is not listened on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The manager has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// No configured transport listens on such an address.
    #[error("cannot listen on {address}: no configured transport supports it")]
    Unsupported {
        /// The address asked for.
        address: Multiaddr,
    },
    /// The operating system refused, or the listener closed before it was ready.
    #[error("cannot listen on {address}: {source}")]
    Io {
        /// The address asked for.
        address: Multiaddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The listener did not report an address in time, as where no interface is up.
    #[error("{address} reported no address to listen on within {after:?}")]
    Deadline {
        /// The address asked for.
        address: Multiaddr,
        /// The deadline that passed.
        after: Duration,
    },
}

/// Why no peer was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BootstrapError {
    /// The manager has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// No boot node is configured, nobody is remembered, and mDNS is off.
    #[error("there is nobody to ask: no boot node, no remembered peer, no mDNS")]
    NobodyToAsk,
    /// Nobody answered in time. The node goes on looking.
    #[error("nobody answered within {after:?}")]
    Deadline {
        /// The deadline that passed, `connections.dial_timeout_ms`.
        after: Duration,
    },
}

/// One address of a dial and why it failed.
#[derive(Clone, Debug)]
pub struct AddressFailure {
    /// The address dialled.
    pub address: Multiaddr,
    /// Why it failed.
    pub cause: AddressError,
}

/// Why a dial ended without a connection. Every caller that waits for the same dial gets the
/// same error.
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
    /// Two peer ids are named for one dial.
    #[error("{address} does not name {expected}")]
    Contradiction {
        /// The address, which ends in another peer id.
        address: Multiaddr,
        /// The peer to be dialled.
        expected: PeerId,
    },
    /// A connection limit, the allow list or the block list refuses it.
    #[error("the connection is denied: {0}")]
    Denied(#[source] Denial),
    /// Every address failed.
    #[error("no address could be reached: {}", Listed(attempts))]
    Failed {
        /// Each address dialled and why it failed.
        attempts: Vec<AddressFailure>,
    },
    /// The dial was given up because its peer was disconnected meanwhile.
    #[error("the dial was aborted")]
    Aborted,
    /// The deadline passed.
    #[error("{target} did not connect within {after:?}")]
    Deadline {
        /// What was dialled, an address or `/p2p/<peer>`.
        target: Multiaddr,
        /// The deadline that passed, `connections.dial_timeout_ms`.
        after: Duration,
    },
}

/// Why a topic is not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The manager has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// As many topics as allowed are followed already, in number or bytes.
    #[error(transparent)]
    Limit(#[from] pubsub::SubscribeError),
}

/// Why a message was not published. It is lost unless it is published again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The manager has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// Nobody follows the topic, the message is too large, or queues are full.
    #[error(transparent)]
    NotSent(#[from] pubsub::PublishError),
    /// The queues of the peers that follow the topic stayed full.
    #[error("no room in the queues of the peers within {after:?}")]
    Deadline {
        /// The deadline that passed, `pubsub.peers.publish_wait_ms`.
        after: Duration,
    },
}

/// Why an invite request was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InviteError {
    /// The manager has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// As many requests as may wait for their answers, or their answers wait to be read.
    #[error("{limit} requests wait for an answer, or their answers to be read")]
    TooMany {
        /// Most requests of all peers at one time, `specialized.max_outbound`.
        limit: usize,
    },
}

/// Why a blob is not announced.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnnounceBlobError {
    /// The manager has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The manager serves no blobs.
    #[error("the manager was started without a store of blobs")]
    NoStore,
    /// The store does not have it.
    #[error("blob {blob_id} is not in the store")]
    NotHere {
        /// The blob.
        blob_id: BlobId,
    },
    /// The store failed.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// As many are announced as may be.
    #[error("{limit} blobs are announced already")]
    TooMany {
        /// Most at one time, `blob.max_announced`.
        limit: usize,
    },
    /// The record could not be made: the identity's key is too large for one.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Nobody holds it yet. It is tried again by itself.
    #[error("no peer holds the announcement yet")]
    NotStored,
}

/// Why providers are not looked for.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryBlobError {
    /// The manager has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// As many lookups run as may. Worth trying again when some have ended.
    #[error("{limit} lookups run already")]
    Busy {
        /// How many may run at one time.
        limit: usize,
    },
}

/// Why a blob was not fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchBlobError {
    /// The manager has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// Nobody gave it, or it could not be kept.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

/// Which rule of this node refuses a connection.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Denial {
    /// A limit of `connections` in the configuration is reached.
    #[error(transparent)]
    Limit(Exceeded),
    /// The peer is on the block list.
    #[error("the peer is on the block list")]
    Blocked,
    /// There is an allow list and the peer is not on it.
    #[error("the peer is not on the allow list")]
    NotAllowed,
    /// Another protocol of the node refuses it.
    #[error(transparent)]
    Other(Arc<dyn std::error::Error + Send + Sync>),
}

impl From<ConnectionDenied> for Denial {
    fn from(denied: ConnectionDenied) -> Self {
        if let Some(exceeded) = denied.downcast_ref::<Exceeded>() {
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
