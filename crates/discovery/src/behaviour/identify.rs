//! Identify, with a message that its readers accept.
//!
//! Readers refuse an identify message above 4,096 bytes, so no peer can identify a host with a
//! hundred addresses, for example of container bridges. Here the addresses are ranked, and those
//! that do not fit are left out: external addresses come first, then those with the widest scope.
//!
//! Changes are pushed to peers together. libp2p-identify pushes each changed address by itself, and
//! the streams of a relay with eight addresses that is left fill the ten that it permits on a
//! connection. It then drops the identify request of a peer that connects at this moment.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use calimero_network_primitives::{
    Multiaddr, PeerId,
    addr::{IpScope, scope_of},
};
use futures_timer::Delay;
use libp2p_identify::Behaviour;
use libp2p_swarm::{
    FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, ToSwarm,
    behaviour::{
        ConnectionClosed, ExpiredListenAddr, ExternalAddrConfirmed, ExternalAddrExpired,
        NewListenAddr,
    },
    derive_prelude::ListenerId,
};

use crate::pass::pass_to_inner;

/// Bytes of the message that addresses may take, 2 KiB of 4 KiB. The rest is for a key of up to
/// 550 bytes (RSA 4096), thirty protocol names of 40 bytes, and versions.
const ADDRESS_BYTES: usize = 2_048;

/// Time in which changes of addresses are collected before they are pushed: a quarter of a second.
/// Listeners that start or end together change several addresses within milliseconds.
const PUSH_DELAY: Duration = Duration::from_millis(250);

/// Bytes that the message adds to an address: a tag and a length.
const OVERHEAD_BYTES: usize = 3;

/// The addresses of this node, and which of them the message contains.
#[derive(Debug, Default)]
struct Addresses {
    listening: BTreeMap<Multiaddr, ListenerId>,
    external: BTreeSet<Multiaddr>,
    /// Addresses in the message, each with its listener if it is not external.
    shown: BTreeMap<Multiaddr, Option<ListenerId>>,
    /// Whether `shown` lacks an address, so that this is logged once.
    cut: bool,
}

impl Addresses {
    /// Whether `chosen` lacks an address.
    fn is_cut(&self, chosen: &BTreeMap<Multiaddr, Option<ListenerId>>) -> bool {
        let mut all = self.external.iter().chain(self.listening.keys());
        all.any(|address| !chosen.contains_key(address))
    }

    /// Returns the addresses that the message should contain.
    fn select(&self) -> BTreeMap<Multiaddr, Option<ListenerId>> {
        let external = self.external.iter().map(|address| (address, None));
        let listening = self
            .listening
            .iter()
            .map(|(address, id)| (address, Some(*id)));
        let listening = listening.filter(|(address, _)| !self.external.contains(*address));
        let mut ranked: Vec<_> = external.chain(listening).collect();
        ranked.sort_by_key(|(address, listener)| (listener.is_some(), rank(address)));
        let mut left = ADDRESS_BYTES;
        let mut chosen = BTreeMap::new();
        for (address, listener) in ranked {
            let Some(rest) = left.checked_sub(address.len() + OVERHEAD_BYTES) else {
                break;
            };
            left = rest;
            chosen.insert(address.clone(), listener);
        }
        chosen
    }
}

/// Returns the rank of the scope: the smaller, the farther the address reaches.
fn rank(address: &Multiaddr) -> (u8, usize) {
    let scope = match scope_of(address) {
        Some(IpScope::Global) | None => 0,
        Some(IpScope::Private) => 1,
        Some(IpScope::Testing | IpScope::LinkLocal) => 2,
        Some(_) => 3,
    };
    (scope, address.len())
}

/// [`libp2p_identify::Behaviour`] with a limit on its addresses.
pub struct Identify {
    inner: Behaviour,
    addresses: Addresses,
    connected: HashSet<PeerId>,
    /// When the changes since the last push are pushed.
    push: Option<Delay>,
}

impl Identify {
    pub(super) fn new(config: libp2p_identify::Config) -> Self {
        Self {
            inner: Behaviour::new(config),
            addresses: Addresses::default(),
            connected: HashSet::new(),
            push: None,
        }
    }

    /// Reports the changes of the selection to the inner behaviour.
    fn update(&mut self) {
        let chosen = self.addresses.select();
        let cut = self.addresses.is_cut(&chosen);
        let was_cut = std::mem::replace(&mut self.addresses.cut, cut);
        let shown = std::mem::replace(&mut self.addresses.shown, chosen.clone());
        if shown != chosen && self.push.is_none() {
            self.push = Some(Delay::new(PUSH_DELAY));
        }
        if cut && !was_cut {
            tracing::info!(
                limit_bytes = ADDRESS_BYTES,
                "this host has more addresses than fit into the identify message; peers are sent \
                 those that reach farthest"
            );
        }
        for (addr, listener) in &shown {
            if chosen.get(addr) == Some(listener) {
                continue;
            }
            self.inner.on_swarm_event(match *listener {
                Some(listener_id) => {
                    FromSwarm::ExpiredListenAddr(ExpiredListenAddr { listener_id, addr })
                }
                None => FromSwarm::ExternalAddrExpired(ExternalAddrExpired { addr }),
            });
        }
        for (addr, listener) in &chosen {
            if shown.get(addr) == Some(listener) {
                continue;
            }
            self.inner.on_swarm_event(match *listener {
                Some(listener_id) => FromSwarm::NewListenAddr(NewListenAddr { listener_id, addr }),
                None => FromSwarm::ExternalAddrConfirmed(ExternalAddrConfirmed { addr }),
            });
        }
    }
}

