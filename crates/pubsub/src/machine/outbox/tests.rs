use std::hash::RandomState;

use bytes::BytesMut;

use super::*;
use crate::{
    rpc::next_frame,
    validate::{MemoryLimits, Validator},
};

const SECOND: Duration = Duration::from_secs(1);

fn outbox(now: Instant) -> Outbox {
    let limits = OutboxLimits {
        messages: 8,
        bytes: 1_000,
        window: 4,
        window_bytes: 500,
        own_wait: SECOND * 5,
        forward_wait: SECOND * 2,
        hold: SECOND,
    };
    Outbox::new(limits, now)
}

fn validator() -> Validator {
    let limits = MemoryLimits {
        ids: 1,
        settled: SECOND,
        max_message_bytes: 1,
    };
    Validator::new(limits, [(); 2].map(|()| RandomState::new()))
}

fn key(number: u8) -> Key {
    validator().key(&[number])
}

fn frame(bytes: usize) -> Frame {
    Rpc {
        messages: vec![vec![7; bytes].into()],
        ..Rpc::default()
    }
    .encode()
}

#[test]
fn what_does_not_fit_pushes_out_the_oldest_and_is_counted() {
    let now = Instant::now();
    let mut outbox = outbox(now);
    for number in 0..20 {
        outbox.push(frame(50), key(number), true, now);
    }
    assert_eq!((outbox.messages.len(), outbox.lost), (8, 12));
    outbox.push(frame(950), key(99), true, now);
    assert!(outbox.bytes <= 1_000);
    assert_eq!(outbox.lost, 20);
}

#[test]
fn messages_that_waited_too_long_are_dropped_and_counted() {
    let now = Instant::now();
    let mut outbox = outbox(now);
    outbox.push(frame(10), key(1), false, now);
    outbox.push(frame(20), key(2), true, now);
    let frames = outbox.take(1_000, now + SECOND * 2);
    assert_eq!((frames, outbox.lost), (vec![frame(20)], 1));
}

#[test]
fn messages_that_a_peer_does_not_want_are_not_sent() {
    let now = Instant::now();
    let mut outbox = outbox(now);
    outbox.push(frame(10), key(1), false, now);
    // Keys of one validator.
    let wanted = outbox.messages[0].key;
    outbox.unwant(wanted);
    assert!(outbox.take(1_000, now).is_empty());
    outbox.push(frame(10), wanted, false, now);
    assert!(outbox.is_idle());
    assert_eq!(outbox.lost, 0);
}

#[test]
fn control_that_waits_goes_into_one_rpc() {
    let now = Instant::now();
    let mut outbox = outbox(now);
    let topic = TopicHash::from_raw("topic");
    outbox.push(frame(10), key(1), false, now);
    outbox.change_mesh(topic.clone(), MeshChange::Graft);
    outbox.change_mesh(topic.clone(), MeshChange::Prune { backoff: 1 });
    outbox.offer(topic.clone(), vec!["1".into(), "2".into()]);
    outbox.offer(TopicHash::from_raw("other"), vec!["3".into()]);
    outbox.request(["4".into()]);
    let control = Control {
        prune: vec![(topic.clone(), Some(1))],
        ihave: vec![
            (TopicHash::from_raw("other"), vec!["3".into()]),
            (topic, vec!["1".into(), "2".into()]),
        ],
        iwant: vec!["4".into()],
        ..Control::default()
    };
    let rpc = Rpc {
        control,
        ..Rpc::default()
    };
    assert_eq!(outbox.take_control(), [rpc.encode()]);
    assert_eq!(outbox.take(1_000, now), [frame(10)]);
}

#[test]
fn control_that_a_peer_does_not_take_is_bounded() {
    let now = Instant::now();
    let mut outbox = outbox(now);
    let topic = TopicHash::from_raw("topic");
    let author = calimero_network_primitives::Keypair::generate_ed25519()
        .public()
        .to_peer_id();
    for heartbeat in 0..100_u64 {
        let id = MessageId::new(&author, heartbeat);
        outbox.offer(topic.clone(), vec![id.to_bytes(); MAX_IDS]);
        outbox.change_mesh(topic.clone(), MeshChange::Graft);
        (0..MAX_IDS).for_each(|_| outbox.refuse(&id));
    }
    assert_eq!(outbox.idontwant.len(), MAX_IDS);
    assert_eq!(outbox.ihave[&topic].len(), MAX_IDS);
    assert_eq!(outbox.mesh.len(), 1);
}

