//! libp2p's ping, asked back to back on one stream: 32 bytes there and the same 32 back.

use std::time::{Duration, Instant};

use calimero_network::{NetworkClient, PeerId, StreamProtocol, Substream};
use futures::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::error::CommandError;

const PROTOCOL: StreamProtocol = StreamProtocol::new("/ipfs/ping/1.0.0");
const PING_BYTES: usize = 32;

/// One stream of pings.
pub(crate) struct Pinger {
    peer: PeerId,
    stream: Substream,
    sent: u64,
}

impl Pinger {
    pub(crate) async fn open(client: &NetworkClient, peer: PeerId) -> Result<Self, CommandError> {
        let stream = client.open_raw_stream(peer, PROTOCOL).await?;
        Ok(Self {
            peer,
            stream,
            sent: 0,
        })
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
        exchange.await.map_err(|source| CommandError::Io {
            what: "ping",
            source,
        })?;
        if answer != request {
            return Err(CommandError::WrongEcho { peer: self.peer });
        }
        Ok(started.elapsed())
    }
}
