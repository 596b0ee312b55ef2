//! The commands of the node.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context as TaskContext, Waker},
    time::Duration,
};

use actix::{Context, Handler};
use calimero_network_primitives::{
    messages::{
        AnnounceBlob, IdentTopic, MessageId, NetworkEvent, NetworkMessage, OutboundRequestId,
        Publish, QueryBlob, RequestBlob, SendSpecializedNodeInvitationResponse,
        SendSpecializedNodeVerificationRequest, SetPeerScore, TopicHash,
    },
    network_status::NetworkStatusSnapshot,
    stream::Stream,
};
use eyre::{Result, bail, ensure, eyre};
use futures_timer::Delay;
use libp2p::{Multiaddr, PeerId, gossipsub};
use network::{AnnounceBlobError, PublishError, Stopped, Subscription, pubsub};
use tokio::sync::oneshot;

use crate::{
    NetworkManager, Node,
    answer::Answer,
    blobs,
    convert::{address_to_ours, peer_to_node, peer_to_ours, peers_to_node, topic_to_ours},
    invites::request_to_ours,
    status,
    stream::FrameBytes,
};

/// Time in which an announcement can fail: 500 ms. The published crate answers at once; peers store
/// the record later.
const ANNOUNCE_WAIT: Duration = Duration::from_millis(500);

/// Time for a first provider of a blob: 20 s. Longer searches found none.
const QUERY_TIMEOUT: Duration = Duration::from_secs(20);

/// Time for more providers after the first one: 250 ms, two round trips within a continent.
const QUERY_GRACE: Duration = Duration::from_millis(250);

impl Handler<NetworkMessage> for NetworkManager {
    type Result = ();

    fn handle(&mut self, message: NetworkMessage, _: &mut Context<Self>) {
        let node = Arc::clone(&self.node);
        match message {
            NetworkMessage::Dial { request, outcome } => {
                self.answer(outcome, stopped, async move { node.dial(request.0).await });
            }
            NetworkMessage::ListenOn { request, outcome } => {
                self.answer(
                    outcome,
                    stopped,
                    async move { node.listen_on(request.0).await },
                );
            }
            NetworkMessage::Bootstrap { outcome, .. } => {
                self.answer(outcome, stopped, async move {
                    Ok(node.client.bootstrap().await?)
                });
            }
            NetworkMessage::Subscribe { request, outcome } => {
                self.answer(
                    outcome,
                    stopped,
                    async move { node.subscribe(request.0).await },
                );
            }
            NetworkMessage::Unsubscribe { request, outcome } => {
                self.answer(outcome, stopped, async move {
                    node.unsubscribe(request.0).await
                });
            }
            NetworkMessage::Publish { request, outcome } => {
                self.answer(outcome, stopped, async move { node.publish(request).await });
            }
            NetworkMessage::OpenStream { request, outcome } => {
                self.answer(outcome, stopped, async move {
                    node.open_stream(request.0).await
                });
            }
            NetworkMessage::PeerCount { outcome, .. } => {
                let count = node.client.peer_count().unwrap_or_default();
                self.answer(outcome, || 0, async move { count });
            }
            NetworkMessage::MeshPeers { request, outcome } => {
                let peers = async move { node.mesh_peers(&request.0).await };
                self.answer(outcome, Vec::new, async { peers.await.unwrap_or_default() });
            }
            NetworkMessage::SubscribedPeers { request, outcome } => {
                let peers = async move { node.subscribed_peers(&request.0).await };
                self.answer(outcome, Vec::new, async { peers.await.unwrap_or_default() });
            }
            NetworkMessage::MeshPeerCount { request, outcome } => {
                let peers = async move { node.mesh_peers(&request.0).await };
                let count = async { peers.await.unwrap_or_default().len() };
                self.answer(outcome, || 0, count);
            }
            NetworkMessage::MeshStats { outcome, .. } => {
                self.answer(outcome, Vec::new, async move { node.mesh_stats().await });
            }
            NetworkMessage::NetworkStatus { outcome, .. } => {
                let local_peer = node.local_peer;
                let otherwise = move || status::stopped(local_peer);
                self.answer(outcome, otherwise, async move { node.status().await });
            }
            NetworkMessage::AnnounceBlob { request, outcome } => {
                self.answer(
                    outcome,
                    stopped,
                    async move { node.announce(request).await },
                );
            }
            NetworkMessage::QueryBlob { request, outcome } => {
                self.answer(outcome, stopped, async move { node.query(request).await });
            }
            NetworkMessage::RequestBlob { request, outcome } => {
                self.answer(outcome, stopped, async move { node.request(request).await });
            }
            NetworkMessage::SendSpecializedNodeVerificationRequest { request, outcome } => {
                self.answer(
                    outcome,
                    stopped,
                    async move { node.ask_invite(request).await },
                );
            }
            NetworkMessage::SendSpecializedNodeInvitationResponse { request, outcome } => {
                self.answer(outcome, stopped, async move {
                    node.answer_invite(request).await
                });
            }
            NetworkMessage::SetPeerScore { request, outcome } => {
                self.answer(outcome, || (), async move { node.set_score(request).await });
            }
        }
    }
}

