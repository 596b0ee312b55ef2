//! The libp2p glue: gossipsub, and the pure parts that watch over it.

mod gate;
mod handler;
mod inbound;
mod line;
mod links;
mod outflow;
mod swarm;
mod views;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::RandomState,
    time::{Duration, Instant},
};

use bytes::Bytes;
use calimero_network_primitives::{
    Keypair, Multiaddr, PeerId, Topic,
    limits::{ANNOUNCED_TOPIC_OVERHEAD_BYTES, MAX_GOSSIP_CONTROL_BYTES},
};
use futures_timer::Delay;
use libp2p_gossipsub as gossipsub;
use libp2p_gossipsub::TopicHash;
use libp2p_swarm::{
    CloseConnection, ConnectionId, NotifyHandler, THandlerInEvent, ToSwarm,
    dial_opts::{DialOpts, PeerCondition},
};

pub use self::views::{Counters, MeshStats, TopicStats};
use self::{
    handler::{Shared, ToHandler},
    line::LineLimits,
    links::Links,
    outflow::Outflow,
};
use crate::{
    announcements::{Announcements, ForeignLimits},
    config::{Config, gossipsub_config, max_rpc_bytes, score_params, score_thresholds},
    error::{BuildError, PublishError, SubscribeError},
    event::{Event, Published},
    hold::Holds,
    keep::{KeepBook, KeepId, KeepLimits},
    repair::{Effect, Repair, RepairTimes},
    replay::Replays,
    slow::Slow,
    standing::Standing,
    wire::{MessageId, topic_hash},
};

type Gossipsub = gossipsub::Behaviour<gate::SizeLimit, gossipsub::AllowAllSubscriptionFilter>;
type FromGossipsub = THandlerInEvent<Gossipsub>;
type ToTheSwarm = ToSwarm<Event, ToHandler>;

/// How often faults of peers are looked at to let them fade.
const FADE_INTERVAL: Duration = Duration::from_secs(10);

/// Messages after which a connection is woken that has taken over. One suffices where it is for
/// that peer; not every message is.
const WAKE_MESSAGES: u8 = 32;

/// Gossipsub with limits, repair and memory. See the [crate documentation](crate).
///
/// In a behaviour that is derived from several, those that refuse connections belong before this
/// one: gossipsub 0.50 takes a peer for connected as soon as it is asked for a handler, and never
/// hears that a later one refused.
///
/// # Bounds
///
/// | what | bound |
/// |---|---|
/// | own topics | `max_topics` |
/// | topics peers announce | own topics of every connected peer, others by `peers.max_foreign_topics_per_peer` and `peers.max_foreign_topics` |
/// | messages that wait for a peer | `peers.queue` and `peers.queue_bytes`, own ones held back from `peers.window` and `peers.window_bytes` on; closed after `peers.slow_timeout` |
/// | messages cached to be asked for | what arrives in `memory.history_heartbeats` heartbeats |
/// | ids remembered | what arrives in `memory.ids`, and twice `memory.replayed_ids` of 16 bytes |
/// | messages kept for a first subscriber | `keep` |
/// | peers with a standing, repairs | 4,096 and 1,024 |
pub struct Behaviour {
    gossipsub: Gossipsub,
    max_message_bytes: usize,
    max_topics: usize,
    topics: HashMap<TopicHash, Topic>,
    /// Bytes of the message that tells a new peer of them.
    announcement_bytes: usize,
    announcements: Announcements,
    /// What every connection needs to know.
    shared: Shared,
    standing: Standing,
    slow: Slow,
    keep: KeepBook,
    repair: Option<Repair<ConnectionId>>,
    links: Links,
    outflow: Outflow,
    flood_publish: bool,
    /// Connection on which a peer spoke last, which is where an announcement came from.
    spoke_on: HashMap<PeerId, ConnectionId>,
    /// Addresses at which connected peers were dialled, and of those to be dialled again.
    dialled: HashMap<PeerId, Multiaddr>,
    /// Peers whose first connection was closed before others, with the number of messages after
    /// which they are woken still. See [`Behaviour::wake`].
    promoted: HashMap<PeerId, u8>,
    counters: Counters,
    fade_at: Instant,
    timer: Timer,
    waiting: VecDeque<ToTheSwarm>,
}

