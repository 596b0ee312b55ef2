//! Data that is received and not read.

use calimero_network_primitives::resources::{Protection, Scope};

use super::*;

/// Resources in which one peer may hold 1 MiB unread, as all peers together.
fn one_mebibyte() -> Resources {
    let mut limits = Limits::default();
    limits.update(Resource::UnreadBytes, |_| Limit {
        node: 1 << 20,
        reserve: 0,
        origin: 1 << 20,
        peer: 1 << 20,
    });
    Resources::new(limits)
}

/// Drives the muxer until `is_done`, and accepts streams.
async fn accept_until(
    muxer: &mut Muxer<Pipe>,
    streams: &mut Vec<Stream>,
    is_done: impl Fn(&[Stream]) -> bool,
) {
    let driven = poll_fn(|cx| {
        while let Poll::Ready(stream) = Pin::new(&mut *muxer).poll_inbound(cx) {
            streams.push(stream.unwrap());
        }
        if is_done(streams) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    tokio::time::timeout(Duration::from_secs(60), driven)
        .await
        .unwrap();
}

fn is_reset(stream: &Stream) -> bool {
    stream.is_reset_for_unread_data()
}

#[tokio::test]
async fn streams_that_are_not_read_are_reset_at_the_limit() {
    let resources = one_mebibyte();
    let (mut raw, mut muxer) = muxer_of(&YamuxTuning::default(), &resources);
    // Six initial windows, of which four fit.
    for nth in 0..6 {
        raw.data(SYN, 2 * nth + 1, &vec![1; INITIAL_WINDOW as usize])
            .await;
    }
    let mut streams = Vec::new();
    accept_until(&mut muxer, &mut streams, |streams| {
        assert!(resources.used(Resource::UnreadBytes) <= 1 << 20);
        streams.len() == 6 && streams.iter().filter(|stream| is_reset(stream)).count() == 2
    })
    .await;
    // The rest is received and can be read.
    let mut read_bytes = 0;
    for stream in streams.iter_mut().filter(|stream| !is_reset(stream)) {
        drive(&mut muxer, read(stream, INITIAL_WINDOW as usize)).await;
        read_bytes += INITIAL_WINDOW as usize;
    }
    assert_eq!((streams.len(), read_bytes), (6, 4 << 18));
    let reset = streams.iter_mut().find(|stream| is_reset(stream)).unwrap();
    let error = reset.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    // The data of the streams that were reset is freed.
    assert_eq!(resources.used(Resource::UnreadBytes), 0);
}

/// A frame of one byte takes about 90 times as much memory.
#[tokio::test]
async fn short_frames_count_with_the_memory_that_they_take() {
    let resources = one_mebibyte();
    let (mut raw, mut muxer) = muxer_of(&YamuxTuning::default(), &resources);
    raw.data(SYN, 1, b"a").await;
    for _ in 0..20_000 {
        raw.data(0, 1, b"a").await;
    }
    raw.data(SYN, 3, b"the next stream").await;
    let mut streams = Vec::new();
    accept_until(&mut muxer, &mut streams, |streams| streams.len() == 2).await;
    assert!(is_reset(&streams[0]));
    drive(&mut muxer, read(&mut streams[1], 15)).await;
    assert_eq!(muxer.unread().held(), 0);
}

#[tokio::test]
async fn a_reader_that_goes_on_receives_everything() {
    let resources = one_mebibyte();
    let (mut raw, mut muxer) = muxer_of(&YamuxTuning::default(), &resources);
    for nth in 0..12 {
        raw.data(SYN, 2 * nth + 1, &vec![1; INITIAL_WINDOW as usize])
            .await;
    }
    let mut streams = Vec::new();
    for nth in 0..12 {
        if streams.len() <= nth {
            accept_until(&mut muxer, &mut streams, |streams| streams.len() > nth).await;
        }
        drive(&mut muxer, read(&mut streams[nth], INITIAL_WINDOW as usize)).await;
    }
    assert!(!streams.iter().any(is_reset));
    assert_eq!(resources.snapshot()[Resource::UnreadBytes as usize].used, 0);
}

/// Polls the muxer until `is_done`.
async fn drive_until(muxer: &mut Muxer<Pipe>, is_done: impl Fn(&Muxer<Pipe>) -> bool) {
    let driven = poll_fn(|cx| {
        assert!(Pin::new(&mut *muxer).poll(cx).is_pending());
        if is_done(muxer) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    tokio::time::timeout(Duration::from_secs(60), driven)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_dropped_stream_holds_nothing() {
    let resources = one_mebibyte();
    let (mut raw, mut muxer) = muxer_of(&YamuxTuning::default(), &resources);
    raw.data(SYN, 1, &vec![1; INITIAL_WINDOW as usize]).await;
    let mut streams = Vec::new();
    accept_until(&mut muxer, &mut streams, |_| {
        resources.used(Resource::UnreadBytes) > 0
    })
    .await;
    streams.clear();
    drive_until(&mut muxer, |muxer| muxer.unread().held() == 0).await;
    assert_eq!(resources.used(Resource::UnreadBytes), 0);
    // What still arrives for it is not counted.
    raw.data(0, 1, &[1; 100]).await;
    raw.data(SYN, 3, b"hello").await;
    accept_until(&mut muxer, &mut streams, |streams| streams.len() == 1).await;
    drive(&mut muxer, read(&mut streams[0], 5)).await;
    assert_eq!((muxer.unread().held(), muxer.unread().streams()), (0, 1));
}

/// Nothing else wakes the task of the connection.
#[tokio::test]
async fn a_dropped_stream_is_reset_at_once() {
    let (mut raw, mut muxer) = muxer(&YamuxTuning::default());
    raw.data(SYN, 1, b"hello").await;
    let stream = inbound(&mut muxer).await;
    let dropping = async {
        tokio::task::yield_now().await;
        drop(stream);
        loop {
            let header = raw.header().await;
            if header.flags & RST != 0 {
                return header.stream;
            }
        }
    };
    assert_eq!(drive(&mut muxer, dropping).await, 1);
}

/// The `yamux` crate frees the data of a stream when it can write that the stream is reset.
#[tokio::test]
async fn a_dropped_stream_counts_until_its_data_is_freed() {
    let capacity = 4096;
    let connections = Arc::default();
    let (config, resources) = (YamuxTuning::default(), Resources::default());
    let (mut raw, mut muxer) = muxer_among(&config, &resources, capacity, &connections);
    raw.data(SYN, 1, b"!").await;
    let mut full = inbound(&mut muxer).await;
    // The peer reads nothing, so that writing waits.
    let written = poll_fn(|cx| {
        assert!(Pin::new(&mut muxer).poll(cx).is_pending());
        let mut total = 0;
        while let Poll::Ready(count) =
            futures::AsyncWrite::poll_write(Pin::new(&mut full), cx, &[1; 1024])
        {
            total += count.unwrap();
        }
        Poll::Ready(total)
    });
    let written = written.await;
    assert!(written > 2 * capacity);
    let mut streams = Vec::new();
    let held = |muxer: &Muxer<Pipe>| muxer.unread().held();
    let before = held(&muxer);
    raw.data(SYN, 3, &[1; 1000]).await;
    accept_until(&mut muxer, &mut streams, |streams| streams.len() == 1).await;
    let with_stream = held(&muxer);
    assert!(with_stream >= before + 1000);
    streams.clear();
    // As is what arrives for it until then.
    raw.data(0, 3, &[1; 1000]).await;
    drive_until(&mut muxer, |muxer| held(muxer) >= with_stream + 1000).await;
    // The peer reads everything.
    let reading = async {
        let (mut bytes, mut is_reset) = (0, false);
        while bytes < written || !is_reset {
            let header = raw.header().await;
            is_reset |= header.stream == 3 && header.flags & RST != 0;
            if header.kind == DATA && header.stream == 1 {
                bytes += header.length as usize;
            }
        }
    };
    drive(&mut muxer, reading).await;
    drive_until(&mut muxer, |muxer| held(muxer) == before).await;
}

/// A reset makes no stream, whatever else its frame says.
#[tokio::test]
async fn frames_that_reset_streams_hold_nothing() {
    let (mut raw, mut muxer) = muxer(&YamuxTuning::default());
    for nth in 0..10_000 {
        let kind = [DATA, WINDOW_UPDATE][nth as usize % 2];
        raw.send(kind, SYN | RST, 2 * nth + 1, 0, &[]).await;
    }
    raw.data(SYN, 20_001, b"a").await;
    raw.data(RST, 20_001, &[1; 1000]).await;
    raw.data(SYN, 20_003, b"hello").await;
    let mut streams = Vec::new();
    accept_until(&mut muxer, &mut streams, |streams| streams.len() == 2).await;
    drive(&mut muxer, read(&mut streams[1], 5)).await;
    assert_eq!(muxer.unread().streams(), 2);
    drive(&mut muxer, read(&mut streams[0], 1)).await;
    assert_eq!(muxer.unread().held(), 0);
}

#[tokio::test]
async fn a_connection_that_holds_nothing_receives_whatever_others_hold() {
    let resources = one_mebibyte();
    let others = resources.holder(None, None);
    let _all = others.take(Resource::UnreadBytes, 1 << 20).unwrap();
    let (mut raw, mut muxer) = muxer_of(&YamuxTuning::default(), &resources);
    raw.data(SYN, 1, &[1; 64 * 1024]).await;
    let mut stream = inbound(&mut muxer).await;
    drive(&mut muxer, read(&mut stream, 64 * 1024)).await;
}

/// The peer that holds most loses a stream, and not the one that meets the limit of the node.
#[tokio::test]
async fn the_stream_of_the_connection_that_holds_most_is_reset() {
    let resources = one_mebibyte();
    let boot = PeerId::random();
    resources.protect(boot, Protection::BootNode);
    let connections = Arc::default();
    let holder = resources.holder(Some(boot), None);
    let protected = Unread::new(holder, &connections);
    assert!(connections.largest(Scope::Node, false).is_none());
    assert!(connections.largest(Scope::Node, true).is_some());
    drop(protected);
    let config = YamuxTuning::default();
    let muxer = || muxer_among(&config, &resources, 64 * 1024 * 1024, &connections);
    let ((mut greedy_raw, mut greedy), (mut raw, mut modest)) = (muxer(), muxer());
    let (mut held, mut streams) = (Vec::new(), Vec::new());
    for nth in 0..4 {
        let data = vec![1; INITIAL_WINDOW as usize];
        greedy_raw.data(SYN, 2 * nth + 1, &data).await;
    }
    accept_until(&mut greedy, &mut held, |held| held.len() == 4).await;
    for nth in 0..4 {
        raw.data(SYN, 2 * nth + 1, &[1; 128 * 1024]).await;
    }
    let both = poll_fn(|cx| {
        // What is reset is freed by the task of its connection.
        assert!(Pin::new(&mut greedy).poll(cx).is_pending());
        while let Poll::Ready(stream) = Pin::new(&mut modest).poll_inbound(cx) {
            streams.push(stream.unwrap());
        }
        if streams.len() == 4 {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    tokio::time::timeout(Duration::from_secs(60), both)
        .await
        .unwrap();
    assert!(held.iter().any(is_reset));
    assert!(!streams.iter().any(is_reset));
    for stream in &mut streams {
        drive(&mut modest, read(stream, 128 * 1024)).await;
    }
}

/// The peer may use the number of a stream that was reset again.
#[tokio::test]
async fn the_handle_of_a_reset_stream_is_not_that_of_its_successor() {
    let (mut raw, mut muxer) = muxer(&YamuxTuning::default());
    raw.data(SYN, 1, b"hello").await;
    let first = inbound(&mut muxer).await;
    assert!(muxer.unread().relieve(Scope::Node));
    drive_until(&mut muxer, |muxer| muxer.unread().streams() == 0).await;
    raw.data(SYN, 1, b"again").await;
    let mut second = inbound(&mut muxer).await;
    drop(first);
    drive_until(&mut muxer, |_| true).await;
    assert_eq!(muxer.unread().streams(), 1);
    drive(&mut muxer, read(&mut second, 5)).await;
    assert_eq!(muxer.unread().held(), 0);
}

#[tokio::test]
async fn a_stream_that_this_side_opened_is_counted() {
    let resources = one_mebibyte();
    let (mut raw, mut muxer) = muxer_of(&YamuxTuning::default(), &resources);
    let mut stream = poll_fn(|cx| Pin::new(&mut muxer).poll_outbound(cx))
        .await
        .unwrap();
    drive(&mut muxer, stream.write_all(b"!")).await.unwrap();
    raw.data(ACK, 2, &vec![1; INITIAL_WINDOW as usize]).await;
    let counted = poll_fn(|cx| {
        assert!(Pin::new(&mut muxer).poll(cx).is_pending());
        if resources.used(Resource::UnreadBytes) == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    });
    tokio::time::timeout(Duration::from_secs(60), counted)
        .await
        .unwrap();
    drive(&mut muxer, read(&mut stream, INITIAL_WINDOW as usize)).await;
    assert_eq!(muxer.unread().held(), 0);
}

/// The swarm takes no streams while it negotiates many.
#[tokio::test]
async fn streams_that_wait_for_the_swarm_are_limited() {
    let (mut raw, mut muxer) = muxer(&YamuxTuning::default());
    for nth in 0..300 {
        raw.data(SYN, 2 * nth + 1, b"hello").await;
    }
    let refused = async {
        let mut refused = Vec::new();
        while refused.len() < 44 {
            let header = raw.header().await;
            if header.flags & RST != 0 {
                refused.push(header.stream);
            }
        }
        refused
    };
    let refused = drive(&mut muxer, refused).await;
    assert!(refused.iter().all(|stream| *stream > 2 * 256));
    let mut streams = Vec::new();
    accept_until(&mut muxer, &mut streams, |streams| streams.len() == 256).await;
    // The answer shows that the muxer has handled all that was sent before.
    raw.send(PING, SYN, 0, 7, &[]).await;
    let answered = async { while raw.header().await.kind != PING {} };
    drive(&mut muxer, answered).await;
    let next = poll_fn(|cx| Poll::Ready(Pin::new(&mut muxer).poll_inbound(cx).is_ready()));
    assert!(!next.await, "a refused stream was accepted");
}
