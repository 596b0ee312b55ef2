//! What has arrived, told to the planners and to whoever follows the progress.

use std::sync::atomic::Ordering::Relaxed;

use super::Driver;
use crate::plan::Input;

impl Driver {
    /// Tells the planners what has arrived since, and everybody else how far it is.
    pub(super) fn sample(&mut self) {
        let mut came = Vec::new();
        for (peer, session) in &mut self.sessions {
            let received = session.meter.received.load(Relaxed);
            let bytes = received - std::mem::replace(&mut session.sampled, received);
            let reaching = session.meter.reaching.load(Relaxed);
            if bytes > 0 || reaching {
                came.push((*peer, session.asks.is_none(), reaching, bytes));
            }
        }
        for (peer, older, reaching, bytes) in came {
            self.book.received(bytes);
            let input = match reaching {
                true => Input::Reaching(peer),
                false => Input::Received { peer, bytes },
            };
            match older {
                true => self.tell_older(input),
                false => self.tell(input),
            }
        }
        self.tell(Input::Tick);
        if !self.older.is_alone() {
            self.tell_older(Input::Tick);
        }
        let now = self.now();
        if self.book.is_due(now) {
            self.publish();
        }
    }

    pub(super) fn publish(&mut self) {
        let now = self.now();
        let (planner, sessions) = (&self.planner, &self.sessions);
        let progress = self.book.progress(now, |peer| {
            (planner.rate(peer), sessions.contains_key(peer))
        });
        self.progress.send_replace(progress);
    }
}
