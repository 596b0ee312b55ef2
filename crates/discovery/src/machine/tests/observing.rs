//! Addresses of this node that peers observe.

use std::collections::BTreeSet;

use super::*;

/// Peer `observer` observes this node at the address with `number`.
fn observe(driver: &mut Driver, observer: u32, number: u32) -> Vec<Effect> {
    driver.tell(Input::AddressObserved {
        observer: peer(observer),
        address: address(number),
    })
}

/// Lets the probe of an address fail.
fn fail_probe(driver: &mut Driver, number: u32) {
    driver.tell(Input::Probed {
        address: address(number),
        server: peer(BOOT),
        outcome: ProbeOutcome::NotReached,
    });
}

fn offered(effects: &[Effect]) -> Vec<Multiaddr> {
    let offered = effects.iter().filter_map(|effect| match effect {
        Effect::OfferCandidate { address } => Some(address.clone()),
        _ => None,
    });
    offered.collect()
}

/// The addresses that are probed after a change of the network: all candidates.
fn candidates(driver: &mut Driver) -> BTreeSet<Multiaddr> {
    driver.wait_s(61);
    let effects = driver.tell(Input::NetworkChanged);
    let probed = effects.into_iter().filter_map(|effect| match effect {
        Effect::Probe { address } => Some(address),
        _ => None,
    });
    probed.collect()
}

#[test]
fn an_observer_replaces_its_own_address_and_no_other() {
    let mut driver = Driver::new(config());
    assert_eq!(offered(&observe(&mut driver, 5, 100)), [address(100)]);
    driver.tell(Input::AddressCandidate(address(LOCAL)));
    for number in 200..230 {
        observe(&mut driver, 6, number);
    }
    let expected = [address(100), address(LOCAL), address(229)];
    assert_eq!(candidates(&mut driver), expected.into());
}

#[test]
fn an_address_stays_while_another_peer_observes_it_or_a_probe_reached_it() {
    let mut driver = Driver::new(config());
    for observer in [5, 6] {
        observe(&mut driver, observer, 100);
    }
    observe(&mut driver, 7, 101);
    driver.tell(Input::Probed {
        address: address(101),
        server: peer(BOOT),
        outcome: ProbeOutcome::Reached,
    });
    for observer in [5, 7] {
        observe(&mut driver, observer, 200 + observer);
    }
    let expected = [100, 101, 205, 207].map(address);
    assert_eq!(candidates(&mut driver), expected.into());
}

#[test]
fn an_untested_address_of_another_observer_is_not_replaced() {
    let mut driver = Driver::new(config());
    let limit = driver.machine.config.reachability.max_candidates;
    for number in 0..limit {
        observe(&mut driver, 10 + number, 100 + number);
    }
    assert_eq!(offered(&observe(&mut driver, 50, 200)), []);
    // One that a probe did not reach makes room.
    fail_probe(&mut driver, 101);
    assert_eq!(offered(&observe(&mut driver, 50, 200)), [address(200)]);
    let others = (0..limit).map(|number| address(100 + number));
    let others = others.filter(|other| *other != address(101));
    assert_eq!(
        candidates(&mut driver),
        others.chain([address(200)]).collect()
    );
}
