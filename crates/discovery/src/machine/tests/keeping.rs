//! Keeping peers: redials, relays, reachability, paths, blocked peers.

use super::*;

fn seconds(wanted: &[(Duration, Effect)], of: PeerId) -> Vec<f64> {
    let times = wanted.iter().filter_map(|(at, effect)| match effect {
        Effect::Dial { peer, .. } if *peer == of => Some(at.as_secs_f64()),
        _ => None,
    });
    times.collect()
}

/// Runs for a time, failing every dial at once.
fn wait_failing(driver: &mut Driver, time: u64) -> Vec<(Duration, Effect)> {
    let end = driver.now + Duration::from_secs(time);
    let mut wanted = Vec::new();
    while let Some(at) = driver.machine.next_timeout().filter(|at| *at <= end) {
        driver.now = at;
        let mut effects = driver.tell(Input::Timeout);
        while !effects.is_empty() {
            let since = driver.now - driver.start;
            let mut next = Vec::new();
            for effect in &effects {
                if let Effect::Dial {
                    peer, addresses, ..
                } = effect
                {
                    let tried = addresses
                        .iter()
                        .map(|address| address.as_multiaddr().clone());
                    let (peer, tried) = (*peer, tried.collect());
                    next.extend(driver.tell(Input::DialFailed { peer, tried }));
                }
            }
            wanted.extend(effects.into_iter().map(|effect| (since, effect)));
            effects = next;
        }
    }
    driver.now = end;
    wanted
}

#[test]
fn boot_nodes_are_dialled_at_0_5_15_30_60_s_and_then_for_ever() {
    let mut driver = Driver::new(config());
    driver.fail_dial(BOOT);
    let wanted = wait_failing(&mut driver, 600);
    let times = [vec![0.0], seconds(&wanted, peer(BOOT))].concat();
    for (at, expected) in times.iter().zip([0.0, 5.0, 15.0, 30.0, 60.0]) {
        assert!((at - expected).abs() <= expected / 4.0, "{times:?}");
    }
    let waits = times.windows(2).skip(4).map(|pair| pair[1] - pair[0]);
    for wait in waits {
        assert!((11.0..19.0).contains(&wait), "{times:?}");
    }
    assert!(times.last().is_some_and(|last| *last > 580.0));
}

#[test]
fn a_lost_member_is_redialled_with_the_addresses_it_had() {
    let mut driver = Driver::registered(config());
    driver.follow(1);
    driver.tell(Input::MemberSeen {
        namespace: namespace(1),
        peer: peer(5),
    });
    driver.connect(5);
    let start = driver.now - driver.start;
    let mut wanted: Vec<_> = driver
        .disconnect(5)
        .into_iter()
        .map(|effect| (start, effect))
        .collect();
    let tried = vec![address(5)];
    driver.tell(Input::DialFailed {
        peer: peer(5),
        tried,
    });
    wanted.extend(wait_failing(&mut driver, 45));
    // The address rests after three failures, the redials go on.
    assert_eq!(driver.machine.addresses(&peer(5)), []);
    wanted.extend(wait_failing(&mut driver, 30));
    let times = seconds(&wanted, peer(5));
    assert!(times.len() >= 5, "{times:?}");
    let last = wanted.iter().rev().find_map(|(_, effect)| match effect {
        Effect::Dial {
            peer: p, addresses, ..
        } if *p == peer(5) => Some(addresses.clone()),
        _ => None,
    });
    assert_eq!(last, Some(vec![dial_address(5)]));
}

/// A node that was connected with the member 5, and has lost it and its boot nodes.
fn cut_off() -> Driver {
    let mut driver = Driver::registered(config());
    driver.follow(1);
    driver.tell(Input::MemberSeen {
        namespace: namespace(1),
        peer: peer(5),
    });
    driver.connect(5);
    driver.wait_s(31);
    for number in [BOOT, SECOND_BOOT, 5] {
        driver.disconnect(number);
        driver.fail_dial(number);
    }
    driver
}

