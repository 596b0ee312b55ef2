//! Properties of the machine after any inputs in any order at any times, checked from outside: by
//! its inputs, its effects and its status.
//!
//! Property tests and the fuzz target share it: [`script`] makes steps of bytes, [`Checked`] takes
//! them to a machine and follows it with a [`Model`](model::Model), [`Checked::settle`] lets
//! time alone pass and sees that nothing is forgotten. What does not hold panics. It uses the
//! `machine` of the module it is included in.

pub(crate) mod model;
pub(crate) mod script;
mod settle;

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use calimero_network_primitives::{PeerId, config::DiscoveryConfig};

use self::{
    model::Model,
    script::{LOCAL, Step, peer},
};
use super::machine::{Effect, Input, Machine, Registration, Reservation};

/// Dials of one peer in [`DIAL_WINDOW`] above which they are a storm: the redials at 0, 5, 15 and
/// 30 s, one as a member, and one for the jitter of them.
const MAX_DIALS: usize = 6;
const DIAL_WINDOW: Duration = Duration::from_secs(30);

/// Effects of one input above which they are not bounded by anything the configuration names.
const MAX_EFFECTS: usize = 256;

/// Lines of the story of a machine that are kept.
const STORY: usize = 80;

/// A machine, and all that is known of it from outside.
pub(crate) struct Checked {
    pub(crate) machine: Machine,
    config: DiscoveryConfig,
    /// The time that is passed to the machine. It may go back.
    clock: Instant,
    start: Instant,
    /// Latest time that was passed to the machine.
    pub(crate) latest: Instant,
    model: Model,
    dials: BTreeMap<PeerId, VecDeque<Instant>>,
    /// What happened last, to be shown where something does not hold.
    story: VecDeque<(Duration, Told)>,
}

#[derive(Debug)]
enum Told {
    Happened(#[expect(dead_code, reason = "printed")] Input),
    Wanted(#[expect(dead_code, reason = "printed")] Effect),
}

impl Drop for Checked {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (since, line) in &self.story {
                eprintln!("{:>9.3} s {line:?}", since.as_secs_f64());
            }
        }
    }
}

impl Checked {
    pub(crate) fn new(config: DiscoveryConfig, seed: u64, start: Instant) -> Self {
        let machine = Machine::new(config.clone(), peer(LOCAL), seed, start).unwrap();
        let mut checked = Self {
            machine,
            model: Model::new(&config, start),
            config,
            clock: start,
            start,
            latest: start,
            dials: BTreeMap::new(),
            story: VecDeque::new(),
        };
        checked.drain();
        checked.see();
        checked
    }

    /// Moves the clock, then passes the input of the step.
    pub(crate) fn step(&mut self, step: &Step) -> Vec<Effect> {
        self.clock = match step.back {
            true => self.clock.checked_sub(step.moved).unwrap_or(self.clock),
            false => self.clock + step.moved,
        };
        let input = step.what.input(&self.model);
        self.tell(input, self.clock)
    }

    /// Passes an input at `now` and checks the effects.
    pub(crate) fn tell(&mut self, input: Input, now: Instant) -> Vec<Effect> {
        self.latest = self.latest.max(now);
        if matches!(
            input,
            Input::NetworkChanged | Input::Listening { .. } | Input::Unblock(_) | Input::Follow(_)
        ) {
            // Peers may be dialled again at once.
            self.dials.clear();
        }
        self.model.hear(&input, self.latest);
        self.write_down(Told::Happened(input.clone()));
        self.machine.handle(input, now);
        let effects = self.drain();
        self.see();
        effects
    }

    fn drain(&mut self) -> Vec<Effect> {
        let effects: Vec<_> = std::iter::from_fn(|| self.machine.poll_effect()).collect();
        assert!(effects.len() <= MAX_EFFECTS, "{} effects", effects.len());
        for effect in &effects {
            self.write_down(Told::Wanted(effect.clone()));
            self.model.take(effect);
            if let Effect::Dial { peer, .. } = effect {
                self.count_dial(*peer);
            }
        }
        effects
    }

    fn write_down(&mut self, line: Told) {
        if self.story.len() == STORY {
            self.story.pop_front();
        }
        self.story.push_back((self.latest - self.start, line));
    }

    fn count_dial(&mut self, peer: PeerId) {
        let dials = self.dials.entry(peer).or_default();
        dials.push_back(self.latest);
        while dials
            .front()
            .is_some_and(|at| *at + DIAL_WINDOW < self.latest)
        {
            dials.pop_front();
        }
        assert!(dials.len() <= MAX_DIALS, "a storm of dials of {peer}");
    }

    /// Checks that the status is within its limits and agrees with the inputs and effects.
    fn see(&self) {
        let next = self.machine.next_timeout();
        if self.model.stopped {
            assert_eq!(next, None, "an end that goes on");
            return;
        }
        assert!(next.is_some(), "nothing will wake it");
        assert!(next >= Some(self.latest), "a time-out in the past");
        let deadline = self.model.first_deadline();
        assert!(deadline.is_none() || next <= deadline, "it will be late");
        self.bounds_hold();
        self.says_what_it_does();
    }

    fn bounds_hold(&self) {
        let (config, status) = (&self.config, self.machine.status());
        let boot = self.model.boot.len();
        assert!(status.dials_in_flight <= config.dials.max_in_flight as usize);
        assert!(status.queued_dials <= config.dials.max_queued as usize);
        assert!(status.lost_peers <= config.redial.max_peers as usize + boot);
        let kept = status.connected_peers + boot;
        assert!(status.known_peers <= kept.max(config.max_peers as usize));
        assert!(status.overlays.len() <= config.rendezvous.max_overlays as usize);
        for (_, overlay) in &status.overlays {
            assert!(overlay.known <= config.rendezvous.max_members as usize);
            assert!(overlay.connected <= status.connected_peers);
        }
        let cache = self.machine.cache();
        assert!(cache.len() <= config.cache.max_peers as usize);
        for entry in cache {
            assert!(!self.model.is_stranger(&entry.peer), "a stranger is kept");
            assert!(entry.addresses.len() <= config.book.max_addresses_per_peer as usize);
        }
        let of_servers = &config.rendezvous;
        for server in &self.model.boot {
            let held = status
                .registrations
                .iter()
                .filter(|one| one.server == *server && one.state != Registration::Pending);
            assert!(held.count() <= of_servers.max_registrations_per_server as usize);
        }
    }

    /// Checks that each status agrees with the effects and their results: every part that waits has
    /// a request under way.
    fn says_what_it_does(&self) {
        let (model, status) = (&self.model, self.machine.status());
        assert_eq!(status.dials_in_flight, model.dials.len(), "dials");
        assert_eq!(status.connected_peers, model.connected.len(), "connections");
        assert!(
            status
                .overlays
                .iter()
                .map(|(n, _)| n)
                .eq(model.followed.iter())
        );
        let external = status.external_addresses.iter().map(|(address, _)| address);
        assert!(external.eq(model.external.iter()), "external addresses");
        let asked = status
            .registrations
            .iter()
            .filter(|one| one.state == Registration::Requested)
            .map(|one| (one.server, one.namespace.clone()));
        assert!(
            asked.eq(model.registrations.keys().cloned()),
            "registrations"
        );
        let slots: BTreeMap<_, _> = status
            .reservations
            .iter()
            .filter_map(|one| match one.state {
                Reservation::Requested { listener } | Reservation::Held { listener, .. } => {
                    Some((listener, one.relay))
                }
                Reservation::Idle | Reservation::Resting { .. } => None,
            })
            .collect();
        assert_eq!(slots, model.listeners, "slots");
    }
}
