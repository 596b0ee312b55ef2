//! `netbench` measures the network between two processes on loopback. Each
//! figure is compared with unmodified libp2p or with a raw stream, alternately
//! in the same run.
//!
//! `netbench calls` measures the handle, `netbench gossip` topics, and `netbench
//! load` a whole network in this process. `netbench measure` starts a server and a client process
//! for each figure, in several rounds, and prints medians and ratios as Markdown.
//! `serve` and `client` are these processes.

mod calls;
mod child;
mod client;
mod gossip;
mod load;
mod measure;
mod plan;
mod process;
mod serve;
mod stack;
mod traffic;
#[cfg(target_os = "linux")]
mod wan;

use std::{net::Ipv4Addr, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{
    plan::{Runtime, Work},
    stack::{Stack, Transport},
};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The error that ends a measurement. It is only printed.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Parser)]
#[command(name = "netbench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure and print a table.
    Measure(MeasureArgs),
    /// Measure calls of the handle and print a table.
    Calls(calls::CallsArgs),
    /// Run a network in this process under load and churn, and verify every
    /// result.
    Load(load::LoadArgs),
    /// Measure gossip between processes, with this network and with stock
    /// libp2p-gossipsub.
    Gossip(gossip::GossipArgs),
    /// Publish or receive, for `gossip`.
    GossipMember(gossip::MemberArgs),
    /// Measure transfers over a link with delay, rate, queue and loss. Needs root.
    #[cfg(target_os = "linux")]
    Wan(wan::WanArgs),
    /// Join two network namespaces by such a link until standard input ends. Needs root.
    #[cfg(target_os = "linux")]
    Link(wan::LinkArgs),
    /// Measure how nodes behind one link fetch a blob from the other side. Needs root.
    #[cfg(target_os = "linux")]
    Swarm(wan::SwarmArgs),
    /// Provide a blob or fetch it, for `swarm`.
    #[cfg(target_os = "linux")]
    SwarmSide(wan::SwarmSideArgs),
    /// Measure short pieces of work in round trips of a link. Needs root.
    #[cfg(target_os = "linux")]
    Trips(wan::TripsArgs),
    /// Answer short pieces of work or measure one, for `trips`.
    #[cfg(target_os = "linux")]
    TripsSide(wan::TripsSideArgs),
    /// Send or receive bytes over the kernel's TCP.
    #[cfg(target_os = "linux")]
    Raw(wan::RawArgs),
    /// Serve clients until standard input ends.
    Serve(SideArgs),
    /// Run one piece of work against a server and print its figures as JSON.
    Client(ClientArgs),
}

#[derive(Debug, Args)]
struct MeasureArgs {
    /// Number of rounds of which the median is printed.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=101))]
    rounds: u16,
    /// Parts to measure. All parts are measured without this option.
    #[arg(long, value_enum, num_args = 1..)]
    part: Vec<plan::Part>,
    /// Size of each transfer, in MiB.
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    transfer_mib: u64,
}

/// Options that select the implementation and the runtime of a process.
#[derive(Clone, Copy, Debug, Args)]
struct SideArgs {
    #[arg(long, value_enum)]
    stack: Stack,
    #[arg(long, value_enum)]
    transport: Transport,
    #[arg(long, value_enum)]
    runtime: Runtime,
    /// IP address to listen on.
    #[arg(long, default_value_t = Ipv4Addr::LOCALHOST)]
    listen: Ipv4Addr,
}

#[derive(Debug, Args)]
struct ClientArgs {
    #[command(flatten)]
    side: SideArgs,
    /// Address of the server with its peer id.
    #[arg(long)]
    address: calimero_network::Multiaddr,
    #[command(subcommand)]
    work: Work,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Measure(args) => {
            measure::execute(&args.part, args.rounds, args.transfer_mib << 20)
        }
        Command::Calls(args) => calls::execute(args),
        Command::Load(args) => load::execute(&args),
        Command::Gossip(args) => gossip::execute(&args),
        Command::GossipMember(args) => gossip::execute_member(args),
        #[cfg(target_os = "linux")]
        Command::Wan(args) => wan::execute(&args),
        #[cfg(target_os = "linux")]
        Command::Link(args) => wan::execute_link(&args),
        #[cfg(target_os = "linux")]
        Command::Swarm(args) => wan::execute_swarm(&args),
        #[cfg(target_os = "linux")]
        Command::SwarmSide(args) => wan::execute_swarm_side(&args),
        #[cfg(target_os = "linux")]
        Command::Trips(args) => wan::execute_trips(&args),
        #[cfg(target_os = "linux")]
        Command::TripsSide(args) => wan::execute_trips_side(&args),
        #[cfg(target_os = "linux")]
        Command::Raw(args) => wan::execute_raw(&args),
        Command::Serve(side) => serve::execute(side),
        Command::Client(args) => client::execute(args.side, args.address, args.work),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netbench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs `future` on the selected runtime. The configuration of the manager
/// selects the manager's own runtime.
fn block_on<T>(
    runtime: Runtime,
    future: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut builder = match runtime {
        Runtime::Current => tokio::runtime::Builder::new_current_thread(),
        Runtime::Multi | Runtime::Dedicated | Runtime::Beside => {
            tokio::runtime::Builder::new_multi_thread()
        }
    };
    builder.enable_all().build()?.block_on(future)
}
