//! In-memory handshakes between the configuration of this crate and that of a
//! test peer.

mod accepted;
mod forge;
mod refused;

use std::sync::Arc;

use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, Error, ServerConfig, ServerConnection,
    SideData, pki_types::ServerName,
};

/// The result of a handshake on both sides.
struct Outcome {
    client: Result<ClientConnection, Error>,
    server: Result<ServerConnection, Error>,
}

impl Outcome {
    /// Returns the error of the client, which must have refused first. The
    /// server only gets an alert.
    fn refused_by_client(self) -> Error {
        assert!(self.server.is_err(), "the server must not go on");
        self.client.expect_err("the client must refuse")
    }

    fn refused_by_server(self) -> Error {
        self.server.expect_err("the server must refuse")
    }

    fn completed(self) -> (ClientConnection, ServerConnection) {
        (
            self.client.expect("client completes"),
            self.server.expect("server completes"),
        )
    }
}

/// Passes records in both directions until both sides have completed or failed.
fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Outcome {
    let name = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
    let mut client = ClientConnection::new(client, name).expect("a client");
    let mut server = ServerConnection::new(server).expect("a server");
    let (mut client_end, mut server_end) = (Ok(()), Ok(()));
    // TLS 1.3 with a retried key share needs two round trips; alerts need one
    // more.
    for _ in 0..4 {
        pass(&mut client, &mut server, &mut server_end);
        pass(&mut server, &mut client, &mut client_end);
    }
    if client_end.is_ok() && server_end.is_ok() {
        assert!(!client.is_handshaking() && !server.is_handshaking());
    }
    Outcome {
        client: client_end.map(|()| client),
        server: server_end.map(|()| server),
    }
}

/// Passes all output of `from` to `to` and keeps the first error.
fn pass<A: SideData, B: SideData>(
    from: &mut ConnectionCommon<A>,
    to: &mut ConnectionCommon<B>,
    end: &mut Result<(), Error>,
) {
    let mut records = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut records).expect("a vector takes all");
    }
    let mut unread = records.as_slice();
    while !unread.is_empty() && end.is_ok() {
        to.read_tls(&mut unread).expect("a slice gives all");
        *end = to.process_new_packets().map(drop);
    }
}
