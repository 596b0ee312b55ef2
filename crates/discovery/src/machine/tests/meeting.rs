//! Finding peers: addresses, the cache, registrations, discoveries, dials.

use super::*;

fn identified(number: u32, addresses: Vec<Multiaddr>) -> Input {
    Input::Identified {
        peer: peer(number),
        addresses,
    }
}

#[test]
fn filtered_addresses_of_identify_and_mdns_go_to_kademlia() {
    let mut driver = Driver::new(config());
    let loopback: Multiaddr = "/ip4/127.0.0.1/tcp/2428".parse().unwrap();
    let told = [loopback, address(9)].to_vec();
    let learnt = Effect::AddRoutingAddress {
        peer: peer(9),
        address: dial_address(9),
    };
    assert_eq!(
        driver.tell(identified(9, told.clone())),
        std::slice::from_ref(&learnt)
    );

    let met = driver.tell(Input::LocalPeer {
        peer: peer(10),
        addresses: vec![address(10)],
    });
    let learnt = Effect::AddRoutingAddress {
        peer: peer(10),
        address: dial_address(10),
    };
    assert!(met.contains(&learnt), "{met:?}");
    assert_eq!(driver.tell(identified(9, told)), []);
}

#[test]
fn own_peer_id_is_never_learnt_or_dialled() {
    let mut driver = Driver::registered(config());
    driver.follow(1);
    let local = peer(LOCAL);
    let addresses = vec![address(77)];
    for input in [
        identified(LOCAL, addresses.clone()),
        Input::LocalPeer {
            peer: local,
            addresses,
        },
        Input::MemberSeen {
            namespace: namespace(1),
            peer: local,
        },
    ] {
        assert_eq!(driver.tell(input), []);
    }
    let effects = driver.answer(BOOT, 1, &[LOCAL, 5], 1);
    assert_eq!(dialled(&effects), [peer(5)]);
    let later = driver.wait_s(120);
    assert!(!dialled(&later).contains(&local));
}

#[test]
fn the_book_keeps_four_addresses_a_peer_and_three_failures_evict() {
    let mut driver = Driver::new(config());
    let addresses: Vec<_> = (100..1100).map(address).collect();
    let effects = driver.tell(identified(9, addresses));
    assert_eq!(effects.len(), 4);
    assert_eq!(driver.machine.book.longest(), 4);

    driver.connect(9);
    assert_eq!(driver.machine.addresses(&peer(9)).len(), 4);
    assert_eq!(driver.machine.addresses(&peer(9))[0], dial_address(9));
    driver.disconnect(9);
    assert_eq!(driver.fail_dial(9), []);
    assert_eq!(driver.fail_dial(9), []);
    let gone = Effect::RemoveRoutingAddress {
        peer: peer(9),
        address: address(9),
    };
    assert_eq!(driver.fail_dial(9), [gone]);
    assert!(
        !driver
            .machine
            .addresses(&peer(9))
            .contains(&dial_address(9))
    );
}

#[test]
fn a_sybil_stream_evicts_neither_boot_nodes_nor_connected_peers() {
    let mut driver = Driver::new(config());
    driver.connect(3);
    for number in 10..20_000 {
        driver.tell(identified(number, vec![address(number)]));
    }
    assert_eq!(driver.machine.book.len(), 4096);
    for kept in [BOOT, SECOND_BOOT, 3, 19_999] {
        assert_eq!(driver.machine.addresses(&peer(kept)), [dial_address(kept)]);
    }
    assert_eq!(driver.machine.addresses(&peer(10)), []);
}

#[test]
fn a_peer_unheard_of_for_a_day_is_forgotten() {
    let mut driver = Driver::new(config());
    driver.tell(identified(8, vec![address(8)]));
    driver.wait_s(12 * 3600);
    driver.tell(identified(9, vec![address(9)]));
    driver.wait_s(12 * 3600 + 60);
    assert_eq!(driver.machine.addresses(&peer(8)), []);
    assert_eq!(driver.machine.addresses(&peer(9)), [dial_address(9)]);
    assert_eq!(driver.machine.addresses(&peer(BOOT)), [dial_address(BOOT)]);
}

