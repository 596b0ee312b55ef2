//! The accounting of unread data, without a connection.

use calimero_network_primitives::resources::{Limit, Limits, Origin, Protection, Resources};
use libp2p_identity::PeerId;

use super::*;

const SYN: u16 = 1;

fn header(flags: u16, stream: u32, length: usize) -> Header {
    let mut bytes = vec![0, 0];
    bytes.extend(flags.to_be_bytes());
    bytes.extend(stream.to_be_bytes());
    bytes.extend((length as u32).to_be_bytes());
    Header::of(&bytes).unwrap()
}

/// Resources in which one peer, as all peers together, may hold that many unread bytes.
fn resources(bytes: u64) -> Resources {
    let mut limits = Limits::default();
    limits.update(Resource::UnreadBytes, |_| Limit {
        node: bytes,
        reserve: 0,
        origin: bytes,
        peer: bytes,
    });
    Resources::new(limits)
}

fn unread(resources: &Resources) -> Arc<Unread> {
    let holder = resources.holder(Some(PeerId::random()), None);
    Unread::new(holder, &Arc::default())
}

/// Opens a stream. Its handle has no stream of the `yamux` crate.
fn open(unread: &Unread, stream: u32) -> Inner {
    let inner = Inner::default();
    unread.receive(&header(SYN, stream, 0)).unwrap();
    unread.opened(stream, &inner);
    inner
}

#[test]
fn a_frame_counts_with_its_memory_until_it_is_read() {
    let unread = unread(&resources(1 << 20));
    let inner = open(&unread, 1);
    for length in [100, 50] {
        unread.receive(&header(0, 1, length)).unwrap();
    }
    assert_eq!(unread.held(), 100 + 50 + 2 * FRAME_BYTES);
    for (read, held) in [
        (99, 1 + 50 + 2 * FRAME_BYTES),
        (0, 1 + 50 + 2 * FRAME_BYTES),
        (1, 50 + FRAME_BYTES),
        (50, 0),
        // More than has arrived is not taken.
        (1, 0),
    ] {
        unread.read(1, &inner, read);
        assert_eq!(unread.held(), held, "{read}");
    }
    // Several frames at one time.
    for length in [100, 50] {
        unread.receive(&header(0, 1, length)).unwrap();
    }
    unread.read(1, &inner, 120);
    assert_eq!(unread.held(), 30 + FRAME_BYTES);
}

#[test]
fn frames_of_unknown_streams_and_without_data_do_not_count() {
    let unread = unread(&resources(1 << 20));
    unread.receive(&header(0, 1, 100)).unwrap();
    let _inner = open(&unread, 3);
    unread.receive(&header(0, 3, 0)).unwrap();
    assert_eq!((unread.held(), unread.streams()), (0, 1));
    // The first frame of a stream counts, before the stream is accepted.
    unread.receive(&header(SYN, 5, 7)).unwrap();
    assert_eq!(unread.held(), 7 + FRAME_BYTES);
    assert_eq!(unread.streams(), 2);
}

#[test]
fn the_handle_of_another_stream_reads_and_drops_nothing() {
    let unread = unread(&resources(1 << 20));
    let inner = open(&unread, 1);
    unread.receive(&header(0, 1, 100)).unwrap();
    let (held, other) = (unread.held(), Inner::default());
    unread.read(1, &other, 100);
    unread.dropped(1, &other);
    unread.read(3, &inner, 100);
    unread.dropped(3, &inner);
    unread.refused(3);
    unread.freed();
    assert_eq!((unread.held(), unread.streams()), (held, 1));
    unread.dropped(1, &inner);
    assert_eq!((unread.held(), unread.streams()), (held, 1));
    unread.freed();
    assert_eq!((unread.held(), unread.streams()), (0, 0));
}

