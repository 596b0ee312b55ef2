//! What the behaviour, its handlers and the controls share.
//!
//! One lock, that of the state. Streams are handed over and dropped without it, since their drop
//! releases permits and wakes the connection.

use std::{
    collections::{HashMap, VecDeque},
    io, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use calimero_network_primitives::{
    config::StreamsConfig,
    limits::STREAM_OPEN_TIMEOUT,
    resources::{Resource, Resources},
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
    halves::waitable,
    open_error::{AcceptError, DialCause, OpenError},
    router::{Bounds, Effect, Failure, Outcome, RequestId, Router},
    substream::{Inbound, Slot, Substream},
};

pub(crate) type Reply = Result<Substream, OpenError>;

/// How a negotiation ended, with what it yielded.
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
    /// Counts changes of the accepted protocols, so that handlers know when to look.
    protocols_version: AtomicU64,
    /// The task that polls the behaviour.
    pub(crate) behaviour: AtomicWaker,
    config: StreamsConfig,
}

#[derive(Debug)]
struct State {
    router: Router,
    waiters: HashMap<RequestId, Waiter>,
    mailboxes: HashMap<ConnectionId, Arc<Mailbox>>,
    /// Peers to dial. At most one entry for each peer that somebody waits for.
    dials: VecDeque<PeerId>,
    acceptors: HashMap<StreamProtocol, mpsc::Sender<Inbound>>,
    /// The keys of `acceptors`, for handlers to share.
    protocols: Arc<[StreamProtocol]>,
    refusals: Refusals,
    stopped: bool,
}

#[derive(Debug)]
struct Waiter {
    peer: PeerId,
    wanted: StreamProtocol,
    /// What will do as well.
    instead: Arc<[StreamProtocol]>,
    reply: oneshot::Sender<Reply>,
}

/// Substreams that a handler is to ask for. At most as many as may be negotiated at one time.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    commands: Mutex<VecDeque<Command>>,
    pub(crate) handler: AtomicWaker,
}

/// A substream to ask for.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) id: RequestId,
    pub(crate) wanted: StreamProtocol,
    pub(crate) instead: Arc<[StreamProtocol]>,
}

impl Mailbox {
    pub(crate) fn pop(&self) -> Option<Command> {
        lock(&self.commands).pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.commands).is_empty()
    }
}

