//! The configuration of the published crate, converted to the configuration of the manager.

use std::time::Duration;

use calimero_network_primitives::config::NetworkConfig;
use eyre::{Result, WrapErr as _, eyre};
use network::{
    config::{self, Preset},
    multiaddr::Protocol,
};

use crate::convert::address_to_ours;

/// The environment variable that chooses another preset than `published-0.11`: `small` or `large`,
/// once no node of the network runs the published crate.
pub const PRESET_VARIABLE: &str = "CALIMERO_NETWORK_PRESET";

/// Time between two savings of the peer cache: 15 s, the interval of the published crate. A node has
/// no orderly stop, so what was not saved is lost.
const CACHE_SAVE_INTERVAL: Duration = Duration::from_secs(15);

/// Converts a configuration of the published crate. The intervals and limits of rendezvous and
/// AutoNAT have no equivalent: they are constants of the manager.
pub(crate) fn convert(published: &NetworkConfig, preset: Preset) -> Result<config::NetworkConfig> {
    let mut config = config::NetworkConfig::preset(preset);
    config.listen = addresses(&published.swarm.listen)?;
    config.agent_version = format!(
        "calimero-network/{} ({})",
        env!("CARGO_PKG_VERSION"),
        config.agent_version
    );
    let discovery = &mut config.discovery;
    discovery.boot = addresses(&published.bootstrap.nodes.list)?;
    discovery.mdns = published.discovery.mdns;
    if published.discovery.advertise_address {
        discovery.external = addresses(&published.discovery.external_address)?;
    }
    discovery.global_namespace = published.discovery.rendezvous.namespace.to_string();
    discovery.relays = u32::try_from(published.discovery.relay.registrations_limit)?;
    discovery.cache_save_interval = CACHE_SAVE_INTERVAL;
    // A node that listens on loopback alone has peers on this machine alone.
    discovery.local_network = !config.listen.is_empty() && config.listen.iter().all(is_loopback);
    config.validate().wrap_err("network configuration")?;
    Ok(config)
}

/// The preset that the environment names, `published-0.11` by default.
pub(crate) fn preset() -> Result<Preset> {
    match std::env::var_os(PRESET_VARIABLE) {
        None => Ok(Preset::Published0_11),
        Some(name) => parse_preset(&name.to_string_lossy()),
    }
}

fn parse_preset(name: &str) -> Result<Preset> {
    serde_json::from_value(serde_json::Value::from(name)).map_err(|_| {
        let names = Preset::ALL.map(|preset| match serde_json::to_value(preset) {
            Ok(serde_json::Value::String(name)) => name,
            _ => String::new(),
        });
        eyre!(
            "{PRESET_VARIABLE}={name}: no preset of this name, there are {}",
            names.join(", ")
        )
    })
}

fn addresses(published: &[libp2p::Multiaddr]) -> Result<Vec<network::Multiaddr>> {
    published.iter().map(address_to_ours).collect()
}

fn is_loopback(address: &network::Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use calimero_network_primitives::config::{
        AutonatConfig, BootstrapConfig, BootstrapNodes, DiscoveryConfig, RelayConfig,
        RendezvousConfig, SwarmConfig,
    };
    use libp2p::identity::Keypair;

    use super::*;

    fn published(listen: &[&str]) -> NetworkConfig {
        let discovery = DiscoveryConfig::new(
            false,
            true,
            vec!["/ip4/203.0.113.7/tcp/2428".parse().unwrap()],
            RendezvousConfig::default(),
            RelayConfig::new(5),
            AutonatConfig::default(),
        );
        NetworkConfig::new(
            Keypair::generate_ed25519(),
            SwarmConfig::new(listen.iter().map(|text| text.parse().unwrap()).collect()),
            BootstrapConfig::new(BootstrapNodes::calimero_dev()),
            discovery,
        )
    }

    #[test]
    fn every_key_with_an_equivalent_is_converted() {
        let published = published(&["/ip4/0.0.0.0/tcp/2428"]);
        let config = convert(&published, Preset::Published0_11).unwrap();
        let text = |addresses: &[network::Multiaddr]| {
            addresses
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(text(&config.listen), ["/ip4/0.0.0.0/tcp/2428"]);
        assert_eq!(
            text(&config.discovery.external),
            ["/ip4/203.0.113.7/tcp/2428"]
        );
        assert_eq!(
            text(&config.discovery.boot),
            calimero_network_primitives::config::CALIMERO_DEV_BOOT_NODES
        );
        assert_eq!(config.discovery.global_namespace, "/calimero/devnet/global");
        assert_eq!(config.discovery.relays, 5);
        assert!(!config.discovery.mdns);
        assert!(!config.discovery.local_network);
        assert!(config.blob.unsigned_records);
    }

    #[test]
    fn loopback_alone_is_a_local_network() {
        let listen = ["/ip4/127.0.0.1/tcp/0", "/ip6/::1/udp/0/quic-v1"];
        let mut published = published(&listen);
        published.discovery.external_address.clear();
        let config = convert(&published, Preset::Small).unwrap();
        assert!(config.discovery.local_network);
        assert!(!config.blob.unsigned_records);
    }

    #[test]
    fn an_unknown_preset_is_refused_with_the_names() {
        assert_eq!(parse_preset("large").unwrap(), Preset::Large);
        let error = parse_preset("tiny").unwrap_err().to_string();
        assert!(
            error.ends_with("there are small, large, published-0.11"),
            "{error}"
        );
    }
}
