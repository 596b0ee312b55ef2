//! What a boot node serves beside what every node does: a place where peers find each other
//! ([`rendezvous`]), and circuits to those that cannot be reached.
//!
//! [`Behaviour`] has both, each on where the configuration has it on. Kademlia, identify, ping
//! and the probes of AutoNAT come with the behaviour that every node has.
//!
//! The registry and the messages are pure and there without the feature `libp2p`.

pub mod rendezvous;

#[cfg(feature = "libp2p")]
mod relay;

#[cfg(feature = "libp2p")]
pub use self::served::{Behaviour, Event};

#[cfg(feature = "libp2p")]
mod served {
    use calimero_network_primitives::{
        PeerId,
        config::{ConfigError, ServerConfig},
    };
    use libp2p_swarm::{NetworkBehaviour, behaviour::toggle::Toggle};

    use super::{relay, rendezvous};

    /// What a boot node serves, in any `Swarm`.
    #[derive(NetworkBehaviour)]
    #[behaviour(prelude = "libp2p_swarm::derive_prelude", to_swarm = "Event")]
    pub struct Behaviour {
        rendezvous: Toggle<rendezvous::Behaviour>,
        relay: Toggle<libp2p_relay::Behaviour>,
    }

    /// What was asked of a boot node, and what came of it.
    #[derive(Debug)]
    #[non_exhaustive]
    pub enum Event {
        /// Of its rendezvous server.
        Rendezvous(rendezvous::Event),
        /// Of its relay.
        Relay(libp2p_relay::Event),
    }

    impl From<rendezvous::Event> for Event {
        fn from(event: rendezvous::Event) -> Self {
            Self::Rendezvous(event)
        }
    }

    impl From<libp2p_relay::Event> for Event {
        fn from(event: libp2p_relay::Event) -> Self {
            Self::Relay(event)
        }
    }

    impl Behaviour {
        /// What `config` has on, served as `local`. `seed` is random where strangers ask.
        ///
        /// # Errors
        ///
        /// [`ConfigError::Invalid`] with the key that cannot hold.
        pub fn new(local: PeerId, config: &ServerConfig, seed: u64) -> Result<Self, ConfigError> {
            config.validate("")?;
            let rendezvous = (config.rendezvous.enabled)
                .then(|| rendezvous::Behaviour::new(&config.rendezvous, seed))
                .transpose()?;
            let relay = (config.relay.enabled).then(|| relay::behaviour(local, &config.relay));
            Ok(Self {
                rendezvous: rendezvous.into(),
                relay: relay.into(),
            })
        }

        /// What the rendezvous server holds; `None` where there is none.
        #[must_use]
        pub fn held(&self) -> Option<rendezvous::registry::Held> {
            self.rendezvous.as_ref().map(rendezvous::Behaviour::held)
        }
    }
}

#[cfg(feature = "libp2p")]
#[expect(
    clippy::disallowed_methods,
    reason = "the one clock of the server; what decides is given its time"
)]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
