//! The transports of the network: TCP with TLS or Noise and Yamux, QUIC, names, relays.
//!
//! [`build`] makes one [`libp2p_core::Transport`] for a Swarm. Each connection it makes is
//! authenticated, encrypted and multiplexed, and speaks what libp2p's specifications say:
//! [TLS](https://github.com/libp2p/specs/blob/master/tls/tls.md),
//! [Noise](https://github.com/libp2p/specs/blob/master/noise/README.md),
//! [Yamux](https://github.com/libp2p/specs/blob/master/yamux/README.md),
//! [QUIC](https://github.com/libp2p/specs/blob/master/quic/README.md) and
//! [circuit relay v2](https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md).
//!
//! What it adds to libp2p's own:
//!
//! - **Speed.** Ciphers in the order this processor runs them fastest, large reads and writes of
//!   the socket, and all frames of a round in one write.
//! - **The expected peer is part of the handshake.** An address that ends in `/p2p/<peer>` is
//!   dialled for that peer; another that answers over TLS or QUIC never sees a connection.
//! - **One gate.** Every dial, and every address that a name resolves to, passes a
//!   [`DialGate`](calimero_network_primitives::addr::DialGate): a stranger's loopback address is
//!   not dialled, whichever protocol it came by.
//! - **Names.** Name servers are read again when the system's configuration changes. The addresses
//!   of a name are dialled with short delays, so dead ones do not hold up a live one.
//! - **A port has one owner.** Two nodes cannot listen on one port, and dials leave from it all the
//!   same. A wildcard address listens also where the system does not report its interfaces.
//! - **Dead paths are noticed** within 20 s, on busy and on idle connections.
//! - **Frames of any size.** Yamux peers may send frames as large as the window.
//! - **Too many streams are refused one by one**, and the connection lives on.
//! - **[`Links`]** say what each connection runs over and count its bytes; [`classify`] says what
//!   a failed dial means.
//!
//! # Example
//!
//! Two nodes in one process; the same works over `/ip4/127.0.0.1/tcp/0` with [`build`].
//!
//! ```
//! use calimero_network_primitives::config::TransportConfig;
//! use calimero_network_transport::{SecurityKind, build_memory};
//! use futures::StreamExt;
//! use libp2p_identity::Keypair;
//! use libp2p_swarm::{Config, Swarm, SwarmEvent, dummy};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = TransportConfig::default();
//! let mut swarms = Vec::new();
//! let mut links = Vec::new();
//! for _ in 0..2 {
//!     let keypair = Keypair::generate_ed25519();
//!     let transport = build_memory(&keypair, &config)?;
//!     links.push(transport.links);
//!     let peer = keypair.public().to_peer_id();
//!     let config = Config::with_tokio_executor();
//!     swarms.push(Swarm::new(transport.boxed, dummy::Behaviour, peer, config));
//! }
//! let [a, b] = &mut swarms[..] else { unreachable!() };
//!
//! b.listen_on("/memory/0".parse()?)?;
//! let address = loop {
//!     if let SwarmEvent::NewListenAddr { address, .. } = b.select_next_some().await {
//!         break address;
//!     }
//! };
//! a.dial(address.with_p2p(*b.local_peer_id()).unwrap())?;
//! loop {
//!     tokio::select! {
//!         event = a.select_next_some() => {
//!             if let SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } = event {
//!                 let link = links[0].claim(&peer_id, &endpoint).ok_or("no link")?;
//!                 assert!(matches!(link.security(), SecurityKind::Tls { .. }));
//!                 assert!(link.bytes_out() > 0);
//!                 break;
//!             }
//!         }
//!         _ = b.select_next_some() => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

mod buffer;
mod close;
mod crypto;
mod dns;
mod error;
mod gate;
mod interfaces;
mod link;
mod metered;
#[cfg(test)]
mod pipe;
pub mod quic;
mod read_ahead;
mod tcp;
mod tls;
mod transport;
mod upgrade;
mod yamux;

pub use self::{
    close::CloseCause,
    crypto::{CertificateError, CryptoError, warm_up},
    error::{AddressError, BuildError, Cause, Chain, check_interface_watch, classify, os_error},
    link::{Bytes, Cipher, Link, Links, MuxerKind, SecurityKind, Totals, TransportKind},
    transport::{Transport, build, build_memory},
};

/// Crates whose types occur in what is public here, in the versions that are used.
pub use {
    futures, hickory_resolver, libp2p_core, libp2p_noise, libp2p_relay, libp2p_tls,
    multistream_select, quinn, rustls,
};