#[test]
fn a_refused_stream_counts_until_its_data_is_freed() {
    let unread = unread(&resources(1 << 20));
    unread.receive(&header(SYN, 1, 100)).unwrap();
    unread.refused(1);
    assert_eq!(unread.held(), 100 + FRAME_BYTES);
    assert!(!unread.relieve(Scope::Node), "it is reset already");
    unread.freed();
    assert_eq!((unread.held(), unread.streams()), (0, 0));
}

#[test]
fn the_accounting_counts_whole_steps_beyond_what_is_not_counted() {
    let step = STEP_BYTES as u64;
    for (held, expected) in [
        (0, 0),
        (UNCOUNTED_BYTES, 0),
        (UNCOUNTED_BYTES + 1, step),
        (UNCOUNTED_BYTES + STEP_BYTES, step),
        (UNCOUNTED_BYTES + STEP_BYTES + 1, 2 * step),
    ] {
        assert_eq!(counted(held), expected, "{held}");
    }
    let resources = resources(1 << 20);
    let unread = unread(&resources);
    let used = || resources.used(Resource::UnreadBytes);
    let inner = open(&unread, 1);
    unread
        .receive(&header(0, 1, UNCOUNTED_BYTES - FRAME_BYTES))
        .unwrap();
    assert_eq!(used(), 0);
    for expected in [step, 2 * step, 3 * step] {
        unread
            .receive(&header(0, 1, STEP_BYTES - FRAME_BYTES))
            .unwrap();
        assert_eq!(used(), expected);
    }
    // One step more than is held is retained, so that reading and receiving in turns costs nothing.
    unread.read(1, &inner, STEP_BYTES);
    assert_eq!(used(), 3 * step);
    unread.read(1, &inner, STEP_BYTES);
    assert_eq!(used(), step);
    unread.read(1, &inner, STEP_BYTES);
    assert_eq!(used(), 0);
}

#[test]
fn a_frame_beyond_the_limit_is_refused_and_changes_nothing() {
    let resources = resources(2 * STEP_BYTES as u64);
    let unread = unread(&resources);
    let inner = open(&unread, 1);
    let most = UNCOUNTED_BYTES + 2 * STEP_BYTES;
    let whole = header(0, 1, most - FRAME_BYTES);
    assert!(unread.has_room(&whole));
    unread.receive(&whole).unwrap();
    let more = header(0, 1, 1);
    assert!(!unread.has_room(&more));
    let refused = unread.receive(&more).unwrap_err();
    assert_eq!(refused.resource, Resource::UnreadBytes);
    assert_eq!(unread.held(), most);
    // What does not count has room always.
    for other in [header(0, 3, 1), header(0, 1, 0)] {
        assert!(unread.has_room(&other));
        unread.receive(&other).unwrap();
    }
    unread.read(1, &inner, 1 + FRAME_BYTES);
    assert!(unread.has_room(&more));
    unread.receive(&more).unwrap();
    assert_eq!(unread.held(), most);
}

/// What others hold leaves room within the step that is counted already.
#[test]
fn a_step_that_is_counted_has_room_whatever_others_hold() {
    let resources = resources(2 * STEP_BYTES as u64);
    let unread = unread(&resources);
    let _inner = open(&unread, 1);
    unread.receive(&header(0, 1, UNCOUNTED_BYTES)).unwrap();
    let others = resources.holder(None, None);
    let _all = others
        .take(Resource::UnreadBytes, STEP_BYTES as u64)
        .unwrap();
    let rest = STEP_BYTES - FRAME_BYTES;
    assert!(!unread.has_room(&header(0, 1, rest - FRAME_BYTES + 1)));
    let fitting = header(0, 1, rest - FRAME_BYTES);
    assert!(unread.has_room(&fitting));
    unread.receive(&fitting).unwrap();
}

