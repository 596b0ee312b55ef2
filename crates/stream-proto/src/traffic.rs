//! Counts of streams and bytes by protocol.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use libp2p_swarm::StreamProtocol;

/// Streams and bytes of one protocol since the behaviour was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Inbound streams that were negotiated, those included that no task accepted.
    pub inbound_opened: u64,
    /// Outbound streams that were negotiated.
    pub outbound_opened: u64,
    /// Inbound streams that exist now.
    pub inbound_open: u64,
    /// Outbound streams that exist now.
    pub outbound_open: u64,
    /// Bytes that were read from streams. Headers of the multiplexer and of the
    /// transport are not included.
    pub received_bytes: u64,
    /// Bytes that were written to streams.
    pub sent_bytes: u64,
}

#[derive(Debug, Default)]
struct Counts {
    inbound_opened: AtomicU64,
    outbound_opened: AtomicU64,
    inbound_open: AtomicU64,
    outbound_open: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
}

/// The counts of every protocol that this node has opened or accepted. A peer
/// cannot add one: streams of other protocols are not negotiated.
#[derive(Debug, Default)]
pub(crate) struct ByProtocol(Mutex<HashMap<StreamProtocol, Arc<Counts>>>);

impl ByProtocol {
    /// Counts a stream that a peer opened.
    pub(crate) fn inbound(&self, protocol: &StreamProtocol) -> Counted {
        Counted::new(self.counts(protocol), true)
    }

    /// Counts a stream that this node opened.
    pub(crate) fn outbound(&self, protocol: &StreamProtocol) -> Counted {
        Counted::new(self.counts(protocol), false)
    }

    fn counts(&self, protocol: &StreamProtocol) -> Arc<Counts> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counts) = all.get(protocol) {
            return counts.clone();
        }
        all.entry(protocol.clone()).or_default().clone()
    }

    pub(crate) fn read(&self) -> Vec<(StreamProtocol, Traffic)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |counts: &Counts| Traffic {
            inbound_opened: counts.inbound_opened.load(Relaxed),
            outbound_opened: counts.outbound_opened.load(Relaxed),
            inbound_open: counts.inbound_open.load(Relaxed),
            outbound_open: counts.outbound_open.load(Relaxed),
            received_bytes: counts.received_bytes.load(Relaxed),
            sent_bytes: counts.sent_bytes.load(Relaxed),
        };
        all.iter()
            .map(|(protocol, counts)| (protocol.clone(), read(counts)))
            .collect()
    }
}

/// One stream in the counts of its protocol. It is open until this is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    counts: Arc<Counts>,
    inbound: bool,
}

impl Counted {
    fn new(counts: Arc<Counts>, inbound: bool) -> Self {
        let (opened, open) = match inbound {
            true => (&counts.inbound_opened, &counts.inbound_open),
            false => (&counts.outbound_opened, &counts.outbound_open),
        };
        opened.fetch_add(1, Relaxed);
        open.fetch_add(1, Relaxed);
        Self { counts, inbound }
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.counts.received_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.counts.sent_bytes.fetch_add(bytes as u64, Relaxed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let open = match self.inbound {
            true => &self.counts.inbound_open,
            false => &self.counts.outbound_open,
        };
        open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_open_until_it_is_dropped_and_its_bytes_remain() {
        let all = ByProtocol::default();
        let (one, other) = (StreamProtocol::new("/one"), StreamProtocol::new("/other"));
        let inbound = all.inbound(&one);
        let outbound = all.outbound(&one);
        inbound.received(5);
        outbound.sent(7);
        drop(all.outbound(&other));
        drop(inbound);
        let read: HashMap<_, _> = all.read().into_iter().collect();
        let expected = Traffic {
            inbound_opened: 1,
            outbound_opened: 1,
            inbound_open: 0,
            outbound_open: 1,
            received_bytes: 5,
            sent_bytes: 7,
        };
        assert_eq!(read[&one], expected);
        assert_eq!(read[&other].outbound_opened, 1);
        assert_eq!(read[&other].outbound_open, 0);
    }
}
