//! Data that is received and not read.

use futures::future::select;

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
    assert_eq!(muxer.unread_bytes(), 0);
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
    assert_eq!(muxer.unread_bytes(), 0);
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
    assert_eq!(muxer.unread_bytes(), 0);
    assert_eq!(resources.used(Resource::UnreadBytes), 0);
    // What still arrives for it is not counted.
    raw.data(0, 1, &[1; 100]).await;
    raw.data(SYN, 3, b"hello").await;
    accept_until(&mut muxer, &mut streams, |streams| streams.len() == 1).await;
    drive(&mut muxer, read(&mut streams[0], 5)).await;
    assert_eq!(muxer.unread_bytes(), 0);
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
    assert_eq!(muxer.unread_bytes(), 0);
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
    let next = poll_fn(|cx| Pin::new(&mut muxer).poll_inbound(cx));
    let quiet = tokio::time::sleep(Duration::from_millis(50));
    futures::pin_mut!(next, quiet);
    let more = matches!(select(next, quiet).await, futures::future::Either::Left(_));
    assert!(!more, "a refused stream was accepted");
}
