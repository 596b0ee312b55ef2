//! Questions to rendezvous servers: when each is asked for which overlay, and from where on. Its
//! one writer is this file.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Instant,
};

use calimero_network_primitives::{PeerId, config::RendezvousTuning};
use rand::rngs::StdRng;

use super::{
    effect::Effect,
    input::RendezvousFailure,
    namespace::{Cookie, Namespace},
    schedule::{Schedule, backoff, jittered},
};

type Key = (PeerId, Namespace);

#[derive(Clone, Debug, Default)]
struct Question {
    /// Where the last answer of this server about this namespace ended.
    cookie: Option<Cookie>,
    asked: bool,
    /// Members wanted at most in the answer to come, or the last.
    limit: u32,
    failures: u32,
    /// Answers in a row that called for no haste although members were lacking: they held all
    /// there was, or more members are known than are dialled soon.
    leisurely: u32,
}

/// How many more members an overlay wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    /// Nobody is connected.
    pub(super) alone: bool,
    /// Members it lacks.
    pub(super) lacking: usize,
    /// Members that could be dialled.
    pub(super) known: usize,
}

/// Members known for each that lacks, above which there is no haste to hear of more: where three of
/// four are dead, the rest will do. The default target makes it 48, one answer of 15 KiB.
const ENOUGH_FOR_EACH: usize = 4;

impl Need {
    /// Members to hear of.
    pub(super) fn sought(self) -> usize {
        let enough = self.lacking.saturating_mul(ENOUGH_FOR_EACH);
        enough.saturating_sub(self.known)
    }
}

/// One question per server and namespace followed, asked again and again.
///
/// What is asked in one round of upkeep is bounded; those that wait longest come first, so each
/// has its turn.
#[derive(Clone, Debug)]
pub(super) struct Discoveries {
    config: RendezvousTuning,
    servers: BTreeMap<PeerId, bool>,
    followed: BTreeSet<Namespace>,
    questions: BTreeMap<Key, Question>,
    /// When a question to a connected server is asked.
    due: Schedule<Key>,
    /// When a question asked is taken as unanswered.
    deadlines: Schedule<Key>,
    /// Questions that may still be asked in this round.
    budget: u32,
}

impl Discoveries {
    pub(super) fn new(config: RendezvousTuning, servers: impl IntoIterator<Item = PeerId>) -> Self {
        Self {
            config,
            servers: servers.into_iter().map(|peer| (peer, false)).collect(),
            followed: BTreeSet::new(),
            questions: BTreeMap::new(),
            due: Schedule::default(),
            deadlines: Schedule::default(),
            budget: config.discoveries_per_tick,
        }
    }

    /// Asks every connected server for `namespace` at once, as far as the round allows.
    pub(super) fn follow(&mut self, namespace: &Namespace, now: Instant) {
        self.followed.insert(namespace.clone());
        self.hasten(namespace, now);
    }

    pub(super) fn unfollow(&mut self, namespace: &Namespace) {
        self.followed.remove(namespace);
        let servers: Vec<_> = self.servers.keys().copied().collect();
        for server in servers {
            self.forget(&(server, namespace.clone()));
        }
    }

    pub(super) fn server_up(&mut self, server: PeerId, now: Instant) {
        let Some(up) = self.servers.get_mut(&server) else {
            return;
        };
        *up = true;
        for namespace in &self.followed {
            let key = (server, namespace.clone());
            self.questions.entry(key.clone()).or_default().asked = false;
            self.deadlines.cancel(&key);
            self.due.set(key, now);
        }
    }

    /// Cookies outlive the connection: a server that has restarted says so, or starts anew.
    pub(super) fn server_down(&mut self, server: PeerId) {
        let Some(up) = self.servers.get_mut(&server) else {
            return;
        };
        *up = false;
        for namespace in &self.followed {
            let key = (server, namespace.clone());
            self.due.cancel(&key);
            self.deadlines.cancel(&key);
            if let Some(question) = self.questions.get_mut(&key) {
                question.asked = false;
            }
        }
    }

    /// `namespace` has nobody (any more): it is asked for now.
    pub(super) fn hasten(&mut self, namespace: &Namespace, now: Instant) {
        if !self.followed.contains(namespace) {
            return;
        }
        for (server, up) in &self.servers {
            let key = (*server, namespace.clone());
            let asked = self.questions.entry(key.clone()).or_default().asked;
            if *up && !asked {
                self.due.set(key, now);
            }
        }
    }