/// The answer of a command after the end of the network.
fn stopped<T>() -> Result<T> {
    Err(Stopped.into())
}

impl NetworkManager {
    /// Runs a command on the runtime of the network, and answers with its output, or with
    /// `otherwise()` if the network stops before.
    ///
    /// The command is begun here, so that commands reach the manager in the order of the mailbox.
    fn answer<T: Send + 'static>(
        &self,
        outcome: oneshot::Sender<T>,
        otherwise: impl FnOnce() -> T + Send + 'static,
        command: impl Future<Output = T> + Send + 'static,
    ) {
        let answer = Answer::new(outcome, otherwise);
        let runtime = self.node.client.runtime();
        let mut task: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            answer.send(command.await);
        });
        let begun = {
            let _entered = runtime.enter();
            let mut context = TaskContext::from_waker(Waker::noop());
            pin!(&mut task).poll(&mut context)
        };
        if begun.is_pending() {
            runtime.spawn(task);
        }
    }
}

impl Node {
    async fn dial(&self, address: Multiaddr) -> Result<()> {
        let ours = address_to_ours(&address)?;
        ensure!(
            network::addr::peer_of(&ours).is_some(),
            "No peer ID in address: {address}"
        );
        self.client.dial(ours).await?;
        Ok(())
    }

    async fn listen_on(&self, address: Multiaddr) -> Result<()> {
        self.client.listen_on(address_to_ours(&address)?).await?;
        Ok(())
    }

    async fn subscribe(&self, topic: IdentTopic) -> Result<IdentTopic> {
        let text = topic.to_string();
        let subscription = Subscription {
            overlay: !self.reserved.contains(&text),
        };
        let ours = topic_to_ours(&text)?;
        self.client.subscribe_with(&ours, subscription).await?;
        Ok(topic)
    }

    async fn unsubscribe(&self, topic: IdentTopic) -> Result<IdentTopic> {
        let ours = topic_to_ours(&topic.to_string())?;
        self.client.unsubscribe(&ours).await?;
        Ok(topic)
    }