/// Longest rest of an address that failed, in seconds, with the reserve of a tick and a dial.
const LONGEST_REST: u64 = 15 * 60 + 40;

#[test]
fn a_member_that_was_out_of_reach_for_long_is_dialled_at_intervals_that_double() {
    let mut driver = cut_off();
    wait_failing(&mut driver, 100);
    let wanted = wait_failing(&mut driver, 600);
    let times = seconds(&wanted, peer(5));
    assert!((2..=5).contains(&times.len()), "{times:?}");
    let grows = times.windows(3).all(|t| t[2] - t[1] > t[1] - t[0]);
    assert!(grows, "{times:?}");
    for _ in 0..10 {
        let wanted = wait_failing(&mut driver, LONGEST_REST);
        let times = seconds(&wanted, peer(5));
        assert!((1..=2).contains(&times.len()), "{times:?}");
    }
}

#[test]
fn a_member_that_was_out_of_reach_is_dialled_when_the_network_changes() {
    let mut driver = cut_off();
    wait_failing(&mut driver, 1200);
    assert_eq!(driver.machine.addresses(&peer(5)), []);
    driver.tell(Input::NetworkChanged);
    assert_eq!(driver.machine.addresses(&peer(5)), [dial_address(5)]);
    let wanted = wait_failing(&mut driver, 7);
    assert_eq!(seconds(&wanted, peer(5)).len(), 1, "{wanted:?}");
    // Its address is a route again once it works.
    let added = Effect::AddRoutingAddress {
        peer: peer(5),
        address: dial_address(5),
    };
    assert!(driver.connect(5).contains(&added));
}

#[test]
fn a_node_without_a_connection_dials_the_peers_of_its_last_run_again() {
    let mut driver = Driver::new(config());
    driver.tell(Input::CacheLoaded(vec![CacheEntry {
        peer: peer(5),
        addresses: vec![address(5)],
        age: Duration::ZERO,
    }]));
    driver.fail_dial(5);
    wait_failing(&mut driver, 600);
    let wanted = wait_failing(&mut driver, LONGEST_REST);
    assert!((1..=2).contains(&seconds(&wanted, peer(5)).len()));
    // A connected node has others that name peers.
    driver.connect(BOOT);
    let wanted = wait_failing(&mut driver, LONGEST_REST);
    assert_eq!(seconds(&wanted, peer(5)).len(), 0);
}

#[test]
fn closes_in_a_wave_are_all_redialled_within_the_bound_of_dials() {
    let mut driver = Driver::registered(DiscoveryConfig {
        members_target: 300,
        rendezvous: calimero_network_primitives::config::RendezvousTuning {
            max_members: 400,
            ..Default::default()
        },
        ..config()
    });
    driver.follow(1);
    for number in 10..210 {
        driver.tell(Input::MemberSeen {
            namespace: namespace(1),
            peer: peer(number),
        });
        driver.connect(number);
    }
    let mut seen = BTreeSet::new();
    let mut open = BTreeSet::new();
    let mut take = |driver: &mut Driver, effects: Vec<Effect>| {
        open.extend(dialled(&effects));
        assert!(open.len() <= 64);
        seen.extend(dialled(&effects));
        if let Some(peer) = open.pop_first() {
            let tried = vec![];
            return driver.tell(Input::DialFailed { peer, tried });
        }
        Vec::new()
    };
    for number in 10..210 {
        let mut effects = driver.disconnect(number);
        while !effects.is_empty() {
            effects = take(&mut driver, effects);
        }
    }
    for _ in 0..400 {
        let mut effects = driver.tell(Input::Timeout);
        driver.now += Duration::from_millis(20);
        for _ in 0..4 {
            effects = take(&mut driver, effects);
        }
    }
    assert_eq!(seen.iter().filter(|p| **p != peer(BOOT)).count(), 200);
}

