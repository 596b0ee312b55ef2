//! How the two directions of a stream end.

use std::io::ErrorKind;

use super::*;

/// A stream, from both ends. Only bytes make it known to the other side, so one is sent.
async fn stream(
    dialled: &mut StreamMuxerBox,
    accepted: &mut StreamMuxerBox,
) -> (SubstreamBox, SubstreamBox) {
    let mut near = open(dialled).await.expect("opens");
    near.write_all(&[1]).await.expect("writes");
    let mut far = next_inbound(accepted).await.expect("arrives");
    within(far.read_exact(&mut [0])).await.expect("reads");
    (near, far)
}

#[tokio::test]
async fn a_closed_direction_leaves_the_other_open() {
    let (_a, _b, mut dialled, mut accepted) = connected().await;
    let (mut near, mut far) = stream(&mut dialled, &mut accepted).await;
    near.write_all(b"last words").await.expect("writes");
    near.close().await.expect("closes");
    near.close().await.expect("closing twice is closing once");
    let mut received = Vec::new();
    within(far.read_to_end(&mut received))
        .await
        .expect("a clean end");
    assert_eq!(received, b"last words");
    assert!(
        near.write_all(b"more").await.is_err(),
        "nothing follows the end"
    );

    far.write_all(b"an answer").await.expect("writes");
    far.close().await.expect("closes");
    let mut received = Vec::new();
    within(near.read_to_end(&mut received))
        .await
        .expect("a clean end");
    assert_eq!(received, b"an answer");
}

#[tokio::test]
async fn a_stream_dropped_without_close_is_reset_in_both_directions() {
    let (_a, _b, mut dialled, mut accepted) = connected().await;
    let (near, mut far) = stream(&mut dialled, &mut accepted).await;
    drop(near);
    let error = within(far.read(&mut [0; 8]))
        .await
        .expect_err("not a clean end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let writes = async {
        loop {
            if let Err(error) = far.write_all(&[0; 1024]).await {
                return error;
            }
            tokio::task::yield_now().await;
        }
    };
    let error = within(writes).await;
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    // The connection is as it was.
    stream(&mut dialled, &mut accepted).await;
}

/// As libp2p-kad gives up its answers.
#[tokio::test]
async fn an_answer_to_what_was_read_to_its_end_arrives_although_the_stream_is_dropped() {
    let (_a, _b, mut dialled, mut accepted) = connected().await;
    let (mut near, mut far) = stream(&mut dialled, &mut accepted).await;
    near.write_all(b"a question").await.expect("writes");
    near.close().await.expect("closes");
    within(far.read_to_end(&mut Vec::new()))
        .await
        .expect("a clean end");
    far.write_all(b"an answer").await.expect("writes");
    drop(far);
    let mut received = Vec::new();
    within(near.read_to_end(&mut received))
        .await
        .expect("a clean end");
    assert_eq!(received, b"an answer");
}

#[tokio::test]
async fn what_was_closed_arrives_although_the_stream_is_dropped() {
    let (_a, _b, mut dialled, mut accepted) = connected().await;
    let (mut near, mut far) = stream(&mut dialled, &mut accepted).await;
    let sent = vec![7; 1 << 20];
    near.write_all(&sent).await.expect("writes");
    near.close().await.expect("closes");
    drop(near);
    let mut received = Vec::new();
    within(far.read_to_end(&mut received))
        .await
        .expect("a clean end");
    assert!(received == sent);
}

#[tokio::test]
async fn a_writer_waits_for_the_reader() {
    let (_a, _b, mut dialled, mut accepted) = connected().await;
    let (mut near, mut far) = stream(&mut dialled, &mut accepted).await;
    let window = u64::from(QuicConfig::default().tuning.stream_window_bytes);
    let sent = 4 * window;
    let writer = tokio::spawn(async move {
        let block = vec![0; 64 << 10];
        let mut left = sent;
        while left > 0 {
            near.write_all(&block).await?;
            left -= block.len() as u64;
        }
        near.close().await
    });
    // Not read, the writer gets no further than both sides' windows; then it goes on.
    let mut other = open(&mut dialled)
        .await
        .expect("another stream is not held up");
    other.write_all(&[1]).await.expect("writes");
    let mut inbound = next_inbound(&mut accepted).await.expect("arrives");
    within(inbound.read_exact(&mut [0])).await.expect("reads");
    assert!(!writer.is_finished(), "four windows of data fit into one");
    let mut received = 0;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match within(far.read(&mut buffer)).await.expect("reads") {
            0 => break,
            length => received += length as u64,
        }
    }
    assert_eq!(received, sent);
    within(writer).await.expect("no panic").expect("writes");
}

#[tokio::test]
async fn as_many_streams_as_configured_are_open_at_once_and_no_more() {
    const STREAMS: u32 = 700;
    let config = QuicConfig {
        tuning: QuicTuning {
            max_streams: STREAMS,
            ..QuicTuning::default()
        },
        ..QuicConfig::default()
    };
    let keypair = Keypair::generate_ed25519();
    let (mut dialer, mut listener) = (Node::ours(), Node::configured(&keypair, &config, DEADLINE));
    let address = listener.listen().await;
    let (mut dialled, mut accepted) = connect(&mut dialer, &mut listener, &address).await;
    let opening = async {
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            let mut stream = open(&mut dialled).await.expect("opens");
            stream.write_all(&[1]).await.expect("writes");
            streams.push(stream);
        }
        streams
    };
    let accepting = async {
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            streams.push(next_inbound(&mut accepted).await.expect("arrives"));
        }
        streams
    };
    let (mut near, far) = futures::future::join(opening, accepting).await;
    let more = poll_fn(|cx| Pin::new(&mut dialled).poll_outbound(cx));
    let mut more = std::pin::pin!(more);
    assert!(
        futures::poll!(&mut more).is_pending(),
        "one stream too many"
    );
    near.clear();
    drop(far);
    within(more).await.expect("opens");
}
