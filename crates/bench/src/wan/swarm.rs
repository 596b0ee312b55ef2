//! A blob that nodes on one side of a link fetch at the same time from a provider on the other side.

use std::{
    io::BufRead as _,
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use calimero_network::libp2p::multiaddr::Protocol;
use calimero_network::{
    BlobId, ContextId, Keypair, Multiaddr, NetworkClient, NetworkConfig, NetworkManager, PeerId,
    Topic,
    blob::{
        fetch::Destination,
        store::{FsBlobStore, FsConfig},
    },
};
use clap::Args;
use futures::future;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::{Lab, end, link::Shape, pipes, wait};
use crate::{Failure, Runtime, block_on};

/// The context in which the blob is fetched.
const CONTEXT: ContextId = ContextId::new([7; 32]);

/// Measures how long one node and several nodes take to fetch a blob, and what the provider sends.
#[derive(Debug, Args)]
pub(crate) struct SwarmArgs {
    #[command(flatten)]
    shape: Shape,
    /// Size of the blob, in MiB.
    #[arg(long, default_value_t = 32)]
    mib: u64,
    /// Numbers of nodes, measured one after the other.
    #[arg(long, num_args = 1.., default_values_t = [1, 8])]
    nodes: Vec<usize>,
    /// Longest time of one measurement, in seconds.
    #[arg(long, default_value_t = 600)]
    timeout_s: u64,
}

/// One side of the link.
#[derive(Debug, Args)]
pub(crate) struct SwarmSideArgs {
    /// IP address to listen on.
    #[arg(long)]
    listen: Ipv4Addr,
    /// Provide a blob of this size, in MiB, until standard input ends.
    #[arg(long, required_unless_present = "nodes")]
    mib: Option<u64>,
    /// Fetch with this number of nodes.
    #[arg(long, requires = "address", requires = "blob")]
    nodes: Option<usize>,
    /// Address of the provider with its peer id.
    #[arg(long)]
    address: Option<Multiaddr>,
    /// The blob.
    #[arg(long)]
    blob: Option<BlobId>,
}

/// What the nodes report.
#[derive(Debug, Serialize, Deserialize)]
struct Fetches {
    /// Time of each node, in seconds, ascending.
    seconds: Vec<f64>,
    /// Bytes that all nodes received, of content and around it.
    received_bytes: u64,
    /// Bytes of content that all nodes had from the provider.
    from_provider_bytes: u64,
}

pub(crate) fn execute(args: &SwarmArgs) -> Result<(), Failure> {
    println!(
        "{} Mbit/s, {} ms, queue of {} bytes, {} MiB\n",
        args.shape.rate_mbit, args.shape.rtt_ms, args.shape.queue_bytes, args.mib
    );
    println!("| nodes | first | last | times one | provider sent | received twice |");
    println!("|---:|---:|---:|---:|---:|---:|");
    let lab = Lab::new(args.shape)?;
    let size_bytes = (args.mib << 20) as f64;
    let mut one = None;
    for &nodes in &args.nodes {
        let (fetches, sent_bytes) = measure(&lab, args, nodes)?;
        let [first, .., last] = fetches.seconds[..] else {
            let seconds = fetches.seconds.first().copied().ok_or("no node fetched")?;
            one = Some(seconds);
            println!(
                "| {nodes} | {seconds:.1} s | {seconds:.1} s | 1.00 | {:.0} % | {:.1} % |",
                sent_bytes as f64 * 100.0 / size_bytes,
                (fetches.received_bytes as f64 / size_bytes - 1.0) * 100.0,
            );
            continue;
        };
        let times = one.map_or("-".to_owned(), |one| format!("{:.2}", last / one));
        println!(
            "| {nodes} | {first:.1} s | {last:.1} s | {times} | {:.0} % | {:.1} % |",
            sent_bytes as f64 * 100.0 / size_bytes,
            (fetches.received_bytes as f64 / (size_bytes * nodes as f64) - 1.0) * 100.0,
        );
    }
    Ok(())
}

/// Returns what the nodes report, and the bytes of all packets that the link carried from the
/// provider.
fn measure(lab: &Lab, args: &SwarmArgs, nodes: usize) -> Result<(Fetches, u64), Failure> {
    let mib = args.mib.to_string();
    let provide = ["swarm-side", "--listen", "10.99.0.1", "--mib", &mib];
    let mut provider = lab.run(&lab.left, &provide)?;
    let (_input, mut output) = pipes(&mut provider)?;
    let mut line = String::new();
    output.read_line(&mut line)?;
    let (address, blob) = line.trim_end().split_once(' ').ok_or("no provider")?;
    lab.passed()?;
    let nodes = nodes.to_string();
    let fetch = ["swarm-side", "--listen", "10.99.0.2", "--nodes", &nodes];
    let fetch = [&fetch[..], &["--address", address, "--blob", blob]].concat();
    let mut fetching = lab.run(&lab.right, &fetch)?;
    let (_fetch_input, mut figures) = pipes(&mut fetching)?;
    let ended = wait(&mut fetching, Duration::from_secs(args.timeout_s))?;
    let [there, _] = lab.passed()?;
    end(&mut fetching);
    end(&mut provider);
    if !ended {
        return Err("the nodes did not end in time".into());
    }
    let mut line = String::new();
    figures.read_line(&mut line)?;
    let sent_bytes = there.delivered_bytes.values().sum();
    Ok((serde_json::from_str(&line)?, sent_bytes))
}

pub(crate) fn execute_side(args: &SwarmSideArgs) -> Result<(), Failure> {
    block_on(Runtime::Multi, async {
        match (args.mib, args.nodes, &args.address, args.blob) {
            (Some(mib), ..) => provide(args.listen, mib).await,
            (None, Some(nodes), Some(address), Some(blob)) => {
                fetch(args.listen, nodes, address, blob).await
            }
            _ => Err("neither --mib nor --nodes".into()),
        }
    })
}

/// A node with a store in a temporary folder.
struct Node {
    client: NetworkClient,
    store: FsBlobStore,
    _folder: TempDir,
}

impl Node {
    async fn start(listen: Ipv4Addr, boot: Vec<Multiaddr>) -> Result<(Self, Multiaddr), Failure> {
        let folder = tempfile::tempdir()?;
        let store = FsBlobStore::open(folder.path(), &FsConfig::default())?;
        let mut config = NetworkConfig {
            listen: Vec::new(),
            ..NetworkConfig::default()
        };
        config.discovery.local_network = true;
        config.discovery.boot = boot;
        config.server.rendezvous.enabled = true;
        let (client, mut events) = NetworkManager::builder(Keypair::generate_ed25519(), config)
            .blobs(Arc::new(store.clone()))
            .start()
            .await?;
        tokio::spawn(async move { while events.next().await.is_some() {} });
        let address: Multiaddr = format!("/ip4/{listen}/udp/0/quic-v1").parse()?;
        let (_, address) = client.listen_on(address).await?;
        let address = address.with(Protocol::P2p(client.peer_id()));
        client.subscribe(&Topic::context(CONTEXT)).await?;
        let node = Self {
            client,
            store,
            _folder: folder,
        };
        Ok((node, address))
    }
}

async fn provide(listen: Ipv4Addr, mib: u64) -> Result<(), Failure> {
    let (node, address) = Node::start(listen, Vec::new()).await?;
    let mut content = vec![0; usize::try_from(mib << 20)?];
    StdRng::seed_from_u64(mib).fill_bytes(&mut content);
    let store = node.store.clone();
    let put = tokio::task::spawn_blocking(move || store.put(&content).map(|stored| stored.id));
    let id = put.await??;
    println!("{address} {id}");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while lines.next_line().await?.is_some() {}
    Ok(())
}

async fn fetch(
    listen: Ipv4Addr,
    nodes: usize,
    address: &Multiaddr,
    blob: BlobId,
) -> Result<(), Failure> {
    let Some(Protocol::P2p(provider)) = address.iter().last() else {
        return Err("the address has no peer id".into());
    };
    let starting = (0..nodes).map(|_| Node::start(listen, vec![address.clone()]));
    let nodes = future::try_join_all(starting).await?;
    for (node, _) in &nodes {
        node.client.dial(address.clone()).await?;
    }
    let fetching = nodes
        .iter()
        .map(|(node, _)| fetch_one(node, provider, blob));
    let fetched = future::try_join_all(fetching).await?;
    let mut fetches = Fetches {
        seconds: fetched.iter().map(|fetched| fetched.0).collect(),
        received_bytes: fetched.iter().map(|fetched| fetched.1).sum(),
        from_provider_bytes: fetched.iter().map(|fetched| fetched.2).sum(),
    };
    fetches.seconds.sort_by(f64::total_cmp);
    println!("{}", serde_json::to_string(&fetches)?);
    Ok(())
}

/// Returns the time, what was received, and how much of it came from the provider.
async fn fetch_one(
    node: &Node,
    provider: PeerId,
    blob: BlobId,
) -> Result<(f64, u64, u64), Failure> {
    let begun = Instant::now();
    let to = Destination::Store(Arc::new(node.store.clone()));
    let fetched = node.client.request_blob(CONTEXT, blob, vec![provider], to);
    let fetched = fetched.await?;
    let from_provider = fetched.providers.iter().find(|(peer, _)| *peer == provider);
    Ok((
        begun.elapsed().as_secs_f64(),
        fetched.received_bytes,
        from_provider.map_or(0, |(_, bytes)| *bytes),
    ))
}