#[test]
fn cached_peers_are_dialled_first_the_latest_and_no_more_than_32() {
    let mut driver = Driver::new(config());
    let entry = |number| CacheEntry {
        peer: peer(number),
        addresses: vec![address(number)],
        age: Duration::from_secs(u64::from(number)),
    };
    let effects = driver.tell(Input::CacheLoaded((100..400).map(entry).collect()));
    let expected: Vec<_> = (100..132).map(peer).collect();
    assert_eq!(dialled(&effects), expected);

    // Those that this run reached are the first to be kept, and the others stay.
    driver.connect(300);
    driver.connect(310);
    driver.wait_s(1);
    let cache = driver.machine.cache();
    assert_eq!(cache[0].age, Duration::ZERO);
    let peers: Vec<_> = cache.iter().map(|entry| entry.peer).collect();
    let mut expected = [peer(300), peer(310)];
    expected.sort();
    assert_eq!(peers[..2], expected);
    assert_eq!(peers[2..4], [peer(100), peer(101)]);
    assert_eq!(peers.len(), 256);
}

#[test]
fn a_cached_peer_that_was_not_reached_is_dialled_again() {
    let mut driver = Driver::new(config());
    let entry = CacheEntry {
        peer: peer(100),
        addresses: vec![address(100)],
        age: Duration::ZERO,
    };
    assert_eq!(
        dialled(&driver.tell(Input::CacheLoaded(vec![entry]))),
        [peer(100)]
    );
    driver.fail_dial(100);
    assert_eq!(dialled(&driver.wait_s(7)), [peer(100)]);
    driver.connect(100);
    assert!(!dialled(&driver.wait_s(120)).contains(&peer(100)));
}

#[test]
fn who_has_come_in_is_remembered_while_it_is_here_after_those_that_were_reached() {
    let mut driver = Driver::new(config());
    let remembered = |driver: &Driver| -> Vec<_> {
        let cache = driver.machine.cache().into_iter();
        cache.map(|entry| entry.peer).collect()
    };
    driver.tell(Input::ConnectionOpened {
        peer: peer(7),
        path: Path::Direct,
        dialled: None,
        remote_ip: None,
        is_local: false,
    });
    assert_eq!(remembered(&driver), [], "nobody knows where it is");
    driver.tell(identified(7, vec![address(7)]));
    assert_eq!(remembered(&driver), [peer(7)]);
    driver.tell(identified(8, vec![address(8)]));
    driver.connect(8);
    driver.disconnect(8);
    driver.wait_s(60);
    assert_eq!(remembered(&driver), [peer(8), peer(7)]);
    driver.disconnect(7);
    assert_eq!(remembered(&driver), [peer(8)]);
}

#[test]
fn a_registration_is_pending_until_an_address_exists_and_then_taken_up() {
    let mut driver = Driver::new(config());
    driver.connect(BOOT);
    assert_eq!(registers(&driver.follow(1)), []);
    assert_eq!(driver.state(BOOT, 1), Some(Registration::Pending));
    driver.tell(Input::AddressCandidate(address(LOCAL)));
    let effects = driver.tell(Input::Probed {
        address: address(LOCAL),
        server: peer(BOOT),
        outcome: ProbeOutcome::Reached,
    });
    assert_eq!(registers(&effects), [(peer(BOOT), namespace(1))]);
    assert_eq!(driver.state(BOOT, 1), Some(Registration::Requested));
}

#[test]
fn subscribing_registers_and_discovers_at_once_and_unsubscribing_unregisters() {
    let mut driver = Driver::registered(config());
    let effects = driver.follow(1);
    let both = [
        (peer(BOOT), namespace(1)),
        (peer(SECOND_BOOT), namespace(1)),
    ];
    assert_eq!(registers(&effects), both);
    let asked: Vec<_> = questions(&effects)
        .into_iter()
        .map(|q| (q.0, q.1))
        .collect();
    assert_eq!(asked, both);
    driver.accept_registration(BOOT, 1);
    let effects = driver.tell(Input::Unfollow(namespace(1)));
    assert_eq!(unregisters(&effects), both);
    assert_eq!(driver.state(BOOT, 1), None);
    // An answer that crossed it is taken back too.
    let effects = driver.accept_registration(SECOND_BOOT, 1);
    assert_eq!(unregisters(&effects), [(peer(SECOND_BOOT), namespace(1))]);
}

#[test]
fn unregistering_one_leaves_the_others() {
    let mut driver = Driver::registered(config());
    for overlay in [1, 2] {
        driver.follow(overlay);
        driver.accept_registration(BOOT, overlay);
        driver.accept_registration(SECOND_BOOT, overlay);
    }
    driver.tell(Input::Unfollow(namespace(1)));
    for server in [BOOT, SECOND_BOOT] {
        assert_eq!(driver.state(server, 1), None);
        let state = driver.state(server, 2);
        assert!(matches!(state, Some(Registration::Registered { .. })));
    }
}

