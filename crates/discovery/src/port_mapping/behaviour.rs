//! The behaviour that carries out what the machine decides.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    task::{Context, Poll, Waker},
};

use calimero_network_primitives::{Multiaddr, PeerId};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use libp2p_core::{Endpoint, transport::PortUse};
use libp2p_swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};

use super::{
    Failure, Mapping, Port,
    gateway::{self, Lease},
    machine::{Effect, Input, Machine},
};
use crate::behaviour::clock::{Timer, now};

/// An event of a port mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The router maps a port, or its external address changed.
    Mapped {
        /// The port of this node.
        port: Port,
        /// The mapping.
        mapping: Mapping,
    },
    /// A port has no mapping. It is requested again after a wait.
    NotMapped {
        /// The port of this node.
        port: Port,
        /// The reason of the last failure.
        failure: Failure,
    },
}

type Requested = (Port, Result<(Mapping, Lease), Failure>);

/// Maps the ports that the node listens on. See the [module](super).
///
/// It is polled in a tokio runtime.
#[derive(Default)]
pub struct Behaviour {
    machine: Machine,
    leases: HashMap<Port, Lease>,
    failures: HashMap<Port, Failure>,
    requests: FuturesUnordered<BoxFuture<'static, Requested>>,
    withdrawals: FuturesUnordered<BoxFuture<'static, ()>>,
    waiting: VecDeque<ToSwarm<Event, Infallible>>,
    timer: Timer,
    waker: Option<Waker>,
}

impl Behaviour {
    /// Withdraws all mappings. The Swarm has to be polled until
    /// [`is_withdrawn`](Self::is_withdrawn) returns `true`.
    pub fn stop(&mut self) {
        self.input(Input::Stop);
    }

    /// Returns `true` if no mapping is left and no request or withdrawal is under way.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.leases.is_empty() && self.requests.is_empty() && self.withdrawals.is_empty()
    }

    /// Returns each port with its mapping, if it has one.
    pub fn mappings(&self) -> impl Iterator<Item = (Port, Option<Mapping>)> {
        self.machine.mappings()
    }

    fn input(&mut self, input: Input) {
        for effect in self.machine.handle(input, now()) {
            self.carry_out(effect);
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Request(port) => {
                // It stays to be withdrawn if the renewal fails.
                let lease = self.leases.get(&port).cloned();
                let request = gateway::request(port, lease);
                self.requests
                    .push(request.map(move |outcome| (port, outcome)).boxed());
            }
            Effect::Withdraw(port) => {
                if let Some(lease) = self.leases.remove(&port) {
                    self.withdrawals.push(gateway::withdraw(lease).boxed());
                }
            }
            Effect::Probe(port, external) => {
                let candidate = ToSwarm::NewExternalAddrCandidate(port.address_at(external));
                self.waiting.push_back(candidate);
            }
            Effect::Mapped(port, mapping) => {
                self.failures.remove(&port);
                let event = Event::Mapped { port, mapping };
                self.waiting.push_back(ToSwarm::GenerateEvent(event));
            }
            Effect::Unmapped(port) => {
                let failure = self.failures.remove(&port).unwrap_or(Failure::NoAnswer);
                let event = Event::NotMapped { port, failure };
                self.waiting.push_back(ToSwarm::GenerateEvent(event));
            }
        }
    }

    fn requested(&mut self, (port, outcome): Requested) {
        match outcome {
            Ok((mapping, lease)) => {
                self.leases.insert(port, lease);
                self.input(Input::Mapped(port, mapping));
            }
            Err(failure) => {
                self.failures.insert(port, failure);
                self.input(Input::Failed(port));
                self.failures.remove(&port);
            }
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::NewListenAddr(event) => {
                if let Some(port) = Port::of(event.addr) {
                    self.input(Input::Listening(port));
                }
            }
            FromSwarm::ExpiredListenAddr(event) => {
                if let Some(port) = Port::of(event.addr) {
                    self.input(Input::NotListening(port));
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        loop {
            if let Some(next) = self.waiting.pop_front() {
                return Poll::Ready(next);
            }
            if let Poll::Ready(Some(requested)) = self.requests.poll_next_unpin(cx) {
                self.requested(requested);
                continue;
            }
            if let Poll::Ready(Some(())) = self.withdrawals.poll_next_unpin(cx) {
                continue;
            }
            if self
                .timer
                .poll_at(self.machine.next_timeout(), cx)
                .is_ready()
            {
                self.input(Input::Timeout);
                continue;
            }
            self.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
    }
}
