//! Against libp2p's own ping.

use calimero_network_discovery::liveness::{Behaviour, Event, Outcome};
use futures::StreamExt;
use libp2p_ping as ping;
use libp2p_swarm::SwarmEvent;

use crate::common::{DEADLINE, MEMORY, NEVER, OFTEN, QUIC, TCP, config, connect, swarm, within};

const PINGS: usize = 5;

/// Whether the event is an answer to one of our pings.
fn ours(event: SwarmEvent<Event>) -> bool {
    match event {
        SwarmEvent::Behaviour(Event { outcome, .. }) => {
            assert!(matches!(outcome, Outcome::Rtt(_)), "{outcome:?}");
            true
        }
        SwarmEvent::ConnectionClosed { cause, .. } => panic!("{cause:?}"),
        _ => false,
    }
}

/// Whether the event is an answer to one of theirs.
fn theirs(event: SwarmEvent<ping::Event>) -> bool {
    let SwarmEvent::Behaviour(ping::Event { result, .. }) = event else {
        return false;
    };
    result.unwrap();
    true
}

#[tokio::test]
async fn each_is_pinged_by_the_other_whoever_dialled() {
    for at in [MEMORY, TCP, QUIC] {
        for dials in [true, false] {
            let own = Behaviour::new(&config(OFTEN, DEADLINE, 1));
            let stock = ping::Behaviour::new(ping::Config::new().with_interval(OFTEN));
            let mut own = swarm(at, own, NEVER);
            let mut stock = swarm(at, stock, NEVER);
            if dials {
                connect(&mut own, &mut stock, at).await;
            } else {
                connect(&mut stock, &mut own, at).await;
            }
            let (mut pinged, mut answered) = (0, 0);
            let meeting = async {
                while pinged < PINGS || answered < PINGS {
                    tokio::select! {
                        event = own.select_next_some() => pinged += usize::from(ours(event)),
                        event = stock.select_next_some() => answered += usize::from(theirs(event)),
                    }
                }
            };
            within(meeting).await;
        }
    }
}
