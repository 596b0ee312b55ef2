//! Streams whose protocol the peer has confirmed before, over TCP and QUIC.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod common;

use std::{future::poll_fn, io, task::Poll};

use calimero_network_primitives::config::TransportConfig;
use calimero_network_transport::{UnconfirmedProtocol, build};
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p_core::muxing::{StreamMuxerBox, StreamMuxerExt as _, SubstreamBox};
use libp2p_identity::Keypair;
use multistream_select::{
    Negotiated, NegotiationError, Version, dialer_select_proto, listener_select_proto,
};
use tokio::sync::{mpsc, oneshot};

use self::common::{any_address, connect, listen, with_peer, within};

const ADDRESSES: [&str; 2] = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"];
const NAME: &str = "/test/1";
const PROPOSAL: &[u8] = b"\x13/multistream/1.0.0\n\x08/test/1\n";
const REFUSAL: &[u8] = b"\x13/multistream/1.0.0\n\x03na\n";

type Stream = Negotiated<SubstreamBox>;

/// A connection that a task polls, as a swarm does.
struct Connection {
    open: mpsc::Sender<oneshot::Sender<SubstreamBox>>,
    inbound: mpsc::Receiver<SubstreamBox>,
}

impl Connection {
    fn new(mut muxer: StreamMuxerBox) -> Self {
        let (open, mut opening) = mpsc::channel::<oneshot::Sender<SubstreamBox>>(1);
        let (accepted, inbound) = mpsc::channel(256);
        tokio::spawn(async move {
            let mut waiting = None;
            poll_fn(|cx| {
                loop {
                    if waiting.is_none() {
                        match opening.poll_recv(cx) {
                            Poll::Ready(Some(reply)) => waiting = Some(reply),
                            Poll::Ready(None) => return Poll::Ready(()),
                            Poll::Pending => {}
                        }
                    }
                    if waiting.is_some()
                        && let Poll::Ready(stream) = muxer.poll_outbound_unpin(cx)
                    {
                        let _ = waiting.take().unwrap().send(stream.unwrap());
                        continue;
                    }
                    match muxer.poll_inbound_unpin(cx) {
                        Poll::Ready(Ok(stream)) => accepted.try_send(stream).unwrap(),
                        Poll::Ready(Err(_)) => return Poll::Ready(()),
                        Poll::Pending => break,
                    }
                }
                match muxer.poll_unpin(cx) {
                    Poll::Ready(Err(_)) => Poll::Ready(()),
                    _ => Poll::Pending,
                }
            })
            .await;
        });
        Self { open, inbound }
    }

    /// Opens a stream without a protocol.
    async fn raw(&self) -> SubstreamBox {
        let (reply, stream) = oneshot::channel();
        self.open.send(reply).await.unwrap();
        stream.await.unwrap()
    }

    /// Opens a stream of [`NAME`] as libp2p-swarm does.
    async fn open(&self) -> Result<Stream, NegotiationError> {
        let (_, stream) = dialer_select_proto(self.raw().await, [NAME], Version::V1).await?;
        Ok(stream)
    }

    async fn accept_raw(&mut self) -> SubstreamBox {
        self.inbound.recv().await.unwrap()
    }

    /// Accepts a stream of [`NAME`].
    async fn accept(&mut self) -> Stream {
        let stream = self.accept_raw().await;
        listener_select_proto(stream, [NAME]).await.unwrap().1
    }
}

/// Connects two nodes and confirms [`NAME`] on a first stream.
async fn confirmed(address: &str) -> (Connection, Connection) {
    let (a, b) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let config = TransportConfig::default();
    let mut dialler = build(&a, &config, any_address()).unwrap().boxed;
    let mut listener = build(&b, &config, any_address()).unwrap().boxed;
    let address = listen(&mut listener, address).await;
    let address = with_peer(address, b.public().to_peer_id());
    let ((_, near), ((_, far), _)) = within(connect(&mut dialler, &mut listener, address)).await;
    // A transport makes progress only while it is polled.
    for mut transport in [dialler, listener] {
        tokio::spawn(async move {
            use futures::StreamExt as _;
            while transport.next().await.is_some() {}
        });
    }
    let (near, mut far) = (Connection::new(near), Connection::new(far));
    let (opened, accepted) = within(async { tokio::join!(near.open(), far.accept()) }).await;
    opened.unwrap().close().await.unwrap();
    drop(accepted);
    (near, far)
}

