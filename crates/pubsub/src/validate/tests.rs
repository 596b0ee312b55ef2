use bytes::Bytes;
use calimero_network_primitives::Keypair;

use super::*;
use crate::wire::sequence_number;

mod bounds;

const START: Duration = Duration::from_secs(1_800_000_000);
const SECOND: Duration = Duration::from_secs(1);

fn now() -> Now {
    Now {
        at: Instant::now(),
        unix: START,
    }
}

fn later(now: Now, by: Duration) -> Now {
    Now {
        at: now.at + by,
        unix: now.unix + by,
    }
}

fn topic() -> TopicHash {
    TopicHash::from_raw("topic")
}

fn validator() -> Validator {
    let limits = MemoryLimits {
        ids: 1_000,
        settled: SECOND * 30,
        max_message_bytes: 1_000,
    };
    let validator = Validator::new(limits, Default::default());
    validator.subscribe(topic());
    validator
}

fn message(key: &Keypair, number: u64) -> Message {
    let author = key.public().to_peer_id();
    let mut message = Message::unsigned(author, number, topic(), Bytes::from("payload"));
    message.signature = key.sign(&message.signed()).unwrap().into();
    message
}

/// The verdict on a message from `sender`, which is remembered if it is new.
fn verdict(validator: &Validator, message: Message, sender: &PeerId, now: Now) -> Verdict {
    let checked = validator.check(message, sender, now);
    if checked.verdict == Verdict::New {
        assert!(validator.remember(checked.key, now.at));
    }
    checked.verdict
}

#[test]
fn a_repetition_is_a_copy_at_first_and_late_afterwards() {
    let (validator, key, now) = (validator(), Keypair::generate_ed25519(), now());
    let sender = PeerId::random();
    let check = |number, now| verdict(&validator, message(&key, number), &sender, now);
    assert_eq!(check(1, now), Verdict::New);
    assert_eq!(check(1, later(now, SECOND)), Verdict::Copy { late: false });
    assert_eq!(
        check(1, later(now, SECOND * 30)),
        Verdict::Copy { late: true }
    );
    assert_eq!(check(2, now), Verdict::New);
}

/// The author is known and its key is remembered, or has tables: a message that names another key
/// is refused all the same, since every other implementation refuses it.
#[test]
fn a_foreign_key_is_refused_however_well_its_author_is_known() {
    let (validator, key, now) = (validator(), Keypair::generate_ed25519(), now());
    let sender = PeerId::random();
    for number in 0..u64::from(TABLE_AFTER) * 2 {
        let other = Keypair::generate_ed25519().public();
        let mut foreign = message(&key, number);
        foreign.key = Some(other.encode_protobuf().into());
        let refused = verdict(&validator, foreign.clone(), &sender, now);
        assert_eq!(refused, Verdict::Invalid);
        let mut own = message(&key, number);
        own.key = Some(key.public().encode_protobuf().into());
        assert_eq!(verdict(&validator, own, &sender, now), Verdict::New);
        // Nor is it a copy of the one that is known.
        assert_eq!(verdict(&validator, foreign, &sender, now), Verdict::Invalid);
    }
}

#[test]
fn a_key_must_be_its_authors() {
    let (validator, now) = (validator(), now());
    let (key, thief) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let mut stolen = Message::unsigned(key.public().to_peer_id(), 1, topic(), "stolen".into());
    stolen.signature = thief.sign(&stolen.signed()).unwrap().into();
    stolen.key = Some(thief.public().encode_protobuf().into());
    let refused = verdict(&validator, stolen, &PeerId::random(), now);
    assert_eq!(refused, Verdict::Invalid);
}

#[test]
fn what_is_not_subscribed_to_is_not_verified_and_what_is_too_large_is_refused() {
    let (validator, key, now) = (validator(), Keypair::generate_ed25519(), now());
    let mut other = message(&key, 1);
    other.topic = TopicHash::from_raw("other");
    let sender = PeerId::random();
    let check = |message| verdict(&validator, message, &sender, now);
    assert_eq!(check(other), Verdict::Unsubscribed);
    let mut large = message(&key, 1);
    large.data = Some(vec![0; 1_001].into());
    assert_eq!(check(large), Verdict::TooLarge);
}

/// 450 messages of minutes ago, which a node that has just started never received.
#[test]
fn old_messages_are_refused_by_a_node_that_has_just_started() {
    let (validator, key, now) = (validator(), Keypair::generate_ed25519(), now());
    let sender = PeerId::random();
    let mut last = 0;
    for age in (6..456).rev() {
        let number = sequence_number(now.unix - SECOND * 60 * age, last);
        last = number;
        let replayed = verdict(&validator, message(&key, number), &sender, now);
        assert_eq!(replayed, Verdict::Stale, "{age} minutes");
    }
    let recent = sequence_number(now.unix - SECOND * 4, last);
    assert_eq!(
        verdict(&validator, message(&key, recent), &sender, now),
        Verdict::New
    );
}

