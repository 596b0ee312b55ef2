//! Floods that would take too long over a network.

#[cfg(target_os = "linux")]
#[path = "../../tests/support/alone.rs"]
mod alone;

use std::{
    collections::HashSet,
    task::{Context, Waker},
};

use calimero_network_primitives::{
    Keypair, Multiaddr, PeerId,
    config::{DiscoveryConfig, PingConfig},
};
use libp2p_core::{ConnectedPoint, Endpoint, transport::PortUse};
use libp2p_identify as identify;
use libp2p_kad as kad;
use libp2p_swarm::{
    ConnectionId, DialError, DialFailure, ExpiredListenAddr, FromSwarm, NetworkBehaviour,
    NewListenAddr, NotifyHandler, ToSwarm, behaviour::ConnectionEstablished,
    derive_prelude::ListenerId, dial_opts::PeerCondition,
};

use super::{Behaviour, RefuseRecords, inner::InnerEvent};
use crate::machine::Namespace;

fn behaviour() -> Behaviour {
    let (config, ping) = (DiscoveryConfig::default(), PingConfig::default());
    let identity = Keypair::generate_ed25519();
    Behaviour::new(&identity, &config, &ping, "test", None, RefuseRecords, 1).unwrap()
}

fn says(info: &identify::Info, addresses: Vec<Multiaddr>) -> InnerEvent {
    InnerEvent::Identify(identify::Event::Received {
        connection_id: ConnectionId::new_unchecked(0),
        peer_id: PeerId::random(),
        info: identify::Info {
            listen_addrs: addresses,
            ..info.clone()
        },
    })
}

fn info() -> identify::Info {
    identify::Info {
        public_key: Keypair::generate_ed25519().public(),
        protocol_version: String::new(),
        agent_version: String::new(),
        listen_addrs: Vec::new(),
        protocols: Vec::new(),
        observed_addr: Multiaddr::empty(),
        signed_peer_record: None,
    }
}

fn address(n: usize) -> Multiaddr {
    let (high, low) = ((n >> 8) & 0xff, n & 0xff);
    let port = 1 + n % 50_000;
    format!("/ip4/203.{high}.113.{low}/tcp/{port}")
        .parse()
        .unwrap()
}

/// Polls the behaviour until it is pending, as the Swarm does.
fn take(behaviour: &mut Behaviour) {
    let mut cx = Context::from_waker(Waker::noop());
    while behaviour.poll(&mut cx).is_ready() {}
}

/// Peers in the Kademlia table, and the most addresses of one of them.
fn table(behaviour: &mut Behaviour) -> (usize, usize) {
    let (mut peers, mut longest) = (0, 0);
    for bucket in behaviour.inner.kad.kbuckets() {
        for entry in bucket.iter() {
            peers += 1;
            longest = longest.max(entry.node.value.len());
        }
    }
    (peers, longest)
}

#[cfg(target_os = "linux")]
fn resident_mib() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4 / 1024
}

#[test]
#[cfg(target_os = "linux")]
fn a_hundred_thousand_strangers_leave_memory_flat() {
    if alone::ran_alone("behaviour::tests::a_hundred_thousand_strangers_leave_memory_flat") {
        return;
    }
    let mut behaviour = behaviour();
    let overlay = Namespace::new("/calimero/devnet/global").unwrap();
    let info = info();
    let mut half = 0;
    for n in 0..100_000 {
        let addresses = vec![address(n)];
        let event = says(&info, addresses);
        let InnerEvent::Identify(identify::Event::Received { peer_id, .. }) = &event else {
            unreachable!();
        };
        let peer = *peer_id;
        behaviour.on_inner_event(event);
        behaviour.member_seen(overlay.clone(), peer);
        take(&mut behaviour);
        if n == 50_000 {
            half = resident_mib();
        }
    }
    let grown = resident_mib().saturating_sub(half);
    assert!(grown <= 16, "{grown} MiB for the second half");
    let status = behaviour.status().discovery;
    let config = DiscoveryConfig::default();
    assert_eq!(status.known_peers, config.max_peers as usize);
    assert!(status.queued_dials <= config.dials.max_queued as usize);
    assert!(behaviour.dials.len() <= config.dials.max_in_flight as usize);
    let (peers, _) = table(&mut behaviour);
    assert!(
        (1..=256 * 20).contains(&peers),
        "{peers} in the Kademlia table"
    );
}