#[test]
fn a_registration_is_refreshed_before_it_ends_and_when_addresses_change() {
    let mut driver = Driver::registered(config());
    driver.follow(1);
    driver.accept_registration(BOOT, 1);
    driver.tell(Input::RegisterFailed {
        server: peer(SECOND_BOOT),
        namespace: namespace(1),
        why: RendezvousFailure::Refused,
    });
    let effects = driver.wait_s(7200);
    assert!(registers(&effects).contains(&(peer(BOOT), namespace(1))));
    assert!(registers(&effects).contains(&(peer(SECOND_BOOT), namespace(1))));
}

#[test]
fn a_full_server_keeps_a_place_free_for_refreshes_and_overlays_take_turns() {
    let mut driver = Driver::registered(config());
    let mut asked = Vec::new();
    for overlay in 0..40 {
        asked.extend(registers(&driver.follow(overlay)));
    }
    let at_boot: Vec<_> = asked.iter().filter(|(s, _)| *s == peer(BOOT)).collect();
    assert_eq!(at_boot.len(), 31);
    for (server, of) in &asked {
        let (server, namespace) = (*server, of.clone());
        let ttl = Duration::from_secs(7200);
        driver.tell(Input::Registered {
            server,
            namespace,
            ttl,
        });
    }
    // Within a rotation the nine that wait have their turn, for the nine that had theirs first.
    let effects = driver.wait_s(800);
    let boot = |keys: Vec<(PeerId, Namespace)>| {
        let of_boot = keys.into_iter().filter(|(s, _)| *s == peer(BOOT));
        of_boot.map(|(_, n)| n).collect::<BTreeSet<_>>()
    };
    assert_eq!(boot(unregisters(&effects)), (0..9).map(namespace).collect());
    assert_eq!(boot(registers(&effects)), (31..40).map(namespace).collect());
}

#[test]
fn a_server_with_a_lower_cap_is_found_out_and_not_exceeded() {
    let mut driver = Driver::registered(config());
    for overlay in 0..4 {
        driver.follow(overlay);
    }
    for overlay in 0..3 {
        driver.accept_registration(BOOT, overlay);
    }
    assert_eq!(unregisters(&driver.refuse_registration(BOOT, 3)), []);
    let again = driver.wait_s(5);
    assert!(registers(&again).contains(&(peer(BOOT), namespace(3))));
    let taken_back = driver.refuse_registration(BOOT, 3);
    assert_eq!(unregisters(&taken_back), [(peer(BOOT), namespace(3))]);
    let later = driver.wait_s(300);
    assert!(!registers(&later).iter().any(|(s, _)| *s == peer(BOOT)));
    // One that waits takes the place of one that is left.
    let effects = driver.tell(Input::Unfollow(namespace(0)));
    assert!(registers(&effects).contains(&(peer(BOOT), namespace(3))));
}

#[test]
fn a_server_that_restarted_is_registered_at_again() {
    let mut driver = Driver::registered(config());
    driver.follow(1);
    driver.accept_registration(BOOT, 1);
    driver.disconnect(BOOT);
    let state = driver.state(BOOT, 1);
    assert!(matches!(state, Some(Registration::Registered { .. })));
    let effects = driver.connect(BOOT);
    assert_eq!(registers(&effects), [(peer(BOOT), namespace(1))]);
    assert_eq!(questions(&effects).len(), 1);
}

#[test]
fn one_cookie_per_server_and_namespace_and_an_invalid_one_is_forgotten() {
    let mut driver = Driver::registered(config());
    driver.follow(1);
    driver.follow(2);
    driver.answer(BOOT, 1, &[5], 11);
    driver.answer(BOOT, 2, &[5], 12);
    driver.answer(SECOND_BOOT, 1, &[5], 21);
    driver.answer(SECOND_BOOT, 2, &[5], 22);
    let asked: BTreeMap<_, _> = questions(&driver.wait_s(13))
        .into_iter()
        .map(|(server, namespace, cookie)| ((server, namespace), cookie))
        .collect();
    for (server, overlay, expected) in [
        (BOOT, 1, 11),
        (BOOT, 2, 12),
        (SECOND_BOOT, 1, 21),
        (SECOND_BOOT, 2, 22),
    ] {
        let key = (peer(server), namespace(overlay));
        assert_eq!(asked[&key], Some(cookie(expected)));
    }
    let invalid = |driver: &mut Driver| {
        driver.tell(Input::DiscoverFailed {
            server: peer(BOOT),
            namespace: namespace(1),
            why: RendezvousFailure::InvalidCookie,
        })
    };
    let repeated = questions(&invalid(&mut driver));
    assert_eq!(repeated, [(peer(BOOT), namespace(1), None)]);
    // A server that finds no cookie invalid is not asked in a loop.
    assert_eq!(questions(&invalid(&mut driver)), []);
}

