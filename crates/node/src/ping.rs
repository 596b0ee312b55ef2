//! `calnet ping`: round trips of a running node to a peer, and the path that they take.

use std::{fmt, time::Duration};

use bytes::Bytes;
use calimero_network::PeerId;
use clap::Args;
use hyper::Method;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    api::{Client, Pong, Wait},
    cli::{RunningArgs, millis},
    data::DataFolder,
    error::{Chain, Code, CommandError, within},
    output::Output,
    signals::Signals,
};

#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    /// Peer id in base58. A peer that is not connected is dialled if an address of it is known.
    #[arg(value_name = "PEER")]
    peer: PeerId,
    /// Pings to send; 0 sends until ctrl-c.
    #[arg(long, default_value_t = 5, value_name = "COUNT")]
    count: u32,
    /// Milliseconds between the starts of two pings.
    #[arg(long, default_value = "1000", value_name = "MS", value_parser = millis)]
    interval: Duration,
    /// Time for the answer to one ping, in milliseconds, which includes the dial of the peer. Without
    /// it, the deadlines of the node hold.
    #[arg(long, value_name = "MS", value_parser = millis)]
    timeout_ms: Option<Duration>,
    #[command(flatten)]
    node: RunningArgs,
}

/// One record of `calnet ping`, besides [`Pong`].
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    /// The path of the pings: at the first one, and when it has changed.
    Path {
        peer: String,
        /// `direct` or `relayed`.
        path: String,
        transport: String,
    },
    /// A ping failed.
    NoPong { peer: String, error: String },
    /// All pings of the command.
    Pings(Pings),
}

/// The pings of a command.
#[derive(Clone, Debug, Default, Serialize)]
struct Pings {
    peer: String,
    sent: u32,
    received: u32,
    /// Shortest, mean and longest round trip.
    min_ms: Option<f64>,
    mean_ms: Option<f64>,
    max_ms: Option<f64>,
}

impl Pings {
    fn add(&mut self, time_ms: f64) {
        let count = f64::from(self.received);
        self.received += 1;
        let mean = self.mean_ms.unwrap_or_default() * count + time_ms;
        self.mean_ms = Some(mean / (count + 1.0));
        self.min_ms = Some(self.min_ms.map_or(time_ms, |min| min.min(time_ms)));
        self.max_ms = Some(self.max_ms.map_or(time_ms, |max| max.max(time_ms)));
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path {
                path, transport, ..
            } => write!(f, "path {path}, {transport}"),
            Self::NoPong { error, .. } => write!(f, "no pong: {error}"),
            Self::Pings(pings) => {
                write!(f, "{} of {} pings answered", pings.received, pings.sent)?;
                let Some(((min, mean), max)) = pings.min_ms.zip(pings.mean_ms).zip(pings.max_ms)
                else {
                    return Ok(());
                };
                write!(
                    f,
                    ", {min:.1} / {mean:.1} / {max:.1} ms (shortest, mean, longest)"
                )
            }
        }
    }
}

/// Sends pings until the count is reached or a signal arrives. Fails if the count is reached and none was answered.
pub(crate) async fn execute(
    args: PingArgs,
    output: &Output,
    mut signals: Signals,
) -> Result<(), CommandError> {
    let node = Client::require(&DataFolder::of_running(&args.node.data).socket()).await?;
    let mut pings = Pings {
        peer: args.peer.to_base58(),
        ..Pings::default()
    };
    let end = tokio::select! {
        end = send(&node, &args, &mut pings, output) => end,
        () = signals.stop() => Ok(()),
    };
    output.print(&Line::Pings(pings));
    end
}

async fn send(
    node: &Client,
    args: &PingArgs,
    pings: &mut Pings,
    output: &Output,
) -> Result<(), CommandError> {
    let target = format!("/v1/peers/{}/ping", args.peer);
    let mut ticks = interval(args.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut path = None;
    let mut failed = None;
    while args.count == 0 || pings.sent < args.count {
        ticks.tick().await;
        pings.sent = pings.sent.saturating_add(1);
        let pong = node.request::<Pong>(Method::POST, &target, Bytes::new(), Wait::WhileAlive);
        match within(args.timeout_ms, "the ping", pong).await {
            Ok(pong) => {
                let now = (pong.stack.path.clone(), pong.stack.transport.clone());
                if path.as_ref() != Some(&now) {
                    output.print(&Line::Path {
                        peer: pong.peer.clone(),
                        path: now.0.clone(),
                        transport: now.1.clone(),
                    });
                    path = Some(now);
                }
                pings.add(pong.round_trip_ms);
                output.print(&pong);
            }
            Err(error) if is_of_peer(&error) => {
                output.print(&Line::NoPong {
                    peer: args.peer.to_base58(),
                    error: Chain(&error).to_string(),
                });
                failed = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    match failed {
        Some(error) if pings.received == 0 => Err(error),
        _ => Ok(()),
    }
}

/// Returns `true` if the peer did not answer, so that it may answer the next ping.
fn is_of_peer(error: &CommandError) -> bool {
    matches!(
        error,
        CommandError::Deadline { .. }
            | CommandError::Node {
                code: Code::NotReachable | Code::TimedOut,
                ..
            }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_what_was_answered() {
        let mut pings = Pings {
            sent: 4,
            ..Pings::default()
        };
        let none = Line::Pings(pings.clone()).to_string();
        assert_eq!(none, "0 of 4 pings answered");
        [3.0, 1.0, 2.0].into_iter().for_each(|time| pings.add(time));
        let text = Line::Pings(pings).to_string();
        let expected = "3 of 4 pings answered, 1.0 / 2.0 / 3.0 ms (shortest, mean, longest)";
        assert_eq!(text, expected);
    }
}
