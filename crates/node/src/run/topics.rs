//! Topics of a running node: lines of standard input are published, messages are printed.

use std::io::{self, BufRead, Read as _};

use calimero_network::{Message, NetworkClient, PublishError, Topic, pubsub};
use tokio::sync::mpsc;

use super::lines::Line;
use crate::{
    error::{Chain, CommandError},
    output::Output,
};

/// Lines read ahead of those that are published.
pub(crate) const LINES_AHEAD: usize = 16;

/// A line of input that is to be published, or why there is no further one.
#[derive(Debug)]
pub(crate) enum Input {
    /// Without its line feed.
    Message(Vec<u8>),
    /// Longer than a message may be. It is refused as a whole: its parts are no messages.
    TooLong {
        /// Length of the line in bytes.
        size: u64,
    },
    /// The input could not be read to its end.
    Failed(io::Error),
}

impl Input {
    /// The failure of a read of standard input.
    pub(crate) fn failed(source: io::Error) -> CommandError {
        CommandError::Io {
            what: "cannot read standard input",
            source,
        }
    }
}

/// Subscribes to the topics.
pub(crate) async fn subscribe(
    client: &NetworkClient,
    topics: &[Topic],
) -> Result<(), CommandError> {
    for topic in topics {
        client.subscribe(topic).await?;
    }
    Ok(())
}

/// Publishes each line of standard input, without its line feed.
pub(super) async fn publish_lines(client: NetworkClient, topic: Topic, output: Output) {
    let (sender, mut lines) = mpsc::channel(LINES_AHEAD);
    let longest = client.config().pubsub.max_message_bytes;
    // A thread of its own that is not waited for: a read of standard input cannot be cancelled.
    std::thread::spawn(move || read_lines(io::stdin().lock(), &sender, longest));
    while let Some(line) = lines.recv().await {
        match publish_line(&client, &topic, line).await {
            Ok(line) => output.print(&line),
            // The node goes on without input.
            Err(error) => tracing::error!(error = %Chain(&error), "nothing more is published"),
        }
    }
}

/// Publishes a message and returns the record of the outcome.
pub(crate) async fn publish_line(
    client: &NetworkClient,
    topic: &Topic,
    line: Input,
) -> Result<Line, CommandError> {
    let line = match line {
        Input::Message(line) => line,
        Input::TooLong { size } => {
            let limit = client.config().pubsub.max_message_bytes;
            return Ok(too_long(topic, size, limit));
        }
        Input::Failed(source) => return Err(Input::failed(source)),
    };
    let bytes = line.len();
    Ok(match publish(client, topic, line).await {
        Ok(()) => Line::Published {
            topic: topic.to_string(),
            bytes,
        },
        Err(error) => Line::PublishFailed {
            topic: topic.to_string(),
            error: error.to_string(),
        },
    })
}

/// The record of a line that is longer than a message may be.
pub(crate) fn too_long(topic: &Topic, size: u64, limit: usize) -> Line {
    Line::PublishFailed {
        topic: topic.to_string(),
        error: format!("payload of {size} bytes, at most {limit} are allowed"),
    }
}

/// Publishes a message. Without a subscriber it is kept until there is one.
pub(crate) async fn publish(
    client: &NetworkClient,
    topic: &Topic,
    line: Vec<u8>,
) -> Result<(), PublishError> {
    let line = bytes::Bytes::from(line);
    match client.publish(topic, line.clone()).await {
        Err(PublishError::NotSent(pubsub::PublishError::NoPeers)) => {
            let time = client.config().pubsub.keep.max_time;
            client.publish_or_keep(topic, line, time).await?;
        }
        result => {
            result?;
        }
    }
    Ok(())
}

/// Reads lines until the end of `input`, until a read fails, or until the receiver is closed. Of a line
/// that is longer than `longest` bytes the rest is skipped.
pub(crate) fn read_lines(mut input: impl BufRead, sender: &mpsc::Sender<Input>, longest: usize) {
    while let Some(line) = read_line(&mut input, longest).transpose() {
        let is_last = line.is_err();
        let line = line.unwrap_or_else(Input::Failed);
        if sender.blocking_send(line).is_err() || is_last {
            return;
        }
    }
}

fn read_line(input: &mut impl BufRead, longest: usize) -> io::Result<Option<Input>> {
    let mut line = Vec::new();
    let with_line_feed = longest as u64 + 1;
    input.take(with_line_feed).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        return Ok(Some(Input::Message(line)));
    }
    if line.len() <= longest {
        // The last line of the input has no line feed.
        return Ok(Some(Input::Message(line)));
    }
    let rest = skip_line(input)?;
    let size = line.len() as u64 + rest;
    Ok(Some(Input::TooLong { size }))
}

/// Skips to the end of the line and returns the bytes before it.
fn skip_line(input: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            buffer => buffer?,
        };
        let line_feed = buffer.iter().position(|byte| *byte == b'\n');
        let before = line_feed.unwrap_or(buffer.len());
        skipped += before as u64;
        let is_end = line_feed.is_some() || buffer.is_empty();
        let read = before + usize::from(line_feed.is_some());
        input.consume(read);
        if is_end {
            return Ok(skipped);
        }
    }
}

/// The record of a received message.
pub(crate) fn line(message: &Message) -> Line {
    let text = std::str::from_utf8(&message.data).ok();
    Line::Message {
        peer: message.source.to_base58(),
        topic: message.topic.to_string(),
        text: text.map(str::to_owned),
        hex: text.is_none().then(|| hex::encode(&message.data)),
    }
}

#[cfg(test)]
mod tests;
