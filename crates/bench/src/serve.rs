//! The server process. It prints its address and serves streams. For each line
//! on standard input it prints its resource usage since the previous line.

use futures::StreamExt as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::{Failure, SideArgs, block_on, process::Mark, stack::Node, traffic};

pub(crate) fn execute(side: SideArgs) -> Result<(), Failure> {
    block_on(side.runtime, async move {
        let (node, mut streams) = Node::start(side, &traffic::PROTOCOL).await?;
        println!("{}", node.address().await?);
        tokio::spawn(async move {
            let answering = async move {
                while let Some(stream) = streams.next().await {
                    tokio::spawn(async move {
                        if let Err(error) = traffic::answer(stream).await {
                            eprintln!("netbench serve: {error}");
                        }
                    });
                }
                Ok(())
            };
            node.run(side.runtime, answering).await
        });
        let mut mark = Mark::now()?;
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while lines.next_line().await?.is_some() {
            println!("{}", serde_json::to_string(&mark.usage()?)?);
            mark = Mark::now()?;
        }
        Ok(())
    })
}
