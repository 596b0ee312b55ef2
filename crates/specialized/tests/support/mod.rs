//! What the behaviour tests share: in-memory swarms, and events awaited with a deadline.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so; each test file uses its part"
)]

use std::time::Duration;

use calimero_network_specialized::{
    Behaviour, Event, OutboundFailure, OutboundRequestId, SpecializedConfig,
    SpecializedNodeInviteRequest as Request,
};
use futures::StreamExt;
use libp2p_swarm::{NetworkBehaviour, Swarm, SwarmEvent};
use libp2p_swarm_test::SwarmExt;

/// Within which everything must have happened that a test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A deadline that a test wants to see pass.
pub(crate) const SHORT: Duration = Duration::from_millis(150);

pub(crate) fn node(config: &SpecializedConfig) -> Swarm<Behaviour> {
    Swarm::new_ephemeral_tokio(|_| Behaviour::new(config).unwrap())
}

pub(crate) fn request(nonce: u8) -> Request {
    Request::TeeAttestation {
        nonce: [nonce; 32],
        quote_bytes: vec![nonce; 5000].into(),
        public_key: [9; 32],
    }
}

/// Two nodes, the first connected to the second.
pub(crate) async fn pair(
    asking: &SpecializedConfig,
    answering: &SpecializedConfig,
) -> (Swarm<Behaviour>, Swarm<Behaviour>) {
    let (mut asker, mut answerer) = (node(asking), node(answering));
    connect(&mut asker, &mut answerer).await;
    (asker, answerer)
}

pub(crate) async fn connect<B>(asker: &mut Swarm<Behaviour>, answerer: &mut Swarm<B>)
where
    B: NetworkBehaviour + Send,
    B::ToSwarm: std::fmt::Debug,
{
    answerer.listen().with_memory_addr_external().await;
    asker.connect(answerer).await;
}

/// The next event of a behaviour.
pub(crate) async fn event(swarm: &mut Swarm<Behaviour>) -> Event {
    let wait = async {
        loop {
            if let SwarmEvent::Behaviour(event) = swarm.select_next_some().await {
                return event;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap()
}

/// The next event of `swarm`, while `other` runs and keeps its events for itself.
pub(crate) async fn event_beside<B: NetworkBehaviour>(
    swarm: &mut Swarm<Behaviour>,
    other: &mut Swarm<B>,
) -> Event {
    let idle = async {
        loop {
            let _ = other.select_next_some().await;
        }
    };
    tokio::select! {
        event = event(swarm) => event,
        never = idle => never,
    }
}

/// The failure that `event` tells, which must be that of `id`.
#[track_caller]
pub(crate) fn failure_of(id: OutboundRequestId, event: Event) -> OutboundFailure {
    match event {
        Event::OutboundFailure {
            request_id,
            failure,
            ..
        } if request_id == id => failure,
        other => panic!("{other:?}"),
    }
}
