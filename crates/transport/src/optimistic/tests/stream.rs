//! Streams over a pipe, with the negotiation of multistream-select on both sides.

use std::{io, sync::Arc, task::Waker, time::Duration};

use futures::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, executor::block_on, future::join,
};
use multistream_select::{Version, listener_select_proto};
use proptest::prelude::*;

use super::{
    super::{
        UnconfirmedProtocol,
        shared::{MAX_UNANSWERED, OVERDUE},
    },
    *,
};
use crate::pipe::pipe;

const ALL: &[usize] = &[4096];

/// A deadline that exceeds the duration of every test on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(20);

fn withdrawn() -> UnconfirmedProtocol {
    UnconfirmedProtocol::Withdrawn(NAME.to_owned())
}

/// Returns the cause of a failed operation.
fn cause(error: &io::Error) -> &UnconfirmedProtocol {
    error.get_ref().unwrap().downcast_ref().unwrap()
}

#[test]
fn the_first_stream_waits_and_the_second_does_not() {
    block_on(async {
        let shared = Arc::<Shared<_>>::default();
        let (near, far) = pipe(4096, ALL);
        let first = negotiate(Stream::outbound(near, Arc::clone(&shared)), Version::V1);
        let (first, listener) = join(first, listener_select_proto(far, [NAME])).await;
        assert!(shared.is_confirmed(LINE));
        let ((mut first, _), (_, mut far)) = ((first.unwrap(), ()), listener.unwrap());
        far.write_all(b"x").await.unwrap();
        first.read_exact(&mut [0]).await.unwrap();

        let (near, mut far) = pipe(4096, ALL);
        let mut second = early(near, &shared).await;
        assert_eq!(arrived(&mut far), proposal(), "sent without a wait");
        assert_eq!(second.write(b"data").await.unwrap(), 4);
        assert_eq!(arrived(&mut far), b"data");
        assert_eq!(shared.unanswered(), 1);
        answer(&mut far, &[&proposal()[..], b"reply"].concat()).await;
        let mut reply = [0; 9];
        assert_eq!(second.read(&mut reply).await.unwrap(), 5);
        assert_eq!(&reply[..5], b"reply");
        assert_eq!(shared.unanswered(), 0);
    });
}

#[test]
fn a_protocol_that_is_not_known_is_refused_at_opening() {
    block_on(async {
        let shared = Arc::<Shared<_>>::default();
        let (near, far) = pipe(4096, ALL);
        let dialer = negotiate(Stream::outbound(near, Arc::clone(&shared)), Version::V1);
        let (dialer, _) = join(dialer, listener_select_proto(far, ["/other"])).await;
        assert!(dialer.is_err());
        assert!(!shared.is_confirmed(LINE));
    });
}

#[test]
fn reading_first_sends_the_proposal() {
    block_on(async {
        let (near, mut far) = pipe(4096, ALL);
        let mut stream = early(near, &confirmed()).await;
        let peer = async {
            assert_eq!(received(&mut far, proposal().len()).await, proposal());
            answer(&mut far, &[&proposal()[..], b"x"].concat()).await;
        };
        let mut byte = [0];
        let (read, ()) = join(stream.read_exact(&mut byte), peer).await;
        read.unwrap();
        assert_eq!(&byte, b"x");
    });
}

#[test]
fn the_negotiation_sends_the_proposal_and_a_close_ends_the_stream_behind_it() {
    block_on(async {
        let (near, mut far) = pipe(4096, ALL);
        let _stream = early(near, &confirmed()).await;
        assert_eq!(arrived(&mut far), proposal(), "an unused stream is visible");

        let (near, mut far) = pipe(4096, ALL);
        let mut stream = early(near, &confirmed()).await;
        stream.close().await.unwrap();
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, proposal());
        // The other direction stays open.
        answer(&mut far, &[&proposal()[..], b"x"].concat()).await;
        stream.read_exact(&mut [0]).await.unwrap();
    });
}

