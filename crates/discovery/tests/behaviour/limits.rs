//! Connections within their limits, over real TCP.

use std::collections::HashSet;

use calimero_network_discovery::connections;
use calimero_network_primitives::{
    Keypair, Multiaddr, PeerId,
    config::{ConnectionsConfig, ConnectionsTuning},
    multiaddr::Protocol,
    resources::{Limit, Limits, Protection, Refused, Resource, Resources, Scope},
};
use futures::StreamExt;
use libp2p_swarm::{DialError, ListenError, Swarm, SwarmEvent, dial_opts::DialOpts, dummy};
use tokio::net::TcpStream;

use crate::{
    common::{TCP, swarm_of, within},
    forward::from_other_address,
};

/// Connections of the node under attack: 48 of each direction, 8 of them for protected peers.
const TOTAL: u32 = 64;
const STRANGERS: usize = 40;

type Victim = Swarm<connections::Behaviour>;
type Client = Swarm<dummy::Behaviour>;

fn victim() -> Victim {
    let mut limits = Limits::default();
    limits.set_connections(&ConnectionsConfig {
        max_established: TOTAL,
        ..ConnectionsConfig::default()
    });
    let behaviour = connections::Behaviour::new(Resources::new(limits));
    swarm_of(&Keypair::generate_ed25519(), TCP, behaviour)
}

fn client(keypair: &Keypair) -> Client {
    swarm_of(keypair, TCP, dummy::Behaviour)
}

async fn listen<B: libp2p_swarm::NetworkBehaviour>(swarm: &mut Swarm<B>, on: &str) -> Multiaddr {
    swarm.listen_on(on.parse().unwrap()).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address.with(Protocol::P2p(*swarm.local_peer_id()));
        }
    }
}

/// Dials `victim` and waits until both sides are connected, or the victim refuses.
async fn connect(
    victim: &mut Victim,
    address: &Multiaddr,
    client: &mut Client,
) -> Result<(), Refused> {
    let peer = *client.local_peer_id();
    client.dial(address.clone()).unwrap();
    loop {
        tokio::select! {
            event = victim.select_next_some() => match event {
                SwarmEvent::ConnectionEstablished { peer_id, .. } if peer_id == peer => return Ok(()),
                SwarmEvent::IncomingConnectionError { error: ListenError::Denied { cause }, .. } => {
                    return Err(*cause.downcast_ref::<Refused>().unwrap());
                }
                _ => {}
            },
            _ = client.select_next_some() => {}
        }
    }
}

/// Waits until `victim` admits or refuses an inbound connection.
async fn next_inbound(victim: &mut Victim) -> Result<(), Refused> {
    loop {
        match victim.select_next_some().await {
            SwarmEvent::ConnectionEstablished { .. } => return Ok(()),
            SwarmEvent::IncomingConnectionError {
                error: ListenError::Denied { cause },
                ..
            } => return Err(*cause.downcast_ref::<Refused>().unwrap()),
            _ => {}
        }
    }
}

/// Waits until `victim` is connected to `peer`, without a failure of any connection.
async fn await_connection(victim: &mut Victim, peer: PeerId) {
    loop {
        match victim.select_next_some().await {
            SwarmEvent::ConnectionEstablished { peer_id, .. } if peer_id == peer => return,
            SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error}"),
            SwarmEvent::IncomingConnectionError { error, .. } => panic!("{error}"),
            _ => {}
        }
    }
}

fn inbound(victim: &Victim) -> u64 {
    victim
        .behaviour()
        .resources()
        .used(Resource::InboundConnections)
}