impl Behaviour {
    /// A behaviour that signs with `keypair` and follows no topic.
    ///
    /// # Errors
    ///
    /// [`BuildError::Config`] with the key that cannot hold.
    pub fn new(keypair: Keypair, config: &Config) -> Result<Self, BuildError> {
        config.validate("")?;
        let mut gossipsub = Gossipsub::new_with_transform(
            gossipsub::MessageAuthenticity::Signed(keypair),
            gossipsub_config(config)?,
            gate::SizeLimit(config.max_message_bytes),
        )
        .map_err(|reason| BuildError::Gossipsub {
            reason: reason.to_owned(),
        })?;
        gossipsub
            .with_peer_score(score_params(), score_thresholds())
            .map_err(|reason| BuildError::Gossipsub { reason })?;
        let keys = [RandomState::new(), RandomState::new()];
        Ok(Self {
            gossipsub,
            max_message_bytes: config.max_message_bytes,
            max_topics: config.max_topics,
            topics: HashMap::new(),
            announcement_bytes: 0,
            announcements: Announcements::new(ForeignLimits {
                per_peer: config.peers.max_foreign_topics_per_peer,
                total: config.peers.max_foreign_topics,
            }),
            shared: Shared::new(
                Replays::new(config.memory.replayed_ids, config.memory.ids / 2, keys),
                max_rpc_bytes(config),
            ),
            standing: Standing::new(config.peers.ban),
            slow: Slow::new(config.peers.slow_timeout, config.mesh.heartbeat * 3),
            keep: KeepBook::new(KeepLimits {
                time: config.keep.max_time,
                messages: config.keep.max_messages,
                bytes: config.keep.max_bytes,
            }),
            repair: config.repair.enabled.then(|| {
                Repair::new(RepairTimes {
                    grace: config.repair.grace,
                    cooldown: config.repair.cooldown,
                })
            }),
            links: Links::new(LineLimits::new(config)),
            outflow: Outflow::new(Holds::new(config.peers.hold)),
            flood_publish: config.mesh.flood_publish,
            spoke_on: HashMap::new(),
            dialled: HashMap::new(),
            promoted: HashMap::new(),
            counters: Counters::default(),
            fade_at: now() + FADE_INTERVAL,
            timer: Timer::default(),
            waiting: VecDeque::new(),
        })
    }

    /// Records gossipsub's metrics in `registry`, with one set of labels for each of at most
    /// `max_topics` own topics.
    #[cfg(feature = "metrics")]
    #[must_use]
    pub fn with_metrics(mut self, registry: &mut prometheus_client::registry::Registry) -> Self {
        let mut config = gossipsub::MetricsConfig {
            max_topics: self.max_topics,
            ..gossipsub::MetricsConfig::default()
        };
        config.buckets_using_scoring_thresholds(&score_thresholds());
        self.gossipsub = self.gossipsub.with_metrics(registry, config);
        self
    }

    /// Follows `topic`. `false` where it is followed already.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`] where as many topics as allowed are followed, in number or bytes.
    pub fn subscribe(&mut self, topic: &Topic) -> Result<bool, SubscribeError> {
        let hash = topic_hash(topic);
        if self.topics.contains_key(&hash) {
            return Ok(false);
        }
        let limit = self.max_topics;
        if self.topics.len() >= limit {
            return Err(SubscribeError::TooMany { limit });
        }
        let (limit, bytes) = (MAX_GOSSIP_CONTROL_BYTES, announced_bytes(&hash));
        if self.announcement_bytes + bytes > limit {
            return Err(SubscribeError::TooLong { limit });
        }
        self.announcement_bytes += bytes;
        // The filter inside allows everything, so the topic is followed now.
        let _ = self.gossipsub.subscribe(&ident(topic));
        self.announcements.follow(&hash);
        self.topics.insert(hash, topic.clone());
        self.review_links();
        self.wake();
        Ok(true)
    }

