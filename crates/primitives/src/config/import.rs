//! Files of the published 0.11 node, and their conversion.

use multiaddr::Multiaddr;
use serde::Deserialize;

use super::{ConfigError, NetworkConfig, Preset, file};

/// The part of a 0.11 file that concerns the network. Other tables are ignored.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Published {
    swarm: Swarm,
    bootstrap: Bootstrap,
    discovery: Discovery,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Swarm {
    listen: Option<Vec<Multiaddr>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Bootstrap {
    nodes: Vec<Multiaddr>,
}

#[derive(Deserialize)]
#[serde(default)]
struct Discovery {
    mdns: bool,
    advertise_address: bool,
    external_address: Vec<Multiaddr>,
    rendezvous: Rendezvous,
    relay: Relay,
}

impl Default for Discovery {
    fn default() -> Self {
        Self {
            // The default of 0.11.
            mdns: true,
            advertise_address: false,
            external_address: Vec::new(),
            rendezvous: Rendezvous::default(),
            relay: Relay::default(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Rendezvous {
    namespace: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Relay {
    registrations_limit: Option<u32>,
}

/// Converts a configuration file of the published 0.11 node.
///
/// The result has the preset [`Published0_11`](Preset::Published0_11), because other nodes of the
/// network still run 0.11. Listen addresses, boot nodes, mDNS, external addresses (where they were
/// advertised), the rendezvous namespace and the number of relays are taken over. Keys that do not
/// concern the network are ignored, as are the intervals and limits of rendezvous and AutoNAT, which
/// are constants now. The identity is not part of a configuration.
///
/// # Errors
///
/// [`ConfigError::Syntax`] with the line that is not TOML, [`ConfigError::NotPublished`] for a file
/// without the tables `swarm` and `bootstrap`, [`ConfigError::Parse`] with the path of a key that has
/// another type, and [`ConfigError::Invalid`] with the key of the result whose value is refused.
pub fn import_0_11(text: &str) -> Result<NetworkConfig, ConfigError> {
    let table = file::parse(text)?;
    if !file::is_published(&table) {
        return Err(ConfigError::NotPublished);
    }
    let published: Published = file::deserialize(table)?;
    let mut config = NetworkConfig::preset(Preset::Published0_11);
    if let Some(listen) = published.swarm.listen {
        config.listen = listen;
    }
    let discovery = &mut config.discovery;
    discovery.boot = published.bootstrap.nodes;
    discovery.mdns = published.discovery.mdns;
    if published.discovery.advertise_address {
        discovery.external = published.discovery.external_address;
    }
    if let Some(namespace) = published.discovery.rendezvous.namespace {
        discovery.global_namespace = namespace;
    }
    if let Some(relays) = published.discovery.relay.registrations_limit {
        discovery.relays = relays;
    }
    config.validate()?;
    Ok(config)
}
