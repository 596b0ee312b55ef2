//! Opening a NAT mapping for a peer that is about to dial.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::{
    channel::oneshot,
    future::{self, Either},
};
use libp2p_identity::PeerId;
use rand::RngExt;

use super::{Connecting, Connection, Error, WrongPeer, socket::Socket};

/// Holes punched at one time, at most: as many as dials may be pending by default.
const MAX_PUNCHES: usize = 128;

/// Length of a packet that opens a mapping, in bytes. No receiver interprets its content.
const PACKET_BYTES: usize = 64;

/// Pause between two such packets, in milliseconds, drawn for each packet, by the [DCUtR
/// specification].
///
/// [DCUtR specification]: https://github.com/libp2p/specs/blob/master/relay/DCUtR.md
const PAUSE_MILLIS: std::ops::RangeInclusive<u64> = 10..=200;

/// The holes being punched, by the address they lead to.
#[derive(Debug, Default)]
pub(super) struct Punches {
    waiting: HashMap<(IpAddr, u16), oneshot::Sender<Connecting>>,
}

impl Punches {
    /// Begins to wait for a connection from `remote`.
    pub(super) fn expect(
        &mut self,
        remote: SocketAddr,
    ) -> Result<oneshot::Receiver<Connecting>, Error> {
        // Dials that ended leave their entry behind.
        self.waiting.retain(|_, sender| !sender.is_canceled());
        if self.waiting.contains_key(&key(remote)) {
            return Err(Error::PunchInProgress(remote));
        }
        if self.waiting.len() >= MAX_PUNCHES {
            return Err(Error::TooManyPunches);
        }
        let (sender, receiver) = oneshot::channel();
        self.waiting.insert(key(remote), sender);
        Ok(receiver)
    }

    /// Gives an inbound connection to the dial that waits for it, or back.
    pub(super) fn claim(&mut self, remote: SocketAddr, incoming: Connecting) -> Option<Connecting> {
        match self.waiting.remove(&key(remote)) {
            Some(sender) => sender.send(incoming).err(),
            None => Some(incoming),
        }
    }
}

/// An IPv6 socket address also holds a flow and a scope, which differ by who wrote it down.
fn key(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip(), address.port())
}

/// Sends packets to `remote` until `inbound` brings the connection that they make room for, and
/// completes that. The caller sets the deadline.
pub(super) async fn punch(
    socket: Arc<Socket>,
    remote: SocketAddr,
    expected: PeerId,
    inbound: oneshot::Receiver<Connecting>,
) -> Result<(PeerId, Connection), Error> {
    let packets = std::pin::pin!(send_packets(&socket, remote));
    let connecting = match future::select(inbound, packets).await {
        Either::Left((connecting, _)) => connecting.map_err(|_| Error::NoListener)?,
        Either::Right((error, _)) => return Err(error.into()),
    };
    let (found, connection) = connecting.await?;
    if found != expected {
        return Err(WrongPeer { expected, found }.into());
    }
    Ok((found, connection))
}

/// Sends packets for as long as the socket takes them.
async fn send_packets(socket: &Socket, remote: SocketAddr) -> std::io::Error {
    loop {
        let (packet, pause) = {
            let mut rng = rand::rng();
            let mut packet = [0; PACKET_BYTES];
            rng.fill(&mut packet[..]);
            (packet, rng.random_range(PAUSE_MILLIS))
        };
        tracing::trace!(%remote, "punching");
        if let Err(error) = socket.send_to(&packet, remote).await {
            return error;
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}