#[test]
fn a_change_of_the_network_tries_whatever_waits_at_once() {
    let mut driver = Driver::new(config());
    driver.fail_dial(BOOT);
    driver.fail_dial(SECOND_BOOT);
    wait_failing(&mut driver, 300);
    let effects = driver.tell(Input::NetworkChanged);
    let both: BTreeSet<_> = dialled(&effects).into_iter().collect();
    assert_eq!(both, [peer(BOOT), peer(SECOND_BOOT)].into());
}

#[test]
fn a_dial_under_way_at_a_change_of_the_network_is_repeated_as_soon_as_it_fails() {
    let mut driver = Driver::registered(config());
    driver.follow(1);
    driver.tell(Input::MemberSeen {
        namespace: namespace(1),
        peer: peer(5),
    });
    driver.connect(5);
    driver.wait_s(31);
    driver.disconnect(5);
    driver.fail_dial(5);
    wait_failing(&mut driver, 45);
    // The last dial of a member, and a dial of a boot node.
    let last = driver.wait(Duration::from_secs(30));
    assert_eq!(seconds(&last, peer(5)).len(), 1, "{last:?}");
    driver.disconnect(BOOT);
    driver.tell(Input::NetworkChanged);
    for number in [5, BOOT] {
        driver.wait(Duration::from_millis(10));
        let effects = driver.fail_dial(number);
        assert!(dialled(&effects).contains(&peer(number)), "{effects:?}");
        // The next failure counts.
        let effects = driver.fail_dial(number);
        assert!(!dialled(&effects).contains(&peer(number)), "{effects:?}");
        let next = driver.wait(Duration::from_secs(7));
        assert_eq!(seconds(&next, peer(number)).len(), 1, "{next:?}");
    }
}

/// The connections are seconds old and end with the old address, which is not the peers' fault.
#[test]
fn connections_that_end_with_a_change_of_the_network_are_dialled_again_at_once() {
    let redialled_after = |changed: bool| {
        let mut driver = Driver::new(config());
        driver.fail_dial(BOOT);
        wait_failing(&mut driver, 20);
        driver.connect(BOOT);
        driver.wait_s(1);
        if changed {
            driver.tell(Input::NetworkChanged);
        }
        driver.wait_s(3);
        let lost_at = (driver.now - driver.start).as_secs_f64();
        let effects = driver.disconnect(BOOT);
        if dialled(&effects).contains(&peer(BOOT)) {
            return 0.0;
        }
        let wanted = driver.wait(Duration::from_secs(60));
        seconds(&wanted, peer(BOOT))[0] - lost_at
    };
    assert!(redialled_after(true) < 0.1);
    assert!(redialled_after(false) > 5.0);
}

#[test]
fn a_lost_member_behind_a_relay_is_dialled_when_the_relay_is_back() {
    let mut driver = Driver::registered(config());
    driver.follow(1);
    driver.tell(Input::MemberSeen {
        namespace: namespace(1),
        peer: peer(5),
    });
    let circuit = through(&address(BOOT), peer(BOOT));
    driver.connect(5);
    driver.tell(Input::Identified {
        peer: peer(5),
        addresses: vec![circuit.clone()],
    });
    driver.disconnect(BOOT);
    let effects = driver.disconnect(5);
    // Its dial is under way, for instance at an address of a router that drops packets.
    assert!(dialled(&effects).contains(&peer(5)), "{effects:?}");
    let effects = driver.connect(BOOT);
    let circuits = effects.iter().find_map(|effect| match effect {
        Effect::DialCircuits { peer: p, addresses } if *p == peer(5) => Some(addresses),
        _ => None,
    });
    let circuits: Vec<_> = circuits
        .unwrap()
        .iter()
        .map(|one| one.as_multiaddr())
        .collect();
    assert_eq!(circuits, [&circuit]);
    driver.disconnect(BOOT);
    driver.connect(5);
    let effects = driver.connect(BOOT);
    assert!(
        !effects
            .iter()
            .any(|effect| matches!(effect, Effect::DialCircuits { .. }))
    );
}

