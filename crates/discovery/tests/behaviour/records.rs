//! Kademlia records: all genuine ones are found, and others are neither stored nor reported.

use std::{collections::BTreeSet, time::Duration};

use calimero_network_discovery::{
    Behaviour, Event,
    behaviour::{QueryId, QueryOutcome, Quorum, Record, RecordError, RecordKey, RecordRefused},
};
use calimero_network_primitives::{Multiaddr, PeerId};
use futures::StreamExt;
use libp2p_kad::{self as kad, store::MemoryStore, store::RecordStore};
use libp2p_swarm::{StreamProtocol, Swarm, SwarmEvent};

use crate::common::{MEMORY, config, listen, node_with, spawn, swarm_of, until, within};

fn key() -> RecordKey {
    RecordKey::new(b"context and blob")
}

/// What is genuine here.
fn validator(record: &Record) -> Result<(), RecordRefused> {
    if record.value.starts_with(b"genuine") {
        Ok(())
    } else {
        Err(RecordRefused { reason: "forged" })
    }
}

fn node() -> Swarm<Behaviour> {
    node_with(MEMORY, &config(&[]), validator)
}

/// libp2p's own Kademlia, which validates nothing.
fn stranger() -> Swarm<kad::Behaviour<MemoryStore>> {
    let keypair = calimero_network_primitives::Keypair::generate_ed25519();
    let peer = PeerId::from(keypair.public());
    let protocol = StreamProtocol::new("/calimero/kad/1.0.0");
    let config = kad::Config::new(protocol);
    let mut kad = kad::Behaviour::with_config(peer, MemoryStore::new(peer), config);
    kad.set_mode(Some(kad::Mode::Server));
    swarm_of(&keypair, MEMORY, kad)
}

fn record(value: &[u8]) -> Record {
    Record::new(key(), value.to_vec())
}

/// A stranger that holds a record.
async fn holder(value: &[u8]) -> (PeerId, Multiaddr) {
    let mut stranger = stranger();
    stranger
        .behaviour_mut()
        .store_mut()
        .put(record(value))
        .unwrap();
    let at = listen(&mut stranger, MEMORY).await;
    let peer = *stranger.local_peer_id();
    spawn(stranger);
    (peer, at)
}

/// Lets `node` know of `peers` and be connected with them.
async fn introduce(node: &mut Swarm<Behaviour>, peers: &[(PeerId, Multiaddr)]) {
    let entries = peers.iter().map(
        |(peer, at)| calimero_network_discovery::machine::CacheEntry {
            peer: *peer,
            addresses: vec![at.clone()],
            age: Duration::ZERO,
        },
    );
    node.behaviour_mut().cache_loaded(entries.collect());
    let mut left: BTreeSet<_> = peers.iter().map(|(peer, _)| *peer).collect();
    until(&mut [node], |_, event| {
        if let SwarmEvent::ConnectionEstablished { peer_id, .. } = event {
            left.remove(peer_id);
        }
        left.is_empty().then_some(())
    })
    .await;
}

/// The values that a query finds, and how it ends.
async fn run(node: &mut Swarm<Behaviour>, id: QueryId) -> (Vec<Vec<u8>>, QueryOutcome) {
    let mut values = Vec::new();
    let outcome = until(&mut [node], |_, event| match event {
        SwarmEvent::Behaviour(Event::RecordsFound { query, records, .. }) => {
            assert_eq!(*query, id);
            values.extend(records.iter().map(|record| record.value.clone()));
            None
        }
        SwarmEvent::Behaviour(Event::QueryEnded { query, outcome }) => {
            assert_eq!(*query, id);
            Some(outcome.clone())
        }
        _ => None,
    })
    .await;
    values.sort();
    (values, outcome)
}

#[tokio::test]
async fn every_genuine_record_of_a_key_is_found_beside_forged_ones() {
    let holders = [
        holder(b"genuine 1").await,
        holder(b"forged").await,
        holder(b"genuine 2").await,
    ];
    let mut node = node();
    introduce(&mut node, &holders).await;
    let id = node.behaviour_mut().get_records(key()).unwrap();
    let (values, outcome) = run(&mut node, id).await;
    assert_eq!(values, [b"genuine 1", b"genuine 2"]);
    assert_eq!(outcome, QueryOutcome::Found { records: 2 });
}

