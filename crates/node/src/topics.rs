//! `calnet publish` and `calnet subscribe`, by the node that runs on a data folder or by a node that
//! runs for the command alone.

use std::{io, pin::pin, thread, time::Duration};

use calimero_network::{
    GossipEvent, Keypair, NetworkClient, NetworkConfig, NetworkEvent, NetworkManager, Topic,
};
use hyper::Method;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::{
    api::{Client, Query, Wait},
    cli::{PublishArgs, SubscribeArgs, WhereArgs},
    data::DataFolder,
    error::{CommandError, within},
    one_shot,
    output::Output,
    run::{
        lines::Line,
        topics::{self, Input},
    },
    signals::Signals,
};

/// Time for a node that runs for one `publish` to end. Half of it is for its messages to be written:
/// 30 s are enough for the largest message at 280 kbit/s.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(60);

/// The node that publishes, and its limit of the length of a message in bytes.
enum Publisher {
    /// The node of a data folder.
    Running { node: Client, longest: usize },
    /// A node of this command.
    Own { node: NetworkClient, longest: usize },
}

impl Publisher {
    async fn begin(at: &WhereArgs, topic: &Topic) -> Result<Self, CommandError> {
        if let Some(node) = running(at).await? {
            // Only the one value, because a node of another version has other keys.
            let config: Value = node.get("/v1/config").await?;
            let longest = config.pointer("/config/pubsub/max_message_bytes");
            let longest = longest.and_then(|longest| usize::try_from(longest.as_u64()?).ok());
            let default = || NetworkConfig::default().pubsub.max_message_bytes;
            let longest = longest.unwrap_or_else(default);
            return Ok(Self::Running { node, longest });
        }
        let node = start(at).await?;
        // A subscriber of a topic finds the other ones.
        node.subscribe(topic).await?;
        let longest = node.config().pubsub.max_message_bytes;
        Ok(Self::Own { node, longest })
    }
}

/// Publishes the messages of the command line, or each line of standard input, and ends when all of
/// them are sent. After a signal, and without a reader of standard output, no further message is
/// published, and those before are sent.
pub(crate) async fn publish(
    args: PublishArgs,
    output: &Output,
    mut signals: Signals,
) -> Result<(), CommandError> {
    let PublishArgs {
        topic,
        messages,
        timeout_ms,
        at,
    } = args;
    let mut stopped = pin!(async {
        let stop = async {
            tokio::select! {
                () = output.closed() => CommandError::OutputClosed,
                () = signals.stop() => CommandError::Interrupted,
            }
        };
        match within(timeout_ms, "the command", async { Ok(stop.await) }).await {
            Ok(error) | Err(error) => error,
        }
    });
    let publisher = tokio::select! {
        publisher = Publisher::begin(&at, &topic) => publisher?,
        error = &mut stopped => return Err(error),
    };
    let (Publisher::Running { longest, .. } | Publisher::Own { longest, .. }) = publisher;
    let (sender, mut lines) = mpsc::channel(topics::LINES_AHEAD);
    // A thread of its own that is not waited for: a read of standard input cannot be cancelled.
    thread::spawn(move || match messages.is_empty() {
        true => topics::read_lines(io::stdin().lock(), &sender, longest),
        false => messages
            .into_iter()
            .try_for_each(|message| sender.blocking_send(input(message, longest)))
            .unwrap_or_default(),
    });
    let mut failed = 0;
    let mut checks = 0;
    let mut say = |line: &Line| {
        checks += 1;
        failed += usize::from(matches!(line, Line::PublishFailed { .. }));
        output.print(line);
    };
    match publisher {
        Publisher::Running { node, .. } => {
            let target = Query::to("/v1/topics/messages")
                .with("topic", &topic)
                .build();
            let publishing = async {
                while let Some(line) = lines.recv().await {
                    let line = match line {
                        Input::Message(line) => line,
                        Input::TooLong { size } => {
                            say(&topics::too_long(&topic, size, longest));
                            continue;
                        }
                        Input::Failed(source) => return Err(Input::failed(source)),
                    };
                    let published = node
                        .request(Method::POST, &target, line.into(), Wait::WhileAlive)
                        .await;
                    say(&match published {
                        Err(CommandError::Node { message, .. }) => Line::PublishFailed {
                            topic: topic.to_string(),
                            error: message,
                        },
                        published => published?,
                    });
                }
                Ok(())
            };
            tokio::select! {
                biased;
                end = publishing => end?,
                error = &mut stopped => return Err(error),
            }
        }
        Publisher::Own { node, .. } => {
            let publishing = async {
                while let Some(line) = lines.recv().await {
                    say(&topics::publish_line(&node, &topic, line).await?);
                }
                Ok(())
            };
            let end = tokio::select! {
                biased;
                end = publishing => end,
                error = &mut stopped => Err(error),
            };
            // What was published is sent first.
            node.shutdown().await?;
            end?;
        }
    }
    match failed {
        0 => Ok(()),
        failed => Err(CommandError::Checks { failed, checks }),
    }
}

/// A message of the command line.
fn input(message: String, longest: usize) -> Input {
    match message.len() > longest {
        true => Input::TooLong {
            size: message.len() as u64,
        },
        false => Input::Message(message.into_bytes()),
    }
}

/// Prints messages until a signal.
pub(crate) async fn subscribe(
    args: SubscribeArgs,
    output: &Output,
    mut signals: Signals,
) -> Result<(), CommandError> {
    if let Some(node) = running(&args.at).await? {
        let query = Query::to("/v1/topics/messages");
        let named = |query: Query, topic| query.with("topic", topic);
        let target = args.topics.iter().fold(query, named).build();
        return tokio::select! {
            end = print_messages(&node, &target, output) => end,
            () = signals.stop() => Ok(()),
        };
    }
    let (client, mut events) = NetworkManager::start(identity(), config(&args.at)?).await?;
    for address in &args.at.dial {
        client.dial(address.clone()).await?;
    }
    topics::subscribe(&client, &args.topics).await?;
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
            () = signals.stop() => break,
        }
    }
    client.shutdown().await?;
    Ok(())
}

async fn print_messages(node: &Client, target: &str, output: &Output) -> Result<(), CommandError> {
    let mut messages = node.events(Method::GET, target).await?;
    while let Some(line) = messages.next::<Line>().await? {
        output.print(&line);
    }
    Ok(())
}

/// The node that runs on the data folder, if one is named.
async fn running(at: &WhereArgs) -> Result<Option<Client>, CommandError> {
    let Some(data) = &at.data else {
        return Ok(None);
    };
    let path = DataFolder::of_running(data).socket();
    Client::require(&path).await.map(Some)
}

/// Starts a node that runs for one command and ends once its messages are written.
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
        return Err(CommandError::NoPeers);
    }
    Ok(one_shot::config(at.boot.clone(), at.local))
}
