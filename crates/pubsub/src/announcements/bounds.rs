//! What a table shows after each change.

use super::*;

fn topic(name: &str) -> TopicHash {
    TopicHash::from_raw(name)
}

fn table(per_peer: usize, total: usize) -> Announcements {
    Announcements::new(ForeignLimits { per_peer, total })
}

#[test]
fn a_subscription_is_new_once_and_ends_once() {
    let mut table = table(10, 10);
    let (peer, other) = (PeerId::random(), PeerId::random());
    for own in [false, true] {
        let topic = topic(if own { "own" } else { "foreign" });
        if own {
            table.subscribe(&topic);
        }
        assert_eq!(table.add(peer, &topic), Some(true));
        assert_eq!(table.add(peer, &topic), Some(false));
        assert!(table.is_subscribed(&peer, &topic));
        assert!(!table.is_subscribed(&other, &topic));
        assert_eq!(table.subscribers(&topic), [peer]);
        assert_eq!(table.subscriber_count(&topic), 1);
        assert_eq!(table.topics(&peer).collect::<Vec<_>>(), [&topic]);
        assert_eq!(table.topics(&other).count(), 0);
        assert_eq!(table.is_in_common(&peer), own);
        assert!(!table.remove(other, &topic));
        assert!(table.remove(peer, &topic));
        assert!(!table.remove(peer, &topic));
        assert_eq!(table.subscriber_count(&topic), 0);
        assert!(!table.is_in_common(&peer));
        // Nothing is remembered of a peer without topics.
        assert!(table.peers.is_empty());
        assert_eq!(table.foreign, 0);
    }
}

#[test]
fn a_peer_with_other_topics_stays_when_it_unsubscribes_from_one() {
    let mut table = table(10, 10);
    let (peer, one, two) = (PeerId::random(), topic("one"), topic("two"));
    for topic in [&one, &two] {
        table.add(peer, topic);
    }
    assert!(table.remove(peer, &one));
    assert_eq!(table.topics(&peer).collect::<Vec<_>>(), [&two]);
    assert_eq!((table.foreign, table.peers[&peer].foreign), (1, 1));
}

#[test]
fn a_topic_of_this_node_is_accepted_beyond_the_limits() {
    let mut table = table(1, 2);
    let peers = [(); 3].map(|()| PeerId::random());
    for (peer, accepted) in peers.iter().zip([true, true, false]) {
        assert_eq!(table.add(*peer, &topic("first")).is_some(), accepted);
        assert_eq!(table.add(*peer, &topic("second")), None);
    }
    table.subscribe(&topic("own"));
    // What was accepted before counts once, however often this node subscribes.
    table.subscribe(&topic("first"));
    table.subscribe(&topic("first"));
    assert_eq!(table.foreign, 0);
    for peer in peers {
        assert_eq!(table.add(peer, &topic("own")), Some(true));
    }
    assert_eq!(table.subscriber_count(&topic("own")), 3);
    // A peer that is forgotten is no subscriber.
    table.forget(&peers[0]);
    assert_eq!(table.subscriber_count(&topic("own")), 2);
    assert_eq!(table.subscriber_count(&topic("first")), 1);
    table.unsubscribe(&topic("own"));
    assert_eq!(table.foreign, 2);
    assert!(table.is_in_common(&peers[1]) && !table.is_in_common(&peers[2]));
}

#[test]
fn entries_that_contradict_each_other_do_not_count_in_either_order() {
    let entry = |subscribes| Subscription {
        topic: topic("a"),
        subscribes,
    };
    for subscribes in [false, true] {
        let once = vec![entry(subscribes)];
        assert_eq!(distinct(once.clone()), once);
        assert_eq!(distinct([once.clone(), once.clone()].concat()), once);
        let both = vec![entry(subscribes), entry(!subscribes)];
        assert!(distinct(both).is_empty());
    }
}