#[test]
fn an_overlay_is_not_throttled_while_no_member_is_connected() {
    let mut driver = Driver::registered(config());
    driver.follow(1);
    driver.follow(2);
    driver.tell(Input::MemberSeen {
        namespace: namespace(2),
        peer: peer(9),
    });
    driver.connect(9);
    let mut asked = [0, 0];
    for server in [BOOT, SECOND_BOOT] {
        driver.answer(server, 1, &[], 1);
        driver.answer(server, 2, &[9], 1);
    }
    for _ in 0..30 {
        for (server, of, _) in questions(&driver.wait_s(1)) {
            let overlay = if of == namespace(1) { 1 } else { 2 };
            asked[overlay - 1] += 1;
            let members: &[u32] = if overlay == 1 { &[] } else { &[9] };
            let server = if server == peer(BOOT) {
                BOOT
            } else {
                SECOND_BOOT
            };
            driver.answer(server, overlay as u32, members, 1);
        }
    }
    assert!(asked[0] >= 8, "{asked:?}");
    // After 5, 15 and 35 s, a quarter more or less.
    assert!(asked[1] <= 6, "{asked:?}");
    // Losing the only member asks at once.
    let effects = driver.disconnect(9);
    assert_eq!(questions(&effects).len(), 2);
}

#[test]
fn questions_take_turns_in_a_bounded_round() {
    let mut driver = Driver::new(config());
    for overlay in 0..100 {
        driver.follow(overlay);
    }
    let budget = driver.machine.config.rendezvous.discoveries_per_tick as usize;
    let effects = driver.connect(BOOT);
    assert_eq!(questions(&effects).len(), budget);
    let mut asked: BTreeSet<_> = questions(&effects).into_iter().map(|q| q.1).collect();
    for _ in 0..4 {
        asked.extend(questions(&driver.wait_s(6)).into_iter().map(|q| q.1));
    }
    assert_eq!(asked.len(), 100);
}

#[test]
fn dials_of_an_answer_are_capped_and_skip_connected_peers() {
    let mut driver = Driver::registered(config());
    driver.follow(1);
    driver.connect(100);
    let members: Vec<u32> = (100..10_100).collect();
    let effects = driver.answer(BOOT, 1, &members, 1);
    let peers = dialled(&effects);
    // The target is twelve. They are dialled in six ticks, so that the first members of a page are
    // not dialled by every node. One may be connected already.
    assert!((1..=2).contains(&peers.len()), "{peers:?}");
    assert!(!peers.contains(&peer(100)));
    let learnt = effects
        .iter()
        .filter(|e| matches!(e, Effect::AddRoutingAddress { .. }));
    assert!(learnt.count() <= 64);
    // An answer without a request changes nothing.
    assert_eq!(driver.answer(BOOT, 1, &[20_000], 2), []);
    let later = driver.wait_s(60);
    assert!((10..=24).contains(&dialled(&later).len()));
}

#[test]
fn who_lacks_members_walks_from_page_to_page_by_its_cookie() {
    let mut config = config();
    config.rendezvous.max_answer = 16;
    let mut driver = Driver::registered(config);
    driver.disconnect(SECOND_BOOT);
    driver.tell(Input::Block(peer(SECOND_BOOT)));
    driver.follow(1);
    let page = |n: u32| (n * 100..n * 100 + 16).collect::<Vec<_>>();
    driver.answer(BOOT, 1, &page(1), 1);
    driver.connect(100);
    driver.tell(Input::MemberSeen {
        namespace: namespace(1),
        peer: peer(100),
    });
    // After the third answer, four are known for each of the eleven that lack.
    for n in 2..5 {
        let asked = questions(&driver.wait_s(7));
        assert_eq!(asked.len(), 1, "page {n}");
        let last = u8::try_from(n - 1).unwrap();
        assert_eq!(asked[0].2, Some(cookie(last)));
        driver.answer(BOOT, 1, &page(n), last + 1);
    }
    // After 10 s, a quarter more or less.
    assert_eq!(questions(&driver.wait_s(7)), []);
    assert_eq!(questions(&driver.wait_s(6)).len(), 1);
    driver.answer(BOOT, 1, &page(5), 5);
    // A node with enough members asks rarely and for few.
    for number in 101..112 {
        driver.connect(number);
        driver.tell(Input::MemberSeen {
            namespace: namespace(1),
            peer: peer(number),
        });
    }
    driver.wait_s(26);
    driver.answer(BOOT, 1, &page(6), 6);
    let later = driver.wait_s(44);
    assert_eq!(questions(&later), []);
    let later = driver.wait_s(32);
    let few = later
        .iter()
        .any(|e| matches!(e, Effect::Discover { limit: 12, .. }));
    assert!(few, "{later:?}");
}

