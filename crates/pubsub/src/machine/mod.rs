//! Gossipsub 1.0 to 1.2 as a state machine without IO.
//!
//! [`Machine::handle`] takes what happens on connections, methods take the orders of the
//! application, [`Machine::poll`] returns effects in the order in which they must be carried out,
//! and [`Machine::next_timeout`] says when to call [`Machine::handle_timeout`]. The clock is an
//! argument, and the random numbers come from a seed, so that a run can be repeated.
//!
//! # Subscriptions belong to a peer
//!
//! Each connection with a peer gets a stream, and each new stream begins with all topics of this
//! node, whatever it has announced on another one. So a peer that has restarted while its old
//! connection seems alive learns everything on the new one. A stream that its reader closes is
//! opened again, and begins in the same way. Messages go to the connection on which the peer
//! answered last. Peers that support `/meshsub/1.3.0` get the number of topics in an experimental
//! extension; a node of this kind forgets all others once the list is complete. For all
//! other peers, a stream begins also with the unsubscriptions of the last five minutes.
//!
//! An implementation that announces its topics once a peer, not once a stream, may believe that
//! this node knows them. Then what it sends shows them: GRAFT and forwarded messages come from
//! subscribers alone. To one that stays silent this node announces its own topics again.
//!
//! # Several connections
//!
//! A driver that measures connections names the best one ([`Input::Preferred`]) and those that do
//! not answer ([`Input::Unanswered`]). What was written to a connection that closes or does not
//! answer may be lost. Its messages that are still cached are offered to the peer on the next
//! connection, also if that one opens after the last has closed; the peer requests those that it
//! misses.
//!
//! # Queues
//!
//! Every peer has a queue that is bounded in messages, bytes and time; what does not fit is
//! dropped, oldest first, and counted. A publisher waits while a recipient's queue is above the
//! window, at most for half of the time where others keep up: a slow peer costs itself.

mod cache;
mod mesh;
mod outbox;
mod peer;
mod promises;
mod publish;
mod receive;
mod unsubscribed;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use calimero_network_primitives::{
    Keypair, PeerId, Topic,
    limits::{ANNOUNCED_TOPIC_OVERHEAD_BYTES, MAX_GOSSIP_CONTROL_BYTES},
};
use libp2p_swarm::ConnectionId;
use rand::{SeedableRng, rngs::StdRng};

pub use self::peer::Version;
use self::{
    cache::Cache,
    outbox::OutboxLimits,
    peer::{LostPeers, Peer},
    promises::Promises,
    unsubscribed::Unsubscribed,
};
use crate::{
    announcements::{Announcements, ForeignLimits},
    config::Config,
    error::SubscribeError,
    event::Event,
    keep::{KeepBook, KeepId, KeepLimits},
    rpc::{Control, Frame, Subscription},
    score::{Fault, ScoreParams, Scores, Verdict},
    validate::{Checked, MemoryLimits, Now, Validator},
    views::{Counters, MeshStats, TopicStats},
    wire::{TopicHash, topic_hash},
};

