//! What peers send passes here before gossipsub sees it.

use std::io;

use calimero_network_primitives::PeerId;
use libp2p_gossipsub as gossipsub;
use libp2p_gossipsub::TopicHash;
use libp2p_swarm::{CloseConnection, ConnectionId, THandlerOutEvent};

use super::{Behaviour, Gossipsub, handler::CopyOf, now};
use crate::{
    announcements::Change,
    event::{Event, Message},
    repair::Input,
    standing::{Fault, GRAYLIST_SCORE, Verdict},
};

/// What gossipsub's connection handler tells its behaviour. Gossipsub itself does not say which
/// peer sent what: not who sent an invalid message, nor a duplicate, nor on which connection an
/// announcement came. All of that passes through here.
type FromGossipsub = THandlerOutEvent<Gossipsub>;

/// Refuses payloads that are larger than what this node publishes. Gossipsub's own limit is that
/// of all bytes around it as well, so it must be wider.
pub struct SizeLimit(pub(super) usize);

impl gossipsub::DataTransform for SizeLimit {
    fn inbound_transform(
        &self,
        message: gossipsub::RawMessage,
    ) -> Result<gossipsub::Message, io::Error> {
        if message.data.len() > self.0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(gossipsub::Message {
            source: message.source,
            data: message.data,
            sequence_number: message.sequence_number,
            topic: message.topic,
        })
    }

    fn outbound_transform(&self, _: &TopicHash, data: Vec<u8>) -> Result<Vec<u8>, io::Error> {
        Ok(data)
    }
}

impl Behaviour {
    /// Takes out of `event` what gossipsub must not act upon, and takes in what it says about
    /// the peer.
    pub(super) fn sift(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: &mut FromGossipsub,
        copies: &[CopyOf],
    ) {
        let FromGossipsub::Message { rpc, .. } = event else {
            return;
        };
        let at = now();
        self.spoke_on.insert(peer, connection);
        // Gossipsub puts one entry for extensions behind those of a control message. Alone it is
        // the greeting of a peer for which the connection is the first.
        let carries = !rpc.messages.is_empty() || !copies.is_empty();
        if rpc.control_msgs.len() == 1 && rpc.subscriptions.is_empty() && !carries {
            self.hear_repair(Input::Greeted { peer });
        }

        if carries {
            self.exchanged(peer);
        }
        if !rpc.subscriptions.is_empty() {
            let excess = self.announcements.sift(
                peer,
                &mut rpc.subscriptions,
                |entry| &entry.topic_hash,
                |one, other| one.action == other.action,
                |topic| topic.as_str().parse::<crate::Topic>().is_ok(),
            );
            self.counters.announcements_refused += count(excess);
            self.fault(peer, Fault::Excess(excess), excess);
        }

        let mut unannounced = None;
        // Gossipsub does not hear such a peer, so what it brings must not hide what others bring.
        let unheard = self.standing.score(&peer, at) < GRAYLIST_SCORE;
        rpc.messages.retain(|message| {
            let forwarded = message.source != Some(peer);
            let (topic, bytes) = (&message.topic, message.data.len());
            let followed = self.hear_copy(peer, topic, bytes, forwarded, &mut unannounced);
            let number = message.sequence_number.unwrap_or_default();
            let is_new = |author| self.shared.note(&author, number);
            followed && !unheard && message.source.is_some_and(is_new)
        });
        let mut replayed = 0;
        for copy in copies {
            let forwarded = copy.author != peer;
            let heard = self.hear_copy(peer, &copy.topic, copy.bytes, forwarded, &mut unannounced);
            replayed += usize::from(heard && copy.is_replay);
        }
        self.counters.replays_dropped += count(replayed);
        self.fault(peer, Fault::Replayed(replayed), replayed);
        if let (Some(forwarded), Some(repair)) = (unannounced, &mut self.repair) {
            repair.handle(Input::Unannounced { peer, forwarded }, at);
        }

        let control = rpc.control_msgs.len();
        self.fault(peer, Fault::Control(control), control);
    }

    /// Counts a message, and notes whether its sender has announced the topic. `false` where this
    /// node does not follow it.
    fn hear_copy(
        &mut self,
        peer: PeerId,
        topic: &TopicHash,
        bytes: usize,
        forwarded: bool,
        unannounced: &mut Option<bool>,
    ) -> bool {
        if !self.announcements.follows(topic) {
            return false;
        }
        self.counters.copies += 1;
        self.counters.copied_bytes += count(bytes);
        if !self.announcements.is_subscribed(&peer, topic) {
            *unannounced = Some(unannounced.unwrap_or(false) || forwarded);
        }
        true
    }

    /// Takes in a fault, if there is one.
    pub(super) fn fault(&mut self, peer: PeerId, fault: Fault, count: usize) {
        if count == 0 {
            return;
        }
        match self.standing.fault(peer, fault, now()) {
            Verdict::Score(score) => {
                self.gossipsub.set_application_score(&peer, score);
            }
            Verdict::Ban => {
                self.counters.banned += 1;
                self.tell(Event::Banned { peer });
                self.close(peer, CloseConnection::All);
            }
        }
    }

    /// Takes in what gossipsub tells.
    pub(super) fn hear(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message {
                propagation_source,
                message_id,
                message,
            } => {
                let (Some(topic), Some(source)) = (self.topic(&message.topic), message.source)
                else {
                    return;
                };
                self.counters.delivered += 1;
                let not_to = [source, propagation_source];
                self.forwarding(&message.topic, message.data.len(), not_to);
                self.wake();
                self.tell(Event::Message(Message {
                    topic,
                    source,
                    propagated_by: propagation_source,
                    id: message_id.into(),
                    data: message.data.into(),
                }));
            }
            gossipsub::Event::Subscribed { peer_id, topic } => self.joined(peer_id, &topic),
            gossipsub::Event::Unsubscribed { peer_id, topic } => self.left(peer_id, &topic),
            gossipsub::Event::GossipsubNotSupported { peer_id } => {
                self.tell(Event::Unsupported { peer: peer_id });
            }
            gossipsub::Event::SlowPeer {
                peer_id: peer,
                failed_messages,
            } => {
                let lost = failed_messages.priority + failed_messages.non_priority;
                self.counters.lost_to_slow += count(lost);
                self.tell(Event::Slow { peer, lost });
                if self.slow.reported(peer, lost, now()) {
                    self.tell(Event::ClosedSlow { peer });
                    self.close(peer, CloseConnection::All);
                }
            }
        }
    }

    fn joined(&mut self, peer: PeerId, hash: &TopicHash) {
        let Some(change) = self.announcements.joined(peer, hash) else {
            return;
        };
        if let (Some(repair), Some(connection)) = (&mut self.repair, self.spoke_on.get(&peer)) {
            let input = Input::Announced {
                peer,
                connection: *connection,
                repeated: change == Change::Repeated,
            };
            repair.handle(input, now());
        }
        if change == Change::Repeated {
            return;
        }
        self.review_link(peer);
        if let Some(topic) = self.topic(hash) {
            self.tell(Event::Subscribed { peer, topic });
        }
        self.send_kept(hash);
    }

    fn left(&mut self, peer: PeerId, hash: &TopicHash) {
        if !self.announcements.left(peer, hash) {
            return;
        }
        self.review_link(peer);
        if let Some(repair) = &mut self.repair {
            repair.handle(Input::Left { peer }, now());
        }
        if let Some(topic) = self.topic(hash) {
            self.tell(Event::Unsubscribed { peer, topic });
        }
    }
}

pub(super) fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
