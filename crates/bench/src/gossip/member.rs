//! One process of a run: it meets the others, and publishes or receives.
//!
//! It prints its address, reads the addresses that it dials, prints `ready`,
//! and begins with the next line, which it confirms with `begun`. It prints what
//! it received, and after another line what that cost. It ends with its standard
//! input.

use std::time::{Duration, Instant};

use bytes::Bytes;
use calimero_network::{Multiaddr, config::RuntimeKind};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines, Stdin},
    time::{interval, timeout},
};

use super::{
    Implementation, MemberArgs, Work,
    manager::ManagerMember,
    swarm::{self, SwarmMember},
    tally::{Arrivals, Tally, now_nanos},
};
use crate::{Failure, block_on, plan::Runtime, process::Mark};

/// Time until all nodes are connected and subscribed.
const MEET_TIMEOUT: Duration = Duration::from_secs(60);

/// Time between two checks of whether a mesh is complete. No event reports it.
pub(super) const MEET_INTERVAL: Duration = Duration::from_millis(10);

/// Time without a message after which the missing ones are lost. Queues hold
/// messages for 5 s, and what was dropped is offered within a few heartbeats.
const QUIET: Duration = Duration::from_secs(10);

/// Time until the first message.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// What the work has cost a process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Cost {
    pub(super) cpu_seconds: f64,
    /// Messages received from peers, duplicates included.
    pub(super) copies: u64,
}

/// A node of any implementation.
pub(super) trait Member {
    /// Listen address with the peer id.
    fn address(&self) -> &Multiaddr;

    async fn dial(&mut self, address: Multiaddr) -> Result<(), Failure>;

    /// Waits until this number of peers is subscribed and at least one of them
    /// is in the mesh.
    async fn meet(&mut self, peers: usize) -> Result<(), Failure>;

    /// Waits for messages and appends them. Cancel safe.
    async fn receive(&mut self, messages: &mut Vec<Bytes>) -> Result<(), Failure>;

    /// Publishes all messages.
    async fn publish(&mut self, work: Work) -> Result<(), Failure>;

    /// Runs the node until `other` is ready.
    async fn during<T>(&mut self, other: impl Future<Output = T>) -> T;

    /// Number of messages received from peers, duplicates included.
    async fn copies(&self) -> Result<u64, Failure>;
}

pub(crate) fn execute(args: MemberArgs) -> Result<(), Failure> {
    let runtime = match args.implementation {
        Implementation::Manager => Runtime::Dedicated,
        Implementation::Shared | Implementation::Crate | Implementation::Stock => Runtime::Current,
    };
    block_on(runtime, async move {
        match args.implementation {
            Implementation::Manager => {
                run(
                    ManagerMember::start(args.work, RuntimeKind::Dedicated).await?,
                    args,
                )
                .await
            }
            Implementation::Shared => {
                run(
                    ManagerMember::start(args.work, RuntimeKind::Shared).await?,
                    args,
                )
                .await
            }
            Implementation::Crate => {
                run(SwarmMember::start(swarm::ours(args.work)).await?, args).await
            }
            Implementation::Stock => {
                run(SwarmMember::start(swarm::stock(args.work)).await?, args).await
            }
        }
    })
}

async fn run(mut member: impl Member, args: MemberArgs) -> Result<(), Failure> {
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    println!("{}", member.address());
    let addresses = line(&mut member, &mut input).await?;
    for address in addresses.split_whitespace() {
        member.dial(address.parse()?).await?;
    }
    timeout(MEET_TIMEOUT, member.meet(args.work.nodes - 1))
        .await
        .map_err(|_| "not all nodes have met")??;
    println!("ready");
    line(&mut member, &mut input).await?;
    // From here on no event is discarded.
    println!("begun");
    let mark = Mark::now()?;
    let arrivals = if args.publish {
        member.publish(args.work).await?;
        Arrivals::default()
    } else {
        receive(&mut member, args.work).await?
    };
    println!("{}", serde_json::to_string(&arrivals)?);
    line(&mut member, &mut input).await?;
    let cost = Cost {
        cpu_seconds: mark.usage()?.cpu_seconds,
        copies: member.copies().await?,
    };
    println!("{}", serde_json::to_string(&cost)?);
    // A node that ends would cost the others while they are measured.
    while member.during(input.next_line()).await?.is_some() {}
    Ok(())
}

async fn line(
    member: &mut impl Member,
    input: &mut Lines<BufReader<Stdin>>,
) -> Result<String, Failure> {
    let line = member.during(input.next_line()).await?;
    Ok(line.ok_or("the measuring process ended")?)
}

/// Receives until all messages have arrived, or none has for some time.
async fn receive(member: &mut impl Member, work: Work) -> Result<Arrivals, Failure> {
    let (mut tally, mut messages) = (Tally::new(work.messages), Vec::new());
    let mut last = Instant::now();
    // A timer for each message would be a part of what is measured.
    let mut checks = interval(Duration::from_secs(1));
    while !tally.is_complete() {
        tokio::select! {
            biased;
            received = member.receive(&mut messages) => received?,
            _ = checks.tick() => {
                let limit = if tally.is_empty() { START_TIMEOUT } else { QUIET };
                if last.elapsed() > limit {
                    break;
                }
                continue;
            }
        }
        let nanos = now_nanos();
        for message in messages.drain(..) {
            tally.count(&message, nanos)?;
        }
        last = Instant::now();
        tally.delivered_at(last);
    }
    Ok(tally.arrivals())
}
