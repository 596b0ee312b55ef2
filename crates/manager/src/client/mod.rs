//! The handle to a running manager, by concern.

#[cfg(feature = "blobs")]
mod blobs;
mod connections;
mod gossip;
#[cfg(feature = "invites")]
mod invites;
mod streams;

use std::{
    future::Future,
    hash::Hash,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use calimero_network_primitives::{NetworkConfig, PeerId, Topic, limits::STREAM_OPEN_TIMEOUT};
use calimero_network_stream::Control;
use futures::future::{Either, select};
use futures_timer::Delay;
#[cfg(feature = "metrics")]
use prometheus_client::registry::Registry;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    task::coop::consume_budget,
};

#[cfg(feature = "blobs")]
use crate::blobs::Blobs;
#[cfg(feature = "metrics")]
use crate::metrics::MetricsFormat;
use crate::{
    command::{Command, Reply},
    error::Stopped,
    read_cache::ReadCache,
    status::{PeerInfo, Shared, Status},
};

#[cfg(feature = "blobs")]
pub use self::blobs::{BlobProviders, BlobTransfer};

/// The handle to a running manager: cheap to clone, `Send + Sync`, usable from any executor.
///
/// Dropping the future of a call cancels what it waits for. When the last handle is dropped the
/// manager stops as by [`shutdown`](Self::shutdown).
///
/// # What reads see
///
/// [`status`](Self::status), [`mesh_peers`](Self::mesh_peers),
/// [`mesh_peer_count`](Self::mesh_peer_count) and [`subscribed_peers`](Self::subscribed_peers) share a
/// read cache among all clones of the handle. An answer is valid until the manager emits an event or
/// answers a call that changes state, and for at most 10 ms. So a read shows at least the effect of
/// every call that has returned and of every event that was read, other than messages, and may
/// otherwise be 10 ms old. Hundreds of thousands of reads a second then cost the manager a hundred.
/// [`peer_count`](Self::peer_count) reads a counter and is never old.
#[derive(Clone, Debug)]
pub struct NetworkClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    peer: PeerId,
    commands: mpsc::Sender<Command>,
    streams: Control,
    runtime: Handle,
    shared: Arc<Shared>,
    config: Arc<NetworkConfig>,
    #[cfg(feature = "blobs")]
    blobs: Blobs,
    #[cfg(feature = "metrics")]
    registry: Registry,
    answers: Answers,
}

/// The read caches, one for each kind of answer.
#[derive(Debug, Default)]
struct Answers {
    status: ReadCache<(), Arc<Status>>,
    mesh_peers: ReadCache<Topic, Arc<[PeerId]>>,
    subscribers: ReadCache<Topic, Arc<[PeerId]>>,
}

