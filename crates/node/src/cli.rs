//! Arguments.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use calimero_network::{
    BlobId, ContextId, Multiaddr, NetworkName, PeerId, Topic,
    blob::ticket::Ticket,
    multiaddr::{self, Protocol},
};
use clap::{Args, Parser, Subcommand};

use crate::{demo::DemoArgs, diag::DiagArgs, log::LogFormat, man::ManArgs, ping::PingArgs};

/// A node of the peer-to-peer network, its demonstration and its measuring tools.
#[derive(Debug, Parser)]
#[command(name = "calnet", version, arg_required_else_help = true, after_help = EXIT_STATUS)]
pub(crate) struct Cli {
    /// What is logged, such as `info` or `libp2p_swarm=debug,warn`. Without it, the value of
    /// `RUST_LOG` if that is valid, by default warnings. Of one place in the code at most a few
    /// lines a minute are written at the levels error, warn and info; suppressed lines are counted.
    #[arg(long, global = true, env = "CALNET_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// Form of the log. `text` and `json` are written to standard error, `json` as one object a
    /// line; `journald` is sent to the journal of systemd, with the fields of each event.
    #[arg(
        long,
        global = true,
        env = "CALNET_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub(crate) log_format: LogFormat,
    /// Print one JSON object a line, each with `event` and `time` (RFC 3339). A failure is an
    /// object on standard error: `{"event":"error","code":"…","message":"…"}`.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Command {
    /// The arguments of a command that runs a node until a signal.
    pub(crate) fn node(&self) -> Option<&NodeArgs> {
        match self {
            Self::Run(args) => Some(&args.node),
            Self::Boot(args) => Some(&args.node),
            _ => None,
        }
    }
}

/// What scripts act on.
const EXIT_STATUS: &str = "Exit status: 0 success, 1 other failure, 2 wrong usage or configuration, \
    3 not reachable, 4 timed out, 5 not found, 6 refused, 7 a check failed, \
    128 and the number of a signal if one interrupted the command, \
    141 if the reader of standard output closed its end before the command ended.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a boot node and others on loopback, let them talk, and check what they did.
    Demo(DemoArgs),
    /// Create the data folder of a node: its identity and its configuration.
    Init(InitArgs),
    /// Run a node until ctrl-c.
    Run(RunArgs),
    /// Run a boot node until ctrl-c. Others find each other by it and reach each other through it.
    Boot(BootArgs),
    /// Print the status of a running node.
    Status(StatusArgs),
    /// List the peers of a running node.
    Peers(StatusArgs),
    /// Dial an address with a running node.
    Connect {
        /// Multiaddress to dial, with or without `/p2p/<peer>`, or the id of a peer whose addresses the
        /// node knows.
        #[arg(value_name = "ADDR", value_parser = address_or_peer)]
        address: Multiaddr,
        #[command(flatten)]
        node: RunningArgs,
    },
    /// Close the connections of a running node with a peer.
    Disconnect(PeerArgs),
    /// Close the connections of a running node with a peer and refuse new ones, until it is unblocked
    /// or the node ends.
    Block(PeerArgs),
    /// Accept connections with a blocked peer again.
    Unblock(PeerArgs),
    /// List the topics of a running node, with their subscribers.
    Topics(RunningArgs),
    /// Publish messages to a topic: the arguments, or each line of standard input.
    Publish(PublishArgs),
    /// Print the messages of topics until ctrl-c.
    Subscribe(SubscribeArgs),
    /// Dial a node and print its identity and how it is reached.
    Probe(ProbeArgs),
    /// Find out which NAT this host is behind, and which direct connections it permits.
    Netcheck(NetcheckArgs),
    /// Send a file, a folder or standard input: print a ticket, and serve until ctrl-c.
    Send(SendArgs),
    /// Receive what a ticket names. Continues an earlier attempt.
    Receive(ReceiveArgs),
    /// Store, list, check and fetch blobs.
    Blob(BlobArgs),
    /// Measure throughput and round trips to a running node.
    Perf(PerfArgs),
    /// Send pings to a peer from a running node, and show the path that they take.
    Ping(PingArgs),
    /// Write an archive for a bug report: versions, configuration, status, metrics, log and the network
    /// of this host. It holds no secret.
    Diag(DiagArgs),
    /// Show, check and convert configuration files.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print the completions of a shell.
    Completions {
        /// Shell to print the completions for.
        shell: clap_complete::Shell,
    },
    /// Print or write manual pages.
    Man(ManArgs),
}