#[tokio::test]
async fn a_record_is_stored_by_another_node_and_found_there() {
    let mut far = node();
    let at = listen(&mut far, MEMORY).await;
    let peer = *far.local_peer_id();
    spawn(far);
    let mut near = node();
    introduce(&mut near, &[(peer, at)]).await;
    let behaviour = near.behaviour_mut();
    let forged = behaviour.put_record(key(), b"forged".to_vec(), None, Quorum::One);
    assert!(matches!(forged, Err(RecordError::Refused(_))));
    let long = [&b"genuine"[..], &[0; 300]].concat();
    let long = behaviour.put_record(key(), long, None, Quorum::One);
    assert!(matches!(long, Err(RecordError::Store(_))));
    let id = behaviour.put_record(key(), b"genuine".to_vec(), None, Quorum::One);
    assert_eq!(run(&mut near, id.unwrap()).await.1, QueryOutcome::Stored);

    near.behaviour_mut().remove_record(&key());
    assert_eq!(near.behaviour_mut().status().records, 0);
    let id = near.behaviour_mut().get_records(key()).unwrap();
    assert_eq!(run(&mut near, id).await.0, [b"genuine"]);
}

#[tokio::test]
async fn a_query_that_is_stopped_ends() {
    let mut node = node();
    let holder = holder(b"genuine").await;
    introduce(&mut node, &[holder]).await;
    let id = node.behaviour_mut().get_records(key()).unwrap();
    node.behaviour_mut().stop_query(id);
    assert_eq!(
        run(&mut node, id).await.1,
        QueryOutcome::Found { records: 0 }
    );
}

/// Puts `record` to `node` as a stranger does, and waits until it was looked at.
async fn put(record: Record, node: &mut Swarm<Behaviour>) -> usize {
    let mut stranger = stranger();
    let at = listen(node, MEMORY).await;
    let peer = *node.local_peer_id();
    stranger.dial(at.clone()).unwrap();
    stranger.behaviour_mut().add_address(&peer, at);
    let to = stranger
        .behaviour_mut()
        .put_record_to(record, std::iter::once(peer), Quorum::One);
    within(async {
        loop {
            tokio::select! {
                event = stranger.select_next_some() => {
                    if let SwarmEvent::Behaviour(kad::Event::OutboundQueryProgressed {
                        id, step, ..
                    }) = event
                        && id == to
                        && step.last
                    {
                        break;
                    }
                }
                _ = node.select_next_some() => {}
            }
        }
    })
    .await;
    node.behaviour_mut().status().records
}

#[tokio::test]
async fn what_a_stranger_puts_is_stored_if_it_is_genuine_short_and_alive() {
    let mut node = node();
    assert_eq!(put(record(b"forged"), &mut node).await, 0);
    let long = [&b"genuine"[..], &[0; 300]].concat();
    assert_eq!(put(record(&long), &mut node).await, 0);
    // A record says how long it lives; a claim of one second is over after it.
    let mut short = record(b"genuine");
    short.expires = expiry(Duration::from_secs(1));
    put(short, &mut node).await;
    assert_eq!(put(record(b"genuine"), &mut node).await, 1);
    // A copy by another node is the same record.
    assert_eq!(put(record(b"genuine"), &mut node).await, 1);
}

#[tokio::test]
async fn an_expired_record_is_not_told() {
    let mut node = node();
    let mut dead = record(b"genuine");
    dead.expires = expiry(Duration::from_millis(3_500));
    assert_eq!(put(dead, &mut node).await, 1);
    loop {
        let id = node.behaviour_mut().get_records(key()).unwrap();
        let (values, outcome) = run(&mut node, id).await;
        let records = values.len();
        assert_eq!(outcome, QueryOutcome::Found { records });
        if records == 0 {
            return;
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "Kademlia takes a time of the clock"
)]
fn expiry(after: Duration) -> Option<std::time::Instant> {
    std::time::Instant::now().checked_add(after)
}
