//! Methods of a behaviour that is wrapped in another one.

/// Implements methods of `NetworkBehaviour` by the same method of the behaviour in the field
/// `inner`.
///
/// A behaviour that changes a part of another one implements that part and names the other methods
/// here. The trait must be in scope.
macro_rules! pass_to_inner {
    ($($method:ident),+ $(,)?) => {
        $($crate::pass::pass_method!($method);)+
    };
}

/// Implements one method for [`pass_to_inner`].
macro_rules! pass_method {
    (handle_pending_inbound_connection) => {
        fn handle_pending_inbound_connection(
            &mut self,
            connection: libp2p_swarm::ConnectionId,
            local: &libp2p_core::Multiaddr,
            remote: &libp2p_core::Multiaddr,
        ) -> Result<(), libp2p_swarm::ConnectionDenied> {
            self.inner
                .handle_pending_inbound_connection(connection, local, remote)
        }
    };
    (handle_established_inbound_connection) => {
        fn handle_established_inbound_connection(
            &mut self,
            connection: libp2p_swarm::ConnectionId,
            peer: calimero_network_primitives::PeerId,
            local: &libp2p_core::Multiaddr,
            remote: &libp2p_core::Multiaddr,
        ) -> Result<libp2p_swarm::THandler<Self>, libp2p_swarm::ConnectionDenied> {
            self.inner
                .handle_established_inbound_connection(connection, peer, local, remote)
        }
    };
    (handle_pending_outbound_connection) => {
        fn handle_pending_outbound_connection(
            &mut self,
            connection: libp2p_swarm::ConnectionId,
            peer: Option<calimero_network_primitives::PeerId>,
            addresses: &[libp2p_core::Multiaddr],
            role: libp2p_core::Endpoint,
        ) -> Result<Vec<libp2p_core::Multiaddr>, libp2p_swarm::ConnectionDenied> {
            self.inner
                .handle_pending_outbound_connection(connection, peer, addresses, role)
        }
    };
    (handle_established_outbound_connection) => {
        fn handle_established_outbound_connection(
            &mut self,
            connection: libp2p_swarm::ConnectionId,
            peer: calimero_network_primitives::PeerId,
            address: &libp2p_core::Multiaddr,
            role: libp2p_core::Endpoint,
            port: libp2p_core::transport::PortUse,
        ) -> Result<libp2p_swarm::THandler<Self>, libp2p_swarm::ConnectionDenied> {
            self.inner
                .handle_established_outbound_connection(connection, peer, address, role, port)
        }
    };
    (on_connection_handler_event) => {
        fn on_connection_handler_event(
            &mut self,
            peer: calimero_network_primitives::PeerId,
            connection: libp2p_swarm::ConnectionId,
            event: libp2p_swarm::THandlerOutEvent<Self>,
        ) {
            self.inner
                .on_connection_handler_event(peer, connection, event);
        }
    };
}

pub(crate) use {pass_method, pass_to_inner};