/// Something that happened on a connection.
#[derive(Debug)]
pub enum Input {
    /// A connection is open.
    Connected {
        /// The peer at the other end.
        peer: PeerId,
        /// The connection it happened on.
        connection: ConnectionId,
        /// Returns `true` if this node dialled.
        dialled: bool,
        /// IP address of the peer, if the connection has one.
        ip: Option<IpAddr>,
    },
    /// A connection is closed.
    Disconnected {
        /// The peer at the other end.
        peer: PeerId,
        /// The connection it happened on.
        connection: ConnectionId,
    },
    /// The outbound stream that [`Effect::Open`] asked for is open.
    Opened {
        /// The peer at the other end.
        peer: PeerId,
        /// The connection it happened on.
        connection: ConnectionId,
        /// Version of gossipsub that was negotiated.
        version: Version,
    },
    /// The peer does not speak gossipsub.
    Unsupported {
        /// The peer at the other end.
        peer: PeerId,
        /// The connection it happened on.
        connection: ConnectionId,
    },
    /// The outbound stream was closed by its reader, failed, or could not be opened. What was not
    /// reported as written may be lost.
    Lost {
        /// The peer at the other end.
        peer: PeerId,
        /// The connection it happened on.
        connection: ConnectionId,
    },
    /// The peer has opened a stream.
    Accepted {
        /// The peer at the other end.
        peer: PeerId,
        /// The connection it happened on.
        connection: ConnectionId,
    },
    /// A part of what [`Effect::Send`] asked to write is written, in order.
    Written {
        /// The peer at the other end.
        peer: PeerId,
        /// The connection it happened on.
        connection: ConnectionId,
        /// Number of frames that were written to their end.
        frames: usize,
        /// Bytes that were written since the last report, those of parts of a frame included.
        bytes: usize,
    },
    /// Of several connections with the peer, this one is better than the one in use: messages go
    /// there while its stream is open, until a further connection opens.
    Preferred {
        /// The peer at the other end.
        peer: PeerId,
        /// The connection to use.
        connection: ConnectionId,
    },
    /// The peer did not answer a ping on the connection. Messages go to another connection, if
    /// there is one, and those that may be lost are offered there.
    Unanswered {
        /// The peer at the other end.
        peer: PeerId,
        /// The connection it happened on.
        connection: ConnectionId,
    },
    /// The connection became a spare, which is not kept alive if it is not used, or it is needed
    /// again.
    Spare {
        /// The peer at the other end.
        peer: PeerId,
        /// The connection.
        connection: ConnectionId,
        /// Whether it is a spare from now on.
        spare: bool,
    },
    /// The peer itself has closed its last connection in order. What was sent last is not offered
    /// to it if it returns.
    Left {
        /// The peer.
        peer: PeerId,
    },
    /// RPCs have arrived from the peer.
    Received {
        /// The peer at the other end.
        peer: PeerId,
        /// The connection it happened on.
        connection: ConnectionId,
        /// The RPCs, in order.
        rpcs: Vec<Received>,
    },
}

/// An RPC that was read, its messages checked.
#[derive(Debug, Default)]
pub struct Received {
    /// Announcements, in the order they were sent.
    pub subscriptions: Vec<Subscription>,
    /// Messages that could be parsed.
    pub messages: Vec<Checked>,
    /// Messages that lack what strict signing requires.
    pub unsigned: usize,
    /// Control entries of the RPC.
    pub control: Control,
    /// Number of control entries on the wire.
    pub control_entries: usize,
}

impl Received {
    /// Returns `true` if the RPC has no content that this version knows.
    pub(crate) fn is_empty(&self) -> bool {
        self.subscriptions.is_empty()
            && self.messages.is_empty()
            && self.unsigned == 0
            && self.control_entries == 0
            && self.control.is_empty()
    }
}

/// Something to do. Effects are carried out in order.
#[derive(Debug)]
pub enum Effect {
    /// Open an outbound stream on the connection.
    Open {
        /// The peer at the other end.
        peer: PeerId,
        /// The connection it happened on.
        connection: ConnectionId,
        /// Whether an end of the read half, which carries no bytes, means that the peer has
        /// closed the stream. Some implementations close that half always.
        watch: bool,
    },
    /// Write frames to the outbound stream.
    Send {
        /// The peer at the other end.
        peer: PeerId,
        /// The connection it happened on.
        connection: ConnectionId,
        /// The frames, in order.
        frames: Vec<Frame>,
    },
    /// Keep a connection that carries nothing else alive, or not.
    KeepAlive {
        /// The peer at the other end.
        peer: PeerId,
        /// The connection it happened on.
        connection: ConnectionId,
        /// Whether it is kept.
        keep: bool,
    },
    /// Close all connections with the peer.
    Close {
        /// The peer at the other end.
        peer: PeerId,
    },
    /// Give an event to the application.
    Emit(Event),
}

/// A topic to which this node subscribes.
#[derive(Debug)]
struct OwnTopic {
    topic: Topic,
    mesh: BTreeSet<PeerId>,
}

/// Gossipsub. See the [module documentation](self).
#[derive(Debug)]
pub struct Machine {
    config: Config,
    keypair: Keypair,
    me: PeerId,
    validator: Validator,
    rng: StdRng,
    topics: BTreeMap<TopicHash, OwnTopic>,
    /// Bytes of the announcement of all topics.
    announced_bytes: usize,
    announcements: Announcements,
    unsubscribed: Unsubscribed,
    peers: BTreeMap<PeerId, Peer>,
    lost: LostPeers,
    scores: Scores,
    /// Until when this node and a peer do not graft each other, by topic.
    backoffs: HashMap<(TopicHash, PeerId), Instant>,
    /// `true` if all back-offs are those of connected peers and no further one is recorded until
    /// the next heartbeat.
    backoffs_are_full: bool,
    /// Recipients of topics to which this node publishes without subscribing, and until when.
    fanout: BTreeMap<TopicHash, (BTreeSet<PeerId>, Instant)>,
    cache: Cache,
    promises: Promises,
    /// Messages that wait for a first subscriber.
    kept: KeepBook,
    /// Messages that wait for room in the queues of their recipients.
    waiting: KeepBook,
    next_keep: u64,
    /// Topics on which a message was refused because queues were full.
    refused: BTreeSet<TopicHash>,
    /// When to look at those again, if no queue moves.
    recheck_at: Option<Instant>,
    last_number: u64,
    last_queued: Option<Instant>,
    unsent: HashSet<PeerId>,
    heartbeat_at: Instant,
    heartbeats: u64,
    /// Peers for which something may have to be sent.
    dirty: BTreeSet<PeerId>,
    effects: VecDeque<Effect>,
    counters: Counters,
}

