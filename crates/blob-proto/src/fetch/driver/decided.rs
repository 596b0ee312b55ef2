//! Carries out the decisions of the planners: which providers to ask, and which to leave.

use std::sync::Arc;

use calimero_network_primitives::PeerId;
use futures::{
    FutureExt,
    future::{AbortHandle, Abortable, BoxFuture},
};
use tokio::sync::mpsc;

use super::{Driver, planner_config, serial_config};
use crate::{
    fetch::{
        ProviderError,
        session::{Ask, End, Meter, Session, SessionId},
        v0::{Keep, V0Fetch},
    },
    plan::{Cause, Effect, FLOOR_BYTES_PER_S, Input, PROVIDER_WINDOW_CHUNKS},
    transfer::Arrived,
    v1::MAX_INLINE_BYTES,
};

/// A session that runs.
pub(super) struct Handle {
    pub(super) id: SessionId,
    pub(super) meter: Meter,
    /// Bytes of the meter that were counted: all, and those of content.
    pub(super) sampled: (u64, u64),
    /// Whether the driver has seen that the stream is open.
    pub(super) was_open: bool,
    /// Absent for older providers, who are asked once.
    pub(super) asks: Option<mpsc::Sender<Ask>>,
    abort: AbortHandle,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

impl Driver {
    pub(super) fn plan(&mut self, input: Input) {
        for effect in self.planner.handle(input, self.now()) {
            match effect {
                Effect::Read { peer, chunks } => {
                    let ask = match self.partial {
                        // A list needs no turn as a rule, and shows that a provider that was busy
                        // has the blob.
                        None if self.planner.was_busy(&peer) => Ask::List {
                            inline_max_bytes: 0,
                        },
                        None => Ask::List {
                            inline_max_bytes: MAX_INLINE_BYTES as u64,
                        },
                        Some(_) => Ask::Chunks(chunks),
                    };
                    self.ask(peer, ask);
                }
                Effect::Leave { peer, cause } => self.leave(peer, cause, false),
                Effect::Cancel { peer } => {
                    self.sessions.remove(&peer);
                    let now = self.now();
                    self.exchange.on_end(&peer, now);
                }
                Effect::Done => self.done = self.partial.is_some(),
                Effect::NoProviders { .. } => {}
            }
        }
    }

    pub(super) fn plan_v0(&mut self, input: Input) {
        for effect in self.v0.handle(input, self.now()) {
            match effect {
                Effect::Read { peer, .. } => self.ask_v0(peer),
                Effect::Leave { peer, cause } => self.leave(peer, cause, true),
                Effect::Cancel { peer } => drop(self.sessions.remove(&peer)),
                Effect::Done | Effect::NoProviders { .. } => {}
            }
        }
    }

    fn leave(&mut self, peer: PeerId, cause: Cause, v0: bool) {
        let config = match v0 {
            true => serial_config(&self.context, false),
            false => planner_config(&self.context, false),
        };
        let error = match cause {
            // It is noted where it is found.
            Cause::Failed(_) => None,
            Cause::Stalled => Some(ProviderError::Stalled {
                after: config.stall_timeout,
            }),
            Cause::TooSlow => Some(ProviderError::TooSlow {
                floor_bytes_per_s: FLOOR_BYTES_PER_S,
            }),
        };
        if let Some(error) = error {
            // Without a session, all that came before is older than this.
            let last = self.sessions.get(&peer).map(|session| session.id);
            let number = last.map_or(self.sessions_begun, |id| id.number);
            self.book.failed(SessionId { peer, number }, error);
        }
        self.sessions.remove(&peer);
    }

    pub(super) fn ask(&mut self, peer: PeerId, ask: Ask) {
        let ask = match self.sessions.get(&peer).and_then(|open| open.asks.as_ref()) {
            None => ask,
            Some(asks) => match asks.try_send(ask) {
                Ok(()) => return,
                // The session has ended, or hangs: another one takes its place.
                Err(error) => error.into_inner(),
            },
        };
        // Each request is for a chunk at least, so the window bounds those that wait, with a report for
        // each chunk.
        let (asks, receiver) = mpsc::channel(2 * (PROVIDER_WINDOW_CHUNKS + 1));
        let _ = asks.try_send(ask);
        let meter = Meter::new(Arrived::default());
        let id = self.next_session(peer);
        let session = Session::new(Arc::clone(&self.context), id, meter.clone(), receiver);
        self.start(id, meter, Some(asks), session.run().boxed());
    }

    fn ask_v0(&mut self, peer: PeerId) {
        let meter = Meter::new(Arrived::of_content());
        let id = self.next_session(peer);
        let v0 = V0Fetch {
            context: Arc::clone(&self.context),
            id,
            meter: meter.clone(),
        };
        let opened = self.opened.remove(&peer);
        let (store, partial) = (Arc::clone(&self.target.store), self.partial.clone());
        let keep = match partial {
            Some(partial) => Keep::Missing(partial),
            None => Keep::Whole(store),
        };
        let transfer = v0.run(opened, keep);
        self.start(id, meter, None, transfer.boxed());
    }

    fn next_session(&mut self, peer: PeerId) -> SessionId {
        self.sessions_begun += 1;
        SessionId {
            peer,
            number: self.sessions_begun,
        }
    }

    fn start(
        &mut self,
        id: SessionId,
        meter: Meter,
        asks: Option<mpsc::Sender<Ask>>,
        session: BoxFuture<'static, End>,
    ) {
        let (abort, registration) = AbortHandle::new_pair();
        let handle = Handle {
            id,
            meter,
            sampled: (0, 0),
            was_open: false,
            asks,
            abort,
        };
        self.sessions.insert(id.peer, handle);
        let session =
            Abortable::new(session, registration).map(move |end| end.ok().map(|end| (id, end)));
        self.running.push(session.boxed());
    }
}
