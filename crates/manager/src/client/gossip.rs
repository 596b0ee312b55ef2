//! Topics.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use calimero_network_primitives::{PeerId, Topic};
use calimero_network_pubsub::{MeshStats, MessageId, PublishError as NotSent};

use super::{Forget, NetworkClient, within};
use crate::{
    command::{Command, GossipCommand, Otherwise, Subscription},
    error::{PublishError, Stopped, SubscribeError},
};

/// Topics.
///
/// ```
/// # use calimero_network::{
/// #     GossipEvent, Keypair, MessageId, NetworkConfig, NetworkEvent, NetworkManager, PublishError,
/// #     Topic, pubsub,
/// # };
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let quiet = NetworkConfig { listen: Vec::new(), ..NetworkConfig::default() };
/// # let key = Keypair::generate_ed25519;
/// # let (alice, _) = NetworkManager::start_in_memory(key(), quiet.clone()).await?;
/// # let (bob, mut bob_sees) = NetworkManager::start_in_memory(key(), quiet).await?;
/// # let (_, address) = bob.listen_on("/memory/0".parse()?).await?;
/// let topic = Topic::free("weather")?;
/// assert!(bob.subscribe(&topic).await?);
///
/// // No peer of Alice is subscribed to the topic yet.
/// let error = alice.publish(&topic, "rain").await.unwrap_err();
/// assert_eq!(error, PublishError::NotSent(pubsub::PublishError::NoPeers));
///
/// alice.dial(address).await?;
/// let id = alice.publish_or_keep(&topic, "sun", std::time::Duration::from_secs(30)).await?;
/// assert_eq!(alice.subscribed_peers(&topic).await?, [bob.peer_id()]);
///
/// while let Some(event) = bob_sees.next().await {
///     if let NetworkEvent::Gossip(GossipEvent::Message(message)) = event {
///         assert_eq!((message.source, &message.id), (alice.peer_id(), &id));
///         assert_eq!(id, MessageId::new(&message.source, message.sequence_number));
///         assert_eq!(message.data, "sun");
///         break;
///     }
/// }
/// // Bob's followers are known: from now on it is published, or said why not.
/// alice.publish(&topic, "wind").await?;
///
/// // A peer of a higher score remains in a mesh that is too full. No peer is excluded.
/// alice.set_peer_score(bob.peer_id(), 10.0).await?;
/// assert_eq!(alice.mesh_stats().await?.counters.published, 2);
/// // A mesh connects subscribers; Alice only publishes.
/// assert_eq!(alice.mesh_peer_count(&topic).await?, 0);
/// assert!(alice.mesh_peers(&topic).await?.is_empty());
/// assert!(bob.unsubscribe(&topic).await?);
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run()).unwrap();
/// ```
impl NetworkClient {
    /// Subscribes to a topic: its messages are emitted as
    /// [`GossipEvent::Message`](crate::GossipEvent::Message). Returns `false` if the node was
    /// subscribed already.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`] if the limit of subscriptions is reached, in number or bytes.
    pub async fn subscribe(&self, topic: &Topic) -> Result<bool, SubscribeError> {
        self.subscribe_with(topic, Subscription::default()).await
    }

    /// As [`subscribe`](Self::subscribe), with a choice whether the subscribers form an overlay.
    /// Where the node is subscribed already, the newer `subscription` holds.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`] if the limit of subscriptions is reached, in number or bytes.
    pub async fn subscribe_with(
        &self,
        topic: &Topic,
        subscription: Subscription,
    ) -> Result<bool, SubscribeError> {
        let topic = topic.clone();
        let command = |reply| GossipCommand::Subscribe {
            topic,
            subscription,
            reply,
        };
        Ok(self.ask_gossip(command).await??)
    }

