//! Commands that a running node carries out: `connect`, `disconnect`, `block`, `unblock`, `topics`.

use bytes::Bytes;
use calimero_network::Multiaddr;
use hyper::Method;

use crate::{
    api::{Client, ConnectionPage, PeerChange, Query, TopicsPage, Wait},
    cli::{PeerArgs, RunningArgs},
    data::DataFolder,
    error::CommandError,
    output::Output,
};

async fn node(args: &RunningArgs) -> Result<Client, CommandError> {
    Client::require(&DataFolder::of_running(&args.data).socket()).await
}

pub(crate) async fn connect(
    args: &RunningArgs,
    address: &Multiaddr,
    output: &Output,
) -> Result<(), CommandError> {
    let target = Query::to("/v1/peers").with("address", address).build();
    let node = node(args).await?;
    let connection: ConnectionPage = node
        .request(Method::POST, &target, Bytes::new(), Wait::WhileAlive)
        .await?;
    output.print(&connection);
    Ok(())
}

pub(crate) async fn disconnect(args: &PeerArgs, output: &Output) -> Result<(), CommandError> {
    change(args, Method::DELETE, "", output).await
}

pub(crate) async fn block(args: &PeerArgs, output: &Output) -> Result<(), CommandError> {
    change(args, Method::POST, "/block", output).await
}

pub(crate) async fn unblock(args: &PeerArgs, output: &Output) -> Result<(), CommandError> {
    change(args, Method::DELETE, "/block", output).await
}

async fn change(
    args: &PeerArgs,
    method: Method,
    end: &str,
    output: &Output,
) -> Result<(), CommandError> {
    let target = format!("/v1/peers/{}{end}", args.peer);
    let node = node(&args.node).await?;
    let change: PeerChange = node
        .request(method, &target, Bytes::new(), Wait::Short)
        .await?;
    output.print(&change);
    Ok(())
}

pub(crate) async fn topics(args: &RunningArgs, output: &Output) -> Result<(), CommandError> {
    let page: TopicsPage = node(args).await?.get("/v1/topics").await?;
    page.topics.iter().for_each(|topic| output.print(topic));
    Ok(())
}
