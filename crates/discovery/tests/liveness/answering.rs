//! Pings that come in.
//!
//! The side that answers never pings again once it knows that its peer does not: nothing but what
//! arrives wakes its connection.

use std::io;

use calimero_network_discovery::liveness::{Behaviour, MAX_INBOUND_STREAMS};
use calimero_network_primitives::PeerId;
use futures::{AsyncReadExt, AsyncWriteExt, future};
use libp2p_stream::{self as stream, Control};
use libp2p_swarm::Stream;

use crate::common::{
    DEADLINE, MEMORY, NEVER, PING, QUIC, TCP, config, connect, spawn, swarm, within,
};

/// A peer of the behaviour that can open streams and answers no pings.
async fn prober(at: &str) -> (Control, PeerId) {
    let mut answering = swarm(at, Behaviour::new(&config(NEVER, DEADLINE, 1)), NEVER);
    let mut prober = swarm(at, stream::Behaviour::new(), NEVER);
    let control = prober.behaviour().new_control();
    let peer = *answering.local_peer_id();
    connect(&mut prober, &mut answering, at).await;
    spawn(answering);
    spawn(prober);
    (control, peer)
}

async fn ping(stream: &mut Stream, payload: [u8; 32]) -> io::Result<()> {
    stream.write_all(&payload).await?;
    stream.flush().await?;
    let mut answer = [0; 32];
    stream.read_exact(&mut answer).await?;
    assert_eq!(answer, payload);
    Ok(())
}

#[tokio::test]
async fn pings_one_after_another_on_one_stream_are_each_answered() {
    for at in [MEMORY, TCP, QUIC] {
        let (mut control, peer) = prober(at).await;
        let pinging = async {
            let mut stream = control.open_stream(peer, PING).await.unwrap();
            for number in 0..50 {
                ping(&mut stream, [number; 32]).await.unwrap();
            }
            stream.close().await.unwrap();
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        };
        within(pinging).await;
    }
}

#[tokio::test]
async fn pings_sent_in_one_piece_are_each_answered() {
    for at in [MEMORY, TCP, QUIC] {
        let (mut control, peer) = prober(at).await;
        let pings: Vec<u8> = (0..50).flat_map(|number| [number; 32]).collect();
        let mut answers = vec![0; pings.len()];
        let pinging = async {
            let mut stream = control.open_stream(peer, PING).await.unwrap();
            stream.write_all(&pings).await.unwrap();
            stream.flush().await.unwrap();
            stream.read_exact(&mut answers).await.unwrap();
        };
        within(pinging).await;
        assert_eq!(answers, pings);
    }
}

#[tokio::test]
async fn two_streams_at_once_are_both_answered() {
    for at in [MEMORY, TCP, QUIC] {
        let (mut control, peer) = prober(at).await;
        let mut one = within(control.open_stream(peer, PING)).await.unwrap();
        let mut two = within(control.open_stream(peer, PING)).await.unwrap();
        for number in 0..10 {
            let both =
                future::try_join(ping(&mut one, [number; 32]), ping(&mut two, [!number; 32]));
            within(both).await.unwrap();
        }
    }
}

#[tokio::test]
async fn one_stream_too_many_ends_the_oldest() {
    for at in [MEMORY, TCP, QUIC] {
        let (mut control, peer) = prober(at).await;
        let mut streams = Vec::new();
        for _ in 0..=MAX_INBOUND_STREAMS {
            let mut stream = within(control.open_stream(peer, PING)).await.unwrap();
            within(ping(&mut stream, [1; 32])).await.unwrap();
            streams.push(stream);
        }
        let mut streams = streams.iter_mut();
        let oldest = streams.next().unwrap();
        within(ping(oldest, [2; 32])).await.unwrap_err();
        for stream in streams {
            within(ping(stream, [3; 32])).await.unwrap();
        }
    }
}