    /// The node distinguishes `NoPeersSubscribedToTopic` from all other errors by its type.
    async fn publish(&self, Publish { topic, data }: Publish) -> Result<MessageId> {
        let topic = topic_to_ours(topic.as_str())?;
        match self.client.publish(&topic, data).await {
            Ok(id) => Ok(MessageId::new(id.as_bytes())),
            Err(PublishError::NotSent(error)) => {
                let published = match error {
                    pubsub::PublishError::NoPeers => {
                        gossipsub::PublishError::NoPeersSubscribedToTopic
                    }
                    pubsub::PublishError::TooLarge { .. }
                    | pubsub::PublishError::TooLargeForPeers { .. } => {
                        gossipsub::PublishError::MessageTooLarge
                    }
                    pubsub::PublishError::QueueFull { peers } => {
                        gossipsub::PublishError::AllQueuesFull(peers)
                    }
                    _ => bail!(error),
                };
                Err(eyre!(published).wrap_err(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn open_stream(&self, peer: PeerId) -> Result<Stream> {
        let stream = self.client.open_stream(peer_to_ours(&peer)?).await?;
        let bytes = FrameBytes::new(stream, self.client.runtime().clone());
        Ok(Stream::new(self.local.stream(bytes).await?))
    }

    async fn mesh_peers(&self, topic: &TopicHash) -> Result<Vec<PeerId>> {
        let topic = topic_to_ours(topic.as_str())?;
        Ok(peers_to_node(&self.client.mesh_peers(&topic).await?))
    }

    async fn subscribed_peers(&self, topic: &TopicHash) -> Result<Vec<PeerId>> {
        let topic = topic_to_ours(topic.as_str())?;
        Ok(peers_to_node(&self.client.subscribed_peers(&topic).await?))
    }

    async fn mesh_stats(&self) -> Vec<(TopicHash, usize)> {
        let Ok(stats) = self.client.mesh_stats().await else {
            return Vec::new();
        };
        let topics = stats.topics.into_iter();
        topics
            .map(|stats| {
                (
                    TopicHash::from_raw(stats.topic.to_string()),
                    stats.mesh_peers,
                )
            })
            .collect()
    }

    async fn status(&self) -> NetworkStatusSnapshot {
        match self.client.status().await {
            Ok(status) => self.history.snapshot(self.local_peer, &status),
            Err(Stopped) => status::stopped(self.local_peer),
        }
    }

    /// Announces a blob that the node serves. The announcement goes on in the background: it is
    /// repeated until a peer stores it, and renewed.
    async fn announce(self: Arc<Self>, request: AnnounceBlob) -> Result<()> {
        let runtime = self.client.runtime().clone();
        let announced = runtime.spawn(async move {
            let context = (*request.context_id.digest()).into();
            let blob = (*request.blob_id.digest()).into();
            let announced = self
                .client
                .announce_blob_of_size(context, blob, request.size);
            match announced.await {
                Err(AnnounceBlobError::NotStored) => Ok(()),
                other => other,
            }
        });
        tokio::select! {
            announced = announced => Ok(announced??),
            () = Delay::new(ANNOUNCE_WAIT) => Ok(()),
        }
    }

    /// The providers that are found soon, without this node.
    async fn query(&self, request: QueryBlob) -> Result<Vec<PeerId>> {
        let Some(context_id) = request.context_id else {
            bail!("Global blob queries not yet supported");
        };
        let context = (*context_id.digest()).into();
        let blob = (*request.blob_id.digest()).into();
        let mut search = self.client.query_blob(context, blob).await?;
        let mut providers = Vec::new();
        let mut deadline = Delay::new(QUERY_TIMEOUT);
        loop {
            let provider = tokio::select! {
                provider = search.next() => provider,
                () = &mut deadline => break,
            };
            let Some(provider) = provider else { break };
            let peer = peer_to_node(&provider.peer)?;
            if peer == self.local_peer || providers.contains(&peer) {
                continue;
            }
            providers.push(peer);
            if providers.len() == 1 {
                deadline = Delay::new(QUERY_GRACE);
            }
        }
        if !providers.is_empty() {
            self.dispatch(NetworkEvent::BlobProvidersFound {
                blob_id: request.blob_id,
                context_id: Some(context_id),
                providers: providers.clone(),
            });
        }
        Ok(providers)
    }

    /// Fetches a blob. The outcome is both an event and the answer, as in the published crate.
    async fn request(&self, request: RequestBlob) -> Result<Option<Vec<u8>>> {
        let fetched = blobs::request(&self.client, &request).await;
        let (blob_id, context_id, from_peer) =
            (request.blob_id, request.context_id, request.peer_id);
        let failed = |error| NetworkEvent::BlobDownloadFailed {
            blob_id,
            context_id,
            from_peer,
            error,
        };
        self.dispatch(match &fetched {
            Ok(Some(data)) => NetworkEvent::BlobDownloaded {
                blob_id,
                context_id,
                data: data.clone(),
                from_peer,
            },
            Ok(None) => failed("Blob not found on peer".to_owned()),
            Err(error) => failed(format!("{error:#}")),
        });
        fetched
    }

    async fn ask_invite(
        &self,
        SendSpecializedNodeVerificationRequest { peer_id, request }:
            SendSpecializedNodeVerificationRequest,
    ) -> Result<OutboundRequestId> {
        let peer = peer_to_ours(&peer_id)?;
        let request = request_to_ours(request);
        let id = self.local.request_id().await?;
        let send = async {
            let sent = self
                .client
                .send_specialized_node_verification_request(peer, request);
            Ok(sent.await?)
        };
        self.pending_invites.send(id, send).await
    }

    async fn answer_invite(
        &self,
        SendSpecializedNodeInvitationResponse { channel, response }:
            SendSpecializedNodeInvitationResponse,
    ) -> Result<()> {
        ensure!(
            self.local.respond(channel, response).await?,
            "Failed to send specialized node invitation response - channel closed"
        );
        Ok(())
    }

    async fn set_score(&self, SetPeerScore { peer_id, score }: SetPeerScore) {
        if let Ok(peer) = peer_to_ours(&peer_id) {
            // A network that has stopped keeps no scores.
            let _ = self.client.set_peer_score(peer, score).await;
        }
    }
}
