//! Peers, their connections, and the streams on these.

mod failover;

use std::{
    collections::{HashSet, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use calimero_network_primitives::{PeerId, limits::MAX_OWN_TOPICS};
use libp2p_swarm::ConnectionId;

pub(super) use self::failover::LostPeers;
use self::failover::{Missed, Use};
use super::{
    Effect, Machine, count,
    outbox::{MeshChange, Outbox, OutboxLimits, announcement},
};
use crate::{
    event::Event,
    rpc::{Frame, Subscription},
    validate::Now,
    wire::TopicHash,
};

/// A version of gossipsub, as it was negotiated for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// `/meshsub/1.0.0`, the first version.
    V1_0,
    /// `/meshsub/1.1.0`, which adds a back-off to PRUNE.
    V1_1,
    /// `/meshsub/1.2.0`, which adds IDONTWANT.
    V1_2,
    /// `/meshsub/1.3.0`, which adds extensions.
    V1_3,
}

/// Bytes that are handed to a connection before it has written those before them, at most: enough
/// that it always has something to write, few enough that control messages are soon sent.
const SEND_WINDOW: usize = 256 * 1024;

/// Largest RPC that every published implementation takes: 64 KiB, the default of rust-libp2p. A
/// peer that closes its stream on a larger one gets none above this.
const COMMON_RPC_BYTES: usize = 65_536;

/// Time in which a peer closes its stream on an RPC that is too large for it: several round trips.
const PROBE: Duration = Duration::from_secs(3);

/// Bytes of frames kept during that time to be sent again, at most: 4 MiB.
const MAX_PROBE_BYTES: usize = 4 << 20;

/// What was handed to a connection from the first large frame on. It is kept until it is known
/// whether the peer takes large frames.
#[derive(Debug)]
struct Probe {
    connection: ConnectionId,
    /// When the large frame was handed over.
    since: Instant,
    /// When it was reported as written.
    written: Option<Instant>,
    /// Size of each message from the large one on, and the frame if it is sent again after a loss.
    sent: VecDeque<(usize, Option<Frame>)>,
    /// Bytes of these frames.
    bytes: usize,
}

/// A stream was lost because a frame was too large for the peer.
#[derive(Debug)]
struct Refusal {
    /// Largest RPC that the peer may take.
    limit: usize,
    /// Messages from the large frame on that were written, as in [`Probe::sent`].
    written: VecDeque<(usize, Option<Frame>)>,
}

impl Probe {
    /// Returns `true` if the peer may close the stream because of the large frame, but has not had
    /// the time.
    fn is_open(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.written.unwrap_or(self.since)) < PROBE
    }

    /// Returns `true` if the large frame was written and the peer has not closed the stream since.
    fn is_passed(&self, now: Instant) -> bool {
        self.written.is_some() && !self.is_open(now)
    }
}

/// Shortest time between two streams on one connection, if the one before has failed more than
/// once.
const MIN_REOPEN_WAIT: Duration = Duration::from_secs(1);

/// Longest wait before a stream that fails again and again is opened again.
const MAX_REOPEN_WAIT: Duration = Duration::from_secs(60);

/// Streams in a row that are closed although nothing was too large, after which an end of the read
/// half is taken for a habit of the peer.
const HABIT: u32 = 3;

/// Life of a stream after which its end is not counted as one in a row.
const LONG_LIFE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Opening,
    Open {
        version: Version,
        since: Instant,
    },
    /// Opened again at that time.
    Waiting(Instant),
    Unsupported,
}

/// The outbound stream of one connection.
#[derive(Debug)]
struct Stream {
    connection: ConnectionId,
    state: State,
    /// Frames that the connection has been given and has not written, and which of them are
    /// messages: those alone are sent again. A new stream begins with the state that announcements
    /// and control describe, and an older one must not follow it.
    unwritten: VecDeque<(Frame, bool)>,
    /// Count of RPCs of the peer at the time of the last one on this connection, and at the
    /// beginning of its inbound stream.
    spoke: u64,
    accepted: Option<u64>,
    failures: u32,
    /// When the stream was opened last.
    opened_at: Instant,
    /// IP address of the peer.
    ip: Option<IpAddr>,
    used: Use,
}

