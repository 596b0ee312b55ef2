//! The liveness behaviour between in-memory swarms.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so"
)]

use std::time::Duration;

use calimero_network_discovery::liveness::{Behaviour, Event, FailureKind, Outcome};
use calimero_network_primitives::config::PingConfig;
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt};
use libp2p_stream as stream;
use libp2p_swarm::{Stream, StreamProtocol, Swarm, SwarmEvent, dummy};
use libp2p_swarm_test::SwarmExt;

const PING: StreamProtocol = StreamProtocol::new("/ipfs/ping/1.0.0");
const DEADLINE: Duration = Duration::from_secs(20);

/// How long a ping may take where some are to fail.
const SHORT: Duration = Duration::from_millis(100);

fn watching(max_failures: u32, timeout: Duration) -> Swarm<Behaviour> {
    let config = PingConfig {
        interval: Duration::from_millis(10),
        timeout,
        max_failures,
    };
    Swarm::new_ephemeral_tokio(|_| Behaviour::new(&config))
}

/// The next outcome, or `None` once the connection is closed.
async fn next_outcome(swarm: &mut Swarm<Behaviour>) -> Option<Outcome> {
    let wait = async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::Behaviour(Event { outcome, .. }) => return Some(outcome),
                SwarmEvent::ConnectionClosed { .. } => return None,
                _ => {}
            }
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap()
}

/// A connected peer that leaves its first `silent` ping streams unanswered and answers on the
/// others, one ping each.
async fn connect_sluggish(swarm: &mut Swarm<Behaviour>, silent: usize) {
    let mut peer = Swarm::new_ephemeral_tokio(|_| stream::Behaviour::new());
    let mut incoming = peer.behaviour().new_control().accept(PING).unwrap();
    peer.listen().with_memory_addr_external().await;
    swarm.connect(&mut peer).await;
    let serve = async move {
        let mut kept: Vec<Stream> = Vec::new();
        while let Some((_, mut stream)) = incoming.next().await {
            if kept.len() >= silent {
                let mut payload = [0; 32];
                stream.read_exact(&mut payload).await.unwrap();
                stream.write_all(&payload).await.unwrap();
                stream.flush().await.unwrap();
            }
            kept.push(stream);
        }
    };
    tokio::spawn(futures::future::join(peer.loop_on_next(), serve));
}

#[tokio::test]
async fn a_peer_that_never_answers_is_closed_at_max_failures_in_a_row() {
    let mut swarm = watching(3, SHORT);
    connect_sluggish(&mut swarm, usize::MAX).await;

    let kind = FailureKind::Timeout;
    let mut told = Vec::new();
    while let Some(outcome) = next_outcome(&mut swarm).await {
        told.push(outcome);
    }
    assert_eq!(
        told,
        [
            Outcome::Failed { kind, in_a_row: 2 },
            Outcome::Failed { kind, in_a_row: 3 },
            Outcome::GivenUp { failures: 3 },
        ]
    );
    assert_eq!(swarm.connected_peers().count(), 0);
}

#[tokio::test]
async fn an_answer_after_two_failures_keeps_the_connection() {
    let mut swarm = watching(3, SHORT);
    connect_sluggish(&mut swarm, 2).await;

    let kind = FailureKind::Timeout;
    let failing = Some(Outcome::Failed { kind, in_a_row: 2 });
    assert_eq!(next_outcome(&mut swarm).await, failing);
    // Every second ping fails from here on, more than three in all and never two in a row.
    for _ in 0..5 {
        let outcome = next_outcome(&mut swarm).await;
        assert!(matches!(outcome, Some(Outcome::Rtt(_))), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_peer_that_answers_stays() {
    let mut swarm = watching(1, DEADLINE);
    let mut peer = watching(1, DEADLINE);
    peer.listen().with_memory_addr_external().await;
    swarm.connect(&mut peer).await;
    tokio::spawn(peer.loop_on_next());

    for _ in 0..5 {
        let outcome = next_outcome(&mut swarm).await;
        assert!(matches!(outcome, Some(Outcome::Rtt(_))), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_peer_that_does_not_speak_ping_is_not_dead() {
    let mut swarm = watching(1, DEADLINE);
    let mut peer = Swarm::new_ephemeral_tokio(|_| dummy::Behaviour);
    peer.listen().with_memory_addr_external().await;
    swarm.connect(&mut peer).await;
    tokio::spawn(peer.loop_on_next());

    let kind = FailureKind::Unsupported;
    let told = next_outcome(&mut swarm).await;
    assert_eq!(told, Some(Outcome::Failed { kind, in_a_row: 0 }));
    // Giving up would be told in the same breath.
    assert!(swarm.next().now_or_never().is_none());
    assert_eq!(swarm.connected_peers().count(), 1);
}
