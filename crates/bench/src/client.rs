//! The client process: runs one piece of work and prints its figures as JSON.

use std::{sync::Arc, time::Instant};

use calimero_network::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};

use crate::{
    Failure, SideArgs, block_on,
    plan::Work,
    process::{Mark, Usage},
    stack::Node,
    traffic,
};

/// The figures that a client prints.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Duration of the work, in seconds.
    pub(crate) seconds: f64,
    /// Resource usage of this process for the work.
    pub(crate) usage: Usage,
}

pub(crate) fn execute(side: SideArgs, address: Multiaddr, work: Work) -> Result<(), Failure> {
    let figures = block_on(side.runtime, async move {
        match work {
            Work::Connect { count } => connect(side, &address, count).await,
            _ => on_one_connection(side, &address, work).await,
        }
    })?;
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

async fn on_one_connection(
    side: SideArgs,
    address: &Multiaddr,
    work: Work,
) -> Result<Figures, Failure> {
    let (node, _) = Node::start(side, &traffic::PROTOCOL).await?;
    let peer = node.dial(address).await?;
    // The first stream of a connection includes round trips of the connection
    // setup and is not measured.
    let node = Arc::new(node);
    streams(node.clone(), peer, Work::Streams { count: 1 }, 1).await?;
    let mark = Mark::now()?;
    let started = Instant::now();
    let count = match work {
        Work::Streams { count } => count,
        _ => 1,
    };
    node.run(side.runtime, streams(node.clone(), peer, work, count))
        .await?;
    Ok(Figures {
        seconds: started.elapsed().as_secs_f64(),
        usage: mark.usage()?,
    })
}

async fn streams(node: Arc<Node>, peer: PeerId, work: Work, count: u32) -> Result<(), Failure> {
    for _ in 0..count {
        let stream = node.open(peer, &traffic::PROTOCOL).await?;
        traffic::ask(stream, work).await?;
    }
    Ok(())
}

/// Creates a new node for each connection, so that no connection or session is
/// reused.
async fn connect(side: SideArgs, address: &Multiaddr, count: u32) -> Result<Figures, Failure> {
    let mark = Mark::now()?;
    let mut seconds = 0.0;
    for _ in 0..count {
        let (node, _) = Node::start(side, &traffic::PROTOCOL).await?;
        let started = Instant::now();
        let peer = node.dial(address).await?;
        let node = Arc::new(node);
        let first = streams(node.clone(), peer, Work::Streams { count: 1 }, 1);
        node.run(side.runtime, first).await?;
        seconds += started.elapsed().as_secs_f64();
    }
    Ok(Figures {
        seconds,
        usage: mark.usage()?,
    })
}
