//! Addresses of this host that appear and disappear.

use super::*;

fn at(ip: &str) -> Multiaddr {
    let version = if ip.contains(':') { "ip6" } else { "ip4" };
    format!("/{version}/{ip}/tcp/2428").parse().unwrap()
}

fn listen(driver: &mut Driver, ip: &str) -> Vec<Effect> {
    driver.tell(Input::Listening {
        address: at(ip),
        open_for: Duration::ZERO,
    })
}

fn lose(driver: &mut Driver, ip: &str) -> Vec<Effect> {
    driver.tell(Input::AddressGone(at(ip)))
}

/// A machine at 192.168.1.2, connected with one boot node, that waits for its next dial of the
/// other one.
fn settled() -> Driver {
    let mut driver = Driver::new(config());
    driver.connect(BOOT);
    listen(&mut driver, "127.0.0.1");
    listen(&mut driver, "192.168.1.2");
    driver.fail_dial(SECOND_BOOT);
    // The changes at the start are over, and no dial is under way.
    while driver.now - driver.start < Duration::from_secs(90) {
        let effects = driver.wait_s(1);
        if dialled(&effects).contains(&peer(SECOND_BOOT)) {
            driver.fail_dial(SECOND_BOOT);
        }
    }
    driver
}

fn redials(effects: &[Effect]) -> bool {
    dialled(effects).contains(&peer(SECOND_BOOT))
}

#[test]
fn loopback_and_link_local_addresses_are_no_change() {
    for mut driver in [settled(), Driver::new(config())] {
        driver.fail_dial(SECOND_BOOT);
        for ip in ["fe80::1", "169.254.7.7", "127.0.0.2", "::1"] {
            assert_eq!(listen(&mut driver, ip), []);
            assert_eq!(lose(&mut driver, ip), []);
        }
    }
}

#[test]
fn the_interface_of_a_container_is_no_change() {
    let mut driver = settled();
    assert!(!redials(&listen(&mut driver, "172.17.0.1")));
    // The connections that use it are probed, if there are any.
    let probe = Effect::ProbeConnections {
        local: at("172.17.0.1"),
    };
    assert_eq!(lose(&mut driver, "172.17.0.1"), [probe]);
}

#[test]
fn interfaces_that_come_often_do_not_prolong_a_change() {
    let mut driver = settled();
    driver.tell(Input::NetworkChanged);
    let mut changes = 0;
    for number in 1..20 {
        driver.fail_dial(SECOND_BOOT);
        driver.wait_s(1);
        driver.fail_dial(SECOND_BOOT);
        let came = listen(&mut driver, &format!("172.17.{number}.1"));
        changes += usize::from(redials(&came));
        driver.wait_s(20);
    }
    assert!((1..4).contains(&changes), "{changes} changes");
}

#[test]
fn an_address_that_reaches_farther_is_a_change() {
    let mut driver = settled();
    assert!(redials(&listen(&mut driver, "8.8.8.8")));
    let mut driver = settled();
    assert!(redials(&listen(&mut driver, "fd00::1")));
}

#[test]
fn a_new_address_is_a_change_after_another_was_lost_or_without_a_boot_node() {
    let mut driver = settled();
    driver.tell(Input::NetworkChanged);
    driver.fail_dial(SECOND_BOOT);
    driver.fail_dial(SECOND_BOOT);
    assert!(redials(&listen(&mut driver, "192.168.7.3")));

    let mut driver = settled();
    driver.connect(5);
    driver.disconnect(BOOT);
    assert!(redials(&listen(&mut driver, "192.168.7.3")));
}
