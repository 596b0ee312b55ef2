//! The bounds of the checks: each number is accepted at its limit and refused one beyond it.

use super::*;

const NANOS: u64 = 1_800_000_000_000_000_000;

fn author() -> Author {
    let key = Keypair::generate_ed25519().public();
    Author::new(&key.to_peer_id(), key)
}

/// A sequence number that carries a time close to `unix`.
fn time(unix: Duration) -> u64 {
    sequence_number(unix, 0)
}

/// A number close to `from` that does not carry a time.
fn count(from: u64) -> u64 {
    (from..).find(|number| time_of(*number).is_none()).unwrap()
}

#[test]
fn a_payload_of_the_largest_size_is_accepted() {
    let (validator, key, now) = (validator(), Keypair::generate_ed25519(), now());
    let author = key.public().to_peer_id();
    let verdicts = [1_000, 1_001].map(|bytes| {
        let mut message = Message::unsigned(author, 1, topic(), vec![0; bytes].into());
        message.signature = key.sign(&message.signed()).unwrap().into();
        validator.check(message, &PeerId::random(), now).verdict
    });
    assert_eq!(verdicts, [Verdict::New, Verdict::TooLarge]);
}

#[test]
fn a_message_is_too_old_after_five_minutes() {
    let number = time(START);
    let oldest = Duration::from_nanos(number) + MAX_AGE;
    assert!(!author().is_stale(number, oldest));
    assert!(author().is_stale(number, oldest + Duration::from_nanos(1)));
}

#[test]
fn the_age_of_a_message_is_that_by_the_clock_of_its_author() {
    for ahead in [SECOND * 3600, SECOND * 7200] {
        let mut fast = author();
        fast.learn(time(START + ahead), true, START);
        // Half a minute of reordering is allowed, so the newest number is not what counts here.
        let later = START + SECOND * 400;
        let newest = time(START + ahead + SECOND * 10);
        assert!(fast.is_stale(newest, later), "{ahead:?}");
        assert!(!fast.is_stale(newest, START + SECOND * 300), "{ahead:?}");
    }
}

#[test]
fn a_time_may_be_half_a_minute_behind_the_newest_one() {
    let mut author = author();
    let newest = time(START);
    author.learn(newest, false, START);
    assert_eq!(author.order, Order::Times);
    assert!(!author.is_stale(newest - MAX_REORDER, START));
    assert!(author.is_stale(newest - MAX_REORDER - 1, START));
}

#[test]
fn a_count_may_be_a_million_behind_the_highest_one() {
    let mut author = author();
    let highest = count(NANOS);
    author.learn(highest, false, START);
    assert_eq!(author.order, Order::Counter);
    assert!(!author.is_stale(highest - MAX_COUNT_REORDER, START));
    assert!(author.is_stale(highest - MAX_COUNT_REORDER - 1, START));
    // A lower one that is accepted does not lower the bound.
    author.learn(count(highest - 1_000_000), false, START);
    assert_eq!(author.highest, highest);
}

#[test]
fn a_number_more_than_a_day_ahead_of_its_author_is_no_time() {
    let most = NANOS + u64::try_from(MAX_AHEAD.as_nanos()).unwrap();
    let mut author = author();
    for ahead in [0, 3_600_000_000_000, -3_600_000_000_000_i128] {
        author.ahead = ahead;
        // A clock that is behind takes nothing from the day.
        let most = most + u64::try_from(ahead.max(0)).unwrap();
        assert!(!author.is_far_ahead(most, START), "{ahead}");
        assert!(author.is_far_ahead(most + 1, START), "{ahead}");
    }
}

/// The author itself shows that its clock is two days ahead. Its messages are then judged by it.
#[test]
fn a_clock_that_is_days_ahead_is_learned_from_its_author_alone() {
    let ahead = MAX_AHEAD * 2;
    let number = time(START + ahead);
    let mut relayed = author();
    relayed.learn(number, false, START);
    assert_eq!(relayed.order, Order::Random);
    let mut shown = author();
    shown.learn(number, true, START);
    assert_eq!(shown.order, Order::Times);
    assert!(shown.is_stale(time(START + ahead - SECOND * 60), START));
    // A number of its own that carries no time is one chosen at random.
    shown.learn(count(NANOS * 2), true, START);
    assert_eq!((shown.order, shown.highest), (Order::Random, 0));
}