/// The announcements with which a peer begins a stream, until its list is complete.
#[derive(Debug)]
struct Listing {
    left: usize,
    /// Topics that the peer has announced earlier and not in this list. What it lists is not stored
    /// here, so that it costs no memory beyond the limits of announcements.
    unlisted: HashSet<TopicHash>,
}

/// What is known of a connected peer.
#[derive(Debug)]
pub(super) struct Peer {
    streams: Vec<Stream>,
    /// The connection on which messages are sent.
    active: Option<ConnectionId>,
    /// The connection that is better than others, as far as that is known.
    preferred: Option<ConnectionId>,
    /// Since when the peer may have missed messages, if it returned after a connection was lost.
    missed_since: Option<Instant>,
    pub(super) missed: Missed,
    spoken: u64,
    pub(super) dialled: bool,
    pub(super) outbox: Outbox,
    listing: Option<Listing>,
    /// Topics of this node from which the peer has unsubscribed.
    pub(super) left: HashSet<TopicHash>,
    /// The peer says how many topics it announces, so silence means that it has none.
    pub(super) lists: bool,
    pub(super) exchanged: bool,
    pub(super) closing: bool,
    pub(super) unsupported: bool,
    /// Largest RPC that the peer takes, once it has closed a stream on a larger one. It is learned
    /// again after the peer has disconnected, since it may come back as a newer version.
    pub(super) rpc_limit: Option<usize>,
    probe: Option<Probe>,
    takes_large: bool,
    /// The first large frame that was not written when a stream was lost last.
    blocking: Option<Frame>,
    pub(super) since: Instant,
    pub(super) nudges: u32,
    /// Offers of this heartbeat, and ids requested because of them.
    pub(super) offers: usize,
    pub(super) requested: usize,
}

impl Peer {
    fn new(limits: OutboxLimits, dialled: bool, now: Instant) -> Self {
        Self {
            streams: Vec::new(),
            active: None,
            preferred: None,
            missed_since: None,
            missed: Missed::default(),
            spoken: 0,
            dialled,
            outbox: Outbox::new(limits, now),
            listing: None,
            left: HashSet::new(),
            lists: false,
            exchanged: false,
            closing: false,
            unsupported: false,
            rpc_limit: None,
            probe: None,
            takes_large: false,
            blocking: None,
            since: now,
            nudges: 0,
            offers: 0,
            requested: 0,
        }
    }

    fn stream(&mut self, connection: ConnectionId) -> Option<&mut Stream> {
        let mut streams = self.streams.iter_mut();
        streams.find(|stream| stream.connection == connection)
    }

