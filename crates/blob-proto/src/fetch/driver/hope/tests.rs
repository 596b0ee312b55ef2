use super::*;

const FLOOR: u64 = 16 * 1024;

#[test]
fn content_at_the_minimum_rate_renews_it() {
    let mut hope = Hope::new(FLOOR);
    let mut now = Duration::ZERO;
    for _ in 0..600 {
        now += Duration::from_millis(250);
        hope.on_content(FLOOR / 4, now);
        assert_eq!(hope.age(now), Duration::ZERO);
    }
    // A chunk in one burst.
    now += Duration::from_secs(60);
    hope.on_content(1024 * 1024, now);
    assert_eq!(hope.age(now), Duration::ZERO);
}

#[test]
fn a_few_bytes_in_each_of_many_attempts_do_not_renew_it() {
    let mut hope = Hope::new(FLOOR);
    for second in 1..60 {
        let now = Duration::from_secs(second);
        hope.on_content(100, now);
        assert_eq!(hope.age(now), now);
    }
}
