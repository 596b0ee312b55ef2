use super::*;
use crate::behaviour::now;

#[test]
fn peers_that_are_kept_alive_have_a_rate_of_their_own() {
    let start = now();
    let mut punches = Punches::new(start);
    let mut admitted = |is_kept_alive, at| {
        let admits = |_: &u32| punches.admit(is_kept_alive, at).is_ok();
        (0..1_000_u32).filter(admits).count() as u32
    };
    assert_eq!(admitted(false, start), MAX_OTHERS);
    assert_eq!(admitted(true, start), MAX_KEPT_ALIVE);
    assert_eq!(admitted(false, start + WINDOW / 2), 0);
    assert_eq!(admitted(false, start + WINDOW), MAX_OTHERS);
}
