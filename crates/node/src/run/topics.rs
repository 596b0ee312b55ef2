//! Topics of a running node: lines of standard input are published, messages are printed.

use std::io::{self, BufRead, Read as _};

use calimero_network::{Message, NetworkClient, PublishError, Topic, pubsub};
use tokio::sync::mpsc;

use super::lines::Line;
use crate::{error::CommandError, output::Output};

/// Lines read ahead of those that are published.
pub(crate) const LINES_AHEAD: usize = 16;

/// A line of input that is to be published.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Without its line feed.
    Message(Vec<u8>),
    /// Longer than a message may be. It is refused as a whole: its parts are no messages.
    TooLong {
        /// Length of the line in bytes.
        size: u64,
    },
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
        output.print(&publish_line(&client, &topic, line).await);
    }
}

/// Publishes a message and returns the record of the outcome.
pub(crate) async fn publish_line(client: &NetworkClient, topic: &Topic, line: Input) -> Line {
    let line = match line {
        Input::Message(line) => line,
        Input::TooLong { size } => {
            return too_long(topic, size, client.config().pubsub.max_message_bytes);
        }
    };
    let bytes = line.len();
    match publish(client, topic, line).await {
        Ok(()) => Line::Published {
            topic: topic.to_string(),
            bytes,
        },
        Err(error) => Line::PublishFailed {
            topic: topic.to_string(),
            error: error.to_string(),
        },
    }
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

/// Reads lines until the end of `input`, or until the receiver is closed. Of a line that is longer
/// than `longest` bytes the rest is skipped.
pub(crate) fn read_lines(mut input: impl BufRead, sender: &mpsc::Sender<Input>, longest: usize) {
    while let Ok(Some(line)) = read_line(&mut input, longest) {
        if sender.blocking_send(line).is_err() {
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
mod tests {
    use super::*;

    #[test]
    fn lines_are_messages_and_longer_ones_are_refused_as_a_whole() {
        let (sender, mut lines) = mpsc::channel(LINES_AHEAD);
        read_lines(&b"ab\n\nabcd\nabcdef\nabcde\nend"[..], &sender, 4);
        drop(sender);
        let read: Vec<_> = std::iter::from_fn(|| lines.blocking_recv()).collect();
        let message = |text: &str| Input::Message(text.as_bytes().to_vec());
        let expected = [
            message("ab"),
            message(""),
            message("abcd"),
            Input::TooLong { size: 6 },
            Input::TooLong { size: 5 },
            message("end"),
        ];
        assert_eq!(read, expected);
    }
}
