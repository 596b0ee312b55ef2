use std::net::{IpAddr, Ipv4Addr};

use calimero_network_primitives::resources::{Limits, Protection, Resources};

use super::*;

fn origin(last: u8) -> Origin {
    Origin::of_ip(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)))
}

/// Takes as many permits as there are, and returns them with the reason of
/// the refusal.
fn fill(waiting: &Arc<Waiting>, holder: &Holder) -> (Vec<WaitPermit>, RefuseReason) {
    let (mut taken, peer) = (Vec::new(), holder.peer().unwrap());
    loop {
        match waiting.take(peer, holder) {
            Ok(permit) => taken.push(permit),
            Err(reason) => return (taken, reason),
        }
    }
}

#[test]
fn no_peer_and_no_origin_fills_the_queue() {
    let (waiting, resources) = (
        Arc::new(Waiting::new(1024)),
        Resources::new(Limits::default()),
    );
    let holder = |last| resources.holder(Some(PeerId::random()), Some(origin(last)));
    let (first, reason) = fill(&waiting, &holder(1));
    assert_eq!(
        (first.len(), reason),
        (384, RefuseReason::PeerLimit { limit: 384 })
    );
    let (second, reason) = fill(&waiting, &holder(1));
    let limit = 512;
    let origin = origin(1);
    assert_eq!(
        (second.len(), reason),
        (128, RefuseReason::OriginLimit { origin, limit })
    );
    // Peers of other origins have the rest, but for the reserve.
    let others: Vec<_> = (2..4).map(|last| fill(&waiting, &holder(last))).collect();
    assert_eq!(others[1].0.len(), 960 - 512 - 384);
    assert_eq!(others[1].1, RefuseReason::QueueFull { limit: 960 });
    let protected = holder(1);
    resources.protect(protected.peer().unwrap(), Protection::Member);
    let (reserve, reason) = fill(&waiting, &protected);
    assert_eq!(
        (reserve.len(), reason),
        (64, RefuseReason::QueueFull { limit: 1024 })
    );
    drop((first, second, others, reserve));
    let counts = waiting.counts();
    assert_eq!(counts.all, 0);
    assert!(counts.peers.is_empty() && counts.origins.is_empty());
}

#[test]
fn a_small_queue_has_no_shares() {
    for capacity in [1, 2, 15] {
        let waiting = Arc::new(Waiting::new(capacity));
        let resources = Resources::new(Limits::default());
        let holder = resources.holder(Some(PeerId::random()), Some(origin(1)));
        assert_eq!(fill(&waiting, &holder).0.len(), capacity);
    }
}
