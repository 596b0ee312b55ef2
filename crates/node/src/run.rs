//! `calnet run`: a node until ctrl-c.

use std::{fmt, fs, path::Path, time::Duration};

use calimero_network::{
    CloseReason, Keypair, Multiaddr, NetworkClient, NetworkConfig, NetworkEvent, NetworkManager,
};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::{cli::RunArgs, error::CommandError, identity, output::Output, perf, text::Stack};

/// Pauses before a lost address is dialled again; the last one repeats.
const REDIAL_PAUSES: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

pub(crate) async fn execute(args: RunArgs) -> Result<(), CommandError> {
    let output = Output::new(args.json);
    let identity = match &args.identity {
        Some(path) => identity::load_or_create(path)?,
        None => Keypair::generate_ed25519(),
    };
    let mut config = read_config(args.config.as_deref())?;
    if !args.listen.is_empty() {
        config.listen = args.listen;
    }
    // Asked for before anything runs, so that no signal falls between.
    let mut terminate = terminate_signal().map_err(CommandError::Runtime)?;
    let (client, mut events) = NetworkManager::start(identity, config).await?;
    output.print(&Line::Started {
        peer: client.peer_id().to_base58(),
    });
    let mut tasks = JoinSet::new();
    if !args.no_perf {
        let requests = client.accept(perf::PROTOCOL)?;
        tasks.spawn_on(perf::serve(requests), client.runtime());
    }
    for address in args.dial {
        tasks.spawn(keep_connected(client.clone(), address, output.clone()));
    }
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => if let Some(line) = Line::of(event) {
                    output.print(&line);
                },
                None => break,
            },
            _ = tokio::signal::ctrl_c() => break,
            () = terminate.recv() => break,
        }
    }
    tasks.shutdown().await;
    client.shutdown().await?;
    output.print(&Line::Stopped {});
    Ok(())
}

fn read_config(path: Option<&Path>) -> Result<NetworkConfig, CommandError> {
    let Some(path) = path else {
        return Ok(NetworkConfig::default());
    };
    let text = fs::read_to_string(path).map_err(|source| CommandError::ReadConfig {
        path: path.to_owned(),
        source,
    })?;
    NetworkConfig::from_toml(&text).map_err(|source| CommandError::Config {
        path: path.to_owned(),
        source,
    })
}

/// Dials an address, and again whenever its peer is lost.
async fn keep_connected(client: NetworkClient, address: Multiaddr, output: Output) {
    let mut failures = 0usize;
    loop {
        match client.dial(address.clone()).await {
            Ok(connection) => {
                failures = 0;
                while still_connected(&client, connection.peer).await {
                    tokio::time::sleep(REDIAL_PAUSES[0]).await;
                }
            }
            Err(error) => {
                output.print(&Line::DialFailed {
                    address: address.to_string(),
                    error: error.to_string(),
                });
                let pause = REDIAL_PAUSES[failures.min(REDIAL_PAUSES.len() - 1)];
                failures += 1;
                tokio::time::sleep(pause).await;
            }
        }
    }
}

async fn still_connected(client: &NetworkClient, peer: calimero_network::PeerId) -> bool {
    let status = client.status().await;
    status.is_ok_and(|status| status.connections.iter().any(|c| c.peer == peer))
}

#[cfg(unix)]
struct Terminate(tokio::signal::unix::Signal);

#[cfg(unix)]
impl Terminate {
    async fn recv(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending().await
        }
    }
}

#[cfg(unix)]
fn terminate_signal() -> std::io::Result<Terminate> {
    use tokio::signal::unix::{SignalKind, signal};
    signal(SignalKind::terminate()).map(Terminate)
}

#[cfg(not(unix))]
struct Terminate;

#[cfg(not(unix))]
impl Terminate {
    async fn recv(&mut self) {
        std::future::pending().await
    }
}

#[cfg(not(unix))]
fn terminate_signal() -> std::io::Result<Terminate> {
    Ok(Terminate)
}

/// One line of output.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    Started {
        peer: String,
    },
    Listening {
        address: String,
    },
    NotListening {
        addresses: Vec<String>,
        error: Option<String>,
    },
    Connected {
        peer: String,
        address: String,
        inbound: bool,
        #[serde(flatten)]
        stack: Stack,
    },
    Disconnected {
        peer: String,
        reason: String,
        remaining: u32,
    },
    Identified {
        peer: String,
        agent_version: String,
        protocol_version: String,
    },
    StreamReset {
        peer: String,
        protocol: String,
    },
    StreamsRefused {
        peer: String,
        protocol: String,
        reason: String,
        count: u64,
    },
    OtherStreamsRefused {
        count: u64,
    },
    DialFailed {
        address: String,
        error: String,
    },
    Lagged {
        missed: u64,
    },
    Stopped {},
}

