//! The behaviour as the swarm sees it.

use std::{
    task::{Context, Poll},
    time::Instant,
};

use calimero_network_primitives::{Multiaddr, PeerId};
use futures_timer::Delay;
use libp2p_core::{ConnectedPoint, Endpoint, transport::PortUse};
use libp2p_swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionId, DialFailure, FromSwarm, NetworkBehaviour,
    THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, behaviour::ConnectionEstablished,
};

use super::{
    Behaviour, FADE_INTERVAL, Timer, WAKE_MESSAGES,
    gate::count,
    handler::{FromHandler, Handler, ToHandler},
    now,
};
use crate::{
    error::Banned,
    event::Event,
    repair::{Input, Repair},
    standing::Fault,
};

impl Timer {
    /// Whether `at` has come; otherwise the task is woken then.
    fn poll(&mut self, at: Instant, now: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if at <= now {
            self.at = None;
            return Poll::Ready(());
        }
        let delay = match &mut self.at {
            Some((set, delay)) if *set == at => delay,
            other => &mut other.insert((at, Delay::new(at - now))).1,
        };
        let fired = std::future::Future::poll(std::pin::Pin::new(delay), cx);
        if fired.is_ready() {
            self.at = None;
        }
        fired
    }
}

impl Behaviour {
    fn admit(&self, peer: PeerId) -> Result<(), ConnectionDenied> {
        if self.standing.is_banned(&peer, now()) {
            return Err(ConnectionDenied::new(Banned { peer }));
        }
        Ok(())
    }

    fn opened(&mut self, event: ConnectionEstablished<'_>) {
        let (peer, at) = (event.peer_id, now());
        self.link_opened(peer, event.connection_id);
        let score = self.standing.score(&peer, at);
        self.gossipsub.set_application_score(&peer, score);
        if let ConnectedPoint::Dialer { address, .. } = event.endpoint {
            self.dialled.insert(peer, address.clone());
        }
        self.hear_repair(Input::Opened {
            peer,
            connection: event.connection_id,
            dialled: event.endpoint.is_dialer(),
        });
    }

    fn closed(&mut self, event: ConnectionClosed<'_>) {
        let peer = event.peer_id;
        let last = event.remaining_established == 0;
        self.links.closed(&peer, event.connection_id);
        if last {
            self.drained(&peer);
            self.promoted.remove(&peer);
            self.announcements.gone(peer);
            self.slow.gone(&peer);
            self.spoke_on.remove(&peer);
        } else {
            self.promoted.insert(peer, WAKE_MESSAGES);
            self.wake();
        }
        self.hear_repair(Input::Closed {
            peer,
            connection: event.connection_id,
            by_peer: event.cause.is_some() && !self.topics.is_empty(),
        });
        let redials = self.repair.as_ref().is_some_and(|r| r.redials(&peer));
        if last && !redials {
            self.dialled.remove(&peer);
        }
    }

    fn dial_failed(&mut self, failure: DialFailure<'_>) {
        if let Some(peer) = failure.peer_id {
            self.hear_repair(Input::DialFailed { peer });
        }
    }

    pub(super) fn hear_repair(&mut self, input: Input<ConnectionId>) {
        if let Some(repair) = &mut self.repair {
            repair.handle(input, now());
        }
    }

    /// Does everything that is due. Returns when the next thing will be.
    fn act(&mut self) -> Instant {
        let at = now();
        while let Some(effect) = self.repair.as_mut().and_then(|repair| repair.poll(at)) {
            self.carry_out(effect);
        }
        while let Some((keep, hash)) = self.keep.expire(at) {
            if let Some(topic) = self.topic(&hash) {
                self.tell(Event::KeptLost { keep, topic });
            }
        }
        self.excuse_held(at);
        if at >= self.fade_at {
            self.fade_at = at + FADE_INTERVAL;
            for (peer, score) in self.standing.faded(at) {
                self.gossipsub.set_application_score(&peer, score);
            }
        }
        let repair = self.repair.as_ref().and_then(Repair::next_timeout);
        let others = [
            repair,
            self.keep.next_timeout(),
            self.outflow.next_timeout(),
        ]
        .into_iter()
        .flatten();
        others.fold(self.fade_at, Instant::min)
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local_addr: &Multiaddr,
        remote_addr: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(peer)?;
        let inner = self.gossipsub.handle_established_inbound_connection(
            connection,
            peer,
            local_addr,
            remote_addr,
        )?;
        Ok(Handler::new(
            inner,
            self.shared.clone(),
            self.links.keeps(&peer),
        ))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        role_override: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(peer)?;
        let inner = self.gossipsub.handle_established_outbound_connection(
            connection,
            peer,
            addr,
            role_override,
            port_use,
        )?;
        Ok(Handler::new(
            inner,
            self.shared.clone(),
            self.links.keeps(&peer),
        ))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.gossipsub.on_swarm_event(event);
        match event {
            FromSwarm::ConnectionEstablished(event) => self.opened(event),
            FromSwarm::ConnectionClosed(event) => self.closed(event),
            FromSwarm::DialFailure(event) => self.dial_failed(event),
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        let event = match event {
            FromHandler::Gossipsub(event) => event,
            FromHandler::Drained => return self.drained(&peer),
            FromHandler::Rpc {
                mut event,
                forged,
                copies,
            } => {
                self.sift(peer, connection, &mut event, &copies);
                self.counters.invalid_dropped += count(forged);
                self.fault(peer, Fault::Invalid(forged), forged);
                event
            }
        };
        self.gossipsub
            .on_connection_handler_event(peer, connection, event);
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            if let Some(waiting) = self.waiting.pop_front() {
                return Poll::Ready(waiting);
            }
            match self.gossipsub.poll(cx) {
                Poll::Ready(ToSwarm::GenerateEvent(event)) => {
                    self.hear(event);
                    continue;
                }
                Poll::Ready(other) => {
                    return Poll::Ready(
                        other
                            .map_out(|_| unreachable!("events are taken above"))
                            .map_in(ToHandler::Gossipsub),
                    );
                }
                Poll::Pending => {}
            }
            let next = self.act();
            if self.waiting.is_empty() && self.timer.poll(next, now(), cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}
