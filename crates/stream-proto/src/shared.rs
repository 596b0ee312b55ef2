//! State that the behaviour, its handlers and the controls share.
//!
//! A single lock protects it. Streams are delivered and dropped outside the
//! lock, because dropping them releases permits and wakes the connection.

use std::{
    collections::{HashMap, VecDeque},
    io, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use calimero_network_exchange::dial::DialCause;
use calimero_network_primitives::{
    config::StreamsConfig,
    limits::STREAM_OPEN_TIMEOUT,
    resources::{Holder, Resource, Resources},
};
use futures::{
    channel::{mpsc, oneshot},
    task::AtomicWaker,
};
use libp2p_identity::PeerId;
use libp2p_swarm::{ConnectionId, Stream, StreamProtocol};

use crate::{
    admission::{Refusal, Refusals, RefuseReason},
    budget::FrameBudget,
    halves::clamp_timeout,
    open_error::{AcceptError, OpenError},
    router::{Bounds, Effect, Failure, Outcome, RequestId, Router},
    substream::{Inbound, Substream},
    traffic::{ByProtocol, Traffic},
    waiting::{WaitPermit, Waiting},
};

/// A permit for one outbound stream of a connection, released on drop.
#[derive(Debug)]
struct OutboundPermit {
    shared: Arc<Shared>,
    peer: PeerId,
    connection: ConnectionId,
}

impl OutboundPermit {
    fn new(shared: Arc<Shared>, peer: PeerId, connection: ConnectionId) -> Self {
        Self {
            shared,
            peer,
            connection,
        }
    }
}

impl Drop for OutboundPermit {
    fn drop(&mut self) {
        self.shared.released(self.peer, self.connection);
    }
}

pub(crate) type Reply = Result<Substream, OpenError>;

/// Outcome of a negotiation with its stream or error.
#[derive(Debug)]
pub(crate) enum Negotiated {
    Opened(Stream, StreamProtocol),
    Unsupported,
    Broken(io::Error),
    TimedOut,
    Skipped,
}

#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) resources: Resources,
    traffic: ByProtocol,
    /// Version of the accepted protocols. Handlers compare it to detect
    /// changes.
    protocols_version: AtomicU64,
    /// Waker of the task that polls the behaviour.
    pub(crate) behaviour: AtomicWaker,
    config: StreamsConfig,
}

#[derive(Debug)]
struct State {
    router: Router,
    waiters: HashMap<RequestId, Waiter>,
    mailboxes: HashMap<ConnectionId, Arc<Mailbox>>,
    /// Queue of peers to dial, with at most one entry per peer.
    dials: VecDeque<PeerId>,
    acceptors: HashMap<StreamProtocol, Acceptor>,
    /// The keys of `acceptors`, shared with the handlers.
    protocols: Arc<[StreamProtocol]>,
    refusals: Refusals,
    stopped: bool,
}

/// The queue of the inbound streams of one protocol.
#[derive(Debug)]
struct Acceptor {
    sender: mpsc::Sender<Queued>,
    waiting: Arc<Waiting>,
}

/// A stream that waits to be accepted.
#[derive(Debug)]
pub(crate) struct Queued {
    inbound: Inbound,
    /// Released when the stream is accepted.
    _permit: WaitPermit,
}

impl Queued {
    /// Returns the stream, which no longer waits.
    pub(crate) fn accept(self) -> Inbound {
        self.inbound
    }
}

impl Acceptor {
    /// Adds a stream to the queue. A stream that is refused is returned with the
    /// reason.
    fn push(&mut self, inbound: Inbound, holder: &Holder) -> Option<(RefuseReason, Inbound)> {
        let permit = match self.waiting.take(inbound.peer, holder) {
            Ok(permit) => permit,
            Err(reason) => return Some((reason, inbound)),
        };
        let queued = Queued {
            inbound,
            _permit: permit,
        };
        // The permits are as many as the queue has capacity, so it is not full.
        let refused = self.sender.try_send(queued).err()?;
        Some((RefuseReason::NotAccepted, refused.into_inner().accept()))
    }
}

