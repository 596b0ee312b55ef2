//! What has arrived, reported to the planners and to the readers of the progress.

use std::sync::atomic::Ordering::Relaxed;

use super::Driver;
use crate::plan::Input;

impl Driver {
    /// Reports what has arrived since the last call, and publishes the progress where it is due.
    pub(super) fn sample(&mut self) {
        let mut came = Vec::new();
        for (peer, session) in &mut self.sessions {
            let arrived = &session.meter.arrived;
            let (all, content) = (arrived.bytes.load(Relaxed), arrived.content.load(Relaxed));
            let (all_before, before) = std::mem::replace(&mut session.sampled, (all, content));
            self.book.received(all - all_before);
            let bytes = content - before;
            let reaching = session.meter.reaching.load(Relaxed);
            if bytes > 0 || reaching {
                came.push((*peer, session.asks.is_none(), reaching, bytes));
            }
        }
        let now = self.now();
        for (peer, v0, reaching, bytes) in came {
            self.hope.on_content(bytes, now);
            let input = match reaching {
                true => Input::Reaching(peer),
                false => Input::Received { peer, bytes },
            };
            match v0 {
                true => self.plan_v0(input),
                false => self.plan(input),
            }
        }
        self.plan(Input::Tick);
        if !self.v0.is_alone() {
            self.plan_v0(Input::Tick);
        }
        let now = self.now();
        if self.book.is_due(now) {
            self.publish();
        }
    }

    pub(super) fn publish(&mut self) {
        let now = self.now();
        let (planner, sessions) = (&self.planner, &self.sessions);
        let mut progress = self.book.progress(now, |peer| {
            (planner.rate(peer), sessions.contains_key(peer))
        });
        progress.searching = self.searching;
        self.progress.send_replace(progress);
    }
}
