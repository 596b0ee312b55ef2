//! `calnet status` and `calnet peers`: a running node, by its data folder or its HTTP address.

use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table, presets::NOTHING};
use tokio::time::timeout;

use crate::{
    api::{Client, ConnectionPage, PeersPage, StatusPage},
    cli::StatusArgs,
    data::DataFolder,
    error::CommandError,
    output::Output,
    printable::Printable,
    text::{bytes, short_text},
};

/// Time for the answer.
const TIME: Duration = Duration::from_secs(10);

pub(crate) async fn status(args: StatusArgs, output: &Output) -> Result<(), CommandError> {
    output.print_lines(&page(&args).await?);
    Ok(())
}

/// The peers, a line of JSON each, or a table.
pub(crate) async fn peers(args: StatusArgs, output: &Output) -> Result<(), CommandError> {
    let connections = connections(&args).await?;
    if output.is_json() {
        connections.iter().for_each(|one| output.print(one));
        return Ok(());
    }
    output.print_lines(&table(&connections).to_string());
    let relayed = connections
        .iter()
        .filter(|one| one.relayed_because.is_some() || one.circuit_limit.is_some());
    relayed.for_each(|one| output.print(one));
    Ok(())
}

/// Asks the node for one of two answers: by its data folder, or by its HTTP address, which serves
/// the status alone.
async fn ask<T>(
    args: &StatusArgs,
    by_folder: impl AsyncFnOnce(Client) -> Result<T, CommandError>,
    by_address: impl AsyncFnOnce(Client) -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    let asked = async {
        match (&args.data, args.http) {
            (Some(data), _) => {
                let socket = DataFolder::of_running(data).socket();
                by_folder(Client::require(&socket).await?).await
            }
            (None, Some(address)) => by_address(Client::Http(address)).await,
            (None, None) => Err(CommandError::NoNode),
        }
    };
    let (what, after) = ("the node's answer", TIME);
    timeout(TIME, asked)
        .await
        .map_err(|_| CommandError::Deadline { what, after })?
}

async fn page(args: &StatusArgs) -> Result<StatusPage, CommandError> {
    let by_folder = async |node: Client| node.get("/v1/status").await;
    let by_address = async |node: Client| node.get("/status").await;
    ask(args, by_folder, by_address).await
}

/// The connections: all of them, or the oldest 256 by the HTTP address.
async fn connections(args: &StatusArgs) -> Result<Vec<ConnectionPage>, CommandError> {
    let by_folder = async |node: Client| {
        let page: PeersPage = node.get("/v1/peers").await?;
        Ok(page.connections)
    };
    let by_address = async |node: Client| {
        let page: StatusPage = node.get("/status").await?;
        Ok(page.oldest_connections)
    };
    ask(args, by_folder, by_address).await
}

/// A line for each connection.
fn table(connections: &[ConnectionPage]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header([
        "peer",
        "path",
        "way",
        "transport",
        "security",
        "age",
        "rtt",
        "received",
        "sent",
        "agent",
    ]);
    for one in connections {
        let rtt = one.round_trip_ms.map(|rtt| format!("{rtt:.1} ms"));
        table.add_row([
            Cell::new(format!("..{}", short_text(&one.peer))),
            Cell::new(&one.stack.path),
            Cell::new(if one.inbound { "in" } else { "out" }),
            Cell::new(&one.stack.transport),
            Cell::new(&one.stack.security),
            Cell::new(format!("{} s", one.age_seconds)).set_alignment(CellAlignment::Right),
            Cell::new(rtt.as_deref().unwrap_or("-")).set_alignment(CellAlignment::Right),
            Cell::new(bytes(one.received_bytes)).set_alignment(CellAlignment::Right),
            Cell::new(bytes(one.sent_bytes)).set_alignment(CellAlignment::Right),
            Cell::new(Printable(one.agent_version.as_deref().unwrap_or("-"))),
        ]);
    }
    table
}