    /// An answer has come, `members` strong, for an overlay with such a `need`. Returns whether it was
    /// asked for.
    ///
    /// Who lacks members walks on from page to page at a quick pace while few are known, and
    /// then asks for who is new ever less often: in a network that has just started most are. Who
    /// lacks nobody asks now and then for a few, and the less often each server the more there
    /// are: what a server has to answer does not grow with the number of servers.
    pub(super) fn answered(
        &mut self,
        key: &Key,
        members: usize,
        cookie: Option<Cookie>,
        need: Need,
        now: Instant,
        rng: &mut StdRng,
    ) -> bool {
        let servers = self.servers.values().filter(|up| **up).count().max(1);
        let Some(question) = self.questions.get_mut(key) else {
            return false;
        };
        if !std::mem::take(&mut question.asked) {
            return false;
        }
        self.deadlines.cancel(key);
        question.failures = 0;
        // A cookie asks for what is new. Who is alone at the end of the list has use for the
        // whole of it again: those that were not reached before may be reached now.
        let at_the_end = need.alone && members == 0;
        question.cookie = cookie.filter(|_| !at_the_end);
        let quick = self.config.alone_interval;
        let servers = u32::try_from(servers).unwrap_or(u32::MAX);
        let slow = self.config.interval.saturating_mul(servers).max(quick);
        let more = members >= question.limit as usize;
        question.leisurely = match need.lacking > 0 && !(more && need.sought() > 0) {
            true => question.leisurely.saturating_add(1),
            false => 0,
        };
        let wait = match (need.alone, need.lacking) {
            (true, _) => jittered(rng, quick),
            (false, 0) => jittered(rng, slow),
            (false, _) => backoff(rng, quick, slow, question.leisurely),
        };
        self.due.set(key.clone(), now + wait);
        true
    }

    pub(super) fn failed(
        &mut self,
        key: &Key,
        why: RendezvousFailure,
        alone: bool,
        now: Instant,
        rng: &mut StdRng,
    ) {
        let Some(question) = self.questions.get_mut(key) else {
            return;
        };
        if !std::mem::take(&mut question.asked) {
            return;
        }
        self.deadlines.cancel(key);
        question.failures = question.failures.saturating_add(1);
        let had_cookie = question.cookie.is_some();
        if why == RendezvousFailure::InvalidCookie {
            question.cookie = None;
            if had_cookie {
                self.due.set(key.clone(), now);
                return;
            }
        }
        let (min, max) = (self.config.alone_interval, self.config.interval);
        let max = if alone {
            min.saturating_mul(4).min(max)
        } else {
            max
        };
        let wait = backoff(rng, min.min(max), max, question.failures);
        self.due.set(key.clone(), now + wait);
    }

    /// A new round: the budget is full again.
    pub(super) fn refill(&mut self) {
        self.budget = self.config.discoveries_per_tick;
    }

    /// Questions that nobody answered in time.
    pub(super) fn pop_overdue(&mut self, now: Instant) -> Option<Key> {
        self.deadlines.pop_due(now)
    }

    /// Asks what is due, as far as the round allows; `limit` says for how many members of an
    /// overlay.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        limit: impl Fn(&Namespace) -> u32,
        out: &mut VecDeque<Effect>,
    ) {
        while self.budget > 0 {
            let Some(key) = self.due.pop_due(now) else {
                return;
            };
            self.budget -= 1;
            let question = self.questions.entry(key.clone()).or_default();
            question.asked = true;
            question.limit = limit(&key.1).min(self.config.max_answer);
            out.push_back(Effect::Discover {
                server: key.0,
                namespace: key.1.clone(),
                cookie: question.cookie.clone(),
                limit: question.limit,
            });
            self.deadlines
                .set(key, now + super::registrations::SERVER_TIMEOUT);
        }
    }

    /// When something is to be done; what waits for the next round is not in it.
    pub(super) fn next(&self) -> Option<Instant> {
        let due = self.due.next().filter(|_| self.budget > 0);
        [due, self.deadlines.next()].into_iter().flatten().min()
    }

    /// Whether there is a time at which `key` is asked, or its question taken as unanswered.
    #[cfg(test)]
    pub(super) fn has_time(&self, key: &Key) -> bool {
        self.due.contains(key) || self.deadlines.contains(key)
    }

    fn forget(&mut self, key: &Key) {
        self.questions.remove(key);
        self.due.cancel(key);
        self.deadlines.cancel(key);
    }
}
