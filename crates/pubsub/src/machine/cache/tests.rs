use std::{hash::RandomState, time::Duration};

use super::*;
use crate::{
    rpc::Rpc,
    validate::{MemoryLimits, Validator},
};

/// Names messages by numbers.
struct Keys(Validator);

impl Keys {
    fn new() -> Self {
        let limits = MemoryLimits {
            ids: 1,
            settled: Duration::from_secs(1),
            max_message_bytes: 1,
        };
        Self(Validator::new(limits, [(); 2].map(|()| RandomState::new())))
    }

    fn key(&self, number: usize) -> Key {
        self.0.key(&number.to_be_bytes())
    }

    fn put(&self, cache: &mut Cache, number: usize, frame: &Frame) {
        let id = MessageId::with_text("author", number as u64);
        let topic = TopicHash::from_raw("topic");
        cache.put(self.key(number), frame.clone(), topic, id);
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
    let fit = MAX_BYTES / frame.len();
    let served = (0..40).map(|number| cache.serve(keys.key(number), peer).is_some());
    let expected = (0..40).map(|number| number >= 40 - fit);
    assert!(served.eq(expected));
    assert_eq!(cache.bytes, fit * frame.len());
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
