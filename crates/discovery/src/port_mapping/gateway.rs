//! Requests to the router: PCP and NAT-PMP by `crab_nat`, UPnP IGD by `igd-next`.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    num::NonZeroU16,
    time::Duration,
};

use crab_nat::{
    InternetProtocol, MappingFailure, PortMapping, PortMappingOptions, PortMappingType,
    TimeoutConfig, natpmp, pcp,
};
use igd_next::{AddPortError, PortMappingProtocol};
use tokio::time::timeout;

use super::{
    Mapping, Port, Protocol, Transport,
    upnp::{Router, Search},
};

/// Lifetime that is requested, 20 min: a router that restarted has its mappings again after half of
/// it, and a mapping of a node that was killed disappears soon.
const LIFETIME: Duration = Duration::from_secs(1200);

/// Retransmissions of PCP and NAT-PMP: after 250 ms, 500 ms and 1 s, and an end after 3.75 s. The
/// first wait is that of RFC 6886, section 3.1. A router without the protocols does not answer.
const RETRIES: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 3,
    max_retry_timeout: None,
};

/// Time for all requests of one mapping, 20 s.
const LIMIT: Duration = Duration::from_secs(20);

/// Name of the mapping in the pages of a router.
const DESCRIPTION: &str = "calimero-network";

/// Characters that are kept of the answer of a router, 256.
const MAX_REASON: usize = 256;

/// The reason why a port has no mapping.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The address is not the one that leads to the default gateway.
    #[error("the address does not lead to the router")]
    OtherNetwork,
    /// The router answered none of the protocols in time.
    #[error("no router answered")]
    NoAnswer,
    /// The router has no external IPv4 address, or reported an unusable one.
    #[error("the router reported no external IPv4 address")]
    NoExternalAddress,
    /// The router refused.
    #[error("the router refused: {reason}")]
    Refused {
        /// The answer of the router.
        reason: String,
    },
}

/// A mapping at a router, with what its renewal and its withdrawal need.
#[derive(Clone)]
pub(super) enum Lease {
    Pcp(PortMapping),
    Upnp {
        gateway: Router,
        protocol: PortMappingProtocol,
        external_port: u16,
    },
}

/// Requests a mapping of `port`, or renews `lease`.
pub(super) async fn request(port: Port, lease: Option<Lease>) -> Result<(Mapping, Lease), Failure> {
    let request = async {
        match lease {
            Some(Lease::Pcp(mut mapping)) => match mapping.renew().await {
                Ok(()) => finish(mapping).await,
                Err(_) => request_new(port).await,
            },
            Some(Lease::Upnp {
                gateway,
                external_port,
                ..
            }) => match upnp_at(gateway, port, external_port).await {
                Ok(renewed) => Ok(renewed),
                Err(_) => request_new(port).await,
            },
            None => request_new(port).await,
        }
    };
    timeout(LIMIT, request)
        .await
        .unwrap_or(Err(Failure::NoAnswer))
}

/// Deletes a mapping. A router that does not answer deletes it when its lifetime ends.
pub(super) async fn withdraw(lease: Lease) {
    let withdrawn = async {
        match lease {
            Lease::Pcp(mapping) => {
                if let Err((error, _)) = mapping.try_drop().await {
                    tracing::debug!(%error, "cannot withdraw a port mapping");
                }
            }
            Lease::Upnp {
                gateway,
                protocol,
                external_port,
            } => {
                if let Err(error) = gateway.remove_port(protocol, external_port).await {
                    tracing::debug!(%error, "cannot withdraw a port mapping");
                }
            }
        }
    };
    if timeout(LIMIT, withdrawn).await.is_err() {
        tracing::debug!("cannot withdraw a port mapping, no answer");
    }
}

