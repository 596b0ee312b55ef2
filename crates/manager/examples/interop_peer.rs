//! A node that reads commands from standard input, for tests against other implementations.
//!
//!     cargo run -p calimero-network --example interop_peer -- [--config FILE] [--local true] [--listen ADDR]..
//!
//! Every line of standard input is a JSON object with a number `id` and what to `do`; it is answered
//! by one line `{"id":..,"ok":..}` or `{"id":..,"error":".."}`, in any order. Lines
//! without `id` are events. Streams that peers open are echoed, frame by frame, and invites are
//! answered with the quote that came with them. The end of standard input ends the node.

use std::{env, error::Error, fs, io::BufRead as _, sync::Arc, thread};

use bytes::Bytes;
use calimero_network::{
    BlobId, BlobProvider, Connection, ConnectionEvent, ContextId, Direction, DiscoveryEvent,
    FrameError, FrameStream, GossipEvent, InviteEvent, Keypair, Multiaddr, NetworkClient,
    NetworkConfig, NetworkEvent, NetworkManager, Path, PeerId, PeerInfo,
    SpecializedNodeInviteRequest, SpecializedNodeInviteResponse, StreamEvent, Substream, Topic,
    blob::{
        fetch::Destination,
        store::{FsBlobStore, FsConfig},
    },
};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task};

/// Lines that are read before earlier ones are answered.
const READ_AHEAD_LINES: usize = 16;

#[derive(Deserialize)]
struct Line {
    id: u64,
    #[serde(flatten)]
    command: Command,
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Command {
    /// Dials an address and returns the connection.
    Dial { address: Multiaddr },
    /// Closes every connection with a peer.
    Disconnect {
        #[serde(deserialize_with = "parsed")]
        peer: PeerId,
    },
    /// Returns the identify information of a peer.
    Identified {
        #[serde(deserialize_with = "parsed")]
        peer: PeerId,
    },
    /// Returns the addresses and connections.
    Status,
    /// Sends frames of these sizes one after the other, each of which must come back as it was.
    Frames {
        #[serde(deserialize_with = "parsed")]
        peer: PeerId,
        sizes: Vec<usize>,
    },
    /// Subscribes to a topic; its messages are events.
    Subscribe { topic: Topic },
    /// Returns the subscribers of a topic.
    Subscribers { topic: Topic },
    /// Publishes a message of this size.
    Publish { topic: Topic, size: usize },
    /// Stores a blob of this size, which this node serves.
    PutBlob { size: usize },
    /// Announces a blob in a context.
    AnnounceBlob { context: ContextId, blob: BlobId },
    /// Returns every provider of a blob that the DHT names.
    QueryBlob { context: ContextId, blob: BlobId },
    /// Asks a peer for an invitation; its answer is an event.
    Invite {
        #[serde(deserialize_with = "parsed")]
        peer: PeerId,
    },
    /// Fetches a blob from a peer.
    FetchBlob {
        context: ContextId,
        blob: BlobId,
        #[serde(deserialize_with = "parsed")]
        peer: PeerId,
    },
}

fn parsed<'de, D: Deserializer<'de>>(text: D) -> Result<PeerId, D::Error> {
    let text = String::deserialize(text)?;
    text.parse().map_err(D::Error::custom)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = arguments()?;
    let folder = tempfile::tempdir()?;
    let store = FsBlobStore::open(folder.path(), &FsConfig::default())?;
    let (client, mut events) = NetworkManager::builder(Keypair::generate_ed25519(), config)
        .blobs(Arc::new(store.clone()))
        .start()
        .await?;
    let peer = client.peer_id().to_base58();
    let listening = texts(&client.status().await?.listening);
    println!(
        "{}",
        json!({ "event": "started", "peer": peer, "listening": listening })
    );
    let mut lines = standard_input();
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) => drop(tokio::spawn(answer(client.clone(), store.clone(), line))),
                None => break,
            },
            event = events.next() => match event {
                Some(event) => tell(&client, event),
                None => break,
            },
        }
    }
    client.shutdown().await?;
    Ok(())
}

