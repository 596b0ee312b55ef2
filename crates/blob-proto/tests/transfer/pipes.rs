//! Streams in memory, for tests in paused time.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use calimero_network_blob::transfer::{Opened, Opener, Version};
use calimero_network_primitives::PeerId;
use futures::future::BoxFuture;
use tokio::io::DuplexStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

pub(crate) type Pipe = Compat<DuplexStream>;
type Serve = Arc<dyn Fn(Pipe) -> BoxFuture<'static, ()> + Send + Sync>;

/// Opens streams in memory to some peers. No other one can be reached.
#[derive(Clone, Default)]
pub(crate) struct Pipes {
    providers: HashMap<PeerId, (Version, Serve)>,
    pub(crate) opens: Arc<AtomicUsize>,
}

impl Pipes {
    /// Opens streams to one peer.
    pub(crate) fn new(
        reachable: PeerId,
        version: Version,
        serve: impl Fn(Pipe) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        Self::default().with(reachable, version, serve)
    }

    /// Opens streams to a further peer.
    pub(crate) fn with(
        mut self,
        peer: PeerId,
        version: Version,
        serve: impl Fn(Pipe) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        self.providers.insert(peer, (version, Arc::new(serve)));
        self
    }
}

impl Opener for Pipes {
    type Stream = Pipe;
    type Error = io::Error;

    async fn open(&self, peer: PeerId) -> io::Result<Opened<Pipe>> {
        self.opens.fetch_add(1, Ordering::SeqCst);
        let Some((version, serve)) = self.providers.get(&peer) else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let (here, there) = tokio::io::duplex(1 << 20);
        tokio::spawn(serve(there.compat()));
        Ok(Opened {
            stream: here.compat(),
            version: *version,
            relayed: false,
        })
    }
}

/// A provider that a number distinguishes.
pub(crate) fn numbered(number: u32) -> PeerId {
    let mut seed = [9; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    let key = calimero_network_primitives::Keypair::ed25519_from_bytes(seed).unwrap();
    key.public().to_peer_id()
}