#[test]
fn a_withdrawn_protocol_fails_the_stream_and_is_forgotten() {
    block_on(async {
        let shared = confirmed();
        let (near, mut far) = pipe(4096, ALL);
        let mut stream = early(near, &shared).await;
        stream.write_all(b"data").await.unwrap();
        answer(&mut far, &[HEADER, b"\x03na\n"].concat()).await;
        let error = stream.read(&mut [0; 9]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert_eq!(cause(&error), &withdrawn());
        assert!(error.to_string().contains(NAME), "{error}");
        for error in [
            stream.read(&mut [0; 9]).await.unwrap_err(),
            stream.write(b"more").await.unwrap_err(),
            stream.flush().await.unwrap_err(),
            stream.close().await.unwrap_err(),
        ] {
            assert_eq!(cause(&error), &withdrawn());
        }
        assert!(!shared.is_confirmed(LINE));
        assert_eq!(shared.unanswered(), 0);

        // The next one waits for the answer, and fails when it is opened.
        let (near, far) = pipe(4096, ALL);
        let dialer = negotiate(Stream::outbound(near, Arc::clone(&shared)), Version::V1);
        let (dialer, _) = join(dialer, listener_select_proto(far, ["/other"])).await;
        assert!(dialer.is_err());
    });
}

#[test]
fn other_answers_fail_the_stream_and_the_protocol_is_forgotten() {
    let name = || NAME.to_owned();
    let cases = [
        (
            &b"\x13/multistream/1.0.1\n"[..],
            UnconfirmedProtocol::Invalid(name()),
        ),
        (
            b"\x13/multistream/1.0.0\n\x08/test/2\n",
            UnconfirmedProtocol::Invalid(name()),
        ),
        (
            b"\x13/multistream/1.0.0\n\x08/test",
            UnconfirmedProtocol::Ended(name()),
        ),
        (b"", UnconfirmedProtocol::Ended(name())),
    ];
    block_on(async {
        for (bytes, expected) in cases {
            let shared = confirmed();
            let (near, mut far) = pipe(4096, ALL);
            let mut stream = early(near, &shared).await;
            answer(&mut far, bytes).await;
            far.close().await.unwrap();
            let error = stream.read(&mut [0; 9]).await.unwrap_err();
            assert_eq!(cause(&error), &expected);
            assert!(!shared.is_confirmed(LINE));
        }
    });
}

#[test]
fn a_refusal_of_a_stream_that_waited_is_noted() {
    block_on(async {
        let shared = Arc::<Shared<_>>::default();
        let (near, far) = pipe(4096, ALL);
        let mut stream = Stream::outbound(near, Arc::clone(&shared));
        stream.write_all(&proposal()).await.unwrap();
        // Another stream is confirmed meanwhile.
        shared.confirm(LINE);
        let dialer = async {
            let mut answer = vec![0; HEADER.len() + 4];
            stream.read_exact(&mut answer).await.unwrap();
        };
        let listener = listener_select_proto(far, ["/other"]);
        let dialer = async {
            dialer.await;
        };
        futures::pin_mut!(listener);
        let _ = futures::future::select(Box::pin(dialer), listener).await;
        assert!(!shared.is_confirmed(LINE));
    });
}

/// A stream below that takes the proposal and no data, and wakes nobody.
struct Stuck {
    room: usize,
    answer: Vec<u8>,
}

impl AsyncRead for Stuck {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.answer.is_empty() {
            return Poll::Pending;
        }
        let count = out.len().min(self.answer.len());
        let bytes: Vec<u8> = self.answer.drain(..count).collect();
        out[..count].copy_from_slice(&bytes);
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Stuck {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.room == 0 {
            return Poll::Pending;
        }
        let count = data.len().min(self.room);
        self.room -= count;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_writer_that_waits_is_woken_when_the_stream_fails() {
    let shared = Arc::<Shared<Stuck>>::default();
    shared.confirm(LINE);
    let below = Stuck {
        room: proposal().len(),
        answer: Vec::new(),
    };
    let mut stream = Stream::outbound(below, Arc::clone(&shared));
    let (reader, writer) = (Arc::<Woken>::default(), Arc::<Woken>::default());
    let (read, write) = (
        Waker::from(Arc::clone(&reader)),
        Waker::from(Arc::clone(&writer)),
    );
    let write_to = |stream: &mut Stream<Stuck>, data: &[u8]| {
        Pin::new(stream).poll_write(&mut Context::from_waker(&write), data)
    };
    let read_from = |stream: &mut Stream<Stuck>, bytes: &mut [u8]| {
        Pin::new(stream).poll_read(&mut Context::from_waker(&read), bytes)
    };
    assert!(write_to(&mut stream, &proposal()).is_ready());
    let mut local = proposal();
    assert!(read_from(&mut stream, &mut local).is_ready());
    assert!(write_to(&mut stream, b"ab").is_pending());
    assert!(read_from(&mut stream, &mut [0]).is_pending());
    // A reader that has sent the proposal wakes the writer, which waits again.
    assert!(write_to(&mut stream, b"ab").is_pending());
    let before = writer.count();
    if let Some(below) = stream.below() {
        below.answer = [HEADER, b"\x03na\n"].concat();
    }
    let error = read_from(&mut stream, &mut [0]);
    assert!(matches!(error, Poll::Ready(Err(_))));
    assert!(writer.count() > before, "the writer is woken");
    let error = write_to(&mut stream, b"ab");
    assert!(matches!(error, Poll::Ready(Err(_))));
}

#[test]
fn a_reader_that_sends_the_proposal_does_not_take_the_waker_of_the_writer() {
    let (near, mut far) = pipe(5, ALL);
    // A dialer that does not flush its proposal.
    let mut stream = Stream::outbound(near, confirmed());
    block_on(stream.write_all(&proposal())).unwrap();
    block_on(stream.read_exact(&mut proposal())).unwrap();
    let (reader, writer) = (Arc::<Woken>::default(), Arc::<Woken>::default());
    let (read, write) = (
        Waker::from(Arc::clone(&reader)),
        Waker::from(Arc::clone(&writer)),
    );
    let mut byte = [0];
    let written = Pin::new(&mut stream).poll_write(&mut Context::from_waker(&write), b"data");
    assert!(written.is_pending());
    let was_read = Pin::new(&mut stream).poll_read(&mut Context::from_waker(&read), &mut byte);
    assert!(was_read.is_pending());
    let before = (reader.count(), writer.count());
    assert_eq!(arrived(&mut far), proposal()[..5]);
    assert!(reader.count() > before.0, "the reader is woken");
    assert!(writer.count() > before.1, "the writer is woken");
}

#[test]
fn further_streams_wait_while_an_answer_is_missing_for_long() {
    block_on(async {
        let shared = confirmed();
        // With nothing missing the time of the last answer is of no account.
        shared.owe_for(2 * OVERDUE);
        let (near, mut far) = pipe(4096, ALL);
        let mut stream = early(near, &shared).await;
        assert!(shared.expect(LINE).is_some());
        shared.owe_for(2 * OVERDUE);
        assert!(shared.expect(LINE).is_none());
        answer(&mut far, &[&proposal()[..], b"x"].concat()).await;
        stream.read_exact(&mut [0]).await.unwrap();
        assert!(shared.expect(LINE).is_some());
    });
}

#[test]
fn a_stream_that_is_given_up_before_the_answer_makes_others_wait() {
    let shared = confirmed();
    let (near, _far) = pipe(4096, ALL);
    // Many answers are missing, so that this one waits.
    let permits: Vec<_> = (0..MAX_UNANSWERED).map(|_| shared.expect(LINE)).collect();
    let mut stream = Stream::outbound(near, Arc::clone(&shared));
    block_on(stream.write_all(&proposal())).unwrap();
    drop(permits);
    assert!(shared.is_confirmed(LINE));
    drop(stream);
    assert!(!shared.is_confirmed(LINE));
}

#[test]
fn further_streams_wait_while_many_answers_are_missing() {
    block_on(async {
        let shared = confirmed();
        let mut streams = Vec::new();
        for _ in 0..MAX_UNANSWERED {
            let (near, far) = pipe(4096, ALL);
            streams.push((early(near, &shared).await, far));
        }
        let (near, mut far) = pipe(4096, ALL);
        let mut stream = Stream::outbound(near, Arc::clone(&shared));
        stream.write_all(&proposal()).await.unwrap();
        assert_eq!(arrived(&mut far), proposal());
        streams.clear();
        // They wait for their answers in place of their users.
        assert_eq!(shared.unanswered(), MAX_UNANSWERED);
        shared.end();
        assert_eq!(shared.unanswered(), 0);
    });
}

#[test]
fn other_first_writes_pass_unchanged() {
    block_on(async {
        let two = [&proposal()[..], b"\x08/test/2\n"].concat();
        for first in [&b"x"[..], &proposal()[..9], &two] {
            let (near, mut far) = pipe(4096, ALL);
            let mut stream = Stream::outbound(near, confirmed());
            stream.write_all(first).await.unwrap();
            stream.write_all(&proposal()).await.unwrap();
            assert_eq!(arrived(&mut far), [first, &proposal()].concat());
            answer(&mut far, b"anything").await;
            assert_eq!(received_by(&mut stream, 8).await, b"anything");
        }
        // Inbound streams never propose.
        let (near, mut far) = pipe(4096, ALL);
        let mut stream = Stream::inbound(near);
        stream.write_all(&proposal()).await.unwrap();
        assert_eq!(arrived(&mut far), proposal());
    });
}

async fn received_by(stream: &mut (impl AsyncRead + Unpin), length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.unwrap();
    bytes
}

/// Sends `data` and reads it back, with a task for each direction.
async fn echo<S>(stream: S, data: Vec<u8>) -> Vec<u8>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut read, mut write) = stream.split();
    let sent = data.clone();
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.close().await.unwrap();
    });
    let mut echoed = Vec::new();
    read.read_to_end(&mut echoed).await.unwrap();
    writer.await.unwrap();
    echoed
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// A listener that answers in pieces of any length, over a pipe that accepts pieces of any
    /// length, echoes all data to a stream that two tasks use.
    #[test]
    fn data_are_echoed_whatever_the_pieces_are(
        steps in prop::collection::vec(1_usize..80, 1..6),
        // Both sides send their header before they read what follows that of the other side.
        capacity in 29_usize..200,
        length in 0_usize..3_000,
        lazy: bool,
        is_confirmed: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let transferred = async {
            let shared = if is_confirmed { confirmed() } else { Arc::default() };
            // The swarm does not use `V1Lazy`: with it only a pipe that never waits is tested.
            let capacity = if lazy { capacity + 4096 } else { capacity };
            let steps = if lazy { ALL.to_vec() } else { steps };
            let (near, far) = pipe(capacity, &steps);
            let version = if lazy { Version::V1Lazy } else { Version::V1 };
            let data: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let peer = tokio::spawn(async move {
                let (_, far) = listener_select_proto(far, [NAME]).await.unwrap();
                let (mut read, mut write) = far.split();
                futures::io::copy(&mut read, &mut write).await.unwrap();
                write.close().await.unwrap();
                write
            });
            let stream = Stream::outbound(near, Arc::clone(&shared));
            let stream = negotiate(stream, version).await.unwrap();
            let echoed = echo(stream, data.clone()).await;
            drop(peer.await.unwrap());
            assert!(echoed == data);
            assert_eq!(shared.unanswered(), 0);
            assert!(shared.is_confirmed(LINE));
        };
        let in_time = async { tokio::time::timeout(DEADLINE, transferred).await.is_ok() };
        assert!(runtime.unwrap().block_on(in_time), "a task was not woken");
    }
}
