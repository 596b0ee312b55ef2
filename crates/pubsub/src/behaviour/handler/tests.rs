use std::{hash::RandomState, task::Waker, time::Duration};

use calimero_network_primitives::resources::Resources;

use super::*;
use crate::{rpc::Rpc, validate::MemoryLimits};

/// A stream that takes as many bytes as its reader has room for.
struct Slow(usize);

impl AsyncRead for Slow {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Pending
    }
}

impl AsyncWrite for Slow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        if taken == 0 {
            return Poll::Pending;
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn frame(bytes: usize) -> Frame {
    Rpc {
        messages: vec![vec![7; bytes].into()],
        ..Rpc::default()
    }
    .encode()
}

/// What is reported once the reader has room for `room` more bytes.
fn report(outbound: &mut Outbound<Slow>, room: usize) -> Option<(usize, usize)> {
    outbound.stream.0 += room;
    match outbound.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(report) => Some(report.unwrap()),
        Poll::Pending => None,
    }
}

#[test]
fn parts_of_a_large_frame_are_reported_and_not_each_byte() {
    let mut outbound = Outbound::new(Slow(0), false);
    let frame = frame(100_000);
    outbound.frames.push_back(frame.clone());
    assert_eq!(report(&mut outbound, PROGRESS_BYTES - 1), None);
    assert_eq!(report(&mut outbound, 1), Some((0, PROGRESS_BYTES)));
    assert_eq!(report(&mut outbound, 0), None);
    assert_eq!(report(&mut outbound, 50_000), Some((0, 50_000)));
    let rest = frame.len() - PROGRESS_BYTES - 50_000;
    assert_eq!(report(&mut outbound, rest), Some((1, rest)));
    assert_eq!(report(&mut outbound, 1), None);
}

/// A handler of a connection with a peer.
fn handler() -> Handler {
    let limits = MemoryLimits {
        ids: 1,
        settled: Duration::from_secs(1),
        max_message_bytes: 1,
    };
    let validator = Validator::new(limits, [(); 2].map(|()| RandomState::new()));
    let peer = PeerId::random();
    let holder = Resources::default().holder(Some(peer), None);
    Handler::new(peer, Names(Vec::new()), validator, 1, holder)
}

#[test]
fn an_order_to_open_while_a_stream_is_being_opened_opens_no_other() {
    let mut handler = handler();
    let requests = |handler: &mut Handler| {
        let poll = handler.poll(&mut Context::from_waker(Waker::noop()));
        matches!(
            poll,
            Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { .. })
        )
    };
    handler.on_behaviour_event(ToHandler::Open { watch: true });
    assert!(requests(&mut handler));
    handler.on_behaviour_event(ToHandler::Open { watch: false });
    assert!(!requests(&mut handler));
    // The one that was being opened has failed.
    handler.lost();
    handler.on_behaviour_event(ToHandler::Open { watch: true });
    let report = handler.poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(
        report,
        Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(FromHandler::Lost))
    ));
    assert!(requests(&mut handler));
}