#[test]
fn a_list_without_new_members_is_read_again_while_members_are_sought() {
    let mut driver = Driver::registered(config());
    driver.tell(Input::Block(peer(SECOND_BOOT)));
    driver.follow(1);
    driver.answer(BOOT, 1, &[100], 1);
    driver.connect(100);
    let next = |driver: &mut Driver, members: &[u32], now: u8| {
        driver.answer(BOOT, 1, members, now);
        questions(&driver.wait_s(80))[0].2.clone()
    };
    assert_eq!(questions(&driver.wait_s(7)).len(), 1);
    assert_eq!(next(&mut driver, &[101], 2), Some(cookie(2)));
    assert_eq!(next(&mut driver, &[], 3), None);
    assert_eq!(next(&mut driver, &[100, 101], 4), Some(cookie(4)));
}

#[test]
fn a_local_peer_whose_dial_fails_is_dialled_again() {
    let mut driver = Driver::new(config());
    let met = || Input::LocalPeer {
        peer: peer(9),
        addresses: vec![address(9)],
    };
    assert!(dialled(&driver.tell(met())).contains(&peer(9)));
    driver.fail_dial(9);
    // Another report brings no dial forward.
    assert_eq!(dialled(&driver.tell(met())), []);
    let mut dials = 0;
    for _ in 0..20 {
        let of_peer = dialled(&driver.wait_s(4)).into_iter();
        let of_peer = of_peer.filter(|one| *one == peer(9)).count();
        dials += of_peer;
        if of_peer > 0 {
            driver.fail_dial(9);
        }
    }
    // At 5, 15, 30 and 60 s, as those of a lost peer.
    assert_eq!(dials, 4);
}

#[test]
fn the_dials_of_few_local_peers_are_repeated() {
    let mut driver = Driver::new(config());
    for number in 10..1000 {
        driver.tell(Input::LocalPeer {
            peer: peer(number),
            addresses: vec![address(number)],
        });
    }
    // Both boot nodes, and the limit.
    assert_eq!(driver.machine.redials.len(), 2 + 64);
}

#[test]
fn dials_in_flight_are_bounded_and_the_most_urgent_come_first() {
    let mut driver = Driver::new(config());
    let mut in_flight = 2;
    for number in 10..1000 {
        let addresses = vec![address(number)];
        let effects = driver.tell(Input::LocalPeer {
            peer: peer(number),
            addresses,
        });
        in_flight += dialled(&effects).len();
    }
    assert_eq!(driver.machine.dials.in_flight(), 64);
    assert!(in_flight <= 64);
    assert_eq!(driver.machine.dials.queued(), 256);
    // A lost boot node overtakes all that wait.
    driver.connect(BOOT);
    driver.wait_s(31);
    driver.disconnect(BOOT);
    let effects = driver.fail_dial(10);
    assert!(dialled(&effects).len() <= 1);
    let effects = [effects, driver.fail_dial(11), driver.fail_dial(12)].concat();
    assert!(dialled(&effects).contains(&peer(BOOT)), "{effects:?}");
}

#[test]
fn a_dial_that_completes_as_listener_is_resolved_and_one_nobody_ends_ends_itself() {
    let mut driver = Driver::registered(config());
    driver.follow(1);
    driver.answer(BOOT, 1, &[5, 6], 1);
    assert_eq!(driver.machine.dials.in_flight(), 2);
    driver.tell(Input::ConnectionOpened {
        peer: peer(5),
        path: Path::Direct,
        dialled: None,
        remote_ip: None,
        is_local: false,
    });
    assert_eq!(driver.machine.dials.in_flight(), 1);
    driver.wait_s(36);
    assert!(!driver.machine.dials.is_in_flight(&peer(6)));
    let again = driver.wait_s(45);
    assert!(dialled(&again).contains(&peer(6)));
}

