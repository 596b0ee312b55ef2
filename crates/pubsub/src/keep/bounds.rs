//! What a book shows, and when it is full.

use super::*;

const LIMITS: KeepLimits = KeepLimits {
    time: Duration::from_secs(10),
    messages: 2,
    bytes: 100,
};

const SECOND: Duration = Duration::from_secs(1);

fn keep(book: &mut KeepBook, id: u64, topic: &str, bytes: usize, now: Instant) -> bool {
    let (topic, data) = (TopicHash::from_raw(topic), vec![0; bytes].into());
    book.keep(KeepId(id), topic, data, SECOND * 5, now)
}

#[test]
fn a_book_is_full_by_messages_or_bytes() {
    let (mut book, now) = (KeepBook::new(LIMITS), Instant::now());
    assert!(book.is_empty());
    assert_eq!(book.limits(), LIMITS);
    assert!(!keep(&mut book, 0, "a", 101, now));
    assert!(keep(&mut book, 0, "a", 60, now));
    assert!(!book.is_empty());
    assert!(!keep(&mut book, 1, "a", 41, now));
    assert!(keep(&mut book, 1, "b", 40, now));
    assert_eq!((book.len(), book.bytes()), (2, 100));
    assert!(!keep(&mut book, 2, "a", 0, now));
}

#[test]
fn topics_are_those_with_messages() {
    let (mut book, now) = (KeepBook::new(LIMITS), Instant::now());
    keep(&mut book, 0, "a", 1, now);
    keep(&mut book, 1, "b", 2, now);
    let mut topics = book.topics();
    topics.sort();
    assert_eq!(topics, ["a", "b"].map(TopicHash::from_raw));
    assert_eq!(book.each_topic().count(), 2);
    let (topic, data) = book.remove(KeepId(0)).unwrap();
    assert_eq!((topic.as_str(), data.len()), ("a", 1));
    assert_eq!(book.topics(), [TopicHash::from_raw("b")]);
    assert_eq!(book.first(&TopicHash::from_raw("a")), None);
}

#[test]
fn messages_expire_in_the_order_of_their_deadlines() {
    let (mut book, now) = (KeepBook::new(LIMITS), Instant::now());
    keep(&mut book, 0, "a", 1, now + SECOND);
    keep(&mut book, 1, "a", 1, now);
    assert_eq!(book.next_timeout(), Some(now + SECOND * 5));
    assert_eq!(
        book.expire(now + SECOND * 5 - Duration::from_nanos(1)),
        None
    );
    let topic = TopicHash::from_raw("a");
    let expired = book.expire(now + SECOND * 5);
    assert_eq!(expired, Some((KeepId(1), topic.clone())));
    assert_eq!(book.expire(now + SECOND * 5), None);
    assert_eq!(book.first(&topic).map(|(id, _)| id), Some(KeepId(0)));
    assert_eq!(book.expire(now + SECOND * 6), Some((KeepId(0), topic)));
    assert!(book.is_empty());
}
