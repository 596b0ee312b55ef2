//! What libp2p-ping 0.48 does with peers that this crate's ping copes with: the reasons for an
//! implementation of our own. A test that fails here says that a reason no longer holds.

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p_ping as ping;
use libp2p_stream as stream;
use libp2p_swarm::{Stream, SwarmEvent};

use crate::common::{DEADLINE, MEMORY, NEVER, OFTEN, PING, Raw, connect, spawn, swarm, within};

fn stock() -> ping::Behaviour {
    let config = ping::Config::new().with_interval(OFTEN);
    ping::Behaviour::new(config.with_timeout(DEADLINE))
}

/// A peer that speaks ping and ends one stream early counts as a peer that does not speak it, and
/// is never pinged again: a dead link behind it would never be noticed. Ours asks again, see
/// `asking::a_peer_that_ends_the_stream_during_the_negotiation_is_asked_again`.
#[tokio::test]
async fn stock_ping_gives_up_for_good_on_a_peer_that_ended_one_stream_early() {
    let mut swarm = swarm(MEMORY, stock(), NEVER);
    let mut peer = Raw::dialled_by(&mut swarm, MEMORY).await;
    tokio::spawn(async move {
        let mut ended = peer.next_stream().await;
        peer.drive(ended.close()).await.unwrap();
        // Driven on, so that the end of the stream is sent.
        peer.drive(std::future::pending::<()>()).await;
    });
    let failed = async {
        loop {
            if let SwarmEvent::Behaviour(event) = swarm.select_next_some().await {
                return event.result;
            }
        }
    };
    let result = within(failed).await;
    assert!(
        matches!(result, Err(ping::Failure::Unsupported)),
        "{result:?}"
    );
}

/// The specification has a node accept two streams at a time. Ours answers four, see
/// `answering::two_streams_at_once_are_both_answered`.
#[tokio::test]
async fn stock_ping_answers_one_stream_at_a_time() {
    let mut answering = swarm(MEMORY, stock(), NEVER);
    let mut asking = swarm(MEMORY, stream::Behaviour::new(), NEVER);
    let mut control = asking.behaviour().new_control();
    let peer = *answering.local_peer_id();
    // Stock ping answers no peer that does not accept its own stream.
    let mut accepted = control.accept(PING).unwrap();
    tokio::spawn(async move {
        let mut streams = Vec::new();
        while let Some((_, stream)) = accepted.next().await {
            streams.push(stream);
        }
    });
    connect(&mut asking, &mut answering, MEMORY).await;
    spawn(answering);
    spawn(asking);
    let mut one = within(control.open_stream(peer, PING)).await.unwrap();
    assert!(within(is_answered(&mut one)).await);
    let mut two = within(control.open_stream(peer, PING)).await.unwrap();
    assert!(within(is_answered(&mut two)).await);
    assert!(!within(is_answered(&mut one)).await);
}

async fn is_answered(stream: &mut Stream) -> bool {
    let answered = async {
        stream.write_all(&[7; 32]).await?;
        stream.flush().await?;
        stream.read_exact(&mut [0; 32]).await
    };
    answered.await.is_ok()
}