    /// The version that is spoken, as far as it is known.
    pub(super) fn version(&self) -> Option<Version> {
        let active = self
            .streams
            .iter()
            .find(|s| Some(s.connection) == self.active)?;
        match active.state {
            State::Open { version, .. } => Some(version),
            _ => None,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.outbox.is_idle()
    }

    /// Takes the open stream of the best connection, or else the one on which the peer spoke last,
    /// if the active one is not open.
    fn choose_active(&mut self) {
        if self.version().is_some() {
            return;
        }
        let open = |stream: &&Stream| matches!(stream.state, State::Open { .. });
        let rank = |s: &&Stream| {
            (
                !s.used.unanswered,
                Some(s.connection) == self.preferred,
                s.spoke,
            )
        };
        let best = self.streams.iter().filter(open).max_by_key(rank);
        self.active = best.map(|stream| stream.connection);
    }

    /// Makes `connection` the active one if the peer has opened a stream on it and has said nothing
    /// on the active one since, unless the active one is known to be better.
    fn review_active(&mut self, connection: ConnectionId) {
        let active = self.active;
        if active.is_some() && active == self.preferred && self.version().is_some() {
            return;
        }
        let Some(stream) = self.stream(connection) else {
            return;
        };
        let (since, is_open) = (stream.accepted, matches!(stream.state, State::Open { .. }));
        let other = active.and_then(|active| self.stream(active));
        let is_quiet = other.is_none_or(|other| since.is_some_and(|since| other.spoke <= since));
        if is_open && is_quiet {
            self.active = Some(connection);
        }
    }

    fn is_kept(&self, in_common: bool) -> bool {
        self.exchanged || in_common
    }
}

impl Machine {
    pub(super) fn on_connected(
        &mut self,
        id: PeerId,
        connection: ConnectionId,
        dialled: bool,
        ip: Option<IpAddr>,
        now: Now,
    ) {
        let limits = self.outbox_limits();
        if self.peers.is_empty() && self.heartbeat_at < now.at {
            self.heartbeat_at = now.at;
        }
        if let Some(ip) = ip {
            self.scores.connected(id, ip, now.at);
        }
        let lost = &mut self.lost;
        let peer = self.peers.entry(id).or_insert_with(|| {
            let mut peer = Peer::new(limits, dialled, now.at);
            peer.missed_since = lost.take(&id, now.at);
            peer
        });
        peer.dialled |= dialled;
        (peer.unsupported, peer.closing) = (false, false);
        peer.streams.push(Stream {
            connection,
            state: State::Opening,
            unwritten: VecDeque::new(),
            spoke: 0,
            accepted: None,
            failures: 0,
            opened_at: now.at,
            ip,
            used: Use::default(),
        });
        // Which one is best is decided again: this one may be that of a peer that was restarted.
        peer.preferred = None;
        self.effects.push_back(Effect::Open {
            peer: id,
            connection,
            watch: true,
        });
        self.review_keep_alive_of(id);
    }

    pub(super) fn on_disconnected(&mut self, id: PeerId, connection: ConnectionId, now: Now) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(index) = peer.streams.iter().position(|s| s.connection == connection) else {
            return;
        };
        let stream = peer.streams.remove(index);
        if let Some(ip) = stream.ip {
            self.scores.connection_closed(&id, ip);
        }
        if !peer.streams.is_empty() {
            peer.take_probe(connection);
            let messages = peer.give_up(stream.unwritten, now.at);
            peer.outbox.send_again(messages.into_iter());
            peer.preferred.take_if(|preferred| *preferred == connection);
            peer.choose_active();
            self.promises.ask_again(id, now.at);
            if stream.used.has_carried(now.at) {
                self.offer_missed(id);
            }
            self.graft_again(id);
            self.review_keep_alive_of(id);
            self.dirty.insert(id);
            return;
        }
        if let Some(peer) = self.peers.remove(&id) {
            self.lose(id, &peer, now.at);
        }
        self.dirty.remove(&id);
        self.unsent.remove(&id);
        self.promises.forget(&id, now.at);
        for (hash, own) in &mut self.topics {
            if own.mesh.remove(&id) {
                self.scores.pruned(&id, hash, now.at);
            }
        }
        for (peers, _) in self.fanout.values_mut() {
            peers.remove(&id);
        }
        self.announcements.forget(&id);
        self.scores.disconnected(&id, now.at);
        self.on_room(now);
    }

    /// Announces all topics on a new stream. Only a node of this kind knows when the list is
    /// complete. For other peers, recent unsubscriptions are repeated, because they may be lost
    /// with an older stream, or with a connection that this node has closed and the peer has not.
    pub(super) fn on_opened(
        &mut self,
        id: PeerId,
        connection: ConnectionId,
        version: Version,
        now: Now,
    ) {
        let entries = self.topics.keys().map(|topic| Subscription {
            topic: topic.clone(),
            subscribes: true,
        });
        let entries: Vec<_> = entries.collect();
        let announces = (version >= Version::V1_3).then_some(entries.len() as u64);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let mut frames = announcement(entries, announces);
        if !peer.lists {
            let recent = self.unsubscribed.recent(now.at);
            let recent = recent.map(|topic| Subscription {
                topic: topic.clone(),
                subscribes: false,
            });
            frames.append(&mut announcement(recent.collect(), None));
        }
        let is_first = peer.version().is_none() && peer.spoken == 0;
        let Some(stream) = peer.stream(connection) else {
            return;
        };
        // It takes the place of one that was opened when this node asked for another one, on which
        // the connection wrote nothing.
        let is_again = matches!(stream.state, State::Open { .. });
        let unwritten = std::mem::take(&mut stream.unwritten);
        stream.state = State::Open {
            version,
            since: now.at,
        };
        if is_again {
            peer.take_probe(connection);
        }
        let messages = peer.give_up(unwritten, now.at);
        peer.outbox.send_again(messages.into_iter());
        peer.choose_active();
        peer.review_active(connection);
        peer.use_preferred();
        peer.send(
            id,
            connection,
            (frames, Vec::new()),
            now.at,
            &mut self.effects,
        );
        if !is_first {
            self.graft_again(id);
        }
        self.dirty.insert(id);
    }

