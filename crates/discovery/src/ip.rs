//! The IP address of a multiaddress.

use std::net::IpAddr;

use calimero_network_primitives::{Multiaddr, multiaddr::Protocol};

/// Returns the IP address at the start of `address`. A mapped IPv6 address is an IPv4 address.
pub(crate) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(IpAddr::from(ip).to_canonical()),
        _ => None,
    }
}
