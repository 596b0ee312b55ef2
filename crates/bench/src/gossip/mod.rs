//! Gossip between processes on loopback. Each process runs one node, all nodes
//! are connected with each other, and the first one publishes. Within each
//! round, every implementation does the same work in turn.

mod manager;
mod member;
mod report;
mod run;
mod swarm;
mod tally;
#[cfg(test)]
mod tests;

use bytes::{BufMut as _, Bytes, BytesMut};
use calimero_network::{ContextId, NetworkConfig, Topic};
use clap::{Args, ValueEnum};

pub(crate) use self::member::execute as execute_member;
use self::{report::Row, tally::now_nanos};
use crate::{Failure, process};

/// Size of the message header, in bytes: number and time of publication.
const HEAD_BYTES: usize = 16;

/// Largest size of a message, in bytes: the default limit of the manager.
const MAX_MESSAGE_BYTES: i64 = 1 << 20;

/// The implementation that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Implementation {
    /// The manager with its network on a dedicated thread, as by default.
    Manager,
    /// The manager on the runtime of the program, which has one thread.
    Shared,
    /// The pubsub crate in a swarm of libp2p.
    Crate,
    /// libp2p-gossipsub with its default configuration in the same swarm.
    Stock,
}

impl Implementation {
    fn name(self) -> &'static str {
        match self {
            Self::Manager => "manager, own thread",
            Self::Shared => "manager, runtime of one thread",
            Self::Crate => "pubsub crate alone",
            Self::Stock => "stock libp2p-gossipsub",
        }
    }
}

/// Messages that one run publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
struct Work {
    /// Number of processes.
    #[arg(long)]
    nodes: usize,
    /// Number of messages.
    #[arg(long)]
    messages: u64,
    /// Messages per second, or 0 for as many as the publisher accepts.
    #[arg(long)]
    rate: u32,
    /// Size of a message, in bytes.
    #[arg(long)]
    message_bytes: usize,
    /// Size from which on an arrival is announced, if it is not the default.
    #[arg(long)]
    announce_arrival: Option<u32>,
}

impl Work {
    /// The message with this number, published now.
    fn message(&self, number: u64) -> Bytes {
        let mut message = BytesMut::with_capacity(self.message_bytes);
        message.put_u64(number);
        message.put_u64(now_nanos());
        message.resize(self.message_bytes, 0);
        message.freeze()
    }

    /// The configuration of the manager and of the crate.
    fn config(&self) -> NetworkConfig {
        let mut config = NetworkConfig {
            listen: Vec::new(),
            ..NetworkConfig::default()
        };
        if let Some(bytes) = self.announce_arrival {
            config.pubsub.mesh.announce_arrival_bytes = bytes as usize;
        }
        config
    }
}

fn topic() -> Topic {
    Topic::context(ContextId::new([7; 32]))
}

/// Options of the measurement of gossip.
#[derive(Clone, Debug, Args)]
pub(crate) struct GossipArgs {
    /// Number of rounds of which the medians are printed.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=101))]
    rounds: u16,
    /// Implementations to measure. All are measured without this option.
    #[arg(long = "implementation", value_enum, num_args = 1..)]
    implementations: Vec<Implementation>,
    /// Numbers of processes. One of them publishes.
    #[arg(long, num_args = 1.., default_values_t = [2, 5],
        value_parser = clap::value_parser!(u16).range(2..=16))]
    nodes: Vec<u16>,
    /// Messages per second. 0 is as many as the publisher accepts.
    #[arg(long = "rate", num_args = 1.., default_values_t = [0, 100, 1_000])]
    rates: Vec<u32>,
    /// Number of messages of a run without a rate.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    messages: u32,
    /// Duration of a run with a rate, in seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    /// Size of a message, in bytes.
    #[arg(long, default_value_t = 1024, value_name = "BYTES",
        value_parser = clap::value_parser!(u32).range(HEAD_BYTES as i64..=MAX_MESSAGE_BYTES))]
    message_bytes: u32,
    /// Size of a message from which on the manager and the crate announce its
    /// arrival, in bytes. Without this option it is the default.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(64..))]
    announce_arrival: Option<u32>,
    /// Print one JSON object for each row in place of a table.
    #[arg(long)]
    json: bool,
}

impl GossipArgs {
    fn works(&self) -> Vec<Work> {
        let work = |nodes: u16, rate: u32| Work {
            nodes: nodes.into(),
            messages: match rate {
                0 => self.messages.into(),
                rate => u64::from(rate) * u64::from(self.seconds),
            },
            rate,
            message_bytes: self.message_bytes as usize,
            announce_arrival: self.announce_arrival,
        };
        let rates = &self.rates;
        let each = |&nodes: &u16| rates.iter().map(move |&rate| work(nodes, rate));
        self.nodes.iter().flat_map(each).collect()
    }
}

/// Options of one process of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub(crate) struct MemberArgs {
    #[arg(long, value_enum)]
    implementation: Implementation,
    #[command(flatten)]
    work: Work,
    /// Publish the messages. Without this option the process receives them.
    #[arg(long)]
    publish: bool,
}

pub(crate) fn execute(args: &GossipArgs) -> Result<(), Failure> {
    let implementations = match args.implementations.as_slice() {
        [] => Implementation::value_variants(),
        some => some,
    };
    let works = args.works();
    let each = |&work: &Work| implementations.iter().map(move |&one| Row::new(work, one));
    let mut rows: Vec<Row> = works.iter().flat_map(each).collect();
    let load_before = process::load_average()?;
    for round in 1..=args.rounds {
        for row in &mut rows {
            eprintln!("round {round} of {}: {}", args.rounds, row.name());
            row.runs.push(run::run(row.implementation, row.work)?);
        }
    }
    if args.json {
        for row in &rows {
            println!("{}", serde_json::to_string(&row.medians())?);
        }
        return Ok(());
    }
    report::print(&rows);
    println!(
        "\nMessages of {} bytes, {} rounds. Load average (1, 5 and 15 minutes): \
         {load_before} before, {} after.",
        args.message_bytes,
        args.rounds,
        process::load_average()?
    );
    Ok(())
}
