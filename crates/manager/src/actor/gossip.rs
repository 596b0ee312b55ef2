//! Commands and events of topics.

use std::collections::HashMap;

use bytes::Bytes;
use calimero_network_discovery::machine::Namespace;
use calimero_network_primitives::{PeerId, Topic};
use calimero_network_pubsub::{
    self as pubsub, Event, KeepId, MessageId, PublishError as NotSent, Published,
};

use super::Actor;
use crate::{
    command::{GossipCommand, Otherwise, Reply},
    error::{PublishError, Stopped},
    event::GossipEvent,
};

type PublishReply = Reply<Result<MessageId, PublishError>>;

/// Callers whose messages the behaviour keeps, for room or for a first subscriber. A caller that
/// drops its future takes the message back.
#[derive(Default)]
pub(super) struct Publishes(HashMap<KeepId, PublishReply>);

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
                    self.on_unsubscribed(&topic);
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
        let published = match otherwise {
            Otherwise::Fail => pubsub.publish(&topic, data).map(Published::Sent),
            Otherwise::WaitForRoom => pubsub.publish_or_wait(&topic, data),
            Otherwise::WaitForPeers(time) => {
                match pubsub.publish_or_keep(&topic, data.clone(), time) {
                    Err(NotSent::QueueFull { .. }) => pubsub.publish_or_wait(&topic, data),
                    result => result,
                }
            }
        };
        match published {
            Ok(Published::Sent(id)) => drop(reply.send(Ok(id))),
            Ok(Published::Kept(keep)) => drop(self.publishes.0.insert(keep, reply)),
            Err(error) => drop(reply.send(Err(error.into()))),
        }
    }

    /// Takes back the messages whose callers have left.
    pub(super) fn forget_publishes(&mut self) {
        let pubsub = &mut self.swarm.behaviour_mut().pubsub;
        self.publishes.0.retain(|keep, reply| {
            if reply.is_closed() {
                pubsub.take_back(*keep);
            }
            !reply.is_closed()
        });
    }

    /// Answers all callers that wait: the manager stops.
    pub(super) fn drop_publishes(&mut self) {
        for reply in std::mem::take(&mut self.publishes.0).into_values() {
            let _ = reply.send(Err(Stopped.into()));
        }
    }

    /// Handles an event and those that are ready with it, which are the messages of one read of a
    /// connection. Their reader is woken once.
    pub(super) fn on_gossip(&mut self, first: Event) {
        self.events.delay_wake();
        let mut next = Some(first);
        while let Some(event) = next {
            if changes_state(&event) {
                self.shared.changes.count();
            }
            self.on_gossip_event(event);
            next = self.swarm.behaviour_mut().pubsub.next_event();
        }
        self.events.wake();
    }

    fn on_gossip_event(&mut self, event: Event) {
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
            Event::KeptLost { keep, error, .. } => self.on_kept(keep, Err(error)),
            Event::Slow { peer, lost } => {
                tracing::debug!(%peer, lost, "peer reads slowly, messages dropped");
            }
            Event::ClosedSlow { peer } => tracing::info!(%peer, "closing peer that does not read"),
            Event::TooLargeForPeer { peer, size, limit } => {
                tracing::info!(%peer, size, limit, "peer cannot get a message of this size");
            }
            Event::Banned { peer } => tracing::warn!(%peer, "banning peer that misbehaves"),
            _ => {}
        }
    }

    fn on_kept(&mut self, keep: KeepId, result: Result<MessageId, pubsub::PublishError>) {
        if let Some(reply) = self.publishes.0.remove(&keep) {
            let _ = reply.send(result.map_err(Into::into));
        }
    }
}

/// Returns `true` if this event changes state that is visible through the read API.
fn changes_state(event: &Event) -> bool {
    !matches!(event, Event::Message(_))
}

/// Members of overlays, for discovery.
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
            (false, true) => self.on_subscribed(topic),
            (true, false) => self.on_unsubscribed(topic),
            _ => {}
        }
    }

    /// This node subscribed to `topic`.
    fn on_subscribed(&mut self, topic: &Topic) {
        if let Some(overlay) = overlay_of(topic) {
            self.swarm.behaviour_mut().discovery.follow(overlay);
        }
    }

    /// This node unsubscribed from `topic`.
    fn on_unsubscribed(&mut self, topic: &Topic) {
        if let Some(overlay) = overlay_of(topic) {
            self.swarm.behaviour_mut().discovery.unfollow(overlay);
        }
    }

    /// A connected peer subscribed to `topic`, to which this node need not subscribe.
    fn on_member_seen(&mut self, peer: &PeerId, topic: &Topic) {
        if let Some(overlay) = overlay_of(topic) {
            let discovery = &mut self.swarm.behaviour_mut().discovery;
            discovery.member_seen(overlay, *peer);
        }
    }

    /// A connected peer unsubscribed from `topic`.
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