/// An unreachable machine, and the reservations that it requests.
fn unreachable(config: DiscoveryConfig) -> (Driver, Vec<(RelayListener, PeerId, Multiaddr)>) {
    let mut driver = Driver::new(config);
    driver.connect(BOOT);
    driver.connect(SECOND_BOOT);
    driver.follow(1);
    driver.tell(Input::AddressCandidate(address(LOCAL)));
    let effects = driver.tell(Input::Probed {
        address: address(LOCAL),
        server: peer(BOOT),
        outcome: ProbeOutcome::NotReached,
    });
    (driver, reservations(&effects))
}

fn close(driver: &mut Driver, listener: RelayListener) -> Vec<Effect> {
    driver.tell(Input::RelayListenerClosed { listener })
}

#[test]
fn slots_are_asked_for_with_complete_circuit_addresses_once_unreachable() {
    let (driver, asked) = unreachable(config());
    assert_eq!(asked.len(), 2);
    for (_, relay, circuit) in asked {
        let number = if relay == peer(BOOT) {
            BOOT
        } else {
            SECOND_BOOT
        };
        assert_eq!(circuit, through(&address(number), relay));
    }
    assert_eq!(
        driver.machine.status().reachability,
        Reachability::Unreachable
    );
}

#[test]
fn a_slot_gained_is_an_address_and_registered_and_a_slot_lost_is_withdrawn() {
    let (mut driver, asked) = unreachable(config());
    let (listener, _, circuit) = asked[0].clone();
    let effects = driver.tell(Input::ReservationAccepted {
        listener,
        limit: CircuitLimit::default(),
    });
    let address = circuit.clone();
    assert_eq!(effects[0], Effect::AddExternalAddress { address });
    assert_eq!(registers(&effects).len(), 2);
    // The second of two reservations is granted, then the listener of the first closes without a
    // change of addresses.
    driver.tell(Input::ReservationAccepted {
        listener: asked[1].0,
        limit: CircuitLimit::default(),
    });
    let effects = close(&mut driver, listener);
    let address = circuit;
    assert!(effects.contains(&Effect::RemoveExternalAddress { address }));
    let external = driver.machine.status().external_addresses;
    assert_eq!(external.len(), 1);
}

#[test]
fn registrations_are_taken_back_where_no_address_is_left() {
    let (mut driver, asked) = unreachable(config());
    let listener = asked[0].0;
    driver.tell(Input::ReservationAccepted {
        listener,
        limit: CircuitLimit::default(),
    });
    driver.accept_registration(BOOT, 1);
    driver.accept_registration(SECOND_BOOT, 1);
    assert_eq!(unregisters(&close(&mut driver, listener)).len(), 2);
    assert_eq!(driver.state(BOOT, 1), Some(Registration::Pending));
    let listener = asked[1].0;
    let effects = driver.tell(Input::ReservationAccepted {
        listener,
        limit: CircuitLimit::default(),
    });
    assert_eq!(registers(&effects).len(), 2);
}

#[test]
fn a_slot_lost_denied_expired_or_unanswered_is_asked_for_again() {
    // Denied.
    let (mut driver, asked) = unreachable(config());
    let (listener, relay, _) = asked[0].clone();
    assert_eq!(reservations(&close(&mut driver, listener)), []);
    let again = reservations(&driver.wait_s(3));
    assert!(again.iter().any(|(l, r, _)| *r == relay && *l != listener));
    // Events of the old listener mean nothing to the new one.
    assert_eq!(close(&mut driver, listener), []);

    // Unanswered, then lost after it was held.
    let (mut driver, asked) = unreachable(config());
    let (listener, relay, _) = asked[0].clone();
    driver.tell(Input::ReservationAccepted {
        listener: asked[1].0,
        limit: CircuitLimit::default(),
    });
    let effects = driver.wait_s(50);
    assert!(effects.contains(&Effect::StopListening { listener }));
    let again = reservations(&effects);
    let (listener, ..) = again.iter().find(|(_, r, _)| *r == relay).unwrap().clone();
    driver.tell(Input::ReservationAccepted {
        listener,
        limit: CircuitLimit::default(),
    });
    close(&mut driver, listener);
    let again = reservations(&driver.wait_s(3));
    assert_eq!(again.len(), 1);

    // Expired: never renewed.
    let listener = again[0].0;
    driver.tell(Input::ReservationAccepted {
        listener,
        limit: CircuitLimit::default(),
    });
    let effects = driver.wait_s(66 * 60);
    assert!(effects.contains(&Effect::StopListening { listener }));
    assert!(reservations(&effects).iter().any(|(_, r, _)| *r == relay));
}

