//! The peers that are kept over a restart.

use std::collections::BTreeSet;

use super::*;

fn entry(number: u32) -> CacheEntry {
    CacheEntry {
        peer: peer(number),
        addresses: vec![address(number)],
        age: Duration::from_secs(u64::from(number)),
    }
}

fn cached(driver: &Driver) -> BTreeSet<PeerId> {
    let cache = driver.machine.cache().into_iter();
    cache.map(|entry| entry.peer).collect()
}

/// Fails every dial of `effects`, and of what follows from that.
fn fail_all(driver: &mut Driver, mut effects: Vec<Effect>) {
    while let Some(effect) = effects.pop() {
        if let Effect::Dial {
            peer, addresses, ..
        } = effect
        {
            let tried = addresses.into_iter().map(Multiaddr::from).collect();
            effects.extend(driver.tell(Input::DialFailed { peer, tried }));
        }
    }
}

/// Fails every dial for a time. Returns the number of dials of peers that are no boot nodes.
fn wait_failing_all(driver: &mut Driver, seconds: u64) -> usize {
    let end = driver.now + Duration::from_secs(seconds);
    let mut dials = 0;
    while let Some(at) = driver.machine.next_timeout().filter(|at| *at <= end) {
        driver.now = at;
        let effects = driver.tell(Input::Timeout);
        let boots = [BOOT, SECOND_BOOT].map(peer);
        let all = dialled(&effects);
        dials += all.iter().filter(|peer| !boots.contains(peer)).count();
        fail_all(driver, effects);
    }
    driver.now = end;
    dials
}

#[test]
fn a_run_without_a_network_keeps_the_peers_of_the_cache() {
    let mut driver = Driver::new(config());
    let effects = driver.tell(Input::CacheLoaded((1000..1300).map(entry).collect()));
    fail_all(&mut driver, effects);
    assert!(wait_failing_all(&mut driver, 600) > 0);
    // An address that fails is dialled ever more rarely.
    let dials = wait_failing_all(&mut driver, 600);
    assert!((1..=300).contains(&dials), "{dials}");
    driver.tell(Input::Stop);
    assert_eq!(cached(&driver), (1000..1256).map(peer).collect());
    let entries = driver.machine.cache();
    assert!(entries.iter().all(|entry| entry.addresses.len() == 1));
    // Time without the network counts.
    let least = Duration::from_secs(1000 + 1200);
    assert!(entries.iter().all(|entry| entry.age >= least));
}

#[test]
fn a_peer_that_this_run_reached_stays_after_failed_dials() {
    let mut driver = Driver::new(config());
    driver.connect(9);
    driver.disconnect(9);
    for _ in 0..3 {
        driver.fail_dial(9);
    }
    assert_eq!(driver.machine.addresses(&peer(9)), []);
    assert_eq!(cached(&driver), [peer(9)].into());
    // It reports the address again.
    let effects = driver.tell(Input::Identified {
        peer: peer(9),
        addresses: vec![address(9)],
    });
    let added = Effect::AddRoutingAddress {
        peer: peer(9),
        address: dial_address(9),
    };
    assert_eq!(effects, [added]);
    assert_eq!(driver.machine.addresses(&peer(9)), [dial_address(9)]);
}

#[test]
fn cached_peers_expire_and_make_room_for_better_ones() {
    let mut driver = Driver::new(config());
    driver.tell(Input::CacheLoaded((1000..1256).map(entry).collect()));
    // One that came in is not better than one that an earlier run reached.
    driver.tell(Input::ConnectionOpened {
        peer: peer(7),
        path: Path::Direct,
        dialled: None,
        remote_ip: None,
        is_local: false,
    });
    driver.tell(Input::Identified {
        peer: peer(7),
        addresses: vec![address(7)],
    });
    assert_eq!(cached(&driver), (1000..1256).map(peer).collect());
    driver.connect(8);
    let rest = (1000..1255).map(peer);
    assert_eq!(cached(&driver), rest.chain([peer(8)]).collect());
    driver.wait_s(24 * 3600 - 999);
    assert_eq!(cached(&driver), [peer(7), peer(8)].into());
}

#[test]
fn reported_peers_evict_no_peer_that_was_reached() {
    let mut driver = Driver::new(config());
    driver.tell(Input::CacheLoaded((1000..1100).map(entry).collect()));
    driver.connect(9);
    driver.disconnect(9);
    for number in 10_000..15_000 {
        driver.tell(Input::Identified {
            peer: peer(number),
            addresses: vec![address(number)],
        });
    }
    assert_eq!(driver.machine.book.len(), 4096);
    let expected: BTreeSet<_> = (1000..1100).chain([9]).map(peer).collect();
    assert_eq!(cached(&driver), expected);
}