    /// Repeats to a peer that it is in our meshes: if it has restarted, or the news was lost with a
    /// connection, it does not know.
    fn graft_again(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        for (hash, own) in &self.topics {
            if own.mesh.contains(&id) {
                peer.outbox.change_mesh(hash.clone(), MeshChange::Graft);
            }
        }
        self.dirty.insert(id);
    }

    pub(super) fn on_unsupported(&mut self, id: PeerId, connection: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if let Some(stream) = peer.stream(connection) {
            stream.state = State::Unsupported;
        }
        let all = peer.streams.iter().all(|s| s.state == State::Unsupported);
        if all && !std::mem::replace(&mut peer.unsupported, true) {
            self.emit(Event::Unsupported { peer: id });
        }
    }

    /// A stream was lost. What was on its way is sent again on the next one, but for what the peer
    /// closed it for.
    pub(super) fn on_lost(&mut self, id: PeerId, connection: ConnectionId, now: Now) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(stream) = peer.stream(connection) else {
            return;
        };
        let unwritten = std::mem::take(&mut stream.unwritten);
        let lived = match stream.state {
            State::Open { since, .. } => now.at.saturating_duration_since(since),
            _ => Duration::ZERO,
        };
        let probe = peer.take_probe(connection);
        let messages = peer.give_up(unwritten, now.at);
        let refusal = peer.refusal(probe, &messages, now.at);
        let failures = peer.count_failure(connection, refusal.is_some() || lived >= LONG_LIFE);
        if failures <= 1 {
            peer.open(id, connection, now.at, &mut self.effects);
        } else if let Some(stream) = peer.stream(connection) {
            let wait = Duration::from_secs(1) * 2_u32.pow((failures - 2).min(6));
            stream.state = State::Waiting(now.at + wait.min(MAX_REOPEN_WAIT));
        }
        let Some(Refusal { limit, written }) = refusal else {
            peer.outbox.send_again(messages.into_iter());
            peer.choose_active();
            self.review_keep_alive_of(id);
            self.dirty.insert(id);
            return;
        };
        let limit = peer.rpc_limit.map_or(limit, |known| known.min(limit));
        peer.rpc_limit = Some(limit);
        let (mut too_large, mut again) = (Vec::new(), Vec::new());
        for (size, frame) in written {
            match frame {
                Some(frame) => again.push(frame),
                None if size > limit => too_large.push(size),
                // The peer may have read it before it closed the stream, or not.
                None => peer.outbox.lost += 1,
            }
        }
        for frame in messages {
            if frame.len() > limit {
                too_large.push(frame.len());
            } else {
                again.push(frame);
            }
        }
        peer.outbox.send_again(again.into_iter());
        too_large.append(&mut peer.outbox.drop_larger(limit));
        peer.choose_active();
        self.counters.lost_to_limits += count(too_large.len());
        for size in too_large {
            self.emit(Event::TooLargeForPeer {
                peer: id,
                size,
                limit,
            });
        }
        self.review_keep_alive_of(id);
        self.dirty.insert(id);
    }

    /// The peer has opened a stream, so it speaks gossipsub and is alive on this connection.
    ///
    /// The outbound stream is opened again without the wait for one that fails, because the peer
    /// may have restarted. Each one begins with all topics, so a peer cannot have more than one a
    /// second.
    pub(super) fn on_accepted(&mut self, id: PeerId, connection: ConnectionId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.listing = None;
        let spoken = peer.spoken;
        let is_first = peer.streams.iter().all(|s| s.accepted.is_none());
        let Some(stream) = peer.stream(connection) else {
            return;
        };
        stream.accepted = Some(spoken);
        if matches!(stream.state, State::Unsupported | State::Waiting(_)) {
            let at = stream.opened_at + MIN_REOPEN_WAIT;
            let at = match stream.state {
                State::Waiting(planned) => at.min(planned),
                _ => at,
            };
            stream.state = State::Waiting(at);
            peer.unsupported = false;
            if at <= now {
                peer.open(id, connection, now, &mut self.effects);
            }
        }
        self.on_spoke(id, connection);
        if !is_first {
            self.graft_again(id);
        }
    }

    /// The peer has sent something on a connection. Messages go there if the active one may be
    /// dead.
    pub(super) fn on_spoke(&mut self, id: PeerId, connection: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.spoken += 1;
        let (spoken, active) = (peer.spoken, peer.active);
        let Some(stream) = peer.stream(connection) else {
            return;
        };
        stream.spoke = spoken;
        let answers_again = std::mem::take(&mut stream.used.unanswered);
        if answers_again {
            peer.use_preferred();
        }
        if active != Some(connection) {
            peer.review_active(connection);
        }
        if answers_again || active != Some(connection) {
            self.dirty.insert(id);
        }
    }

    pub(super) fn on_written(
        &mut self,
        id: PeerId,
        connection: ConnectionId,
        (frames, bytes): (usize, usize),
        now: Now,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(stream) = peer.stream(connection) else {
            return;
        };
        let frames = frames.min(stream.unwritten.len());
        let written: Vec<_> = stream.unwritten.drain(..frames).collect();
        for (frame, _) in &written {
            peer.outbox.sent(frame, now.at);
        }
        peer.outbox.wrote(bytes, now.at);
        if written.iter().any(|(_, is_message)| *is_message) {
            let blocking = |frame: &mut Frame| written.iter().any(|(other, _)| other == frame);
            peer.blocking.take_if(blocking);
            peer.review_probe(connection, now.at);
        }
        self.dirty.insert(id);
        if peer.outbox.is_low() {
            peer.outbox.release(now.at);
            self.on_room(now);
        }
    }

    /// Sends what may be written now.
    pub(super) fn flush_peer(&mut self, id: PeerId, now: Now) {
        let interval = self.config.mesh.heartbeat;
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let subscriptions = peer.outbox.take_subscriptions();
        let active = peer.active.filter(|_| peer.version().is_some());
        if !subscriptions.is_empty() {
            // To every stream: one that is not open yet will begin with all topics.
            let open = peer
                .streams
                .iter()
                .filter(|s| matches!(s.state, State::Open { .. }));
            for connection in open.map(|s| s.connection).collect::<Vec<_>>() {
                let frames = (subscriptions.clone(), Vec::new());
                peer.send(id, connection, frames, now.at, &mut self.effects);
            }
        }
        if let Some(connection) = active {
            let unwritten = peer.stream(connection).map_or(0, |stream| {
                stream
                    .unwritten
                    .iter()
                    .map(|(frame, _)| frame.len())
                    .sum::<usize>()
            });
            let room = SEND_WINDOW.saturating_sub(unwritten);
            // A peer that reads nothing gets no control either, so that it does not pile up.
            let control = if room > 0 {
                peer.offer_next(connection, &self.cache, interval, now.at);
                peer.outbox.take_control()
            } else {
                Vec::new()
            };
            let messages = peer.outbox.take(room, now.at);
            let frames = (control, messages);
            peer.send(id, connection, frames, now.at, &mut self.effects);
        }
        if peer.outbox.is_idle() {
            self.unsent.remove(&id);
        }
    }

    /// Begins to count the list of topics that a peer announces.
    pub(super) fn begin_listing(&mut self, id: PeerId, topics: u64) {
        let left = usize::try_from(topics).unwrap_or(usize::MAX);
        if let Some(peer) = self.peers.get_mut(&id)
            && left <= MAX_OWN_TOPICS
        {
            peer.lists = true;
            let unlisted = self.announcements.topics(&id).cloned().collect();
            peer.listing = Some(Listing { left, unlisted });
        }
    }

    /// Takes announcements off the list. Returns the topics to which the peer does not subscribe
    /// any more, once the list is complete.
    pub(super) fn listed(&mut self, id: PeerId, entries: &[Subscription]) -> Vec<TopicHash> {
        let Some(peer) = self.peers.get_mut(&id) else {
            return Vec::new();
        };
        let Some(listing) = &mut peer.listing else {
            return Vec::new();
        };
        for entry in entries {
            if listing.left > 0 {
                listing.left -= 1;
                listing.unlisted.remove(&entry.topic);
            }
        }
        if listing.left > 0 {
            return Vec::new();
        }
        let unlisted = peer.listing.take().map(|listing| listing.unlisted);
        unlisted.unwrap_or_default().into_iter().collect()
    }

    /// Opens streams again whose wait is over.
    pub(super) fn reopen(&mut self, now: Instant) {
        for (id, peer) in &mut self.peers {
            let due = |stream: &&Stream| matches!(stream.state, State::Waiting(at) if at <= now);
            let due = peer.streams.iter().filter(due).map(|s| s.connection);
            for connection in due.collect::<Vec<_>>() {
                peer.open(*id, connection, now, &mut self.effects);
            }
        }
    }

    /// Says whether a peer deserves a connection that carries nothing else, if that has changed. A
    /// spare that is not used is not kept.
    pub(super) fn review_keep_alive_of(&mut self, id: PeerId) {
        let in_common = self.announcements.is_in_common(&id);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let (keep, active) = (peer.is_kept(in_common), peer.active);
        for stream in &mut peer.streams {
            let is_active = Some(stream.connection) == active;
            let keep = keep && (is_active || !stream.used.is_idle_spare());
            if std::mem::replace(&mut stream.used.keep, keep) != keep {
                self.effects.push_back(Effect::KeepAlive {
                    peer: id,
                    connection: stream.connection,
                    keep,
                });
            }
        }
    }

    pub(super) fn review_keep_alive(&mut self) {
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            self.review_keep_alive_of(id);
        }
    }

    /// A message goes to the peer or comes from it.
    pub(super) fn exchanged(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id)
            && !std::mem::replace(&mut peer.exchanged, true)
        {
            self.review_keep_alive_of(id);
        }
    }

    /// Announces a change of one topic to all peers.
    pub(super) fn announce(&mut self, topic: &TopicHash, subscribes: bool) {
        for (id, peer) in &mut self.peers {
            peer.outbox.announce(topic.clone(), subscribes);
            self.dirty.insert(*id);
        }
    }
}

