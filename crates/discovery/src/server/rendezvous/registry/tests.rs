//! Permits, and positions that only this registry makes. `tests/registry.rs` has the rest.

use calimero_network_primitives::resources::{Resource, Resources};
use rand::{SeedableRng as _, rngs::StdRng};

use super::*;

struct Server {
    registry: Registry,
    rng: StdRng,
    now: Instant,
}

impl Server {
    fn new() -> Self {
        Self {
            registry: Registry::new(RendezvousServerConfig::default(), 7),
            rng: StdRng::seed_from_u64(42),
            now: start(),
        }
    }

    fn register(&mut self, peer: PeerId, ttl_s: u64) -> Result<Registered, Refusal> {
        let (now, rng) = (self.now, &mut self.rng);
        let ttl_s = Some(ttl_s);
        (self.registry).register(peer, &namespace(), &peer.to_bytes(), ttl_s, now, rng)
    }

    fn discover(&mut self, cookie: Option<&[u8]>) -> Result<(Vec<Found>, Bytes), Refusal> {
        let (now, rng) = (self.now, &mut self.rng);
        (self.registry).discover(&namespace(), cookie, None, now, rng)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "any time will do for a test to start from"
)]
fn start() -> Instant {
    Instant::now()
}

fn namespace() -> Namespace {
    Namespace::new("ns").unwrap()
}

#[test]
fn a_permit_is_held_with_its_registration_and_released_with_it() {
    let resources = Resources::default();
    let used = || resources.used(Resource::Registrations);
    let mut server = Server::new();
    let peer = PeerId::random();
    let holder = resources.holder(Some(peer), None);
    let permit = || holder.take(Resource::Registrations, 1).ok();
    // There is no registration to hold it.
    server.registry.set_permit(&peer, &namespace(), permit());
    assert_eq!(used(), 0);
    assert!(server.registry.take_permit(&peer, &namespace()).is_none());

    server.register(peer, 7200).unwrap();
    server.registry.set_permit(&peer, &namespace(), permit());
    assert_eq!(used(), 1);
    // For a renewal, which stores it again.
    let taken = server.registry.take_permit(&peer, &namespace());
    assert_eq!((taken.is_some(), used()), (true, 1));
    assert!(server.registry.take_permit(&peer, &namespace()).is_none());
    server.registry.set_permit(&peer, &namespace(), taken);
    assert_eq!(used(), 1);
    server.now += Duration::from_secs(7200);
    assert_eq!(server.registry.expire(server.now), 1);
    assert_eq!(used(), 0);

    server.register(peer, 7200).unwrap();
    server.registry.set_permit(&peer, &namespace(), permit());
    assert!(server.registry.unregister(&peer, &namespace(), server.now));
    assert_eq!(used(), 0);
}

/// A number that this registry has not reached was not written by it.
#[test]
fn a_cookie_of_the_future_is_refused() {
    let mut server = Server::new();
    server.register(PeerId::random(), 7200).unwrap();
    server.register(PeerId::random(), 7200).unwrap();
    let mut at = |horizon: u64| {
        let head = 7_u64 << 48 | horizon;
        let cookie = [&head.to_be_bytes()[..], b"ns"].concat();
        let found = server.discover(Some(&cookie));
        found.map(|(found, _)| found.len())
    };
    assert_eq!([0, 1, 2].map(&mut at), [Ok(2), Ok(1), Ok(0)]);
    assert_eq!([3, 4].map(&mut at), [Err(Refusal::Cookie); 2]);
}

/// A client may read 0 seconds as an unlimited lifetime.
#[test]
fn the_last_second_of_a_life_counts_as_one() {
    let mut server = Server::new();
    server.register(PeerId::random(), 7200).unwrap();
    server.now += Duration::from_millis(7_199_999);
    let (found, _) = server.discover(None).unwrap();
    assert_eq!(found[0].ttl_s, 1);
    let expiry = server.registry.next_expiry().unwrap();
    assert_eq!(expiry - server.now, Duration::from_millis(1));
    server.now = expiry;
    assert!(server.discover(None).unwrap().0.is_empty());
    assert_eq!(server.registry.next_expiry(), None);
}

#[test]
fn a_registration_that_arrives_in_an_empty_namespace_comes_after_the_cookie() {
    let mut server = Server::new();
    let (found, cookie) = server.discover(None).unwrap();
    assert!(found.is_empty());
    server.register(PeerId::random(), 7200).unwrap();
    let (found, cookie) = server.discover(Some(&cookie)).unwrap();
    assert_eq!(found.len(), 1);
    assert!(server.discover(Some(&cookie)).unwrap().0.is_empty());
}