async fn request_new(port: Port) -> Result<(Mapping, Lease), Failure> {
    let mut failure = Failure::NoAnswer;
    if let Some(gateway) = default_gateway() {
        if source_towards(gateway) != Some(*port.socket.ip()) {
            return Err(Failure::OtherNetwork);
        }
        match control_protocol(gateway, port).await {
            Ok(mapped) => return Ok(mapped),
            Err(error) => failure = error,
        }
    }
    match upnp(port).await {
        // The answer of the first protocol says more than silence of the second.
        Err(Failure::NoAnswer) => Err(failure),
        other => other,
    }
}

/// Requests a mapping by PCP, or by NAT-PMP where the router has only that.
async fn control_protocol(gateway: Ipv4Addr, port: Port) -> Result<(Mapping, Lease), Failure> {
    let number = NonZeroU16::new(port.socket.port()).ok_or(Failure::NoAnswer)?;
    let protocol = match port.transport {
        Transport::Tcp => InternetProtocol::Tcp,
        Transport::Udp => InternetProtocol::Udp,
    };
    let options = PortMappingOptions {
        external_port: Some(number),
        lifetime_seconds: Some(LIFETIME.as_secs() as u32),
        timeout_config: Some(RETRIES),
    };
    let client = IpAddr::V4(*port.socket.ip());
    let mapping = PortMapping::new(gateway.into(), client, protocol, number, options).await;
    finish(mapping.map_err(failure_of)?).await
}

/// Adds the external address to a mapping by PCP or NAT-PMP.
async fn finish(mapping: PortMapping) -> Result<(Mapping, Lease), Failure> {
    let (external, protocol) = match mapping.mapping_type() {
        PortMappingType::Pcp { external_ip, .. } => (unmapped(external_ip), Protocol::Pcp),
        PortMappingType::NatPmp => {
            let ip = natpmp::external_address(mapping.gateway(), Some(RETRIES)).await;
            let ip = ip.map_err(|error| failure_of(error.into()))?;
            (Some(ip), Protocol::NatPmp)
        }
    };
    let external = external.filter(|ip| !ip.is_unspecified());
    let external = external.ok_or(Failure::NoExternalAddress)?;
    let granted = Mapping {
        external: SocketAddrV4::new(external, mapping.external_port().get()),
        protocol,
        lifetime: Duration::from_secs(mapping.lifetime().into()),
    };
    Ok((granted, Lease::Pcp(mapping)))
}

/// Searches the router by UPnP and requests a mapping.
async fn upnp(port: Port) -> Result<(Mapping, Lease), Failure> {
    let search = Search::new(*port.socket.ip(), default_gateway());
    let gateway = search.run().await.ok_or(Failure::NoAnswer)?;
    upnp_at(gateway, port, port.socket.port()).await
}

async fn upnp_at(gateway: Router, port: Port, wanted: u16) -> Result<(Mapping, Lease), Failure> {
    let external = match gateway.get_external_ip().await {
        Ok(IpAddr::V4(ip)) if !ip.is_unspecified() => ip,
        Ok(_) => return Err(Failure::NoExternalAddress),
        Err(error) => return Err(refused(&error)),
    };
    let protocol = match port.transport {
        Transport::Tcp => PortMappingProtocol::TCP,
        Transport::Udp => PortMappingProtocol::UDP,
    };
    let local = SocketAddr::V4(port.socket);
    let seconds = LIFETIME.as_secs() as u32;
    let added = gateway.add_port(protocol, wanted, local, seconds, DESCRIPTION);
    let external_port = match added.await {
        Ok(()) => wanted,
        // Old routers know only mappings without an end. The end of the node withdraws it.
        Err(AddPortError::OnlyPermanentLeasesSupported) => {
            let added = gateway.add_port(protocol, wanted, local, 0, DESCRIPTION);
            added.await.map_err(|error| refused(&error))?;
            wanted
        }
        Err(AddPortError::PortInUse) => {
            let added = gateway.add_any_port(protocol, local, seconds, DESCRIPTION);
            added.await.map_err(|error| refused(&error))?
        }
        Err(error) => return Err(refused(&error)),
    };
    let granted = Mapping {
        external: SocketAddrV4::new(external, external_port),
        protocol: Protocol::Upnp,
        lifetime: LIFETIME,
    };
    let lease = Lease::Upnp {
        gateway,
        protocol,
        external_port,
    };
    Ok((granted, lease))
}