#[derive(Debug)]
struct Waiter {
    peer: PeerId,
    wanted: StreamProtocol,
    /// Protocols that are acceptable if the peer does not support `wanted`.
    fallbacks: Arc<[StreamProtocol]>,
    reply: oneshot::Sender<Reply>,
}

/// Queue of substreams that a handler must request. The limit of concurrent
/// negotiations bounds it.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    commands: Mutex<VecDeque<Command>>,
    pub(crate) handler: AtomicWaker,
}

/// A request for one outbound substream.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) id: RequestId,
    pub(crate) wanted: StreamProtocol,
    pub(crate) fallbacks: Arc<[StreamProtocol]>,
}

impl Mailbox {
    pub(crate) fn pop(&self) -> Option<Command> {
        lock(&self.commands).pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.commands).is_empty()
    }
}

/// Actions to execute after the lock is released.
#[derive(Debug, Default)]
#[must_use = "requests wait for it"]
struct Deferred {
    replies: Vec<(oneshot::Sender<Reply>, Reply)>,
    handlers: Vec<Arc<Mailbox>>,
    behaviour: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(config: StreamsConfig, resources: Resources) -> Self {
        let bounds = Bounds {
            negotiating: config.tuning.max_negotiating_per_connection,
            open: config.tuning.max_outbound_per_connection,
            waiting: config.tuning.max_waiting_per_peer,
        };
        Self {
            state: Mutex::new(State {
                router: Router::new(bounds),
                waiters: HashMap::new(),
                mailboxes: HashMap::new(),
                dials: VecDeque::new(),
                acceptors: HashMap::new(),
                protocols: Arc::from([]),
                refusals: Refusals::default(),
                stopped: false,
            }),
            resources,
            traffic: ByProtocol::default(),
            protocols_version: AtomicU64::new(0),
            behaviour: AtomicWaker::new(),
            config,
        }
    }

    /// Returns the traffic of each protocol, in no order.
    pub(crate) fn traffic(&self) -> Vec<(StreamProtocol, Traffic)> {
        self.traffic.read()
    }

    pub(crate) fn open_timeout(&self) -> Duration {
        clamp_timeout(STREAM_OPEN_TIMEOUT)
    }

    // Methods called by controls.

    /// Adds a request to open a stream.
    pub(crate) fn request(
        &self,
        peer: PeerId,
        wanted: StreamProtocol,
        fallbacks: Arc<[StreamProtocol]>,
    ) -> Result<(RequestId, oneshot::Receiver<Reply>), OpenError> {
        let mut effects = Vec::new();
        let mut state = lock(&self.state);
        if state.stopped {
            return Err(OpenError::Stopped);
        }
        let limit = self.config.tuning.max_waiting_per_peer;
        let id = state
            .router
            .open(peer, &mut effects)
            .ok_or(OpenError::TooManyWaiting { peer, limit })?;
        let (reply, answer) = oneshot::channel();
        state.waiters.insert(
            id,
            Waiter {
                peer,
                wanted,
                fallbacks,
                reply,
            },
        );
        let after = state.apply(effects, &mut |_, _| None);
        drop(state);
        self.settle(after);
        Ok((id, answer))
    }

    /// Removes a request. `late` is `true` if its deadline passed.
    pub(crate) fn cancel(&self, id: RequestId, late: bool) {
        let mut state = lock(&self.state);
        // Dropped outside the lock: the channel may contain a stream.
        let waiter = state.waiters.remove(&id);
        let mut effects = Vec::new();
        if late {
            state.router.expire(id, &mut effects);
        } else {
            state.router.cancel(id, &mut effects);
        }
        let after = state.apply(effects, &mut |_, _| None);
        drop(state);
        self.settle(after);
        drop(waiter);
    }

