//! Outbound pings: their events, and the close of connections.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use calimero_network_discovery::liveness::{Behaviour, Carried, FailureKind, Outcome};
use calimero_network_primitives::config::PingConfig;
use futures::{AsyncWriteExt, FutureExt, StreamExt};
use libp2p_stream as stream;
use libp2p_swarm::{ConnectionError, Stream, Swarm, SwarmEvent, dummy};

use tokio::sync::oneshot;

use crate::common::{
    DEADLINE, MEMORY, NEVER, OFTEN, PING, QUIC, Raw, SHORT, TCP, answer, config, connect, echo,
    next_outcome, spawn, swarm, within,
};

fn watching(at: &str, config: &PingConfig) -> Swarm<Behaviour> {
    swarm(at, Behaviour::new(config), NEVER)
}

/// A connected peer that leaves its first `silent` ping streams unanswered and answers on the
/// others, one ping each.
async fn connect_sluggish(swarm: &mut Swarm<Behaviour>, silent: usize) {
    let mut peer = crate::common::swarm(MEMORY, stream::Behaviour::new(), NEVER);
    let mut incoming = peer.behaviour().new_control().accept(PING).unwrap();
    connect(swarm, &mut peer, MEMORY).await;
    spawn(peer);
    tokio::spawn(async move {
        let mut kept: Vec<Stream> = Vec::new();
        while let Some((_, mut stream)) = incoming.next().await {
            if kept.len() >= silent {
                echo(&mut stream).await;
            }
            kept.push(stream);
        }
    });
}

async fn told_until_closed(swarm: &mut Swarm<Behaviour>) -> Vec<Outcome> {
    let mut told = Vec::new();
    while let Some(outcome) = next_outcome(swarm).await {
        told.push(outcome);
    }
    assert_eq!(swarm.connected_peers().count(), 0);
    told
}

fn given_up_after_three(kind: FailureKind) -> [Outcome; 4] {
    [
        Outcome::Failed { kind, in_a_row: 1 },
        Outcome::Failed { kind, in_a_row: 2 },
        Outcome::Failed { kind, in_a_row: 3 },
        Outcome::GivenUp { failures: 3 },
    ]
}

/// A silent peer is asked again at once: the interval does not pass while the test runs.
#[tokio::test]
async fn a_peer_that_never_answers_is_closed_at_max_failures_in_a_row() {
    let mut swarm = watching(MEMORY, &config(NEVER, SHORT, 3));
    connect_sluggish(&mut swarm, usize::MAX).await;
    let told = told_until_closed(&mut swarm).await;
    assert_eq!(told, given_up_after_three(FailureKind::Timeout));
}

/// Not even a stream is agreed on.
#[tokio::test]
async fn a_link_dead_from_the_start_is_closed_at_max_failures_in_a_row() {
    for at in [MEMORY, TCP, QUIC] {
        let mut swarm = watching(at, &config(NEVER, SHORT, 3));
        tokio::spawn(Raw::dialled_by(&mut swarm, at).await.freeze());
        let told = told_until_closed(&mut swarm).await;
        assert_eq!(told, given_up_after_three(FailureKind::Timeout), "{at}");
    }
}

#[tokio::test]
async fn a_link_that_dies_after_an_answer_is_closed_at_max_failures_in_a_row() {
    for at in [MEMORY, TCP, QUIC] {
        // The first answer has to arrive in time, on a loaded machine too.
        let mut swarm = watching(at, &config(OFTEN, 5 * SHORT, 3));
        let mut peer = Raw::dialled_by(&mut swarm, at).await;
        let (die, death) = oneshot::channel();
        tokio::spawn(async move {
            let stream = peer.next_stream().await;
            let answered = async {
                let stream = answer(stream, 1).await;
                death.await.unwrap();
                stream
            };
            let _kept = peer.drive(answered).await;
            peer.freeze().await;
        });
        let answered = next_outcome(&mut swarm).await;
        assert!(matches!(answered, Some(Outcome::Rtt(_))), "{answered:?}");
        die.send(()).unwrap();
        let told = told_until_closed(&mut swarm).await;
        assert_eq!(told, given_up_after_three(FailureKind::Timeout), "{at}");
    }
}

