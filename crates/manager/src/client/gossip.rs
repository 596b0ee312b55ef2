//! Topics.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use calimero_network_primitives::{PeerId, Topic};
use calimero_network_pubsub::{MeshStats, MessageId, PublishError as NotSent};

use super::{Forget, NetworkClient, within};
use crate::{
    command::{Command, GossipCommand, Otherwise},
    error::{PublishError, Stopped, SubscribeError},
};

/// Topics.
///
/// ```
/// # use calimero_network::{
/// #     Keypair, NetworkConfig, NetworkEvent, NetworkManager, PublishError, Topic, pubsub,
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
/// // Nobody whom Alice knows follows the topic yet.
/// let error = alice.publish(&topic, "rain").await.unwrap_err();
/// assert_eq!(error, PublishError::NotSent(pubsub::PublishError::NoPeers));
///
/// alice.dial(address).await?;
/// let id = alice.publish_or_keep(&topic, "sun", std::time::Duration::from_secs(30)).await?;
/// assert_eq!(alice.subscribed_peers(&topic).await?, [bob.peer_id()]);
///
/// while let Some(event) = bob_sees.next().await {
///     if let NetworkEvent::Message(message) = event {
///         assert_eq!((message.source, message.id), (alice.peer_id(), id));
///         assert_eq!(message.data, "sun");
///         break;
///     }
/// }
/// // Bob's followers are known: from now on it is published, or said why not.
/// alice.publish(&topic, "wind").await?;
///
/// // Who is preferred stays in a mesh that is too full. Nobody is shut out.
/// alice.set_peer_score(bob.peer_id(), 10.0).await?;
/// assert_eq!(alice.mesh_stats().await?.counters.published, 2);
/// // In the mesh are those who follow a topic together; Alice only sends.
/// assert_eq!(alice.mesh_peer_count(&topic).await?, 0);
/// assert!(alice.mesh_peers(&topic).await?.is_empty());
/// assert!(bob.unsubscribe(&topic).await?);
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run()).unwrap();
/// ```
impl NetworkClient {
    /// Follows a topic from now on: its messages come as
    /// [`NetworkEvent::Message`](crate::NetworkEvent::Message). `false` if it was followed.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`] where as many topics as allowed are followed, in number or bytes.
    pub async fn subscribe(&self, topic: &Topic) -> Result<bool, SubscribeError> {
        let topic = topic.clone();
        let command = |reply| GossipCommand::Subscribe { topic, reply };
        Ok(self.ask_gossip(command).await??)
    }

    /// Follows a topic no longer. `false` if it was not followed. Messages that arrived before
    /// may still come.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn unsubscribe(&self, topic: &Topic) -> Result<bool, Stopped> {
        let topic = topic.clone();
        self.ask_gossip(|reply| GossipCommand::Unsubscribe { topic, reply })
            .await
    }

    /// Sends `data` to those who follow `topic`, which this node need not follow. Waits while
    /// their queues are full, for `pubsub.peers.publish_wait_ms` at most.
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

    /// As [`publish`](Self::publish), but does not wait for room.
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

    /// As [`publish`](Self::publish), but where nobody follows `topic` yet, keeps the message for
    /// `time` and sends it to the first one who does. Messages of one topic are sent in the order
    /// they were kept. `pubsub.keep.max_time_ms` bounds `time`.
    ///
    /// Returns when the message was sent; dropping the future takes it back.
    ///
    /// # Errors
    ///
    /// [`PublishError`]: `NoPeers` once the time is over, `KeepFull` where as many messages are
    /// kept as may be (`pubsub.keep`).
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

    /// How many peers there are in the mesh of `topic`.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn mesh_peer_count(&self, topic: &Topic) -> Result<usize, Stopped> {
        Ok(self.kept_mesh_peers(topic).await?.len())
    }

    /// The connected peers that follow `topic`, as far as they have said so; see
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
        let memo = &self.inner.answers.subscribers;
        Ok(self.read(memo, topic, ask).await?.to_vec())
    }

    /// The state of all meshes, with counts of what was sent, received and refused, as of now:
    /// it is asked of the manager each time.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn mesh_stats(&self) -> Result<MeshStats, Stopped> {
        self.ask_gossip(|reply| GossipCommand::Stats { reply })
            .await
    }

    /// Sets how much this node prefers `peer`, from -100 to 100; 0 is where every peer starts.
    /// Preferred peers stay in a mesh that is too full. No preference shuts a peer out.
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