impl Peer {
    /// Sends announcements and control, then messages.
    fn send(
        &mut self,
        id: PeerId,
        connection: ConnectionId,
        (control, messages): (Vec<Frame>, Vec<Frame>),
        now: Instant,
        effects: &mut VecDeque<Effect>,
    ) {
        let number = control.len();
        let (mut frames, mut messages) = (control, messages);
        self.probe(&messages, connection, now);
        let has_messages = !messages.is_empty();
        frames.append(&mut messages);
        if frames.is_empty() {
            return;
        }
        for frame in &frames {
            self.outbox.sending(frame, now);
        }
        if let Some(stream) = self.stream(connection) {
            let sent = frames.iter().cloned().enumerate();
            let sent = sent.map(|(index, frame)| (frame, index >= number));
            stream.unwritten.extend(sent);
            if has_messages {
                stream.used.sent_at = Some(now);
            }
        }
        effects.push_back(Effect::Send {
            peer: id,
            connection,
            frames,
        });
    }

    /// Keeps what is sent after the first large frame, to send it again if the peer closes the
    /// stream because of that one.
    fn probe(&mut self, frames: &[Frame], connection: ConnectionId, now: Instant) {
        if self.takes_large {
            return;
        }
        if self
            .probe
            .as_ref()
            .is_some_and(|probe| probe.is_passed(now))
        {
            self.takes_large = true;
            self.probe = None;
            return;
        }
        for frame in frames {
            let len = frame.len();
            if self.probe.is_none() && len > COMMON_RPC_BYTES {
                self.probe = Some(Probe {
                    connection,
                    since: now,
                    written: None,
                    sent: VecDeque::new(),
                    bytes: 0,
                });
            }
            let probe = self.probe.as_mut();
            if let Some(probe) = probe.filter(|probe| probe.connection == connection) {
                let kept = len <= COMMON_RPC_BYTES && probe.bytes + len <= MAX_PROBE_BYTES;
                probe.bytes += if kept { len } else { 0 };
                probe.sent.push_back((len, kept.then(|| frame.clone())));
            }
        }
    }