#[tokio::test]
async fn an_answer_after_two_failures_keeps_the_connection() {
    let mut swarm = watching(MEMORY, &config(OFTEN, SHORT, 3));
    connect_sluggish(&mut swarm, 2).await;

    let kind = FailureKind::Timeout;
    for in_a_row in 1..3 {
        let failing = Some(Outcome::Failed { kind, in_a_row });
        assert_eq!(next_outcome(&mut swarm).await, failing);
    }
    // Every second ping fails from here on, more than three in all and never two in a row.
    for _ in 0..5 {
        let outcome = next_outcome(&mut swarm).await;
        assert!(matches!(outcome, Some(Outcome::Rtt(_))), "{outcome:?}");
        let failing = Some(Outcome::Failed { kind, in_a_row: 1 });
        assert_eq!(next_outcome(&mut swarm).await, failing);
    }
}

#[tokio::test]
async fn a_peer_that_answers_stays() {
    for at in [MEMORY, TCP, QUIC] {
        let mut swarm = watching(at, &config(OFTEN, DEADLINE, 1));
        let mut peer = watching(at, &config(OFTEN, DEADLINE, 1));
        connect(&mut swarm, &mut peer, at).await;
        spawn(peer);
        for _ in 0..5 {
            let outcome = next_outcome(&mut swarm).await;
            assert!(matches!(outcome, Some(Outcome::Rtt(_))), "{outcome:?}");
        }
    }
}

#[tokio::test]
async fn a_peer_that_does_not_speak_ping_is_not_dead() {
    for at in [MEMORY, TCP, QUIC] {
        let mut swarm = watching(at, &config(OFTEN, DEADLINE, 1));
        let mut peer = crate::common::swarm(at, dummy::Behaviour, NEVER);
        connect(&mut swarm, &mut peer, at).await;
        spawn(peer);

        let kind = FailureKind::Unsupported;
        let told = next_outcome(&mut swarm).await;
        assert_eq!(told, Some(Outcome::Failed { kind, in_a_row: 0 }));
        // The close of the connection would be reported in the same poll.
        assert!(swarm.next().now_or_never().is_none());
        assert_eq!(swarm.connected_peers().count(), 1);
    }
}

