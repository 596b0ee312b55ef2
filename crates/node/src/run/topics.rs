//! Topics of a running node: lines of standard input go out, messages are printed.

use std::io::{self, BufRead, Read as _};

use calimero_network::{Message, NetworkClient, PublishError, Topic, pubsub};
use tokio::sync::mpsc;

use super::lines::Line;
use crate::{error::CommandError, output::Output};

/// Lines read ahead of those that are sent.
pub(crate) const LINES_AHEAD: usize = 16;

/// Follows the topics.
pub(crate) async fn follow(client: &NetworkClient, topics: &[Topic]) -> Result<(), CommandError> {
    for topic in topics {
        client.subscribe(topic).await?;
    }
    Ok(())
}

/// Publishes each line of standard input, without its end. A line that is longer than a message
/// may be goes out as several.
pub(super) async fn publish_lines(client: NetworkClient, topic: Topic, output: Output) {
    let (sender, mut lines) = mpsc::channel(LINES_AHEAD);
    let longest = client.config().pubsub.max_message_bytes;
    // A thread of its own, which nothing waits for: a read of standard input cannot be given up.
    std::thread::spawn(move || read_lines(io::stdin().lock(), &sender, longest));
    while let Some(line) = lines.recv().await {
        output.print(&publish_line(&client, &topic, line).await);
    }
}

/// Publishes a message, and says what became of it.
pub(crate) async fn publish_line(client: &NetworkClient, topic: &Topic, line: Vec<u8>) -> Line {
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

/// Sends a message, or keeps it until somebody follows the topic.
async fn publish(client: &NetworkClient, topic: &Topic, line: Vec<u8>) -> Result<(), PublishError> {
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

/// Reads until the end, or until nobody wants more.
pub(crate) fn read_lines(mut input: impl BufRead, sender: &mpsc::Sender<Vec<u8>>, longest: usize) {
    loop {
        let mut line = Vec::new();
        let mut piece = (&mut input).take(longest as u64);
        if !matches!(piece.read_until(b'\n', &mut line), Ok(1..)) {
            return;
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if matches!(input.fill_buf(), Ok([b'\n', ..])) {
            // The end of a line that is as long as a message may be.
            input.consume(1);
        }
        if sender.blocking_send(line).is_err() {
            return;
        }
    }
}

/// A message as it is printed.
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
    fn lines_are_messages_and_longer_ones_several() {
        let (sender, mut lines) = mpsc::channel(LINES_AHEAD);
        read_lines(&b"ab\n\nabcd\nabcdef\nend"[..], &sender, 4);
        drop(sender);
        let read: Vec<_> = std::iter::from_fn(|| lines.blocking_recv()).collect();
        assert_eq!(read, [&b"ab"[..], b"", b"abcd", b"abcd", b"ef", b"end"]);
    }
}
