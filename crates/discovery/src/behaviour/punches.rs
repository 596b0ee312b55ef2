//! The limit of dials that relayed peers cause.
//!
//! DCUtR dials every address that a relayed peer names, three times. A peer could name addresses of
//! others, which this node would then scan or flood. Identities are free, so peers that are not
//! known count by the relay through which they are connected: many of them use up the dials of
//! their relay alone.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use calimero_network_primitives::PeerId;

/// Time over which dials are counted, 1 min.
const WINDOW: Duration = Duration::from_secs(60);

/// Most dials in a minute for unknown peers behind one relay, 30: the three attempts of 10 peers.
const MAX_PER_RELAY: u32 = 30;

/// Most dials in a minute for unknown peers, 60: the three attempts of 20 peers.
const MAX_OTHERS: u32 = 60;

/// First dials of each relay in a minute that are made although [`MAX_OTHERS`] is reached, 6: the
/// three attempts of two peers, so that two relays cannot use up the dials of all others.
const FIRST: u32 = 6;

/// Most dials in a minute beyond [`MAX_OTHERS`], 60.
const MAX_FIRST: u32 = 60;

/// Most dials in a minute for boot nodes and members of overlays, 240: twice the three attempts of
/// all members of an overlay that are kept alive.
const MAX_KEPT_ALIVE: u32 = 240;

/// A peer that is connected through a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Punched {
    /// A boot node or a member whose connection is kept alive.
    KeptAlive,
    /// Another peer, with the relay of its latest connection. Peers whose relay is not known share
    /// one count.
    Other(Option<PeerId>),
}

/// The limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// That of all peers of one kind.
    All(u32),
    /// That of unknown peers behind one relay.
    Relay(u32),
}

/// Counts the dials of hole punches in windows of a minute. The table has at most one entry for
/// each of [`MAX_OTHERS`] and [`MAX_FIRST`], since only admitted dials are counted.
#[derive(Debug)]
pub(super) struct Punches {
    since: Instant,
    kept_alive: u32,
    others: u32,
    relays: HashMap<Option<PeerId>, u32>,
}

impl Punches {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            kept_alive: 0,
            others: 0,
            relays: HashMap::new(),
        }
    }

    /// Counts a dial, if there may be one more.
    ///
    /// # Errors
    ///
    /// The limit that was reached.
    pub(super) fn admit(&mut self, peer: Punched, now: Instant) -> Result<(), Reached> {
        if now.saturating_duration_since(self.since) >= WINDOW {
            *self = Self::new(now);
        }
        match peer {
            Punched::KeptAlive if self.kept_alive >= MAX_KEPT_ALIVE => {
                Err(Reached::All(MAX_KEPT_ALIVE))
            }
            Punched::KeptAlive => {
                self.kept_alive += 1;
                Ok(())
            }
            Punched::Other(relay) => self.admit_other(relay),
        }
    }

    fn admit_other(&mut self, relay: Option<PeerId>) -> Result<(), Reached> {
        let of_relay = self.relays.get(&relay).copied().unwrap_or(0);
        if of_relay >= MAX_PER_RELAY {
            return Err(Reached::Relay(MAX_PER_RELAY));
        }
        let max = match of_relay < FIRST {
            true => MAX_OTHERS + MAX_FIRST,
            false => MAX_OTHERS,
        };
        if self.others >= max {
            return Err(Reached::All(max));
        }
        self.others += 1;
        self.relays.insert(relay, of_relay + 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