    /// Starts accepting a protocol and returns the queue of its streams.
    pub(crate) fn accept(
        &self,
        protocol: StreamProtocol,
    ) -> Result<mpsc::Receiver<Queued>, AcceptError> {
        let mut state = lock(&self.state);
        if state.stopped {
            return Err(AcceptError::Stopped);
        }
        if state.acceptors.contains_key(&protocol) {
            return Err(AcceptError::AlreadyAccepted { protocol });
        }
        let capacity = self.config.tuning.accept_queue;
        let (sender, receiver) = mpsc::channel(capacity);
        let waiting = Arc::new(Waiting::new(capacity));
        let acceptor = Acceptor { sender, waiting };
        state.acceptors.insert(protocol, acceptor);
        self.announce(state);
        Ok(receiver)
    }

    /// Stops accepting a protocol.
    pub(crate) fn unaccept(&self, protocol: &StreamProtocol) {
        let mut state = lock(&self.state);
        if let Some(acceptor) = state.acceptors.remove(protocol) {
            self.announce(state);
            drop(acceptor);
        }
    }

    /// Notifies the handlers of a change of the accepted protocols.
    fn announce(&self, mut state: MutexGuard<'_, State>) {
        // The list is stored before the version changes, and handlers are woken
        // after both, so that a woken handler always sees the new list.
        state.protocols = state.acceptors.keys().cloned().collect();
        self.protocols_version.fetch_add(1, Ordering::Release);
        let handlers: Vec<_> = state.mailboxes.values().cloned().collect();
        drop(state);
        handlers.iter().for_each(|mailbox| mailbox.handler.wake());
    }

    // Methods called by handlers.

    /// Returns the accepted protocols if they changed since version `seen`, and
    /// updates `seen`.
    pub(crate) fn protocols_since(&self, seen: &mut Option<u64>) -> Option<Arc<[StreamProtocol]>> {
        // The version is read before the list. A change between the two returns
        // the newer list with the older version, and the next call returns the
        // list again.
        let version = self.protocols_version.load(Ordering::Acquire);
        if *seen == Some(version) {
            return None;
        }
        *seen = Some(version);
        Some(lock(&self.state).protocols.clone())
    }

    /// Returns `true` if the request was not cancelled.
    pub(crate) fn is_wanted(&self, id: RequestId) -> bool {
        lock(&self.state).waiters.contains_key(&id)
    }

    /// Handles the outcome of a negotiation.
    pub(crate) fn negotiated(
        self: &Arc<Self>,
        peer: PeerId,
        on: ConnectionId,
        id: RequestId,
        result: Negotiated,
        budget: &FrameBudget,
    ) {
        let (outcome, stream, mut error) = match result {
            Negotiated::Opened(stream, protocol) => {
                (Outcome::Opened, Some((stream, protocol)), None)
            }
            Negotiated::Unsupported => (Outcome::Unsupported, None, None),
            Negotiated::Broken(error) => (Outcome::Broken, None, Some(error)),
            Negotiated::TimedOut => (Outcome::TimedOut, None, None),
            Negotiated::Skipped => (Outcome::Skipped, None, None),
        };
        let timeout = self.open_timeout();
        let mut effects = Vec::new();
        let mut state = lock(&self.state);
        state.router.finished(peer, on, id, outcome, &mut effects);
        let mut after = state.apply(effects, &mut |failed, waiter| {
            if failed != id {
                return None;
            }
            let protocol = waiter.wanted.clone();
            Some(match (outcome, error.take()) {
                (Outcome::TimedOut, _) => OpenError::Deadline {
                    peer,
                    after: timeout,
                },
                (_, Some(source)) => OpenError::Io {
                    peer,
                    protocol,
                    source,
                },
                _ => OpenError::UnsupportedProtocol { peer, protocol },
            })
        });
        let waiter = stream.as_ref().and_then(|_| state.waiters.remove(&id));
        let relayed = state.router.is_relayed(peer, on);
        drop(state);
        if let (Some((stream, protocol)), Some(waiter)) = (stream, waiter) {
            let permit = OutboundPermit::new(self.clone(), peer, on);
            let counted = self.traffic.outbound(&protocol);
            let stream = Substream::new(stream, protocol, relayed, budget.clone(), counted, permit);
            after.replies.push((waiter.reply, Ok(stream)));
        }
        self.settle(after);
    }

