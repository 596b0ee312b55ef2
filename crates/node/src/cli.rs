//! Arguments.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use calimero_network::{BlobId, ContextId, Multiaddr, Topic};
use clap::{Args, Parser, Subcommand};

/// A node of the peer-to-peer network, its demonstration and its measuring tools.
#[derive(Debug, Parser)]
#[command(name = "calnet", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What is logged to standard error, as in `info` or `libp2p_swarm=debug,warn`. By default
    /// warnings, but for two libraries that warn of a node without a network.
    #[arg(
        long,
        global = true,
        env = "CALNET_LOG",
        default_value = "warn,libp2p_kad=error,quinn_udp=error",
        value_name = "FILTER"
    )]
    pub(crate) log: String,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a boot node and others on loopback, let them talk, and check what they did.
    Demo(DemoArgs),
    /// Make the data folder of a node: its identity and its configuration.
    Init(InitArgs),
    /// Run a node until ctrl-c.
    Run(RunArgs),
    /// Run a boot node until ctrl-c: others find each other by it, and reach each other through it.
    Boot(BootArgs),
    /// Print how a running node stands.
    Status(StatusArgs),
    /// List the peers that a running node is connected with.
    Peers(StatusArgs),
    /// Publish messages to a topic, those given or each line of standard input.
    Publish(PublishArgs),
    /// Print the messages of topics until ctrl-c.
    Subscribe(SubscribeArgs),
    /// Dial a node and print who it is and how it is reached.
    Probe(ProbeArgs),
    /// Store, list, check and fetch blobs.
    Blob(BlobArgs),
    /// Measure throughput and round trips to a running node.
    Perf(PerfArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Print JSON lines.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where a node stands in the network.
#[derive(Debug, Args)]
pub(crate) struct AddressArgs {
    /// Address to listen on, such as `/ip4/0.0.0.0/tcp/2428`; may be repeated. Without it, those
    /// of the configuration, by default port 2428 everywhere.
    #[arg(long, value_name = "ADDR", num_args = 1..)]
    pub(crate) listen: Vec<Multiaddr>,
    /// Boot node, with its `/p2p/<peer>`: kept connected and asked for peers; may be repeated.
    #[arg(long, value_name = "ADDR", num_args = 1..)]
    pub(crate) boot: Vec<Multiaddr>,
    /// Public address under which others reach this node; may be repeated. Without one, others
    /// are asked to find out, and until they have nobody is reached through this node.
    #[arg(long, value_name = "ADDR", num_args = 1..)]
    pub(crate) external: Vec<Multiaddr>,
    /// The network lives on this machine or link: loopback and link-local addresses are dialled.
    #[arg(long)]
    pub(crate) local: bool,
}

/// What every command has that is a node until ctrl-c.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    #[command(flatten)]
    pub(crate) addresses: AddressArgs,
    /// Configuration file (TOML). What it does not name has the default of this command. Without
    /// it, `node.toml` of the data folder, if it is there.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Identity file, made if it does not exist. Without it, that of the data folder; without
    /// that, a new identity for this run.
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// Address to serve `/metrics` and `/status` at, over HTTP. It asks nobody who they are, so
    /// use loopback, as in `127.0.0.1:9428`.
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Print JSON lines.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The folder, made if it does not exist. Nothing in it is overwritten.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) addresses: AddressArgs,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Data folder of the node, `--data` of `calnet run`.
    #[arg(long, value_name = "DIR", conflicts_with = "http")]
    pub(crate) data: Option<PathBuf>,
    /// Address of its page, `--metrics` of `calnet run` or `calnet boot`.
    #[arg(long, value_name = "ADDR")]
    pub(crate) http: Option<SocketAddr>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which node talks: one that runs, or one that lives for the command alone.
