//! The measuring process: runs all rows in several rounds and prints medians
//! and ratios within each round.

use std::process::{Command, Stdio};

use clap::ValueEnum as _;

use crate::{
    Failure,
    child::Child,
    client::Figures,
    plan::{Part, Row, Runtime, Work, rows},
    process::Usage,
};

pub(crate) fn execute(parts: &[Part], rounds: u16, bytes: u64) -> Result<(), Failure> {
    let parts = if parts.is_empty() { &Part::ALL } else { parts };
    for part in parts {
        let rows = rows(*part, bytes);
        let mut results: Vec<Vec<Measured>> = vec![Vec::new(); rows.len()];
        for round in 0..rounds {
            for (row, results) in rows.iter().zip(&mut results) {
                eprintln!("round {} of {rounds}: {}", round + 1, row.name);
                results.push(measure(row)?);
            }
        }
        print_part(*part, &rows, &results);
    }
    Ok(())
}

/// Result of one row in one round.
#[derive(Clone, Copy, Debug)]
struct Measured {
    client: Figures,
    server: Usage,
}

fn measure(row: &Row) -> Result<Measured, Failure> {
    let mut server = Server::start(row)?;
    let output = netbench("client", row)
        .args(["--address", &server.address])
        .args(work_args(row.work))
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("{}: the client ended with {}", row.name, output.status).into());
    }
    let client = serde_json::from_slice(&output.stdout)?;
    let server = server.usage()?;
    Ok(Measured { client, server })
}

fn netbench(side: &str, row: &Row) -> Command {
    // If the path is not available, starting the command fails with an error.
    let mut command = Command::new(std::env::current_exe().unwrap_or_default());
    let runtime = match row.runtime {
        Runtime::Current => "current",
        Runtime::Multi => "multi",
        Runtime::Dedicated => "dedicated",
        Runtime::Beside => "beside",
    };
    let name = |value: Option<clap::builder::PossibleValue>| {
        value
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    };
    command
        .arg(side)
        .args(["--stack", &name(row.stack.to_possible_value())])
        .args(["--transport", &name(row.transport.to_possible_value())])
        .args(["--runtime", runtime]);
    command
}

fn work_args(work: Work) -> Vec<String> {
    let count = |name: &str, count: u32| vec![name.to_owned(), format!("--count={count}")];
    match work {
        Work::Transfer {
            bytes,
            size_bytes,
            framed,
            down,
            flush_each,
        } => {
            let mut args = vec![
                "transfer".to_owned(),
                format!("--bytes={bytes}"),
                format!("--size-bytes={size_bytes}"),
            ];
            let flags = [
                ("--framed", framed),
                ("--down", down),
                ("--flush-each", flush_each),
            ];
            let set = flags.iter().filter(|(_, set)| *set);
            args.extend(set.map(|(flag, _)| (*flag).to_owned()));
            args
        }
        Work::RoundTrips { count: n } => count("round-trips", n),
        Work::Streams { count: n } => count("streams", n),
        Work::Connect { count: n } => count("connect", n),
        Work::Idle => vec!["idle".to_owned()],
    }
}

/// A server process and its address.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(row: &Row) -> Result<Self, Failure> {
        let mut child = Child::start(netbench("serve", row))?;
        let address = child.line()?;
        Ok(Self { child, address })
    }

    fn usage(&mut self) -> Result<Usage, Failure> {
        self.child.say("")?;
        Ok(serde_json::from_str(&self.child.line()?)?)
    }
}

/// Returns the main figure of a row. Larger values are better.
fn rate(work: Work, seconds: f64) -> f64 {
    match work {
        Work::Transfer { bytes, .. } => bytes as f64 / 1e6 / seconds,
        Work::RoundTrips { count } | Work::Streams { count } | Work::Connect { count } => {
            f64::from(count) / seconds
        }
        Work::Idle => 0.0,
    }
}

fn print_part(part: Part, rows: &[Row], results: &[Vec<Measured>]) {
    println!("\n### {part:?}\n");
    println!(
        "| what | median | ratios | CPU s / GiB, client + server | peak MiB, client / server |"
    );
    println!("| --- | ---: | ---: | ---: | ---: |");
    for (row, measured) in rows.iter().zip(results) {
        let median_of = |of: &dyn Fn(&Measured) -> f64| median(measured.iter().map(of).collect());
        let figure = median_of(&|m| rate(row.work, m.client.seconds));
        let rated = row
            .against
            .iter()
            .filter(|&&other| rows[other].work != Work::Idle);
        let ratios = rated.map(|&other| {
            let each = measured.iter().zip(&results[other]).map(|(mine, theirs)| {
                ratio(
                    rate(row.work, mine.client.seconds),
                    rate(rows[other].work, theirs.client.seconds),
                )
            });
            format!("{:.2} × {}", median(each.collect()), rows[other].name)
        });
        let mib = |kib: f64| kib / 1024.0;
        println!(
            "| {} | {} | {} | {} | {:.1} / {:.1} |",
            row.name,
            unit(row.work, figure),
            ratios.collect::<Vec<_>>().join("<br>"),
            cpu(
                row.work,
                median_of(&|m| m.client.usage.cpu_seconds + m.server.cpu_seconds)
            ),
            mib(median_of(&|m| m.client.usage.peak_kib as f64)),
            mib(median_of(&|m| m.server.peak_kib as f64)),
        );
    }
}

fn unit(work: Work, figure: f64) -> String {
    match work {
        Work::Transfer { .. } => format!("{figure:.0} MB/s"),
        Work::RoundTrips { .. } | Work::Streams { .. } => format!("{figure:.0} /s"),
        Work::Connect { .. } => format!("{:.2} ms", 1e3 / figure),
        Work::Idle => String::new(),
    }
}

fn cpu(work: Work, seconds: f64) -> String {
    match work {
        Work::Transfer { bytes, .. } => {
            format!("{:.2}", seconds / (bytes as f64 / (1u64 << 30) as f64))
        }
        _ => String::new(),
    }
}

fn ratio(mine: f64, theirs: f64) -> f64 {
    if theirs == 0.0 {
        f64::NAN
    } else {
        mine / theirs
    }
}

/// Returns the median, or the larger one of the two middle values.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use proptest::prelude::*;

    use super::*;
    use crate::Cli;

    proptest! {
        #[test]
        fn the_median_is_one_of_the_values(values in prop::collection::vec(0.0..1e9f64, 1..20)) {
            let middle = median(values.clone());
            prop_assert!(values.contains(&middle));
            let below = values.iter().filter(|value| **value < middle).count();
            prop_assert!(below <= values.len() / 2);
        }
    }

    #[test]
    fn every_client_command_is_parsed() {
        for part in Part::ALL {
            for row in rows(part, 1 << 20) {
                let mut command = netbench("client", &row);
                command.args(["--address", "/ip4/127.0.0.1/tcp/1"]);
                command.args(work_args(row.work));
                let words = ["netbench".into()]
                    .into_iter()
                    .chain(command.get_args().map(Into::into));
                let parsed = Cli::try_parse_from(words.collect::<Vec<std::ffi::OsString>>());
                assert!(parsed.is_ok(), "{}: {parsed:?}", row.name);
            }
        }
    }
}