#[test]
fn the_next_relay_is_asked_at_once_and_the_lost_one_backs_off() {
    let mut config = config();
    config.relays = 1;
    let (mut driver, asked) = unreachable(config);
    assert_eq!(asked.len(), 1);
    let next = reservations(&close(&mut driver, asked[0].0));
    assert_eq!(next.len(), 1);
    assert_ne!(next[0].1, asked[0].1);
    let mut requests = 0;
    for _ in 0..600 {
        for (listener, ..) in reservations(&driver.wait_s(1)) {
            requests += 1;
            close(&mut driver, listener);
        }
        for (listener, ..) in &next {
            close(&mut driver, *listener);
        }
    }
    // Doubling from 2 s to 60 s, two relays: some thirty in ten minutes, not six hundred.
    assert!((16..60).contains(&requests), "{requests}");
}

#[test]
fn a_relay_that_returns_is_asked_at_once() {
    let (mut driver, asked) = unreachable(config());
    let (listener, relay, _) = asked
        .iter()
        .find(|(_, r, _)| *r == peer(BOOT))
        .unwrap()
        .clone();
    driver.tell(Input::ReservationAccepted {
        listener,
        limit: CircuitLimit::default(),
    });
    close(&mut driver, listener);
    driver.disconnect(BOOT);
    let effects = driver.connect(BOOT);
    assert_eq!(reservations(&effects)[0].1, relay);
}

#[test]
fn a_relay_that_is_unblocked_is_asked_at_once() {
    let (mut driver, _) = unreachable(config());
    driver.tell(Input::Block(peer(BOOT)));
    let effects = driver.tell(Input::Unblock(peer(BOOT)));
    assert_eq!(reservations(&effects)[0].1, peer(BOOT));
}

#[test]
fn a_node_nobody_probes_takes_a_relay_after_a_while() {
    let mut driver = Driver::new(config());
    driver.connect(BOOT);
    assert_eq!(reservations(&driver.wait_s(1)), []);
    assert_eq!(reservations(&driver.wait_s(1)).len(), 2);
}

#[test]
fn a_configured_address_is_reachable_at_once_and_takes_no_relay() {
    let mut driver = Driver::registered(config());
    let why = ReachableBecause::Configured;
    let status = driver.machine.status();
    assert_eq!(status.reachability, Reachability::Reachable { why });
    driver.tell(Input::AddressCandidate(address(9)));
    let effects = driver.wait_s(3600);
    assert_eq!(reservations(&effects), []);
    assert!(!effects.iter().any(|e| matches!(e, Effect::Probe { .. })));
}

#[test]
fn who_listens_on_a_local_network_is_reached_there() {
    let listening = || Input::Listening {
        address: address(LOCAL),
        open_for: Duration::ZERO,
    };
    let told = Effect::AddExternalAddress {
        address: address(LOCAL),
    };
    let mut elsewhere = Driver::new(config());
    assert!(!elsewhere.tell(listening()).contains(&told));

    let mut driver = Driver::new(DiscoveryConfig {
        local_network: true,
        ..config()
    });
    let effects = driver.tell(listening());
    assert!(effects.contains(&told));
    assert!(effects.contains(&Effect::ServeProbes(true)));
    let why = ReachableBecause::LocalNetwork;
    let reachability = driver.machine.status().reachability;
    assert_eq!(reachability, Reachability::Reachable { why });
    let effects = driver.tell(Input::AddressGone(address(LOCAL)));
    assert!(effects.contains(&Effect::RemoveExternalAddress {
        address: address(LOCAL)
    }));
    let reachability = driver.machine.status().reachability;
    assert_eq!(reachability, Reachability::Unknown);
}