    /// Unsubscribes from a topic. Returns `false` if the node was not subscribed. Messages that arrived
    /// before may still be emitted.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn unsubscribe(&self, topic: &Topic) -> Result<bool, Stopped> {
        let topic = topic.clone();
        self.ask_gossip(|reply| GossipCommand::Unsubscribe { topic, reply })
            .await
    }

    /// Publishes `data` to the subscribers of `topic`, to which this node need not be subscribed. Waits
    /// while their send queues are full, for at most `pubsub.peers.publish_wait_ms`.
    ///
    /// `Ok` says that the message is queued for at least one peer, not that it has arrived. No
    /// copy is made of `data` if it is the only handle to the whole of its buffer.
    ///
    /// # Errors
    ///
    /// [`PublishError`], of which `NoPeers` and `Deadline` pass with time.
    pub async fn publish(
        &self,
        topic: &Topic,
        data: impl Into<Bytes>,
    ) -> Result<MessageId, PublishError> {
        let after = self.inner.config.pubsub.peers.publish_wait;
        let sent = self.send_message(topic, data.into(), Otherwise::WaitForRoom);
        within(after, sent)
            .await
            .unwrap_or(Err(PublishError::Deadline { after }))
    }

    /// As [`publish`](Self::publish), but returns at once if the send queues are full.
    ///
    /// # Errors
    ///
    /// [`PublishError`], of which `NoPeers` and `QueueFull` pass with time.
    pub async fn try_publish(
        &self,
        topic: &Topic,
        data: impl Into<Bytes>,
    ) -> Result<MessageId, PublishError> {
        self.send_message(topic, data.into(), Otherwise::Fail).await
    }

    /// As [`publish`](Self::publish), but if `topic` has no subscriber yet, keeps the message for
    /// `time` and sends it to the first subscriber. Messages of one topic are sent in the order in which
    /// they were kept. `pubsub.keep.max_time_ms` bounds `time`.
    ///
    /// Returns when the message was sent; dropping the future takes it back.
    ///
    /// # Errors
    ///
    /// [`PublishError`]: `NoPeers` after the time, `KeepFull` if the limit of kept messages is reached
    /// (`pubsub.keep`).
    pub async fn publish_or_keep(
        &self,
        topic: &Topic,
        data: impl Into<Bytes>,
        time: Duration,
    ) -> Result<MessageId, PublishError> {
        let time = time.min(self.inner.config.pubsub.keep.max_time);
        let sent = self.send_message(topic, data.into(), Otherwise::WaitForPeers(time));
        // The node keeps the time; this is for one that does not answer.
        let margin = self.inner.config.pubsub.peers.publish_wait;
        within(time + margin, sent)
            .await
            .unwrap_or(Err(NotSent::NoPeers.into()))
    }

    /// The peers with which messages of `topic` are exchanged in full; see
    /// [what reads see](Self#what-reads-see).
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn mesh_peers(&self, topic: &Topic) -> Result<Vec<PeerId>, Stopped> {
        Ok(self.kept_mesh_peers(topic).await?.to_vec())
    }

    /// The number of peers in the mesh of `topic`.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn mesh_peer_count(&self, topic: &Topic) -> Result<usize, Stopped> {
        Ok(self.kept_mesh_peers(topic).await?.len())
    }

    /// The connected peers that announced a subscription to `topic`; see
    /// [what reads see](Self#what-reads-see).
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn subscribed_peers(&self, topic: &Topic) -> Result<Vec<PeerId>, Stopped> {
        let ask = || {
            let topic = topic.clone();
            self.ask_gossip(|reply| GossipCommand::Subscribers { topic, reply })
        };
        let cache = &self.inner.answers.subscribers;
        Ok(self.read(cache, topic, ask).await?.to_vec())
    }

    /// The state of all meshes, with counts of messages sent, received and refused. Each call asks the
    /// manager.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn mesh_stats(&self) -> Result<MeshStats, Stopped> {
        self.ask_gossip(|reply| GossipCommand::Stats { reply })
            .await
    }

    /// Sets the application score of `peer`, from -100 to 100; every peer starts at 0. Peers of a higher
    /// score remain in a mesh that is too full. No score excludes a peer.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn set_peer_score(&self, peer: PeerId, preference: f64) -> Result<(), Stopped> {
        self.ask_gossip(|reply| GossipCommand::Prefer {
            peer,
            preference,
            reply,
        })
        .await
    }

    async fn kept_mesh_peers(&self, topic: &Topic) -> Result<Arc<[PeerId]>, Stopped> {
        let ask = || {
            let topic = topic.clone();
            self.ask_gossip(|reply| GossipCommand::MeshPeers { topic, reply })
        };
        self.read(&self.inner.answers.mesh_peers, topic, ask).await
    }

    async fn send_message(
        &self,
        topic: &Topic,
        data: Bytes,
        otherwise: Otherwise,
    ) -> Result<MessageId, PublishError> {
        let topic = topic.clone();
        let forget = Forget(&self.inner.commands);
        let command = |reply| GossipCommand::Publish {
            topic,
            data,
            otherwise,
            reply,
        };
        let answer = self.ask_gossip(command).await;
        forget.disarm();
        answer?
    }

    async fn ask_gossip<T>(
        &self,
        command: impl FnOnce(crate::command::Reply<T>) -> GossipCommand,
    ) -> Result<T, Stopped> {
        self.ask(|reply| Command::Gossip(command(reply))).await
    }
}
