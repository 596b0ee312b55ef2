//! The local address of a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use libp2p_core::ConnectedPoint;

use crate::ip::ip_of;

/// Port of the destination for which the system is asked for a route. Nothing is sent to it.
const ANY_PORT: u16 = 53;

/// Returns the local address of a connection; `None` if it is not known, as that of a relayed one.
///
/// A transport does not report the local address of a connection that it dialled. The system uses
/// the source address of its route to the peer, so that one is returned.
pub(super) fn local_ip_of(endpoint: &ConnectedPoint) -> Option<IpAddr> {
    if endpoint.is_relayed() {
        return None;
    }
    match endpoint {
        ConnectedPoint::Listener { local_addr, .. } => {
            ip_of(local_addr).filter(|ip| !ip.is_unspecified())
        }
        ConnectedPoint::Dialer { address, .. } => source_towards(ip_of(address)?),
    }
}

/// Returns the source address of the route to `remote`. Connecting a UDP socket sends no packet.
fn source_towards(remote: IpAddr) -> Option<IpAddr> {
    let own: IpAddr = match remote {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(own, 0)).ok()?;
    socket.connect(SocketAddr::new(remote, ANY_PORT)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}
