//! The servers of a boot node: [`rendezvous`], where peers find each other, and a relay for peers
//! that cannot be reached directly.
//!
//! [`Behaviour`] combines both; the configuration enables each. Kademlia, identify, ping and the
//! probes of AutoNAT are part of the behaviour that every node has.
//!
//! The registry and the messages are pure. They are available without the feature `libp2p`.

pub mod rendezvous;

#[cfg(feature = "libp2p")]
pub mod relay;

#[cfg(feature = "libp2p")]
pub use self::served::{Behaviour, Event};

#[cfg(feature = "libp2p")]
mod served {
    use calimero_network_primitives::{
        PeerId,
        config::{ConfigError, ServerConfig},
        resources::{Limits, Resources},
    };
    use libp2p_swarm::{NetworkBehaviour, behaviour::toggle::Toggle};

    use super::{relay, rendezvous};

    /// The servers of a boot node, in any `Swarm`.
    #[derive(NetworkBehaviour)]
    #[behaviour(prelude = "libp2p_swarm::derive_prelude", to_swarm = "Event")]
    pub struct Behaviour {
        rendezvous: Toggle<rendezvous::Behaviour>,
        relay: Toggle<relay::Behaviour>,
    }

    /// An event of one of the servers.
    #[derive(Debug)]
    #[non_exhaustive]
    pub enum Event {
        /// An event of the rendezvous server.
        Rendezvous(rendezvous::Event),
        /// An event of the relay server.
        Relay(relay::Event),
    }

    impl From<rendezvous::Event> for Event {
        fn from(event: rendezvous::Event) -> Self {
            Self::Rendezvous(event)
        }
    }

    impl From<relay::Event> for Event {
        fn from(event: relay::Event) -> Self {
            Self::Relay(event)
        }
    }

    impl Behaviour {
        /// The servers that `config` enables, for the node `local`, with an accounting of their own.
        /// `seed` must be random where untrusted peers connect.
        ///
        /// # Errors
        ///
        /// [`ConfigError::Invalid`] with the key of a value that is out of range.
        pub fn new(local: PeerId, config: &ServerConfig, seed: u64) -> Result<Self, ConfigError> {
            let mut limits = Limits::default();
            limits.set_rendezvous(&config.rendezvous);
            limits.set_relay(&config.relay);
            Self::with_resources(local, config, seed, Resources::new(limits))
        }

        /// [`new`](Self::new) with the accounting of a node.
        ///
        /// # Errors
        ///
        /// Those of [`new`](Self::new).
        pub fn with_resources(
            local: PeerId,
            config: &ServerConfig,
            seed: u64,
            resources: Resources,
        ) -> Result<Self, ConfigError> {
            config.validate("")?;
            let rendezvous = (config.rendezvous.enabled)
                .then(|| {
                    rendezvous::Behaviour::with_resources(
                        &config.rendezvous,
                        seed,
                        resources.clone(),
                    )
                })
                .transpose()?;
            let relay = (config.relay.enabled)
                .then(|| relay::Behaviour::with_resources(local, &config.relay, resources))
                .transpose()?;
            Ok(Self {
                rendezvous: rendezvous.into(),
                relay: relay.into(),
            })
        }

        /// Returns the rendezvous server, if it is enabled.
        #[must_use]
        pub fn rendezvous(&self) -> Option<&rendezvous::Behaviour> {
            self.rendezvous.as_ref()
        }

        /// Returns the relay server, if it is enabled.
        #[must_use]
        pub fn relay(&self) -> Option<&relay::Behaviour> {
            self.relay.as_ref()
        }
    }
}

#[cfg(feature = "libp2p")]
#[expect(
    clippy::disallowed_methods,
    reason = "the one clock of the server; what decides is given its time"
)]
pub(crate) fn now() -> std::time::Instant {
    std::time::Instant::now()
}
