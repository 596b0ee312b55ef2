//! Listeners: opened, reported, closed.

use calimero_network_primitives::Multiaddr;
use libp2p::{TransportError, swarm::derive_prelude::ListenerId};

use super::{Actor, ListenReply};
use crate::{error::ListenError, event::NetworkEvent};

impl Actor {
    pub(super) fn listen(&mut self, address: Multiaddr, reply: ListenReply) {
        match self.swarm.listen_on(address.clone()) {
            Ok(id) => {
                self.listeners.insert(id);
                self.listening.insert(id, (address, reply));
            }
            Err(error) => {
                let _ = reply.send(Err(listen_error(address, error)));
            }
        }
    }

    pub(super) fn on_listening(&mut self, listener: ListenerId, address: Multiaddr) {
        if let Some((_, reply)) = self.listening.remove(&listener) {
            let _ = reply.send(Ok((listener, address.clone())));
        }
        self.events
            .send(NetworkEvent::Listening { listener, address });
    }

    pub(super) fn on_listener_closed(
        &mut self,
        listener: ListenerId,
        addresses: Vec<Multiaddr>,
        error: Option<std::io::Error>,
    ) {
        self.listeners.remove(&listener);
        if let Some((address, reply)) = self.listening.remove(&listener) {
            let kind = error
                .as_ref()
                .map_or(std::io::ErrorKind::NotConnected, |e| e.kind());
            let source = kind.into();
            let _ = reply.send(Err(ListenError::Io { address, source }));
        }
        self.events.send(NetworkEvent::NotListening {
            listener,
            addresses,
            error,
        });
    }
}

fn listen_error(address: Multiaddr, error: TransportError<std::io::Error>) -> ListenError {
    match error {
        TransportError::MultiaddrNotSupported(address) => ListenError::Unsupported { address },
        TransportError::Other(source) => ListenError::Io { address, source },
    }
}