    /// Follows `topic` no longer. `false` where it was not followed.
    pub fn unsubscribe(&mut self, topic: &Topic) -> bool {
        let hash = topic_hash(topic);
        if self.topics.remove(&hash).is_none() {
            return false;
        }
        self.announcement_bytes -= announced_bytes(&hash);
        self.announcements.unfollow(&hash);
        let left = self.gossipsub.unsubscribe(&ident(topic));
        self.review_links();
        self.wake();
        left
    }

    /// Sends `data` to those who follow `topic`, which this node need not follow itself.
    ///
    /// `Ok` says that the message is queued for at least one peer, not that it has arrived. No
    /// copy is made of `data` if it is the only handle to the whole of its buffer.
    ///
    /// # Errors
    ///
    /// [`PublishError`], of which [`NoPeers`](PublishError::NoPeers) and
    /// [`QueueFull`](PublishError::QueueFull) pass with time. The latter is answered while any peer
    /// that would get the message has too much to read (`peers.window`), unless that has lasted too
    /// long (`peers.hold`); [`Event::Room`] tells when to try again.
    pub fn publish(
        &mut self,
        topic: &Topic,
        data: impl Into<Bytes>,
    ) -> Result<MessageId, PublishError> {
        self.publish_hash(topic_hash(topic), data.into())
    }

