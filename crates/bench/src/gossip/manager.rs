//! A node of this network, used as a program uses it.

use std::{future::ready, time::Duration};

use bytes::Bytes;
use calimero_network::{
    Events, GossipEvent, Keypair, Multiaddr, NetworkClient, NetworkEvent, NetworkManager, Topic,
    config::RuntimeKind, multiaddr::Protocol,
};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::time::interval;

use super::{
    Work,
    member::{MEET_INTERVAL, Member},
    topic,
};
use crate::Failure;

/// Number of events that are taken at a time.
const BATCH: usize = 256;

/// Number of messages that wait for the answer of the manager at a time, without
/// a rate. A program that awaits each one is limited by the round trip between
/// two threads.
const IN_FLIGHT: usize = 64;

pub(super) struct ManagerMember {
    client: NetworkClient,
    events: Events,
    /// Events that were taken, empty between two calls.
    taken: Vec<NetworkEvent>,
    address: Multiaddr,
    topic: Topic,
}

impl ManagerMember {
    pub(super) async fn start(work: Work, runtime: RuntimeKind) -> Result<Self, Failure> {
        let mut config = work.config();
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse()?];
        config.handle.runtime = runtime;
        let (client, events) = NetworkManager::start(Keypair::generate_ed25519(), config).await?;
        let topic = topic();
        client.subscribe(&topic).await?;
        let listening = client.status().await?.listening;
        let address = listening.first().ok_or("not listening")?.clone();
        Ok(Self {
            address: address.with(Protocol::P2p(client.peer_id())),
            client,
            events,
            taken: Vec::with_capacity(BATCH),
            topic,
        })
    }
}

impl Member for ManagerMember {
    fn address(&self) -> &Multiaddr {
        &self.address
    }

    async fn dial(&mut self, address: Multiaddr) -> Result<(), Failure> {
        self.client.dial(address).await?;
        Ok(())
    }

    async fn meet(&mut self, peers: usize) -> Result<(), Failure> {
        let (client, topic) = (&self.client, &self.topic);
        let mut checks = interval(MEET_INTERVAL);
        while client.subscribed_peers(topic).await?.len() < peers
            || client.mesh_peer_count(topic).await? == 0
        {
            checks.tick().await;
        }
        Ok(())
    }

    async fn receive(&mut self, messages: &mut Vec<Bytes>) -> Result<(), Failure> {
        if self.events.recv_many(&mut self.taken, BATCH).await == 0 {
            return Err("the manager has stopped".into());
        }
        messages.extend(self.taken.drain(..).filter_map(|event| match event {
            NetworkEvent::Gossip(GossipEvent::Message(message)) => Some(message.data),
            _ => None,
        }));
        Ok(())
    }

    async fn publish(&mut self, work: Work) -> Result<(), Failure> {
        let (client, topic) = (&self.client, &self.topic);
        if work.rate == 0 {
            return futures::stream::iter(0..work.messages)
                .map(|number| client.publish(topic, work.message(number)))
                .buffered(IN_FLIGHT)
                .map_err(Failure::from)
                .try_for_each(|_| ready(Ok(())))
                .await;
        }
        let mut ticks = interval(Duration::from_secs(1) / work.rate);
        for number in 0..work.messages {
            ticks.tick().await;
            client.publish(topic, work.message(number)).await?;
        }
        Ok(())
    }

    async fn during<T>(&mut self, other: impl Future<Output = T>) -> T {
        other.await
    }

    async fn copies(&self) -> Result<u64, Failure> {
        Ok(self.client.mesh_stats().await?.counters.copies)
    }
}
