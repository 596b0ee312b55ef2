//! How many round trips short pieces of work take over a link: a dial, a first frame, a stream, a
//! message, a small blob.

use std::{
    fmt,
    io::BufRead as _,
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use calimero_network::libp2p::multiaddr::Protocol;
use calimero_network::{
    BlobId, ContextId, Events, GossipEvent, Keypair, Multiaddr, NetworkClient, NetworkConfig,
    NetworkEvent, NetworkManager, PeerId, Topic,
    blob::{
        fetch::Destination,
        store::{FsBlobStore, FsConfig},
    },
};
use clap::{Args, ValueEnum};
use futures::StreamExt as _;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    time::timeout,
};

use super::{Lab, end, link::Shape, pipes, wait};
use crate::{
    Failure, Runtime, block_on, client::Figures, measure::median, plan::Work, stack::Transport,
    traffic,
};

/// The context of the blob and of the topic.
const CONTEXT: ContextId = ContextId::new([9; 32]);

/// Size of the blob, in bytes.
const BLOB_BYTES: u64 = 4 << 10;

/// Time after which a piece of work counts as failed.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Measures short pieces of work in round trips of a link and prints a table.
#[derive(Debug, Args)]
pub(crate) struct TripsArgs {
    #[command(flatten)]
    shape: Shape,
    /// Number of times that each piece is measured; the median is printed.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=101))]
    rounds: u32,
}

/// One side of the link.
#[derive(Debug, Args)]
pub(crate) struct TripsSideArgs {
    /// IP address to listen on.
    #[arg(long)]
    listen: Ipv4Addr,
    #[arg(long, value_enum)]
    transport: Transport,
    /// Address of the other side with its peer id. Without it, this side answers until standard
    /// input ends.
    #[arg(long, requires = "blob", requires = "piece")]
    address: Option<Multiaddr>,
    /// The blob of the other side.
    #[arg(long)]
    blob: Option<BlobId>,
    /// The piece of work to measure.
    #[arg(long, value_enum)]
    piece: Option<Piece>,
    #[arg(long, default_value_t = 1)]
    rounds: u32,
}

/// A piece of work. Each begins on a new node, so that no connection or session is reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Piece {
    /// From the dial until the connection can be used.
    Dial,
    /// From the dial until a frame on a new stream was echoed.
    FirstFrame,
    /// On a connection: from the opening of a stream until a frame was echoed and the stream
    /// closed.
    Stream,
    /// From the dial until a message of a topic was answered by one.
    Message,
    /// On a connection: from the request of a blob of 4 KiB until it is verified.
    Blob,
    /// From the dial until a blob of 4 KiB is verified.
    DialAndBlob,
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dial => "dial",
            Self::FirstFrame => "dial, frame echoed",
            Self::Stream => "stream opened, frame echoed, closed",
            Self::Message => "dial, message answered by a message",
            Self::Blob => "blob of 4 KiB",
            Self::DialAndBlob => "dial, blob of 4 KiB",
        })
    }
}

/// What a side reports.
#[derive(Debug, Serialize, Deserialize)]
struct Times {
    /// Seconds of each round.
    seconds: Vec<f64>,
}

pub(crate) fn execute(args: &TripsArgs) -> Result<(), Failure> {
    println!(
        "{} Mbit/s, {} ms, {} rounds; in round trips\n",
        args.shape.rate_mbit, args.shape.rtt_ms, args.rounds
    );
    println!("| | TCP | QUIC | stock TCP | stock QUIC |");
    println!("|---|---:|---:|---:|---:|");
    let lab = Lab::new(args.shape)?;
    for piece in Piece::value_variants() {
        let mut cells = Vec::new();
        for transport in [Transport::Tcp, Transport::Quic] {
            cells.push(Some(ours(&lab, args, *piece, transport)?));
        }
        for transport in [Transport::Tcp, Transport::Quic] {
            cells.push(stock(&lab, args, *piece, transport)?);
        }
        let trip = args.shape.rtt_ms as f64 / 1_000.0;
        let cells = cells.into_iter().map(|seconds| match seconds {
            Some(seconds) => format!(" {:.2} |", seconds / trip),
            None => " |".to_owned(),
        });
        println!("| {piece} |{}", cells.collect::<String>());
    }
    Ok(())
}

