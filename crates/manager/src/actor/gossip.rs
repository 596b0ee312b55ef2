//! Topics: followed, published to, told of.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use calimero_network_discovery::machine::Namespace;
use calimero_network_primitives::{PeerId, Topic};
use calimero_network_pubsub::{
    self as pubsub, Event, KeepId, MessageId, PublishError as NotSent, Published,
};
use tokio::time::Instant;

use super::Actor;
use crate::{
    command::{COMMAND_QUEUE, GossipCommand, Otherwise, Reply},
    error::{PublishError, Stopped},
    event::GossipEvent,
};

/// Pause before messages that found the queue of a peer full are tried again, should nobody tell
/// that there is room: often enough that none waits for longer than it must.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

type PublishReply = Reply<Result<MessageId, PublishError>>;

/// Messages that wait to be sent. Each has somebody who waits for it: who goes away takes it back.
#[derive(Default)]
pub(super) struct Publishes {
    /// For room in the queues of peers, in the order they came.
    for_room: VecDeque<(Topic, Bytes, PublishReply)>,
    /// When these are tried again.
    retry_at: Option<Instant>,
    /// For a first subscriber. The messages themselves are with the behaviour.
    for_peers: HashMap<KeepId, PublishReply>,
}

impl Publishes {
    /// Returns when messages that wait for room should be tried again.
    pub(super) async fn retry(&self) {
        match self.retry_at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    fn retry_later(&mut self) {
        let at = Instant::now() + RETRY_INTERVAL;
        self.retry_at.get_or_insert(at);
    }
}

impl Actor {
    pub(super) fn on_gossip_command(&mut self, command: GossipCommand) {
        let pubsub = &mut self.swarm.behaviour_mut().pubsub;
        match command {
            GossipCommand::Subscribe {
                topic,
                subscription,
                reply,
            } => {
                let result = pubsub.subscribe(&topic);
                if let Ok(is_new) = result {
                    self.set_overlay(&topic, is_new, subscription.overlay);
                }
                let _ = reply.send(result);
            }
            GossipCommand::Unsubscribe { topic, reply } => {
                let left = pubsub.unsubscribe(&topic);
                if left && !self.without_overlay.remove(&topic) {
                    self.on_unfollowed(&topic);
                }
                let _ = reply.send(left);
            }
            GossipCommand::Publish {
                topic,
                data,
                otherwise,
                reply,
            } => self.publish(topic, data, otherwise, reply),
            GossipCommand::MeshPeers { topic, reply } => {
                let _ = reply.send(pubsub.mesh_peers(&topic));
            }
            GossipCommand::Subscribers { topic, reply } => {
                let _ = reply.send(pubsub.subscribed_peers(&topic));
            }
            GossipCommand::Stats { reply } => {
                let _ = reply.send(pubsub.mesh_stats());
            }
            GossipCommand::Prefer {
                peer,
                preference,
                reply,
            } => {
                pubsub.set_peer_score(peer, preference);
                let _ = reply.send(());
            }
        }
    }

    fn publish(&mut self, topic: Topic, data: Bytes, otherwise: Otherwise, reply: PublishReply) {
        if reply.is_closed() {
            return;
        }
        let pubsub = &mut self.swarm.behaviour_mut().pubsub;
        match otherwise {
            Otherwise::Fail => {
                let _ = reply.send(pubsub.publish(&topic, data).map_err(Into::into));
            }
            Otherwise::WaitForRoom if self.publishes.for_room.is_empty() => {
                match pubsub.publish(&topic, data.clone()) {
                    Err(NotSent::QueueFull { .. }) => self.wait_for_room(topic, data, reply),
                    result => {
                        let _ = reply.send(result.map_err(Into::into));
                    }
                }
            }
            Otherwise::WaitForRoom => self.wait_for_room(topic, data, reply),
            Otherwise::WaitForPeers(time) => {
                match pubsub.publish_or_keep(&topic, data.clone(), time) {
                    Ok(Published::Sent(id)) => {
                        let _ = reply.send(Ok(id));
                    }
                    Ok(Published::Kept(keep)) => {
                        self.publishes.for_peers.insert(keep, reply);
                    }
                    // There is somebody, and no room yet.
                    Err(NotSent::QueueFull { .. }) => self.wait_for_room(topic, data, reply),
                    Err(error) => {
                        let _ = reply.send(Err(error.into()));
                    }
                }
            }
        }
    }

    /// Keeps a message until there is room, behind those that came before, and no more of them than
    /// of commands.
    fn wait_for_room(&mut self, topic: Topic, data: Bytes, reply: PublishReply) {
        if self.publishes.for_room.len() < COMMAND_QUEUE {
            self.publishes.for_room.push_back((topic, data, reply));
            self.publishes.retry_later();
        } else {
            let pubsub = &self.swarm.behaviour().pubsub;
            let peers = pubsub.subscribed_peers(&topic).len();
            let _ = reply.send(Err(NotSent::QueueFull { peers }.into()));
        }
    }