/// Addresses of a node and of the nodes that it starts from.
#[derive(Debug, Args)]
pub(crate) struct AddressArgs {
    /// Address to listen on, such as `/ip4/0.0.0.0/tcp/2428`; may be repeated. Without it, those
    /// of the configuration, by default port 2428 everywhere.
    #[arg(long, value_name = "ADDR", num_args = 1.., value_parser = address)]
    pub(crate) listen: Vec<Multiaddr>,
    /// Boot node, with its `/p2p/<peer>`, or `/dnsaddr/<name>`, a list of them: kept connected and asked
    /// for peers; may be repeated.
    #[arg(long, value_name = "ADDR", num_args = 1.., value_parser = address)]
    pub(crate) boot: Vec<Multiaddr>,
    /// Public address under which others reach this node; may be repeated. Without it, the node
    /// asks others to test its addresses.
    #[arg(long, value_name = "ADDR", num_args = 1.., value_parser = address)]
    pub(crate) external: Vec<Multiaddr>,
    /// The network lives on this machine or link: loopback and link-local addresses are dialled.
    #[arg(long)]
    pub(crate) local: bool,
    /// Name of the network: lower-case letters, digits and hyphens. A node looks for members of its
    /// own network. The name protects nothing: see docs/boot-nodes.md. `calimero-devnet` is the
    /// network of published 0.11 nodes. Without it, `run` and `boot` take
    /// `discovery.global_namespace` of the configuration; `init` asks on a terminal, and else makes
    /// a name.
    #[arg(long, value_name = "NAME")]
    pub(crate) network: Option<NetworkName>,
}

/// Arguments of the commands that are a node until ctrl-c.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    #[command(flatten)]
    pub(crate) addresses: AddressArgs,
    /// Configuration file (TOML). Keys that it does not name have the defaults of this command.
    /// Without it, `node.toml` of the data folder, if that exists.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Identity file, created if it does not exist. Without it, the identity of the data folder;
    /// without a data folder, a new identity for this run.
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) http: HttpArgs,
    /// OpenTelemetry collector to send spans to, by OTLP over HTTP: `http://HOST:PORT`, without
    /// `/v1/traces`. Without it, the value of `OTEL_EXPORTER_OTLP_ENDPOINT`, which is ignored with
    /// a warning if it cannot be used; without both, no span is sent. `OTEL_SERVICE_NAME` names the
    /// node, by default `calnet`. Needs a program that was built with the Cargo feature `otel`.
    #[arg(long, value_name = "URL")]
    pub(crate) otlp_endpoint: Option<String>,
}

/// TCP addresses at which a node serves HTTP, besides the Unix socket in its data folder.
#[derive(Debug, Args)]
pub(crate) struct HttpArgs {
    /// Address to serve the API at, over HTTP. Each request needs the token in `control/token` of
    /// the data folder, which is created if it does not exist. Without ADDR, `127.0.0.1:9429`.
    #[arg(
        long,
        value_name = "ADDR",
        num_args = 0..=1,
        default_missing_value = "127.0.0.1:9429"
    )]
    pub(crate) api: Option<SocketAddr>,
    /// Host name under which clients may ask for the API, besides `localhost` and IP addresses; may
    /// be repeated.
    #[arg(long, value_name = "NAME", requires = "api")]
    pub(crate) api_host: Vec<String>,
    /// Address to serve `/metrics`, `/status`, `/healthz` and `/readyz` at, over HTTP, without
    /// authentication. Use loopback, such as `127.0.0.1:9428`.
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Host name under which a browser or a scraper may ask for them, besides `localhost` and IP
    /// addresses; may be repeated. Other names are refused, since a web page of a stranger can
    /// name this host (DNS rebinding).
    #[arg(long, value_name = "NAME", requires = "metrics")]
    pub(crate) metrics_host: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The folder, created if it does not exist. Nothing in it is overwritten.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) addresses: AddressArgs,
}