/// Messages that wait for room, at most: as many as commands of an application wait in the manager.
const MAX_WAITING: usize = 1_024;

/// Bytes of messages that wait for room, at most: 64 MiB.
const MAX_WAITING_BYTES: usize = 64 << 20;

impl Machine {
    /// A machine that signs with `keypair` and subscribes to no topic. `config` must be valid.
    #[must_use]
    pub fn new(keypair: Keypair, config: &Config, seed: [u8; 32], now: Now) -> Self {
        let memory = MemoryLimits {
            ids: config.memory.replayed_ids,
            settled: config.memory.replay_after,
            max_message_bytes: config.max_message_bytes,
        };
        let params = ScoreParams {
            ban: config.peers.ban,
            ..ScoreParams::default()
        };
        let keep = KeepLimits {
            time: config.keep.max_time,
            messages: config.keep.max_messages,
            bytes: config.keep.max_bytes,
        };
        let waiting = KeepLimits {
            time: config.peers.publish_wait + Duration::from_secs(1),
            messages: MAX_WAITING,
            bytes: MAX_WAITING_BYTES,
        };
        Self {
            me: keypair.public().to_peer_id(),
            keypair,
            validator: Validator::new(memory, Default::default()),
            rng: StdRng::from_seed(seed),
            topics: BTreeMap::new(),
            announced_bytes: 0,
            announcements: Announcements::new(ForeignLimits {
                per_peer: config.peers.max_foreign_topics_per_peer,
                total: config.peers.max_foreign_topics,
            }),
            unsubscribed: Unsubscribed::default(),
            peers: BTreeMap::new(),
            lost: LostPeers::default(),
            scores: Scores::new(params),
            backoffs: HashMap::new(),
            backoffs_are_full: false,
            fanout: BTreeMap::new(),
            cache: Cache::new(
                config.memory.history_heartbeats,
                config.memory.gossip_heartbeats,
            ),
            promises: Promises::default(),
            kept: KeepBook::new(keep),
            waiting: KeepBook::new(waiting),
            next_keep: 0,
            refused: BTreeSet::new(),
            recheck_at: None,
            last_number: 0,
            last_queued: None,
            unsent: HashSet::new(),
            heartbeat_at: now.at,
            heartbeats: 0,
            dirty: BTreeSet::new(),
            effects: VecDeque::new(),
            counters: Counters::default(),
            config: config.clone(),
        }
    }

    /// The checks of messages, for the connections that read them.
    #[must_use]
    pub fn validator(&self) -> &Validator {
        &self.validator
    }

    /// Sets the weights of the score. The default suits overlays of a few members.
    pub fn set_score_params(&mut self, params: ScoreParams) {
        self.scores = Scores::new(params);
    }