    /// As [`publish`](Self::publish), but where no peer follows `topic`, keeps `data` for at most
    /// `time` and sends it to the first one that does. Messages of one topic are sent in the
    /// order they were kept.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish), with [`KeepFull`](PublishError::KeepFull) in the place of
    /// [`NoPeers`](PublishError::NoPeers).
    pub fn publish_or_keep(
        &mut self,
        topic: &Topic,
        data: impl Into<Bytes>,
        time: Duration,
    ) -> Result<Published, PublishError> {
        let (hash, data) = (topic_hash(topic), data.into());
        match self.publish_hash(hash.clone(), data.clone()) {
            Ok(id) => Ok(Published::Sent(id)),
            Err(PublishError::NoPeers) => {
                let kept = self.keep.keep(hash, data, time, now());
                kept.map(Published::Kept).ok_or(PublishError::KeepFull {
                    messages: self.keep.len(),
                    bytes: self.keep.bytes(),
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Takes back a message that is kept: it will not be sent, and no event will tell of it.
    /// `false` where it is not kept any more.
    pub fn take_back(&mut self, keep: KeepId) -> bool {
        self.keep.remove(keep).is_some()
    }

    /// Sets how much this node prefers `peer`, from -100 to 100; beyond that counts as the limit,
    /// what is not a number as 0, where every peer starts.
    ///
    /// Preferred peers stay in a mesh that is too full and are taken into one that is not theirs.
    /// No preference shuts a peer out: see [`standing`](crate::standing).
    pub fn set_peer_score(&mut self, peer: PeerId, preference: f64) {
        let score = self.standing.prefer(peer, preference, now());
        self.gossipsub.set_application_score(&peer, score);
    }

    fn publish_hash(&mut self, topic: TopicHash, data: Bytes) -> Result<MessageId, PublishError> {
        let (limit, size) = (self.max_message_bytes, data.len());
        if size > limit {
            return Err(PublishError::TooLarge { limit, size });
        }
        // Asked beforehand, since gossipsub copies and signs before it looks for peers.
        if self.announcements.subscriber_count(&topic) == 0 {
            return Err(PublishError::NoPeers);
        }
        // So is whether they have room, since what was signed in vain is dear.
        let recipients = self.recipients(&topic);
        let peers = self.holding_back(&recipients);
        if peers > 0 {
            return Err(PublishError::QueueFull { peers });
        }
        for peer in recipients {
            self.hand(peer, size);
            self.slow.publishing(peer);
            self.exchanged(peer);
        }
        match self.gossipsub.publish(topic, data) {
            Ok(id) => {
                self.counters.published += 1;
                self.wake();
                Ok(id.into())
            }
            Err(gossipsub::PublishError::AllQueuesFull(peers)) => {
                Err(PublishError::QueueFull { peers })
            }
            Err(gossipsub::PublishError::MessageTooLarge) => {
                Err(PublishError::TooLarge { limit, size })
            }
            Err(gossipsub::PublishError::SigningError(_)) => Err(PublishError::Signing),
            Err(_) => Err(PublishError::NoPeers),
        }
    }

    /// Sends what was kept for `topic`, now that somebody follows it.
    fn send_kept(&mut self, topic: &TopicHash) {
        while let Some((keep, data)) = self.keep.first(topic) {
            let result = self.publish_hash(topic.clone(), data.clone());
            if matches!(
                result,
                Err(PublishError::NoPeers | PublishError::QueueFull { .. })
            ) {
                return;
            }
            self.keep.remove(keep);
            let Some(topic) = self.topic(topic) else {
                continue;
            };
            self.tell(match result {
                Ok(id) => Event::KeptSent { keep, topic, id },
                Err(_) => Event::KeptLost { keep, topic },
            });
        }
    }

    /// Wakes the connections that do not know that something is queued for them. To be called
    /// after whatever queues something.
    ///
    /// A peer's connections share one queue in gossipsub 0.50, but only one that has sent before
    /// is woken when something is put in. When the connection that has sent is closed, as a
    /// relayed one is once there is a direct one, nothing moves until the peer sends something.
    fn wake(&mut self) {
        if self.promoted.is_empty() {
            return;
        }
        let in_mesh: HashSet<_> = self.gossipsub.all_mesh_peers().copied().collect();
        let waiting = &mut self.waiting;
        self.promoted.retain(|peer, left| {
            // What the connection knows already. It is polled for having been told.
            let event = if in_mesh.contains(peer) {
                FromGossipsub::JoinedMesh
            } else {
                FromGossipsub::LeftMesh
            };
            waiting.push_back(ToSwarm::NotifyHandler {
                peer_id: *peer,
                handler: NotifyHandler::Any,
                event: ToHandler::Gossipsub(event),
            });
            *left -= 1;
            *left > 0
        });
    }

    /// The topic of a hash, shared where this node follows it.
    fn topic(&self, hash: &TopicHash) -> Option<Topic> {
        match self.topics.get(hash) {
            Some(topic) => Some(topic.clone()),
            None => hash.as_str().parse().ok(),
        }
    }

    fn tell(&mut self, event: Event) {
        self.waiting.push_back(ToSwarm::GenerateEvent(event));
    }

    fn close(&mut self, peer_id: PeerId, connection: CloseConnection) {
        self.waiting.push_back(ToSwarm::CloseConnection {
            peer_id,
            connection,
        });
    }

    /// Does what the repair asks for.
    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::CloseAll { peer } => {
                self.counters.repairs += 1;
                self.tell(Event::StaleMesh { peer });
                self.close(peer, CloseConnection::All);
            }
            Effect::Dial { peer } => {
                let addresses = self.dialled.get(&peer).cloned().into_iter().collect();
                let opts = DialOpts::peer_id(peer)
                    .condition(PeerCondition::Disconnected)
                    .addresses(addresses)
                    .extend_addresses_through_behaviour()
                    .build();
                self.waiting.push_back(ToSwarm::Dial { opts });
            }
            Effect::GaveUp { peer } => {
                self.dialled.remove(&peer);
                self.tell(Event::RepairFailed { peer });
            }
        }
    }
}

/// What a topic adds to an announcement.
fn announced_bytes(topic: &TopicHash) -> usize {
    topic.as_str().len() + ANNOUNCED_TOPIC_OVERHEAD_BYTES
}

/// Gossipsub's type of a topic whose hash is its text.
fn ident(topic: &Topic) -> gossipsub::IdentTopic {
    gossipsub::IdentTopic::new(topic.to_string())
}

/// The one place that reads the clock.
#[allow(
    clippy::disallowed_methods,
    reason = "the pure parts take the time as an argument; this is where it comes from"
)]
fn now() -> Instant {
    Instant::now()
}

/// Wakes the task at a time.
#[derive(Default)]
struct Timer {
    at: Option<(Instant, Delay)>,
}
