//! The times of the last changes in the status.

use super::*;

impl Driver {
    fn reservation_changed(&self, relay: PeerId) -> Duration {
        let status = self.machine.status();
        let mut all = status.reservations.iter();
        all.find(|one| one.relay == relay).unwrap().changed_at - self.start
    }

    fn registration_changed(&self, server: u32) -> Duration {
        let status = self.machine.status();
        let mut all = status.registrations.iter();
        all.find(|one| one.server == peer(server))
            .unwrap()
            .changed_at
            - self.start
    }

    fn boot_node_changed(&self, number: u32) -> Duration {
        let status = self.machine.status();
        let mut all = status.boot_nodes.iter();
        all.find(|one| one.peer == peer(number)).unwrap().changed_at - self.start
    }

    fn passed(&self) -> Duration {
        self.now - self.start
    }
}

#[test]
fn a_reservation_changes_with_its_state_and_not_by_a_renewal() {
    let mut driver = Driver::new(config());
    driver.connect(BOOT);
    let asked = reservations(&driver.wait_s(5));
    let (listener, relay, _) = asked[0].clone();
    assert!(driver.reservation_changed(relay) < driver.passed());
    driver.tell(Input::ReservationAccepted {
        listener,
        limit: CircuitLimit::default(),
    });
    let held = driver.passed();
    assert_eq!(driver.reservation_changed(relay), held);
    driver.wait_s(600);
    driver.tell(Input::ReservationAccepted {
        listener,
        limit: CircuitLimit::default(),
    });
    assert_eq!(driver.reservation_changed(relay), held);
    driver.tell(Input::RelayListenerClosed { listener });
    assert_eq!(driver.reservation_changed(relay), driver.passed());
}

#[test]
fn a_registration_changes_when_it_is_requested_granted_and_lost() {
    let mut driver = Driver::registered(config());
    driver.wait_s(1);
    driver.follow(1);
    let requested = driver.passed();
    assert_eq!(driver.registration_changed(BOOT), requested);
    driver.wait_s(1);
    assert_eq!(driver.registration_changed(BOOT), requested);
    driver.accept_registration(BOOT, 1);
    assert_eq!(driver.registration_changed(BOOT), driver.passed());
    assert_eq!(driver.registration_changed(SECOND_BOOT), requested);
    driver.wait_s(1);
    driver.refuse_registration(SECOND_BOOT, 1);
    assert_eq!(driver.registration_changed(SECOND_BOOT), driver.passed());
}

#[test]
fn a_boot_node_changes_when_it_is_connected_and_lost() {
    let mut driver = Driver::new(config());
    assert_eq!(driver.boot_node_changed(BOOT), Duration::ZERO);
    driver.wait_s(3);
    driver.connect(BOOT);
    let connected = driver.passed();
    assert_eq!(driver.boot_node_changed(BOOT), connected);
    driver.wait_s(600);
    assert_eq!(driver.boot_node_changed(BOOT), connected);
    driver.disconnect(BOOT);
    assert_eq!(driver.boot_node_changed(BOOT), driver.passed());
}

#[test]
fn the_reachability_changes_with_the_result_of_a_probe() {
    let mut driver = Driver::new(config());
    driver.tell(Input::AddressCandidate(address(LOCAL)));
    driver.wait_s(7);
    driver.tell(Input::Probed {
        address: address(LOCAL),
        server: peer(BOOT),
        outcome: ProbeOutcome::Reached,
    });
    let status = driver.machine.status();
    assert!(matches!(
        status.reachability,
        Reachability::Reachable { .. }
    ));
    assert_eq!(
        status.reachability_changed_at - driver.start,
        driver.passed()
    );
}
