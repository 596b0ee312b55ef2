//! `--page`: the nodes of the demonstration go on, each with its page.

use std::{net::Ipv4Addr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use calimero_network::NetworkClient;
use clap::Args;
use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use super::{
    lines::Line,
    node::{Node, temporary},
    overlay,
};
use crate::{
    api::{self, Listener, Served, Token},
    blob::{Announcer, Running},
    error::CommandError,
    origins::Origins,
    output::Output,
    run::read_text,
    signals::Signals,
};

/// Nodes whose pages are shown: the boot node and the three that the demonstration dials for.
const PAGES: usize = 4;

/// Time between two messages on the topic, so that there is something to see.
const MESSAGE_INTERVAL: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Keep the network running after the checks, until ctrl-c, and print the address of the page of
    /// four of its nodes.
    #[arg(long)]
    pub(super) page: bool,
}

/// Serves the pages of nodes and prints their addresses until a signal. Nodes and tokens exist for
/// this run alone.
pub(super) async fn serve(
    nodes: &[Node],
    output: &Output,
    signals: &mut Signals,
) -> Result<(), CommandError> {
    let folder = tempfile::tempdir().map_err(temporary)?;
    let mut tasks = JoinSet::new();
    let nodes = &nodes[..PAGES.min(nodes.len())];
    for node in nodes {
        let url = open(node, &folder, output, &mut tasks).await?;
        let node = node.name;
        output.print(&Line::Page { node, url });
    }
    let clients = nodes.iter().map(|node| node.client.clone());
    tasks.spawn(talk(clients.collect()));
    signals.stop().await;
    tasks.shutdown().await;
    Ok(())
}

/// Serves the API of a node and returns the address of its page, with the token.
async fn open(
    node: &Node,
    folder: &TempDir,
    output: &Output,
    tasks: &mut JoinSet<()>,
) -> Result<String, CommandError> {
    let path = folder.path().join(node.name).join("token");
    let token = Token::load_or_create(&path)?;
    let listener = Listener::tcp((Ipv4Addr::LOCALHOST, 0).into(), Vec::new(), token).await?;
    let url = with_token(&listener.url(), &path)?;
    let (client, store) = (node.client.clone(), node.store.clone());
    let (announcer, announcing) = Announcer::new(client.clone(), &store, output.clone());
    tasks.spawn(announcing);
    let blobs = Running {
        client: client.clone(),
        store,
        announcer,
    };
    let served = Served::new(client, Some(blobs), node.feed.clone(), Origins::default());
    tasks.spawn(api::serve(listener, Arc::new(served)));
    Ok(url)
}

/// The address of a page with the token after `#`, which a browser does not send.
fn with_token(url: &str, path: &Path) -> Result<String, CommandError> {
    Ok(format!("{url}/#token={}", read_text(path)?.trim()))
}

/// Publishes messages on the topic of the demonstration, the nodes in turn.
async fn talk(clients: Vec<NetworkClient>) {
    let mut ticks = interval(MESSAGE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for (number, client) in clients.iter().cycle().enumerate() {
        ticks.tick().await;
        let text = Bytes::from(format!("message {number}"));
        // The page shows whether it arrived.
        let _ = client.publish(&overlay::topic(), text).await;
    }
}