/// One address connects more than a thousand times and gets its share. The rest stays for peers of
/// other addresses and for dials of the node, and no connection is closed for them.
#[tokio::test]
async fn one_address_gets_its_share_of_the_inbound_connections() {
    const PER_PEER: u32 = 8;
    const IDENTITIES: u64 = 130;
    let mut limits = Limits::default();
    limits.set_connections(&ConnectionsConfig {
        max_established: 512,
        tuning: ConnectionsTuning {
            max_per_peer: PER_PEER,
            ..ConnectionsTuning::default()
        },
        ..ConnectionsConfig::default()
    });
    let share = limits.get(Resource::InboundConnections).for_local().origin;
    assert_eq!(share, 256);
    let behaviour = connections::Behaviour::new(Resources::new(limits));
    let mut victim = swarm_of(&Keypair::generate_ed25519(), TCP, behaviour);
    let address = listen(&mut victim, TCP).await;
    let (mut admitted, mut refused) = (0, 0);
    for _ in 0..IDENTITIES {
        let mut attacker = client(&Keypair::generate_ed25519());
        for _ in 0..PER_PEER {
            let dial = DialOpts::unknown_peer_id().address(address.clone()).build();
            attacker.dial(dial).unwrap();
        }
        tokio::spawn(attacker.for_each(|_| async {}));
        for _ in 0..PER_PEER {
            match within(next_inbound(&mut victim)).await {
                Ok(()) => admitted += 1,
                Err(cause) => {
                    assert!(matches!(cause.scope, Scope::Origin(_)), "{cause}");
                    refused += 1;
                }
            }
        }
    }
    assert_eq!(admitted, share);
    assert_eq!(admitted + refused, IDENTITIES * u64::from(PER_PEER));

    within(async {
        let mut boot = client(&Keypair::generate_ed25519());
        let boot_address = listen(&mut boot, TCP).await;
        let boot_peer = *boot.local_peer_id();
        tokio::spawn(boot.for_each(|_| async {}));
        victim.dial(boot_address).unwrap();
        await_connection(&mut victim, boot_peer).await;

        let mut other = client(&Keypair::generate_ed25519());
        let other_peer = *other.local_peer_id();
        let forwarded = from_other_address(&address).await;
        other.dial(forwarded).unwrap();
        tokio::spawn(other.for_each(|_| async {}));
        await_connection(&mut victim, other_peer).await;
        assert_eq!(victim.behaviour().evicted(), 0);
    })
    .await;
}

/// One address connects with more identities than the node admits. The node still reaches its boot
/// node, admits a protected peer of the same address, and makes room for a peer of another address.
#[tokio::test]
async fn one_address_does_not_shut_others_out() {
    within(async {
        let mut victim = victim();
        let address = listen(&mut victim, TCP).await;
        let mut attackers = Vec::new();
        let mut refused = 0;
        for _ in 0..2 * STRANGERS {
            let mut attacker = client(&Keypair::generate_ed25519());
            match connect(&mut victim, &address, &mut attacker).await {
                Ok(()) => attackers.push(attacker),
                Err(reason) => {
                    assert!(!matches!(reason.scope, Scope::Peer(_)), "{reason}");
                    refused += 1;
                }
            }
        }
        assert_eq!((attackers.len(), refused), (STRANGERS, STRANGERS));
        assert_eq!(inbound(&victim), STRANGERS as u64);
        let attackers: HashSet<PeerId> = attackers
            .into_iter()
            .map(|attacker| {
                let peer = *attacker.local_peer_id();
                tokio::spawn(attacker.for_each(|_| async {}));
                peer
            })
            .collect();

        // The node's own dial.
        let mut boot = client(&Keypair::generate_ed25519());
        let boot_address = listen(&mut boot, TCP).await;
        let boot_peer = *boot.local_peer_id();
        tokio::spawn(boot.for_each(|_| async {}));
        victim.dial(boot_address).unwrap();
        await_connection(&mut victim, boot_peer).await;

        // A member behind the address of the attackers uses the reserve.
        let member = Keypair::generate_ed25519();
        let resources = victim.behaviour().resources().clone();
        resources.protect(member.public().to_peer_id(), Protection::Member);
        let mut member = client(&member);
        connect(&mut victim, &address, &mut member).await.unwrap();

        // Some of the crowd make room for a peer of another address.
        let mut other = client(&Keypair::generate_ed25519());
        let other_peer = *other.local_peer_id();
        let forwarded = from_other_address(&address).await;
        other.dial(forwarded).unwrap();
        tokio::spawn(other.for_each(|_| async {}));
        tokio::spawn(member.for_each(|_| async {}));
        let (mut admitted, mut closed) = (false, None);
        while !admitted || closed.is_none() {
            match victim.select_next_some().await {
                SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                    assert_eq!(peer_id, other_peer);
                    admitted = true;
                }
                SwarmEvent::ConnectionClosed { peer_id, .. } => closed = Some(peer_id),
                SwarmEvent::IncomingConnectionError { error, .. } => panic!("{error}"),
                _ => {}
            }
        }
        assert!(attackers.contains(&closed.unwrap()), "closed another peer");
        // A second one, because the member counts against what the reserve leaves to strangers.
        assert_eq!(victim.behaviour().evicted(), 2);
    })
    .await;
}

