//! One run of a node: its start, the handling of its events, and its end.

use std::{
    collections::{HashSet, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use calimero_network::{
    BlobId, Events, FrameStream, GossipEvent, Keypair, NetworkClient, NetworkEvent, NetworkManager,
    PeerId, StreamEvent, Substream, Topic,
    blob::store::{FsBlobStore, FsConfig, StoreError},
    config::PubsubConfig,
    discovery::cache::FileCache,
    multiaddr::Protocol,
};
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

use super::{
    LoadArgs, Over,
    ledger::{self, Incarnation},
    network::Network,
};
use crate::Failure;

/// Time after which an operation counts as hanging, for example a shutdown or
/// the first contact.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Size of the message header, in bytes: number and overlay.
const HEAD_BYTES: usize = 12;

/// The persistent state of a node. It survives restarts of the node.
pub(crate) struct NodeState {
    folder: PathBuf,
    pub(crate) identity: Keypair,
    /// Blobs that the store has confirmed, oldest first.
    pub(crate) acknowledged: VecDeque<BlobId>,
}

impl NodeState {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            identity: Keypair::generate_ed25519(),
            acknowledged: VecDeque::new(),
        }
    }
}

/// A running node.
pub(crate) struct Member {
    pub(crate) position: usize,
    pub(crate) incarnation: Incarnation,
    pub(crate) client: NetworkClient,
    pub(crate) store: FsBlobStore,
}

impl Member {
    pub(crate) fn peer(&self) -> PeerId {
        self.client.peer_id()
    }
}

/// A running node and the task that reads its events. The task ends with the
/// node.
pub(crate) struct Running {
    pub(crate) member: Arc<Member>,
    pub(crate) consumer: JoinHandle<()>,
}

/// A starting node that has not met a member of each overlay yet.
pub(crate) struct Joining {
    pub(crate) running: Running,
    pub(crate) joined: oneshot::Receiver<Duration>,
    /// Confirmed blobs that the store no longer contains.
    pub(crate) blobs_lost: usize,
}

pub(crate) fn config(args: &LoadArgs, boot: &[calimero_network::Multiaddr]) -> super::Config {
    let mut config = super::Config {
        listen: Vec::new(),
        ..super::Config::default()
    };
    config.discovery.local_network = true;
    config.discovery.boot = boot.to_vec();
    if args.nodes > 20 {
        config.pubsub = PubsubConfig::large();
    }
    // No more messages than these can wait for a member that is away. The table
    // of message ids holds as many, so that it is full before the first compared
    // third and its memory does not look like a leak.
    let waiting = (args.messages * ledger::WINDOW.as_secs_f64()).ceil() as usize;
    config.pubsub.peers.queue = waiting.max(config.pubsub.peers.window);
    config.pubsub.memory.replayed_ids = config.pubsub.peers.queue;
    // Messages that wait for CPU time are late, not lost. The default would
    // drop them after 5 s.
    config.pubsub.peers.publish_wait = ledger::WINDOW / 2;
    config.pubsub.peers.forward_wait = ledger::WINDOW / 2;
    config.pubsub.peers.slow_timeout = ledger::WINDOW / 2;
    if args.over == Over::Memory {
        config.handle.runtime = calimero_network::config::RuntimeKind::Shared;
    }
    config
}

/// Starts listening on the addresses of `over`. A configuration cannot contain
/// `/memory` addresses.
pub(crate) async fn listen(
    client: &NetworkClient,
    over: Over,
) -> Result<Vec<calimero_network::Multiaddr>, Failure> {
    let mut addresses = Vec::new();
    for address in over.addresses() {
        let (_, address) = client.listen_on(address.parse()?).await?;
        addresses.push(address.with(Protocol::P2p(client.peer_id())));
    }
    Ok(addresses)
}

pub(crate) fn topics(count: usize) -> Vec<Topic> {
    let topic = |nth: usize| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(nth as u64).to_be_bytes());
        Topic::context(id.into())
    };
    (0..count).map(topic).collect()
}

/// Starts a node with the state at `position` and subscribes to all overlays.
pub(crate) async fn start(
    net: &Arc<Network>,
    position: usize,
    change_identity: bool,
) -> Result<Joining, Failure> {
    let began = Instant::now();
    let (folder, identity, acknowledged) = {
        let mut position = net.position(position);
        if change_identity {
            position.identity = Keypair::generate_ed25519();
        }
        let acknowledged: Vec<_> = position.acknowledged.iter().copied().collect();
        (
            position.folder.clone(),
            position.identity.clone(),
            acknowledged,
        )
    };
    let store = open_store(folder.join("blobs")).await?;
    let blobs_lost = acknowledged.iter().filter(|id| !store.has(id)).count();
    let builder = NetworkManager::builder(identity, net.config.clone())
        .peer_cache(FileCache::new(folder.join("peers")))
        .blobs(Arc::new(store.clone()));
    let builder = match net.args.over {
        Over::Memory => builder.in_memory(),
        _ => builder,
    };
    let (client, events) = builder.start().await?;
    for topic in &net.topics {
        client.subscribe(topic).await?;
    }
    listen(&client, net.args.over).await?;
    let member = Arc::new(Member {
        position,
        incarnation: net.ledger().begin(),
        client,
        store,
    });
    let (first_contact, joined) = oneshot::channel();
    let consumer = Consumer {
        net: net.clone(),
        incarnation: member.incarnation,
        runtime: member.client.runtime().clone(),
        met: HashSet::new(),
        first_contact: Some(first_contact),
        began,
    };
    let consumer = tokio::spawn(consumer.run(events));
    Ok(Joining {
        running: Running { member, consumer },
        joined,
        blobs_lost,
    })
}

