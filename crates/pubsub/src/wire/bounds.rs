//! Numbers at their limits.

use super::*;

#[test]
fn numbers_of_the_years_2017_to_2103_are_plausible() {
    for (number, expected) in [
        (1_499_999_999_999_999_999, false),
        (1_500_000_000_000_000_000, true),
        (4_199_999_999_999_999_999, true),
        (4_200_000_000_000_000_000, false),
    ] {
        assert_eq!(is_plausible(number), expected, "{number}");
    }
}

#[test]
fn a_number_is_a_time_by_its_mark_and_its_year() {
    let marked = |unix| sequence_number(Duration::from_secs(unix), 0);
    for (unix, expected) in [(1_400_000_000, false), (1_800_000_000, true)] {
        let number = marked(unix);
        assert_eq!(time_of(number).is_some(), expected, "{unix}");
        assert_eq!(time_of(number ^ 1), None);
    }
}

/// The steps are those of 2^16 ns.
#[test]
fn a_number_is_above_the_last_one_by_one_step_at_least() {
    let unix = Duration::from_secs(1_800_000_000);
    let first = sequence_number(unix, 0);
    assert_eq!(first >> MARK_BITS, 1_800_000_000_000_000_000 >> MARK_BITS);
    let second = sequence_number(unix, first);
    assert_eq!(second >> MARK_BITS, (first >> MARK_BITS) + 1);
    let later = sequence_number(unix + Duration::from_secs(1), second);
    assert!(later - first > 999_900_000 && later - first < 1_000_100_000);
}

#[test]
fn an_id_is_the_author_and_the_number() {
    let author = PeerId::random();
    let id = MessageId::new(&author, 7);
    assert_eq!(id.to_string(), format!("{author}7"));
    assert_eq!(id.as_bytes(), id.to_bytes());
    assert_eq!(id, MessageId::with_text(&author.to_base58(), 7));
}
