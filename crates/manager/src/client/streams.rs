//! Streams.

use calimero_network_primitives::ProtocolId;
use calimero_network_stream::{AcceptError, FrameStream, Incoming, OpenError, Substream};
use libp2p::StreamProtocol;

use super::NetworkClient;
use crate::PeerId;

/// Streams.
impl NetworkClient {
    /// Opens a stream of the general protocol to `peer`, in frames, dialling it if addresses are
    /// known and no connection stands. The deadline is `streams.open_timeout_ms`.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub async fn open_stream(&self, peer: PeerId) -> Result<FrameStream<Substream>, OpenError> {
        let protocol = StreamProtocol::new(ProtocolId::Stream.as_str());
        let stream = self.open_raw_stream(peer, protocol).await?;
        Ok(FrameStream::with_config(
            stream,
            (&self.inner.config.streams).into(),
        ))
    }

    /// Opens a stream of any protocol to `peer`, as plain bytes.
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

    /// Accepts streams of another protocol than the general one, whose streams come as
    /// [`NetworkEvent::StreamOpened`](crate::NetworkEvent::StreamOpened). Dropping the result
    /// ends that.
    ///
    /// # Errors
    ///
    /// [`AcceptError`] if the protocol is accepted already.
    pub fn accept(&self, protocol: StreamProtocol) -> Result<Incoming, AcceptError> {
        self.inner.streams.accept(protocol)
    }

    /// How many streams that peers opened are open or wait to be accepted, of all protocols that
    /// are accepted here.
    #[must_use]
    pub fn open_inbound_streams(&self) -> usize {
        self.inner.streams.open_inbound()
    }
}
