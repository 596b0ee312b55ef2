//! Support for the tests of the behaviour: in-memory swarms, and events awaited
//! with a deadline.
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

/// Deadline of every event that a test awaits.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A short deadline that a test expects to pass.
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

/// Creates two nodes and connects the first to the second.
pub(crate) async fn pair(
    asking: &SpecializedConfig,
    answering: &SpecializedConfig,
) -> (Swarm<Behaviour>, Swarm<Behaviour>) {
    let (mut requester, mut responder) = (node(asking), node(answering));
    connect(&mut requester, &mut responder).await;
    (requester, responder)
}

pub(crate) async fn connect<B>(requester: &mut Swarm<Behaviour>, responder: &mut Swarm<B>)
where
    B: NetworkBehaviour + Send,
    B::ToSwarm: std::fmt::Debug,
{
    responder.listen().with_memory_addr_external().await;
    requester.connect(responder).await;
}

/// Waits for the next event of the behaviour.
pub(crate) async fn event(swarm: &mut Swarm<Behaviour>) -> Event {
    let wait = async {
        loop {
            if let SwarmEvent::Behaviour(event) = swarm.select_next_some().await {
                return event;
            }
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap()
}

/// Waits for the next event of `swarm` while `other` runs. Events of `other`
/// are dropped.
pub(crate) async fn event_while_running<B: NetworkBehaviour>(
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

/// Returns the failure in `event`, which must have the id `id`.
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
