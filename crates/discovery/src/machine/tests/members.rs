//! Members that cannot be dialled.

use std::collections::BTreeSet;

use super::*;

/// A machine with one boot node, the connected member 100, and 127 members that lost their
/// addresses.
fn with_addressless_members() -> Driver {
    let mut driver = Driver::registered(config());
    driver.disconnect(SECOND_BOOT);
    driver.tell(Input::Block(peer(SECOND_BOOT)));
    driver.follow(1);
    for number in 100..228 {
        driver.tell(Input::Identified {
            peer: peer(number),
            addresses: vec![address(number)],
        });
        driver.tell(Input::MemberSeen {
            namespace: namespace(1),
            peer: peer(number),
        });
    }
    driver.connect(100);
    for number in 101..228 {
        for _ in 0..3 {
            driver.fail_dial(number);
        }
        assert_eq!(driver.machine.addresses(&peer(number)), []);
    }
    driver
}

/// The next request for members within `seconds`: its limit and the time until it is made.
fn next_request(driver: &mut Driver, seconds: u64) -> Option<(u32, Duration)> {
    let start = driver.now - driver.start;
    let effects = driver.wait(Duration::from_secs(seconds));
    effects.into_iter().find_map(|(at, effect)| match effect {
        Effect::Discover { limit, .. } => Some((limit, at - start)),
        _ => None,
    })
}

#[test]
fn members_without_addresses_are_not_counted() {
    let mut driver = with_addressless_members();
    // Four for each of the eleven that are lacking.
    let sought = 44;
    driver.answer(BOOT, 1, &[], 1);
    let (limit, _) = next_request(&mut driver, 7).unwrap();
    assert_eq!(limit, sought);
    // A page of invented members leaves the need as it is.
    for page in 1..4 {
        let first = page * 1000;
        let invented = (first..first + sought).map(|number| (peer(number), Vec::new()));
        driver.tell(Input::Discovered {
            server: peer(BOOT),
            namespace: namespace(1),
            members: invented.collect(),
            cookie: Some(cookie(2)),
        });
        let (limit, after) = next_request(&mut driver, 60).unwrap();
        assert_eq!(limit, sought);
        assert!(after < Duration::from_secs(7), "{after:?}");
    }
}

#[test]
fn members_without_addresses_are_not_dialled() {
    let mut driver = with_addressless_members();
    let members: Vec<u32> = (1000..1012).collect();
    driver.answer(BOOT, 1, &members, 1);
    // Two in each of at least three ticks.
    let dials: BTreeSet<_> = dialled(&driver.wait_s(20)).into_iter().collect();
    assert!(dials.len() >= 5, "{dials:?}");
    let members: BTreeSet<_> = members.into_iter().map(peer).collect();
    assert!(dials.is_subset(&members), "{dials:?}");
}

/// Connects members of the first overlay that dial this node from `ip`.
fn come_in(driver: &mut Driver, numbers: std::ops::Range<u32>, ip: impl Fn(u32) -> [u8; 4]) {
    for number in numbers {
        driver.tell(Input::ConnectionOpened {
            peer: peer(number),
            path: Path::Direct,
            dialled: None,
            remote_ip: Some(ip(number).into()),
            is_local: false,
        });
        driver.tell(Input::MemberSeen {
            namespace: namespace(1),
            peer: peer(number),
        });
    }
}

/// A node that dialled the member 100, and that many others dial.
fn dialled_by_many(ip: impl Fn(u32) -> [u8; 4]) -> Driver {
    let mut driver = Driver::registered(config());
    driver.follow(1);
    driver.tell(Input::MemberSeen {
        namespace: namespace(1),
        peer: peer(100),
    });
    driver.connect(100);
    driver.wait_s(31);
    come_in(&mut driver, 200..300, ip);
    driver
}

fn kept(driver: &Driver, numbers: std::ops::Range<u32>) -> usize {
    let kept: BTreeSet<_> = driver.machine.kept().collect();
    numbers
        .filter(|number| kept.contains(&peer(*number)))
        .count()
}

#[test]
fn many_identities_of_one_host_count_as_one_member() {
    let mut driver = dialled_by_many(|_| [203, 0, 113, 7]);
    assert_eq!(driver.machine.overlays.deficit(&namespace(1)), 10);
    assert_eq!(kept(&driver, 200..300), 1);
    assert_eq!(kept(&driver, 100..101), 1);
    assert!(dialled(&driver.disconnect(100)).contains(&peer(100)));
    let found: Vec<u32> = (1000..1012).collect();
    driver.answer(BOOT, 1, &found, 1);
    let dials = dialled(&driver.wait_s(30));
    assert!(dials.len() > 5, "{dials:?}");
}

#[test]
fn members_that_dialled_this_node_leave_places_for_those_that_it_chooses() {
    let ip = |number| [203, 0, 113, u8::try_from(number - 200).unwrap()];
    let mut driver = dialled_by_many(ip);
    assert_eq!(driver.machine.overlays.deficit(&namespace(1)), 3);
    assert_eq!(kept(&driver, 200..300), 24);
    for number in 101..104 {
        driver.connect(number);
        driver.tell(Input::MemberSeen {
            namespace: namespace(1),
            peer: peer(number),
        });
    }
    assert_eq!(driver.machine.overlays.deficit(&namespace(1)), 0);
    assert_eq!(kept(&driver, 100..104), 4);
}

#[test]
fn members_of_one_local_network_count_each() {
    let driver = dialled_by_many(|_| [192, 168, 1, 7]);
    assert_eq!(driver.machine.overlays.deficit(&namespace(1)), 3);
    assert_eq!(kept(&driver, 200..300), 24);
}
