//! Connections and listeners.

use std::time::Duration;

use calimero_network_primitives::{
    Multiaddr, PeerId, addr::peer_of, limits::LISTEN_TIMEOUT, multiaddr::Protocol,
};
use libp2p::swarm::derive_prelude::ListenerId;
use tokio::sync::{mpsc, oneshot};
use tracing::field;

use super::{Forget, NetworkClient, within};
use crate::{
    command::{Command, Reply},
    error::{BootstrapError, DialError, ListenError, Stopped},
    status::Connection,
};

/// Connections and listeners.
///
/// ```
/// # use calimero_network::{Denial, DialError, Keypair, NetworkConfig, NetworkManager, Path};
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let quiet = NetworkConfig { listen: Vec::new(), ..NetworkConfig::default() };
/// # let key = Keypair::generate_ed25519;
/// # let (alice, _) = NetworkManager::start_in_memory(key(), quiet.clone()).await?;
/// # let (bob, _) = NetworkManager::start_in_memory(key(), quiet).await?;
/// let (listener, address) = bob.listen_on("/memory/0".parse()?).await?;
/// alice.block(bob.peer_id()).await?;
/// let refused = alice.dial_peer(bob.peer_id(), [address.clone()]).await.unwrap_err();
/// assert!(matches!(refused, DialError::Denied(Denial::Blocked)));
/// alice.unblock(bob.peer_id()).await?;
///
/// // Any peer at that address. `dial_peer`, or `/p2p/<peer>` at its end, names the only peer accepted.
/// let connection = alice.dial(address).await?;
/// assert_eq!((connection.peer, connection.path), (bob.peer_id(), Path::Direct));
/// assert!(alice.disconnect(bob.peer_id()).await?);
/// assert!(bob.stop_listening(listener).await?);
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run()).unwrap();
/// ```
impl NetworkClient {
    /// Connects to the peer at `address`. If the address ends in `/p2p/<peer>`, no other peer is
    /// accepted. A peer that is connected is not dialled again, and neither is an address that has an
    /// outbound connection: the call returns that connection.
    ///
    /// Calls for the same peer or address share one dial and its outcome. The deadline is
    /// [`dial_timeout`](calimero_network_primitives::config::ConnectionsTuning::dial_timeout).
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