#[test]
fn a_peer_that_moves_all_the_time_has_few_addresses_anywhere() {
    let mut behaviour = behaviour();
    let peer = PeerId::random();
    let (connection, info) = (ConnectionId::new_unchecked(0), info());
    for n in 0..1_000 {
        let moved = identify::Info {
            listen_addrs: vec![address(n)],
            ..info.clone()
        };
        behaviour.on_inner_event(InnerEvent::Identify(identify::Event::Received {
            connection_id: connection,
            peer_id: peer,
            info: moved,
        }));
        take(&mut behaviour);
    }
    let max = DiscoveryConfig::default().book.max_addresses_per_peer as usize;
    let known: HashSet<_> = behaviour.known_addresses(&peer).into_iter().collect();
    assert_eq!(known.len(), max);
    let (peers, longest) = table(&mut behaviour);
    assert_eq!(peers, 1);
    assert!(
        longest <= max + 1,
        "{longest} addresses in the Kademlia table"
    );
}

/// Peers of one bucket of the Kademlia table, the farthest one.
fn far_from(behaviour: &Behaviour) -> impl Iterator<Item = PeerId> + use<> {
    let local = kad::KBucketKey::from(behaviour.local);
    let peers = std::iter::repeat_with(PeerId::random);
    peers.filter(move |peer| {
        let distance = local.distance(&kad::KBucketKey::from(*peer));
        distance.ilog2() == Some(255)
    })
}

#[test]
fn a_pending_peer_of_the_table_has_few_addresses() {
    let mut behaviour = behaviour();
    let mut peers = far_from(&behaviour);
    for (n, peer) in peers.by_ref().take(20).enumerate() {
        behaviour.add_route(&peer, address(n));
    }
    assert_eq!(table(&mut behaviour).0, 20);
    let peer = peers.next().unwrap();
    behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
        peer_id: peer,
        connection_id: ConnectionId::new_unchecked(1),
        endpoint: &ConnectedPoint::Listener {
            local_addr: address(1),
            send_back_addr: address(2),
        },
        failed_addresses: &[],
        other_established: 0,
    }));
    for n in 0..1_000 {
        behaviour.add_route(&peer, address(n));
    }
    let bucket = behaviour.inner.kad.kbucket(peer).unwrap();
    assert!(bucket.has_pending());
    let waiting = behaviour.inner.kad.remove_peer(&peer).unwrap();
    assert_eq!(waiting.node.value.len(), 1);
}

/// Connects a peer through `relay`.
fn relayed(behaviour: &mut Behaviour, id: usize, relay: PeerId) -> PeerId {
    let peer = PeerId::random();
    let relay = format!("/ip4/203.0.113.1/tcp/1/p2p/{relay}/p2p-circuit");
    behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
        peer_id: peer,
        connection_id: ConnectionId::new_unchecked(id),
        endpoint: &ConnectedPoint::Listener {
            local_addr: relay.parse().unwrap(),
            send_back_addr: format!("/p2p/{peer}").parse().unwrap(),
        },
        failed_addresses: &[],
        other_established: 0,
    }));
    take(behaviour);
    peer
}

#[test]
fn relayed_peers_cause_few_dials_of_addresses_that_they_name() {
    let mut behaviour = behaviour();
    let relay = PeerId::random();
    let mut dial = |peer, addresses, role| {
        let all: Vec<_> = (0..addresses).map(address).collect();
        let connection = ConnectionId::new_unchecked(1_000);
        let dial = &mut behaviour;
        let peer = match peer {
            Some((number, relay)) => relayed(dial, number, relay),
            None => PeerId::random(),
        };
        dial.handle_pending_outbound_connection(connection, Some(peer), &all, role)
            .is_ok()
    };
    for role in [Endpoint::Dialer, Endpoint::Listener] {
        assert!(!dial(Some((1, relay)), 400, role));
        // As many as rust-libp2p sends, and a peer that is not connected.
        assert!(dial(Some((2, relay)), 20, role));
        assert!(dial(None, 400, role));
    }
    let mut admitted = |relay: Option<PeerId>| {
        let of = |peer| (peer, relay.unwrap_or_else(PeerId::random));
        let peers = 10..310;
        peers
            .filter(|peer| dial(Some(of(*peer)), 20, Endpoint::Dialer))
            .count()
    };
    // 30 of one relay, and 120 in all where each peer has a relay of its own.
    assert_eq!(admitted(Some(relay)), 28);
    assert_eq!(admitted(None), 90);
}

