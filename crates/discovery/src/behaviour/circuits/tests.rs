use super::*;

fn bytes(count: u64) -> CircuitLimit {
    CircuitLimit::new(None, Some(count))
}

#[test]
fn the_latest_limit_of_a_peer_counts_and_the_oldest_peer_is_dropped() {
    let mut latest = Latest::default();
    let peers: Vec<_> = (0..=MAX_STORED).map(|_| PeerId::random()).collect();
    let last = peers[MAX_STORED];
    for peer in &peers[..MAX_STORED] {
        latest.set(*peer, bytes(1));
    }
    // Of a known peer nothing is dropped, and it becomes the newest.
    latest.set(peers[0], bytes(2));
    assert_eq!(latest.get(&peers[0]), Some(bytes(2)));
    assert_eq!(latest.get(&peers[1]), Some(bytes(1)));
    latest.set(last, bytes(3));
    assert_eq!(latest.get(&peers[1]), None);
    assert_eq!(latest.0.len(), MAX_STORED);
    assert_eq!(latest.take(&last), Some(bytes(3)));
    assert_eq!(latest.take(&last), None);
}
