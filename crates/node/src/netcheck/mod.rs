//! `calnet netcheck`: which NAT this host is behind, and what that means for connections.
//!
//! A running node reports what it has seen. Without one, nodes that run for the command alone test
//! each protocol and version of IP that the boot nodes have; see [`lane`].

mod lane;
mod page;
mod servers;

use calimero_network::discovery::netcheck::Observations;
use futures::future::join_all;
use tokio::time::timeout;

pub(crate) use self::page::{NetcheckPage, NetworkPage};
use self::{
    lane::Findings,
    page::{ServerPage, Source},
    servers::{Survey, lanes_of},
};
use crate::{
    api::Client,
    cli::NetcheckArgs,
    data::DataFolder,
    error::{Chain, CommandError},
    output::Output,
    text::millis,
};

pub(crate) async fn execute(args: NetcheckArgs, output: &Output) -> Result<(), CommandError> {
    let after = args.timeout_ms;
    let check = async {
        match &args.data {
            Some(data) => {
                let socket = DataFolder::of_running(data).socket();
                Client::require(&socket).await?.get("/v1/netcheck").await
            }
            None => probe(&args).await,
        }
    };
    let what = "the check of the network";
    let page: NetcheckPage = timeout(after, check)
        .await
        .map_err(|_| CommandError::Deadline { what, after })??;
    output.print(&page);
    page.require_boot_node()
}

/// Tests the network with nodes that run for the command alone.
async fn probe(args: &NetcheckArgs) -> Result<NetcheckPage, CommandError> {
    let mut survey = Survey::take(&args.boot, args.port_mapping).await?;
    let lanes = lanes_of(&survey.servers, args.port);
    lanes.iter().try_for_each(lane::check_port)?;
    let findings = join_all(lanes.into_iter().map(lane::test)).await;
    let findings = findings.into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut observations = Observations {
        port_mapping: survey.port_mapping().await,
        ..Observations::default()
    };
    let mut hairpin = None;
    let mut mtu = Vec::new();
    for found in findings {
        let Findings {
            own,
            attempts,
            sightings,
            dial_backs,
            hairpin: turned,
            path_mtu,
        } = found;
        observations.own.extend(own);
        observations.attempts.extend(attempts);
        observations.sightings.extend(sightings);
        observations.dial_backs.extend(dial_backs);
        hairpin = hairpin.max(turned);
        mtu.extend(path_mtu);
    }
    let servers = survey.servers.iter().map(|server| ServerPage {
        peer: server.peer.to_base58(),
        boot_node: true,
        relay: server.relay,
        connected: server.failure.is_none(),
        error: server
            .failure
            .as_ref()
            .map(|error| Chain(error).to_string()),
        round_trip_ms: server.round_trip.map(millis),
        path_mtu_bytes: mtu
            .iter()
            .filter(|(peer, _)| *peer == server.peer)
            .map(|(_, bytes)| *bytes)
            .max(),
    });
    let page = NetcheckPage {
        source: Source::Probe.name().to_owned(),
        network: NetworkPage::of(&observations),
        hairpin,
        servers: servers.collect(),
    };
    survey.end().await;
    Ok(page)
}
