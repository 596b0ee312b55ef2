//! What a boot node serves beside what every node does: a place where peers find each other
//! ([`rendezvous`]), and circuits to those that cannot be reached.
//!
//! [`Behaviour`] has both, each on where the configuration has it on. Kademlia, identify, ping
//! and the probes of AutoNAT come with the behaviour that every node has.
//!
//! The registry and the messages are pure and there without the feature `libp2p`.

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

    /// What a boot node serves, in any `Swarm`.
    #[derive(NetworkBehaviour)]
    #[behaviour(prelude = "libp2p_swarm::derive_prelude", to_swarm = "Event")]
    pub struct Behaviour {
        rendezvous: Toggle<rendezvous::Behaviour>,
        relay: Toggle<relay::Behaviour>,
    }

    /// What was asked of a boot node, and what came of it.
    #[derive(Debug)]
    #[non_exhaustive]
    pub enum Event {
        /// Of its rendezvous server.
        Rendezvous(rendezvous::Event),
        /// Of its relay.
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

        /// The rendezvous server, where there is one.
        #[must_use]
        pub fn rendezvous(&self) -> Option<&rendezvous::Behaviour> {
            self.rendezvous.as_ref()
        }

        /// The relay, where there is one.
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
