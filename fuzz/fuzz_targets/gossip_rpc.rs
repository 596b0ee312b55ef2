//! An RPC of gossip as it arrives: in pieces, read, its messages checked, handled by a machine that
//! subscribes to a topic.
//!
//! The first byte of an input chooses how many bytes a read brings; the rest is what the peer sends.
#![no_main]

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use calimero_network_primitives::{Keypair, PeerId, Topic};
use calimero_network_pubsub::{
    Config,
    libp2p_swarm::ConnectionId,
    machine::{Effect, Input, Machine, Received, Version},
    rpc::{MAX_ENTRIES, MAX_MESSAGES, Message, Rpc, next_frame},
    validate::Now,
};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 4096;

static KEY: LazyLock<Keypair> = LazyLock::new(Keypair::generate_ed25519);
static PEER: LazyLock<PeerId> = LazyLock::new(PeerId::random);

/// Reads what a peer sends as a connection does. `None` where the stream ends.
fn read(machine: &Machine, sent: &[u8], step: usize, now: Now) -> Vec<Received> {
    let (mut arrived, mut rpcs) = (BytesMut::new(), Vec::new());
    for piece in sent.chunks(step) {
        arrived.extend_from_slice(piece);
        loop {
            let frame = match next_frame(&mut arrived, LIMIT) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => return rpcs,
            };
            assert!(frame.len() <= LIMIT);
            let Ok(rpc) = Rpc::decode(frame) else {
                return rpcs;
            };
            assert!(rpc.messages.len() <= MAX_MESSAGES);
            assert!(rpc.subscriptions.len() + rpc.control_entries <= MAX_ENTRIES);
            let mut received = Received {
                subscriptions: rpc.subscriptions,
                control: rpc.control,
                control_entries: rpc.control_entries,
                ..Received::default()
            };
            for raw in &rpc.messages {
                match Message::parse(raw) {
                    Ok(Some(message)) => {
                        let checked = machine.validator().check(message, &PEER, now);
                        received.messages.push(checked);
                    }
                    Ok(None) => received.unsigned += 1,
                    Err(_) => return rpcs,
                }
            }
            rpcs.push(received);
        }
    }
    rpcs
}

fuzz_target!(|input: &[u8]| {
    let Some((step, sent)) = input.split_first() else {
        return;
    };
    let mut now = Now {
        at: Instant::now(),
        unix: Duration::from_secs(1_800_000_000),
    };
    let mut machine = Machine::new(KEY.clone(), &Config::small(), [7; 32], now);
    for topic in ["a", "b"] {
        let topic: Topic = topic.parse().unwrap();
        machine.subscribe(&topic, now).unwrap();
    }
    let (peer, connection) = (*PEER, ConnectionId::new_unchecked(1));
    machine.handle(
        Input::Connected {
            peer,
            connection,
            dialled: false,
            ip: None,
        },
        now,
    );
    machine.handle(
        Input::Opened {
            peer,
            connection,
            version: Version::V1_3,
        },
        now,
    );
    machine.handle(Input::Accepted { peer, connection }, now);
    let rpcs = read(&machine, sent, usize::from(*step).max(1), now);
    machine.handle(
        Input::Received {
            peer,
            connection,
            rpcs,
        },
        now,
    );
    for _ in 0..4 {
        while let Some(effect) = machine.poll(now) {
            if let Effect::Send { frames, .. } = effect {
                // What it writes it reads.
                for frame in frames {
                    let mut bytes = BytesMut::from(frame.head());
                    bytes.extend_from_slice(frame.body());
                    let frame = next_frame(&mut bytes, usize::MAX).unwrap().unwrap();
                    assert!(Rpc::decode(frame).is_ok() && bytes.is_empty());
                }
            }
        }
        let Some(at) = machine.next_timeout() else {
            break;
        };
        now.at = now.at.max(at);
        machine.handle_timeout(now);
    }
});
