//! Nodes that know nothing but boot nodes meet, and stay together.

use std::collections::HashSet;

use calimero_network_discovery::{
    Behaviour, Event,
    behaviour::{Blocked, Quorum},
    machine::{Namespace, Path, Phase, Registration},
};
use calimero_network_primitives::{Multiaddr, PeerId, addr::peer_of};
use libp2p_swarm::{
    DialError, Swarm, SwarmEvent,
    dial_opts::{DialOpts, PeerCondition},
};

use crate::{
    common::{MEMORY, TCP, config, free_address, hasty, listen, node, spawn, told, until, vouched},
    servers::{Setup, boot, kill},
};

fn path_to(swarm: &mut Swarm<Behaviour>, peer: PeerId) -> Option<Path> {
    let status = swarm.behaviour_mut().status();
    let found = status.peers.iter().find(|one| one.peer == peer);
    found.map(|peer| peer.path)
}

/// Waits until each has a member connected in every overlay it follows.
async fn all_join(swarms: &mut [&mut Swarm<Behaviour>]) {
    let mut left: HashSet<_> = swarms.iter().map(|s| *s.local_peer_id()).collect();
    told(swarms, |peer, event| {
        if let Event::PhaseChanged { to, .. } = event {
            if *to == Phase::Joined {
                left.remove(&peer);
            } else {
                left.insert(peer);
            }
        }
        left.is_empty().then_some(())
    })
    .await;
}

async fn two_nodes_meet(at: &str) {
    let (boot, _task) = boot(at, Setup::default()).await;
    let server = peer_of(&boot).unwrap();
    // Configured external addresses need no probe.
    let config = config(&[boot]);
    let mut first = vouched(at, config.clone()).await;
    let mut second = vouched(at, config).await;
    all_join(&mut [&mut first, &mut second]).await;
    assert_eq!(
        path_to(&mut first, *second.local_peer_id()),
        Some(Path::Direct)
    );
    let status = first.behaviour_mut().status();
    let [registration] = &status.discovery.registrations[..] else {
        panic!("{status:?}");
    };
    assert_eq!(registration.server, server);
    assert!(matches!(
        registration.state,
        Registration::Registered { .. }
    ));
    let peer = &status.peers[0];
    assert_eq!(peer.connections.len(), 1);
    assert!(peer.connections[0].transport.is_some());
}

#[tokio::test]
async fn two_nodes_meet_over_memory() {
    two_nodes_meet(MEMORY).await;
}

#[tokio::test]
async fn two_nodes_meet_over_tcp() {
    two_nodes_meet(TCP).await;
}