    /// Sends what waited for room, as far as there is some.
    pub(super) fn publish_waiting(&mut self) {
        self.publishes.retry_at = None;
        while let Some((topic, data, reply)) = self.publishes.for_room.pop_front() {
            if reply.is_closed() {
                continue;
            }
            let pubsub = &mut self.swarm.behaviour_mut().pubsub;
            match pubsub.publish(&topic, data.clone()) {
                Err(NotSent::QueueFull { .. }) => {
                    self.publishes.for_room.push_front((topic, data, reply));
                    return self.publishes.retry_later();
                }
                result => {
                    let _ = reply.send(result.map_err(Into::into));
                }
            }
        }
    }

    /// Takes back the messages that nobody waits for any more.
    pub(super) fn forget_publishes(&mut self) {
        let publishes = &mut self.publishes;
        publishes
            .for_room
            .retain(|(_, _, reply)| !reply.is_closed());
        let pubsub = &mut self.swarm.behaviour_mut().pubsub;
        publishes.for_peers.retain(|keep, reply| {
            if reply.is_closed() {
                pubsub.take_back(*keep);
            }
            !reply.is_closed()
        });
    }

    /// Answers everybody who waits that there is no more.
    pub(super) fn drop_publishes(&mut self) {
        let Publishes {
            for_room,
            for_peers,
            ..
        } = std::mem::take(&mut self.publishes);
        let replies = for_room.into_iter().map(|(_, _, reply)| reply);
        for reply in replies.chain(for_peers.into_values()) {
            let _ = reply.send(Err(Stopped.into()));
        }
    }

    pub(super) fn on_gossip(&mut self, event: Event) {
        match event {
            Event::Message(message) => self.events.send(GossipEvent::Message(message)),
            Event::Subscribed { peer, topic } => {
                self.on_member_seen(&peer, &topic);
                self.events.send(GossipEvent::Subscribed { peer, topic });
            }
            Event::Unsubscribed { peer, topic } => {
                self.on_member_gone(&peer, &topic);
                self.events.send(GossipEvent::Unsubscribed { peer, topic });
            }
            Event::KeptSent { keep, id, .. } => self.on_kept(keep, Ok(id)),
            Event::KeptLost { keep, .. } => self.on_kept(keep, Err(NotSent::NoPeers)),
            Event::Room => self.publish_waiting(),
            Event::Slow { peer, lost } => tracing::debug!(%peer, lost, "a peer reads slowly"),
            Event::ClosedSlow { peer } => tracing::info!(%peer, "closed: it does not read"),
            Event::StaleMesh { peer } => {
                tracing::info!(%peer, "dialled again: it missed what was announced");
            }
            Event::RepairFailed { peer } => {
                tracing::info!(%peer, "lost: it missed what was announced and is not reached");
            }
            Event::Banned { peer } => tracing::warn!(%peer, "refused for a while: it misbehaves"),
            _ => {}
        }
    }

    fn on_kept(&mut self, keep: KeepId, result: Result<MessageId, pubsub::PublishError>) {
        if let Some(reply) = self.publishes.for_peers.remove(&keep) {
            let _ = reply.send(result.map_err(Into::into));
        }
    }
}

/// Who is in which overlay, for whoever looks for members.
impl Actor {
    /// Begins or ends the search for members of a subscribed topic, as its newest subscription asks.
    fn set_overlay(&mut self, topic: &Topic, is_new: bool, overlay: bool) {
        let had_overlay = !is_new && !self.without_overlay.contains(topic);
        if overlay {
            self.without_overlay.remove(topic);
        } else {
            self.without_overlay.insert(topic.clone());
        }
        match (had_overlay, overlay) {
            (false, true) => self.on_followed(topic),
            (true, false) => self.on_unfollowed(topic),
            _ => {}
        }
    }

    /// This node follows `topic` from now on.
    fn on_followed(&mut self, topic: &Topic) {
        if let Some(overlay) = overlay_of(topic) {
            self.swarm.behaviour_mut().discovery.follow(overlay);
        }
    }

    /// This node follows `topic` no longer.
    fn on_unfollowed(&mut self, topic: &Topic) {
        if let Some(overlay) = overlay_of(topic) {
            self.swarm.behaviour_mut().discovery.unfollow(overlay);
        }
    }

    /// A connected peer follows `topic`, which this node need not follow.
    fn on_member_seen(&mut self, peer: &PeerId, topic: &Topic) {
        if let Some(overlay) = overlay_of(topic) {
            let discovery = &mut self.swarm.behaviour_mut().discovery;
            discovery.member_seen(overlay, *peer);
        }
    }

    /// A connected peer follows `topic` no longer.
    fn on_member_gone(&mut self, peer: &PeerId, topic: &Topic) {
        if let Some(overlay) = overlay_of(topic) {
            let discovery = &mut self.swarm.behaviour_mut().discovery;
            discovery.member_gone(overlay, *peer);
        }
    }
}

/// The overlay in which the subscribers of a topic meet. A topic too long for one works between
/// peers that find each other in another way.
fn overlay_of(topic: &Topic) -> Option<Namespace> {
    Namespace::new(&topic.rendezvous_namespace()?).ok()
}