/// A node that runs on a data folder of this machine.
#[derive(Debug, Args)]
pub(crate) struct RunningArgs {
    /// Data folder of the node, `--data` of `calnet run` or `calnet boot`.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct PeerArgs {
    /// Peer id in base58.
    #[arg(value_name = "PEER")]
    pub(crate) peer: PeerId,
    #[command(flatten)]
    pub(crate) node: RunningArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the configuration in effect: of a running node, or the file with all defaults.
    Show(ConfigSource),
    /// Read a configuration file and check that a node accepts it.
    Check(ConfigSource),
    /// Convert a configuration file of a published 0.11 node. The identity in it is not converted.
    Import {
        /// Configuration file of the published node, its `config.toml`.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// File to write, which may not exist yet. Without it, the result is printed.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// A configuration: of a running node, a file, or the defaults of a node.
#[derive(Debug, Args)]
pub(crate) struct ConfigSource {
    /// Data folder. If a node runs on it, its configuration in effect; else `node.toml` in it.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub(crate) data: Option<PathBuf>,
    /// Configuration file in TOML.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Data folder of the node, `--data` of `calnet run` or `calnet boot`.
    #[arg(long, value_name = "DIR", conflicts_with = "http")]
    pub(crate) data: Option<PathBuf>,
    /// HTTP address of the node, `--metrics` of `calnet run` or `calnet boot`, or the URL that the node
    /// prints for it.
    #[arg(long, value_name = "ADDR", value_parser = http_address)]
    pub(crate) http: Option<SocketAddr>,
}

/// The node that a command uses: a running one, or one that runs for the command alone.
#[derive(Debug, Args)]
pub(crate) struct WhereArgs {
    /// Data folder of the running node to use.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["boot", "dial", "local"])]
    pub(crate) data: Option<PathBuf>,
    /// Boot node, with its `/p2p/<peer>`, to find subscribers of the topic; may be repeated.
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub(crate) boot: Vec<Multiaddr>,
    /// Address of a subscriber of the topic; may be repeated.
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub(crate) dial: Vec<Multiaddr>,
    /// The network lives on this machine or link: loopback and link-local addresses are dialled.
    #[arg(long)]
    pub(crate) local: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// Topic to publish to.
    #[arg(value_name = "TOPIC")]
    pub(crate) topic: Topic,
    /// The messages. Without any, each line of standard input is a message.
    #[arg(value_name = "MESSAGE")]
    pub(crate) messages: Vec<String>,
    /// Time for everything, in milliseconds. What was published by then is sent. Without it, the
    /// command waits for subscribers for as long as the node keeps a message (`pubsub.keep`).
    #[arg(long, value_name = "MS", value_parser = millis)]
    pub(crate) timeout_ms: Option<Duration>,
    #[command(flatten)]
    pub(crate) at: WhereArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SubscribeArgs {
    /// Topics to subscribe to.
    #[arg(required = true, value_name = "TOPIC")]
    pub(crate) topics: Vec<Topic>,
    #[command(flatten)]
    pub(crate) at: WhereArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// Address to dial and to dial again whenever the connection is lost; may be repeated.
    #[arg(long, value_name = "ADDR", num_args = 1.., value_parser = address)]
    pub(crate) dial: Vec<Multiaddr>,
    /// Folder of the identity, the peer cache and the blobs of the node, created if it does not
    /// exist. One process at a time uses it.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Topic to subscribe to; may be repeated. Its messages are printed.
    #[arg(long, value_name = "TOPIC", num_args = 1..)]
    pub(crate) subscribe: Vec<Topic>,
    /// Topic to publish to: each line of standard input is a message. Without a subscriber, messages
    /// are kept for a while (`pubsub.keep`).
    #[arg(long, value_name = "TOPIC")]
    pub(crate) publish: Option<Topic>,
    /// Answer `calnet perf` (`/perf/1.0.0`): move up to 64 GiB for each peer, in both directions together,
    /// and end a request after 10 minutes.
    #[arg(long)]
    pub(crate) perf: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BootArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// Folder of the identity and the peer cache of the node, created if it does not exist. One
    /// process at a time uses it.
    #[arg(long, value_name = "DIR", default_value = "calnet-boot")]
    pub(crate) data: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// File or folder to send. `-` reads standard input to its end. Symbolic links in a folder are
    /// refused.
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Boot node, with its `/p2p/<peer>`, through which receivers reach this node behind a NAT; may
    /// be repeated. Without one, receivers reach the addresses of this host alone.
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub(crate) boot: Vec<Multiaddr>,
    /// Address to listen on; may be repeated. Without it, all interfaces on ports that the system
    /// chooses.
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub(crate) listen: Vec<Multiaddr>,
    /// Public address under which receivers reach this node; may be repeated.
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub(crate) external: Vec<Multiaddr>,
    /// The network lives on this machine or link: loopback and link-local addresses are in the ticket.
    #[arg(long)]
    pub(crate) local: bool,
    /// Folder that keeps the blobs and the identity, so that the ticket stays valid when the command
    /// is started again. Without it, a temporary folder that is removed at the end.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Also serve peers that know the id of the blob and do not have the ticket.
    #[arg(long)]
    pub(crate) public: bool,
    /// Print the ticket as a QR code too, if standard output is a terminal.
    #[arg(long)]
    pub(crate) qr: bool,
    /// Most bytes per second to send, 0 for no limit.
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    pub(crate) max_upload_bytes_per_s: u64,
}

#[derive(Debug, Args)]
pub(crate) struct ReceiveArgs {
    /// The ticket that `calnet send` has printed.
    #[arg(value_name = "TICKET")]
    pub(crate) ticket: Ticket,
    /// File or folder to create; `-` writes a file to standard output. Without it, the name in the
    /// ticket, else the id of the blob, in the current folder. Until it is complete, what has arrived
    /// is in a folder next to it, with `.parts` behind its name.
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    /// Replace files that exist.
    #[arg(long)]
    pub(crate) force: bool,
    /// Boot node, with its `/p2p/<peer>`, besides the relays in the ticket; may be repeated.
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub(crate) boot: Vec<Multiaddr>,
    /// Address to listen on, for connections through the NAT; may be repeated. Without it, all
    /// interfaces on ports that the system chooses.
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub(crate) listen: Vec<Multiaddr>,
    /// The network lives on this machine or link: loopback and link-local addresses are dialled.
    #[arg(long)]
    pub(crate) local: bool,
    /// Most bytes per second to receive, 0 for no limit.
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    pub(crate) max_download_bytes_per_s: u64,
}

#[derive(Debug, Args)]
pub(crate) struct BlobArgs {
    /// Folder of the blobs, `--data` of `calnet run`. If a node runs on it, the command uses that
    /// node. `add` creates a folder that does not exist; the other commands refuse it.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: BlobCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BlobCommand {
    /// Store files as blobs and print their ids. A node announces the blobs of its folder.
    Add {
        /// Regular files. `-` reads standard input to its end.
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
    /// Fetch a blob. Continues an earlier attempt.
    Get(GetArgs),
    /// List blobs and unfinished downloads.
    Ls,
    /// Delete blobs and unfinished downloads.
    Rm {
        /// Ids of the blobs to delete.
        #[arg(required = true, value_name = "ID")]
        ids: Vec<BlobId>,
    },
    /// Read blobs and compare them with their ids: all, or those named.
    Verify {
        /// Ids of the blobs to read. Without any, all blobs are read.
        #[arg(value_name = "ID")]
        ids: Vec<BlobId>,
        /// Withdraw damaged blobs: they are no longer listed, served and announced, and the next
        /// `get` or `add` stores them again. Intact chunks are kept.
        #[arg(long)]
        repair: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Id of the blob to fetch.
    #[arg(value_name = "ID")]
    pub(crate) id: BlobId,
    /// File to write once the blob is verified; `-` writes it to standard output. Without it, the
    /// blob is fetched into the data folder.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Address of a provider; may be repeated.
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub(crate) dial: Vec<Multiaddr>,
    /// Boot node, with its `/p2p/<peer>`, to find providers; may be repeated. A node that runs on the
    /// data folder connects to it as well.
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub(crate) boot: Vec<Multiaddr>,
    /// Context in which the blob is offered.
    #[arg(
        long,
        default_value = "11111111111111111111111111111111",
        value_name = "ID"
    )]
    pub(crate) context: ContextId,
    /// Time for everything, in milliseconds. Verified chunks are kept and reused by the next attempt.
    #[arg(long, value_name = "MS", value_parser = millis)]
    pub(crate) timeout_ms: Option<Duration>,
    /// The network lives on this machine or link: loopback and link-local addresses are dialled. It is
    /// refused if a node runs on the data folder, whose configuration says so.
    #[arg(long)]
    pub(crate) local: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// Address of the node. With `/p2p/<peer>`, another peer is refused.
    #[arg(value_name = "ADDR", value_parser = address)]
    pub(crate) address: Multiaddr,
    /// Number of pings to send.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) pings: u32,
    /// Time for everything, in milliseconds.
    #[arg(long, default_value = "15000", value_name = "MS", value_parser = millis)]
    pub(crate) timeout_ms: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct NetcheckArgs {
    /// Data folder of a running node, which reports what it has seen. It tests nothing for the
    /// command.
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with = "boot",
        required_unless_present = "boot"
    )]
    pub(crate) data: Option<PathBuf>,
    /// Boot node, with its `/p2p/<peer>`, to test the network with; may be repeated. Two at different
    /// IP addresses distinguish the kinds of NAT.
    #[arg(long, value_name = "ADDR", num_args = 1.., value_parser = address)]
    pub(crate) boot: Vec<Multiaddr>,
    /// Port to test, TCP and UDP, which no other process may use. It is refused while a TCP connection
    /// that used it is in `TIME_WAIT`, for a minute. 0 is a port that the system chooses.
    #[arg(
        long,
        default_value_t = 0,
        value_name = "PORT",
        conflicts_with = "data"
    )]
    pub(crate) port: u16,
    /// Ask the router to forward a port, by PCP, NAT-PMP and UPnP, until the end of the command.
    #[arg(long, conflicts_with = "data")]
    pub(crate) port_mapping: bool,
    /// Time for everything, in milliseconds. A check takes 15 to 40 s: a dial that a filter drops takes
    /// 10 s.
    #[arg(
        long,
        visible_alias = "timeout",
        default_value = "120000",
        value_name = "MS",
        value_parser = millis
    )]
    pub(crate) timeout_ms: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct PerfArgs {
    /// Address of the node, which runs `calnet run --perf` or another implementation of
    /// `/perf/1.0.0`.
    #[arg(value_name = "ADDR", value_parser = address)]
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
    /// Longest time of a test, in milliseconds: a test that is not done by then ends, and what it
    /// moved until then counts. At most half of `--timeout-ms`.
    #[arg(long, default_value = "10000", value_name = "MS", value_parser = millis)]
    pub(crate) test_ms: Duration,
    /// Time after which a test has failed, in milliseconds: the peer does not answer, or what was
    /// sent has not arrived.
    #[arg(long, default_value = "60000", value_name = "MS", value_parser = millis)]
    pub(crate) timeout_ms: Duration,
}

