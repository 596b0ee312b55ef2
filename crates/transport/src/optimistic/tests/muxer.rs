//! Streams that are dropped before their answer.

use std::{convert::Infallible, task::ready};

use futures::{AsyncWriteExt as _, executor::block_on, future::poll_fn};
use libp2p_core::muxing::{StreamMuxer, StreamMuxerEvent, StreamMuxerExt as _};

use super::{
    super::{Optimistic, shared::MAX_PROTOCOLS},
    *,
};
use crate::pipe::pipe;

/// A muxer without streams.
#[derive(Debug, Default)]
struct Nothing {
    is_closed: bool,
}

impl StreamMuxer for Nothing {
    type Substream = Pipe;
    type Error = Infallible;

    fn poll_inbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<Pipe, Infallible>> {
        Poll::Pending
    }

    fn poll_outbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<Pipe, Infallible>> {
        Poll::Pending
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.is_closed = true;
        Poll::Ready(Ok(()))
    }

    fn poll(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, Infallible>> {
        Poll::Pending
    }
}

fn muxer() -> Optimistic<Nothing> {
    let muxer = Optimistic::new(Nothing::default());
    muxer.shared.confirm(LINE);
    muxer
}

fn poll(muxer: &mut Optimistic<Nothing>, woken: &Arc<Woken>) {
    let waker = Arc::clone(woken).into();
    assert!(
        muxer
            .poll_unpin(&mut Context::from_waker(&waker))
            .is_pending()
    );
}

/// Returns `true` if the near end was dropped.
fn is_dropped(far: &mut Pipe) -> bool {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut byte = [0];
    matches!(
        Pin::new(far).poll_read(&mut cx, &mut byte),
        Poll::Ready(Ok(0))
    )
}

#[test]
fn a_dropped_stream_is_dropped_after_its_answer() {
    let (mut muxer, woken) = (muxer(), Arc::<Woken>::default());
    poll(&mut muxer, &woken);
    let (near, mut far) = pipe(4096, &[4096]);
    let mut stream = block_on(early(near, &muxer.shared));
    block_on(stream.write_all(b"data")).unwrap();
    drop(stream);
    assert_eq!(woken.count(), 1, "the connection is woken");
    poll(&mut muxer, &woken);
    assert_eq!(arrived(&mut far), [&proposal()[..], b"data"].concat());

    for (at, byte) in proposal().into_iter().enumerate() {
        assert!(!is_dropped(&mut far), "after {at} bytes");
        let before = woken.count();
        block_on(answer(&mut far, &[byte]));
        assert!(woken.count() > before);
        poll(&mut muxer, &woken);
    }
    assert!(is_dropped(&mut far));
    assert!(muxer.dropped.is_none());
    assert!(muxer.shared.is_confirmed(LINE));
}

#[test]
fn a_stream_that_was_never_used_is_visible_to_the_peer() {
    let (mut muxer, woken) = (muxer(), Arc::<Woken>::default());
    let (near, mut far) = pipe(4096, &[4096]);
    drop(block_on(early(near, &muxer.shared)));
    poll(&mut muxer, &woken);
    assert_eq!(arrived(&mut far), proposal());
}

#[test]
fn a_stream_that_is_dropped_during_its_negotiation_is_dropped_at_once() {
    let (mut muxer, woken) = (muxer(), Arc::<Woken>::default());
    let (near, mut far) = pipe(4096, &[4096]);
    let mut stream = Stream::outbound(near, Arc::clone(&muxer.shared));
    block_on(stream.write_all(&proposal())).unwrap();
    drop(stream);
    poll(&mut muxer, &woken);
    assert!(is_dropped(&mut far));
    assert_eq!(muxer.shared.unanswered(), 0);
}

#[test]
fn a_refusal_of_a_dropped_stream_is_noted() {
    let (mut muxer, woken) = (muxer(), Arc::<Woken>::default());
    let (near, mut far) = pipe(4096, &[4096]);
    drop(block_on(early(near, &muxer.shared)));
    block_on(answer(&mut far, &[HEADER, b"\x03na\n"].concat()));
    poll(&mut muxer, &woken);
    assert!(muxer.dropped.is_none());
    assert!(!muxer.shared.is_confirmed(LINE));
}

#[test]
fn a_dropped_stream_without_an_answer_expires() {
    let (mut muxer, woken) = (muxer(), Arc::<Woken>::default());
    let (near, mut far) = pipe(4096, &[4096]);
    drop(block_on(early(near, &muxer.shared)));
    poll(&mut muxer, &woken);
    arrived(&mut far);
    let answers = muxer.dropped.as_mut().unwrap();
    answers.age();
    assert_eq!(
        answers.streams.len(),
        1,
        "it has not waited for a whole period"
    );
    answers.age();
    assert!(answers.streams.is_empty());
    assert!(is_dropped(&mut far));
    assert!(!muxer.shared.is_confirmed(LINE));
    assert_eq!(muxer.shared.unanswered(), 0);
}

#[test]
fn a_close_waits_for_answers() {
    let (mut muxer, woken) = (muxer(), Arc::<Woken>::default());
    let (near, mut far) = pipe(4096, &[4096]);
    drop(block_on(early(near, &muxer.shared)));
    let waker = Arc::clone(&woken).into();
    let mut cx = Context::from_waker(&waker);
    assert!(Pin::new(&mut muxer).poll_close(&mut cx).is_pending());
    assert!(!muxer.inner.is_closed);
    block_on(answer(&mut far, &proposal()));
    assert!(woken.count() > 0);
    assert!(Pin::new(&mut muxer).poll_close(&mut cx).is_ready());
    assert!(muxer.inner.is_closed);
}

#[test]
fn a_close_does_not_wait_for_ever() {
    let mut muxer = muxer();
    let (near, _far) = pipe(4096, &[4096]);
    drop(block_on(early(near, &muxer.shared)));
    block_on(poll_fn(|cx| {
        let _ = ready!(Pin::new(&mut muxer).poll_close(cx));
        Poll::Ready(())
    }));
    assert!(muxer.inner.is_closed);
}

#[test]
fn streams_that_outlive_the_connection_are_dropped_at_once() {
    let muxer = muxer();
    let shared = Arc::clone(&muxer.shared);
    let (near, mut far) = pipe(4096, &[4096]);
    let stream = block_on(early(near, &shared));
    drop(muxer);
    drop(stream);
    assert_eq!(arrived(&mut far), proposal());
    assert!(is_dropped(&mut far));
    assert_eq!(Arc::strong_count(&shared), 1);
}

#[test]
fn a_connection_notes_a_bounded_number_of_protocols() {
    let shared = Arc::<Shared<Pipe>>::default();
    let line = |at: usize| format!("\x05/{at:03}\n").into_bytes();
    for at in 0..=MAX_PROTOCOLS {
        shared.confirm(&line(at));
        shared.confirm(&line(at));
    }
    assert!((0..MAX_PROTOCOLS).all(|at| shared.is_confirmed(&line(at))));
    assert!(!shared.is_confirmed(&line(MAX_PROTOCOLS)));
    shared.withdraw(&line(0));
    shared.confirm(&line(MAX_PROTOCOLS));
    assert!(shared.is_confirmed(&line(MAX_PROTOCOLS)));
}
