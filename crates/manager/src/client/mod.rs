//! The handle.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use calimero_network_primitives::{
    Multiaddr, NetworkConfig, PeerId, ProtocolId, addr::peer_of, multiaddr::Protocol,
};
use calimero_network_stream::{AcceptError, Control, FrameStream, Incoming, OpenError, Substream};
use futures::future::{Either, select};
use futures_timer::Delay;
use libp2p::{StreamProtocol, swarm::derive_prelude::ListenerId};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

use crate::{
    command::{Command, Reply},
    error::{DialError, ListenError, Stopped},
    status::{Connection, PeerInfo, Shared, Status},
};

/// The handle to a running manager: cheap to clone, `Send + Sync`, usable from any executor.
///
/// Dropping the future of a call cancels what it waits for. When the last handle is dropped the
/// manager stops as by [`shutdown`](Self::shutdown).
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
}

impl NetworkClient {
    pub(crate) fn new(
        peer: PeerId,
        commands: mpsc::Sender<Command>,
        streams: Control,
        runtime: Handle,
        shared: Arc<Shared>,
        config: Arc<NetworkConfig>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                peer,
                commands,
                streams,
                runtime,
                shared,
                config,
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

    /// Connects to whoever answers at `address`; to nobody else than the peer it ends in, if it
    /// ends in `/p2p/<peer>`. A peer that is connected already is not dialled again.
    ///
    /// Calls for the same peer or address share one dial and its outcome. The deadline is
    /// `connections.dial_timeout_ms`.
    ///
    /// # Errors
    ///
    /// [`DialError`], with the cause of each address that failed.
    pub async fn dial(&self, address: Multiaddr) -> Result<Connection, DialError> {
        match peer_of(&address) {
            Some(peer) => self.dial_peer(peer, [address]).await,
            None => {
                let target = address.clone();
                let command = |reply| Command::DialAddress { address, reply };
                self.wait_for_dial(target, command).await
            }
        }
    }

    /// Connects to a peer at one of `addresses`: at the best by libp2p's ranking (QUIC before
    /// TCP, IPv6 before IPv4), the others staggered after it. At most 64 count.
    ///
    /// # Errors
    ///
    /// [`DialError`], with the cause of each address that failed.
    pub async fn dial_peer(
        &self,
        peer: PeerId,
        addresses: impl IntoIterator<Item = Multiaddr>,
    ) -> Result<Connection, DialError> {
        let addresses: Vec<_> = addresses.into_iter().collect();
        for address in &addresses {
            if peer_of(address).is_some_and(|other| other != peer) {
                return Err(DialError::Contradiction {
                    address: address.clone(),
                    expected: peer,
                });
            }
        }
        let target = match addresses.as_slice() {
            [only] => only.clone(),
            _ => Multiaddr::empty().with(Protocol::P2p(peer)),
        };
        let command = |reply| Command::DialPeer {
            peer,
            addresses,
            reply,
        };
        self.wait_for_dial(target, command).await
    }

    /// Closes every connection with `peer` and gives up dialling it. `true` if one stood.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn disconnect(&self, peer: PeerId) -> Result<bool, Stopped> {
        self.ask(|reply| Command::Disconnect { peer, reply }).await
    }

    /// Refuses `peer` from now on and closes its connections.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn block(&self, peer: PeerId) -> Result<(), Stopped> {
        let blocked = true;
        self.ask(|reply| Command::Block {
            peer,
            blocked,
            reply,
        })
        .await
    }

    /// Refuses `peer` no longer.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn unblock(&self, peer: PeerId) -> Result<(), Stopped> {
        let blocked = false;
        self.ask(|reply| Command::Block {
            peer,
            blocked,
            reply,
        })
        .await
    }

    /// Listens on `address`. Gives the listener and the first address it is reached under, with
    /// the port that was bound; more follow as events where `address` stands for several.
    ///
    /// # Errors
    ///
    /// [`ListenError`]; its deadline is `connections.listen_timeout_ms`.
    pub async fn listen_on(
        &self,
        address: Multiaddr,
    ) -> Result<(ListenerId, Multiaddr), ListenError> {
        let after = self.inner.config.connections.listen_timeout;
        let command = |reply| Command::Listen {
            address: address.clone(),
            reply,
        };
        within(after, self.ask(command))
            .await
            .ok_or(ListenError::Deadline { address, after })??
    }

    /// Closes a listener. `true` if it stood.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn stop_listening(&self, id: ListenerId) -> Result<bool, Stopped> {
        self.ask(|reply| Command::StopListening { id, reply }).await
    }

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

    /// How many peers are connected. Reads a counter, asks nobody.
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

    /// What `peer` says of itself through identify, as soon as it has said it. Nothing if it is
    /// not connected, leaves before, does not speak identify, or says nothing for
    /// `streams.open_timeout_ms`.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn identified(&self, peer: PeerId) -> Result<Option<Arc<PeerInfo>>, Stopped> {
        let limit = self.inner.config.streams.open_timeout;
        let answer = self.ask(|reply| Command::Identified { peer, reply });
        within(limit, answer).await.unwrap_or(Ok(None))
    }

    /// A snapshot of addresses and connections.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn status(&self) -> Result<Status, Stopped> {
        self.ask(|reply| Command::Status { reply }).await
    }

    /// Stops the manager: answers everybody who waits with `Stopped`, closes listeners, tells
    /// every peer, and returns when that is done, at the latest after
    /// `handle.shutdown_timeout_ms`.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if it has stopped before.
    pub async fn shutdown(&self) -> Result<(), Stopped> {
        self.ask(|reply| Command::Shutdown { reply }).await
    }

    async fn wait_for_dial(
        &self,
        target: Multiaddr,
        command: impl FnOnce(Reply<Result<Connection, DialError>>) -> Command,
    ) -> Result<Connection, DialError> {
        let after = self.inner.config.connections.dial_timeout;
        let cancel = ForgetDials(&self.inner.commands);
        let answer = within(after, self.ask(command)).await;
        if answer.is_some() {
            std::mem::forget(cancel);
        }
        answer.ok_or(DialError::Deadline { target, after })??
    }

    /// Sends a command and waits for its answer; waits for room in the queue first.
    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        let sent = self.inner.commands.send(command(reply)).await;
        sent.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}

/// Tells the actor, when dropped, that somebody who waited for a dial went away. With a full
/// queue it is not told, and the dial ends by its own deadline.
struct ForgetDials<'a>(&'a mpsc::Sender<Command>);

impl Drop for ForgetDials<'_> {
    fn drop(&mut self) {
        let _ = self.0.try_send(Command::ForgetDials);
    }
}

/// What `future` gives within `limit`, else nothing.
async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    match select(pin!(future), Delay::new(limit)).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}
