use super::*;

#[test]
fn a_peer_has_left_only_if_it_closed_a_direct_connection() {
    let remote = |cause| CloseReason::Remote { cause };
    let closed = remote(CloseCause::Closed);
    assert!(has_left(Path::Direct, &closed));
    let relayed = [None, Some(PeerId::random())].map(|relay| Path::Relayed { relay });
    for path in relayed {
        assert!(!has_left(path, &closed), "{path}");
    }
    let lost = [
        remote(CloseCause::Reset),
        remote(CloseCause::TimedOut),
        remote(CloseCause::Unreachable),
        CloseReason::Unresponsive,
        CloseReason::Local,
    ];
    for reason in lost {
        assert!(!has_left(Path::Direct, &reason), "{reason}");
    }
}