    /// Takes in what happened on a connection.
    pub fn handle(&mut self, input: Input, now: Now) {
        match input {
            Input::Connected {
                peer,
                connection,
                dialled,
                ip,
            } => self.on_connected(peer, connection, dialled, ip, now),
            Input::Disconnected { peer, connection } => self.on_disconnected(peer, connection, now),
            Input::Opened {
                peer,
                connection,
                version,
            } => self.on_opened(peer, connection, version, now),
            Input::Unsupported { peer, connection } => self.on_unsupported(peer, connection),
            Input::Lost { peer, connection } => self.on_lost(peer, connection, now),
            Input::Accepted { peer, connection } => self.on_accepted(peer, connection, now.at),
            Input::Written {
                peer,
                connection,
                frames,
                bytes,
            } => self.on_written(peer, connection, (frames, bytes), now),
            Input::Preferred { peer, connection } => self.on_preferred(peer, connection),
            Input::Unanswered { peer, connection } => self.on_unanswered(peer, connection, now.at),
            Input::Spare {
                peer,
                connection,
                spare,
            } => self.on_spare(peer, connection, spare),
            Input::Left { peer } => self.lost.remove(&peer),
            Input::Received {
                peer,
                connection,
                rpcs,
            } => {
                self.on_spoke(peer, connection);
                self.on_heard(peer, connection, &rpcs, now.at);
                for rpc in rpcs {
                    self.on_rpc(peer, rpc, now);
                }
            }
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some((keep, hash)) = self.kept.expire(now.at) {
            self.lost_waiting(keep, &hash, crate::PublishError::NoPeers);
        }
        while let Some((keep, hash)) = self.waiting.expire(now.at) {
            let peers = self.announcements.subscriber_count(&hash);
            self.lost_waiting(keep, &hash, crate::PublishError::QueueFull { peers });
        }
        if self.recheck_at.is_some_and(|at| at <= now.at) {
            self.recheck_at = None;
            self.on_room(now);
        }
        self.request_again(now);
        if self.heartbeat_at <= now.at {
            self.heartbeat(now);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let idle = self.peers.is_empty() && self.fanout.is_empty() && self.cache.is_empty();
        let heartbeat = (!idle).then_some(self.heartbeat_at);
        [
            heartbeat,
            self.recheck_at,
            self.promises.next_timeout(),
            self.kept.next_timeout(),
            self.waiting.next_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Returns the next effect, if there is one.
    pub fn poll(&mut self, now: Now) -> Option<Effect> {
        if self.effects.is_empty() {
            for peer in std::mem::take(&mut self.dirty) {
                self.flush_peer(peer, now);
            }
        }
        self.effects.pop_front()
    }

    /// Returns the next effect if it is an event for the application.
    pub fn next_event(&mut self) -> Option<Event> {
        if !matches!(self.effects.front(), Some(Effect::Emit(_))) {
            return None;
        }
        match self.effects.pop_front() {
            Some(Effect::Emit(event)) => Some(event),
            _ => None,
        }
    }

    /// Subscribes to `topic`. Returns `false` if this node subscribes to it already.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`] if this node subscribes to as many topics as allowed, in number or
    /// bytes.
    pub fn subscribe(&mut self, topic: &Topic, now: Now) -> Result<bool, SubscribeError> {
        let hash = topic_hash(topic);
        if self.topics.contains_key(&hash) {
            return Ok(false);
        }
        let limit = self.config.max_topics;
        if self.topics.len() >= limit {
            return Err(SubscribeError::TooMany { limit });
        }
        let (limit, bytes) = (MAX_GOSSIP_CONTROL_BYTES, announced_bytes(&hash));
        if self.announced_bytes + bytes > limit {
            return Err(SubscribeError::TooLong { limit });
        }
        self.announced_bytes += bytes;
        self.validator.subscribe(hash.clone());
        self.announcements.subscribe(&hash);
        let own = OwnTopic {
            topic: topic.clone(),
            mesh: BTreeSet::new(),
        };
        self.topics.insert(hash.clone(), own);
        self.unsubscribed.remove(&hash);
        self.announce(&hash, true);
        self.join(&hash, now);
        self.review_keep_alive();
        Ok(true)
    }

    /// Unsubscribes from `topic`. Returns `false` if this node does not subscribe to it.
    pub fn unsubscribe(&mut self, topic: &Topic, now: Now) -> bool {
        let hash = topic_hash(topic);
        if !self.topics.contains_key(&hash) {
            return false;
        }
        self.leave(&hash, now);
        self.topics.remove(&hash);
        self.announced_bytes -= announced_bytes(&hash);
        self.validator.unsubscribe(&hash);
        self.announcements.unsubscribe(&hash);
        for peer in self.peers.values_mut() {
            peer.left.remove(&hash);
        }
        self.announce(&hash, false);
        self.unsubscribed.add(hash, now.at);
        self.review_keep_alive();
        true
    }

    /// Sets how much the application prefers `peer`, from -100 to 100; beyond that counts as the
    /// limit, what is not a number as 0, where every peer starts.
    pub fn prefer(&mut self, peer: PeerId, preference: f64, now: Now) {
        self.scores.prefer(peer, preference, now.at);
    }

    /// Returns `true` if the peer is refused for its faults.
    #[must_use]
    pub fn is_banned(&self, peer: &PeerId, now: Now) -> bool {
        self.scores.is_banned(peer, now.at)
    }

    /// The topics to which this node subscribes.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Topic> {
        self.topics.values().map(|own| &own.topic)
    }

    /// Returns `true` if this node subscribes to `topic`.
    #[must_use]
    pub fn is_subscribed(&self, topic: &Topic) -> bool {
        self.topics.contains_key(&topic_hash(topic))
    }

    /// The peers in the mesh of `topic`.
    #[must_use]
    pub fn mesh_peers(&self, topic: &Topic) -> Vec<PeerId> {
        let own = self.topics.get(&topic_hash(topic));
        own.map_or(Vec::new(), |own| own.mesh.iter().copied().collect())
    }

    /// The connected peers that subscribe to `topic`, as far as they have announced it, in no
    /// order.
    #[must_use]
    pub fn subscribed_peers(&self, topic: &Topic) -> Vec<PeerId> {
        self.announcements.subscribers(&topic_hash(topic))
    }

    /// The state of all meshes.
    #[must_use]
    pub fn mesh_stats(&self) -> MeshStats {
        let topics = self.topics.iter().map(|(hash, own)| TopicStats {
            topic: own.topic.clone(),
            mesh_peers: own.mesh.len(),
            subscribed_peers: self.announcements.subscriber_count(hash),
        });
        let loads = self.peers.values().map(|peer| peer.outbox.load());
        let (queued_messages, queued_bytes) =
            loads.fold((0, 0), |sum, load| (sum.0 + load.0, sum.1 + load.1));
        MeshStats {
            topics: topics.collect(),
            peers: self.peers.values().filter(|peer| !peer.unsupported).count(),
            kept_messages: self.kept.len(),
            kept_bytes: self.kept.bytes(),
            queued_messages,
            queued_bytes,
            counters: self.counters,
        }
    }

    /// The score of a peer.
    #[must_use]
    pub fn score(&self, peer: &PeerId, now: Now) -> f64 {
        self.scores.score(peer, now.at)
    }

    /// Messages that wait for a first subscriber.
    #[must_use]
    pub fn kept(&self) -> &KeepBook {
        &self.kept
    }

    /// Remembers which peers have unsent messages. [`is_flushed`](Self::is_flushed) says when
    /// those are sent. Returns when a message was last queued.
    pub fn flush(&mut self) -> Option<Instant> {
        let unsent = self.peers.iter().filter(|(_, peer)| !peer.is_idle());
        self.unsent = unsent.map(|(id, _)| *id).collect();
        self.last_queued
    }

    /// Returns `true` if all that was queued at the last [`flush`](Self::flush) has been handed to
    /// the transport, or its peer is disconnected.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.unsent.is_empty()
    }

    fn emit(&mut self, event: Event) {
        self.effects.push_back(Effect::Emit(event));
    }

    /// The topic of a hash, shared if this node subscribes to it.
    fn topic(&self, hash: &TopicHash) -> Option<Topic> {
        match self.topics.get(hash) {
            Some(own) => Some(own.topic.clone()),
            None => hash.as_str().parse().ok(),
        }
    }

    fn lost_waiting(&mut self, keep: KeepId, hash: &TopicHash, error: crate::PublishError) {
        if let Some(topic) = self.topic(hash) {
            self.emit(Event::KeptLost { keep, topic, error });
        }
    }

    /// Records a fault of a peer, if there is one.
    fn fault(&mut self, peer: PeerId, fault: Fault, count: usize, now: Now) {
        if count == 0 {
            return;
        }
        if self.scores.fault(peer, fault, now.at) == Verdict::Ban {
            self.counters.banned += 1;
            self.emit(Event::Banned { peer });
            self.close(peer);
        }
    }

    fn close(&mut self, peer: PeerId) {
        if let Some(known) = self.peers.get_mut(&peer)
            && !std::mem::replace(&mut known.closing, true)
        {
            self.effects.push_back(Effect::Close { peer });
        }
    }

    fn outbox_limits(&self) -> OutboxLimits {
        let peers = &self.config.peers;
        OutboxLimits {
            messages: peers.queue,
            bytes: peers.queue_bytes,
            window: peers.window,
            window_bytes: peers.window_bytes,
            own_wait: peers.publish_wait,
            forward_wait: peers.forward_wait,
            hold: peers.hold,
        }
    }
}

/// Bytes that a topic adds to an announcement.
fn announced_bytes(topic: &TopicHash) -> usize {
    topic.as_str().len() + ANNOUNCED_TOPIC_OVERHEAD_BYTES
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
