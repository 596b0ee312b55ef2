//! Streams in memory, for tests in paused time.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use calimero_network_blob::{
    serve::Server,
    transfer::{Opened, Opener, Version},
};
use calimero_network_primitives::PeerId;
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use crate::net::requester;

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

/// Serves a store over one stream that carries at most `bytes_per_s` to the requester.
pub(crate) fn slowly(
    server: &Server,
    version: Version,
    pipe: Pipe,
    bytes_per_s: usize,
) -> BoxFuture<'static, ()> {
    slowly_to(requester(), server, version, pipe, bytes_per_s)
}

/// As [`slowly`], to another requester.
pub(crate) fn slowly_to(
    peer: PeerId,
    server: &Server,
    version: Version,
    pipe: Pipe,
    bytes_per_s: usize,
) -> BoxFuture<'static, ()> {
    const STEPS_PER_S: usize = 10;
    let (near, far) = tokio::io::duplex(1 << 16);
    let serving = server.serve(peer, version, far.compat());
    let piece = bytes_per_s / STEPS_PER_S;
    Box::pin(async move {
        let (mut from_requester, mut to_requester) = tokio::io::split(pipe.into_inner());
        let (mut from_server, mut to_server) = tokio::io::split(near);
        let requests = async {
            let _ = tokio::io::copy(&mut from_requester, &mut to_server).await;
            let _ = to_server.shutdown().await;
        };
        let responses = async {
            let mut buffer = vec![0; piece];
            while let Ok(len @ 1..) = from_server.read(&mut buffer).await {
                if to_requester.write_all(&buffer[..len]).await.is_err() {
                    break;
                }
                let steps = Duration::from_secs(1) / STEPS_PER_S as u32;
                tokio::time::sleep(steps * len as u32 / piece as u32).await;
            }
            let _ = to_requester.shutdown().await;
        };
        let _ = tokio::join!(serving, requests, responses);
    })
}

/// A provider that a number distinguishes.
pub(crate) fn numbered(number: u32) -> PeerId {
    let mut seed = [9; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    let key = calimero_network_primitives::Keypair::ed25519_from_bytes(seed).unwrap();
    key.public().to_peer_id()
}
