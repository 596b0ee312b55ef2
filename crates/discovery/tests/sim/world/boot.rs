//! What a boot node serves: registrations, and slots on its relay.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use calimero_network_discovery::machine::{CircuitLimit, Cookie, Effect, Input, Namespace};
use calimero_network_primitives::{Multiaddr, PeerId};

use super::names::{Id, peer, scrambled};

/// Cookies that libp2p-rendezvous 0.18 stores. A client with an older one starts again.
const STOCK_COOKIES: u64 = 10_000;

/// Which rendezvous server a boot node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// The server of libp2p-rendezvous 0.18, which returns the same first page to every client, in
    /// the order of a hash.
    Stock,
    /// That of this workspace: the first page begins anywhere.
    Own,
}

/// Addresses of a node, shared by its registrations and the answers that contain them.
pub(super) type Addresses = Arc<[Multiaddr]>;

/// What a boot node answers.
pub(super) enum Answer {
    Told(Input),
    Page {
        server: PeerId,
        namespace: Namespace,
        members: Vec<(Id, Addresses)>,
        cookie: Option<Cookie>,
    },
}

impl Answer {
    /// As what the node hears. A page is written out there and then: thousands are under way at
    /// one time.
    pub(super) fn input(self) -> Input {
        match self {
            Self::Told(input) => input,
            Self::Page {
                server,
                namespace,
                members,
                cookie,
            } => {
                let members = members.into_iter();
                let members = members.map(|(id, at)| (peer(id), at.to_vec())).collect();
                Input::Discovered {
                    server,
                    namespace,
                    members,
                    cookie,
                }
            }
        }
    }
}

/// Registrations of one namespace, in an order that is random and stays.
#[derive(Default)]
struct Members {
    by_key: BTreeMap<u64, (u64, Id, Addresses)>,
    /// The key of each, by when it was registered.
    by_time: BTreeMap<u64, u64>,
    of_node: HashMap<Id, (u64, u64)>,
}

impl Members {
    fn remove(&mut self, node: Id) {
        if let Some((key, time)) = self.of_node.remove(&node) {
            self.by_key.remove(&key);
            self.by_time.remove(&time);
        }
    }

    fn insert(&mut self, node: Id, salt: u64, time: u64, addresses: Addresses) {
        self.remove(node);
        let key = scrambled(salt ^ time);
        self.by_key.insert(key, (time, node, addresses));
        self.by_time.insert(time, key);
        self.of_node.insert(node, (key, time));
    }
}

/// Where an answer ended: a walk around the order from `start`, through those that were there
/// when it began, then those that came later.
#[derive(Clone, Copy)]
struct Place {
    serial: u64,
    start: u64,
    at: u64,
    wrapped: bool,
    walked: bool,
    /// Time of the latest registration that was returned or existed at the first request.
    time: u64,
}

impl Place {
    fn cookie(self) -> Option<Cookie> {
        let flags = u64::from(self.wrapped) | u64::from(self.walked) << 1;
        let words = [self.serial, self.start, self.at, self.time, flags];
        Cookie::new(&words.map(u64::to_be_bytes).concat())
    }

    fn read(cookie: &Cookie) -> Option<Self> {
        let mut words = cookie
            .as_bytes()
            .chunks_exact(8)
            .map(|word| word.try_into().map_or(0, u64::from_be_bytes));
        let [serial, start, at, time] = std::array::from_fn(|_| words.next().unwrap_or(0));
        let flags = words.next()?;
        Some(Self {
            serial,
            start,
            at,
            wrapped: flags & 1 != 0,
            walked: flags & 2 != 0,
            time,
        })
    }
}

pub(crate) struct Boot {
    pub(crate) up: bool,
    server: Server,
    salt: u64,
    time: u64,
    serial: u64,
    registrations: HashMap<Namespace, Members>,
    pub(super) slots: HashSet<Id>,
    /// Number of requests that were served.
    pub(crate) requests: u64,
    /// Number of registrations in all answers.
    pub(crate) told: u64,
}

impl Boot {
    pub(super) fn new(server: Server, salt: u64) -> Self {
        Self {
            up: true,
            server,
            salt: scrambled(salt),
            time: 0,
            serial: 0,
            registrations: HashMap::new(),
            slots: HashSet::new(),
            requests: 0,
            told: 0,
        }
    }

    pub(super) fn held(&self) -> usize {
        let namespaces = self.registrations.values();
        namespaces.map(|members| members.by_key.len()).sum()
    }

    /// The answer to what `node`, at `external`, asks for; `chance` is drawn for it.
    pub(super) fn serve(
        &mut self,
        node: Id,
        external: Addresses,
        chance: u64,
        effect: Effect,
    ) -> Option<Answer> {
        self.requests += 1;
        match effect {
            Effect::Register {
                server,
                namespace,
                ttl,
            } => {
                self.time += 1;
                let members = self.registrations.entry(namespace.clone()).or_default();
                members.insert(node, self.salt, self.time, external);
                Some(Answer::Told(Input::Registered {
                    server,
                    namespace,
                    ttl,
                }))
            }
            Effect::Unregister { namespace, .. } => {
                self.registrations.get_mut(&namespace)?.remove(node);
                None
            }
            Effect::Discover {
                server,
                namespace,
                cookie,
                limit,
            } => {
                let mut place = self.begin(cookie.as_ref(), chance);
                let of = self.registrations.entry(namespace.clone()).or_default();
                let members = turn_page(of, &mut place, limit as usize);
                self.told += members.len() as u64;
                let cookie = place.cookie();
                Some(Answer::Page {
                    server,
                    namespace,
                    members,
                    cookie,
                })
            }
            Effect::Reserve { listener, .. } => {
                self.slots.insert(node);
                Some(Answer::Told(Input::ReservationAccepted {
                    listener,
                    limit: CircuitLimit::default(),
                }))
            }
            _ => None,
        }
    }

    fn begin(&mut self, cookie: Option<&Cookie>, chance: u64) -> Place {
        self.serial += 1;
        let known = cookie.and_then(Place::read).filter(|place| {
            self.server == Server::Own || place.serial + STOCK_COOKIES >= self.serial
        });
        let start = match self.server {
            Server::Stock => 0,
            Server::Own => chance,
        };
        let mut place = known.unwrap_or(Place {
            serial: 0,
            start,
            at: start,
            wrapped: false,
            walked: false,
            time: self.time,
        });
        place.serial = self.serial;
        place
    }
}

fn turn_page(of: &Members, place: &mut Place, limit: usize) -> Vec<(Id, Addresses)> {
    let mut page = Vec::new();
    while !place.walked && page.len() < limit {
        let end = if place.wrapped { place.start } else { u64::MAX };
        let there = of.by_key.range(place.at..end);
        let mut told = there.filter(|(_, (time, ..))| *time <= place.time);
        match told.next() {
            Some((key, (_, id, addresses))) => {
                page.push((*id, addresses.clone()));
                place.at = key + 1;
            }
            None if place.wrapped || place.start == 0 => place.walked = true,
            None => (place.at, place.wrapped) = (0, true),
        }
    }
    while place.walked && page.len() < limit {
        let Some((time, key)) = of.by_time.range(place.time + 1..).next() else {
            break;
        };
        let (_, id, addresses) = &of.by_key[key];
        page.push((*id, addresses.clone()));
        place.time = *time;
    }
    page
}
