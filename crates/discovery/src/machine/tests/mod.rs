//! The machine with a driver that carries out no effects. The tests pass the inputs.

mod caching;
mod changing;
mod check;
mod flapping;
mod keeping;
mod meeting;
mod members;
mod observing;
mod properties;
mod times;

use std::time::{Duration, Instant};

use calimero_network_primitives::{
    Multiaddr, PeerId, config::DiscoveryConfig, multiaddr::Protocol,
};

use self::check::script::{BOOT, LOCAL, SECOND_BOOT, address, cookie, namespace, peer, through};
use super::*;
use crate::machine;

/// The address of a peer, as the address book stores it.
fn dial_address(number: u32) -> DialAddr {
    DialAddr::new(&address(number), DialPolicy::Private).unwrap()
}

/// Two boot nodes, no overlay of all nodes.
fn config() -> DiscoveryConfig {
    let boot = |number| address(number).with(Protocol::P2p(peer(number)));
    DiscoveryConfig {
        boot: vec![boot(BOOT), boot(SECOND_BOOT)],
        global_namespace: String::new(),
        ..DiscoveryConfig::default()
    }
}

/// A machine and its clock.
struct Driver {
    machine: Machine,
    start: Instant,
    now: Instant,
}

impl Driver {
    #[expect(clippy::disallowed_methods, reason = "a test has to start somewhere")]
    fn new(config: DiscoveryConfig) -> Self {
        let now = Instant::now();
        let mut machine = Machine::new(config, peer(LOCAL), 7, now).unwrap();
        let begun: Vec<_> = std::iter::from_fn(|| machine.poll_effect()).collect();
        assert_eq!(dialled(&begun)[0], peer(BOOT));
        Self {
            machine,
            start: now,
            now,
        }
    }

    /// A machine with both boot nodes connected and an external address.
    fn registered(config: DiscoveryConfig) -> Self {
        let mut driver = Self::new(DiscoveryConfig {
            external: vec![address(LOCAL)],
            ..config
        });
        driver.connect(BOOT);
        driver.connect(SECOND_BOOT);
        driver
    }

    fn tell(&mut self, input: Input) -> Vec<Effect> {
        self.machine.handle(input, self.now);
        std::iter::from_fn(|| self.machine.poll_effect()).collect()
    }

    /// Advances the time. Returns the effects and the time of each since the start.
    fn wait(&mut self, time: Duration) -> Vec<(Duration, Effect)> {
        let end = self.now + time;
        let mut wanted = Vec::new();
        while let Some(at) = self.machine.next_timeout().filter(|at| *at <= end) {
            assert!(at >= self.now, "a time-out in the past");
            self.now = at;
            let effects = self.tell(Input::Timeout);
            let since = self.now - self.start;
            wanted.extend(effects.into_iter().map(|effect| (since, effect)));
        }
        self.now = end;
        wanted
    }

    fn wait_s(&mut self, seconds: u64) -> Vec<Effect> {
        let wanted = self.wait(Duration::from_secs(seconds));
        wanted.into_iter().map(|(_, effect)| effect).collect()
    }

    fn connect(&mut self, number: u32) -> Vec<Effect> {
        self.tell(Input::ConnectionOpened {
            peer: peer(number),
            path: Path::Direct,
            dialled: Some(address(number)),
            remote_ip: None,
            is_local: false,
        })
    }

    fn disconnect(&mut self, number: u32) -> Vec<Effect> {
        self.tell(Input::ConnectionClosed {
            peer: peer(number),
            path: Path::Direct,
        })
    }

    fn fail_dial(&mut self, number: u32) -> Vec<Effect> {
        self.tell(Input::DialFailed {
            peer: peer(number),
            tried: vec![address(number)],
        })
    }

    fn follow(&mut self, number: u32) -> Vec<Effect> {
        self.tell(Input::Follow(namespace(number)))
    }

    fn accept_registration(&mut self, server: u32, number: u32) -> Vec<Effect> {
        self.tell(Input::Registered {
            server: peer(server),
            namespace: namespace(number),
            ttl: Duration::from_secs(7200),
        })
    }

    fn refuse_registration(&mut self, server: u32, number: u32) -> Vec<Effect> {
        self.tell(Input::RegisterFailed {
            server: peer(server),
            namespace: namespace(number),
            why: RendezvousFailure::Unavailable,
        })
    }

    fn answer(&mut self, server: u32, overlay: u32, members: &[u32], next: u8) -> Vec<Effect> {
        let members = members.iter().map(|n| (peer(*n), vec![address(*n)]));
        self.tell(Input::Discovered {
            server: peer(server),
            namespace: namespace(overlay),
            members: members.collect(),
            cookie: Some(cookie(next)),
        })
    }

    fn state(&self, server: u32, number: u32) -> Option<Registration> {
        let status = self.machine.status();
        let key = (peer(server), namespace(number));
        let mut all = status.registrations.into_iter();
        all.find(|one| (one.server, &one.namespace) == (key.0, &key.1))
            .map(|one| one.state)
    }
}

fn dialled(effects: &[Effect]) -> Vec<PeerId> {
    let peers = effects.iter().filter_map(|effect| match effect {
        Effect::Dial { peer, .. } => Some(*peer),
        _ => None,
    });
    peers.collect()
}

fn registers(effects: &[Effect]) -> Vec<(PeerId, Namespace)> {
    let keys = effects.iter().filter_map(|effect| match effect {
        Effect::Register {
            server, namespace, ..
        } => Some((*server, namespace.clone())),
        _ => None,
    });
    keys.collect()
}

fn unregisters(effects: &[Effect]) -> Vec<(PeerId, Namespace)> {
    let keys = effects.iter().filter_map(|effect| match effect {
        Effect::Unregister { server, namespace } => Some((*server, namespace.clone())),
        _ => None,
    });
    keys.collect()
}

type Question = (PeerId, Namespace, Option<Cookie>);

fn questions(effects: &[Effect]) -> Vec<Question> {
    let questions = effects.iter().filter_map(|effect| match effect {
        Effect::Discover {
            server,
            namespace,
            cookie,
            ..
        } => Some((*server, namespace.clone(), cookie.clone())),
        _ => None,
    });
    questions.collect()
}

fn reservations(effects: &[Effect]) -> Vec<(RelayListener, PeerId, Multiaddr)> {
    let reservations = effects.iter().filter_map(|effect| match effect {
        Effect::Reserve {
            listener,
            relay,
            address,
        } => Some((*listener, *relay, address.clone())),
        _ => None,
    });
    reservations.collect()
}