#[test]
fn a_message_far_behind_the_newest_of_its_author_is_refused() {
    let (validator, now) = (validator(), now());
    let sender = PeerId::random();
    let nanos = u64::try_from(START.as_nanos()).unwrap();
    // A node of this kind, and one that counts up from the time it started.
    let times = |ago: u64| sequence_number(now.unix - SECOND * u32::try_from(ago).unwrap(), 0);
    let counter = |ago: u64| nanos - 3_600_000_000_000 - ago * 1_000_000;
    for (number, near, far) in [
        (&times as &dyn Fn(u64) -> u64, 20, 40),
        (&counter as &dyn Fn(u64) -> u64, 0, 2),
    ] {
        let key = Keypair::generate_ed25519();
        let check = |n| verdict(&validator, message(&key, n), &sender, now);
        assert_eq!(check(number(0)), Verdict::New);
        assert_eq!(check(number(far)), Verdict::Stale);
        assert_eq!(check(number(near) - 65_536), Verdict::New);
    }
}

#[test]
fn counters_of_an_old_process_and_random_numbers_are_accepted() {
    let (validator, now) = (validator(), now());
    let sender = PeerId::random();
    let nanos = u64::try_from(START.as_nanos()).unwrap();
    let (rust, js) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    // Started a month ago, and started again.
    let started = nanos - 30 * 86_400_000_000_000;
    for number in [started + 1, started + 2, started + 500, nanos, nanos + 1] {
        assert_eq!(
            verdict(&validator, message(&rust, number), &sender, now),
            Verdict::New
        );
    }
    for number in [u64::MAX, 3, nanos + 7, nanos - 1, started, 9] {
        assert_eq!(
            verdict(&validator, message(&js, number), &sender, now),
            Verdict::New
        );
    }
}

/// An author whose clock is an hour behind: its neighbours accept its messages, and learn the
/// difference.
#[test]
fn a_message_from_its_author_is_never_too_old() {
    let (validator, key, now) = (validator(), Keypair::generate_ed25519(), now());
    let author = key.public().to_peer_id();
    let number = sequence_number(now.unix - SECOND * 3600, 0);
    let other = PeerId::random();
    let old = |number, sender| verdict(&validator, message(&key, number), sender, now);
    assert_eq!(old(number, &other), Verdict::Stale);
    assert_eq!(old(number, &author), Verdict::New);
    let next = sequence_number(now.unix - SECOND * 3599, number);
    assert_eq!(old(next, &other), Verdict::New);
    let stale = sequence_number(now.unix - SECOND * 7200, 0);
    assert_eq!(old(stale, &other), Verdict::Stale);
}

#[test]
fn memory_is_bounded() {
    let validator = validator();
    let now = now();
    for number in 0..10_000_u64 {
        let key = validator.key(&number.to_be_bytes());
        assert!(validator.remember(key, now.at));
        assert!(!validator.remember(key, now.at));
    }
    let known = validator.known();
    assert!(known.seen.young.len() + known.seen.old.len() <= 2_000);
    drop(known);
    for number in 9_000..10_000_u64 {
        assert!(validator.has_seen(validator.key(&number.to_be_bytes())));
    }
    let mut authors = Generations::new(MAX_AUTHORS);
    for number in 0..MAX_AUTHORS * 5 {
        assert_eq!(
            authors.get_or_insert(number, || number),
            Some(&mut number.clone())
        );
        assert!(authors.young.len() + authors.old.len() <= 2 * MAX_AUTHORS);
    }
}

#[test]
fn tables_are_made_for_frequent_authors_and_bounded() {
    let (validator, now) = (validator(), now());
    let sender = PeerId::random();
    for _ in 0..MAX_TABLES + 3 {
        let key = Keypair::generate_ed25519();
        for number in 0..u64::from(TABLE_AFTER) {
            verdict(&validator, message(&key, number), &sender, now);
        }
        let known = validator.known();
        let tables = known
            .authors
            .young
            .values()
            .filter(|a| a.verifier.is_some());
        assert_eq!(tables.count(), known.tables);
        assert!(known.tables <= MAX_TABLES);
    }
}

/// An author that is restarted as a node of this kind: its numbers become times. A node that is not
/// connected to it learns that from the second one, and accepts messages in another order.
#[test]
fn an_author_that_counted_and_now_sends_times_is_judged_by_times() {
    let (validator, key, now) = (validator(), Keypair::generate_ed25519(), now());
    let sender = PeerId::random();
    let check = |number| verdict(&validator, message(&key, number), &sender, now);
    let started = u64::try_from((START - SECOND * 3600).as_nanos()).unwrap();
    let counted = (1..10).map(|number| started + number);
    // One of these may carry the mark by accident.
    for number in counted.filter(|number| time_of(*number).is_none()) {
        assert_eq!(check(number), Verdict::New);
    }
    let time = |millis| sequence_number(START + Duration::from_millis(millis), 0);
    for millis in [100, 200, 190, 300, 290] {
        assert_eq!(check(time(millis)), Verdict::New, "{millis} ms");
    }
    let old = sequence_number(START - SECOND * 40, 0);
    assert_eq!(check(old), Verdict::Stale);
}

/// js-libp2p chooses numbers at random, of which one in seven looks like a time.
#[test]
fn a_number_that_looks_like_a_time_to_come_is_a_random_one() {
    let (validator, key, now) = (validator(), Keypair::generate_ed25519(), now());
    for number in [
        4_000_000_000_000_000_000,
        2_000_000_000_000_000_000,
        3_000_000_000_000_000_000,
        2_500_000_000_000_000_000,
    ] {
        let sender = PeerId::random();
        let verdict = verdict(&validator, message(&key, number), &sender, now);
        assert_eq!(verdict, Verdict::New, "{number}");
    }
}