/// The configuration that the arguments name, with the addresses that they name.
fn arguments() -> Result<NetworkConfig, Box<dyn Error>> {
    let mut config = NetworkConfig::default();
    let mut listen = Vec::new();
    let mut arguments = env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or("an argument has no value")?;
        match name.as_str() {
            "--config" => config = NetworkConfig::from_toml(&fs::read_to_string(value)?)?,
            "--listen" => listen.push(value.parse()?),
            "--local" => config.discovery.local_network = value.parse()?,
            _ => return Err(format!("unknown argument {name}").into()),
        }
    }
    if !listen.is_empty() {
        config.listen = listen;
    }
    Ok(config)
}

/// The lines of standard input, read on a thread of their own: reading it blocks.
fn standard_input() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD_LINES);
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

async fn answer(client: NetworkClient, store: FsBlobStore, line: String) {
    let Line { id, command } = match serde_json::from_str(&line) {
        Ok(line) => line,
        Err(error) => return println!("{}", json!({ "error": error.to_string() })),
    };
    let answer = match carry_out(&client, store, command).await {
        Ok(value) => json!({ "id": id, "ok": value }),
        Err(error) => json!({ "id": id, "error": error.to_string() }),
    };
    println!("{answer}");
}

async fn carry_out(
    client: &NetworkClient,
    store: FsBlobStore,
    command: Command,
) -> Result<Value, Box<dyn Error + Send + Sync>> {
    Ok(match command {
        Command::Dial { address } => connection(&client.dial(address).await?),
        Command::Disconnect { peer } => json!(client.disconnect(peer).await?),
        Command::Identified { peer } => {
            json!(client.identified(peer).await?.as_ref().map(identity))
        }
        Command::Status => {
            let status = client.status().await?;
            json!({
                "listening": texts(&status.listening),
                "external": texts(&status.external),
                "connections": status.connections.iter().map(connection).collect::<Vec<_>>(),
            })
        }
        Command::Frames { peer, sizes } => {
            let mut stream = client.open_stream(peer).await?;
            for size in &sizes {
                round_trip(&mut stream, *size).await?;
            }
            stream.close().await?;
            json!(sizes)
        }
        Command::Subscribe { topic } => json!(client.subscribe(&topic).await?),
        Command::Subscribers { topic } => json!(texts(&client.subscribed_peers(&topic).await?)),
        Command::Publish { topic, size } => {
            client.publish(&topic, pattern(size)).await?;
            json!(size)
        }
        Command::PutBlob { size } => {
            let stored = task::spawn_blocking(move || store.put(&pattern(size))).await??;
            json!(stored.id.to_string())
        }
        Command::AnnounceBlob { context, blob } => {
            json!(client.announce_blob(context, blob).await?)
        }
        Command::QueryBlob { context, blob } => {
            let mut found = client.query_blob(context, blob).await?;
            let mut providers = Vec::new();
            while let Some(BlobProvider { peer, size_bytes }) = found.next().await {
                providers.push(json!({ "peer": peer.to_base58(), "size": size_bytes }));
            }
            json!(providers)
        }
        Command::Invite { peer } => {
            let request = SpecializedNodeInviteRequest::TeeAttestation {
                nonce: [7; 32],
                quote_bytes: pattern(1000),
                public_key: [9; 32],
            };
            client
                .send_specialized_node_verification_request(peer, request)
                .await?;
            Value::Null
        }
        Command::FetchBlob {
            context,
            blob,
            peer,
        } => {
            let to = Destination::Store(Arc::new(store.clone()));
            let fetched = client.request_blob(context, blob, vec![peer], to).await?;
            let size = fetched.size_bytes;
            let content = task::spawn_blocking(move || {
                store
                    .reader(&blob)?
                    .map(|reader| reader.read(0..size))
                    .transpose()
            });
            let content = content.await??.ok_or("not in the store")?;
            json!({ "size": size, "intact": content == pattern(content.len()) })
        }
    })
}

/// Bytes whose value depends on their position.
fn pattern(size: usize) -> Bytes {
    (0..size).map(|at| (at % 251) as u8).collect()
}

async fn round_trip(
    stream: &mut FrameStream<Substream>,
    size: usize,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let sent = pattern(size);
    stream.send(sent.clone()).await?;
    let received = stream.next().await.ok_or("closed without an echo")??;
    if received == sent {
        Ok(())
    } else {
        Err(format!(
            "sent {size} bytes, {} came back, or other ones",
            received.len()
        )
        .into())
    }
}

