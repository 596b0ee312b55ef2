//! Slots on relays: granted, renewed, denied, lost, and never in the way of anything.

use std::time::Duration;

use calimero_network_discovery::{
    Behaviour, Event,
    behaviour::HolePunch,
    machine::{CircuitLimit, Path, Phase, Reservation},
};
use calimero_network_primitives::{
    Multiaddr, PeerId,
    addr::{is_relayed, peer_of, without_peer},
};
use futures::{AsyncWriteExt, StreamExt};
use libp2p_core::{ConnectedPoint, transport::PortUse};
use libp2p_relay as relay;
use libp2p_swarm::{Swarm, SwarmEvent};

use crate::{
    common::{MEMORY, TCP, config, listen, node, told, until, vouched, within},
    servers::{NEVER, Setup, boot, kill, script},
};

const HOP: &str = "/libp2p/circuit/relay/0.2.0/hop";

async fn granted(swarm: &mut Swarm<Behaviour>) -> bool {
    told(&mut [swarm], |_, event| match event {
        Event::ReservationGranted { renewed, .. } => Some(*renewed),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn an_unreachable_node_is_met_through_a_relay_and_then_directly() {
    let (boot, _task) = boot(TCP, Setup::default()).await;
    let config = config(&[boot]);
    // It does not listen, so nothing can be probed and the reservation is all that it has. It asks for
    // members once, before there is another one: it could dial that one directly.
    let mut once = config.clone();
    once.rendezvous.interval = NEVER;
    once.rendezvous.alone_interval = NEVER;
    let mut hidden = node(TCP, &once);
    let (mut external, mut granted, mut asked) = (None, false, false);
    let external = told(&mut [&mut hidden], |_, event| {
        match event {
            Event::ExternalAddressConfirmed { address } => external = Some(address.clone()),
            Event::ReservationGranted { renewed, .. } => granted = !renewed,
            Event::Discovered { .. } => asked = true,
            _ => {}
        }
        external.clone().filter(|_| granted && asked)
    })
    .await;
    assert!(is_relayed(&external));
    assert_eq!(peer_of(&external), Some(*hidden.local_peer_id()));

    let mut open = vouched(TCP, config).await;
    let (open_id, hidden_id) = (*open.local_peer_id(), *hidden.local_peer_id());
    let way = told(&mut [&mut hidden, &mut open], |who, event| match event {
        Event::PathChanged { peer, to, .. } if who == open_id && *peer == hidden_id => *to,
        _ => None,
    })
    .await;
    assert_eq!(way, Path::Relayed);
    let both = &mut [&mut hidden, &mut open];
    // The port that is listened on is left to the hole punch.
    let mut port = None;
    until(both, |who, event| match event {
        SwarmEvent::Behaviour(Event::PathChanged { peer, to, .. })
            if who == open_id && *peer == hidden_id =>
        {
            assert_eq!(*to, Some(Path::Direct));
            Some(())
        }
        SwarmEvent::ConnectionEstablished {
            peer_id, endpoint, ..
        } if who == hidden_id && *peer_id == open_id && !endpoint.is_relayed() => {
            if let ConnectedPoint::Dialer { port_use, .. } = endpoint {
                port.get_or_insert(*port_use);
            }
            None
        }
        _ => None,
    })
    .await;
    assert_eq!(port, Some(PortUse::New));
    // What runs on the relayed one has its time; then it is closed.
    until(both, |_, event| match event {
        SwarmEvent::ConnectionClosed { endpoint, .. } if endpoint.is_relayed() => Some(()),
        _ => None,
    })
    .await;
    let status = open.behaviour_mut().status();
    let peer = status.peers.iter().find(|p| p.peer == hidden_id).unwrap();
    assert_eq!(peer.path, Path::Direct);
    let status = hidden.behaviour_mut().status();
    let peer = status.peers.iter().find(|p| p.peer == open_id).unwrap();
    assert_eq!(peer.last_hole_punch, Some(HolePunch::Direct));
}

#[tokio::test]
async fn a_slot_is_renewed_before_it_ends() {
    let setup = Setup {
        relay: relay::Config {
            reservation_duration: Duration::from_secs(4),
            ..relay::Config::default()
        },
        ..Setup::default()
    };
    let (boot, _task) = boot(MEMORY, setup).await;
    let mut node = node(MEMORY, &config(&[boot]));
    assert!(!granted(&mut node).await);
    let renewed = told(&mut [&mut node], |_, event| match event {
        Event::ReservationGranted { renewed, .. } => Some(*renewed),
        Event::ReservationLost { .. } => panic!("lost before it was renewed"),
        _ => None,
    })
    .await;
    assert!(renewed);
}

#[tokio::test]
async fn a_lost_slot_takes_its_address_with_it_and_is_asked_for_again() {
    let setup = Setup::default();
    let keypair = setup.keypair.clone();
    let (boot_address, task) = boot(TCP, setup).await;
    let mut node = node(TCP, &config(std::slice::from_ref(&boot_address)));
    granted(&mut node).await;
    kill(task).await;
    let mut seen = Vec::new();
    told(&mut [&mut node], |_, event| {
        match event {
            Event::ReservationLost { .. } => seen.push("lost"),
            Event::ExternalAddressExpired { .. } => seen.push("withdrawn"),
            _ => {}
        }
        (seen.contains(&"lost") && seen.contains(&"withdrawn")).then_some(())
    })
    .await;
    assert_eq!(node.external_addresses().count(), 0);

    let again = Setup {
        keypair,
        ..Setup::default()
    };
    let at = without_peer(&boot_address).to_string();
    let (_, _task) = boot(&at, again).await;
    granted(&mut node).await;
}

#[tokio::test]
async fn a_relay_that_denies_is_asked_again_and_another_one_is_used() {
    let full = Setup {
        relay: relay::Config {
            max_reservations: 0,
            ..relay::Config::default()
        },
        ..Setup::default()
    };
    let (full, _full_task) = boot(MEMORY, full).await;
    let (free, _free_task) = boot(MEMORY, Setup::default()).await;
    let [full_id, free_id] = [&full, &free].map(|address| peer_of(address).unwrap());
    let mut config = config(&[full, free]);
    config.relays = 1;
    let mut node = node(MEMORY, &config);
    let used = told(&mut [&mut node], |_, event| match event {
        Event::ReservationGranted { relay, .. } => Some(*relay),
        _ => None,
    })
    .await;
    assert_eq!(used, free_id);

    // With two wanted, the full one is asked time and again.
    config.relays = 2;
    let mut node = crate::common::node(MEMORY, &config);
    let mut denied = 0;
    told(&mut [&mut node], |_, event| {
        if let Event::ReservationFailed { relay } = event {
            assert_eq!(*relay, full_id);
            denied += 1;
        }
        (denied == 3).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_relay_that_accepts_and_drops_is_no_storm() {
    let script = script(MEMORY, true).await;
    let relay = peer_of(&script.address).unwrap();
    let dropping = script.run_dropping(HOP);
    let mut config = config(&[dropping]);
    config.relay.min_backoff = Duration::from_millis(300);
    config.relay.max_backoff = Duration::from_millis(300);
    let mut node = node(MEMORY, &config);
    let (mut failed, mut connected) = (0, 0);
    until(&mut [&mut node], |_, event| {
        match event {
            SwarmEvent::Behaviour(Event::ReservationFailed { relay: by }) => {
                assert_eq!(*by, relay);
                failed += 1;
            }
            SwarmEvent::ConnectionEstablished { .. } => connected += 1,
            _ => {}
        }
        (failed == 5).then_some(())
    })
    .await;
    // One attempt for each connection that is up again, and one after each rest.
    assert!(connected <= failed + 1, "{connected} connections");
    let status = node.behaviour_mut().status();
    assert!(matches!(
        status.discovery.reservations[0].state,
        Reservation::Resting { .. } | Reservation::Requested { .. } | Reservation::Idle
    ));
}

#[tokio::test]
async fn an_answer_that_comes_after_the_slot_was_given_up_hurts_nobody() {
    let mut script = script(MEMORY, true).await;
    let (asked, told_of) = tokio::sync::oneshot::channel();
    let (go_on, wait) = tokio::sync::oneshot::channel::<()>();
    let mut once = Some((asked, wait));
    script.answer(HOP, move |_, _, mut stream| {
        let once = once.take();
        async move {
            if let Some((asked, wait)) = once {
                asked.send(()).unwrap();
                wait.await.unwrap();
                stream.write_all(&reservation()).await.unwrap();
                stream.flush().await.unwrap();
            }
            tokio::time::sleep(NEVER).await;
            drop(stream);
        }
    });
    let boot = script.run();
    let mut node = node(MEMORY, &config(std::slice::from_ref(&boot)));
    tokio::select! {
        result = told_of => result.unwrap(),
        () = drive(&mut node) => {}
    }
    node.behaviour_mut().stop();
    until(&mut [&mut node], |_, event| match event {
        SwarmEvent::ListenerClosed { .. } => Some(()),
        _ => None,
    })
    .await;
    go_on.send(()).unwrap();
    // The late answer arrives here without a listener. Another node connects nevertheless.
    let at = listen(&mut node, MEMORY).await;
    let mut other = crate::common::node(MEMORY, &config(&[]));
    other.dial(at).unwrap();
    until(&mut [&mut node, &mut other], |_, event| match event {
        SwarmEvent::Behaviour(Event::Identified { .. }) => Some(()),
        _ => None,
    })
    .await;
    assert_eq!(
        node.behaviour_mut().status().discovery.phase,
        Phase::Stopped
    );
}

/// What a relay says that grants a slot until 2100.
fn reservation() -> Vec<u8> {
    #[derive(prost::Message)]
    struct Hop {
        #[prost(int32, required, tag = "1")]
        kind: i32,
        #[prost(message, optional, tag = "3")]
        reservation: Option<Granted>,
        #[prost(int32, optional, tag = "5")]
        status: Option<i32>,
    }
    #[derive(prost::Message)]
    struct Granted {
        #[prost(uint64, required, tag = "1")]
        expire: u64,
        #[prost(bytes = "vec", repeated, tag = "2")]
        addresses: Vec<Vec<u8>>,
    }
    let message = Hop {
        kind: 2,
        reservation: Some(Granted {
            expire: 4_102_444_800,
            addresses: vec!["/memory/7".parse::<Multiaddr>().unwrap().to_vec()],
        }),
        status: Some(100),
    };
    prost::Message::encode_length_delimited_to_vec(&message)
}

async fn drive(swarm: &mut Swarm<Behaviour>) {
    loop {
        swarm.next().await;
    }
}

/// The limit of the circuit between `swarm` and `peer`, if it is known.
fn circuit_limit(swarm: &mut Swarm<Behaviour>, peer: PeerId) -> Option<CircuitLimit> {
    let status = swarm.behaviour_mut().status();
    let peer = status.peers.into_iter().find(|one| one.peer == peer)?;
    let mut connections = peer.connections.iter();
    connections.find_map(|connection| connection.circuit_limit)
}

#[tokio::test]
async fn both_ends_of_a_circuit_know_its_limit() {
    let (bytes, duration) = (123_456, Duration::from_secs(77));
    let setup = Setup {
        relay: relay::Config {
            max_circuit_bytes: bytes,
            max_circuit_duration: duration,
            ..relay::Config::default()
        },
        ..Setup::default()
    };
    let (boot, _task) = boot(TCP, setup).await;
    let config = config(&[boot]);
    let mut hidden = node(TCP, &config);
    granted(&mut hidden).await;
    let limit = CircuitLimit::new(Some(duration), Some(bytes));
    let status = hidden.behaviour_mut().status().discovery;
    assert_eq!(status.reservations[0].circuit_limit, Some(limit));

    let mut open = vouched(TCP, config).await;
    let (open_id, hidden_id) = (*open.local_peer_id(), *hidden.local_peer_id());
    let found = within(async {
        loop {
            tokio::select! {
                _ = hidden.select_next_some() => {}
                _ = open.select_next_some() => {}
            }
            let ends = (
                circuit_limit(&mut hidden, open_id),
                circuit_limit(&mut open, hidden_id),
            );
            if let (Some(accepted), Some(dialled)) = ends {
                return [accepted, dialled];
            }
        }
    })
    .await;
    assert_eq!(found, [limit; 2]);
}

#[tokio::test]
async fn a_relay_that_names_no_limit_has_none() {
    let mut script = script(MEMORY, true).await;
    script.answer(HOP, |_, _, mut stream| async move {
        stream.write_all(&reservation()).await.unwrap();
        stream.flush().await.unwrap();
    });
    let boot = script.run();
    let mut node = node(MEMORY, &config(&[boot]));
    granted(&mut node).await;
    let status = node.behaviour_mut().status().discovery;
    let limit = status.reservations[0].circuit_limit;
    assert!(limit.is_some_and(|limit| limit.is_unlimited()), "{limit:?}");
}
