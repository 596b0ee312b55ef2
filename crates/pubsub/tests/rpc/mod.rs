//! Gossipsub's messages by hand, and a peer that sends them.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of a test, which say so when they cannot go on"
)]

use std::time::Duration;

use calimero_network_primitives::{Keypair, PeerId};
use futures::{AsyncWriteExt, StreamExt};
use libp2p_stream as stream;
use libp2p_swarm::{DialError, Stream, StreamProtocol, SwarmEvent, dial_opts::DialOpts};
use tokio::sync::{mpsc, oneshot};

use crate::common::{Node, swarm, within};

const MESHSUB: StreamProtocol = StreamProtocol::new("/meshsub/1.1.0");

fn varint(mut value: u64, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    to.push(u8::try_from(value).unwrap());
}

/// A protobuf field of bytes.
fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 6);
    varint(number << 3 | 2, &mut out);
    varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

fn number(number: u64, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(number << 3, &mut out);
    varint(value, &mut out);
    out
}

/// A message and its signature.
#[derive(Clone)]
pub struct Signed {
    pub from: Vec<u8>,
    pub data: Vec<u8>,
    pub number: u64,
    pub topic: String,
    pub signature: Option<Vec<u8>>,
}

impl Signed {
    pub fn new(key: &Keypair, number: u64, topic: &str, data: &[u8]) -> Self {
        let mut message = Self {
            from: key.public().to_peer_id().to_bytes(),
            data: data.to_vec(),
            number,
            topic: topic.to_owned(),
            signature: None,
        };
        let bytes = [b"libp2p-pubsub:".to_vec(), message.encode()].concat();
        message.signature = Some(key.sign(&bytes).unwrap());
        message
    }

    pub fn encode(&self) -> Vec<u8> {
        [
            field(1, &self.from),
            field(2, &self.data),
            field(3, &self.number.to_be_bytes()),
            field(4, self.topic.as_bytes()),
            (self.signature.as_ref()).map_or(Vec::new(), |signature| field(5, signature)),
        ]
        .concat()
    }
}

impl Signed {
    /// The message with a public key, which is not signed.
    pub fn encode_with_key(&self, key: &[u8]) -> Vec<u8> {
        [self.encode(), field(6, key)].concat()
    }
}

pub fn publish(messages: &[Vec<u8>]) -> Vec<u8> {
    messages.iter().flat_map(|m| field(2, m)).collect()
}

pub fn subscribe(topics: impl IntoIterator<Item = String>) -> Vec<u8> {
    let entry = |topic: String| [number(1, 1), field(2, topic.as_bytes())].concat();
    topics
        .into_iter()
        .flat_map(|t| field(1, &entry(t)))
        .collect()
}

pub fn control(parts: &[Vec<u8>]) -> Vec<u8> {
    field(3, &parts.concat())
}

pub fn grafts(topic: &str, count: usize) -> Vec<u8> {
    field(3, &field(1, topic.as_bytes())).repeat(count)
}

pub fn prunes(topic: &str, count: usize) -> Vec<u8> {
    field(4, &[field(1, topic.as_bytes()), number(3, 1)].concat()).repeat(count)
}

pub fn ihave(topic: &str, ids: &[String]) -> Vec<u8> {
    let ids = ids.iter().flat_map(|id| field(2, id.as_bytes()));
    let offer: Vec<_> = field(1, topic.as_bytes()).into_iter().chain(ids).collect();
    field(1, &offer)
}

pub fn iwant(ids: &[String]) -> Vec<u8> {
    let ids: Vec<_> = ids.iter().flat_map(|id| field(1, id.as_bytes())).collect();
    field(2, &ids)
}

/// A peer with a gossipsub stream that it writes by hand. It takes the streams of the other side
/// and never reads them.
pub struct Raw {
    pub key: Keypair,
    pub peer: PeerId,
    stream: Stream,
    control: stream::Control,
    dials: mpsc::Sender<(DialOpts, oneshot::Sender<Result<(), DialError>>)>,
}

impl Raw {
    pub async fn connect(node: &Node) -> Self {
        let key = Keypair::generate_ed25519();
        let mut swarm = swarm(key.clone(), stream::Behaviour::new());
        let mut control = swarm.behaviour().new_control();
        let mut incoming = control.accept(MESHSUB).unwrap();
        swarm.dial(node.addr.clone()).unwrap();
        let (dials, mut orders) = mpsc::channel::<(DialOpts, oneshot::Sender<_>)>(1);
        tokio::spawn(async move {
            let mut unread = Vec::new();
            let mut dialling = None;
            loop {
                tokio::select! {
                    event = swarm.select_next_some() => match event {
                        SwarmEvent::OutgoingConnectionError { error, .. } => {
                            let reply = dialling.take();
                            reply.map(|reply: oneshot::Sender<_>| reply.send(Err(error)));
                        }
                        // A refusal after the handshake shows as a close.
                        SwarmEvent::ConnectionClosed { .. } => {
                            let reply = dialling.take();
                            reply.map(|reply: oneshot::Sender<_>| reply.send(Err(DialError::Aborted)));
                        }
                        _ => {}
                    },
                    Some((_, stream)) = incoming.next() => unread.push(stream),
                    order = orders.recv() => match order {
                        None => return,
                        Some((opts, reply)) => {
                            dialling = Some(reply);
                            swarm.dial(opts).unwrap();
                        }
                    }
                }
            }
        });
        let stream = loop {
            match within(control.open_stream(node.peer, MESHSUB)).await {
                Ok(stream) => break stream,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        Self {
            peer: key.public().to_peer_id(),
            key,
            stream,
            control,
            dials,
        }
    }

    /// Opens another stream in the place of the one before.
    pub async fn reopen(&mut self, node: &Node) {
        let opened = within(self.control.open_stream(node.peer, MESHSUB)).await;
        self.stream = opened.unwrap();
    }

    /// Dials `node` again, and waits for the refusal.
    pub async fn dial_again(&self, node: &Node) -> Result<(), DialError> {
        let opts = DialOpts::unknown_peer_id()
            .address(node.addr.clone())
            .build();
        let (reply, answer) = oneshot::channel();
        self.dials.send((opts, reply)).await.unwrap();
        within(answer).await.unwrap()
    }

    pub async fn send(&mut self, rpc: &[u8]) {
        assert!(self.try_send(rpc).await, "the stream is closed");
    }

    /// `false` once the stream is closed.
    pub async fn try_send(&mut self, rpc: &[u8]) -> bool {
        let mut frame = Vec::with_capacity(rpc.len() + 5);
        varint(rpc.len() as u64, &mut frame);
        frame.extend_from_slice(rpc);
        self.send_frame(&frame).await
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.send_frame(bytes).await;
    }

    /// Writes until the other side has closed the stream, or takes no more: after an error it
    /// reads nothing, and a writer stops at the end of its window.
    pub async fn send_until_refused(&mut self, bytes: &[u8]) {
        for _ in 0..10_000 {
            let patience = Duration::from_secs(1);
            let sent = tokio::time::timeout(patience, self.send_frame(bytes)).await;
            if sent != Ok(true) {
                return;
            }
        }
        unreachable!("all of it was taken");
    }

    async fn send_frame(&mut self, bytes: &[u8]) -> bool {
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        within(write).await.is_ok()
    }
}