/// An address with a port, or an HTTP URL with such an address, whose path is ignored.
fn http_address(text: &str) -> Result<SocketAddr, String> {
    let authority = match text.strip_prefix("http://") {
        Some(rest) => rest.split('/').next().unwrap_or_default(),
        None => text,
    };
    authority
        .parse()
        .map_err(|error| format!("{error}; expected IP:PORT or http://IP:PORT"))
}

/// A multiaddress. The error shows the form, which differs from that of most programs.
pub(crate) fn address(text: &str) -> Result<Multiaddr, String> {
    text.parse().map_err(|error: multiaddr::Error| {
        format!(
            "{error}; expected an address such as /ip4/203.0.113.7/tcp/2428 or \
             /dns4/boot.example.net/tcp/2428, that of a boot node with /p2p/<peer> at its end"
        )
    })
}

/// A multiaddress, or a peer id as `/p2p/<peer>`.
fn address_or_peer(text: &str) -> Result<Multiaddr, String> {
    match text.parse::<PeerId>() {
        Ok(peer) => Ok(Multiaddr::empty().with(Protocol::P2p(peer))),
        Err(_) => address(text),
    }
}

/// Whole milliseconds above zero.
pub(crate) fn millis(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(0) => Err("must be above 0".to_owned()),
        Ok(millis) => Ok(Duration::from_millis(millis)),
        Err(error) => Err(format!("{error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_http_address_is_accepted_as_the_url_that_a_node_prints() {
        let address: SocketAddr = "127.0.0.1:9428".parse().unwrap();
        for text in [
            "127.0.0.1:9428",
            "http://127.0.0.1:9428",
            "http://127.0.0.1:9428/metrics",
        ] {
            assert_eq!(http_address(text).unwrap(), address);
        }
        assert!(http_address("https://127.0.0.1:9428").is_err());
        assert!(http_address("127.0.0.1").is_err());
    }

    #[test]
    fn a_wrong_address_is_refused_with_the_form() {
        for words in [
            &["run", "--boot", "203.0.113.7:2428"][..],
            &["init", "--data", "node", "--boot", "ADDR"],
            &["send", "file", "--external", "boot.example.net"],
            &["connect", "--data", "node", "nobody"],
            &["probe", "http://203.0.113.7"],
        ] {
            let words = ["calnet"].iter().chain(words);
            let error = Cli::try_parse_from(words.clone()).err();
            let error = error.unwrap_or_else(|| panic!("{words:?}")).to_string();
            assert!(error.contains("/ip4/203.0.113.7/tcp/2428"), "{error}");
        }
    }

    #[test]
    fn a_blob_id_may_follow_an_address() {
        let id = BlobId::from([7; 32]).to_string();
        let address = "/ip4/192.0.2.1/tcp/2428";
        for option in ["--boot", "--dial"] {
            let words = ["calnet", "blob", "get", option, address, &id];
            let parsed = Cli::try_parse_from(words);
            assert!(parsed.is_ok(), "{option}: {:?}", parsed.err());
        }
    }
}
