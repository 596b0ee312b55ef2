//! `calnet`: a node of the network from the command line.

mod api;
mod blob;
mod boot;
mod cli;
mod config;
mod data;
mod demo;
mod diag;
mod environment;
mod error;
mod identity;
mod init;
mod lock;
mod log;
mod man;
mod netcheck;
mod new_file;
mod one_shot;
mod operate;
mod origins;
mod output;
mod perf;
mod ping;
mod printable;
mod probe;
mod process;
mod progress;
#[cfg(test)]
mod reference;
mod run;
mod service;
mod share;
mod signals;
mod status;
mod text;
mod topics;

use std::{io, process::ExitCode, time::Duration};

use clap::{CommandFactory as _, Parser as _};

use crate::{
    cli::{Cli, Command},
    environment::Ignored,
    error::{Code, CommandError, Failure},
    log::{Exporter, Log},
    output::{LineWriter, Output, Overflow},
    signals::Signals,
};

/// Time for the last records of a node to be written. Its reader may have stopped.
const NODE_FLUSH_TIME: Duration = Duration::from_secs(1);

/// Time for the last lines of the log.
const LOG_FLUSH_TIME: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let errors = match output::start_errors() {
        Ok(errors) => errors,
        Err(_) => return ExitCode::FAILURE,
    };
    let json = cli.json;
    let mut ignored = Vec::new();
    let log = log::filter(cli.log.as_deref(), &mut ignored).and_then(|filter| {
        let exporter = Exporter::open(cli.command.node(), &mut ignored)?;
        Log::start(filter, cli.log_format, errors.clone(), exporter)
    });
    let log = match log {
        Ok(log) => log,
        Err(error) => {
            say(&Failure::from(&error), json, &errors);
            let _ = errors.flush(LOG_FLUSH_TIME);
            return ExitCode::from(error.code().status());
        }
    };
    let threads = environment::worker_threads(&mut ignored);
    ignored.iter().for_each(Ignored::warn);
    let status = match run(cli, threads, &log) {
        Ok(status) => status,
        Err((error, status)) => {
            say(&Failure::from(&error), json, &errors);
            status
        }
    };
    log.end();
    // Neither a stopped reader nor a closed one is a reason to stay.
    let _ = errors.flush(LOG_FLUSH_TIME);
    ExitCode::from(status)
}

/// Runs a command by a number of threads. The error comes with the exit status.
fn run(cli: Cli, threads: usize, log: &Log) -> Result<u8, (CommandError, u8)> {
    let failed = |error: CommandError| {
        let status = error.code().status();
        (error, status)
    };
    let start = |error| failed(CommandError::Runtime(error));
    let is_node = matches!(
        cli.command,
        Command::Run(_) | Command::Boot(_) | Command::Demo(_)
    );
    let is_subscriber = matches!(cli.command, Command::Subscribe(_));
    // A signal is the usual end of these.
    let ends_by_signal =
        is_node || is_subscriber || matches!(cli.command, Command::Send(_) | Command::Ping(_));
    // It handles signals and the end of its reader, and sends first what it has published.
    let is_publisher = matches!(cli.command, Command::Publish(_));
    let overflow = match is_node {
        true => Overflow::Drop,
        false => Overflow::Wait,
    };
    let output = Output::start(cli.json, overflow).map_err(start)?;
    // Handled before anything starts, so that no signal is missed.
    let signals = Signals::listen(output.clone()).map_err(start)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(start)?;
    let result = runtime.block_on(async {
        let mut interrupted = signals.clone();
        tokio::select! {
            // What was done is not reported as interrupted.
            biased;
            result = execute(cli.command, output.clone(), signals.clone()) => result,
            () = log.report() => Ok(()),
            // A node goes on without a reader, and a subscriber has nothing left to do.
            () = output.closed(), if !is_node && !is_publisher => match is_subscriber {
                true => Ok(()),
                false => Err(CommandError::OutputClosed),
            },
            () = interrupted.stop(), if !ends_by_signal && !is_publisher => {
                Err(CommandError::Interrupted)
            }
        }
    });
    // Tasks that block on a file or a pipe are not waited for.
    runtime.shutdown_background();
    let flushed = match is_node {
        true => {
            let _ = output.flush(NODE_FLUSH_TIME);
            Ok(())
        }
        false => match flush_for_reader(&output, &signals) {
            // It was to go on until the signal, whether or not its last records are read.
            Err(CommandError::Interrupted) if ends_by_signal => Ok(()),
            flushed => flushed,
        },
    };
    match result.and(flushed) {
        Ok(()) => Ok(0),
        Err(error @ CommandError::Interrupted) => {
            let status = signals.status().unwrap_or(error.code().status());
            Err((error, status))
        }
        Err(error) => Err(failed(error)),
    }
}

