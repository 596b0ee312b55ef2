//! Every protocol of this crate's tests that `libp2p-quic` has to agree with.

use futures::{
    AsyncReadExt, AsyncWriteExt, StreamExt, future::try_join_all, stream::FuturesUnordered,
};

use super::*;

/// Each way two nodes of either kind can meet.
async fn pairs() -> Vec<(&'static str, Node, StreamMuxerBox, Node, StreamMuxerBox)> {
    let mut pairs = Vec::new();
    for (name, mut dialer, mut listener) in [
        ("ours dials ours", Node::ours(), Node::ours()),
        ("ours dials stock", Node::ours(), Node::stock()),
        ("stock dials ours", Node::stock(), Node::ours()),
    ] {
        let address = listener.listen().await;
        let (dialled, accepted) = connect(&mut dialer, &mut listener, &address).await;
        pairs.push((name, dialer, dialled, listener, accepted));
    }
    pairs
}

#[tokio::test]
async fn bytes_arrive_in_both_directions() {
    let sent: Vec<u8> = (0..3_000_000_u32).map(|i| i.to_le_bytes()[1]).collect();
    for (name, _dialer, mut dialled, _listener, accepted) in pairs().await {
        let server = tokio::spawn(echo_all(accepted));
        let (mut reader, mut writer) = open(&mut dialled).await.expect("opens").split();
        let mut received = Vec::new();
        let (written, read) = within(async {
            futures::join!(
                async {
                    writer.write_all(&sent).await?;
                    writer.close().await
                },
                reader.read_to_end(&mut received),
            )
        })
        .await;
        written.expect(name);
        read.expect(name);
        assert!(received == sent, "{name}");
        drop((reader, writer, dialled));
        within(server)
            .await
            .expect("the server ends with its connection");
    }
}

#[tokio::test]
async fn a_stream_opened_by_the_listener() {
    for (name, _dialer, dialled, _listener, mut accepted) in pairs().await {
        let server = tokio::spawn(echo_all(dialled));
        let mut stream = open(&mut accepted).await.expect(name);
        stream.write_all(b"from the other side").await.expect(name);
        stream.close().await.expect(name);
        let mut received = Vec::new();
        within(stream.read_to_end(&mut received)).await.expect(name);
        assert_eq!(received, b"from the other side", "{name}");
        server.abort();
    }
}

/// One ping: 32 bytes there and back, as libp2p's ping protocol does it.
async fn ping(stream: &mut SubstreamBox, number: u8) -> io::Result<()> {
    let (sent, mut received) = ([number; 32], [0; 32]);
    stream.write_all(&sent).await?;
    stream.flush().await?;
    stream.read_exact(&mut received).await?;
    assert_eq!(sent, received);
    Ok(())
}

#[tokio::test]
async fn fifty_pings_on_one_stream_are_answered_at_once() {
    // A stall seen in other stacks takes 15 s for one ping, most of this for all fifty.
    let prompt = std::time::Duration::from_secs(5);
    for (name, _dialer, mut dialled, _listener, accepted) in pairs().await {
        let server = tokio::spawn(echo_all(accepted));
        let mut stream = open(&mut dialled).await.expect("opens");
        for number in 0..50 {
            let answered = tokio::time::timeout(prompt, ping(&mut stream, number)).await;
            answered
                .unwrap_or_else(|_| panic!("{name}: ping {number} stalls"))
                .expect(name);
        }
        server.abort();
    }
}

#[tokio::test]
async fn pings_on_many_streams_at_once() {
    for (name, _dialer, mut dialled, _listener, accepted) in pairs().await {
        let server = tokio::spawn(echo_all(accepted));
        let mut streams = Vec::new();
        for _ in 0..100 {
            streams.push(open(&mut dialled).await.expect(name));
        }
        let pinging = streams.into_iter().map(|mut stream| async move {
            for number in 0..20 {
                ping(&mut stream, number).await?;
            }
            io::Result::Ok(())
        });
        within(try_join_all(pinging)).await.expect(name);
        server.abort();
    }
}

#[tokio::test]
async fn five_hundred_streams_at_once() {
    // The stock transport allows a peer 256, so only nodes of this crate meet here.
    let (_dialer, _listener, mut dialled, accepted) = connected().await;
    let server = tokio::spawn(echo_all(accepted));
    let mut streams = Vec::new();
    for number in 0..500_u32 {
        let mut stream = open(&mut dialled).await.expect("opens");
        // The listener learns of a stream by its first bytes.
        stream
            .write_all(&number.to_be_bytes())
            .await
            .expect("writes");
        streams.push((number, stream));
    }
    let mut exchanges: FuturesUnordered<_> = streams
        .into_iter()
        .map(|(number, mut stream)| async move {
            stream.close().await?;
            let mut received = Vec::new();
            stream.read_to_end(&mut received).await?;
            assert_eq!(received, number.to_be_bytes());
            io::Result::Ok(())
        })
        .collect();
    let mut served = 0;
    while let Some(result) = within(exchanges.next()).await {
        result.expect("every stream is served");
        served += 1;
    }
    assert_eq!(served, 500);
    server.abort();
}

#[tokio::test]
async fn dials_that_have_to_prove_their_address_connect() {
    for (mut dialer, validate_above) in [(Node::ours(), 0), (Node::ours(), 4), (Node::stock(), 4)] {
        let keypair = Keypair::generate_ed25519();
        let transport = Transport::new(&keypair, &QuicConfig::default(), DEADLINE)
            .expect("builds")
            .validating_above(validate_above);
        let mut listener = Node::of(&keypair, transport);
        let address = listener.listen().await;
        let address = with_peer(&address, listener.peer);
        let dials = (0..20).map(|_| dialer.dial(&address, Endpoint::Dialer, PortUse::Reuse));
        let dials = try_join_all(dials.collect::<Vec<_>>());
        let accepts = async {
            let mut upgrades = FuturesUnordered::new();
            let mut accepted = Vec::new();
            while accepted.len() < 20 {
                tokio::select! {
                    event = listener.event() => {
                        if let TransportEvent::Incoming { upgrade, .. } = event {
                            upgrades.push(upgrade);
                        }
                    }
                    Some(done) = upgrades.next() => accepted.push(done.expect("accepts")),
                }
            }
            accepted
        };
        let (dialled, accepted) = within(async { futures::join!(dials, accepts) }).await;
        assert_eq!(dialled.expect("all connect").len(), accepted.len());
    }
}