#[test]
fn a_clock_that_its_author_sets_back_is_followed() {
    let mut author = author();
    author.learn(time(START), true, START);
    let back = START - SECOND * 100;
    assert!(author.is_stale(time(back), START));
    author.learn(time(back), true, START);
    assert!(!author.is_stale(time(back - SECOND * 10), START));
    assert!(author.is_stale(time(back - SECOND * 40), START));
    // The order of messages that cross each other is no change of the clock.
    author.learn(time(back - SECOND * 29), true, START);
    assert_eq!(author.highest, time(back));
}

/// One number in 65,536 of a counter carries the mark of a time.
#[test]
fn a_count_with_the_mark_of_a_time_does_not_make_its_author_old() {
    let hour = START - SECOND * 3600;
    let marked = time(hour);
    let mut author = author();
    author.learn(count(marked - 1_000), false, START);
    assert!(!author.is_stale(marked, START));
    author.learn(marked, false, START);
    assert_eq!(author.order, Order::Counter);
    // Two of them in a row are times, in whichever order they arrive.
    let before = time(hour - SECOND * 10);
    assert!(!author.is_stale(before, hour));
    assert!(author.is_stale(time(hour - SECOND * 40), hour));
    author.learn(before, false, hour);
    assert_eq!((author.order, author.highest), (Order::Times, marked));
}

/// js-libp2p chooses numbers at random, the first of which may look like a count.
#[test]
fn a_number_that_cannot_be_a_time_is_not_old() {
    let mut author = author();
    author.learn(count(NANOS), false, START);
    for number in [0, 3, 1_499_999_999_999_999_999, u64::MAX] {
        assert!(!author.is_stale(number, START), "{number}");
    }
}

#[test]
fn a_forged_signature_is_refused_however_well_its_author_is_known() {
    let (validator, key, now) = (validator(), Keypair::generate_ed25519(), now());
    let sender = PeerId::random();
    let mut has_table = false;
    for number in 0..u64::from(TABLE_AFTER) + 2 {
        let mut forged = message(&key, number);
        forged.data = Some("other".into());
        assert_eq!(verdict(&validator, forged, &sender, now), Verdict::Invalid);
        let valid = message(&key, number);
        assert_eq!(verdict(&validator, valid, &sender, now), Verdict::New);
        let author = key.public().to_peer_id();
        has_table = validator.known().authors.young[&author].verifier.is_some();
        assert_eq!(has_table, number + 1 >= u64::from(TABLE_AFTER));
    }
    assert!(has_table);
}

/// The validator is bounded, not only its table.
#[test]
fn authors_are_bounded() {
    let (validator, now, one) = (validator(), now(), author());
    for _ in 0..3 * MAX_AUTHORS {
        let message = Message::unsigned(PeerId::random(), 1, topic(), Bytes::new());
        validator.learn(&message, &one, false, now);
    }
    let known = validator.known();
    let authors = known.authors.young.len() + known.authors.old.len();
    assert!(
        (MAX_AUTHORS..=2 * MAX_AUTHORS).contains(&authors),
        "{authors}"
    );
}

#[test]
fn an_author_whose_table_was_dropped_gets_another_one() {
    let (validator, now) = (validator(), now());
    let first = author();
    let id = first.key.to_peer_id();
    let message = Message::unsigned(id, 1, topic(), Bytes::new());
    let frequent = |author: &Author| {
        let id = author.key.to_peer_id();
        let message = Message::unsigned(id, 1, topic(), Bytes::new());
        for _ in 0..TABLE_AFTER {
            validator.learn(&message, author, false, now);
        }
    };
    frequent(&first);
    for _ in 0..MAX_TABLES {
        frequent(&author());
    }
    let has_table = || validator.known().authors.young[&id].verifier.is_some();
    assert!(!has_table());
    assert_eq!(validator.known().tables, 1);
    for _ in 1..TABLE_AFTER {
        validator.learn(&message, &first, false, now);
        assert!(!has_table());
    }
    validator.learn(&message, &first, false, now);
    assert!(has_table());
    assert_eq!(validator.known().tables, 2);
}

#[test]
fn topics_are_accepted_until_they_are_unsubscribed() {
    let (validator, key, now) = (validator(), Keypair::generate_ed25519(), now());
    let check = |number| verdict(&validator, message(&key, number), &PeerId::random(), now);
    assert_eq!(check(1), Verdict::New);
    validator.unsubscribe(&topic());
    // Not even as a copy.
    assert_eq!(
        (check(1), check(2)),
        (Verdict::Unsubscribed, Verdict::Unsubscribed)
    );
}