    /// Releases an outbound stream that was dropped.
    pub(crate) fn released(&self, peer: PeerId, on: ConnectionId) {
        self.update(|router, effects| router.released(peer, on, effects));
    }

    /// Handles an inbound stream after its negotiation: queues it for
    /// acceptance, or refuses and thereby resets it.
    pub(crate) fn on_inbound(
        &self,
        peer: PeerId,
        connection: ConnectionId,
        protocol: StreamProtocol,
        stream: Stream,
        budget: &FrameBudget,
    ) {
        let relayed = lock(&self.state).router.is_relayed(peer, connection);
        let inbound = match budget.holder().take(Resource::InboundStreams, 1) {
            Ok(permit) => {
                let counted = self.traffic.inbound(&protocol);
                let budget = budget.clone();
                Inbound {
                    peer,
                    connection,
                    protocol: protocol.clone(),
                    stream: Substream::new(
                        stream,
                        protocol.clone(),
                        relayed,
                        budget,
                        counted,
                        permit,
                    ),
                }
            }
            Err(refused) => return self.refuse(peer, protocol, refused.into()),
        };
        let refused = match lock(&self.state).acceptors.get_mut(&protocol) {
            Some(acceptor) => acceptor.push(inbound, budget.holder()),
            None => Some((RefuseReason::NotAccepted, inbound)),
        };
        if let Some((reason, inbound)) = refused {
            drop(inbound);
            self.refuse(peer, protocol, reason);
        }
    }

    fn refuse(&self, peer: PeerId, protocol: StreamProtocol, reason: RefuseReason) {
        let mut state = lock(&self.state);
        // Only the first refusal after a report wakes the behaviour, so that a
        // flood does not wake it for each stream.
        let first = state.refusals.is_empty();
        state.refusals.record(peer, protocol, reason);
        drop(state);
        if first {
            self.behaviour.wake();
        }
    }

    // Methods called by the behaviour.