impl NetworkBehaviour for Identify {
    type ConnectionHandler = THandler<Behaviour>;
    type ToSwarm = libp2p_identify::Event;

    pass_to_inner!(
        handle_established_inbound_connection,
        handle_pending_outbound_connection,
        handle_established_outbound_connection,
        on_connection_handler_event,
    );

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::NewListenAddr(event) => {
                let address = event.addr.clone();
                self.addresses.listening.insert(address, event.listener_id);
            }
            FromSwarm::ExpiredListenAddr(event) => {
                self.addresses.listening.remove(event.addr);
            }
            FromSwarm::ExternalAddrConfirmed(event) => {
                self.addresses.external.insert(event.addr.clone());
            }
            FromSwarm::ExternalAddrExpired(event) => {
                self.addresses.external.remove(event.addr);
            }
            event => {
                match &event {
                    FromSwarm::ConnectionEstablished(event) => {
                        self.connected.insert(event.peer_id);
                    }
                    FromSwarm::ConnectionClosed(ConnectionClosed {
                        peer_id,
                        remaining_established: 0,
                        ..
                    }) => {
                        self.connected.remove(peer_id);
                    }
                    _ => {}
                }
                return self.inner.on_swarm_event(event);
            }
        }
        self.update();
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<libp2p_identify::Event, THandlerInEvent<Self>>> {
        if let Some(push) = &mut self.push
            && Pin::new(push).poll(cx).is_ready()
        {
            self.push = None;
            self.inner.push(self.connected.iter().copied());
        }
        self.inner.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use calimero_network_primitives::Keypair;
    use libp2p_core::{ConnectedPoint, Endpoint, transport::PortUse};
    use libp2p_swarm::{ConnectionId, behaviour::ConnectionEstablished};

    use super::*;

    fn at(ip: &str) -> Multiaddr {
        format!("/ip4/{ip}/udp/2428/quic-v1").parse().unwrap()
    }

    /// Each push takes one of the ten streams that libp2p-identify permits on a connection. One for
    /// each address would leave none for the request of a peer that has just connected.
    #[tokio::test]
    async fn addresses_that_change_together_are_pushed_once() {
        let key = Keypair::generate_ed25519();
        let config = libp2p_identify::Config::new("/test/1".to_owned(), key.public());
        let mut identify = Identify::new(config);
        let endpoint = ConnectedPoint::Dialer {
            address: at("8.8.8.8"),
            role_override: Endpoint::Dialer,
            port_use: PortUse::Reuse,
        };
        let peer_id = Keypair::generate_ed25519().public().to_peer_id();
        identify.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id,
            connection_id: ConnectionId::new_unchecked(1),
            endpoint: &endpoint,
            failed_addresses: &[],
            other_established: 0,
        }));
        let listener_id = ListenerId::next();
        for host in 1..=20 {
            let addr = &at(&format!("8.8.4.{host}"));
            identify.on_swarm_event(FromSwarm::NewListenAddr(NewListenAddr {
                listener_id,
                addr,
            }));
        }
        let mut pushes = 0;
        let quiet = tokio::time::sleep(4 * PUSH_DELAY);
        tokio::pin!(quiet);
        loop {
            tokio::select! {
                event = std::future::poll_fn(|cx| identify.poll(cx)) => {
                    pushes += usize::from(matches!(
                        &event,
                        ToSwarm::NotifyHandler { event, .. } if format!("{event:?}") == "Push"
                    ));
                }
                () = &mut quiet => break,
            }
        }
        assert_eq!(pushes, 1);
    }

    #[test]
    fn many_addresses_are_cut_to_those_that_reach_farthest() {
        let mut addresses = Addresses::default();
        let listener = ListenerId::next();
        addresses.listening.insert(at("127.0.0.1"), listener);
        for n in 0..250 {
            let bridge = at(&format!("172.17.{n}.1"));
            addresses.listening.insert(bridge, listener);
        }
        addresses.listening.insert(at("8.8.8.8"), listener);
        addresses.external.insert(at("9.9.9.9"));
        addresses.external.insert(at("8.8.8.8"));
        let chosen = addresses.select();
        let bytes: usize = chosen.keys().map(|a| a.len() + OVERHEAD_BYTES).sum();
        assert!(bytes <= ADDRESS_BYTES, "{bytes}");
        assert!(chosen.len() > 100, "{}", chosen.len());
        assert_eq!(chosen[&at("9.9.9.9")], None);
        assert_eq!(chosen[&at("8.8.8.8")], None, "sent once");
        assert!(!chosen.contains_key(&at("127.0.0.1")));
    }

    #[test]
    fn few_addresses_are_all_sent() {
        let mut addresses = Addresses::default();
        for ip in ["127.0.0.1", "192.168.1.2", "8.8.8.8"] {
            addresses.listening.insert(at(ip), ListenerId::next());
        }
        assert_eq!(addresses.select().len(), 3);
    }
}
