//! `calnet probe`: the identity of the node at an address, and how it is reached.

use std::{fmt, time::Duration};

use calimero_network::{Connection, Keypair, Multiaddr, NetworkClient, NetworkManager, PeerInfo};
use serde::Serialize;

use crate::{
    cli::ProbeArgs,
    error::CommandError,
    one_shot,
    output::Output,
    perf::ping::Pinger,
    printable::Printable,
    text::{Stack, millis},
};

pub(crate) async fn execute(args: ProbeArgs, output: &Output) -> Result<(), CommandError> {
    let what = "the probe";
    let after = args.timeout_ms;
    let probe = async {
        let client = connectable().await?;
        let report = report(&client, args.address, args.pings).await;
        client.shutdown().await?;
        report
    };
    let report = tokio::time::timeout(after, probe)
        .await
        .map_err(|_| CommandError::Deadline { what, after })??;
    output.print_lines(&report);
    Ok(())
}

/// A node for commands that dial one address.
pub(crate) async fn connectable() -> Result<NetworkClient, CommandError> {
    let config = one_shot::config(Vec::new(), false);
    let (client, _) = NetworkManager::start(Keypair::generate_ed25519(), config).await?;
    Ok(client)
}

async fn report(
    client: &NetworkClient,
    address: Multiaddr,
    pings: u32,
) -> Result<Report, CommandError> {
    let connection = client.dial(address).await?;
    let mut times = Vec::new();
    for _ in 0..pings {
        times.push(Pinger::once(client, connection.peer).await?);
    }
    let info = identified(client, &connection).await?;
    Ok(Report::new(&connection, &info, &times))
}

/// What the peer says of itself by identify.
async fn identified(
    client: &NetworkClient,
    connection: &Connection,
) -> Result<std::sync::Arc<PeerInfo>, CommandError> {
    let peer = connection.peer;
    client
        .identified(peer)
        .await?
        .ok_or(CommandError::Unidentified { peer })
}

/// The result of a probe.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "probed")]
struct Report {
    peer: String,
    address: String,
    #[serde(flatten)]
    stack: Stack,
    agent_version: String,
    protocol_version: String,
    listening: Vec<String>,
    protocols: Vec<String>,
    observed_address: String,
    ping_min_ms: f64,
    ping_median_ms: f64,
    ping_max_ms: f64,
}

impl Report {
    fn new(connection: &Connection, info: &PeerInfo, pings: &[Duration]) -> Self {
        let mut pings = pings.to_vec();
        pings.sort_unstable();
        let nth = |n: usize| pings.get(n).copied().map_or(0.0, millis);
        let mut protocols: Vec<_> = info.protocols.iter().map(ToString::to_string).collect();
        protocols.sort_unstable();
        Self {
            peer: connection.peer.to_base58(),
            address: connection.address.to_string(),
            stack: Stack::of(connection),
            agent_version: info.agent_version.clone(),
            protocol_version: info.protocol_version.clone(),
            listening: info.listening.iter().map(ToString::to_string).collect(),
            protocols,
            observed_address: info.observed.to_string(),
            ping_min_ms: nth(0),
            ping_median_ms: nth(pings.len() / 2),
            ping_max_ms: nth(pings.len().saturating_sub(1)),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "peer       {}", self.peer)?;
        writeln!(f, "address    {}", Printable(&self.address))?;
        writeln!(f, "path       {}", self.stack.path)?;
        writeln!(f, "transport  {}", self.stack.transport)?;
        writeln!(f, "security   {}", self.stack.security)?;
        writeln!(f, "muxer      {}", self.stack.muxer)?;
        writeln!(f, "agent      {}", Printable(&self.agent_version))?;
        writeln!(f, "protocol   {}", Printable(&self.protocol_version))?;
        for address in &self.listening {
            writeln!(f, "listens    {}", Printable(address))?;
        }
        for protocol in &self.protocols {
            writeln!(f, "speaks     {}", Printable(protocol))?;
        }
        writeln!(f, "sees us at {}", Printable(&self.observed_address))?;
        let (min, median, max) = (self.ping_min_ms, self.ping_median_ms, self.ping_max_ms);
        write!(
            f,
            "ping       {min:.3} / {median:.3} / {max:.3} ms (min / median / max)"
        )
    }
}
