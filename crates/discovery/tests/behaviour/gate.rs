//! No spelling of a loopback address makes a node connect to its own host.

use std::time::Duration;

use calimero_network_discovery::{Behaviour, Event, behaviour::RefuseRecords, machine::CacheEntry};
use calimero_network_primitives::{
    Keypair, Multiaddr, PeerId,
    addr::{DialGate, DialPolicy},
    config::{PingConfig, TransportConfig},
};
use calimero_network_transport::build;
use libp2p_swarm::{Config, Swarm, SwarmEvent};
use tokio::net::TcpListener;

use crate::{
    common::{DEADLINE, TCP, config, listen, node, until},
    servers::{Setup, boot},
};

/// A node that is not on a local network, with the transport that it would have there.
fn victim(boot: &Multiaddr) -> Swarm<Behaviour> {
    let keypair = Keypair::generate_ed25519();
    let mut config = config(std::slice::from_ref(boot));
    config.local_network = false;
    let gate = DialGate::new(DialPolicy::Private, &config.boot);
    let transport = build(&keypair, &TransportConfig::default(), gate).unwrap();
    let (ping, relay) = (PingConfig::default(), transport.relay_client);
    let behaviour =
        Behaviour::new(&keypair, &config, &ping, "test", relay, RefuseRecords, 1).unwrap();
    let idle = Config::with_tokio_executor().with_idle_connection_timeout(DEADLINE);
    Swarm::new(
        transport.boxed,
        behaviour,
        keypair.public().to_peer_id(),
        idle,
    )
}

#[tokio::test]
async fn no_stranger_makes_a_node_connect_to_its_own_host() {
    let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = trap.local_addr().unwrap().port();
    let spellings: Vec<Multiaddr> = [
        format!("/ip4/127.0.0.1/tcp/{port}"),
        format!("/ip4/8.8.8.8/tcp/1/ip4/127.0.0.1/tcp/{port}"),
        format!("/ip6/::ffff:127.0.0.1/tcp/{port}"),
        format!("/dns4/localhost/tcp/{port}"),
    ]
    .iter()
    .map(|text| text.parse().unwrap())
    .collect();

    let (at, _boot) = boot(TCP, Setup::default()).await;
    let mut victim = victim(&at);
    let own = listen(&mut victim, TCP).await;
    // It registers these addresses at the rendezvous server, and identify sends them.
    let mut liar_config = config(std::slice::from_ref(&at));
    liar_config.external.clone_from(&spellings);
    let mut liar = node(TCP, &liar_config);
    let (liar_id, victim_id) = (*liar.local_peer_id(), *victim.local_peer_id());
    liar.dial(own).unwrap();
    victim.behaviour_mut().cache_loaded(vec![CacheEntry {
        peer: PeerId::random(),
        addresses: spellings,
        age: Duration::ZERO,
    }]);

    let (mut answers, mut identified) = (0, false);
    until(&mut [&mut victim, &mut liar], |who, event| {
        if who != victim_id {
            return None;
        }
        match event {
            SwarmEvent::Behaviour(Event::Discovered { members: 1.., .. }) => answers += 1,
            SwarmEvent::Behaviour(Event::Identified { peer, .. }) if *peer == liar_id => {
                identified = true;
            }
            _ => {}
        }
        (answers >= 1 && identified).then_some(())
    })
    .await;
    // Members that are not connected are dialled within some rounds of upkeep.
    victim.disconnect_peer_id(liar_id).unwrap();
    let mut answers = 0;
    until(&mut [&mut victim, &mut liar], |who, event| {
        let answer = matches!(event, SwarmEvent::Behaviour(Event::Discovered { .. }));
        answers += u32::from(who == victim_id && answer);
        (answers >= 5).then_some(())
    })
    .await;

    let trap = trap.into_std().unwrap();
    trap.set_nonblocking(true).unwrap();
    assert!(trap.accept().is_err(), "a connection was made");
    let known = victim.behaviour().cache();
    assert!(known.iter().all(|entry| entry.addresses.is_empty()));
}
