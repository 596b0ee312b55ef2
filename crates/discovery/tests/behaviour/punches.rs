//! Peers that stay relayed at first.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use calimero_network_discovery::{Behaviour, Event, behaviour::HolePunch, machine::Path};
use calimero_network_primitives::{Multiaddr, PeerId, addr::is_relayed};
use futures::AsyncWriteExt;
use libp2p_core::{Endpoint, transport::PortUse};
use libp2p_relay as relay;
use libp2p_stream as stream;
use libp2p_swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, StreamProtocol, Swarm, SwarmEvent,
    THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
};
use tokio::task::JoinHandle;

use crate::{
    common::{TCP, config, free_address, listen, node_within, until},
    servers::{Setup, boot},
};

const BULK: StreamProtocol = StreamProtocol::new("/bulk");

/// Lets in what comes through a relay, and the rest only when it is open.
struct Wall {
    open: Arc<AtomicBool>,
}

impl NetworkBehaviour for Wall {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = std::convert::Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        _: ConnectionId,
        local: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        if is_relayed(local) || self.open.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(ConnectionDenied::new(io::Error::other("a wall")))
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        never: THandlerOutEvent<Self>,
    ) {
        match never {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p_swarm::derive_prelude")]
struct Walled {
    wall: Wall,
    streams: stream::Behaviour,
    discovery: Behaviour,
}

/// A node that has a slot and nothing else, and one that listens behind a wall.
struct Pair {
    hidden: Swarm<Walled>,
    walled: Swarm<Walled>,
    open: Arc<AtomicBool>,
    _boot: JoinHandle<()>,
}

impl Pair {
    async fn new(relay: relay::Config, punch_backoff: Duration) -> Self {
        let setup = Setup {
            relay,
            ..Setup::default()
        };
        let (boot, task) = boot(TCP, setup).await;
        let mut config = config(&[boot]);
        config.relay.punch_min_backoff = punch_backoff;
        config.relay.punch_max_backoff = punch_backoff;
        let open = Arc::new(AtomicBool::new(false));
        let around = |discovery| Walled {
            wall: Wall { open: open.clone() },
            streams: stream::Behaviour::new(),
            discovery,
        };
        let hidden = node_within(TCP, &config, around);
        let address = free_address(TCP);
        config.external = vec![address.clone()];
        let mut walled = node_within(TCP, &config, around);
        listen(&mut walled, &address.to_string()).await;
        Self {
            hidden,
            walled,
            open,
            _boot: task,
        }
    }

    /// Waits until the walled node emits the wanted event about the hidden one.
    async fn told<T>(&mut self, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
        let (from, hidden) = (*self.walled.local_peer_id(), *self.hidden.local_peer_id());
        until(
            &mut [&mut self.hidden, &mut self.walled],
            |who, event| match event {
                SwarmEvent::Behaviour(WalledEvent::Discovery(event)) if who == from => {
                    let (Event::PathChanged { peer, .. } | Event::HolePunch { peer, .. }) = event
                    else {
                        return None;
                    };
                    wanted(event).filter(|_| *peer == hidden)
                }
                _ => None,
            },
        )
        .await
    }

    /// Waits until the way to the hidden node is another one.
    async fn path(&mut self) -> Option<Path> {
        self.told(|event| match event {
            Event::PathChanged { to, .. } => Some(*to),
            _ => None,
        })
        .await
    }
}

#[tokio::test]
async fn a_pair_that_could_not_be_punched_at_first_is_direct_later() {
    let mut pair = Pair::new(relay::Config::default(), Duration::from_millis(300)).await;
    assert_eq!(pair.path().await, Some(Path::Relayed));
    let failed = |event: &Event| match event {
        Event::HolePunch { outcome, .. } => Some(*outcome),
        path => panic!("{path:?}"),
    };
    // The round of the first connection, and one of another connection.
    assert_eq!(pair.told(failed).await, HolePunch::Failed);
    assert_eq!(pair.told(failed).await, HolePunch::Failed);
    let hidden = *pair.hidden.local_peer_id();
    let status = pair.walled.behaviour_mut().discovery.status();
    let peer = status.peers.iter().find(|peer| peer.peer == hidden);
    let peer = peer.unwrap();
    assert_eq!(peer.path, Path::Relayed);
    assert_eq!(peer.last_hole_punch, Some(HolePunch::Failed));
    assert!(peer.next_hole_punch.is_some());

    pair.open.store(true, Ordering::Relaxed);
    assert_eq!(pair.path().await, Some(Path::Direct));
    let status = pair.walled.behaviour_mut().discovery.status();
    let peer = status.peers.iter().find(|peer| peer.peer == hidden);
    assert_eq!(peer.unwrap().next_hole_punch, None);
}

#[tokio::test]
async fn a_circuit_whose_time_is_over_is_followed_by_another_and_a_hole_punch() {
    let relay = relay::Config {
        max_circuit_duration: Duration::from_secs(2),
        ..relay::Config::default()
    };
    let mut pair = Pair::new(relay, Duration::from_secs(3600)).await;
    assert_eq!(pair.path().await, Some(Path::Relayed));
    assert_eq!(pair.path().await, None);
    assert_eq!(pair.path().await, Some(Path::Relayed));
    pair.open.store(true, Ordering::Relaxed);
    // At the latest the next circuit is the beginning of a direct connection.
    while pair.path().await != Some(Path::Direct) {}
}

#[tokio::test]
async fn a_circuit_that_has_carried_enough_is_followed_by_another() {
    let relay = relay::Config {
        max_circuit_bytes: 128 * 1024,
        ..relay::Config::default()
    };
    let mut pair = Pair::new(relay, Duration::from_secs(3600)).await;
    assert_eq!(pair.path().await, Some(Path::Relayed));
    let hidden = *pair.hidden.local_peer_id();
    let mut incoming = pair.hidden.behaviour().streams.new_control();
    let mut incoming = incoming.accept(BULK).unwrap();
    let taker = tokio::spawn(async move {
        while let Some((_, mut stream)) = futures::StreamExt::next(&mut incoming).await {
            let _ = futures::io::copy(&mut stream, &mut futures::io::sink()).await;
        }
    });
    let mut control = pair.walled.behaviour().streams.new_control();
    let giver = tokio::spawn(async move {
        let mut stream = control.open_stream(hidden, BULK).await.unwrap();
        while stream.write_all(&[0; 4096]).await.is_ok() {}
    });
    assert_eq!(pair.path().await, None);
    assert_eq!(pair.path().await, Some(Path::Relayed));
    giver.await.unwrap();
    taker.abort();
}
