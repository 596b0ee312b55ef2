use calimero_network_primitives::Keypair;

use super::*;
use crate::error::ChunkError;

fn peer_of(seed: u8) -> PeerId {
    let key = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
    key.public().to_peer_id()
}

fn peer() -> PeerId {
    peer_of(1)
}

fn session(number: u64) -> SessionId {
    SessionId {
        peer: peer(),
        number,
    }
}

fn book() -> Book {
    let mut book = Book::new(1);
    assert!(book.found(peer(), |_| false).is_some());
    book
}

#[test]
fn what_came_before_a_failure_does_not_undo_it() {
    let mut book = book();
    let received_bytes = 7;
    book.failed(session(1), ProviderError::Closed { received_bytes });
    book.verified(session(1), 7);
    let failures = book.failures();
    assert!(
        matches!(failures[..], [ref only] if matches!(only.reason, ProviderError::Closed { received_bytes: 7 })),
        "{failures:?}"
    );
    assert_eq!(book.verified_bytes, 7);
}

#[test]
fn what_comes_after_a_failure_undoes_it() {
    let mut book = book();
    let after = Duration::from_secs(1);
    book.failed(session(1), ProviderError::Stalled { after });
    book.verified(session(2), 7);
    assert!(book.failures().is_empty());
}

#[test]
fn nothing_undoes_a_lie() {
    let mut book = book();
    let lie = ChunkError::Mismatch { index: 0 };
    book.failed(session(1), ProviderError::Chunk(lie));
    book.verified(session(2), 7);
    assert_eq!(book.failures().len(), 1);
    assert!(book.v1().is_empty());
}

#[test]
fn a_provider_that_has_failed_makes_room_for_a_further_one() {
    let after = Duration::from_secs(1);
    let mut book = Book::new(2);
    let idle = |_: &PeerId| false;
    assert!(book.found(peer_of(1), idle).is_some());
    assert!(book.found(peer_of(2), idle).is_some());
    assert_eq!(book.found(peer_of(3), idle), None, "both may still give it");
    for (seed, number) in [(2, 1), (1, 2)] {
        let peer = peer_of(seed);
        book.failed(SessionId { peer, number }, ProviderError::Stalled { after });
    }
    assert_eq!(
        book.found(peer_of(3), |_| true),
        None,
        "both are asked again"
    );
    // The one that failed first. It does not return at the expense of another one.
    let found = book.found(peer_of(3), idle).unwrap();
    assert_eq!(found.in_place_of, Some(peer_of(2)));
    assert!(!found.is_early);
    assert_eq!(book.found(peer_of(2), idle), None);
    // One that has given something stays.
    let (peer, number) = (peer_of(1), 3);
    book.verified(SessionId { peer, number }, 7);
    book.failed(SessionId { peer, number }, ProviderError::Stalled { after });
    assert_eq!(book.found(peer_of(4), idle), None);
}