#[test]
fn large_control_is_split_into_rpcs_of_less_than_64_kib() {
    let now = Instant::now();
    let mut outbox = outbox(now);
    for number in 0..2_000 {
        let topic = TopicHash::from_raw(format!("{number:0>200}"));
        outbox.announce(topic.clone(), true);
        outbox.change_mesh(topic.clone(), MeshChange::Graft);
        outbox.offer(topic, vec![vec![7; 70].into()]);
    }
    let (announced, control) = (outbox.take_subscriptions(), outbox.take_control());
    for frame in announced.iter().chain(&control) {
        assert!(frame.len() < 65_536, "{}", frame.len());
    }
}

#[test]
fn a_hold_is_used_while_others_wait_and_comes_back() {
    let start = Instant::now();
    let mut outbox = outbox(start);
    assert_eq!(outbox.hold(start), SECOND);
    assert_eq!(outbox.hold(start + SECOND / 2), SECOND / 2);
    assert_eq!(outbox.hold(start + SECOND * 2), Duration::ZERO);
    outbox.release(start + SECOND * 2);
    assert_eq!(outbox.hold(start + SECOND * 2 + SECOND / 4), SECOND / 4);
}

#[test]
fn a_queue_that_does_not_move_is_stalled() {
    let start = Instant::now();
    let mut outbox = outbox(start);
    assert!(!outbox.is_stalled(start + SECOND * 9));
    outbox.push(frame(10), key(1), true, start + SECOND * 9);
    assert!(!outbox.is_stalled(start + SECOND * 9));
    assert!(outbox.is_stalled(start + SECOND * 10));
    let frames = outbox.take(1_000, start + SECOND * 10);
    outbox.sending(&frames[0], start + SECOND * 10);
    outbox.sent(&frames[0], start + SECOND * 11);
    assert!(outbox.is_idle() && !outbox.is_stalled(start + SECOND * 99));
}

#[test]
fn an_announcement_of_no_topics_says_so_where_it_can() {
    assert_eq!(announcement(Vec::new(), None), []);
    let frames = announcement(Vec::new(), Some(0));
    assert_eq!(frames.len(), 1);
    assert!(!frames[0].is_empty());
}

/// libp2p-gossipsub 0.50.1 ignores all of an RPC with more topics, in its default configuration.
#[test]
fn an_announcement_has_at_most_100_topics_in_each_rpc() {
    let entries = (0..250).map(|number| Subscription {
        topic: TopicHash::from_raw(format!("topic {number}")),
        subscribes: true,
    });
    let frames = announcement(entries.collect(), Some(250));
    let counts = frames.iter().map(|frame| {
        let mut bytes = BytesMut::from(frame.head());
        bytes.extend_from_slice(frame.body());
        let rpc = next_frame(&mut bytes, 1 << 20).unwrap().unwrap();
        Rpc::decode(rpc).unwrap().subscriptions.len()
    });
    assert_eq!(counts.collect::<Vec<_>>(), [100, 100, 50]);
}

/// What does not fit costs a copy, so the peer that sends too much pays for it.
#[test]
fn ids_that_a_peer_does_not_want_are_bounded() {
    let now = Instant::now();
    let (mut outbox, validator) = (outbox(now), validator());
    let key = |number: usize| validator.key(&number.to_be_bytes());
    for number in 0..MAX_UNWANTED + 10 {
        outbox.unwant(key(number));
    }
    assert_eq!(outbox.unwanted.len(), MAX_UNWANTED);
    for number in [0, MAX_UNWANTED + 9] {
        outbox.push(frame(number.min(9)), key(number), true, now);
    }
    assert_eq!(outbox.take(1_000, now), [frame(9)]);
}

/// A flood of ids costs memory for a heartbeat alone.
#[test]
fn memory_for_ids_that_a_peer_does_not_want_is_given_back() {
    let mut outbox = outbox(Instant::now());
    let validator = validator();
    for number in 0..MAX_UNWANTED {
        outbox.unwant(validator.key(&number.to_be_bytes()));
    }
    outbox.forget_unwanted();
    assert!(outbox.unwanted.is_empty());
    let capacity = outbox.unwanted.capacity();
    assert!(capacity <= 2 * RETAINED_UNWANTED, "{capacity}");
}

/// 4 KiB a second, reported in parts.
#[test]
fn a_large_frame_that_is_written_in_parts_is_not_stalled() {
    let start = Instant::now();
    for (bytes, is_stalled) in [(16 * 1024, false), (2 * 1024, true)] {
        let mut outbox = outbox(start);
        outbox.sending(&frame(900), start);
        for part in 1..=10 {
            outbox.wrote(bytes, start + SECOND * 4 * part);
        }
        let stalled = outbox.stalled_for(start + SECOND * 40);
        assert_eq!(stalled >= SECOND * 10, is_stalled, "{stalled:?}");
    }
}