#[test]
fn slots_are_kept_until_a_stranger_has_come_in() {
    let (mut driver, asked) = unreachable(config());
    let (listener, _, circuit) = asked[0].clone();
    driver.tell(Input::ReservationAccepted {
        listener,
        limit: CircuitLimit::default(),
    });
    let effects = driver.tell(Input::Probed {
        address: address(LOCAL),
        server: peer(BOOT),
        outcome: ProbeOutcome::Reached,
    });
    assert!(effects.contains(&Effect::AddExternalAddress {
        address: address(LOCAL)
    }));
    assert!(effects.contains(&Effect::ServeProbes(true)));
    // A probe by a peer that received a request proves less than an unexpected connection: a NAT
    // that filters by address lets it in.
    let gives_up = Effect::StopListening { listener };
    assert!(!effects.contains(&gives_up));
    let inbound = |path, is_local| Input::ConnectionOpened {
        peer: PeerId::random(),
        path,
        dialled: None,
        remote_ip: None,
        is_local,
    };
    // Neither does a neighbour, or a browser behind a reverse proxy.
    for (path, is_local) in [(Path::Relayed, false), (Path::Direct, true)] {
        assert!(!driver.tell(inbound(path, is_local)).contains(&gives_up));
    }
    let effects = driver.tell(inbound(Path::Direct, false));
    assert!(effects.contains(&gives_up));
    assert!(effects.contains(&Effect::RemoveExternalAddress { address: circuit }));
}

/// Whether an inbound connection of `number` at `ip` ends the reservation of an unreachable node,
/// after `inputs`.
fn ends_reservation(inputs: Vec<Input>, minutes: u64, number: u32, ip: [u8; 4]) -> bool {
    let (mut driver, asked) = unreachable(config());
    let (listener, ..) = asked[0].clone();
    driver.tell(Input::ReservationAccepted {
        listener,
        limit: CircuitLimit::default(),
    });
    driver.tell(Input::Probed {
        address: address(LOCAL),
        server: peer(BOOT),
        outcome: ProbeOutcome::Reached,
    });
    for input in inputs {
        driver.tell(input);
    }
    driver.wait_s(minutes * 60);
    let effects = driver.tell(Input::ConnectionOpened {
        peer: peer(number),
        path: Path::Direct,
        dialled: None,
        remote_ip: Some(ip.into()),
        is_local: false,
    });
    effects.contains(&Effect::StopListening { listener })
}

#[test]
fn a_dialled_peer_that_connects_does_not_prove_reachability() {
    let here = [45, 0, 0, 9];
    let dialled = || Input::Dialled {
        peer: Some(peer(9)),
        addresses: vec!["/dns/example.org/tcp/2428".parse().unwrap(), address(9)],
    };
    let failed = || Input::DialFailed {
        peer: peer(9),
        tried: vec![address(9)],
    };
    let all = || vec![dialled(), failed(), failed(), failed()];
    assert!(ends_reservation(Vec::new(), 0, 9, here));
    assert!(!ends_reservation(all(), 0, 9, here));
    assert!(!ends_reservation(all(), 4, 9, here));
    // A NAT knows no peers: another one at that address, or the same one at another address.
    assert!(!ends_reservation(all(), 0, 10, here));
    assert!(!ends_reservation(all(), 0, 9, [45, 0, 0, 10]));
    assert!(ends_reservation(all(), 0, 10, [45, 0, 0, 10]));
    assert!(ends_reservation(all(), 6, 9, here));
}

