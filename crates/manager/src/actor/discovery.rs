//! Events of discovery, and the first peer of a node.

use std::collections::VecDeque;

#[cfg(feature = "upnp")]
use calimero_network_discovery::port_mapping;
use calimero_network_discovery::{
    behaviour::{Event, HolePunch},
    machine::ProbeOutcome,
};
use calimero_network_primitives::Multiaddr;

use super::Actor;
use crate::{
    command::Reply,
    error::BootstrapError,
    event::{ConnectionEvent, DiscoveryEvent},
};

/// Callers that wait for the first peer.
pub(super) type Bootstrapping = VecDeque<Reply<Result<(), BootstrapError>>>;

impl Actor {
    /// The lists of boot nodes changed, or one of them cannot be resolved.
    pub(super) fn on_boot_lists(&mut self, addresses: Vec<Multiaddr>) {
        let found = addresses.len();
        let discovery = &mut self.swarm.behaviour_mut().discovery;
        if discovery.boot_list_resolved(addresses) == 0 && found > 0 {
            tracing::warn!(
                addresses = found,
                "no address in the lists of boot nodes may be dialled: each needs /p2p/PEER, and \
                 only a local network has loopback addresses"
            );
        }
    }

    pub(super) fn on_discovery(&mut self, event: Event) {
        match event {
            Event::Identified { peer, info, .. } => self.on_identified(peer, *info),
            Event::Liveness(event) => self.on_liveness(event),
            Event::ConnectionPreferred { peer, connection } => {
                let pubsub = &mut self.swarm.behaviour_mut().pubsub;
                pubsub.prefer_connection(peer, connection);
            }
            Event::ConnectionSpare {
                peer,
                connection,
                spare,
            } => {
                tracing::debug!(%peer, %connection, spare, "a slower connection");
                let pubsub = &mut self.swarm.behaviour_mut().pubsub;
                pubsub.set_spare(peer, connection, spare);
            }
            Event::PhaseChanged { to, .. } => {
                self.events.send(DiscoveryEvent::PhaseChanged { phase: to });
            }
            Event::BootNodeUnreachable { peer, cause } => {
                // The machine limits the rate of this event.
                tracing::warn!(%peer, %cause, "cannot reach a boot node, it is dialled again");
                self.events
                    .send(DiscoveryEvent::BootNodeUnreachable { peer, cause });
            }
            Event::ReachabilityChanged { reachability } => {
                self.events
                    .send(DiscoveryEvent::ReachabilityChanged { reachability });
            }
            Event::Probed {
                address,
                server,
                outcome,
            } if outcome != ProbeOutcome::NotTried => {
                self.events.send(DiscoveryEvent::AddressProbed {
                    address,
                    server,
                    reached: outcome == ProbeOutcome::Reached,
                });
            }
            Event::ExternalAddressConfirmed { address } => {
                self.events.send(DiscoveryEvent::ExternalAddress {
                    address,
                    confirmed: true,
                });
            }
            Event::ExternalAddressExpired { address } => {
                self.events.send(DiscoveryEvent::ExternalAddress {
                    address,
                    confirmed: false,
                });
            }
            Event::PathChanged {
                peer,
                from: Some(_),
                to: Some(_),
            } => {
                if let Some(connection) = self.best_connection(&peer) {
                    self.events.send(ConnectionEvent::PathChanged(connection));
                }
            }
            Event::HolePunch { peer, outcome } => self.events.send(ConnectionEvent::HolePunched {
                peer,
                direct: outcome == HolePunch::Direct,
            }),
            Event::ReservationGranted {
                relay,
                renewed: false,
            } => self.events.send(DiscoveryEvent::RelayReservation {
                relay,
                reserved: true,
            }),
            Event::ReservationLost { relay } => {
                self.events.send(DiscoveryEvent::RelayReservation {
                    relay,
                    reserved: false,
                });
            }
            Event::FollowRefused { namespace } => {
                self.events
                    .send(DiscoveryEvent::OverlayRefused { namespace });
            }
            // A node that stops saves them itself.
            Event::SaveCache if !self.shared.is_stopped() => {
                let entries = self.swarm.behaviour().discovery.cache();
                self.peer_cache.save(entries);
            }
            #[cfg(feature = "blobs")]
            event @ (Event::RecordsFound { .. }
            | Event::ProvidersFound { .. }
            | Event::QueryEnded { .. }) => self.on_query(event),
            Event::Registered {
                server, namespace, ..
            } => tracing::debug!(%server, %namespace, "registered"),
            Event::RegisterFailed {
                server,
                namespace,
                why,
            } => tracing::debug!(%server, %namespace, ?why, "not registered"),
            Event::ReservationFailed { relay } => tracing::debug!(%relay, "no reservation"),
            Event::Discovered {
                server,
                namespace,
                members,
            } => tracing::debug!(%server, %namespace, members, "discovered"),
            other => tracing::trace!(?other, "discovery"),
        }
    }

    #[cfg(feature = "upnp")]
    pub(super) fn on_port_mapping(&mut self, event: port_mapping::Event) {
        self.events.send(match event {
            port_mapping::Event::Mapped { port, mapping } => DiscoveryEvent::PortMapped {
                local: port.local(),
                external: port.address_at(mapping.external),
                protocol: mapping.protocol,
            },
            port_mapping::Event::NotMapped { port, failure } => {
                let local = port.local();
                tracing::info!(address = %local, %failure, "the router does not forward a port");
                DiscoveryEvent::PortNotMapped {
                    local,
                    error: failure,
                }
            }
            _ => return,
        });
    }

    /// Starts discovery now, and answers as soon as a peer is connected.
    pub(super) fn bootstrap(&mut self, reply: Reply<Result<(), BootstrapError>>) {
        self.swarm.behaviour_mut().discovery.bootstrap();
        if !self.connections.is_empty() {
            let _ = reply.send(Ok(()));
        } else if self.knows_no_peers() {
            let _ = reply.send(Err(BootstrapError::NoKnownPeers));
        } else {
            self.bootstrapping.retain(|waiter| !waiter.is_closed());
            self.bootstrapping.push_back(reply);
        }
    }

    fn knows_no_peers(&mut self) -> bool {
        let config = &self.config.discovery;
        let discovery = &mut self.swarm.behaviour_mut().discovery;
        config.boot.is_empty() && !config.mdns && discovery.status().discovery.known_peers == 0
    }

    pub(super) fn answer_bootstrapping(&mut self) {
        for waiter in self.bootstrapping.drain(..) {
            let _ = waiter.send(Ok(()));
        }
    }
}
