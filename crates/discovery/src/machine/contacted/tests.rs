use super::*;

fn address(number: u32) -> Multiaddr {
    let [_, a, b, c] = number.to_be_bytes();
    format!("/ip4/45.{a}.{b}.{c}/tcp/2428").parse().unwrap()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test has to start somewhere")]
fn above_the_limit_every_peer_counts_as_contacted_for_a_while() {
    let start = Instant::now();
    let mut contacted = Contacted::default();
    let (known, other) = (PeerId::random(), PeerId::random());
    contacted.dialled(Some(known), &[], start);
    assert!(contacted.contains(&known, None, start));
    assert!(!contacted.contains(&other, None, start));
    let later = start + OPEN_FOR / 2;
    for number in 0..2 * u32::try_from(MAX_CONTACTS).unwrap() {
        contacted.dialled(None, &[address(number)], later);
    }
    assert!(contacted.until.len() <= MAX_CONTACTS);
    assert!(contacted.contains(&other, None, later));
    let end = later + OPEN_FOR;
    assert!(!contacted.contains(&other, None, end));
    assert!(!contacted.contains(&known, None, end));
}
