//! Nodes behind NATs: real binaries and real packets between network namespaces.
//!
//! Needs Linux, root, `ip`, `nft`, python3 and `/dev/net/tun`; elsewhere it says so and passes
//! over. Without `NAT_LAB=full` a part of the matrix runs that is over in a few minutes.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod faults;
mod internet;
mod mapping;
mod netcheck;
mod pairs;
mod probe;
mod readme;
mod share;
mod site;
#[path = "../support/mod.rs"]
mod support;
mod table;
mod world;

use std::{
    panic::resume_unwind,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use faults::Fault;
use internet::{Internet, Trouble};
use mapping::Speaks;
use pairs::Case;
use probe::{Behaviour, Depends, Mirror, Servers};
use site::{Kind, Site, Transport};
use support::netns::Namespace;
use world::DELAY;

/// What the words say that RFC 4787 has for the kinds: UDP, then TCP.
fn expected(kind: Kind) -> [Behaviour; 2] {
    use Depends::{AddressAndPort, Closed, EndpointIndependent, Nothing};
    let both = |mapping, filtering| [Behaviour { mapping, filtering }; 2];
    match kind {
        Kind::Open | Kind::Open6 => both(Nothing, Nothing),
        Kind::FullCone => both(EndpointIndependent, EndpointIndependent),
        Kind::Restricted => both(EndpointIndependent, Depends::Address),
        Kind::PortRestricted | Kind::Double => both(EndpointIndependent, AddressAndPort),
        Kind::Symmetric => both(AddressAndPort, AddressAndPort),
        Kind::Firewall6 => both(Nothing, AddressAndPort),
        Kind::TcpOnly => [
            both(Closed, Closed)[0],
            both(EndpointIndependent, AddressAndPort)[0],
        ],
    }
}

/// The public segment, or nothing where namespaces cannot be had, which is said.
fn internet() -> Option<Internet> {
    if let Err(reason) = lab_is_possible() {
        eprintln!("skipped: no NAT lab here: {reason}");
        return None;
    }
    Some(Internet::new(DELAY).unwrap())
}

fn lab_is_possible() -> Result<(), String> {
    for device in ["/dev/net/tun", "/proc/self/ns/net"] {
        if !Path::new(device).exists() {
            return Err(format!("no {device}"));
        }
    }
    let probe = Namespace::new("probe")?;
    for program in ["nft", "python3"] {
        let run = probe.command(program).arg("--version").output();
        if !run.is_ok_and(|run| run.status.success()) {
            return Err(format!("no {program}"));
        }
    }
    Ok(())
}

#[test]
fn every_nat_is_what_it_is_called() {
    let Some(internet) = internet() else {
        return;
    };
    let probe = |kind: Kind| {
        let servers = [0, 1].map(|_| Site::public(&internet).unwrap());
        let servers = Servers([&servers[0], &servers[1]]);
        let site = Site::new(&internet, kind).unwrap();
        [servers.udp(&site), servers.tcp(&site)]
    };
    let found = at_once(Kind::ALL.len(), &Kind::ALL, |kind| probe(*kind));
    let mut table = table::new(["kind", "transport", "mapping", "filtering"]);
    for (kind, found) in Kind::ALL.into_iter().zip(&found) {
        for (transport, found) in ["UDP", "TCP"].into_iter().zip(found) {
            table.add_row([
                kind.to_string(),
                transport.to_owned(),
                found.mapping.to_string(),
                found.filtering.to_string(),
            ]);
        }
    }
    println!("{table}");
    for (kind, found) in Kind::ALL.into_iter().zip(found) {
        assert_eq!(found, expected(kind), "{kind}");
    }
}

#[test]
fn plain_sockets_get_through_where_the_nats_permit_it() {
    let Some(internet) = internet() else {
        return;
    };
    let pairs = site::pairs();
    let found = at_once(pairs.len(), &pairs, |[a, b]| {
        let server = Site::public(&internet).unwrap();
        let sites = [a, b].map(|kind| Site::new(&internet, *kind).unwrap());
        let sites = [&sites[0], &sites[1]];
        [
            probe::punches_udp(&server, sites),
            probe::punches_tcp(&server, sites),
        ]
    });
    let mut table = table::new(["pair", "UDP", "TCP"]);
    for ([a, b], found) in pairs.iter().zip(&found) {
        let [udp, tcp] = found.map(|through| if through { "direct" } else { "-" });
        table.add_row([&format!("{a} - {b}"), udp, tcp]);
    }
    println!("{table}");
    for (pair, found) in pairs.into_iter().zip(found) {
        let expected = [Transport::Quic, Transport::Tcp].map(|over| site::permit(pair, over));
        assert_eq!(found, expected, "{pair:?}");
    }
}

#[test]
fn faults_are_what_they_are_called() {
    let Some(internet) = internet() else {
        return;
    };
    let server = Site::public(&internet).unwrap();
    let mut site = Site::new(&internet, Kind::PortRestricted).unwrap();
    let public = site.public_addresses();
    let mirror = Mirror::new(&server, &site);
    let first = mirror.look().unwrap();
    assert_eq!(first, site.seen_at());
    let round_trip = mirror.round_trip().unwrap();
    assert!(round_trip >= 2 * DELAY, "{round_trip:?}");

    internet.trouble(public, Trouble::Cut, true).unwrap();
    assert_eq!(mirror.look(), None);
    assert!(!mirror.answers(first));
    internet.trouble(public, Trouble::Cut, false).unwrap();
    assert_eq!(mirror.look(), Some(first));

    internet.trouble(public, Trouble::Lossy, true).unwrap();
    // Ten standard deviations (of 12) and more around 1,800 of 2,000.
    let through = mirror.count_through(2000);
    assert!((1650..1950).contains(&through), "{through}");
    internet.trouble(public, Trouble::Lossy, false).unwrap();
    assert_eq!(mirror.count_through(100), 100);

    site.reboot_router().unwrap();
    assert!(!mirror.answers(first));
    let second = mirror.look().unwrap();
    assert_ne!(second, first);
    assert_eq!(second.ip(), first.ip());

    site.renumber(&internet).unwrap();
    assert!(!mirror.answers(second));
    let third = mirror.look().unwrap();
    assert_ne!(third.ip(), second.ip());
    assert_eq!(third, site.seen_at());
    assert!(mirror.answers(third));
}

#[test]
fn nodes_find_each_other_through_every_kind_of_nat() {
    if let Err(reason) = lab_is_possible() {
        eprintln!("skipped: no NAT lab here: {reason}");
        return;
    }
    let case = |a: Kind, b: Kind, transport: Transport| Case {
        kinds: [a, b],
        transport,
    };
    if is_full() {
        let pairs = site::pairs().into_iter();
        let mixed = [Kind::PortRestricted, Kind::Firewall6];
        // Who is there first is reached through a relay, and who comes dials: both ways differ.
        let pairs = pairs.chain([mixed]).flat_map(|[a, b]| {
            let ways = if a == b { 1 } else { 2 };
            [[a, b], [b, a]].into_iter().take(ways)
        });
        let cases = pairs.flat_map(|[a, b]| Transport::BOTH.map(|over| case(a, b, over)));
        return pairs::run(&cases.collect::<Vec<_>>());
    }
    pairs::run(&[
        case(Kind::PortRestricted, Kind::PortRestricted, Transport::Quic),
        case(Kind::PortRestricted, Kind::PortRestricted, Transport::Tcp),
        case(Kind::FullCone, Kind::Symmetric, Transport::Quic),
        case(Kind::Symmetric, Kind::FullCone, Transport::Quic),
        case(Kind::Symmetric, Kind::Restricted, Transport::Tcp),
        case(Kind::Restricted, Kind::Double, Transport::Tcp),
        case(Kind::Symmetric, Kind::Symmetric, Transport::Quic),
        case(Kind::TcpOnly, Kind::Symmetric, Transport::Quic),
        case(Kind::Firewall6, Kind::Firewall6, Transport::Quic),
        case(Kind::Firewall6, Kind::Firewall6, Transport::Tcp),
        case(Kind::PortRestricted, Kind::Firewall6, Transport::Quic),
    ]);
}

#[test]
fn files_get_through_every_kind_of_nat() {
    use share::{By, Transfer};
    if let Err(reason) = lab_is_possible() {
        eprintln!("skipped: no NAT lab here: {reason}");
        return;
    }
    let transfer = |by: By, kinds: [Kind; 2], transport: Transport, port: u16| Transfer {
        by,
        case: Case { kinds, transport },
        port,
    };
    // On ports that the system chooses, as the commands do by default. The mapping and the filter
    // of the first kinds of router are for one port alone; all others have those of this kind.
    let cone = [Kind::PortRestricted; 2];
    let mut transfers = Vec::new();
    for by in [By::Ticket, By::Id] {
        transfers.extend(Transport::BOTH.map(|over| transfer(by, cone, over, 0)));
    }
    if is_full() {
        let pairs = site::pairs().into_iter();
        let pairs = pairs.flat_map(|[a, b]| {
            let ways = if a == b { 1 } else { 2 };
            [[a, b], [b, a]].into_iter().take(ways)
        });
        let all = pairs.flat_map(|kinds| {
            Transport::BOTH.map(|over| transfer(By::Ticket, kinds, over, site::PORT))
        });
        transfers.extend(all.filter(|one| one.case.permits_direct()));
    } else {
        // A router that filters by address alone lets in the probes of the boot nodes and no other
        // peer, so the ticket needs a relay although an address is confirmed.
        let kinds = [Kind::Restricted, Kind::PortRestricted];
        transfers.push(transfer(By::Ticket, kinds, Transport::Quic, site::PORT));
    }
    share::run(&transfers);
}

#[test]
#[ignore = "for whoever looks for what happens now and then: NAT_LAB_PAIR, NAT_LAB_TIMES"]
fn a_pair_gets_through_time_after_time() {
    let setting = |name, default: &str| std::env::var(name).unwrap_or(default.to_owned());
    let pair = setting("NAT_LAB_PAIR", "port-restricted, port-restricted, TCP");
    let times = setting("NAT_LAB_TIMES", "10").parse().unwrap();
    let words: Vec<_> = pair.split(',').map(str::trim).collect();
    let kind = |word: &str| Kind::ALL.into_iter().find(|kind| kind.to_string() == word);
    let over = |word: &str| {
        Transport::BOTH
            .into_iter()
            .find(|over| over.to_string() == word)
    };
    let case = Case {
        kinds: [kind(words[0]).unwrap(), kind(words[1]).unwrap()],
        transport: over(words[2]).unwrap(),
    };
    pairs::run(&vec![case; times]);
}

#[test]
fn faults_are_got_over() {
    if let Err(reason) = lab_is_possible() {
        eprintln!("skipped: no NAT lab here: {reason}");
        return;
    }
    let all = Fault::ALL.into_iter();
    let all = all.flat_map(|fault| Transport::BOTH.map(|over| (fault, over)));
    if let Ok(part) = std::env::var("NAT_LAB_FAULT") {
        let chosen = all.filter(|(fault, _)| fault.to_string().contains(&part));
        return faults::run(&chosen.collect::<Vec<_>>(), 1);
    }
    if is_full() {
        return faults::run(&all.collect::<Vec<_>>(), 1);
    }
    let short = [
        (Fault::LinkCut, Transport::Tcp),
        (Fault::PunchInVain, Transport::Quic),
        (Fault::UdpCut, Transport::Quic),
        (Fault::RouterReboots, Transport::Quic),
        (Fault::OwnAddressReplaced, Transport::Tcp),
        (Fault::OwnAddressReplaced, Transport::Quic),
        (Fault::ProcessStopped, Transport::Quic),
        (Fault::RelayDies, Transport::Tcp),
        (Fault::OnlyRelayReturns, Transport::Quic),
        (Fault::NodeRestarts, Transport::Quic),
        (Fault::NodeRestartsWithoutBootNodes, Transport::Tcp),
    ];
    // Other tests run at the same time. `NAT_LAB=full` and `NAT_LAB_FAULT` hold the nodes to the bounds themselves.
    faults::run(&short, 3);
}

#[test]
fn a_node_whose_router_maps_ports_is_reached_directly() {
    if let Err(reason) = lab_is_possible().and_then(|()| mapping::is_possible()) {
        eprintln!("skipped: no router that maps ports here: {reason}");
        return;
    }
    mapping::run(&[
        (Speaks::Pcp, Transport::Quic),
        (Speaks::Upnp, Transport::Tcp),
    ]);
}

#[test]
fn netcheck_recognises_every_kind_of_nat() {
    if let Err(reason) = lab_is_possible() {
        eprintln!("skipped: no NAT lab here: {reason}");
        return;
    }
    // `NAT_LAB=full` checks each kind three times.
    for _ in 0..if is_full() { 3 } else { 1 } {
        netcheck::every_kind(expected);
    }
}

#[test]
fn running_nodes_know_their_nat_and_why_a_peer_is_relayed() {
    if let Err(reason) = lab_is_possible() {
        eprintln!("skipped: no NAT lab here: {reason}");
        return;
    }
    netcheck::of_running_nodes();
}

#[test]
fn the_commands_of_the_readme_carry_a_message_and_a_file_between_machines_behind_nats() {
    if let Err(reason) = lab_is_possible() {
        eprintln!("skipped: no NAT lab here: {reason}");
        return;
    }
    readme::run();
}

/// Whether everything is asked for.
fn is_full() -> bool {
    std::env::var("NAT_LAB").is_ok_and(|what| what == "full")
}

/// Does the same with many things, some of them at a time, each in a thread of its own.
fn at_once<T: Sync, R: Send>(limit: usize, things: &[T], act: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(thing) = things.get(number) else {
                return done;
            };
            done.push((number, act(thing)));
        }
    };
    let mut done = thread::scope(|scope| {
        let threads: Vec<_> = (0..limit).map(|_| scope.spawn(work)).collect();
        let done = threads.into_iter().map(|thread| thread.join());
        let done = done.map(|done| done.unwrap_or_else(|panic| resume_unwind(panic)));
        done.flatten().collect::<Vec<_>>()
    });
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}
