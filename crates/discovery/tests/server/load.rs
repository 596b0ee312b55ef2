//! Stock clients in numbers, against a boot node that runs elsewhere: what each costs it is read
//! from its process and its metrics.
//!
//! ```text
//! calnet boot --local --listen /ip4/127.0.0.1/tcp/2428 --external /ip4/127.0.0.1/tcp/2428 --metrics 127.0.0.1:9428
//! BOOT_ADDRESS=/ip4/127.0.0.1/tcp/2428/p2p/12D3KooW... BOOT_CLIENTS=1000 \
//!     cargo test -p calimero-network-discovery --test server -- --ignored --nocapture load
//! ```

use std::time::Duration;

use calimero_network_primitives::{Keypair, Multiaddr, multiaddr::Protocol};
use futures::StreamExt;
use libp2p_rendezvous::{Namespace, client};
use libp2p_swarm::SwarmEvent;
use tokio::task::JoinSet;

use crate::common::{dial, swarm};

/// As many as a node of this network holds at one server, and one.
const REGISTRATIONS: usize = 32;

/// Number of namespaces in all.
const NAMESPACES: usize = 100;

/// Time in which the boot node can be looked at.
const PAUSE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a boot node, named by BOOT_ADDRESS"]
async fn clients_in_numbers_register_and_stay() {
    let address: Multiaddr = std::env::var("BOOT_ADDRESS").unwrap().parse().unwrap();
    let clients: usize = std::env::var("BOOT_CLIENTS").map_or(1000, |n| n.parse().unwrap());
    let Some(Protocol::P2p(server)) = address.iter().last() else {
        panic!("{address} names no peer");
    };
    let mut registering = JoinSet::new();
    for client in 0..clients {
        let keypair = Keypair::generate_ed25519();
        let mut swarm = swarm(&keypair, client::Behaviour::new(keypair.clone()));
        dial(&mut swarm, &address).await;
        // Both transports over both versions of IP: a record of four addresses.
        for external in [
            "/ip4/192.0.2.7/tcp/2428",
            "/ip4/192.0.2.7/udp/2428/quic-v1",
            "/ip6/2001:db8::1/tcp/2428",
            "/ip6/2001:db8::1/udp/2428/quic-v1",
        ] {
            swarm.add_external_address(external.parse().unwrap());
        }
        for index in 0..REGISTRATIONS {
            let number = (client * REGISTRATIONS + index) % NAMESPACES;
            let namespace = Namespace::new(format!("/calimero/ctx/{number:044}")).unwrap();
            let behaviour = swarm.behaviour_mut();
            behaviour.register(namespace, server, None).unwrap();
        }
        registering.spawn(async move {
            let mut registered = 0;
            while registered < REGISTRATIONS {
                match swarm.select_next_some().await {
                    SwarmEvent::Behaviour(client::Event::Registered { .. }) => registered += 1,
                    SwarmEvent::Behaviour(client::Event::RegisterFailed { error, .. }) => {
                        panic!("{error:?}")
                    }
                    SwarmEvent::ConnectionClosed { cause, .. } => panic!("{cause:?}"),
                    _ => {}
                }
            }
            swarm
        });
    }
    let mut swarms = Vec::new();
    while let Some(swarm) = registering.join_next().await {
        swarms.push(swarm.unwrap());
    }
    println!("{clients} clients are registered {REGISTRATIONS} times each");
    tokio::time::sleep(PAUSE).await;
}