impl Line {
    fn of(event: NetworkEvent) -> Option<Self> {
        Some(match event {
            NetworkEvent::Listening { address, .. } => Self::Listening {
                address: address.to_string(),
            },
            NetworkEvent::NotListening {
                addresses, error, ..
            } => Self::NotListening {
                addresses: addresses.iter().map(ToString::to_string).collect(),
                error: error.map(|error| error.to_string()),
            },
            NetworkEvent::Connected(connection) => Self::Connected {
                peer: connection.peer.to_base58(),
                address: connection.address.to_string(),
                inbound: connection.direction == calimero_network::Direction::Inbound,
                stack: Stack::of(&connection),
            },
            NetworkEvent::Disconnected {
                peer,
                reason,
                remaining,
                ..
            } => Self::Disconnected {
                peer: peer.to_base58(),
                reason: reason_text(&reason),
                remaining,
            },
            NetworkEvent::Identified { peer, info } => Self::Identified {
                peer: peer.to_base58(),
                agent_version: info.agent_version.clone(),
                protocol_version: info.protocol_version.clone(),
            },
            // This node has no application that would talk; dropping the stream resets it.
            NetworkEvent::StreamOpened { peer, protocol, .. } => Self::StreamReset {
                peer: peer.to_base58(),
                protocol: protocol.to_string(),
            },
            NetworkEvent::StreamsRefused {
                peer,
                protocol,
                reason,
                count,
            } => Self::StreamsRefused {
                peer: peer.to_base58(),
                protocol: protocol.to_string(),
                reason: reason.to_string(),
                count,
            },
            NetworkEvent::OtherStreamsRefused { count } => Self::OtherStreamsRefused { count },
            NetworkEvent::Lagged { missed } => Self::Lagged { missed },
            _ => return None,
        })
    }
}

fn reason_text(reason: &CloseReason) -> String {
    match reason {
        CloseReason::Local => "closed here".to_owned(),
        CloseReason::Idle => "idle".to_owned(),
        CloseReason::Unresponsive => "unresponsive".to_owned(),
        CloseReason::Remote { error } => error.to_string(),
        other => format!("{other:?}"),
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { peer } => write!(f, "started       {peer}"),
            Self::Listening { address } => write!(f, "listening     {address}"),
            Self::NotListening { addresses, error } => {
                write!(f, "not listening {}", addresses.join(", "))?;
                error.iter().try_for_each(|error| write!(f, ": {error}"))
            }
            Self::Connected {
                peer,
                address,
                inbound,
                stack,
            } => {
                let way = if *inbound { "from" } else { "to" };
                write!(f, "connected     {peer} ({way} {address}; {stack})")
            }
            Self::Disconnected {
                peer,
                reason,
                remaining,
            } => write!(f, "disconnected  {peer} ({reason}; {remaining} left)"),
            Self::Identified {
                peer,
                agent_version,
                protocol_version,
            } => write!(
                f,
                "identified    {peer} ({agent_version}, {protocol_version})"
            ),
            Self::StreamReset { peer, protocol } => {
                write!(
                    f,
                    "stream reset  {peer} ({protocol}: nothing here serves it)"
                )
            }
            Self::StreamsRefused {
                peer,
                protocol,
                reason,
                count,
            } => write!(
                f,
                "refused       {count} streams of {peer} ({protocol}: {reason})"
            ),
            Self::OtherStreamsRefused { count } => {
                write!(f, "refused       {count} streams of other peers")
            }
            Self::DialFailed { address, error } => write!(f, "dial failed   {address}: {error}"),
            Self::Lagged { missed } => write!(f, "lagged        {missed} events were dropped"),
            Self::Stopped {} => write!(f, "stopped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_tagged_json() {
        let line = Line::Lagged { missed: 3 };
        let json = serde_json::to_string(&line).unwrap();
        assert_eq!(json, r#"{"event":"lagged","missed":3}"#);
    }

    #[test]
    fn a_config_that_is_refused_names_its_file_and_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.toml");
        fs::write(&path, "[transport.quic]\nidle_timeout_ms = 1\n").unwrap();
        let error = read_config(Some(&path)).unwrap_err().to_string();
        assert!(error.contains("node.toml"), "{error}");
        assert!(error.contains("transport.quic.keep_alive_ms"), "{error}");
    }
}