/// What is to be done once the lock is given back.
#[derive(Debug, Default)]
#[must_use = "somebody waits for it"]
struct After {
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
            protocols_version: AtomicU64::new(0),
            behaviour: AtomicWaker::new(),
            config,
        }
    }

    pub(crate) fn open_timeout(&self) -> Duration {
        waitable(STREAM_OPEN_TIMEOUT)
    }

    // What controls ask for.

    /// Takes a request to open a stream.
    pub(crate) fn request(
        &self,
        peer: PeerId,
        wanted: StreamProtocol,
        instead: Arc<[StreamProtocol]>,
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
                instead,
                reply,
            },
        );
        let after = state.carry_out(effects, &mut |_, _| None);
        drop(state);
        self.settle(after);
        Ok((id, answer))
    }

    /// Forgets a request; `late` if its deadline passed.
    pub(crate) fn forget(&self, id: RequestId, late: bool) {
        let mut state = lock(&self.state);
        // Dropped after the lock: an answer may lie in it.
        let waiter = state.waiters.remove(&id);
        let mut effects = Vec::new();
        if late {
            state.router.expire(id, &mut effects);
        } else {
            state.router.cancel(id, &mut effects);
        }
        let after = state.carry_out(effects, &mut |_, _| None);
        drop(state);
        self.settle(after);
        drop(waiter);
    }

    /// Registers a protocol.
    pub(crate) fn accept(
        &self,
        protocol: StreamProtocol,
    ) -> Result<mpsc::Receiver<Inbound>, AcceptError> {
        let mut state = lock(&self.state);
        if state.stopped {
            return Err(AcceptError::Stopped);
        }
        if state.acceptors.contains_key(&protocol) {
            return Err(AcceptError::AlreadyAccepted { protocol });
        }
        // The one sender has a place of its own beside the buffer.
        let (sender, receiver) = mpsc::channel(self.config.tuning.accept_queue.saturating_sub(1));
        state.acceptors.insert(protocol, sender);
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

    /// Tells the handlers that the accepted protocols have changed.
    fn announce(&self, mut state: MutexGuard<'_, State>) {
        state.protocols = state.acceptors.keys().cloned().collect();
        self.protocols_version.fetch_add(1, Ordering::Release);
        let handlers: Vec<_> = state.mailboxes.values().cloned().collect();
        drop(state);
        handlers.iter().for_each(|mailbox| mailbox.handler.wake());
    }

    // What handlers report.

    /// The accepted protocols if they have changed since `seen`, which is brought up to date.
    pub(crate) fn protocols_since(&self, seen: &mut Option<u64>) -> Option<Arc<[StreamProtocol]>> {
        let version = self.protocols_version.load(Ordering::Acquire);
        if *seen == Some(version) {
            return None;
        }
        *seen = Some(version);
        Some(lock(&self.state).protocols.clone())
    }

    /// Whether somebody still waits for the request.
    pub(crate) fn is_wanted(&self, id: RequestId) -> bool {
        lock(&self.state).waiters.contains_key(&id)
    }

    /// A negotiation ended.
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
        let mut after = state.carry_out(effects, &mut |failed, waiter| {
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
            let slot = Slot::new(self.clone(), peer, on);
            let stream = Substream::outbound(stream, protocol, relayed, budget.clone(), slot);
            after.replies.push((waiter.reply, Ok(stream)));
        }
        self.settle(after);
    }

    /// A stream that was opened is gone.
    pub(crate) fn released(&self, peer: PeerId, on: ConnectionId) {
        self.update(|router, effects| router.released(peer, on, effects));
    }

    /// An inbound stream was negotiated: it waits to be accepted from now on, or is refused,
    /// which resets it.
    pub(crate) fn arrived(
        &self,
        peer: PeerId,
        connection: ConnectionId,
        protocol: StreamProtocol,
        stream: Stream,
        budget: &FrameBudget,
    ) {
        let relayed = lock(&self.state).router.is_relayed(peer, connection);
        let inbound = match budget.holder().take(Resource::InboundStreams, 1) {
            Ok(permit) => Inbound {
                peer,
                connection,
                protocol: protocol.clone(),
                stream: Substream::inbound(
                    stream,
                    protocol.clone(),
                    relayed,
                    budget.clone(),
                    permit,
                ),
            },
            Err(refused) => return self.refuse(peer, protocol, refused.into()),
        };
        let queued = match lock(&self.state).acceptors.get_mut(&protocol) {
            Some(acceptor) => acceptor.try_send(inbound).map_err(|error| {
                let reason = if error.is_full() {
                    let limit = self.config.tuning.accept_queue;
                    RefuseReason::QueueFull { limit }
                } else {
                    RefuseReason::NotAccepted
                };
                (reason, error.into_inner())
            }),
            None => Err((RefuseReason::NotAccepted, inbound)),
        };
        if let Err((reason, inbound)) = queued {
            drop(inbound);
            self.refuse(peer, protocol, reason);
        }
    }

    fn refuse(&self, peer: PeerId, protocol: StreamProtocol, reason: RefuseReason) {
        let mut state = lock(&self.state);
        let first = state.refusals.is_empty();
        state.refusals.note(peer, protocol, reason);
        drop(state);
        if first {
            self.behaviour.wake();
        }
    }

    // What the behaviour reports and does.

    /// A mailbox for a connection that is about to stand.
    pub(crate) fn mailbox(&self, id: ConnectionId) -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox::default());
        lock(&self.state).mailboxes.insert(id, mailbox.clone());
        mailbox
    }

    /// A connection that was about to stand does not.
    pub(crate) fn discard(&self, id: ConnectionId) {
        lock(&self.state).mailboxes.remove(&id);
    }

    pub(crate) fn established(&self, peer: PeerId, id: ConnectionId, relayed: bool) {
        self.update(|router, effects| router.established(peer, id, relayed, effects));
    }

    pub(crate) fn closed(&self, peer: PeerId, id: ConnectionId) {
        self.discard(id);
        self.update(|router, effects| router.closed(peer, id, effects));
    }

    /// Lets the router hear of something that concerns no single request.
    fn update(&self, tell: impl FnOnce(&mut Router, &mut Vec<Effect>)) {
        let mut effects = Vec::new();
        let mut state = lock(&self.state);
        tell(&mut state.router, &mut effects);
        let after = state.carry_out(effects, &mut |_, _| None);
        drop(state);
        self.settle(after);
    }

    /// A dial of `peer` failed for `cause`; `None` if another one is under way.
    pub(crate) fn dial_failed(&self, peer: PeerId, id: ConnectionId, cause: Option<DialCause>) {
        let mut effects = Vec::new();
        let mut state = lock(&self.state);
        let Some(cause) = cause.map(Arc::new) else {
            state.router.dial_shared(peer, id);
            return;
        };
        state.router.dial_failed(peer, id, &mut effects);
        let after = state.carry_out(effects, &mut |_, waiter| {
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

    /// The next peer to dial; `start` yields the connection id the dial goes by.
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

    /// Open inbound streams of all peers.
    pub(crate) fn inbound(&self) -> usize {
        let open = self.resources.used(Resource::InboundStreams);
        usize::try_from(open).unwrap_or(usize::MAX)
    }

    /// Answers everybody: the behaviour is gone.
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

    fn settle(&self, after: After) {
        for (reply, answer) in after.replies {
            // Who does not wait any more drops the stream.
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
    /// Carries out what the router decided. `explain` says why a request failed, where the router
    /// cannot know.
    fn carry_out(
        &mut self,
        effects: Vec<Effect>,
        explain: &mut dyn FnMut(RequestId, &Waiter) -> Option<OpenError>,
    ) -> After {
        let mut after = After::default();
        for effect in effects {
            match effect {
                Effect::Dial(peer) => {
                    self.dials.push_back(peer);
                    after.behaviour = true;
                }
                Effect::Negotiate(on, id) => self.post(on, id, &mut after),
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

    fn post(&mut self, on: ConnectionId, id: RequestId, after: &mut After) {
        let (Some(mailbox), Some(waiter)) = (self.mailboxes.get(&on), self.waiters.get(&id)) else {
            return;
        };
        lock(&mailbox.commands).push_back(Command {
            id,
            wanted: waiter.wanted.clone(),
            instead: waiter.instead.clone(),
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