fn value(value: impl ValueEnum) -> Result<String, Failure> {
    let value = value.to_possible_value().ok_or("no value")?;
    Ok(value.get_name().to_owned())
}

/// Returns the median of a piece, in seconds.
fn ours(lab: &Lab, args: &TripsArgs, piece: Piece, transport: Transport) -> Result<f64, Failure> {
    let transport = value(transport)?;
    let side = ["trips-side", "--transport", &transport];
    let mut answering = lab.run(
        &lab.right,
        &[&side[..], &["--listen", "10.99.0.2"]].concat(),
    )?;
    let (_input, mut output) = pipes(&mut answering)?;
    let mut line = String::new();
    output.read_line(&mut line)?;
    let (address, blob) = line.trim_end().split_once(' ').ok_or("no other side")?;
    let (piece, rounds) = (value(piece)?, args.rounds.to_string());
    let asking = [
        &side[..],
        &[
            "--listen",
            "10.99.0.1",
            "--address",
            address,
            "--blob",
            blob,
        ],
        &["--piece", &piece, "--rounds", &rounds],
    ];
    let line = ended(lab, &asking.concat(), args.rounds)?;
    end(&mut answering);
    Ok(median(serde_json::from_str::<Times>(&line)?.seconds))
}

/// The same of stock libp2p, as a mean; `None` for a piece that it does not have.
fn stock(
    lab: &Lab,
    args: &TripsArgs,
    piece: Piece,
    transport: Transport,
) -> Result<Option<f64>, Failure> {
    let work = match piece {
        Piece::FirstFrame => "connect",
        Piece::Stream => "streams",
        _ => return Ok(None),
    };
    let transport = value(transport)?;
    let side = [
        "--stack",
        "stock",
        "--transport",
        &transport,
        "--runtime",
        "current",
    ];
    let serve = [&["serve", "--listen", "10.99.0.2"], &side[..]].concat();
    let mut server = lab.run(&lab.right, &serve)?;
    let (_input, mut output) = pipes(&mut server)?;
    let mut address = String::new();
    output.read_line(&mut address)?;
    let rounds = args.rounds.to_string();
    let client = [
        &["client", "--listen", "10.99.0.1"],
        &side[..],
        &["--address", address.trim_end(), work, "--count", &rounds],
    ];
    let line = ended(lab, &client.concat(), args.rounds)?;
    end(&mut server);
    let seconds = serde_json::from_str::<Figures>(&line)?.seconds;
    Ok(Some(seconds / f64::from(args.rounds)))
}

/// Runs this program on the left side to its end and returns the line that it prints.
fn ended(lab: &Lab, args: &[&str], rounds: u32) -> Result<String, Failure> {
    let mut child = lab.run(&lab.left, args)?;
    let (_input, mut output) = pipes(&mut child)?;
    let is_done = wait(&mut child, TIMEOUT * rounds);
    end(&mut child);
    if !is_done? {
        return Err(format!("{} did not end in time", args.join(" ")).into());
    }
    let mut line = String::new();
    output.read_line(&mut line)?;
    Ok(line)
}

pub(crate) fn execute_side(args: &TripsSideArgs) -> Result<(), Failure> {
    block_on(Runtime::Multi, async {
        match (&args.address, args.blob, args.piece) {
            (Some(address), Some(blob), Some(piece)) => {
                let mut seconds = Vec::new();
                for _ in 0..args.rounds {
                    let took = timeout(TIMEOUT, measure(args, piece, address, blob)).await??;
                    seconds.push(took.as_secs_f64());
                }
                println!("{}", serde_json::to_string(&Times { seconds })?);
                Ok(())
            }
            _ => answer(args).await,
        }
    })
}