#[test]
fn a_peer_at_the_address_of_a_connected_one_does_not_prove_reachability() {
    let here = [45, 0, 0, 9];
    let opened = || Input::ConnectionOpened {
        peer: peer(9),
        path: Path::Direct,
        dialled: Some(address(9)),
        remote_ip: Some(here.into()),
        is_local: false,
    };
    let closed = || Input::ConnectionClosed {
        peer: peer(9),
        path: Path::Direct,
    };
    assert!(!ends_reservation(vec![opened()], 60, 10, here));
    assert!(!ends_reservation(vec![opened(), closed()], 4, 10, here));
    assert!(ends_reservation(vec![opened(), closed()], 6, 10, here));
}

#[test]
fn addresses_are_retested_with_backoff_and_lost_after_two_failures() {
    let mut driver = Driver::new(config());
    driver.tell(Input::AddressCandidate(address(LOCAL)));
    let probe = |driver: &mut Driver, outcome| {
        driver.tell(Input::Probed {
            address: address(LOCAL),
            server: peer(BOOT),
            outcome,
        })
    };
    let mut waits = Vec::new();
    for _ in 0..8 {
        probe(&mut driver, ProbeOutcome::NotReached);
        let asked = driver.now;
        loop {
            let effects = driver.wait_s(1);
            if effects.iter().any(|e| matches!(e, Effect::Probe { .. })) {
                break;
            }
        }
        waits.push((driver.now - asked).as_secs());
    }
    assert!((22..=39).contains(&waits[0]), "{waits:?}");
    assert!((45..=76).contains(&waits[1]), "{waits:?}");
    assert!((674..=1126).contains(&waits[7]), "{waits:?}");

    probe(&mut driver, ProbeOutcome::Reached);
    probe(&mut driver, ProbeOutcome::NotReached);
    let why = driver.machine.status().reachability;
    assert!(matches!(why, Reachability::Reachable { .. }));
    let effects = probe(&mut driver, ProbeOutcome::NotReached);
    assert!(effects.contains(&Effect::RemoveExternalAddress {
        address: address(LOCAL)
    }));
    assert_eq!(
        driver.machine.status().reachability,
        Reachability::Unreachable
    );
}

#[test]
fn a_relayed_connection_is_closed_once_a_direct_one_is_up() {
    let mut driver = Driver::new(config());
    let open = |path| Input::ConnectionOpened {
        peer: peer(5),
        path,
        dialled: None,
        remote_ip: None,
        is_local: false,
    };
    driver.tell(open(Path::Relayed));
    assert_eq!(driver.machine.path(&peer(5)), Some(Path::Relayed));
    driver.tell(open(Path::Direct));
    assert_eq!(driver.machine.path(&peer(5)), Some(Path::Direct));
    let effects = driver.wait_s(11);
    assert!(effects.contains(&Effect::CloseRelayed { peer: peer(5) }));
}

#[test]
fn a_blocked_peer_is_disconnected_and_left_alone() {
    let mut driver = Driver::registered(config());
    driver.follow(1);
    driver.tell(Input::MemberSeen {
        namespace: namespace(1),
        peer: peer(5),
    });
    driver.connect(5);
    let effects = driver.tell(Input::Block(peer(5)));
    assert!(effects.contains(&Effect::Disconnect { peer: peer(5) }));
    driver.disconnect(5);
    driver.tell(Input::Block(peer(BOOT)));
    driver.answer(SECOND_BOOT, 1, &[5], 1);
    for effect in driver.wait_s(600) {
        let of = effect.peer();
        assert!(of != Some(peer(5)) && of != Some(peer(BOOT)), "{effect:?}");
    }
    let effects = driver.tell(Input::Unblock(peer(BOOT)));
    let effects = [effects, driver.wait_s(1)].concat();
    assert!(dialled(&effects).contains(&peer(BOOT)));
}

