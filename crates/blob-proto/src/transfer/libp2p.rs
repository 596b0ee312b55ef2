//! Streams of a libp2p swarm that has the behaviour of the stream crate.

use std::sync::Arc;

use calimero_network_primitives::PeerId;
use calimero_network_stream::{Control, OpenError, StreamProtocol, Substream};

use super::{Opened, Opener, PROTOCOLS, Version};

/// Opens streams through the [`Control`] of a swarm's stream behaviour.
#[derive(Clone, Debug)]
pub struct StreamOpener {
    control: Control,
    wanted: Version,
    instead: Arc<[StreamProtocol]>,
}

impl StreamOpener {
    /// An opener that asks `control` for the first of [`PROTOCOLS`] that a peer speaks.
    #[must_use]
    pub fn new(control: Control) -> Self {
        let [wanted, instead @ ..] = PROTOCOLS;
        Self::with_versions(control, wanted, &instead)
    }

    /// An opener that asks for `wanted`, or else for the first of `instead` that a peer speaks, and
    /// for no other.
    #[must_use]
    pub fn with_versions(control: Control, wanted: Version, instead: &[Version]) -> Self {
        Self {
            control,
            wanted,
            instead: instead.iter().map(|one| name(*one)).collect(),
        }
    }
}

fn name(version: Version) -> StreamProtocol {
    StreamProtocol::new(version.name())
}

impl Opener for StreamOpener {
    type Stream = Substream;
    type Error = OpenError;

    async fn open(&self, peer: PeerId) -> Result<Opened<Substream>, OpenError> {
        let (wanted, instead) = (name(self.wanted), self.instead.clone());
        let stream = self.control.open_any(peer, wanted, instead).await?;
        let spoken = PROTOCOLS
            .into_iter()
            .find(|version| *stream.protocol() == version.name());
        Ok(Opened {
            relayed: stream.is_relayed(),
            // Nothing else was offered.
            version: spoken.unwrap_or(self.wanted),
            stream,
        })
    }
}
