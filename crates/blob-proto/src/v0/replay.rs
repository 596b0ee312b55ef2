//! The authentications that were presented lately, and the peers that presented them.

use std::collections::{BTreeMap, HashMap};

use calimero_network_primitives::{BlobId, ContextId, PeerId, resources::Permit};

use super::{
    BlobAuth,
    auth::{AUTH_MAX_AGE_S, AUTH_MAX_AHEAD_S},
};
use crate::error::AuthError;

/// Authentications that a [`ReplayGuard`] remembers by default: 65 536.
///
/// At about 150 bytes each, 10 MiB; enough for 1600 new ones each second of the window.
pub const REPLAY_GUARD_CAPACITY: usize = 65_536;

/// Binds each authentication to the peer that presented it first, for as long as it is valid.
///
/// A requester may present one several times (a second stream within the same second signs the
/// same bytes); another peer may not present it at all. Entries are never dropped before they
/// expire, since a dropped one could be replayed: a full guard refuses new ones. Admit only what
/// is verified and authorized, so that strangers cannot fill it.
#[derive(Debug)]
pub struct ReplayGuard {
    capacity: usize,
    /// The peer that presented each digest first, and what it holds in the accounting for it.
    presenters: HashMap<[u8; 32], (PeerId, Option<Permit>)>,
    /// Digests by the last second in which they are valid. At most 41 different seconds hold
    /// anything while the clock runs forwards.
    expiries: BTreeMap<u64, Vec<[u8; 32]>>,
}

impl Default for ReplayGuard {
    fn default() -> Self {
        Self::new(REPLAY_GUARD_CAPACITY)
    }
}

impl ReplayGuard {
    /// A guard that remembers at most `capacity` authentications.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            presenters: HashMap::new(),
            expiries: BTreeMap::new(),
        }
    }

    /// Returns the number of remembered authentications.
    #[must_use]
    pub fn len(&self) -> usize {
        self.presenters.len()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.presenters.is_empty()
    }

    /// Verifies an authentication as [`BlobAuth::verify`] does, and admits it for `presenter`.
    /// `now` is in seconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// [`AuthError::Replayed`] where another peer presented it before, [`AuthError::Busy`] where
    /// the guard is full, and what [`BlobAuth::verify`] refuses.
    pub fn admit(
        &mut self,
        auth: &BlobAuth,
        blob_id: &BlobId,
        context_id: &ContextId,
        presenter: PeerId,
        now: u64,
    ) -> Result<(), AuthError> {
        self.admit_with(auth, blob_id, context_id, presenter, now, || Ok(None))
    }

    /// As [`admit`](Self::admit), with a permit that is held for as long as the authentication is
    /// remembered, so that each peer and each IP prefix has a share of the guard. `permit` is
    /// called once the permits of expired authentications are released, and only for an
    /// authentication that is not remembered.
    ///
    /// # Errors
    ///
    /// As [`admit`](Self::admit), and the error of `permit`.
    pub fn admit_with(
        &mut self,
        auth: &BlobAuth,
        blob_id: &BlobId,
        context_id: &ContextId,
        presenter: PeerId,
        now: u64,
        permit: impl FnOnce() -> Result<Option<Permit>, AuthError>,
    ) -> Result<(), AuthError> {
        auth.verify(blob_id, context_id, now)?;
        self.expire(now);
        let digest = auth.digest(blob_id, context_id);
        if let Some(&(first, _)) = self.presenters.get(&digest) {
            return if first == presenter {
                Ok(())
            } else {
                Err(AuthError::Replayed { first })
            };
        }
        if self.presenters.len() >= self.capacity {
            return Err(AuthError::Busy {
                capacity: self.capacity,
                max_age_s: AUTH_MAX_AGE_S + AUTH_MAX_AHEAD_S,
            });
        }
        let permit = permit()?;
        self.presenters.insert(digest, (presenter, permit));
        self.expiries
            .entry(auth.timestamp.saturating_add(AUTH_MAX_AGE_S))
            .or_default()
            .push(digest);
        Ok(())
    }

    /// Forgets what is no longer valid at `now`.
    fn expire(&mut self, now: u64) {
        let live = self.expiries.split_off(&now);
        for digest in std::mem::replace(&mut self.expiries, live)
            .into_values()
            .flatten()
        {
            self.presenters.remove(&digest);
        }
    }
}
