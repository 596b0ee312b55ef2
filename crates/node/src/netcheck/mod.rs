//! `calnet netcheck`: which NAT this host is behind, and what that means for connections.
//!
//! A running node reports what it has seen. Without one, nodes that run for the command alone test
//! each protocol and version of IP that the boot nodes have; see [`protocol_test`].

mod page;
mod protocol_test;
mod servers;

use std::time::Instant;

use calimero_network::discovery::netcheck::Observations;
use futures::future::join_all;

pub(crate) use self::page::{NetcheckPage, NetworkPage};
use self::{
    page::{ServerPage, Source},
    protocol_test::Findings,
    servers::{Survey, tests_of},
};
use crate::{
    api::Client,
    cli::NetcheckArgs,
    data::DataFolder,
    error::{Chain, CommandError, within},
    output::Output,
    text::millis,
};

/// The work that a deadline of the command limits.
const CHECK: &str = "the check of the network";

pub(crate) async fn execute(args: NetcheckArgs, output: &Output) -> Result<(), CommandError> {
    let page = match &args.data {
        Some(data) => {
            let of_node = async {
                let socket = DataFolder::of_running(data).socket();
                Client::require(&socket).await?.get("/v1/netcheck").await
            };
            within(Some(args.timeout_ms), CHECK, of_node).await?
        }
        None => probe(&args).await?,
    };
    output.print_lines(&page);
    page.require_boot_node()
}

/// Tests the network with nodes that run for the command alone.
async fn probe(args: &NetcheckArgs) -> Result<NetcheckPage, CommandError> {
    let start = Instant::now();
    let taken = Survey::take(&args.boot, args.port_mapping);
    let mut survey = within(Some(args.timeout_ms), CHECK, taken).await?;
    let left = args.timeout_ms.saturating_sub(start.elapsed());
    let page = within(Some(left), CHECK, test(&mut survey, args)).await;
    // Also after a failure: it withdraws the port mappings.
    survey.end().await;
    page
}

/// Tests each protocol with the boot nodes of a survey.
async fn test(survey: &mut Survey, args: &NetcheckArgs) -> Result<NetcheckPage, CommandError> {
    let tests = tests_of(&survey.servers, args.port);
    tests.iter().try_for_each(protocol_test::check_port)?;
    let findings = join_all(tests.into_iter().map(protocol_test::run)).await;
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
            observed,
            dial_backs,
            hairpin: turned,
            path_mtu,
        } = found;
        observations.own.extend(own);
        observations.attempts.extend(attempts);
        observations.observed.extend(observed);
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
    Ok(NetcheckPage {
        source: Source::Probe.name().to_owned(),
        network: NetworkPage::of(&observations),
        hairpin,
        servers: servers.collect(),
    })
}
