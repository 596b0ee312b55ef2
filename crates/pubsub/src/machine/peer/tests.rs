use calimero_network_primitives::{ContextId, Keypair, Topic};

use super::*;
use crate::{config::Config, topic_hash};

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

/// The order to open crosses the report of the stream that was opened before.
#[test]
fn what_was_given_to_a_stream_that_another_one_replaced_is_sent_again() {
    let now = Now {
        at: Instant::now(),
        unix: Duration::from_secs(1_800_000_000),
    };
    let keypair = Keypair::generate_ed25519();
    let mut machine = Machine::new(keypair, &Config::small(), [7; 32], now);
    let (peer, connection) = (PeerId::random(), ConnectionId::new_unchecked(1));
    let topic = Topic::context(ContextId::new([1; 32]));
    machine.on_connected(peer, connection, true, None, now);
    machine.announcements.add(peer, &topic_hash(&topic));
    machine.publish(&topic, "message".into(), now).unwrap();
    let sent = [(); 2].map(|()| {
        machine.on_opened(peer, connection, Version::V1_3, now);
        let effects = std::iter::from_fn(|| machine.poll(now));
        let frames = effects.filter_map(|effect| match effect {
            Effect::Send { frames, .. } => Some(frames),
            _ => None,
        });
        let is_message = |frame: &Frame| frame.body().windows(7).any(|part| part == b"message");
        let messages = frames.flatten().filter(is_message);
        messages.collect::<Vec<_>>()
    });
    assert_eq!(sent[0].len(), 1);
    assert_eq!(sent[0], sent[1]);
}
