use super::*;

fn addresses(texts: &[&str]) -> Vec<Multiaddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn chosen(texts: &[&str], observed: &str, scopes: impl Into<DialScopes>) -> Option<(u32, bool)> {
    let (addresses, observed) = (addresses(texts), observed.parse().unwrap());
    let choice = choose(PeerId::random(), &addresses, &observed, scopes.into());
    choice.map(|choice| (choice.index, choice.is_own_ip))
}

#[test]
fn a_stranger_gets_nothing_of_this_host_or_its_network_dialled() {
    for address in [
        "/ip4/127.0.0.1/tcp/22",
        "/ip6/::1/tcp/22",
        "/ip4/10.0.0.9/tcp/22",
        "/ip4/192.168.1.1/tcp/80",
        "/ip4/169.254.169.254/tcp/80",
        "/ip6/::ffff:10.0.0.9/tcp/22",
        "/dns4/intranet.example/tcp/80",
        "/ip4/8.8.4.4/tcp/1/ip4/127.0.0.1/tcp/22",
        "/ip4/8.8.4.4/tcp/0",
    ] {
        let found = chosen(&[address], "/ip4/8.8.8.8/tcp/4001", DialPolicy::Private);
        assert_eq!(found, None, "{address}");
    }
}

#[test]
fn the_first_address_that_may_be_dialled_is_chosen() {
    let asked = [
        "/ip4/10.0.0.9/tcp/22",
        "/ip4/8.8.8.8/udp/4001/quic-v1",
        "/ip4/1.1.1.1/tcp/4001",
    ];
    let policy = DialPolicy::Private;
    assert_eq!(
        chosen(&asked, "/ip4/8.8.8.8/tcp/50000", policy),
        Some((1, true))
    );
    assert_eq!(
        chosen(&asked, "/ip4/8.8.4.4/tcp/50000", policy),
        Some((1, false))
    );
    // A peer in the same private network is dialled there.
    assert_eq!(
        chosen(&asked, "/ip4/10.0.0.9/tcp/50000", policy),
        Some((0, true))
    );
    let testing = ["/ip4/198.18.0.9/tcp/1"];
    for (laboratory, found) in [(false, None), (true, Some((0, false)))] {
        let scopes = DialScopes { policy, laboratory };
        assert_eq!(chosen(&testing, "/ip4/198.18.0.2/tcp/1", scopes), found);
    }
    assert_eq!(
        chosen(&["/memory/7"], "/memory/1", DialPolicy::Local),
        Some((0, false))
    );
}

#[test]
fn no_more_addresses_are_looked_at_than_the_limit() {
    let mut asked = vec!["/ip4/127.0.0.1/tcp/1"; MAX_ADDRESSES];
    asked.push("/ip4/8.8.8.8/tcp/1");
    assert_eq!(
        chosen(&asked, "/ip4/8.8.8.8/tcp/2", DialPolicy::Private),
        None
    );
}

#[test]
fn addresses_without_data_are_those_at_the_own_ip() {
    let peer = PeerId::random();
    let own = format!("/ip4/8.8.8.8/tcp/4001/p2p/{peer}");
    let other_peer = format!("/ip4/8.8.8.8/tcp/4002/p2p/{}", PeerId::random());
    let relayed = format!("/ip4/8.8.8.8/tcp/4003/p2p/{peer}/p2p-circuit");
    let asked = [
        "/ip4/1.1.1.1/tcp/4001",
        &own,
        "/ip4/8.8.8.8/tcp/4001",
        &other_peer,
        &relayed,
        "/dns4/example.org/tcp/4001",
        "/ip4/8.8.8.8/udp/4001/quic-v1",
    ];
    let chosen = |observed: &str, scopes: DialScopes| {
        let observed = observed.parse().unwrap();
        let chosen = choose_at_own_ip(peer, &addresses(&asked), &observed, scopes);
        let texts = chosen.iter().map(ToString::to_string);
        texts.collect::<Vec<_>>()
    };
    let own = ["/ip4/8.8.8.8/tcp/4001", "/ip4/8.8.8.8/udp/4001/quic-v1"];
    assert_eq!(chosen("/ip4/8.8.8.8/tcp/50000", DialScopes::default()), own);
    let circuit = format!("/ip4/8.8.8.8/tcp/1/p2p/{peer}/p2p-circuit");
    for observed in [
        "/ip4/9.9.9.9/tcp/50000",
        "/ip4/8.8.8.8/tcp/50000/ws",
        "/memory/7",
        &circuit,
    ] {
        let scopes = DialPolicy::Local.into();
        assert!(chosen(observed, scopes).is_empty(), "{observed}");
    }
}

#[test]
fn no_more_addresses_are_dialled_than_the_limit() {
    let asked: Vec<_> = (1..=10)
        .map(|port| format!("/ip4/8.8.8.8/tcp/{port}"))
        .collect();
    let asked: Vec<_> = asked.iter().map(|text| text.parse().unwrap()).collect();
    let observed = "/ip4/8.8.8.8/tcp/1".parse().unwrap();
    let chosen = choose_at_own_ip(PeerId::random(), &asked, &observed, DialScopes::default());
    assert_eq!(chosen.len(), MAX_DIALLED);
}
