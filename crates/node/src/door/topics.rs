//! Topics through the door: messages in, messages out.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use calimero_network::{Message, NetworkClient, Topic};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _},
    sync::{broadcast, mpsc},
};

use super::server::Asker;
use crate::{
    error::CommandError,
    run::{lines::Line, topics},
};

/// Messages that wait for a reader, before the oldest are dropped and it is told: 64 MiB at their
/// largest.
const MESSAGES_AHEAD: usize = 64;

/// Who reads messages of a running node through its door, and which topics it follows for them.
#[derive(Clone)]
pub(crate) struct Readers {
    messages: broadcast::Sender<Message>,
    /// How many follow a topic: the node itself, and each reader.
    followed: Arc<Mutex<HashMap<Topic, usize>>>,
}

impl Readers {
    /// A node that follows `topics` itself.
    pub(crate) fn new(topics: &[Topic]) -> Self {
        let followed = topics.iter().map(|topic| (topic.clone(), 1)).collect();
        Self {
            messages: broadcast::Sender::new(MESSAGES_AHEAD),
            followed: Arc::new(Mutex::new(followed)),
        }
    }

    /// Hands a message on to whoever reads.
    pub(crate) fn hear(&self, message: &Message) {
        if self.messages.receiver_count() > 0 {
            let _ = self.messages.send(message.clone());
        }
    }

    fn followed(&self) -> MutexGuard<'_, HashMap<Topic, usize>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A topic that is followed for a reader until it is dropped.
struct Follow {
    client: NetworkClient,
    readers: Readers,
    topic: Topic,
}

impl Follow {
    async fn begin(
        client: &NetworkClient,
        readers: &Readers,
        topic: Topic,
    ) -> Result<Self, CommandError> {
        *readers.followed().entry(topic.clone()).or_default() += 1;
        let follow = Self {
            client: client.clone(),
            readers: readers.clone(),
            topic,
        };
        // Following twice is following.
        client.subscribe(&follow.topic).await?;
        Ok(follow)
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        let mut followed = self.readers.followed();
        if let Entry::Occupied(mut count) = followed.entry(self.topic.clone()) {
            *count.get_mut() -= 1;
            if *count.get() > 0 {
                return;
            }
            count.remove();
        }
        let (client, readers, topic) = (
            self.client.clone(),
            self.readers.clone(),
            self.topic.clone(),
        );
        tokio::spawn(async move {
            // Another reader may have come since.
            if !readers.followed().contains_key(&topic) {
                let _ = client.unsubscribe(&topic).await;
            }
        });
    }
}

/// Tells the messages of topics until nobody reads them.
pub(super) async fn subscribe(
    client: &NetworkClient,
    readers: &Readers,
    topics: Vec<Topic>,
    lines: mpsc::Sender<Line>,
) -> Result<(), CommandError> {
    let mut messages = readers.messages.subscribe();
    let mut follows = Vec::with_capacity(topics.len());
    for topic in topics {
        follows.push(Follow::begin(client, readers, topic).await?);
    }
    let following = follows.iter().map(|follow| follow.topic.to_string());
    let mut line = Line::Following {
        topics: following.collect(),
    };
    while lines.send(line).await.is_ok() {
        line = loop {
            match messages.recv().await {
                Ok(message) if follows.iter().any(|follow| follow.topic == message.topic) => {
                    break topics::line(&message);
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(missed)) => break Line::Lagged { missed },
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            }
        };
    }
    Ok(())
}

/// Publishes each line that follows, and answers with a line each.
pub(super) async fn publish(
    asker: &mut Asker,
    client: &NetworkClient,
    topic: Topic,
) -> io::Result<Result<(), CommandError>> {
    let longest = client.config().pubsub.max_message_bytes as u64;
    loop {
        let mut line = Vec::new();
        let mut bounded = (&mut asker.reader).take(longest);
        if bounded.read_until(b'\n', &mut line).await? == 0 {
            return Ok(Ok(()));
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        let said = topics::publish_line(client, &topic, line).await;
        asker.write(&said).await?;
    }
}