/// Opens the store of a node. The store of a stopped node stays locked until
/// its last reader is dropped.
async fn open_store(path: impl AsRef<Path>) -> Result<FsBlobStore, Failure> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let path = path.as_ref().to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&path)?;
            Ok::<_, Failure>(FsBlobStore::open(&path, &FsConfig::default())?)
        });
        match opened.await? {
            Err(error)
                if Instant::now() < deadline && error.downcast_ref().is_some_and(is_locked) =>
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            result => return result,
        }
    }
}

fn is_locked(error: &StoreError) -> bool {
    matches!(error, StoreError::Locked { .. })
}

/// The way in which a node ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The program calls `shutdown`.
    Shutdown,
    /// The program drops all handles.
    Dropped,
}

/// Ends a node. Returns the duration of its shutdown.
pub(crate) async fn end(running: Running, how: End) -> Result<Option<Duration>, Failure> {
    let Running { member, consumer } = running;
    let began = Instant::now();
    let took = match how {
        End::Shutdown => {
            timeout(TIMEOUT, member.client.shutdown()).await??;
            Some(began.elapsed())
        }
        End::Dropped => None,
    };
    drop(member);
    timeout(TIMEOUT, consumer).await??;
    Ok(took)
}

/// The task that reads the events of one node.
struct Consumer {
    net: Arc<Network>,
    incarnation: Incarnation,
    runtime: tokio::runtime::Handle,
    met: HashSet<Topic>,
    first_contact: Option<oneshot::Sender<Duration>>,
    began: Instant,
}

impl Consumer {
    async fn run(mut self, mut events: Events) {
        while let Some(event) = events.next().await {
            match event {
                NetworkEvent::Gossip(GossipEvent::Message(message)) => {
                    self.on_message(&message.topic, &message.data)
                }
                NetworkEvent::Gossip(GossipEvent::Subscribed { topic, .. }) => {
                    self.on_subscribed(topic)
                }
                NetworkEvent::Stream(StreamEvent::Opened { stream, .. }) => {
                    self.runtime.spawn(echo(stream));
                }
                NetworkEvent::Gossip(GossipEvent::Lagged { missed }) => {
                    self.net
                        .fault(format!("a consumer missed {missed} messages"));
                }
                NetworkEvent::Stream(StreamEvent::Refused { reason, count, .. }) => {
                    self.net
                        .fault(format!("{count} streams refused: {reason:?}"));
                }
                _ => {}
            }
        }
    }

    fn on_message(&self, topic: &Topic, data: &Bytes) {
        match read_message(data) {
            Some((message, overlay)) if self.net.topics.get(overlay) == Some(topic) => {
                (self.net.ledger()).deliver(message, self.incarnation, Instant::now());
            }
            _ => self
                .net
                .fault("a message differs from the published one".to_owned()),
        }
    }

    fn on_subscribed(&mut self, topic: Topic) {
        if self.first_contact.is_none() || !self.net.topics.contains(&topic) {
            return;
        }
        self.met.insert(topic);
        if self.met.len() == self.net.topics.len()
            && let Some(first_contact) = self.first_contact.take()
        {
            let _ = first_contact.send(self.began.elapsed());
        }
    }
}

/// Sends back all frames until the other side closes the stream.
async fn echo(mut stream: FrameStream<Substream>) {
    while let Some(Ok(frame)) = stream.next().await {
        if stream.send(frame).await.is_err() {
            return;
        }
    }
    let _ = stream.close().await;
}

/// Creates a message with its number, its overlay, and a filler derived from
/// the number.
pub(crate) fn message(number: u64, overlay: usize, len: usize) -> Bytes {
    let mut bytes = BytesMut::with_capacity(len);
    bytes.put_u64(number);
    bytes.put_u32(u32::try_from(overlay).unwrap_or(u32::MAX));
    bytes.extend((HEAD_BYTES..len).map(|at| filler(number, at)));
    bytes.freeze()
}

/// Returns the number and overlay of an undamaged message.
fn read_message(data: &[u8]) -> Option<(u64, usize)> {
    let (number, rest) = data.split_first_chunk::<8>()?;
    let (overlay, filled) = rest.split_first_chunk::<4>()?;
    let number = u64::from_be_bytes(*number);
    let whole =
        (filled.iter().enumerate()).all(|(at, byte)| *byte == filler(number, HEAD_BYTES + at));
    let overlay = usize::try_from(u32::from_be_bytes(*overlay)).ok()?;
    whole.then_some((number, overlay))
}

fn filler(number: u64, at: usize) -> u8 {
    number.wrapping_mul(31).wrapping_add(at as u64) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_recognised_unless_it_is_damaged() {
        let sent = message(1234, 3, 100);
        assert_eq!(read_message(&sent), Some((1234, 3)));
        for at in [7, 20, 99] {
            let mut damaged = sent.to_vec();
            damaged[at] ^= 1;
            assert_eq!(read_message(&damaged), None);
        }
        assert_eq!(read_message(&sent[..11]), None);
    }
}
