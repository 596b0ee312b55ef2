//! libp2p's ping, back to back on one stream or each on its own: the peer echoes 32 bytes.

use std::time::{Duration, Instant};

use calimero_network::{NetworkClient, OpenError, PeerId, StreamProtocol, Substream};
use futures::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::error::CommandError;

const PROTOCOL: StreamProtocol = StreamProtocol::new("/ipfs/ping/1.0.0");
const PING_BYTES: usize = 32;

/// Streams tried. A peer keeps the last ping stream that was opened and resets the one before it,
/// and the liveness check of this node opens one as soon as a connection is established.
const ATTEMPTS: u32 = 3;

/// One stream of pings.
pub(crate) struct Pinger {
    peer: PeerId,
    stream: Substream,
    sent: u64,
}

impl Pinger {
    /// Opens a stream and sends a first ping, which includes the negotiation.
    pub(crate) async fn open(client: &NetworkClient, peer: PeerId) -> Result<Self, CommandError> {
        Ok(Self::first(client, peer).await?.0)
    }

    /// One ping on a stream of its own, as every implementation answers it: libp2p-ping, to 0.48 at
    /// least, leaves the second of a QUIC stream until something else wakes the connection.
    pub(crate) async fn once(
        client: &NetworkClient,
        peer: PeerId,
    ) -> Result<Duration, CommandError> {
        let (mut pinger, time) = Self::first(client, peer).await?;
        // The measurement is complete, so a failed close does not matter.
        let _ = pinger.stream.close().await;
        Ok(time)
    }

    async fn first(client: &NetworkClient, peer: PeerId) -> Result<(Self, Duration), CommandError> {
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            match Self::attempt(client, peer).await {
                Err(CommandError::Ping { .. } | CommandError::Open(OpenError::Io { .. }))
                    if left > 0 => {}
                other => return other,
            }
        }
    }

    async fn attempt(
        client: &NetworkClient,
        peer: PeerId,
    ) -> Result<(Self, Duration), CommandError> {
        let mut pinger = Self {
            peer,
            stream: client.open_raw_stream(peer, PROTOCOL).await?,
            sent: 0,
        };
        let time = pinger.ping().await?;
        Ok((pinger, time))
    }

    /// Time from the request to its answer.
    pub(crate) async fn ping(&mut self) -> Result<Duration, CommandError> {
        self.sent += 1;
        let mut request = [0; PING_BYTES];
        for (nth, byte) in request.iter_mut().enumerate() {
            *byte = self.sent.to_be_bytes()[nth % 8].wrapping_add(nth as u8);
        }
        let started = Instant::now();
        let mut answer = [0; PING_BYTES];
        let exchange = async {
            self.stream.write_all(&request).await?;
            self.stream.flush().await?;
            self.stream.read_exact(&mut answer).await
        };
        let peer = self.peer;
        exchange
            .await
            .map_err(|source| CommandError::Ping { peer, source })?;
        if answer != request {
            return Err(CommandError::WrongEcho { peer });
        }
        Ok(started.elapsed())
    }
}
