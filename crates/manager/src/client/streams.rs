//! Streams.

use calimero_network_primitives::ProtocolId;
use calimero_network_stream::{
    AcceptError, FrameConfig, FrameStream, Incoming, OpenError, Substream,
};
use libp2p::StreamProtocol;

use super::NetworkClient;
use crate::PeerId;

/// Streams.
///
/// ```
/// # use calimero_network::{
/// #     Keypair, NetworkConfig, NetworkEvent, NetworkManager, OpenError, StreamEvent, StreamProtocol,
/// # };
/// # use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let quiet = NetworkConfig { listen: Vec::new(), ..NetworkConfig::default() };
/// # let key = Keypair::generate_ed25519;
/// # let (alice, _) = NetworkManager::start_in_memory(key(), quiet.clone()).await?;
/// # let (bob, mut bob_sees) = NetworkManager::start_in_memory(key(), quiet).await?;
/// # let (_, address) = bob.listen_on("/memory/0".parse()?).await?;
/// # alice.dial(address).await?;
/// // In frames.
/// let mut stream = alice.open_stream(bob.peer_id()).await?;
/// stream.send("how are you?".into()).await?;
/// while let Some(event) = bob_sees.next().await {
///     if let NetworkEvent::Stream(StreamEvent::Opened { mut stream, .. }) = event {
///         assert_eq!(stream.next().await.ok_or("closed")??, "how are you?");
///         assert_eq!(bob.open_inbound_streams(), 1);
///         break;
///     }
/// }
///
/// // As bytes, of another protocol.
/// let protocol = StreamProtocol::new("/shout/1");
/// let error = alice.open_raw_stream(bob.peer_id(), protocol.clone()).await.unwrap_err();
/// assert!(matches!(error, OpenError::UnsupportedProtocol { .. }));
/// let mut shouts = bob.accept(protocol.clone())?;
/// let mut stream = alice.open_raw_stream(bob.peer_id(), protocol).await?;
/// stream.write_all(b"HELLO").await?;
/// stream.close().await?;
/// let mut received = Vec::new();
/// shouts.next().await.ok_or("stopped")?.stream.read_to_end(&mut received).await?;
/// assert_eq!(received, b"HELLO");
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run()).unwrap();
/// ```
impl NetworkClient {
    /// Opens a stream of the general protocol to `peer`, in frames. Dials the peer if it is not
    /// connected and an address is known. The deadline is [`STREAM_OPEN_TIMEOUT`](calimero_network_primitives::limits::STREAM_OPEN_TIMEOUT).
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub async fn open_stream(&self, peer: PeerId) -> Result<FrameStream<Substream>, OpenError> {
        let protocol = StreamProtocol::new(ProtocolId::Stream.as_str());
        let stream = self.open_raw_stream(peer, protocol).await?;
        Ok(stream.into_frames(FrameConfig::default()))
    }

    /// Opens a stream of any protocol to `peer`, as plain bytes. The general protocol,
    /// `/calimero/stream/0.0.2`, is one of them, for programs that read and write frames by a codec of
    /// their own. [`FrameStream::into_inner`] does the same for a stream of
    /// [`StreamEvent::Opened`](crate::StreamEvent::Opened) that has received nothing yet.
    ///
    /// If the peer has confirmed the protocol on the connection before, the stream is returned
    /// without a round trip. A protocol that the peer has withdrawn meanwhile is an error of the
    /// first read, of the kind [`Unsupported`](std::io::ErrorKind::Unsupported), and of the next
    /// opening. A program that never reads the stream does not learn of it.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub async fn open_raw_stream(
        &self,
        peer: PeerId,
        protocol: StreamProtocol,
    ) -> Result<Substream, OpenError> {
        if self.inner.shared.is_stopped() {
            return Err(OpenError::Stopped);
        }
        self.inner.streams.open(peer, protocol).await
    }

    /// Accepts streams of a protocol other than the general one, whose streams are emitted as
    /// [`StreamEvent::Opened`](crate::StreamEvent::Opened). Dropping the result ends the acceptance.
    ///
    /// # Errors
    ///
    /// [`AcceptError`] if the protocol is accepted already.
    pub fn accept(&self, protocol: StreamProtocol) -> Result<Incoming, AcceptError> {
        self.inner.streams.accept(protocol)
    }

    /// The number of inbound streams that are open or wait to be accepted, of all accepted protocols.
    #[must_use]
    pub fn open_inbound_streams(&self) -> usize {
        self.inner.streams.open_inbound()
    }
}
