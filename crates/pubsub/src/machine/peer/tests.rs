use calimero_network_primitives::Keypair;

use super::*;
use crate::config::Config;

fn entry(topic: &TopicHash) -> Subscription {
    Subscription {
        topic: topic.clone(),
        subscribes: true,
    }
}

#[test]
fn what_a_peer_lists_costs_no_memory_beyond_its_announcements() {
    let now = Now {
        at: Instant::now(),
        unix: Duration::ZERO,
    };
    let keypair = Keypair::generate_ed25519();
    let mut machine = Machine::new(keypair, &Config::small(), [7; 32], now);
    let (peer, connection) = (PeerId::random(), ConnectionId::new_unchecked(1));
    machine.on_connected(peer, connection, true, None, now);
    let [kept, left] = ["kept", "left"].map(TopicHash::from_raw);
    for topic in [&kept, &left] {
        assert_eq!(machine.announcements.add(peer, topic), Some(true));
    }
    machine.begin_listing(peer, 3);
    let long = TopicHash::from_raw("x".repeat(1_000_000));
    assert!(
        machine
            .listed(peer, &[entry(&long), entry(&kept)])
            .is_empty()
    );
    let listing = machine.peers[&peer].listing.as_ref().unwrap();
    assert_eq!(listing.unlisted, HashSet::from([left.clone()]));
    assert_eq!(machine.listed(peer, &[entry(&long)]), [left]);
    assert!(machine.peers[&peer].listing.is_none());
}
