//! Streams of a libp2p swarm that has the behaviour of the stream crate.

use calimero_network_primitives::PeerId;
use calimero_network_stream::{Control, OpenError, StreamProtocol, Substream};

use super::{Opened, Opener, PROTOCOLS, Version};

/// Opens streams through the [`Control`] of a swarm's stream behaviour.
#[derive(Clone, Debug)]
pub struct StreamOpener {
    control: Control,
}

impl StreamOpener {
    /// An opener that asks `control`.
    #[must_use]
    pub fn new(control: Control) -> Self {
        Self { control }
    }

    async fn open_version(
        &self,
        peer: PeerId,
        version: Version,
    ) -> Result<Opened<Substream>, OpenError> {
        let protocol = StreamProtocol::new(version.name());
        let stream = self.control.open(peer, protocol).await?;
        Ok(Opened {
            relayed: stream.is_relayed(),
            stream,
            version,
        })
    }
}

impl Opener for StreamOpener {
    type Stream = Substream;
    type Error = OpenError;

    async fn open(&self, peer: PeerId) -> Result<Opened<Substream>, OpenError> {
        let [preferred, older] = PROTOCOLS;
        match self.open_version(peer, preferred).await {
            Err(OpenError::UnsupportedProtocol { .. }) => self.open_version(peer, older).await,
            opened => opened,
        }
    }
}