#[test]
fn connections_of_a_blocked_peer_that_close_after_it_is_unblocked_are_counted_off() {
    let mut driver = Driver::registered(config());
    driver.tell(Input::Block(peer(BOOT)));
    // One that was established at the same time.
    driver.connect(BOOT);
    driver.tell(Input::Unblock(peer(BOOT)));
    driver.connect(BOOT);
    assert_eq!(driver.machine.path(&peer(BOOT)), Some(Path::Direct));
    driver.disconnect(BOOT);
    driver.disconnect(BOOT);
    assert_eq!(driver.machine.path(&peer(BOOT)), Some(Path::Direct));
    driver.wait_s(31);
    let effects = driver.disconnect(BOOT);
    assert_eq!(driver.machine.path(&peer(BOOT)), None);
    assert_eq!(dialled(&effects), [peer(BOOT)]);
}

#[test]
fn a_boot_node_that_was_blocked_while_connected_is_reported_as_unreachable() {
    let mut driver = Driver::new(config());
    driver.connect(BOOT);
    driver.tell(Input::Block(peer(BOOT)));
    driver.disconnect(BOOT);
    let state = |driver: &Driver| {
        let status = driver.machine.status();
        let mut all = status.boot_nodes.into_iter();
        all.find(|one| one.peer == peer(BOOT)).unwrap().state
    };
    assert_eq!(state(&driver), BootNode::Connecting);
    driver.tell(Input::Unblock(peer(BOOT)));
    let cause = UnreachableCause::Refused;
    let peer = peer(BOOT);
    let effects = driver.tell(Input::Unreachable { peer, cause });
    assert!(effects.contains(&Effect::BootNodeUnreachable { peer, cause }));
    assert!(matches!(state(&driver), BootNode::Unreachable { .. }));
}

#[test]
fn a_lost_peer_driven_out_of_the_queue_has_another_turn() {
    let mut config = config();
    config.dials.max_in_flight = 1;
    config.dials.max_queued = 1;
    let mut driver = Driver::registered(config);
    driver.follow(1);
    for number in 10..15 {
        driver.tell(Input::MemberSeen {
            namespace: namespace(1),
            peer: peer(number),
        });
        driver.connect(number);
    }
    for number in 10..15 {
        driver.disconnect(number);
    }
    // More urgent than the member that waits, it takes its place.
    driver.disconnect(BOOT);
    driver.wait_s(1);
    assert_eq!(driver.machine.redials.len(), 6);
    for lost in driver.machine.redials.peers() {
        let pending = driver.machine.dials.is_pending(lost);
        assert!(pending || driver.machine.redials.is_waiting(lost));
    }
}

#[test]
fn a_boot_node_that_is_unblocked_takes_the_place_of_another_peer() {
    let mut config = config();
    config.max_peers = 4;
    let mut driver = Driver::new(config);
    driver.tell(Input::Block(peer(BOOT)));
    for number in 10..14 {
        let addresses = vec![address(number)];
        let peer = peer(number);
        driver.tell(Input::Identified { peer, addresses });
    }
    assert_eq!(driver.machine.book.len(), 4);
    driver.tell(Input::Unblock(peer(BOOT)));
    assert_eq!(driver.machine.book.len(), 4);
    assert_eq!(driver.machine.addresses(&peer(BOOT)), [dial_address(BOOT)]);
}

#[test]
fn a_peer_that_takes_connections_and_drops_them_is_not_dialled_in_a_storm() {
    let mut driver = Driver::registered(config());
    driver.follow(1);
    driver.answer(BOOT, 1, &[5], 1);
    driver.disconnect(SECOND_BOOT);
    let mut dials = BTreeMap::new();
    for _ in 0..600 {
        let effects = driver.wait_s(1);
        for number in [5, SECOND_BOOT] {
            if dialled(&effects).contains(&peer(number)) {
                *dials.entry(number).or_insert(0) += 1;
                driver.connect(number);
                driver.disconnect(number);
            }
        }
    }
    // A member: the redials, then one after each rest. A boot node: one in 11 to 19 s.
    assert!((10..=25).contains(&dials[&5]), "{dials:?}");
    assert!((30..=60).contains(&dials[&SECOND_BOOT]), "{dials:?}");
}
