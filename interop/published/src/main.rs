//! A node of the published `calimero-network`, driven line by line, as `interop_peer` of ours is.
//!
//!     published-peer LISTEN..
//!
//! Every line of standard input is `{"id": .., "do": ..}`; it is answered by `{"id": .., "ok": ..}` or
//! `{"id": .., "error": ".."}`. Lines without `id` are events. General streams that peers open are
//! echoed, frame by frame; blobs that `put_blob` made are given to whoever asks; an invite is answered
//! with the quote that came with it. The end of standard input ends the node.

use std::{
    collections::{BTreeSet, HashMap},
    env,
    error::Error,
    io::BufRead as _,
    sync::{Arc, Mutex},
    thread,
};

use actix::Actor as _;
use calimero_network::NetworkManager;
use calimero_network_primitives::{
    blob_types::{BlobChunk, BlobRequest, BlobResponse},
    client::NetworkClient,
    config::{
        AutonatConfig, BootstrapConfig, DiscoveryConfig, NetworkConfig, RelayConfig,
        RendezvousConfig, SwarmConfig,
    },
    messages::{NetworkEvent, NetworkEventDispatcher},
    specialized_node_invite::{SpecializedNodeInvitationResponse, VerificationRequest},
    stream::{CALIMERO_BLOB_PROTOCOL, Message, Stream},
};
use calimero_primitives::{blobs::BlobId, context::ContextId};
use calimero_utils_actix::LazyRecipient;
use futures_util::{SinkExt as _, StreamExt as _};
use libp2p::{Multiaddr, PeerId, gossipsub::IdentTopic, identity::Keypair};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

/// Bytes of a chunk.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Lines and events that wait.
const QUEUE: usize = 256;

type Answer = Result<Value, Box<dyn Error>>;

/// What `put_blob` made, by id.
type Blobs = Arc<Mutex<HashMap<[u8; 32], Vec<u8>>>>;

#[derive(Deserialize)]
struct Line {
    id: u64,
    #[serde(flatten)]
    command: Command,
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Command {
    /// Connects.
    Dial { address: Multiaddr },
    /// How many peers are connected.
    PeerCount,
    /// Sends frames of these sizes one after the other, each of which must come back as it was.
    Frames { peer: String, sizes: Vec<usize> },
    /// Follows a topic; its messages come as events.
    Subscribe { topic: String },
    /// Peers that follow a topic.
    Subscribers { topic: String },
    /// Publishes a message of this size.
    Publish { topic: String, size: usize },
    /// Keeps a blob of this size, to be had from this node.
    PutBlob { size: usize },
    /// Tells the network that this node has a blob of this size.
    AnnounceBlob {
        context: String,
        blob: String,
        size: u64,
    },
    /// The providers of a blob that the network tells of.
    QueryBlob { context: String, blob: String },
    /// Fetches a blob from a peer.
    FetchBlob {
        context: String,
        blob: String,
        peer: String,
    },
    /// Asks a peer for an invitation; its answer comes as an event.
    Invite { peer: String },
}

/// Hands events over to the loop.
struct Events(mpsc::Sender<NetworkEvent>);

impl NetworkEventDispatcher for Events {
    fn dispatch(&self, event: NetworkEvent) -> bool {
        self.0.try_send(event).is_ok()
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listen: Result<Vec<Multiaddr>, _> = env::args().skip(1).map(|one| one.parse()).collect();
    let identity = Keypair::generate_ed25519();
    let peer = identity.public().to_peer_id();
    let config = NetworkConfig::new(
        identity,
        SwarmConfig::new(listen?),
        BootstrapConfig::default(),
        DiscoveryConfig::new(
            false,
            false,
            Vec::new(),
            RendezvousConfig::default(),
            RelayConfig::default(),
            AutonatConfig::default(),
        ),
    );
    let (events, mut happened) = mpsc::channel(QUEUE);
    let mut metrics = prometheus_client::registry::Registry::default();
    let events = Arc::new(Events(events));
    let manager = NetworkManager::new(&config, events, &mut metrics, BTreeSet::new(), None).await?;
    let client = NetworkClient::new(LazyRecipient::from(manager.start().recipient()));
    let blobs = Blobs::default();
    say(&json!({ "event": "started", "peer": peer.to_base58() }));
    let mut lines = standard_input();
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) => drop(actix::spawn(answer(client.clone(), blobs.clone(), line))),
                None => return Ok(()),
            },
            event = happened.recv() => match event {
                Some(event) => drop(actix::spawn(tell(client.clone(), blobs.clone(), event))),
                None => return Ok(()),
            },
        }
    }
}

fn say(line: &Value) {
    println!("{line}");
}

/// The lines of standard input, read on a thread of their own: reading it blocks.
fn standard_input() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

async fn answer(client: NetworkClient, blobs: Blobs, line: String) {
    let Line { id, command } = match serde_json::from_str(&line) {
        Ok(line) => line,
        Err(error) => return say(&json!({ "error": error.to_string() })),
    };
    match carry_out(&client, &blobs, command).await {
        Ok(value) => say(&json!({ "id": id, "ok": value })),
        Err(error) => say(&json!({ "id": id, "error": error.to_string() })),
    }
}

