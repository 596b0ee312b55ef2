use proptest::prelude::*;

use super::*;
use crate::behaviour::now;

fn admitted(punches: &mut Punches, peer: Punched, at: Instant) -> u32 {
    let admits = |_: &u32| punches.admit(peer, at).is_ok();
    (0..1_000_u32).filter(admits).count() as u32
}

fn behind_another_relay() -> Punched {
    Punched::Other(Some(PeerId::random()))
}

#[test]
fn peers_that_are_kept_alive_have_a_rate_of_their_own() {
    let start = now();
    let mut punches = Punches::new(start);
    let other = behind_another_relay();
    let mut admitted = |peer, at| admitted(&mut punches, peer, at);
    assert_eq!(admitted(other, start), MAX_PER_RELAY);
    assert_eq!(admitted(Punched::KeptAlive, start), MAX_KEPT_ALIVE);
    assert_eq!(admitted(other, start + WINDOW / 2), 0);
    assert_eq!(admitted(other, start + WINDOW), MAX_PER_RELAY);
}

#[test]
fn the_peers_behind_one_relay_leave_dials_to_those_behind_others() {
    let start = now();
    let mut punches = Punches::new(start);
    let one = behind_another_relay();
    assert_eq!(admitted(&mut punches, one, start), MAX_PER_RELAY);
    let reached = punches.admit(one, start);
    assert_eq!(reached, Err(Reached::Relay(MAX_PER_RELAY)));
    // Peers whose relay is not known share one count.
    let unknown = Punched::Other(None);
    assert_eq!(
        admitted(&mut punches, unknown, start),
        MAX_OTHERS - MAX_PER_RELAY
    );
    // The first dials for further relays are made, up to a limit.
    let another = behind_another_relay();
    assert_eq!(admitted(&mut punches, another, start), FIRST);
    assert_eq!(punches.admit(another, start), Err(Reached::All(MAX_OTHERS)));
    let further: u32 = (0..100)
        .map(|_| admitted(&mut punches, behind_another_relay(), start))
        .sum();
    assert_eq!(further, MAX_FIRST - FIRST);
    let most = MAX_OTHERS + MAX_FIRST;
    let reached = punches.admit(behind_another_relay(), start);
    assert_eq!(reached, Err(Reached::All(most)));
}

proptest! {
    #[test]
    fn the_table_is_bounded_and_no_relay_has_more_than_its_share(
        dials in prop::collection::vec((any::<u8>(), 0_u64..90), 0..2_000),
    ) {
        let start = now();
        let relays: Vec<_> = (0..=u8::MAX).map(|_| PeerId::random()).collect();
        let mut punches = Punches::new(start);
        let mut of_window = HashMap::<_, u32>::new();
        let mut since = 0;
        for (relay, at) in dials {
            // The clock may move backwards.
            let admitted = punches.admit(
                Punched::Other(Some(relays[usize::from(relay)])),
                start + Duration::from_secs(at),
            );
            if at >= since + WINDOW.as_secs() {
                since = at;
                of_window.clear();
            }
            *of_window.entry(relay).or_default() += u32::from(admitted.is_ok());
            prop_assert!(of_window[&relay] <= MAX_PER_RELAY);
            prop_assert!(of_window.values().sum::<u32>() <= MAX_OTHERS + MAX_FIRST);
            prop_assert!(punches.relays.len() <= (MAX_OTHERS + MAX_FIRST) as usize);
        }
    }
}