/// Returns why PCP or NAT-PMP failed. A router without the protocols refuses the packets or drops them.
fn failure_of(error: MappingFailure) -> Failure {
    match error {
        MappingFailure::Pcp(pcp::Failure::Timeout | pcp::Failure::Socket(_))
        | MappingFailure::NatPmp(natpmp::Failure::Timeout | natpmp::Failure::Socket(_)) => {
            Failure::NoAnswer
        }
        other => refused(&other),
    }
}

fn refused(error: &dyn std::fmt::Display) -> Failure {
    // The text may hold the answer of the router.
    let reason = error.to_string().chars().take(MAX_REASON).collect();
    Failure::Refused { reason }
}

/// Returns the IPv4 address in `ip`. PCP writes it as an IPv4-mapped IPv6 address.
fn unmapped(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(ip) => ip.to_ipv4_mapped(),
    }
}

/// Returns the default gateway of the host. Only Linux reports it without a further library; other
/// systems use UPnP alone.
fn default_gateway() -> Option<Ipv4Addr> {
    gateway_in(&fs::read_to_string("/proc/net/route").ok()?)
}

/// Reads the gateway of the default route with the lowest metric from the table of the kernel.
fn gateway_in(table: &str) -> Option<Ipv4Addr> {
    /// `RTF_UP` and `RTF_GATEWAY`.
    const USABLE: u16 = 0x3;
    let rows = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, destination, gateway, flags, _, _, metric, mask, ..] = fields[..] else {
            return None;
        };
        let flags = u16::from_str_radix(flags, 16).ok()?;
        let is_default = destination == "00000000" && mask == "00000000";
        if !is_default || flags & USABLE != USABLE {
            return None;
        }
        let gateway = u32::from_str_radix(gateway, 16).ok()?;
        // The kernel writes the bytes of the address in its own byte order.
        let gateway = Ipv4Addr::from(gateway.to_ne_bytes());
        Some((metric.parse::<u32>().ok()?, gateway))
    });
    rows.min().map(|(_, gateway)| gateway)
}

/// Returns the local address from which packets to `gateway` leave. Connecting a UDP socket sends
/// nothing.
fn source_towards(gateway: Ipv4Addr) -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((gateway, crab_nat::GATEWAY_PORT)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_of_the_best_default_route_is_found() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
            wlan0\t00000000\t0102A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
            eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
            tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n\
            eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n";
        if cfg!(target_endian = "little") {
            assert_eq!(gateway_in(table), Some(Ipv4Addr::new(192, 168, 1, 1)));
        }
        assert_eq!(gateway_in(""), None);
        assert_eq!(
            gateway_in("Iface\neth0 00000000 zz 0003 0 0 0 00000000"),
            None
        );
    }

    #[test]
    fn an_external_address_of_pcp_is_unmapped() {
        let ip = Ipv4Addr::new(198, 51, 100, 7);
        assert_eq!(unmapped(IpAddr::V6(ip.to_ipv6_mapped())), Some(ip));
        assert_eq!(unmapped("2001:db8::1".parse().unwrap()), None);
    }

    #[test]
    fn a_router_without_the_protocol_did_not_answer() {
        assert_eq!(failure_of(pcp::Failure::Timeout.into()), Failure::NoAnswer);
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(
            failure_of(natpmp::Failure::Socket(refused).into()),
            Failure::NoAnswer
        );
        let unauthorized = failure_of(natpmp::Failure::NotAuthorized.into());
        assert!(
            matches!(&unauthorized, Failure::Refused { reason } if reason.contains("authorized")),
            "{unauthorized}"
        );
    }

    #[test]
    fn a_long_answer_of_a_router_is_cut() {
        let Failure::Refused { reason } = refused(&"ä".repeat(1000)) else {
            unreachable!();
        };
        assert_eq!(reason.chars().count(), MAX_REASON);
    }
}