/// Waits until the reader of a command has taken everything.
///
/// # Errors
///
/// [`CommandError::Interrupted`] if a signal ended the wait, or the wait for room of a record before;
/// the failure of standard output.
fn flush_for_reader(output: &Output, signals: &Signals) -> Result<(), CommandError> {
    loop {
        match output.flush(Duration::from_millis(100)) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                if signals.status().is_some() {
                    return Err(CommandError::Interrupted);
                }
            }
            flushed => return flushed.map_err(CommandError::of_output),
        }
    }
}

async fn execute(command: Command, output: Output, signals: Signals) -> Result<(), CommandError> {
    match command {
        Command::Demo(args) => demo::execute(args, output, signals).await,
        Command::Init(args) => init::execute(args, &output).await,
        Command::Run(args) => run::execute(args, output, signals).await,
        Command::Boot(args) => boot::execute(args, output, signals).await,
        Command::Status(args) => status::status(args, &output).await,
        Command::Peers(args) => status::peers(args, &output).await,
        Command::Connect { address, node } => operate::connect(&node, &address, &output).await,
        Command::Disconnect(args) => operate::disconnect(&args, &output).await,
        Command::Block(args) => operate::block(&args, &output).await,
        Command::Unblock(args) => operate::unblock(&args, &output).await,
        Command::Topics(args) => operate::topics(&args, &output).await,
        Command::Publish(args) => topics::publish(args, &output, signals).await,
        Command::Subscribe(args) => topics::subscribe(args, &output, signals).await,
        Command::Netcheck(args) => netcheck::execute(args, &output).await,
        Command::Probe(args) => probe::execute(args, &output).await,
        Command::Send(args) => share::send(args, &output, signals).await,
        Command::Receive(args) => share::receive(args, output).await,
        Command::Blob(args) => blob::execute(args, output).await,
        Command::Perf(args) => perf::execute(args, output).await,
        Command::Ping(args) => ping::execute(args, &output, signals).await,
        Command::Diag(args) => diag::execute(args, &output).await,
        Command::Man(args) => man::execute(args, &output),
        Command::Config { command } => config::execute(command, &output).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "calnet", &mut script);
            output.write_bytes(script)
        }
    }
}

/// Writes the last line of a command that failed to standard error.
fn say(failure: &Failure, json: bool, errors: &LineWriter) {
    let mut line = match json {
        true => output::json_line(failure),
        false => failure.to_string().into_bytes(),
    };
    line.push(b'\n');
    errors.push_or_drop(line);
}

/// Prints what is wrong with the arguments, or the help or version that they ask for.
fn refuse(error: &clap::Error) -> ExitCode {
    let json = std::env::args_os().any(|argument| argument == "--json");
    if !json || !error.use_stderr() {
        error.exit();
    }
    let text = error.render().to_string();
    let text = text.trim_end().trim_start_matches("error: ");
    if let Ok(errors) = output::start_errors() {
        say(&Failure::new(Code::Usage, text.to_owned()), json, &errors);
        let _ = errors.flush(LOG_FLUSH_TIME);
    }
    ExitCode::from(Code::Usage.status())
}