async fn carry_out(client: &NetworkClient, blobs: &Blobs, command: Command) -> Answer {
    Ok(match command {
        Command::Dial { address } => json!(client.dial(address).await?),
        Command::PeerCount => json!(client.peer_count().await),
        Command::Frames { peer, sizes } => {
            let mut stream = client.open_stream(peer.parse()?).await?;
            for &size in &sizes {
                stream.send(Message::new(pattern(size))).await?;
                let back = stream.next().await.ok_or("closed without an echo")??;
                if back.data != pattern(size) {
                    return Err(format!("{} bytes came back of {size}", back.data.len()).into());
                }
            }
            stream.close().await?;
            json!(sizes)
        }
        Command::Subscribe { topic } => {
            client.subscribe(IdentTopic::new(topic)).await?;
            Value::Null
        }
        Command::Subscribers { topic } => {
            let followers = client.subscribed_peers(IdentTopic::new(topic).hash()).await;
            json!(texts(&followers))
        }
        Command::Publish { topic, size } => {
            let topic = IdentTopic::new(topic).hash();
            client.publish(topic, pattern(size)).await?;
            json!(size)
        }
        Command::PutBlob { size } => {
            let content = pattern(size);
            let id = blob_id(&content);
            if let Ok(mut blobs) = blobs.lock() {
                blobs.insert(id, content);
            }
            json!(BlobId::from(id).to_string())
        }
        Command::AnnounceBlob {
            context,
            blob,
            size,
        } => {
            let (blob, context) = (blob.parse()?, context.parse()?);
            json!(client.announce_blob(blob, context, size).await?)
        }
        Command::QueryBlob { context, blob } => {
            let context: ContextId = context.parse()?;
            let found = client.query_blob(blob.parse()?, Some(context)).await?;
            json!(texts(&found))
        }
        Command::FetchBlob {
            context,
            blob,
            peer,
        } => {
            let (blob, context) = (blob.parse()?, context.parse()?);
            let content = client
                .request_blob(blob, context, peer.parse()?, None)
                .await?;
            json!(content.map(|content| {
                json!({ "size": content.len(), "intact": content == pattern(content.len()) })
            }))
        }
        Command::Invite { peer } => {
            let request = VerificationRequest::TeeAttestation {
                nonce: [7; 32],
                quote_bytes: pattern(1000),
                public_key: [9; 32].into(),
            };
            client
                .send_specialized_node_verification_request(peer.parse()?, request)
                .await?;
            Value::Null
        }
    })
}

async fn tell(client: NetworkClient, blobs: Blobs, event: NetworkEvent) {
    match event {
        NetworkEvent::ListeningOn { address, .. } => {
            say(&json!({ "event": "listening", "address": address.to_string() }));
        }
        NetworkEvent::Message { message, .. } => say(&json!({
            "event": "message", "topic": message.topic.to_string(),
            "source": message.source.map(|source| source.to_base58()),
            "bytes": message.data.len(),
            "intact": message.data == pattern(message.data.len()),
        })),
        NetworkEvent::StreamOpened {
            stream, protocol, ..
        } => {
            let served = if protocol == CALIMERO_BLOB_PROTOCOL {
                provide(*stream, &blobs).await
            } else {
                echo(*stream).await
            };
            let error = served.err().map(|error| error.to_string());
            say(&json!({ "event": "stream_ended", "error": error }));
        }
        NetworkEvent::SpecializedNodeVerificationRequest {
            request, channel, ..
        } => {
            let VerificationRequest::TeeAttestation {
                nonce, quote_bytes, ..
            } = request;
            let response = SpecializedNodeInvitationResponse::success(nonce, quote_bytes);
            let sent = client.send_specialized_node_invitation_response(channel, response);
            say(&json!({ "event": "invite_answered", "sent": sent.await.is_ok() }));
        }
        NetworkEvent::SpecializedNodeInvitationResponse { response, .. } => say(&json!({
            "event": "invited", "nonce": response.nonce,
            "bytes": response.invitation_bytes.map(|bytes| bytes.len()),
            "error": response.error,
        })),
        _ => {}
    }
}

/// Sends every frame back until the peer ends.
async fn echo(mut stream: Stream) -> Result<(), Box<dyn Error>> {
    while let Some(frame) = stream.next().await {
        stream.send(frame?).await?;
    }
    Ok(stream.close().await?)
}

/// Answers one request for a blob.
async fn provide(mut stream: Stream, blobs: &Blobs) -> Result<(), Box<dyn Error>> {
    let request = stream.next().await.ok_or("no request")??;
    let request: BlobRequest = serde_json::from_slice(&request.data)?;
    let content =
        (blobs.lock().ok()).and_then(|blobs| blobs.get(request.blob_id.digest()).cloned());
    let response = BlobResponse {
        found: content.is_some(),
        size: content.as_ref().map(|content| content.len() as u64),
    };
    stream
        .send(Message::new(serde_json::to_vec(&response)?))
        .await?;
    if let Some(content) = content {
        let chunks = content.chunks(CHUNK_BYTES).chain([&[][..]]);
        for chunk in chunks {
            let chunk = BlobChunk {
                data: chunk.to_vec(),
            };
            stream.send(Message::new(borsh::to_vec(&chunk)?)).await?;
        }
    }
    Ok(stream.close().await?)
}

/// Bytes whose value tells their place.
fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8).collect()
}

/// The hash of the hashes of the chunks.
fn blob_id(content: &[u8]) -> [u8; 32] {
    let mut hashes = Sha256::new();
    for chunk in content.chunks(CHUNK_BYTES) {
        hashes.update(Sha256::digest(chunk));
    }
    hashes.finalize().into()
}

fn texts(peers: &[PeerId]) -> Vec<String> {
    peers.iter().map(|peer| peer.to_base58()).collect()
}