async fn read(stream: &mut SubstreamBox, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test]
async fn data_arrive_before_the_listener_answers() {
    for address in ADDRESSES {
        let (near, mut far) = confirmed(address).await;
        within(async {
            let mut stream = near.open().await.unwrap();
            stream.write_all(b"data").await.unwrap();
            stream.flush().await.unwrap();

            let mut inbound = far.accept_raw().await;
            assert_eq!(read(&mut inbound, PROPOSAL.len()).await, PROPOSAL);
            assert_eq!(read(&mut inbound, 4).await, b"data");
            // One byte at a time.
            for byte in [PROPOSAL, b"reply"].concat() {
                inbound.write_all(&[byte]).await.unwrap();
                inbound.flush().await.unwrap();
            }
            let mut reply = [0; 5];
            stream.read_exact(&mut reply).await.unwrap();
            assert_eq!(&reply, b"reply");
        })
        .await;
    }
}

#[tokio::test]
async fn a_stream_that_only_reads_receives_data() {
    for address in ADDRESSES {
        let (near, mut far) = confirmed(address).await;
        within(async {
            let mut stream = near.open().await.unwrap();
            let writer = async {
                let mut inbound = far.accept().await;
                inbound.write_all(b"data").await.unwrap();
                inbound.close().await.unwrap();
                inbound
            };
            let mut data = Vec::new();
            let (read, _inbound) = tokio::join!(stream.read_to_end(&mut data), writer);
            read.unwrap();
            assert_eq!(data, b"data");
        })
        .await;
    }
}

#[tokio::test]
async fn a_protocol_that_the_peer_withdraws_fails_the_stream_and_then_the_opening() {
    for address in ADDRESSES {
        let (near, mut far) = confirmed(address).await;
        within(async {
            let mut stream = near.open().await.unwrap();
            stream.write_all(b"data").await.unwrap();
            stream.flush().await.unwrap();
            let mut inbound = far.accept_raw().await;
            inbound.write_all(REFUSAL).await.unwrap();
            inbound.flush().await.unwrap();
            let error = stream.read(&mut [0; 9]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
            let cause = error.get_ref().unwrap().downcast_ref();
            let expected = UnconfirmedProtocol::Withdrawn(NAME.to_owned());
            assert_eq!(cause, Some(&expected));
            assert!(stream.write_all(b"more").await.is_err());

            let refuse = async {
                let inbound = far.accept_raw().await;
                let _ = listener_select_proto(inbound, ["/other"]).await;
            };
            let (opened, ()) = tokio::join!(near.open(), refuse);
            assert!(matches!(opened, Err(NegotiationError::Failed)));

            // A peer that supports it again is negotiated with, and then known again.
            let (opened, _accepted) = tokio::join!(near.open(), far.accept());
            opened.unwrap();
            near.open().await.unwrap();
        })
        .await;
    }
}

#[tokio::test]
async fn streams_that_are_written_closed_and_dropped_deliver_all_bytes() {
    for address in ADDRESSES {
        let (near, mut far) = confirmed(address).await;
        let data: Vec<u8> = (0..40_000).map(|at| (at % 251) as u8).collect();
        let expected = data.clone();
        let reader = tokio::spawn(async move {
            for _ in 0..200 {
                let mut stream = far.accept().await;
                let mut received = Vec::new();
                stream.read_to_end(&mut received).await.unwrap();
                assert!(received == expected);
            }
            far
        });
        within(async {
            for _ in 0..200 {
                let mut stream = near.open().await.unwrap();
                stream.write_all(&data).await.unwrap();
                stream.close().await.unwrap();
            }
            reader.await.unwrap();
        })
        .await;
    }
}

#[tokio::test]
async fn a_stream_that_is_dropped_without_a_close_is_negotiated_and_then_reset() {
    for address in ADDRESSES {
        let (near, mut far) = confirmed(address).await;
        within(async {
            for _ in 0..20 {
                let mut stream = near.open().await.unwrap();
                stream.write_all(b"data").await.unwrap();
                stream.flush().await.unwrap();
                drop(stream);
                let mut stream = far.accept().await;
                let mut received = Vec::new();
                let error = stream.read_to_end(&mut received).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                // QUIC drops data behind a reset.
                assert!(received == b"data" || address.ends_with("quic-v1"));
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_stream_that_is_dropped_unused_is_negotiated() {
    for address in ADDRESSES {
        let (near, mut far) = confirmed(address).await;
        within(async {
            drop(near.open().await.unwrap());
            let mut stream = far.accept().await;
            assert!(stream.read(&mut [0]).await.is_err());
        })
        .await;
    }
}