/// Identity, status and shutdown.
///
/// ```
/// # use calimero_network::{Keypair, NetworkConfig, NetworkManager, Stopped};
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let quiet = NetworkConfig { listen: Vec::new(), ..NetworkConfig::default() };
/// # let key = Keypair::generate_ed25519;
/// # let (alice, _) = NetworkManager::start_in_memory(key(), quiet.clone()).await?;
/// # let (bob, _) = NetworkManager::start_in_memory(key(), quiet).await?;
/// # let (_, address) = bob.listen_on("/memory/0".parse()?).await?;
/// # alice.dial(address).await?;
/// assert_eq!(alice.peer_count()?, 1);
/// let info = alice.identified(bob.peer_id()).await?.ok_or("it says nothing")?;
/// assert_eq!(info.agent_version, bob.config().agent_version);
///
/// let status = alice.status().await?;
/// assert_eq!((status.peer, status.peers()), (alice.peer_id(), vec![bob.peer_id()]));
/// # #[cfg(feature = "metrics")]
/// assert!(alice.metrics().await?.contains("peers 1"));
/// // A task that moves many bytes runs on the runtime of the network.
/// assert_eq!(alice.runtime().spawn(async { 6 * 7 }).await?, 42);
///
/// alice.shutdown().await?;
/// assert_eq!(alice.peer_count(), Err(Stopped));
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run()).unwrap();
/// ```
impl NetworkClient {
    #[allow(
        clippy::too_many_arguments,
        reason = "each part is built in one place and belongs to the handle alone"
    )]
    pub(crate) fn new(
        peer: PeerId,
        commands: mpsc::Sender<Command>,
        streams: Control,
        runtime: Handle,
        shared: Arc<Shared>,
        config: Arc<NetworkConfig>,
        #[cfg(feature = "blobs")] blobs: Blobs,
        #[cfg(feature = "metrics")] registry: Registry,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                peer,
                commands,
                streams,
                runtime,
                shared,
                config,
                #[cfg(feature = "blobs")]
                blobs,
                #[cfg(feature = "metrics")]
                registry,
                answers: Answers::default(),
            }),
        }
    }

    /// This node's peer id.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.inner.peer
    }

    /// The configuration the manager was started with.
    #[must_use]
    pub fn config(&self) -> &NetworkConfig {
        &self.inner.config
    }

    /// The runtime that carries the network.
    ///
    /// A task spawned here reads and writes streams without waking another thread for each
    /// frame, which is what small messages cost most; `docs/performance.md` of the repository has
    /// the figures. Where the network has a thread of its own (`handle.runtime`), such a task
    /// must not keep it long between awaits, and it is dropped when the manager stops.
    #[must_use]
    pub fn runtime(&self) -> &Handle {
        &self.inner.runtime
    }

    /// The number of connected peers. Reads a counter and does not wait.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub fn peer_count(&self) -> Result<usize, Stopped> {
        if self.inner.shared.is_stopped() {
            return Err(Stopped);
        }
        Ok(self.inner.shared.peers.load(Ordering::Acquire))
    }

    /// The identify information of `peer`, as soon as it is received. `None` if the peer is not
    /// connected, disconnects before, does not speak identify, or sends nothing within
    /// [`STREAM_OPEN_TIMEOUT`].
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn identified(&self, peer: PeerId) -> Result<Option<Arc<PeerInfo>>, Stopped> {
        let limit = STREAM_OPEN_TIMEOUT;
        let answer = self.ask(|reply| Command::Identified { peer, reply });
        within(limit, answer).await.unwrap_or(Ok(None))
    }

    /// A snapshot of addresses and connections; see
    /// [what reads see](Self#what-reads-see).
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn status(&self) -> Result<Status, Stopped> {
        let ask = || self.ask(|reply| Command::Status { reply });
        let kept = self.read(&self.inner.answers.status, &(), ask).await?;
        let mut status = Status::clone(&kept);
        status.events_dropped = self.inner.shared.events_dropped.load(Ordering::Relaxed);
        Ok(status)
    }

    /// All metrics in the text format of OpenMetrics, which Prometheus reads: connections, streams,
    /// bytes, dials, topics, blobs, discovery, and the servers for other peers.
    /// `docs/reference/metrics.md` of the repository lists them.
    ///
    /// Costs the manager some tens of microseconds, and a copy of discovery's tables. The text is
    /// written in the task of the caller.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    #[cfg(feature = "metrics")]
    pub async fn metrics(&self) -> Result<String, Stopped> {
        self.metrics_in(MetricsFormat::OpenMetrics).await
    }

    /// As [`metrics`](Self::metrics), in the given format.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    #[cfg(feature = "metrics")]
    pub async fn metrics_in(&self, format: MetricsFormat) -> Result<String, Stopped> {
        self.ask(|reply| Command::Metrics { reply }).await?;
        Ok(format.encode(&self.inner.registry))
    }

    /// Stops the manager. Every waiting call returns `Stopped`, listeners close, queued messages are
    /// written (in at most half of the time) and peers have [`linger`](calimero_network_primitives::config::HandleTuning::linger) to read them, and
    /// connections close in order. Returns when that is done, at the latest after
    /// `handle.shutdown_timeout_ms`.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if it has stopped before.
    pub async fn shutdown(&self) -> Result<(), Stopped> {
        self.ask(|reply| Command::Shutdown { reply }).await
    }

    /// Returns the cached answer about `key`, or asks the actor and caches its answer.
    async fn read<K, V, A, F>(
        &self,
        cache: &ReadCache<K, V>,
        key: &K,
        ask: impl FnOnce() -> F,
    ) -> Result<V, Stopped>
    where
        K: Clone + Eq + Hash,
        V: Clone + From<A>,
        F: Future<Output = Result<A, Stopped>>,
    {
        // A task that reads in a loop until something changes must let other tasks run.
        consume_budget().await;
        let shared = &self.inner.shared;
        if shared.is_stopped() {
            return Err(Stopped);
        }
        let asked = shared.changes.now();
        if let Some(answer) = cache.get(key, asked) {
            return Ok(answer);
        }
        let answer = V::from(ask().await?);
        cache.keep(key.clone(), asked.answered(), answer.clone());
        Ok(answer)
    }

    /// Sends a command and waits for its answer. Waits first while the queue of commands is full.
    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        let sent = self.inner.commands.send(command(reply)).await;
        sent.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}

/// Asks the actor, when dropped, to remove the waiters of callers that were dropped. If the queue is
/// full, the request is not sent, and the operation ends by its own deadline.
struct Forget<'a>(&'a mpsc::Sender<Command>);

impl Forget<'_> {
    /// The answer has arrived: no waiter is left to remove.
    fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        let _ = self.0.try_send(Command::Forget);
    }
}

/// The output of `future`, or `None` if it is not ready within `limit`.
async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    match select(pin!(future), Delay::new(limit)).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}
