//! Topics and events.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use calimero_network::{Message, NetworkClient, Topic};
use futures::stream;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::{self, error::RecvError};

use super::{
    answer::{self, Answer},
    server::Served,
    target::Parameters,
};
use crate::{
    error::CommandError,
    output::json_line,
    run::{
        lines::Line,
        topics::{self, Input},
    },
};

/// Messages that wait for one client. Then the oldest are dropped and counted: 64 MiB at the largest
/// size of a message.
const MESSAGES_AHEAD: usize = 64;

/// Records that wait for one client. Then the oldest are dropped and counted.
const RECORDS_AHEAD: usize = 256;

/// What clients of the control interface read of a node: the messages of topics and the records that
/// it prints.
#[derive(Clone)]
pub(crate) struct Feed {
    messages: broadcast::Sender<Message>,
    records: broadcast::Sender<Bytes>,
    /// Subscriptions of a topic: by the node itself and by each client.
    subscribed: Arc<Mutex<HashMap<Topic, usize>>>,
}

impl Feed {
    /// The feed of a node that subscribes to `topics` itself.
    pub(crate) fn new(topics: &[Topic]) -> Self {
        let subscribed = topics.iter().map(|topic| (topic.clone(), 1)).collect();
        Self {
            messages: broadcast::Sender::new(MESSAGES_AHEAD),
            records: broadcast::Sender::new(RECORDS_AHEAD),
            subscribed: Arc::new(Mutex::new(subscribed)),
        }
    }

    /// Passes a message to the clients that subscribe.
    pub(crate) fn on_message(&self, message: &Message) {
        if self.messages.receiver_count() > 0 {
            let _ = self.messages.send(message.clone());
        }
    }

    /// Passes a record to the clients that read events.
    pub(crate) fn on_record(&self, record: &impl Serialize) {
        if self.records.receiver_count() > 0 {
            let _ = self.records.send(json_line(record).into());
        }
    }

    fn subscribed(&self) -> MutexGuard<'_, HashMap<Topic, usize>> {
        self.subscribed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A subscription for one client, until it is dropped.
struct Subscription {
    client: NetworkClient,
    feed: Feed,
    topic: Topic,
}

impl Subscription {
    async fn begin(
        client: &NetworkClient,
        feed: &Feed,
        topic: Topic,
    ) -> Result<Self, CommandError> {
        *feed.subscribed().entry(topic.clone()).or_default() += 1;
        let subscription = Self {
            client: client.clone(),
            feed: feed.clone(),
            topic,
        };
        // A second call for the same topic changes nothing.
        client.subscribe(&subscription.topic).await?;
        Ok(subscription)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut subscribed = self.feed.subscribed();
        if let Entry::Occupied(mut count) = subscribed.entry(self.topic.clone()) {
            *count.get_mut() -= 1;
            if *count.get() > 0 {
                return;
            }
            count.remove();
        }
        let (client, feed, topic) = (self.client.clone(), self.feed.clone(), self.topic.clone());
        tokio::spawn(async move {
            // Another client may have subscribed since.
            if !feed.subscribed().contains_key(&topic) {
                let _ = client.unsubscribe(&topic).await;
            }
        });
    }
}

/// A topic that this node is subscribed to.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename = "topic")]
pub(crate) struct TopicPage {
    topic: String,
    /// Connected peers that are subscribed.
    subscribers: Vec<String>,
    /// Peers to which messages are pushed.
    mesh: Vec<String>,
}

impl std::fmt::Display for TopicPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (subscribers, mesh) = (self.subscribers.len(), self.mesh.len());
        write!(
            f,
            "{} ({subscribers} subscribers, {mesh} in the mesh)",
            self.topic
        )
    }
}

/// All topics that this node is subscribed to.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename = "topics")]
pub(crate) struct TopicsPage {
    pub(crate) topics: Vec<TopicPage>,
}

pub(super) async fn list(served: &Served) -> Result<Answer, CommandError> {
    let mut names: Vec<_> = served.feed.subscribed().keys().cloned().collect();
    names.sort_unstable();
    let mut topics = Vec::with_capacity(names.len());
    for topic in names {
        let texts =
            |peers: Vec<calimero_network::PeerId>| peers.iter().map(ToString::to_string).collect();
        topics.push(TopicPage {
            subscribers: texts(served.client.subscribed_peers(&topic).await?),
            mesh: texts(served.client.mesh_peers(&topic).await?),
            topic: topic.to_string(),
        });
    }
    Ok(answer::record(&TopicsPage { topics }))
}

/// Subscribes, and sends the messages of the topics for as long as the client reads.
pub(super) async fn subscribe(
    served: &Served,
    parameters: &Parameters,
) -> Result<Answer, CommandError> {
    let messages = served.feed.messages.subscribe();
    let mut subscriptions = Vec::new();
    for topic in parameters.all("topic")? {
        subscriptions.push(Subscription::begin(&served.client, &served.feed, topic).await?);
    }
    if subscriptions.is_empty() {
        return Err(CommandError::Usage("name a topic".to_owned()));
    }
    let topics = subscriptions.iter().map(|one| one.topic.to_string());
    let first = json_line(&Line::Following {
        topics: topics.collect(),
    });
    let rest = stream::unfold(
        (messages, subscriptions),
        |(mut messages, subscriptions)| async move {
            loop {
                let line = match messages.recv().await {
                    Ok(message) if subscriptions.iter().any(|one| one.topic == message.topic) => {
                        topics::line(&message)
                    }
                    Ok(_) => continue,
                    Err(RecvError::Lagged(missed)) => Line::Lagged { missed },
                    Err(RecvError::Closed) => return None,
                };
                return Some((json_line(&line).into(), (messages, subscriptions)));
            }
        },
    );
    let first = stream::iter([Bytes::from(first)]);
    Ok(answer::events(futures::StreamExt::chain(first, rest)))
}

/// Publishes the body to a topic.
pub(super) async fn publish(
    served: &Served,
    parameters: &Parameters,
    body: Incoming,
) -> Result<Answer, CommandError> {
    let topic: Topic = parameters.required("topic")?;
    let limit = served.client.config().pubsub.max_message_bytes;
    let body = Limited::new(body, limit).collect().await;
    let body = body.map_err(|_| CommandError::TooLong { limit })?;
    let input = Input::Message(body.to_bytes().into());
    let line = topics::publish_line(&served.client, &topic, input).await;
    Ok(answer::record(&line))
}

/// Sends the records that the node prints, for as long as the client reads.
pub(super) fn events(served: &Served) -> Answer {
    let records = served.feed.records.subscribe();
    let lines = stream::unfold(records, |mut records| async move {
        match records.recv().await {
            Ok(line) => Some((line, records)),
            Err(RecvError::Lagged(missed)) => {
                Some((json_line(&Line::Lagged { missed }).into(), records))
            }
            Err(RecvError::Closed) => None,
        }
    });
    answer::events(lines)
}