    /// Closes every connection with `peer` and cancels its dial. Returns `true` if the peer was
    /// connected. A later dial makes a new connection, after the closing ones have ended.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn disconnect(&self, peer: PeerId) -> Result<bool, Stopped> {
        self.ask(|reply| Command::Disconnect { peer, reply }).await
    }

    /// Puts `peer` on the block list and closes its connections.
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

    /// Removes `peer` from the block list.
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

    /// Listens on `address`. Returns the listener and its first address, with the port that was bound.
    /// Further addresses of a wildcard follow as events.
    ///
    /// # Errors
    ///
    /// [`ListenError`]; its deadline is [`LISTEN_TIMEOUT`].
    pub async fn listen_on(
        &self,
        address: Multiaddr,
    ) -> Result<(ListenerId, Multiaddr), ListenError> {
        let after = LISTEN_TIMEOUT;
        let (reply, answer) = oneshot::channel();
        let mut opening = Opening {
            answer: Some(answer),
            commands: &self.inner.commands,
        };
        let command = Command::Listen {
            address: address.clone(),
            reply,
        };
        let outcome = within(after, async {
            let sent = self.inner.commands.send(command).await;
            sent.map_err(|_| Stopped)?;
            opening.opened().await
        });
        let outcome = outcome.await;
        outcome.ok_or(ListenError::Deadline { address, after })?
    }

    /// Listens on an address of the configuration; see [`NetworkManager::start`].
    ///
    /// [`NetworkManager::start`]: crate::NetworkManager::start
    pub(crate) async fn listen_configured(
        &self,
        address: &Multiaddr,
        limit: Duration,
    ) -> Result<(), ListenError> {
        let command = |reply| Command::ListenConfigured {
            address: address.clone(),
            reply,
        };
        let outcome = within(limit, self.ask(command)).await;
        outcome.ok_or_else(|| ListenError::Deadline {
            address: address.clone(),
            after: limit,
        })??
    }

    /// Closes a listener. Returns `true` if it was open.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn stop_listening(&self, id: ListenerId) -> Result<bool, Stopped> {
        self.ask(|reply| Command::StopListening { id, reply }).await
    }

    /// Starts discovery now: dials boot nodes, cached and lost peers, and asks for members of every
    /// overlay. Returns when a peer is connected, at once if one is.
    ///
    /// A node does this automatically and repeatedly. A program calls it to wait for the first peer, or
    /// when it knows that the network has just come back.
    ///
    /// ```
    /// # use calimero_network::{Keypair, NetworkConfig, NetworkManager, addr};
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let quiet = NetworkConfig { listen: Vec::new(), ..NetworkConfig::default() };
    /// let (boot, _) = NetworkManager::start_in_memory(Keypair::generate_ed25519(), quiet.clone()).await?;
    /// let (_, address) = boot.listen_on("/memory/0".parse()?).await?;
    ///
    /// let mut config = quiet;
    /// config.discovery.boot = vec![addr::with_peer(&address, boot.peer_id())?];
    /// let (node, _) = NetworkManager::start_in_memory(Keypair::generate_ed25519(), config).await?;
    /// node.bootstrap().await?;
    /// assert_eq!(node.peer_count()?, 1);
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run()).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`BootstrapError`]; its deadline is [`dial_timeout`](calimero_network_primitives::config::ConnectionsTuning::dial_timeout).
    pub async fn bootstrap(&self) -> Result<(), BootstrapError> {
        let after = self.inner.config.connections.tuning.dial_timeout;
        let forget = Forget(&self.inner.commands);
        let answer = within(after, self.ask(|reply| Command::Bootstrap { reply })).await;
        if answer.is_some() {
            forget.disarm();
        }
        answer.ok_or(BootstrapError::Deadline { after })??
    }

    async fn wait_for_dial(
        &self,
        target: Multiaddr,
        command: impl FnOnce(Reply<Result<Connection, DialError>>) -> Command,
    ) -> Result<Connection, DialError> {
        let span = tracing::info_span!(
            parent: None,
            "dial",
            address = %target,
            peer = field::Empty,
            error = field::Empty,
        );
        let after = self.inner.config.connections.tuning.dial_timeout;
        let forget = Forget(&self.inner.commands);
        let answer = within(after, self.ask(command)).await;
        if answer.is_some() {
            forget.disarm();
        }
        let outcome = answer
            .ok_or(DialError::Deadline { target, after })
            .and_then(|answer| answer?);
        match &outcome {
            Ok(connection) => span.record("peer", field::display(connection.peer)),
            Err(error) => span.record("error", field::display(error)),
        };
        outcome
    }
}

/// A listener that is being opened. When dropped before its answer was read, the listener is closed:
/// no caller has its id. If the queue of commands is full, it stays open.
struct Opening<'a> {
    answer: Option<oneshot::Receiver<Result<(ListenerId, Multiaddr), ListenError>>>,
    commands: &'a mpsc::Sender<Command>,
}

impl Opening<'_> {
    async fn opened(&mut self) -> Result<(ListenerId, Multiaddr), ListenError> {
        let Some(answer) = &mut self.answer else {
            return Err(Stopped.into());
        };
        let opened = answer.await;
        self.answer = None;
        opened.map_err(|_| Stopped)?
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let Some(answer) = &mut self.answer else {
            return;
        };
        answer.close();
        let command = match answer.try_recv() {
            Ok(Ok((id, _))) => Command::StopListening {
                id,
                reply: oneshot::channel().0,
            },
            _ => Command::Forget,
        };
        let _ = self.commands.try_send(command);
    }
}
