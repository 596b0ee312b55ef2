use std::{
    hash::RandomState,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    rpc::Rpc,
    validate::{MemoryLimits, Validator},
};

/// Names messages by numbers, and says when they are cached.
struct Keys(Validator, Instant);

impl Keys {
    fn new() -> Self {
        let limits = MemoryLimits {
            ids: 1,
            settled: Duration::from_secs(1),
            max_message_bytes: 1,
        };
        let validator = Validator::new(limits, [(); 2].map(|()| RandomState::new()));
        Self(validator, Instant::now())
    }

    fn key(&self, number: usize) -> Key {
        self.0.key(&number.to_be_bytes())
    }

    fn put(&self, cache: &mut Cache, number: usize, frame: &Frame) {
        let id = MessageId::with_text("author", number as u64);
        let topic = TopicHash::from_raw("topic");
        cache.put(self.key(number), frame.clone(), topic, id, self.1);
    }
}

fn frame(bytes: usize) -> Frame {
    let messages = vec![vec![7; bytes].into()];
    Rpc {
        messages,
        ..Rpc::default()
    }
    .encode()
}

#[test]
fn bytes_are_bounded_and_the_oldest_messages_go_first() {
    let (mut cache, keys, peer) = (Cache::new(5, 3), Keys::new(), PeerId::random());
    let frame = frame(1 << 20);
    for number in 0..40 {
        keys.put(&mut cache, number, &frame);
        if number % 10 == 9 {
            cache.shift();
        }
        assert!(cache.bytes <= MAX_BYTES);
    }
    // A frame is longer than its payload.
    let each = frame.len() + ENTRY_BYTES;
    let fit = MAX_BYTES / each;
    let served = (0..40).map(|number| cache.serve(keys.key(number), peer).is_some());
    let expected = (0..40).map(|number| number >= 40 - fit);
    assert!(served.eq(expected));
    assert_eq!(cache.bytes, fit * each);
    assert_eq!(cache.messages.len(), fit);
}

#[test]
fn messages_are_kept_for_some_heartbeats_and_offered_for_fewer() {
    let (mut cache, keys, peer) = (Cache::new(5, 3), Keys::new(), PeerId::random());
    keys.put(&mut cache, 1, &frame(100));
    for heartbeat in 0..8 {
        let is_offered = !cache.offers().is_empty();
        assert_eq!(is_offered, heartbeat < 3, "after {heartbeat} heartbeats");
        // Each time another peer: one peer is served three times.
        let is_served = cache.serve(keys.key(1), PeerId::random()).is_some();
        assert_eq!(is_served, heartbeat < 5, "after {heartbeat} heartbeats");
        cache.shift();
    }
    assert!(cache.is_empty() && cache.serve(keys.key(1), peer).is_none());
    assert_eq!((cache.bytes, cache.windows.len()), (0, 5));
}

#[test]
fn short_messages_take_their_entries() {
    let (mut cache, keys) = (Cache::new(5, 3), Keys::new());
    let frame = frame(1);
    let fit = MAX_BYTES / (frame.len() + ENTRY_BYTES);
    for number in 0..=fit {
        keys.put(&mut cache, number, &frame);
    }
    assert_eq!(cache.messages.len(), fit);
}

#[test]
fn what_was_cached_since_a_time_is_missed_unless_it_is_about_to_be_forgotten() {
    let (mut cache, mut keys) = (Cache::new(8, 3), Keys::new());
    let start = keys.1;
    let ids = |cache: &Cache, since, is_wanted: fn(&TopicHash, &Frame) -> bool| {
        let missed = cache.missed(since, is_wanted);
        missed.values().map(VecDeque::len).sum::<usize>()
    };
    for number in 0..8 {
        keys.put(&mut cache, number, &frame(100));
        cache.shift();
        keys.1 += Duration::from_secs(1);
    }
    // The first has been forgotten, and the next two are reserved for requests.
    assert_eq!(ids(&cache, start, |_, _| true), 5);
    assert_eq!(ids(&cache, start + Duration::from_secs(6), |_, _| true), 2);
    assert_eq!(ids(&cache, start, |_, _| false), 0);
    let newest = cache
        .missed(start, |_, _| true)
        .into_values()
        .next()
        .unwrap();
    assert_eq!(newest[0], keys.key(7));
    let id = MessageId::with_text("author", 7).to_bytes();
    assert_eq!(cache.id(keys.key(7)), Some(id));
    assert_eq!(cache.id(keys.key(0)), None);
}