/// A behaviour with a boot node whose first dial has failed, so that the next one waits.
fn without_its_boot_node() -> Behaviour {
    let boot = format!("/ip4/203.0.113.1/tcp/1/p2p/{}", PeerId::random());
    let config = DiscoveryConfig {
        boot: vec![boot.parse().unwrap()],
        ..DiscoveryConfig::default()
    };
    let identity = Keypair::generate_ed25519();
    let ping = PingConfig::default();
    let mut behaviour =
        Behaviour::new(&identity, &config, &ping, "test", None, RefuseRecords, 1).unwrap();
    for ip in ["192.168.1.2", "192.168.1.3"] {
        behaviour.on_swarm_event(FromSwarm::NewListenAddr(NewListenAddr {
            listener_id: ListenerId::next(),
            addr: &format!("/ip4/{ip}/tcp/2428").parse().unwrap(),
        }));
    }
    take(&mut behaviour);
    // The first address to listen on is a change of the network, so the first failure is repeated.
    while !behaviour.dials.is_empty() {
        fail_dial(&mut behaviour, &DialError::Aborted);
    }
    behaviour
}

/// The only dial of the machine fails.
fn fail_dial(behaviour: &mut Behaviour, error: &DialError) {
    let (connection, dialling) = behaviour.dials.iter().next().unwrap();
    let (connection_id, peer_id) = (*connection, Some(dialling.peer));
    behaviour.on_swarm_event(FromSwarm::DialFailure(DialFailure {
        peer_id,
        error,
        connection_id,
    }));
    take(behaviour);
}

#[test]
fn only_an_address_that_a_connection_uses_is_a_change_of_the_network() {
    let accept = |behaviour: &mut Behaviour, local: &str| {
        behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: PeerId::random(),
            connection_id: ConnectionId::new_unchecked(1),
            endpoint: &ConnectedPoint::Listener {
                local_addr: local.parse().unwrap(),
                send_back_addr: address(300),
            },
            failed_addresses: &[],
            other_established: 0,
        }));
        take(behaviour);
    };
    // The local address of the first connection is not known, as that of one dialled by name.
    for (local, is_change) in [
        ("/ip4/0.0.0.0/tcp/2428", false),
        ("/ip4/192.168.1.2/tcp/2428", true),
    ] {
        let mut behaviour = without_its_boot_node();
        accept(&mut behaviour, local);
        behaviour.on_swarm_event(FromSwarm::ExpiredListenAddr(ExpiredListenAddr {
            listener_id: ListenerId::next(),
            addr: &"/ip4/192.168.1.2/tcp/2428".parse().unwrap(),
        }));
        assert_eq!(behaviour.dials.len(), usize::from(is_change), "{local}");
    }
}

#[test]
fn a_dial_waits_only_for_another_dial() {
    let refused = DialError::DialPeerConditionFalse(PeerCondition::DisconnectedAndNotDialing);
    let mut behaviour = without_its_boot_node();
    behaviour.bootstrap();
    let peer = behaviour.dials.values().next().unwrap().peer;
    // A connection of which the machine does not know.
    fail_dial(&mut behaviour, &refused);
    assert!(behaviour.behind.is_empty());
    assert_eq!(behaviour.machine.status().dials_in_flight, 0);

    behaviour.bootstrap();
    let other = ConnectionId::new_unchecked(1_000);
    behaviour
        .handle_pending_outbound_connection(other, Some(peer), &[], Endpoint::Dialer)
        .unwrap();
    fail_dial(&mut behaviour, &refused);
    assert!(behaviour.behind.contains_key(&peer));
    behaviour.on_swarm_event(FromSwarm::DialFailure(DialFailure {
        peer_id: Some(peer),
        error: &DialError::Aborted,
        connection_id: other,
    }));
    assert_eq!(behaviour.dials.len(), 1);
}

