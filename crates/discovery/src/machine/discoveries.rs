//! Requests for members to rendezvous servers: when each server is asked for which overlay, and
//! from which cookie on.

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
    /// Position at which the last answer of this server for this namespace ended.
    cookie: Option<Cookie>,
    asked: bool,
    /// Limit of members in the answer that is awaited, or in the last one.
    limit: u32,
    failures: u32,
    /// Answers in a row after which nothing was urgent although members were lacking: the answer
    /// held all members of the server, or more members are known than are dialled soon.
    leisurely: u32,
}

/// The number of members that an overlay still needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    /// Whether no member is connected.
    pub(super) alone: bool,
    /// Number of connected members that are lacking.
    pub(super) lacking: usize,
    /// Number of members that are known and could be dialled.
    pub(super) known: usize,
}

/// Known members for each lacking one above which no more are urgently needed, 4: if three of four
/// no longer run, the fourth is enough. With the default target these are 48, one answer of 15 KiB.
const ENOUGH_FOR_EACH: usize = 4;

impl Need {
    /// Returns how many more members should be discovered.
    pub(super) fn sought(self) -> usize {
        let enough = self.lacking.saturating_mul(ENOUGH_FOR_EACH);
        enough.saturating_sub(self.known)
    }
}

/// One request per server and namespace, repeated for as long as the namespace is followed.
///
/// The number of requests in one tick is bounded. Those that have waited longest come first.
#[derive(Clone, Debug)]
pub(super) struct Discoveries {
    config: RendezvousTuning,
    servers: BTreeMap<PeerId, bool>,
    followed: BTreeSet<Namespace>,
    questions: BTreeMap<Key, Question>,
    /// Times at which connected servers are asked.
    due: Schedule<Key>,
    /// Times at which requests count as unanswered.
    deadlines: Schedule<Key>,
    /// Number of requests that may still be made in this tick.
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

    /// Adds a server, which is not connected yet.
    pub(super) fn add_server(&mut self, server: PeerId) {
        self.servers.entry(server).or_insert(false);
    }

    pub(super) fn remove_server(&mut self, server: PeerId) {
        self.servers.remove(&server);
        let followed: Vec<_> = self.followed.iter().cloned().collect();
        for namespace in followed {
            self.forget(&(server, namespace));
        }
    }

    /// Asks every connected server for `namespace` at once, within the limit of the tick.
    pub(super) fn follow(&mut self, namespace: &Namespace, now: Instant) {
        self.followed.insert(namespace.clone());
        self.retry_now(namespace, now);
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

    /// A server was disconnected. Cookies are kept: a server that has restarted refuses an old
    /// cookie, and the next request goes without one.
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

    /// No member of `namespace` is connected. Its servers are asked now.
    pub(super) fn retry_now(&mut self, namespace: &Namespace, now: Instant) {
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

    /// A server answered with `members` members for an overlay with this `need`. Returns whether
    /// the answer was awaited.
    ///
    /// A node that lacks members asks for page after page at a short interval while few members are
    /// known. Then it asks for new members at intervals that grow, because most members of a
    /// network that has just started are new. A node that lacks no member asks rarely for a few,
    /// and each server the more rarely the more servers there are, so that the load of a server
    /// does not grow with their number.
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
        // A cookie asks for new members only. At the end of the list a node that seeks members asks
        // for the whole list again: members that it did not reach before may be reachable now, and
        // those that it has forgotten are known again.
        let at_the_end = members == 0 && (need.alone || need.sought() > 0);
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

    /// Begins a tick, with the whole budget of requests.
    pub(super) fn refill(&mut self) {
        self.budget = self.config.discoveries_per_tick;
    }

    /// Removes and returns a request that was not answered in time.
    pub(super) fn pop_overdue(&mut self, now: Instant) -> Option<Key> {
        self.deadlines.pop_due(now)
    }

    /// Returns whether an answer for `key` is awaited.
    pub(super) fn is_awaited(&self, key: &Key) -> bool {
        self.questions
            .get(key)
            .is_some_and(|question| question.asked)
    }

    /// Makes the requests that are due, within the limit of the tick. `limit` returns the limit of
    /// members for an overlay.
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

    /// Returns the next time at which something is due. Requests that wait for the next tick do not
    /// count.
    pub(super) fn next(&self) -> Option<Instant> {
        let due = self.due.next().filter(|_| self.budget > 0);
        [due, self.deadlines.next()].into_iter().flatten().min()
    }

    /// Returns whether the request for `key` is due at some time or awaits an answer.
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