#[test]
fn the_phase_follows_what_is_there() {
    let mut driver = Driver::new(DiscoveryConfig {
        external: vec![address(LOCAL)],
        ..config()
    });
    driver.follow(1);
    assert_eq!(driver.machine.phase(), Phase::Boot);
    driver.connect(BOOT);
    assert_eq!(driver.machine.phase(), Phase::Register);
    driver.accept_registration(BOOT, 1);
    assert_eq!(driver.machine.phase(), Phase::Discover);
    driver.answer(BOOT, 1, &[5], 1);
    assert_eq!(driver.machine.phase(), Phase::Connect);
    driver.connect(5);
    assert_eq!(driver.machine.phase(), Phase::Joined);
    driver.disconnect(5);
    assert_eq!(driver.machine.phase(), Phase::Connect);
    driver.tell(Input::Block(peer(5)));
    assert_eq!(driver.machine.phase(), Phase::Discover);
    driver.disconnect(BOOT);
    assert_eq!(driver.machine.phase(), Phase::Boot);
    driver.tell(Input::Stop);
    assert_eq!(driver.machine.phase(), Phase::Stopped);
    assert_eq!(driver.machine.next_timeout(), None);
}

#[test]
fn stopping_takes_registrations_and_slots_back_and_saves() {
    let mut driver = Driver::registered(config());
    driver.follow(1);
    driver.accept_registration(BOOT, 1);
    let effects = driver.tell(Input::Stop);
    assert_eq!(unregisters(&effects).len(), 2);
    assert_eq!(effects.last(), Some(&Effect::SaveCache));
    assert_eq!(driver.follow(2), []);
}

#[test]
fn an_overlay_too_many_is_refused_aloud() {
    let mut config = config();
    config.rendezvous.max_overlays = 1;
    let mut driver = Driver::new(config);
    assert_eq!(driver.follow(1), []);
    let refused = Effect::RefuseFollow {
        namespace: namespace(2),
    };
    assert_eq!(driver.follow(2), [refused]);
    assert_eq!(driver.follow(1), []);
}

#[test]
fn a_question_under_way_is_not_asked_again() {
    let mut driver = Driver::registered(config());
    assert_eq!(questions(&driver.follow(1)).len(), 2);
    driver.tell(Input::MemberSeen {
        namespace: namespace(1),
        peer: peer(9),
    });
    driver.connect(9);
    assert_eq!(questions(&driver.disconnect(9)), []);
    driver.answer(BOOT, 1, &[], 1);
    assert_eq!(questions(&driver.wait_s(7)).len(), 1);
}

#[test]
fn those_connected_longest_are_kept_however_many_come_later() {
    let mut driver = Driver::new(config());
    driver.follow(1);
    let seen = |number| Input::MemberSeen {
        namespace: namespace(1),
        peer: peer(number),
    };
    for number in (10..60).rev() {
        driver.connect(number);
        driver.tell(seen(number));
    }
    let kept = |driver: &Driver| driver.machine.kept().collect::<BTreeSet<_>>();
    let boots = [BOOT, SECOND_BOOT].map(peer);
    // Three times twelve.
    let first = (24..60).map(peer);
    assert_eq!(kept(&driver), first.chain(boots).collect());
    // One of them goes, and the next in line is kept instead.
    driver.disconnect(40);
    let first = (23..60).filter(|number| *number != 40).map(peer);
    assert_eq!(kept(&driver), first.chain(boots).collect());
}

#[test]
fn only_who_has_nobody_dials_at_once_and_never_more_than_a_few() {
    let mut driver = Driver::registered(config());
    driver.follow(1);
    let first = driver.answer(BOOT, 1, &(100..148).collect::<Vec<_>>(), 1);
    assert_eq!(dialled(&first).len(), 2);
    // The answer of the other server comes while these dials are under way.
    let second = driver.answer(SECOND_BOOT, 1, &(200..248).collect::<Vec<_>>(), 1);
    assert_eq!(dialled(&second), []);
    // Of many, the others are dialled in the rounds of upkeep.
    driver.tell(Input::ConnectionOpened {
        peer: dialled(&first)[0],
        path: Path::Direct,
        dialled: None,
        remote_ip: None,
        is_local: false,
    });
    let later = dialled(&driver.wait_s(7));
    assert!((2..=4).contains(&later.len()), "{later:?}");
}
