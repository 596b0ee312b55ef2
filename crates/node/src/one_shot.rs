//! Nodes that run for one command.

use calimero_network::{Multiaddr, NetworkConfig, multiaddr::Protocol};

/// The configuration of such a node: as any node it listens, on ports that the system chooses, so
/// that peers behind a NAT can be reached through a relay and by hole punching. It is a member of the
/// overlays of its topics alone, and of no network.
pub(crate) fn config(boot: Vec<Multiaddr>, local: bool) -> NetworkConfig {
    let mut config = NetworkConfig::default();
    config.listen = config.listen.iter().map(with_any_port).collect();
    config.discovery.boot = boot;
    config.discovery.local_network = local;
    config.discovery.global_namespace = String::new();
    config
}

/// The configuration of a node that connects only where the command says: without listeners, boot
/// nodes, relays and rendezvous.
pub(crate) fn quiet_config() -> NetworkConfig {
    let mut config = config(Vec::new(), false);
    config.listen.clear();
    config.discovery.relays = 0;
    config
}

/// The address with port 0.
fn with_any_port(address: &Multiaddr) -> Multiaddr {
    let part = |part| match part {
        Protocol::Tcp(_) => Protocol::Tcp(0),
        Protocol::Udp(_) => Protocol::Udp(0),
        other => other,
    };
    address.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn such_a_node_listens_on_any_port() {
        let config = config(Vec::new(), false);
        config.validate().unwrap();
        assert!(!config.listen.is_empty());
        for address in &config.listen {
            let text = address.to_string();
            assert!(text.contains("/tcp/0") || text.contains("/udp/0"), "{text}");
        }
    }
}
