//! `calnet`: a node of the network from the command line.

mod blob;
mod boot;
mod cli;
mod data;
mod demo;
mod door;
mod error;
mod http;
mod identity;
mod init;
mod output;
mod perf;
mod probe;
mod progress;
mod run;
mod signals;
mod status;
mod text;
mod topics;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{
    cli::{Cli, Command},
    error::CommandError,
    output::Output,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(&cli.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(execute(cli.command)),
        Err(error) => Err(CommandError::Runtime(error)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("calnet: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(command: Command) -> Result<(), CommandError> {
    match command {
        Command::Demo(args) => demo::execute(Output::new(args.json)).await,
        Command::Init(args) => init::execute(&args),
        Command::Run(args) => run::execute(args).await,
        Command::Boot(args) => boot::execute(args).await,
        Command::Status(args) => status::status(args).await,
        Command::Peers(args) => status::peers(args).await,
        Command::Publish(args) => topics::publish(args).await,
        Command::Subscribe(args) => topics::subscribe(args).await,
        Command::Probe(args) => probe::execute(args).await,
        Command::Blob(args) => blob::execute(args).await,
        Command::Perf(args) => perf::execute(args).await,
    }
}

/// Logs go to standard error, so that standard output stays what the command prints.
fn start_log(filter: &str) {
    let filter = tracing_subscriber::EnvFilter::builder().parse_lossy(filter);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
