//! `calnet status` and `calnet peers`: a running node, by its control socket or over HTTP.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use comfy_table::{Cell, CellAlignment, Table, presets::NOTHING};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    cli::StatusArgs,
    control::Client,
    data::DataFolder,
    error::CommandError,
    http::status::StatusPage,
    output::Output,
    text::{bytes, short_text},
};

/// Time for the answer.
const TIME: Duration = Duration::from_secs(10);

/// Longest page that is read, in bytes: 256 connections and thousands of overlays take less than
/// one.
const MAX_PAGE_BYTES: usize = 8 << 20;

pub(crate) async fn status(args: StatusArgs, output: &Output) -> Result<(), CommandError> {
    output.print(&page(&args).await?);
    Ok(())
}

/// The peers, a line of JSON each, or a table.
pub(crate) async fn peers(args: StatusArgs, output: &Output) -> Result<(), CommandError> {
    let page = page(&args).await?;
    if output.is_json() {
        page.oldest_connections
            .iter()
            .for_each(|one| output.print(one));
        return Ok(());
    }
    output.print(&table(&page).to_string());
    Ok(())
}

async fn page(args: &StatusArgs) -> Result<StatusPage, CommandError> {
    let asked = async {
        match (&args.data, args.http) {
            (Some(data), _) => by_control(&DataFolder::of_running(data)).await,
            (None, Some(address)) => by_http(address).await,
            (None, None) => Err(CommandError::NoNode),
        }
    };
    let (what, after) = ("the node's answer", TIME);
    timeout(TIME, asked)
        .await
        .map_err(|_| CommandError::Deadline { what, after })?
}

async fn by_control(data: &DataFolder) -> Result<StatusPage, CommandError> {
    let node = Client::require(&data.control()).await?;
    node.get("/v1/status").await
}

async fn by_http(address: SocketAddr) -> Result<StatusPage, CommandError> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|source| CommandError::Io {
            what: "the node's page",
            source,
        })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(unreadable)?;
    tokio::spawn(connection);
    let request = Request::get("/status")
        .header(HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(unreadable)?;
    let response = sender.send_request(request).await.map_err(unreadable)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_PAGE_BYTES);
    let body = body.collect().await.map_err(unreadable)?.to_bytes();
    match status {
        StatusCode::OK => serde_json::from_slice(&body).map_err(unreadable),
        other => Err(unreadable(format!("HTTP status {other}"))),
    }
}

fn unreadable(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CommandError {
    CommandError::Io {
        what: "the node's page",
        source: std::io::Error::other(why),
    }
}

/// A line for each connection.
fn table(page: &StatusPage) -> Table {
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
    for one in &page.oldest_connections {
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
            Cell::new(one.agent_version.as_deref().unwrap_or("-")),
        ]);
    }
    table
}
