//! One run: the processes of one implementation, from their start to their end.

use std::process::Command;

use clap::ValueEnum as _;

use super::{Implementation, MemberArgs, Work, member::Cost, report::Figures, tally::Arrivals};
use crate::{Failure, child::Child};

/// Starts the processes, lets them meet and do the work, and returns the figures.
pub(super) fn run(implementation: Implementation, work: Work) -> Result<Figures, Failure> {
    let mut members = Vec::new();
    for nth in 0..work.nodes {
        members.push(Child::start(command(&MemberArgs {
            implementation,
            work,
            publish: nth == 0,
        }))?);
    }
    let mut addresses: Vec<String> = Vec::new();
    for member in &mut members {
        let address = member.line()?;
        member.say(&addresses.join(" "))?;
        addresses.push(address);
    }
    for member in &mut members {
        expect(member, "ready")?;
    }
    // The publisher begins when all others count.
    for member in members.iter_mut().rev() {
        member.say("go")?;
        expect(member, "begun")?;
    }
    let (publisher, receivers) = members.split_first_mut().ok_or("no process")?;
    publisher.line()?;
    let mut arrivals: Vec<Arrivals> = Vec::new();
    for receiver in receivers.iter_mut() {
        arrivals.push(serde_json::from_str(&receiver.line()?)?);
    }
    let publishing = cost(publisher)?;
    let receiving: Vec<Cost> = receivers.iter_mut().map(cost).collect::<Result<_, _>>()?;
    let receivers: Vec<_> = arrivals.into_iter().zip(receiving).collect();
    Figures::new(work, &publishing, &receivers)
}

fn expect(member: &mut Child, line: &str) -> Result<(), Failure> {
    match member.line()? {
        printed if printed == line => Ok(()),
        other => Err(format!("a process printed {other} in place of {line}").into()),
    }
}

fn cost(member: &mut Child) -> Result<Cost, Failure> {
    member.say("cost")?;
    Ok(serde_json::from_str(&member.line()?)?)
}

/// The command that starts a process of a run.
pub(super) fn command(args: &MemberArgs) -> Command {
    // If the path is not available, starting the command fails with an error.
    let mut command = Command::new(std::env::current_exe().unwrap_or_default());
    let implementation = args.implementation.to_possible_value();
    let work = &args.work;
    command
        .arg("gossip-member")
        .arg("--implementation")
        .args(implementation.map(|value| value.get_name().to_owned()))
        .arg(format!("--nodes={}", work.nodes))
        .arg(format!("--messages={}", work.messages))
        .arg(format!("--rate={}", work.rate))
        .arg(format!("--message-bytes={}", work.message_bytes));
    if let Some(bytes) = work.announce_arrival {
        command.arg(format!("--announce-arrival={bytes}"));
    }
    if args.publish {
        command.arg("--publish");
    }
    command
}
