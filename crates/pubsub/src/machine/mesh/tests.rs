use calimero_network_primitives::{ContextId, Keypair, Topic};

use libp2p_swarm::ConnectionId;

use super::*;
use crate::{Config, topic_hash};

fn machine() -> (Machine, TopicHash, Now) {
    let now = Now {
        at: Instant::now(),
        unix: Duration::from_secs(1_800_000_000),
    };
    let keypair = Keypair::generate_ed25519();
    let mut machine = Machine::new(keypair, &Config::small(), [1; 32], now);
    let topic = Topic::context(ContextId::new([1; 32]));
    machine.subscribe(&topic, now).unwrap();
    (machine, topic_hash(&topic), now)
}

/// Connects a peer that subscribes to the topic.
fn subscriber(machine: &mut Machine, hash: &TopicHash, now: Now) -> PeerId {
    let (peer, connection) = (PeerId::random(), ConnectionId::new_unchecked(1));
    machine.on_connected(peer, connection, true, None, now);
    machine.announcements.add(peer, hash);
    peer
}

#[test]
fn a_back_off_of_a_peer_without_subscription_is_not_remembered() {
    let (mut machine, hash, now) = machine();
    let stranger = PeerId::random();
    machine.on_connected(stranger, ConnectionId::new_unchecked(1), true, None, now);
    machine.on_prune(stranger, hash.clone(), Some(600), now);
    assert!(machine.backoffs.is_empty());
    // One that unsubscribes says so before it leaves the mesh.
    let left = subscriber(&mut machine, &hash, now);
    machine.announcements.remove(left, &hash);
    let peer = machine.peers.get_mut(&left).unwrap();
    peer.left.insert(hash.clone());
    machine.on_prune(left, hash.clone(), Some(600), now);
    assert!(machine.is_backed_off(&left, &hash, now.at));
}

#[test]
fn back_offs_are_bounded_and_those_of_disconnected_peers_go_first() {
    let (mut machine, hash, now) = machine();
    let first = subscriber(&mut machine, &hash, now);
    machine.on_prune(first, hash.clone(), Some(60), now);
    let early = PeerId::random();
    machine.back_off(early, &hash, Duration::from_secs(10), now.at);
    for _ in 0..MAX_BACKOFFS + 9 {
        machine.back_off(PeerId::random(), &hash, MAX_BACKOFF, now.at);
        assert!(machine.backoffs.len() <= MAX_BACKOFFS);
    }
    let honest = subscriber(&mut machine, &hash, now);
    machine.on_prune(honest, hash.clone(), Some(60), now);
    machine.on_prune(first, hash.clone(), Some(600), now);
    for (peer, time) in [(first, 599), (honest, 59), (early, 9)] {
        let later = now.at + Duration::from_secs(time);
        assert!(machine.is_backed_off(&peer, &hash, later));
    }
}