    /// Creates the mailbox of a connection that is being established.
    pub(crate) fn mailbox(&self, id: ConnectionId) -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox::default());
        lock(&self.state).mailboxes.insert(id, mailbox.clone());
        mailbox
    }

    /// Removes the mailbox of a connection that was not established.
    pub(crate) fn discard(&self, id: ConnectionId) {
        lock(&self.state).mailboxes.remove(&id);
    }

    pub(crate) fn established(&self, peer: PeerId, id: ConnectionId, relayed: bool) {
        self.update(|router, effects| router.established(peer, id, relayed, effects));
    }

    pub(crate) fn measured(&self, peer: PeerId, id: ConnectionId, round_trip: Duration) {
        self.update(|router, effects| router.measured(peer, id, round_trip, effects));
    }

    pub(crate) fn unanswered(&self, peer: PeerId, id: ConnectionId) {
        lock(&self.state).router.unanswered(peer, id);
    }

    pub(crate) fn closed(&self, peer: PeerId, id: ConnectionId) {
        self.discard(id);
        self.update(|router, effects| router.closed(peer, id, effects));
    }

    /// Applies an event that concerns no single request to the router.
    fn update(&self, apply: impl FnOnce(&mut Router, &mut Vec<Effect>)) {
        let mut effects = Vec::new();
        let mut state = lock(&self.state);
        apply(&mut state.router, &mut effects);
        let after = state.apply(effects, &mut |_, _| None);
        drop(state);
        self.settle(after);
    }

    /// Handles a failed dial of `peer`. `cause` is `None` if another dial of
    /// the peer is in progress.
    pub(crate) fn dial_failed(&self, peer: PeerId, id: ConnectionId, cause: Option<DialCause>) {
        let mut effects = Vec::new();
        let mut state = lock(&self.state);
        let Some(cause) = cause.map(Arc::new) else {
            state.router.dial_shared(peer, id);
            return;
        };
        state.router.dial_failed(peer, id, &mut effects);
        let after = state.apply(effects, &mut |_, waiter| {
            let peer = waiter.peer;
            Some(match *cause {
                DialCause::NoAddresses => OpenError::NotConnected { peer },
                _ => OpenError::Dial {
                    peer,
                    cause: cause.clone(),
                },
            })
        });
        drop(state);
        self.settle(after);
    }

    /// Returns the next dial. `start` creates it and returns its connection id.
    pub(crate) fn next_dial<T>(
        &self,
        start: impl FnOnce(PeerId) -> (ConnectionId, T),
    ) -> Option<T> {
        let mut state = lock(&self.state);
        while let Some(peer) = state.dials.pop_front() {
            if state.router.wants_dial(peer) {
                let (id, dial) = start(peer);
                state.router.dial_started(peer, id);
                return Some(dial);
            }
        }
        None
    }

    pub(crate) fn has_refusals(&self) -> bool {
        !lock(&self.state).refusals.is_empty()
    }

    pub(crate) fn take_refusals(&self) -> (Vec<Refusal>, u64) {
        lock(&self.state).refusals.take()
    }

    /// Returns the number of open inbound streams of all peers.
    pub(crate) fn inbound(&self) -> usize {
        let open = self.resources.used(Resource::InboundStreams);
        usize::try_from(open).unwrap_or(usize::MAX)
    }

    /// Fails all requests after the behaviour was dropped.
    pub(crate) fn stop(&self) {
        let mut state = lock(&self.state);
        state.stopped = true;
        let waiters = mem::take(&mut state.waiters);
        let acceptors = mem::take(&mut state.acceptors);
        self.announce(state);
        drop(acceptors);
        for waiter in waiters.into_values() {
            let _ = waiter.reply.send(Err(OpenError::Stopped));
        }
    }

    fn settle(&self, after: Deferred) {
        for (reply, answer) in after.replies {
            // If the request was cancelled, the answer and its stream are
            // dropped here.
            let _ = reply.send(answer);
        }
        after
            .handlers
            .iter()
            .for_each(|mailbox| mailbox.handler.wake());
        if after.behaviour {
            self.behaviour.wake();
        }
    }
}

impl State {
    /// Executes the effects of the router. `explain` provides the error of a
    /// failed request if the router does not know it.
    fn apply(
        &mut self,
        effects: Vec<Effect>,
        explain: &mut dyn FnMut(RequestId, &Waiter) -> Option<OpenError>,
    ) -> Deferred {
        let mut after = Deferred::default();
        for effect in effects {
            match effect {
                Effect::Dial(peer) => {
                    self.dials.push_back(peer);
                    after.behaviour = true;
                }
                Effect::Negotiate(on, id) => self.enqueue(on, id, &mut after),
                Effect::Fail(id, failure) => {
                    let Some(waiter) = self.waiters.remove(&id) else {
                        continue;
                    };
                    let peer = waiter.peer;
                    let explained = match failure {
                        Failure::ConnectionClosed => None,
                        Failure::Dial | Failure::Negotiation => explain(id, &waiter),
                    };
                    let error = explained.unwrap_or(OpenError::ConnectionClosed { peer });
                    after.replies.push((waiter.reply, Err(error)));
                }
            }
        }
        after
    }

    fn enqueue(&mut self, on: ConnectionId, id: RequestId, after: &mut Deferred) {
        let (Some(mailbox), Some(waiter)) = (self.mailboxes.get(&on), self.waiters.get(&id)) else {
            return;
        };
        lock(&mailbox.commands).push_back(Command {
            id,
            wanted: waiter.wanted.clone(),
            fallbacks: waiter.fallbacks.clone(),
        });
        if !after
            .handlers
            .iter()
            .any(|known| Arc::ptr_eq(known, mailbox))
        {
            after.handlers.push(mailbox.clone());
        }
    }
}