#[tokio::test]
async fn losing_one_of_two_boot_nodes_loses_nothing_and_it_is_found_again() {
    let (setup, keypair) = (Setup::default(), Setup::default().keypair);
    let lost = Setup {
        keypair: keypair.clone(),
        ..Setup::default()
    };
    let (first_boot, first_task) = boot(TCP, lost).await;
    let (second_boot, _second_task) = boot(TCP, setup).await;
    let both = [first_boot.clone(), second_boot.clone()];
    let servers = both.clone().map(|address| peer_of(&address).unwrap());
    let mut one = vouched(TCP, config(&both)).await;
    let mut registered = HashSet::new();
    told(&mut [&mut one], |_, event| {
        if let Event::Registered { server, .. } = event {
            registered.insert(*server);
        }
        (registered.len() == 2).then_some(())
    })
    .await;

    kill(first_task).await;
    let gone = until(&mut [&mut one], |_, event| match event {
        SwarmEvent::ConnectionClosed { peer_id, .. } => Some(*peer_id),
        _ => None,
    })
    .await;
    assert_eq!(gone, servers[0]);
    // A stranger who knows the other one alone still meets it.
    let mut other = vouched(TCP, config(&both[1..])).await;
    all_join(&mut [&mut one, &mut other]).await;

    let back = Setup {
        keypair,
        ..Setup::default()
    };
    let at = calimero_network_primitives::addr::without_peer(&first_boot);
    let (_, _task) = boot(&at.to_string(), back).await;
    told(&mut [&mut one, &mut other], |_, event| match event {
        Event::Registered { server, .. } if *server == servers[0] => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn an_overlay_followed_later_is_joined_at_once_and_left_again() {
    let (boot, _task) = boot(MEMORY, Setup::default()).await;
    let mut quiet = config(&[boot]);
    quiet.global_namespace = String::new();
    let mut first = vouched(MEMORY, quiet.clone()).await;
    let mut second = vouched(MEMORY, quiet).await;
    let overlay = Namespace::new("/calimero/ctx/later").unwrap();
    first.behaviour_mut().follow(overlay.clone());
    second.behaviour_mut().follow(overlay.clone());
    all_join(&mut [&mut first, &mut second]).await;

    first.behaviour_mut().unfollow(overlay.clone());
    assert!(
        first
            .behaviour_mut()
            .status()
            .discovery
            .registrations
            .is_empty()
    );
    // A node that asks now learns of the second one only.
    let seen = told(&mut [&mut first, &mut second], |_, event| match event {
        Event::Discovered { members, .. } => Some(*members),
        _ => None,
    })
    .await;
    assert!(seen <= 2);
}

#[tokio::test]
async fn connections_with_boot_nodes_and_members_stay_however_idle() {
    let (boot, _task) = boot(MEMORY, Setup::default()).await;
    let server = peer_of(&boot).unwrap();
    let mut config = config(&[boot]);
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let address = free_address(MEMORY);
        config.external = vec![address.clone()];
        let mut node = hasty(MEMORY, &config);
        listen(&mut node, &address.to_string()).await;
        nodes.push(node);
    }
    let [first, second] = &mut nodes[..] else {
        unreachable!();
    };
    all_join(&mut [first, second]).await;
    // Every answer is a stream that ends, and a moment at which a connection is idle.
    let mut answers = 0;
    until(&mut [first, second], |_, event| {
        match event {
            SwarmEvent::Behaviour(Event::Discovered { .. }) => answers += 1,
            SwarmEvent::Behaviour(Event::PathChanged { peer, to: None, .. }) => {
                panic!("{peer} was let go; the boot node is {server}");
            }
            _ => {}
        }
        (answers == 6).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_lost_member_is_dialled_again() {
    let (boot, _task) = boot(MEMORY, Setup::default()).await;
    let config = config(&[boot]);
    let mut first = vouched(MEMORY, config.clone()).await;
    let mut second = vouched(MEMORY, config).await;
    all_join(&mut [&mut first, &mut second]).await;
    let other = *second.local_peer_id();
    first.disconnect_peer_id(other).unwrap();
    told(&mut [&mut first, &mut second], |_, event| match event {
        Event::PathChanged { from: None, to, .. } => *to,
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn a_restarted_node_dials_the_peers_it_remembers() {
    let config = config(&[]);
    let mut first = vouched(MEMORY, config.clone()).await;
    let mut second = node(MEMORY, &config);
    let at = listen(&mut first, MEMORY).await;
    second.dial(at).unwrap();
    let peer = *first.local_peer_id();
    until(&mut [&mut first, &mut second], |_, event| match event {
        SwarmEvent::Behaviour(Event::Identified { peer: who, .. }) if *who == peer => Some(()),
        _ => None,
    })
    .await;
    let cache = second.behaviour().cache();
    assert_eq!(cache[0].peer, peer);
    drop(second);

    let mut restarted = node(MEMORY, &config);
    restarted.behaviour_mut().cache_loaded(cache);
    told(
        &mut [&mut first, &mut restarted],
        |who, event| match event {
            Event::PathChanged { peer: to, .. } if who != peer && *to == peer => Some(()),
            _ => None,
        },
    )
    .await;
}

#[tokio::test]
async fn a_blocked_peer_is_denied_both_ways() {
    let config = config(&[]);
    let mut first = node(MEMORY, &config);
    let mut second = node(MEMORY, &config);
    let at = listen(&mut first, MEMORY).await;
    let (first_id, second_id) = (*first.local_peer_id(), *second.local_peer_id());
    second.dial(at.clone()).unwrap();
    let both = &mut [&mut first, &mut second];
    told(both, |who, event| match event {
        Event::PathChanged { to: Some(_), .. } if who == first_id => Some(()),
        _ => None,
    })
    .await;

    first.behaviour_mut().block(second_id);
    told(&mut [&mut first, &mut second], |who, event| match event {
        Event::PathChanged { to: None, .. } if who == first_id => Some(()),
        _ => None,
    })
    .await;
    let Err(DialError::Denied { cause }) = first.dial(second_id) else {
        panic!("a blocked peer was dialled");
    };
    let blocked = cause.downcast::<Blocked>().unwrap();
    assert_eq!(blocked.peer, second_id);
    second.dial(at).unwrap();
    until(&mut [&mut first, &mut second], |who, event| match event {
        SwarmEvent::IncomingConnectionError { .. } if who == first_id => Some(()),
        SwarmEvent::ConnectionEstablished { .. } if who == first_id => panic!("let in"),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn the_application_dials_by_peer_id_what_discovery_knows() {
    let config = config(&[]);
    let mut first = node(MEMORY, &config);
    let mut second = node(MEMORY, &config);
    let peer = *first.local_peer_id();
    let at = listen(&mut first, MEMORY).await;
    second.dial(at).unwrap();
    until(&mut [&mut first, &mut second], |_, event| match event {
        SwarmEvent::Behaviour(Event::Identified { peer: who, .. }) if *who == peer => Some(()),
        _ => None,
    })
    .await;
    let another = DialOpts::peer_id(peer).condition(PeerCondition::Always);
    second.dial(another.build()).unwrap();
    until(&mut [&mut first, &mut second], |who, event| match event {
        SwarmEvent::ConnectionEstablished {
            num_established, ..
        } if who != peer => (num_established.get() == 2).then_some(()),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn a_dial_that_meets_one_of_somebody_else_does_not_fail() {
    // The application names a wrong address, the configuration the right one.
    let (boot, _task) = boot(MEMORY, Setup::default()).await;
    let server = peer_of(&boot).unwrap();
    let mut config = config(&[boot]);
    config.redial.steps = [60_000; 5].map(std::time::Duration::from_millis);
    config.redial.steps[0] = std::time::Duration::ZERO;
    let mut node = node(MEMORY, &config);
    let nobody: Multiaddr = "/memory/1".parse().unwrap();
    let theirs = DialOpts::peer_id(server).addresses(vec![nobody]).build();
    node.dial(theirs).unwrap();
    told(&mut [&mut node], |_, event| match event {
        Event::PathChanged { peer, .. } if *peer == server => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn stopping_takes_registrations_back_and_ends_all_asking() {
    let (boot, _task) = boot(MEMORY, Setup::default()).await;
    let config = config(&[boot]);
    let mut first = vouched(MEMORY, config.clone()).await;
    told(&mut [&mut first], |_, event| {
        matches!(event, Event::Registered { .. }).then_some(())
    })
    .await;
    first.behaviour_mut().stop();
    told(&mut [&mut first], |_, event| {
        matches!(event, Event::SaveCache).then_some(())
    })
    .await;
    assert_eq!(
        first.behaviour_mut().status().discovery.phase,
        Phase::Stopped
    );
    spawn(first);
    // The registrations are removed before another node asks again.
    let mut second = vouched(MEMORY, config).await;
    told(&mut [&mut second], |_, event| match event {
        Event::Discovered { members: 0, .. } => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn queries_are_bounded() {
    let mut node = node(MEMORY, &config(&[]));
    let behaviour = node.behaviour_mut();
    let refused = behaviour.put_record(b"key".to_vec().into(), Vec::new(), None, Quorum::One);
    assert!(refused.is_err(), "this node takes no records");
    let mut running = 0;
    while behaviour.get_records(b"key".to_vec().into()).is_ok() {
        running += 1;
    }
    assert_eq!(running, calimero_network_discovery::behaviour::MAX_QUERIES);
}