fn tell(client: &NetworkClient, event: NetworkEvent) {
    let line = match event {
        NetworkEvent::Connection(ConnectionEvent::Connected(new)) => {
            json!({ "event": "connected", "connection": connection(&new) })
        }
        NetworkEvent::Connection(ConnectionEvent::Disconnected { peer, reason, .. }) => json!({
            "event": "disconnected", "peer": peer.to_base58(), "reason": format!("{reason:?}"),
        }),
        NetworkEvent::Connection(ConnectionEvent::Identified { peer, info }) => json!({
            "event": "identified", "peer": peer.to_base58(), "identity": identity(&info),
        }),
        NetworkEvent::Gossip(GossipEvent::Message(message)) => json!({
            "event": "message", "topic": message.topic.to_string(),
            "source": message.source.to_base58(), "bytes": message.data.len(),
            "intact": message.data == pattern(message.data.len()),
        }),
        NetworkEvent::Discovery(DiscoveryEvent::RelayReservation {
            relay,
            reserved: true,
        }) => {
            json!({ "event": "relay_reserved", "relay": relay.to_base58() })
        }
        NetworkEvent::Discovery(DiscoveryEvent::ReachabilityChanged { reachability }) => {
            json!({ "event": "reachability", "reachability": format!("{reachability:?}") })
        }
        NetworkEvent::Discovery(DiscoveryEvent::ExternalAddress {
            address,
            confirmed: true,
        }) => {
            json!({ "event": "confirmed", "address": address.to_string() })
        }
        NetworkEvent::Connection(ConnectionEvent::HolePunched { peer, direct }) => {
            json!({ "event": "hole_punched", "peer": peer.to_base58(), "direct": direct })
        }
        NetworkEvent::Invite(InviteEvent::Request {
            request, channel, ..
        }) => {
            let SpecializedNodeInviteRequest::TeeAttestation {
                nonce, quote_bytes, ..
            } = request
            else {
                return;
            };
            let answer = SpecializedNodeInviteResponse::invitation(nonce, quote_bytes);
            let sent = client.send_specialized_node_invitation_response(channel, &answer);
            json!({ "event": "invite_answered", "sent": sent.is_ok() })
        }
        NetworkEvent::Invite(InviteEvent::Response { response, .. }) => json!({
            "event": "invited", "nonce": response.nonce,
            "bytes": response.invitation_bytes.map(|bytes| bytes.len()),
            "error": response.error,
        }),
        NetworkEvent::Stream(StreamEvent::Opened { peer, stream, .. }) => {
            tokio::spawn(echo(peer, stream));
            return;
        }
        _ => return,
    };
    println!("{line}");
}

/// Sends every frame back until the peer ends the stream, and prints the result.
async fn echo(peer: PeerId, mut stream: FrameStream<Substream>) {
    let mut frames = 0;
    let ended = loop {
        match stream.next().await {
            None => break stream.close().await,
            Some(Err(error)) => break Err(error),
            Some(Ok(frame)) => match stream.send(frame).await {
                Ok(()) => frames += 1,
                Err(error) => break Err(error),
            },
        }
    };
    let (error, text) = match ended {
        Ok(()) => (None, None),
        Err(error) => (Some(kind(&error)), Some(error.to_string())),
    };
    println!(
        "{}",
        json!({
            "event": "stream_ended", "peer": peer.to_base58(), "frames": frames,
            "error": error, "text": text,
        })
    );
}

fn kind(error: &FrameError) -> &'static str {
    match error {
        FrameError::TooLarge { .. } => "too_large",
        FrameError::Cut { .. } => "cut",
        FrameError::Io(_) => "io",
        _ => "other",
    }
}

fn connection(of: &Connection) -> Value {
    json!({
        "peer": of.peer.to_base58(),
        "address": of.address.to_string(),
        "inbound": of.direction == Direction::Inbound,
        "transport": of.transport().to_string(),
        "security": of.security().to_string(),
        "muxer": of.muxer().to_string(),
        "relayed": matches!(of.path, Path::Relayed { .. }),
        "rtt_ms": of.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
    })
}

fn identity(info: &Arc<PeerInfo>) -> Value {
    json!({
        "protocol_version": info.protocol_version,
        "agent_version": info.agent_version,
        "listening": texts(&info.listening),
        "protocols": texts(&info.protocols),
        "observed": info.observed.to_string(),
    })
}

fn texts(values: &[impl ToString]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}