/// Neither a reset during the negotiation nor a plain end is a `na`.
#[tokio::test]
async fn a_peer_that_ends_the_stream_during_the_negotiation_is_asked_again() {
    for at in [MEMORY, TCP, QUIC] {
        let mut swarm = watching(at, &config(OFTEN, DEADLINE, 3));
        let mut peer = Raw::dialled_by(&mut swarm, at).await;
        tokio::spawn(async move {
            drop(peer.next_stream().await);
            let mut ended = peer.next_stream().await;
            peer.drive(ended.close()).await.unwrap();
            let stream = peer.next_stream().await;
            peer.drive(answer(stream, usize::MAX)).await;
        });
        let kind = FailureKind::Stream;
        for in_a_row in 1..3 {
            let failing = Some(Outcome::Failed { kind, in_a_row });
            assert_eq!(next_outcome(&mut swarm).await, failing, "{at}");
        }
        for _ in 0..3 {
            let outcome = next_outcome(&mut swarm).await;
            assert!(
                matches!(outcome, Some(Outcome::Rtt(_))),
                "{at}: {outcome:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_peer_that_always_resets_is_closed_at_max_failures_in_a_row() {
    let mut swarm = watching(MEMORY, &config(OFTEN, DEADLINE, 3));
    let mut peer = Raw::dialled_by(&mut swarm, MEMORY).await;
    let resetting = tokio::spawn(async move { peer.drive(std::future::pending::<()>()).await });
    let told = told_until_closed(&mut swarm).await;
    assert_eq!(told, given_up_after_three(FailureKind::Stream));
    resetting.abort();
}

/// Its end between two pings is noticed then, so that the next ping has a stream of its own.
#[tokio::test]
async fn a_peer_that_ends_its_stream_after_each_answer_fails_no_ping() {
    let mut swarm = watching(MEMORY, &config(2 * SHORT, DEADLINE, 1));
    let mut peer = crate::common::swarm(MEMORY, stream::Behaviour::new(), NEVER);
    let mut incoming = peer.behaviour().new_control().accept(PING).unwrap();
    connect(&mut swarm, &mut peer, MEMORY).await;
    spawn(peer);
    tokio::spawn(async move {
        while let Some((_, mut stream)) = incoming.next().await {
            echo(&mut stream).await;
        }
    });
    for _ in 0..3 {
        let outcome = next_outcome(&mut swarm).await;
        assert!(matches!(outcome, Some(Outcome::Rtt(_))), "{outcome:?}");
    }
}

#[tokio::test]
async fn pings_keep_no_unused_connection() {
    for at in [MEMORY, TCP, QUIC] {
        let ping = config(OFTEN, DEADLINE, 3);
        let mut swarm = crate::common::swarm(at, Behaviour::new(&ping), 3 * SHORT);
        let mut peer = watching(at, &ping);
        connect(&mut swarm, &mut peer, at).await;
        spawn(peer);
        let mut answers = 0;
        let closed = async {
            loop {
                match swarm.select_next_some().await {
                    SwarmEvent::Behaviour(event) => {
                        assert!(matches!(event.outcome, Outcome::Rtt(_)), "{event:?}");
                        answers += 1;
                    }
                    SwarmEvent::ConnectionClosed { cause, .. } => return cause,
                    _ => {}
                }
            }
        };
        let cause = within(closed).await;
        assert!(
            matches!(cause, Some(ConnectionError::KeepAliveTimeout)),
            "{cause:?}"
        );
        assert!(answers > 0);
    }
}

/// The first ping is answered and the next is due in an hour, with an hour to answer it.
#[tokio::test]
async fn a_probe_closes_a_connection_whose_peer_is_silent() {
    let mut swarm = watching(MEMORY, &config(NEVER, NEVER, 10));
    connect_sluggish(&mut swarm, 0).await;
    assert!(matches!(
        next_outcome(&mut swarm).await,
        Some(Outcome::Rtt(_))
    ));
    swarm.behaviour_mut().probe();
    assert_eq!(
        told_until_closed(&mut swarm).await,
        [
            Outcome::Failed {
                kind: FailureKind::Timeout,
                in_a_row: 1
            },
            Outcome::GivenUp { failures: 1 },
        ]
    );
}

/// The first ping of a new connection waits for its stream when the probe comes.
#[tokio::test]
async fn a_probe_closes_a_connection_that_negotiates_no_stream() {
    let mut swarm = watching(TCP, &config(NEVER, NEVER, 10));
    let peer = Raw::dialled_by(&mut swarm, TCP).await;
    let frozen = tokio::spawn(peer.freeze());
    // Twice, as for the address of each of two listeners.
    swarm.behaviour_mut().probe();
    swarm.behaviour_mut().probe();
    let outcomes = told_until_closed(&mut swarm).await;
    assert_eq!(outcomes.last(), Some(&Outcome::GivenUp { failures: 1 }));
    frozen.abort();
}

#[tokio::test]
async fn a_probe_of_a_live_peer_measures_a_round_trip() {
    let mut swarm = watching(MEMORY, &config(NEVER, NEVER, 10));
    let mut peer = watching(MEMORY, &config(NEVER, NEVER, 10));
    connect(&mut swarm, &mut peer, MEMORY).await;
    spawn(peer);
    for _ in 0..3 {
        assert!(matches!(
            next_outcome(&mut swarm).await,
            Some(Outcome::Rtt(_))
        ));
        swarm.behaviour_mut().probe();
    }
    assert!(matches!(
        next_outcome(&mut swarm).await,
        Some(Outcome::Rtt(_))
    ));
    assert_eq!(swarm.connected_peers().count(), 1);
}

/// Its answers are late, and it carries bytes meanwhile.
#[tokio::test]
async fn a_probe_does_not_close_a_busy_connection() {
    let received = AtomicU64::new(0);
    // The ordinary deadline comes shortly after that of the probe.
    let deadline = Duration::from_millis(3_500);
    let mut swarm = watching(MEMORY, &config(NEVER, deadline, 10));
    // The peer answers one ping on each stream.
    connect_sluggish(&mut swarm, 0).await;
    let (peer, connection) = within(async {
        loop {
            if let SwarmEvent::Behaviour(event) = swarm.select_next_some().await {
                return (event.peer, event.connection);
            }
        }
    })
    .await;
    let carried = move || Carried {
        received: received.fetch_add(1, Ordering::Relaxed),
        sent: 0,
    };
    let behaviour = swarm.behaviour_mut();
    behaviour.meter(peer, connection, carried);
    behaviour.probe();
    let late = Outcome::Failed {
        kind: FailureKind::Timeout,
        in_a_row: 1,
    };
    assert_eq!(next_outcome(&mut swarm).await, Some(late));
    // The next ping is answered.
    assert!(matches!(
        next_outcome(&mut swarm).await,
        Some(Outcome::Rtt(_))
    ));
    assert_eq!(swarm.connected_peers().count(), 1);
}
