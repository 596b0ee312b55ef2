//! `calnet publish` and `calnet subscribe`: by the node that runs on a data folder, or by one that
//! lives for this alone.

use std::{io, thread, time::Duration};

use calimero_network::{
    GossipEvent, Keypair, NetworkClient, NetworkConfig, NetworkEvent, NetworkManager, Topic,
};
use serde::Deserialize as _;
use tokio::sync::mpsc;

use crate::{
    cli::{PublishArgs, SubscribeArgs, WhereArgs},
    data::DataFolder,
    door::{Client, Request},
    error::CommandError,
    output::Output,
    run::{lines::Line, topics},
    signals::Signals,
};

/// Time for a node that lives to publish to end, half of it for its messages to be written: the
/// largest one within 30 s takes 280 kbit/s.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(60);

/// Publishes what it is given, or each line of standard input, and ends when all of it is sent.
pub(crate) async fn publish(args: PublishArgs) -> Result<(), CommandError> {
    let output = Output::new(args.json);
    let PublishArgs {
        topic, messages, ..
    } = args;
    let (sender, mut lines) = mpsc::channel(topics::LINES_AHEAD);
    let longest = NetworkConfig::default().pubsub.max_message_bytes;
    // A thread of its own, which nothing waits for: a read of standard input cannot be given up.
    thread::spawn(move || match messages.is_empty() {
        true => topics::read_lines(io::stdin().lock(), &sender, longest),
        false => messages
            .into_iter()
            .try_for_each(|message| sender.blocking_send(message.into_bytes()))
            .unwrap_or_default(),
    });
    let mut failed = 0;
    let mut checks = 0;
    let mut say = |line: &Line| {
        checks += 1;
        failed += usize::from(matches!(line, Line::PublishFailed { .. }));
        output.print(line);
    };
    if let Some(mut door) = running(&args.at).await? {
        door.send(&Request::Publish { topic }).await?;
        while let Some(line) = lines.recv().await {
            door.send_message(&line).await?;
            if let Some(line) = door.next().await? {
                say(&Line::deserialize(&line)
                    .map_err(io::Error::from)
                    .map_err(not_read)?);
            }
        }
    } else {
        let node = start(&args.at).await?;
        // Who follows a topic finds the others who do.
        node.subscribe(&topic).await?;
        while let Some(line) = lines.recv().await {
            say(&topics::publish_line(&node, &topic, line).await);
        }
        node.shutdown().await?;
    }
    match failed {
        0 => Ok(()),
        failed => Err(CommandError::Checks { failed, checks }),
    }
}

/// Prints messages until a signal.
pub(crate) async fn subscribe(args: SubscribeArgs) -> Result<(), CommandError> {
    let output = Output::new(args.json);
    let mut signals = Signals::listen().map_err(CommandError::Runtime)?;
    if let Some(door) = running(&args.at).await? {
        let request = Request::Subscribe {
            topics: args.topics,
        };
        let reading = door.ask(&request, |line| {
            if let Ok(line) = Line::deserialize(&line) {
                output.print(&line);
            }
        });
        return tokio::select! {
            end = reading => end,
            () = signals.next() => Ok(()),
        };
    }
    let (client, mut events) = NetworkManager::start(identity(), config(&args.at)?).await?;
    for address in &args.at.dial {
        client.dial(address.clone()).await?;
    }
    topics::follow(&client, &args.topics).await?;
    output.print(&Line::Following {
        topics: args.topics.iter().map(Topic::to_string).collect(),
    });
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(NetworkEvent::Gossip(
                    event @ (GossipEvent::Message(_) | GossipEvent::Lagged { .. }),
                )) => output.print(&event),
                Some(_) => {}
                None => return Ok(()),
            },
            () = signals.next() => break,
        }
    }
    client.shutdown().await?;
    Ok(())
}

/// The node that runs on the data folder, where one is named.
async fn running(at: &WhereArgs) -> Result<Option<Client>, CommandError> {
    let Some(data) = &at.data else {
        return Ok(None);
    };
    let path = DataFolder::open(data)?.door();
    match Client::knock(&path).await {
        Some(door) => Ok(Some(door)),
        None => Err(CommandError::NotRunning { path }),
    }
}

/// A node that lives for this alone, and ends when what it has published is written.
async fn start(at: &WhereArgs) -> Result<NetworkClient, CommandError> {
    let mut config = config(at)?;
    config.handle.shutdown_timeout = SHUTDOWN_TIMEOUT;
    let (client, mut events) = NetworkManager::start(identity(), config).await?;
    tokio::spawn(async move { while events.next().await.is_some() {} });
    for address in &at.dial {
        client.dial(address.clone()).await?;
    }
    Ok(client)
}

fn identity() -> Keypair {
    Keypair::generate_ed25519()
}

fn config(at: &WhereArgs) -> Result<NetworkConfig, CommandError> {
    if at.boot.is_empty() && at.dial.is_empty() {
        return Err(CommandError::NobodyToAsk);
    }
    let mut config = NetworkConfig {
        listen: Vec::new(),
        ..NetworkConfig::default()
    };
    config.discovery.boot = at.boot.clone();
    config.discovery.local_network = at.local;
    Ok(config)
}

fn not_read(source: io::Error) -> CommandError {
    CommandError::Io {
        what: "the node's answer",
        source,
    }
}
