//! Discovery: finding peers and staying connected with them.
//!
//! Pure state machines without socket, clock or runtime make the decisions. Behaviours pass the
//! events of the network to them and carry out their effects.
//!
//! - [`machine`] decides which peers to dial, where to register, which servers to ask, which relays
//!   to use, and how relayed peers become direct.
//! - [`behaviour`] does that in any Swarm: one [`Behaviour`] for all of discovery.
//! - [`cache`] keeps peers over a restart.
//! - [`liveness`] closes connections whose peer no longer answers: a link that fails without a FIN
//!   looks open until it is used.
//! - [`netcheck`] judges which NAT a node is behind and what that means.
//! - [`server`] is what boot nodes serve: rendezvous and relay.
//! - [`wire`] encodes and decodes the messages of both sides.
//!
//! ```
//! use std::time::Instant;
//!
//! use calimero_network_discovery::machine::{Effect, Input, Machine, Path, Phase};
//! use calimero_network_primitives::{PeerId, config::DiscoveryConfig};
//!
//! let boot = PeerId::random();
//! let config = DiscoveryConfig {
//!     boot: vec![format!("/ip4/192.0.2.1/tcp/2428/p2p/{boot}").parse()?],
//!     ..DiscoveryConfig::default()
//! };
//! let mut now = Instant::now();
//! let mut machine = Machine::new(config, PeerId::random(), 42, now)?;
//! while let Some(effect) = machine.poll_effect() {
//!     if let Effect::Dial { peer, addresses, .. } = effect {
//!         assert_eq!((peer, addresses.len()), (boot, 1));
//!     }
//! }
//! let opened = Input::ConnectionOpened {
//!     peer: boot,
//!     path: Path::Direct,
//!     dialled: None,
//!     remote_ip: None,
//!     is_local: false,
//! };
//! machine.handle(opened, now);
//! assert!(std::iter::from_fn(|| machine.poll_effect()).any(|effect| {
//!     matches!(effect, Effect::Discover { server, .. } if server == boot)
//! }));
//! assert_eq!(machine.phase(), Phase::Register);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! `libp2p` (default): the behaviours, for a Swarm on tokio. Without it, the crate contains the
//! pure machines only.
//!
//! `mdns` (default): peers on the local link. `upnp` (default): port mappings at the router.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "libp2p")]
pub mod behaviour;
pub mod cache;
#[cfg(feature = "libp2p")]
pub mod connections;
mod ip;
pub mod liveness;
pub mod machine;
pub mod netcheck;
#[cfg(feature = "libp2p")]
mod pass;
pub mod paths;
#[cfg(feature = "upnp")]
pub mod port_mapping;
pub mod server;
pub mod wire;

#[cfg(feature = "libp2p")]
pub use self::behaviour::{Behaviour, Event, Status};

/// Crates whose types the public API uses, in the versions of this crate.
pub use {bytes, rand};
/// Crates whose types the public API of the behaviours uses, in the versions of this crate.
#[cfg(feature = "libp2p")]
pub use {futures, libp2p_core, libp2p_identify, libp2p_kad, libp2p_relay, libp2p_swarm};