#[test]
fn the_largest_stream_is_reset_once() {
    let unread = unread(&resources(1 << 20));
    let inners: Vec<_> = (0..3).map(|nth| open(&unread, 2 * nth + 1)).collect();
    for (stream, length) in [(1, 10), (3, 1000), (5, 20)] {
        unread.receive(&header(0, stream, length)).unwrap();
    }
    assert_eq!(unread.can_free(), 1030 + 3 * FRAME_BYTES);
    assert!(unread.reset_largest());
    assert_eq!(unread.can_free(), 30 + 2 * FRAME_BYTES);
    // Its reader is no longer the one of the stream.
    unread.read(3, &inners[1], 1000);
    assert_eq!(unread.held(), 1030 + 3 * FRAME_BYTES);
    unread.freed();
    assert_eq!(unread.held(), 30 + 2 * FRAME_BYTES);
    assert!(unread.reset_largest());
    assert_eq!(unread.can_free(), 10 + FRAME_BYTES);
    assert!(unread.reset_largest());
    // Streams without data are not reset.
    let _empty = open(&unread, 7);
    assert!(!unread.reset_largest());
    unread.freed();
    assert_eq!((unread.held(), unread.streams()), (0, 1));
}

#[test]
fn the_largest_connection_is_looked_for_in_the_scope_of_the_limit() {
    let resources = resources(1 << 20);
    let connections = Arc::default();
    let origins = [1, 2].map(|last| Origin::of_ip([192, 0, 2, last].into()));
    let peers: [PeerId; 3] = std::array::from_fn(|_| PeerId::random());
    let connection = |peer, origin, bytes| {
        let unread = Unread::new(resources.holder(Some(peer), Some(origin)), &connections);
        let inner = open(&unread, 1);
        unread.receive(&header(0, 1, bytes)).unwrap();
        (unread, inner)
    };
    let all = [
        connection(peers[0], origins[0], 1000),
        connection(peers[1], origins[0], 2000),
        connection(peers[2], origins[1], 3000),
    ];
    let largest = |scope, protected| {
        let largest = connections.largest(scope, protected)?;
        all.iter().position(|(one, _)| Arc::ptr_eq(one, &largest))
    };
    assert_eq!(largest(Scope::Node, false), Some(2));
    assert_eq!(largest(Scope::Origin(origins[0]), false), Some(1));
    assert_eq!(largest(Scope::Origin(origins[1]), false), Some(2));
    assert_eq!(largest(Scope::Peer(peers[0]), false), Some(0));
    assert_eq!(largest(Scope::Peer(PeerId::random()), false), None);
    resources.protect(peers[2], Protection::BootNode);
    assert_eq!(largest(Scope::Node, false), Some(1));
    assert_eq!(largest(Scope::Node, true), Some(2));
    // A stranger makes room among strangers, and a protected peer among all.
    assert!(all[0].0.relieve(Scope::Node));
    assert_eq!(all[1].0.can_free(), 0);
    assert!(all[2].0.relieve(Scope::Node));
    assert_eq!(all[2].0.can_free(), 0);
    // Where the others can free nothing, the connection resets a stream of its own.
    assert!(all[0].0.relieve(Scope::Origin(origins[1])));
    assert_eq!(all[0].0.can_free(), 0);
    assert!(!all[0].0.relieve(Scope::Node));
}

#[test]
fn connections_that_have_ended_are_forgotten() {
    let (resources, connections) = (resources(1 << 20), Arc::new(Connections::default()));
    let open = || {
        let holder = resources.holder(Some(PeerId::random()), None);
        Unread::new(holder, &connections)
    };
    let known = || lock(&connections.all).0.len();
    for _ in 0..10 * SWEEP_FROM {
        drop(open());
        assert!(known() <= SWEEP_FROM);
    }
    let held: Vec<_> = (0..4 * SWEEP_FROM).map(|_| open()).collect();
    for _ in 0..20 * SWEEP_FROM {
        drop(open());
        assert!(known() <= 2 * held.len() + SWEEP_FROM);
    }
    let all = lock(&connections.all);
    let living = all.0.iter().filter(|one| one.strong_count() > 0);
    assert_eq!(living.count(), held.len());
}
