use super::*;

#[test]
fn of_too_many_lost_peers_those_that_were_connected_first_are_remembered() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let now = at(100);
    let mut lost = LostPeers::default();
    let (old, first, later) = (PeerId::random(), PeerId::random(), PeerId::random());
    lost.add(first, at(50), now);
    for _ in 1..MAX_LOST {
        lost.add(PeerId::random(), at(60), now);
    }
    lost.add(later, at(60), now);
    assert_eq!(lost.take(&later, now), None);
    lost.add(old, at(10), now);
    assert_eq!(lost.0.len(), MAX_LOST);
    assert_eq!(lost.take(&old, now), Some(at(10)));
    assert_eq!(lost.take(&first, now), Some(at(50)));
}
