use futures::task::noop_waker;
use libp2p_core::ConnectedPoint;

use super::*;

fn id(number: usize) -> ConnectionId {
    ConnectionId::new_unchecked(number)
}

fn endpoint() -> ConnectedPoint {
    ConnectedPoint::Dialer {
        address: Multiaddr::empty(),
        role_override: Endpoint::Dialer,
        port_use: PortUse::New,
    }
}

fn with_connections(peer: PeerId, count: usize) -> Keeper {
    let mut keeper = Keeper::default();
    for number in 0..count {
        keeper.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: id(number),
            endpoint: &endpoint(),
            failed_addresses: &[],
            other_established: number,
        }));
    }
    keeper
}

/// What connections are ordered: by number, whether they are kept alive.
fn orders(keeper: &mut Keeper) -> Vec<(ConnectionId, bool)> {
    let waker = noop_waker();
    let mut cx = Context::from_waker(&waker);
    let mut orders = Vec::new();
    while let Poll::Ready(ToSwarm::NotifyHandler { handler, event, .. }) = keeper.poll(&mut cx) {
        let NotifyHandler::One(connection) = handler else {
            panic!("an order goes to one connection");
        };
        orders.push((connection, event));
    }
    orders
}

#[test]
fn a_spare_is_not_kept_alive_until_it_is_needed_again() {
    let peer = PeerId::random();
    let mut keeper = with_connections(peer, 2);
    keeper.keep([peer].into());
    assert_eq!(orders(&mut keeper), [(id(0), true), (id(1), true)]);
    keeper.set_spare(peer, id(1), true);
    keeper.set_spare(peer, id(1), true);
    assert_eq!(orders(&mut keeper), [(id(1), false)]);
    keeper.set_spare(peer, id(1), false);
    assert_eq!(orders(&mut keeper), [(id(1), true)]);
}

#[test]
fn a_peer_that_is_kept_anew_does_not_keep_its_spares() {
    let peer = PeerId::random();
    let mut keeper = with_connections(peer, 2);
    keeper.set_spare(peer, id(0), true);
    assert_eq!(orders(&mut keeper), []);
    keeper.keep([peer].into());
    assert_eq!(orders(&mut keeper), [(id(1), true)]);
    // A new connection with the peer is not a spare.
    keeper.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
        peer_id: peer,
        connection_id: id(0),
        endpoint: &endpoint(),
        cause: None,
        remaining_established: 1,
    }));
    assert!(keeper.spares.is_empty());
}