#[test]
fn a_peer_that_pushes_many_observed_addresses_contributes_one() {
    let mut behaviour = behaviour();
    let listener_id = ListenerId::next();
    let listen = "/ip4/192.168.1.2/tcp/2428".parse().unwrap();
    behaviour.on_swarm_event(FromSwarm::NewListenAddr(NewListenAddr {
        listener_id,
        addr: &listen,
    }));
    let connect = |behaviour: &mut Behaviour, id| {
        let (peer, connection) = (PeerId::random(), ConnectionId::new_unchecked(id));
        behaviour
            .handle_pending_outbound_connection(connection, Some(peer), &[], Endpoint::Dialer)
            .unwrap();
        behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: connection,
            endpoint: &ConnectedPoint::Dialer {
                address: address(300),
                role_override: Endpoint::Dialer,
                port_use: PortUse::Reuse,
            },
            failed_addresses: &[],
            other_established: 0,
        }));
        (peer, connection)
    };
    let info = info();
    let observes = |behaviour: &mut Behaviour, (peer_id, connection_id), observed_addr| {
        let info = identify::Info {
            observed_addr,
            ..info.clone()
        };
        behaviour.on_inner_event(InnerEvent::Identify(identify::Event::Received {
            connection_id,
            peer_id,
            info,
        }));
        let mut cx = Context::from_waker(Waker::noop());
        let mut candidates = Vec::new();
        while let std::task::Poll::Ready(event) = behaviour.poll(&mut cx) {
            if let ToSwarm::NewExternalAddrCandidate(address) = event {
                candidates.push(address);
            }
        }
        candidates
    };
    let honest = connect(&mut behaviour, 1);
    assert_eq!(
        observes(&mut behaviour, honest, address(400)),
        [address(400)]
    );
    let other = connect(&mut behaviour, 2);
    let all = (500..530).map(|n| observes(&mut behaviour, other, address(n)));
    let all: Vec<_> = all.flatten().collect();
    assert_eq!(all, [address(500)]);
}

/// The connections that are probed when the local address `ip` disappears.
fn probed_without(behaviour: &mut Behaviour, ip: &str) -> Vec<ConnectionId> {
    let addr = &format!("/ip4/{ip}/tcp/2428").parse().unwrap();
    let listener_id = ListenerId::next();
    behaviour.on_swarm_event(FromSwarm::NewListenAddr(NewListenAddr {
        listener_id,
        addr,
    }));
    take(behaviour);
    behaviour.on_swarm_event(FromSwarm::ExpiredListenAddr(ExpiredListenAddr {
        listener_id,
        addr,
    }));
    let mut cx = Context::from_waker(Waker::noop());
    let mut probed = Vec::new();
    while let std::task::Poll::Ready(event) = behaviour.poll(&mut cx) {
        if let ToSwarm::NotifyHandler {
            handler: NotifyHandler::One(id),
            event,
            ..
        } = event
            && format!("{event:?}").contains("Probe")
        {
            probed.push(id);
        }
    }
    probed
}

#[test]
fn connections_of_other_addresses_are_not_probed() {
    let mut behaviour = behaviour();
    let accept = |behaviour: &mut Behaviour, id, local: &str| {
        let connection_id = ConnectionId::new_unchecked(id);
        behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: PeerId::random(),
            connection_id,
            endpoint: &ConnectedPoint::Listener {
                local_addr: local.parse().unwrap(),
                send_back_addr: address(300),
            },
            failed_addresses: &[],
            other_established: 0,
        }));
        connection_id
    };
    let lan = accept(&mut behaviour, 1, "/ip4/192.168.1.2/tcp/2428");
    accept(&mut behaviour, 2, "/ip4/192.168.1.3/tcp/2428");
    assert_eq!(probed_without(&mut behaviour, "172.17.0.1"), []);
    assert_eq!(probed_without(&mut behaviour, "192.168.1.2"), [lan]);
    // Its local address is not known.
    let any = accept(&mut behaviour, 3, "/ip4/0.0.0.0/tcp/2428");
    assert_eq!(probed_without(&mut behaviour, "172.17.0.1"), [any]);
    assert_eq!(probed_without(&mut behaviour, "169.254.1.1"), []);
}
