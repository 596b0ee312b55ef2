use super::*;

fn topic(number: usize, len: usize) -> TopicHash {
    TopicHash::from_raw(format!("{number:0>len$}"))
}

#[test]
fn entries_are_bounded_in_number_bytes_and_time() {
    let start = Instant::now();
    let mut unsubscribed = Unsubscribed::default();
    for number in 0..=MAX_OWN_TOPICS {
        unsubscribed.add(topic(number, 8), start);
    }
    assert_eq!(unsubscribed.recent(start).count(), MAX_OWN_TOPICS);
    assert_eq!(unsubscribed.recent(start).next(), Some(&topic(1, 8)));

    for number in 0..1_000 {
        unsubscribed.add(topic(number, 1_024), start + REPEATED / 2);
        assert!(unsubscribed.bytes <= MAX_GOSSIP_CONTROL_BYTES);
    }
    let last = unsubscribed.recent(start).last();
    assert_eq!(last, Some(&topic(999, 1_024)));
    assert!(unsubscribed.recent(start + REPEATED).count() > 400);
    assert_eq!(unsubscribed.recent(start + REPEATED * 3 / 2).count(), 0);
    assert_eq!(unsubscribed.bytes, 0);
}

#[test]
fn a_topic_that_is_subscribed_again_is_not_repeated() {
    let now = Instant::now();
    let mut unsubscribed = Unsubscribed::default();
    for number in 0..3 {
        unsubscribed.add(topic(number, 1), now);
    }
    unsubscribed.remove(&topic(1, 1));
    unsubscribed.remove(&topic(7, 1));
    let recent: Vec<_> = unsubscribed.recent(now).cloned().collect();
    assert_eq!(recent, [topic(0, 1), topic(2, 1)]);
    let bytes: usize = recent.iter().map(announced_bytes).sum();
    assert_eq!(unsubscribed.bytes, bytes);
}