async fn start(
    args: &TripsSideArgs,
    store: Option<FsBlobStore>,
) -> Result<(NetworkClient, Events, Multiaddr), Failure> {
    let mut config = NetworkConfig {
        listen: Vec::new(),
        ..NetworkConfig::default()
    };
    config.discovery.local_network = true;
    let mut builder = NetworkManager::builder(Keypair::generate_ed25519(), config);
    if let Some(store) = store {
        builder = builder.blobs(Arc::new(store));
    }
    let (client, events) = builder.start().await?;
    let address = args.transport.address(args.listen);
    let (_, address) = client.listen_on(address).await?;
    let address = address.with(Protocol::P2p(client.peer_id()));
    client.subscribe(&Topic::context(CONTEXT)).await?;
    Ok((client, events, address))
}

/// Echoes streams, answers messages and provides a blob until standard input ends.
async fn answer(args: &TripsSideArgs) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let store = FsBlobStore::open(folder.path(), &FsConfig::default())?;
    let mut content = vec![0; usize::try_from(BLOB_BYTES)?];
    StdRng::seed_from_u64(BLOB_BYTES).fill_bytes(&mut content);
    let put = store.clone();
    let stored = tokio::task::spawn_blocking(move || put.put(&content)).await??;
    let (client, mut events, address) = start(args, Some(store)).await?;
    let mut streams = client.accept(traffic::PROTOCOL)?;
    tokio::spawn(async move {
        while let Some(inbound) = streams.next().await {
            tokio::spawn(traffic::answer(inbound.stream));
        }
    });
    let answering = client.clone();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let NetworkEvent::Gossip(GossipEvent::Message(message)) = event {
                let answered = answering.publish(&message.topic, Bytes::from_static(b"answer"));
                if let Err(error) = answered.await {
                    eprintln!("netbench trips-side: {error}");
                }
            }
        }
    });
    println!("{address} {}", stored.id);
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while lines.next_line().await?.is_some() {}
    Ok(())
}

/// Measures a piece once, with a new node.
async fn measure(
    args: &TripsSideArgs,
    piece: Piece,
    address: &Multiaddr,
    blob: BlobId,
) -> Result<Duration, Failure> {
    let (client, mut events, _) = start(args, None).await?;
    let begun = Instant::now();
    let peer = client.dial(address.clone()).await?.peer;
    let took = match piece {
        Piece::Dial => begun.elapsed(),
        Piece::FirstFrame => {
            echo(&client, peer).await?;
            begun.elapsed()
        }
        Piece::Stream => {
            // The first stream includes what is left of the connection's own exchanges.
            echo(&client, peer).await?;
            let begun = Instant::now();
            echo(&client, peer).await?;
            begun.elapsed()
        }
        Piece::Message => {
            let topic = Topic::context(CONTEXT);
            let ask = Bytes::from_static(b"ask");
            client.publish_or_keep(&topic, ask, TIMEOUT).await?;
            loop {
                let event = events.next().await.ok_or("the node has stopped")?;
                if let NetworkEvent::Gossip(GossipEvent::Message(_)) = event {
                    break begun.elapsed();
                }
            }
        }
        Piece::Blob => {
            echo(&client, peer).await?;
            let begun = Instant::now();
            fetch(&client, peer, blob).await?;
            begun.elapsed()
        }
        Piece::DialAndBlob => {
            fetch(&client, peer, blob).await?;
            begun.elapsed()
        }
    };
    client.shutdown().await?;
    Ok(took)
}

async fn echo(client: &NetworkClient, peer: PeerId) -> Result<(), Failure> {
    let stream = client.open_raw_stream(peer, traffic::PROTOCOL).await?;
    traffic::ask(stream, Work::Streams { count: 1 }).await
}

async fn fetch(client: &NetworkClient, peer: PeerId, blob: BlobId) -> Result<(), Failure> {
    let to = Destination::Memory {
        max_bytes: BLOB_BYTES,
    };
    let fetched = client.request_blob(CONTEXT, blob, vec![peer], to).await?;
    if fetched.size_bytes == BLOB_BYTES {
        Ok(())
    } else {
        Err(format!("{} of {BLOB_BYTES} bytes", fetched.size_bytes).into())
    }
}
