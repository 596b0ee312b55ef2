use super::*;

/// The relay client dials a relay for each reservation that is requested, so a request is a dial.
#[test]
fn a_boot_node_that_accepts_and_closes_is_dialled_at_the_pace_of_a_dead_one() {
    let mut driver = Driver::new(config());
    driver.connect(BOOT);
    driver.tell(Input::AddressCandidate(address(LOCAL)));
    let mut effects = driver.tell(Input::Probed {
        address: address(LOCAL),
        server: peer(BOOT),
        outcome: ProbeOutcome::NotReached,
    });
    let (mut dials, mut reports) = (0, 0);
    for _ in 0..600 {
        let mut pending = std::mem::take(&mut effects);
        pending.extend(driver.wait_s(1));
        while let Some(effect) = pending.pop() {
            let closes = match effect {
                Effect::Dial { peer: of, .. } => of == peer(SECOND_BOOT),
                Effect::Reserve {
                    relay, listener, ..
                } if relay == peer(SECOND_BOOT) => {
                    pending.extend(driver.tell(Input::RelayListenerClosed { listener }));
                    true
                }
                Effect::BootNodeUnreachable { peer: of, cause } => {
                    assert_eq!((of, cause), (peer(SECOND_BOOT), UnreachableCause::Closed));
                    reports += 1;
                    false
                }
                _ => false,
            };
            if closes {
                dials += 1;
                pending.extend(driver.connect(SECOND_BOOT));
                pending.extend(driver.disconnect(SECOND_BOOT));
            }
        }
    }
    // Redials every 11 to 19 s, and reservations with a back-off of a minute.
    assert!((30..=100).contains(&dials), "{dials} dials in ten minutes");
    assert!((1..=2).contains(&reports), "{reports} reports");
}