/// One address opens connections and sends nothing. A peer of another address still connects.
#[tokio::test]
async fn handshakes_that_stall_leave_room_for_other_addresses() {
    const SILENT: usize = 32;
    const SHARE: usize = 8;
    within(async {
        let mut limits = Limits::default();
        // A loopback address gets twice the limit of an origin.
        limits.update(Resource::PendingInbound, |limit| Limit {
            node: 16,
            origin: SHARE as u64 / 2,
            ..limit
        });
        let resources = Resources::new(limits);
        let behaviour = connections::Behaviour::new(resources.clone());
        let mut victim = swarm_of(&Keypair::generate_ed25519(), TCP, behaviour);
        let address = listen(&mut victim, TCP).await;
        let port = address.iter().find_map(|part| match part {
            Protocol::Tcp(port) => Some(port),
            _ => None,
        });
        let mut silent = Vec::new();
        for _ in 0..SILENT {
            let socket = TcpStream::connect(("127.0.0.1", port.unwrap())).await;
            silent.push(socket.unwrap());
        }
        for _ in 0..SILENT - SHARE {
            let refused = next_inbound(&mut victim).await.unwrap_err();
            assert_eq!(refused.resource, Resource::PendingInbound);
            assert!(matches!(refused.scope, Scope::Origin(_)), "{refused}");
        }
        assert_eq!(resources.used(Resource::PendingInbound), SHARE as u64);

        let mut other = client(&Keypair::generate_ed25519());
        let other_peer = *other.local_peer_id();
        other.dial(from_other_address(&address).await).unwrap();
        tokio::spawn(other.for_each(|_| async {}));
        loop {
            match victim.select_next_some().await {
                SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                    break assert_eq!(peer_id, other_peer);
                }
                SwarmEvent::IncomingConnectionError {
                    error: ListenError::Denied { cause },
                    ..
                } => panic!("{cause}"),
                _ => {}
            }
        }
    })
    .await;
}

/// Each direction has a budget of its own, and the refusal names it.
#[tokio::test]
async fn own_dials_are_limited_apart() {
    within(async {
        let mut limits = Limits::default();
        limits.set_connections(&ConnectionsConfig {
            max_established: 4,
            tuning: ConnectionsTuning {
                max_per_peer: 1,
                ..ConnectionsTuning::default()
            },
            ..ConnectionsConfig::default()
        });
        let resources = Resources::new(limits);
        let behaviour = connections::Behaviour::new(resources.clone());
        let mut node = swarm_of(&Keypair::generate_ed25519(), TCP, behaviour);
        let mut denied = None;
        for _ in 0..4 {
            let mut other = client(&Keypair::generate_ed25519());
            let address = listen(&mut other, TCP).await;
            tokio::spawn(other.for_each(|_| async {}));
            node.dial(address).unwrap();
            loop {
                match node.select_next_some().await {
                    SwarmEvent::ConnectionEstablished { .. } => break,
                    SwarmEvent::OutgoingConnectionError {
                        error: DialError::Denied { cause },
                        ..
                    } => {
                        denied = cause.downcast_ref::<Refused>().copied();
                        break;
                    }
                    SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error}"),
                    _ => {}
                }
            }
        }
        let denied = denied.expect("the fourth is above three quarters of the total");
        assert_eq!(
            (denied.resource, denied.limit),
            (Resource::OutboundConnections, 3)
        );
        assert_eq!(resources.used(Resource::PendingOutbound), 0);
        assert_eq!(resources.used(Resource::OutboundConnections), 3);
    })
    .await;
}