#[derive(Debug, Args)]
pub(crate) struct WhereArgs {
    /// Data folder of a node that runs, which talks.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["boot", "dial", "local"])]
    pub(crate) data: Option<PathBuf>,
    /// Boot node, with its `/p2p/<peer>`, to find who follows the topic; may be repeated.
    #[arg(long, value_name = "ADDR")]
    pub(crate) boot: Vec<Multiaddr>,
    /// Address of a node that follows the topic; may be repeated.
    #[arg(long, value_name = "ADDR")]
    pub(crate) dial: Vec<Multiaddr>,
    /// The network lives on this machine or link: loopback and link-local addresses are dialled.
    #[arg(long)]
    pub(crate) local: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// The topic.
    #[arg(value_name = "TOPIC")]
    pub(crate) topic: Topic,
    /// The messages. Without one, each line of standard input is a message.
    #[arg(value_name = "MESSAGE")]
    pub(crate) messages: Vec<String>,
    #[command(flatten)]
    pub(crate) at: WhereArgs,
    /// Print JSON lines.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SubscribeArgs {
    /// The topics.
    #[arg(required = true, value_name = "TOPIC")]
    pub(crate) topics: Vec<Topic>,
    #[command(flatten)]
    pub(crate) at: WhereArgs,
    /// Print JSON lines.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// Address to dial and to dial again whenever the connection is lost; may be repeated.
    #[arg(long, value_name = "ADDR", num_args = 1..)]
    pub(crate) dial: Vec<Multiaddr>,
    /// Folder that keeps the identity, the peers and the blobs of the node, made if it does not
    /// exist.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Topic to follow; may be repeated. Its messages are printed.
    #[arg(long, value_name = "TOPIC", num_args = 1..)]
    pub(crate) subscribe: Vec<Topic>,
    /// Topic to publish to: each line of standard input is a message. What nobody follows yet is
    /// kept for a while (`pubsub.keep`).
    #[arg(long, value_name = "TOPIC")]
    pub(crate) publish: Option<Topic>,
    /// Do not answer `calnet perf` (`/perf/1.0.0`).
    #[arg(long)]
    pub(crate) no_perf: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BootArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// Folder that keeps the identity and the peers of the node, made if it does not exist.
    #[arg(long, value_name = "DIR", default_value = "calnet-boot")]
    pub(crate) data: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct BlobArgs {
    /// Folder that keeps the blobs: that of `calnet run --data`, whose node is asked if it runs.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Print JSON lines.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: BlobCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BlobCommand {
    /// Store files as blobs and print their ids. A node announces what its folder holds.
    Add {
        /// The files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Context in which the blobs are offered.
        #[arg(
            long,
            default_value = "11111111111111111111111111111111",
            value_name = "ID"
        )]
        context: ContextId,
    },
    /// Fetch a blob, from where an earlier try was left.
    Get(GetArgs),
    /// List blobs and unfinished downloads.
    Ls,
    /// Delete blobs and unfinished downloads.
    Rm {
        /// The blobs.
        #[arg(required = true, value_name = "ID")]
        ids: Vec<BlobId>,
    },
    /// Read blobs and compare them with their ids: all, or those named.
    Verify {
        /// The blobs.
        #[arg(value_name = "ID")]
        ids: Vec<BlobId>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The blob.
    #[arg(value_name = "ID")]
    pub(crate) id: BlobId,
    /// File to write, which appears when all of it is verified. Without it, the data folder.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Address of a node that has the blob; may be repeated.
    #[arg(long, value_name = "ADDR", num_args = 1..)]
    pub(crate) dial: Vec<Multiaddr>,
    /// Boot node, with its `/p2p/<peer>`, to find who has the blob; may be repeated.
    #[arg(long, value_name = "ADDR", num_args = 1..)]
    pub(crate) boot: Vec<Multiaddr>,
    /// Context in which the blob is offered.
    #[arg(
        long,
        default_value = "11111111111111111111111111111111",
        value_name = "ID"
    )]
    pub(crate) context: ContextId,
    /// The network lives on this machine or link: loopback and link-local addresses are dialled.
    #[arg(long)]
    pub(crate) local: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// Address of the node. With `/p2p/<peer>` nobody else is accepted.
    #[arg(value_name = "ADDR")]
    pub(crate) address: Multiaddr,
    /// Pings to send.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) pings: u32,
    /// Time for everything, in milliseconds.
    #[arg(long, default_value = "15000", value_name = "MS", value_parser = millis)]
    pub(crate) timeout_ms: Duration,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PerfArgs {
    /// Address of the node, which runs `calnet run` or another implementation of `/perf/1.0.0`.
    #[arg(value_name = "ADDR")]
    pub(crate) address: Multiaddr,
    /// Bytes sent in the upload test, all streams together.
    #[arg(long, default_value_t = 256 << 20, value_name = "BYTES")]
    pub(crate) upload_bytes: u64,
    /// Bytes received in the download test, all streams together.
    #[arg(long, default_value_t = 256 << 20, value_name = "BYTES")]
    pub(crate) download_bytes: u64,
    /// Streams of the parallel tests, besides one stream alone.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) streams: u16,
    /// Round trips measured, of 32 bytes on one open stream.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) round_trips: u32,
    /// Time for each test, in milliseconds.
    #[arg(long, default_value = "60000", value_name = "MS", value_parser = millis)]
    pub(crate) timeout_ms: Duration,
    /// Print JSON lines.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Whole milliseconds above zero.
fn millis(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(0) => Err("must be above 0".to_owned()),
        Ok(millis) => Ok(Duration::from_millis(millis)),
        Err(error) => Err(format!("{error}")),
    }
}