    /// Messages were written on a connection: among them may be the large frame.
    fn review_probe(&mut self, connection: ConnectionId, now: Instant) {
        let stream = self.streams.iter().find(|s| s.connection == connection);
        let probe = self.probe.as_mut();
        let probe = probe.filter(|probe| probe.connection == connection && probe.written.is_none());
        let (Some(stream), Some(probe)) = (stream, probe) else {
            return;
        };
        // What is not written is the end of what was sent.
        let messages = stream
            .unwritten
            .iter()
            .filter(|(_, is_message)| *is_message);
        if messages.count() < probe.sent.len() {
            probe.written = Some(now);
        }
    }

    /// Ends the probe if it belongs to `connection`: a loss there says nothing about others.
    fn take_probe(&mut self, connection: ConnectionId) -> Option<Probe> {
        self.probe.take_if(|probe| probe.connection == connection)
    }

    /// Decides whether a stream was lost because a frame was too large for the peer. `messages`
    /// were not written.
    ///
    /// A peer that closes its stream soon after the first large frame takes none above the common
    /// limit. A node of this version takes more, and may lose a stream for another reason. But its
    /// limit is configured as well: a frame that was not written on two streams in a row is too
    /// large for any peer.
    fn refusal(
        &mut self,
        probe: Option<Probe>,
        messages: &[Frame],
        now: Instant,
    ) -> Option<Refusal> {
        let large = messages.iter().find(|frame| frame.len() > COMMON_RPC_BYTES);
        let before = std::mem::replace(&mut self.blocking, large.cloned());
        let probe = probe.filter(|probe| !self.lists && probe.is_open(now));
        let (limit, mut written) = match (probe, large) {
            (Some(probe), _) => (COMMON_RPC_BYTES, probe.sent),
            // The peer has read what was written before this one.
            (None, Some(large)) if before.as_ref() == Some(large) => {
                (large.len() - 1, VecDeque::new())
            }
            _ => return None,
        };
        self.blocking = None;
        written.truncate(written.len().saturating_sub(messages.len()));
        Some(Refusal { limit, written })
    }

    /// Counts the loss of a stream, the first one in a row if `is_first`. Returns their number.
    fn count_failure(&mut self, connection: ConnectionId, is_first: bool) -> u32 {
        let Some(stream) = self.stream(connection) else {
            return 0;
        };
        stream.failures = if is_first { 0 } else { stream.failures + 1 };
        stream.failures
    }

    /// Opens the outbound stream of a connection.
    fn open(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        now: Instant,
        effects: &mut VecDeque<Effect>,
    ) {
        let Some(stream) = self.stream(connection) else {
            return;
        };
        (stream.state, stream.opened_at) = (State::Opening, now);
        effects.push_back(Effect::Open {
            peer,
            connection,
            watch: stream.failures < HABIT,
        });
    }

    /// Frames were given to a connection and were not written. Returns the messages among them.
    fn give_up(&mut self, frames: VecDeque<(Frame, bool)>, now: Instant) -> Vec<Frame> {
        for (frame, _) in &frames {
            self.outbox.sent(frame, now);
        }
        let messages = frames.into_iter().filter(|(_, is_message)| *is_message);
        messages.map(|(frame, _)| frame).collect()
    }
}

#[cfg(test)]
mod tests;
