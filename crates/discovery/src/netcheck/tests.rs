use proptest::prelude::*;

use super::*;

const HOST: &str = "192.168.1.2";
const PUBLIC: &str = "198.51.100.1";
const SERVERS: [&str; 2] = ["192.0.2.1", "192.0.2.2"];

/// What a network shows over one protocol.
#[derive(Clone, Copy)]
struct Shown {
    /// Address that each server sees; `None` if the server cannot be reached.
    seen: [Option<&'static str>; 2],
    /// Results of dials from an address that was contacted and from one that was not.
    reached: [Option<bool>; 2],
}

fn observe(transport: Transport, shown: Shown, into: &mut Observations) {
    for (server, seen) in SERVERS.iter().zip(shown.seen) {
        into.attempts.push(Attempt {
            transport,
            family: Family::V4,
            connected: seen.is_some(),
        });
        into.observed.extend(seen.map(|observed| ObservedAddress {
            transport,
            server: server.parse().unwrap(),
            observed: observed.parse().unwrap(),
        }));
    }
    for (contacted, reached) in [true, false].into_iter().zip(shown.reached) {
        into.dial_backs.extend(reached.map(|reached| DialBack {
            transport,
            family: Family::V4,
            reached,
            contacted,
        }));
    }
}

const OPEN: Shown = Shown {
    seen: [Some("198.51.100.1:2428"); 2],
    reached: [Some(true); 2],
};
const FIREWALL: Shown = Shown {
    reached: [Some(false), None],
    ..OPEN
};
const FULL_CONE: Shown = Shown {
    seen: [Some("198.51.100.1:12428"); 2],
    reached: [Some(true); 2],
};
const RESTRICTED: Shown = Shown {
    reached: [Some(true), Some(false)],
    ..FULL_CONE
};
const PORT_RESTRICTED: Shown = Shown {
    reached: [Some(false), None],
    ..FULL_CONE
};
const SYMMETRIC: Shown = Shown {
    seen: [Some("198.51.100.1:4001"), Some("198.51.100.1:4002")],
    reached: [Some(false), None],
};
const BLOCKED: Shown = Shown {
    seen: [None; 2],
    reached: [None; 2],
};
const ONE_SERVER: Shown = Shown {
    seen: [Some("198.51.100.1:12428"), None],
    reached: [Some(false), None],
};

#[test]
fn each_kind_of_nat_is_recognised() {
    use Filtering as F;
    use Mapping as M;
    type Row = (
        &'static str,
        [Shown; 2],
        &'static str,
        M,
        F,
        Direct,
        &'static [Advice],
    );
    let table: [Row; 9] = [
        (
            "no NAT",
            [OPEN; 2],
            PUBLIC,
            M::None,
            F::EndpointIndependent,
            Direct::Reachable,
            &[],
        ),
        (
            "firewall",
            [FIREWALL; 2],
            PUBLIC,
            M::None,
            F::AddressAndPortDependent,
            Direct::Most,
            &[Advice::OpenFirewall],
        ),
        (
            "full cone",
            [FULL_CONE; 2],
            HOST,
            M::EndpointIndependent,
            F::EndpointIndependent,
            Direct::Reachable,
            &[],
        ),
        (
            "restricted",
            [RESTRICTED; 2],
            HOST,
            M::EndpointIndependent,
            F::AddressDependent,
            Direct::All,
            &[Advice::PortMapping],
        ),
        (
            "port-restricted",
            [PORT_RESTRICTED; 2],
            HOST,
            M::EndpointIndependent,
            F::AddressAndPortDependent,
            Direct::Most,
            &[Advice::PortMapping],
        ),
        (
            "symmetric",
            [SYMMETRIC; 2],
            HOST,
            M::EndpointDependent,
            F::AddressAndPortDependent,
            Direct::Few,
            &[Advice::PortMapping, Advice::Relay],
        ),
        (
            "TCP only",
            [BLOCKED, PORT_RESTRICTED],
            HOST,
            M::Unknown,
            F::Unknown,
            Direct::Most,
            &[Advice::AllowUdp, Advice::PortMapping],
        ),
        (
            "one server",
            [ONE_SERVER; 2],
            HOST,
            M::Unknown,
            F::AddressAndPortDependent,
            Direct::Unknown,
            &[Advice::SecondBootNode],
        ),
        (
            "no network",
            [BLOCKED; 2],
            HOST,
            M::Unknown,
            F::Unknown,
            Direct::NoPeers,
            &[Advice::CheckBootNodes],
        ),
    ];
    for (name, [udp, tcp], own, mapping, filtering, direct, advice) in table {
        let mut observations = Observations {
            own: vec![own.parse().unwrap()],
            ..Observations::default()
        };
        observe(Transport::Udp, udp, &mut observations);
        observe(Transport::Tcp, tcp, &mut observations);
        let verdict = judge(&observations);
        let protocol = &verdict.protocols[0];
        assert_eq!(
            (protocol.mapping, protocol.filtering),
            (mapping, filtering),
            "{name}"
        );
        assert_eq!(verdict.udp, Some(udp.seen[0].is_some()), "{name}");
        assert_eq!(verdict.ipv6, None, "{name}");
        assert_eq!(verdict.direct, direct, "{name}");
        assert_eq!(verdict.advice, advice, "{name}");
    }
}

#[test]
fn a_router_that_was_asked_gets_other_advice() {
    let mut observations = Observations {
        port_mapping: PortMapping::NotMapped,
        ..Observations::default()
    };
    observe(Transport::Udp, SYMMETRIC, &mut observations);
    let advice = judge(&observations).advice;
    assert_eq!(advice, [Advice::ForwardPort, Advice::Relay]);
    observations.dial_backs = vec![DialBack {
        transport: Transport::Udp,
        family: Family::V4,
        reached: true,
        contacted: true,
    }];
    observations.port_mapping = PortMapping::Mapped;
    assert_eq!(judge(&observations).direct, Direct::Reachable);
    observations.configured = true;
    let verdict = judge(&observations);
    assert_eq!(
        (verdict.direct, verdict.advice),
        (Direct::Reachable, vec![])
    );
}

#[test]
fn a_peer_that_was_never_contacted_shows_that_there_is_no_filter() {
    let mut observations = Observations::default();
    let only_contacted = Shown {
        reached: [Some(true), None],
        ..FULL_CONE
    };
    observe(Transport::Tcp, only_contacted, &mut observations);
    let filtering = |observations: &_| judge(observations).protocols[0].filtering;
    assert_eq!(filtering(&observations), Filtering::AddressDependentAtMost);
    observations.admits_uncontacted_peers = true;
    assert_eq!(filtering(&observations), Filtering::EndpointIndependent);
}

/// The address that a server at another one observes.
fn observed_address(server: &str, observed: &str) -> ObservedAddress {
    ObservedAddress {
        transport: Transport::Udp,
        server: server.parse().unwrap(),
        observed: observed.parse().unwrap(),
    }
}

#[test]
fn addresses_that_no_nat_shows_do_not_count() {
    let own = [HOST.parse().unwrap()];
    let cases = [
        (SERVERS[0], "198.51.100.1:2428", true),
        ("8.8.8.8", "9.9.9.9:2428", true),
        ("2001:db8::1", "[2001:db8::2]:2428", true),
        // A private address from across the internet, and within a private network.
        ("8.8.8.8", "10.0.0.1:2428", false),
        ("8.8.8.8", "100.64.0.1:2428", false),
        ("192.168.7.1", "192.168.7.2:2428", true),
        // Without a NAT, the server sees an address of this host.
        ("8.8.8.8", "192.168.1.2:2428", true),
        ("8.8.8.8", "[::ffff:192.168.1.2]:2428", true),
        (SERVERS[0], "198.51.100.1:0", false),
        (SERVERS[0], "127.0.0.1:2428", false),
        (SERVERS[0], "0.0.0.0:2428", false),
        (SERVERS[0], "224.0.0.1:2428", false),
        (SERVERS[0], "255.255.255.255:2428", false),
        (SERVERS[0], "[fe80::1]:2428", false),
        (SERVERS[0], "[ff02::1]:2428", false),
    ];
    for (server, observed, plausible) in cases {
        let one = observed_address(server, observed);
        assert_eq!(one.is_plausible(&own), plausible, "{observed} by {server}");
        let observations = Observations {
            own: own.to_vec(),
            observed: vec![one],
            ..Observations::default()
        };
        let seen = judge(&observations).protocols.len();
        assert_eq!(seen, usize::from(plausible), "{observed} by {server}");
    }
}

#[test]
fn a_boot_node_that_reports_impossible_addresses_changes_nothing() {
    let mut observations = Observations::default();
    observe(Transport::Udp, FULL_CONE, &mut observations);
    let before = judge(&observations);
    for observed in ["10.1.2.3:4", "127.0.0.1:9", "224.0.0.251:5353", "1.2.3.4:0"] {
        observations
            .observed
            .push(observed_address("9.9.9.9", observed));
    }
    assert_eq!(judge(&observations), before);
}

#[test]
fn peers_of_the_same_site_and_one_wrong_peer_do_not_change_the_mapping() {
    let public = "198.51.100.1:12428";
    let mapping = |observed: &[(&str, &str)]| {
        let observed = observed.iter();
        let observations = Observations {
            own: vec![HOST.parse().unwrap(), "127.0.0.1".parse().unwrap()],
            observed: observed
                .map(|(server, seen)| observed_address(server, seen))
                .collect(),
            ..Observations::default()
        };
        judge(&observations).protocols[0].mapping
    };
    let neighbour = ("192.168.1.9", "192.168.1.2:2428");
    let [one, two] = SERVERS.map(|server| (server, public));
    assert_eq!(mapping(&[neighbour]), Mapping::None);
    assert_eq!(mapping(&[neighbour, one]), Mapping::Unknown);
    assert_eq!(
        mapping(&[neighbour, one, two]),
        Mapping::EndpointIndependent
    );
    let wrong = ("9.9.9.9", "8.8.4.4:53");
    assert_eq!(mapping(&[one, wrong, two]), Mapping::EndpointIndependent);
    assert_eq!(mapping(&[one, wrong]), Mapping::EndpointDependent);
    // A connection that is older than the public address.
    let older = (SERVERS[1], "198.51.100.7:12428");
    assert_eq!(mapping(&[older, one, two]), Mapping::EndpointIndependent);
    // A server that reports a loopback address.
    let loopback = ("9.9.9.9", "127.0.0.1:1");
    assert_eq!(mapping(&[one, two, loopback]), Mapping::EndpointIndependent);
}

#[test]
fn only_tcp_and_quic_are_judged() {
    for (address, expected) in [
        ("/ip4/1.2.3.4/tcp/5", true),
        ("/ip4/1.2.3.4/udp/5/quic-v1", true),
        ("/ip4/1.2.3.4/tcp/5/ws", false),
        ("/ip4/1.2.3.4/tcp/443/tls/sni/a.example/ws", false),
        ("/ip4/1.2.3.4/udp/5/webrtc-direct", false),
        ("/ip4/1.2.3.4/udp/5/quic-v1/webtransport", false),
        ("/ip4/1.2.3.4/udp/5", false),
    ] {
        let address = address.parse().unwrap();
        assert_eq!(endpoint_of(&address).is_some(), expected, "{address}");
    }
}

#[test]
fn the_addresses_of_a_verdict_are_bounded() {
    let mut observations = Observations::default();
    for port in 1..=1000 {
        let observed = format!("198.51.100.1:{port}");
        let server = format!("9.9.{}.{}", port / 256, port % 256);
        observations
            .observed
            .push(observed_address(&server, &observed));
    }
    let protocols = judge(&observations).protocols;
    assert_eq!(protocols[0].mapping, Mapping::EndpointDependent);
    assert_eq!(protocols[0].public_addresses.len(), MAX_PUBLIC_ADDRESSES);
}

#[test]
fn nothing_is_claimed_of_an_unknown_network() {
    let verdict = judge(&Observations::default());
    assert_eq!(verdict.direct, Direct::Unknown);
    assert_eq!((verdict.udp, verdict.ipv6), (None, None));
    assert_eq!(verdict.advice, [Advice::SecondBootNode]);
}

proptest! {
    /// The order in which peers answer does not matter.
    #[test]
    fn the_order_of_observations_does_not_matter(
        udp in 0..8usize,
        tcp in 0..8usize,
        turn in 0..8usize,
    ) {
        let all = [
            OPEN, FIREWALL, FULL_CONE, RESTRICTED, PORT_RESTRICTED, SYMMETRIC, BLOCKED, ONE_SERVER,
        ];
        let mut observations = Observations::default();
        observe(Transport::Udp, all[udp], &mut observations);
        observe(Transport::Tcp, all[tcp], &mut observations);
        let before = judge(&observations);
        observations.attempts.reverse();
        let turn = turn % observations.observed.len().max(1);
        observations.observed.rotate_left(turn);
        observations.dial_backs.reverse();
        prop_assert_eq!(judge(&observations), before);
    }
}
