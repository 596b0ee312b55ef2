//! TCP connections from another loopback address, which is another IP prefix for the node under test.

use std::net::SocketAddr;

use calimero_network_primitives::{Multiaddr, multiaddr::Protocol};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpSocket},
};

/// Forwards TCP connections to `address` from `127.0.0.2`. Returns the address that accepts them,
/// without the peer id.
pub(crate) async fn from_other_address(address: &Multiaddr) -> Multiaddr {
    let port = address.iter().find_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let target = SocketAddr::from(([127, 0, 0, 1], port.unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind(SocketAddr::from(([127, 0, 0, 2], 0))).unwrap();
                let mut server = socket.connect(target).await.unwrap();
                // How either side ends the connection is of no interest here.
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
}
