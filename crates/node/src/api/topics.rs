//! Topics of a node: list, subscribe, publish.

use std::collections::hash_map::Entry;

use axum::{Extension, body::Body, response::Response};
use calimero_network::{NetworkClient, Topic};
use futures::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use utoipa::{IntoParams, ToSchema};

use super::{
    State,
    access::BodyPause,
    answer::{self, Refusal},
    blobs::whole,
    events::{Feed, Numbered},
    extract::Query,
    json_text,
    schema::{Answer, Content, StreamEvent, TopicText},
};
use crate::{
    error::{CommandError, Failure},
    run::{lines::Line, topics},
};

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
        let _changing = feed.changing.lock().await;
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
            let _changing = feed.changing.lock().await;
            // Another client may have subscribed since. One that does so from here on waits.
            if !feed.subscribed().contains_key(&topic) {
                let _ = client.unsubscribe(&topic).await;
            }
        });
    }
}

/// A topic that this node is subscribed to.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename = "topics")]
pub(crate) struct TopicsPage {
    pub(crate) topics: Vec<TopicPage>,
}

/// The topics that the node is subscribed to, with their subscribers.
#[utoipa::path(
    get,
    path = "/v1/topics",
    operation_id = "list_topics",
    tag = "topics",
    responses((status = 200, description = "The topics.", body = Answer<TopicsPage>)),
)]
pub(super) async fn list(state: State) -> Result<Response, Refusal> {
    let mut names: Vec<_> = state.feed.subscribed().keys().cloned().collect();
    names.sort_unstable();
    let mut topics = Vec::with_capacity(names.len());
    for topic in names {
        let texts =
            |peers: Vec<calimero_network::PeerId>| peers.iter().map(ToString::to_string).collect();
        topics.push(TopicPage {
            subscribers: texts(state.client.subscribed_peers(&topic).await?),
            mesh: texts(state.client.mesh_peers(&topic).await?),
            topic: topic.to_string(),
        });
    }
    Ok(answer::record(&TopicsPage { topics }))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SubscribeQuery {
    /// Topic to subscribe to. May be repeated.
    #[param(value_type = Vec<TopicText>, min_items = 1)]
    topic: Vec<Topic>,
}

/// Subscribe to topics for as long as the stream is read.
///
/// The first record is `following`, once the node is subscribed. The `id` of the event of a message
/// is its number among all messages of the node, and that of `following` is the number of the last
/// message before the stream. A client that replaces one stream by another reads both for a while,
/// and recognizes by these what it has read.
#[utoipa::path(
    get,
    path = "/v1/topics/messages",
    tag = "topics",
    params(SubscribeQuery),
    responses(
        (
            status = 200,
            description = "A stream of `following`, `message` and `lagged`.",
            body = StreamEvent,
            content_type = "text/event-stream",
        ),
        (status = 400, description = "A parameter is missing or malformed.", body = Answer<Failure>),
        (status = 409, description = "The limit of subscriptions is reached.", body = Answer<Failure>),
        (status = 429, description = "Too many streams are open.", body = Answer<Failure>),
    ),
)]
pub(super) async fn subscribe(
    state: State,
    Query(query): Query<SubscribeQuery>,
) -> Result<Response, Refusal> {
    let (last, messages) = state.feed.messages();
    let mut subscriptions = Vec::new();
    for topic in query.topic {
        subscriptions.push(Subscription::begin(&state.client, &state.feed, topic).await?);
    }
    if subscriptions.is_empty() {
        return Err(Refusal::of_parameter("topic", "name a topic".to_owned()));
    }
    let topics = subscriptions.iter().map(|one| one.topic.to_string());
    let first = json_text(&Line::Following {
        topics: topics.collect(),
    });
    let first = (Some(last), first);
    let rest = stream::unfold(
        (messages, subscriptions),
        |(mut messages, subscriptions)| async move {
            loop {
                let (number, line) = match messages.recv().await {
                    Ok(Numbered { number, message }) => {
                        if subscriptions.iter().all(|one| one.topic != message.topic) {
                            continue;
                        }
                        (Some(number), topics::line(&message))
                    }
                    Err(RecvError::Lagged(missed)) => (None, Line::Lagged { missed }),
                    Err(RecvError::Closed) => return None,
                };
                return Some(((number, json_text(&line)), (messages, subscriptions)));
            }
        },
    );
    answer::numbered_events(&state, stream::iter([first]).chain(rest))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PublishQuery {
    /// Topic to publish to.
    #[param(value_type = TopicText)]
    topic: Topic,
}

/// Publish the body as one message.
///
/// Without a subscriber the message is kept for a while, and the request waits until it is sent.
#[utoipa::path(
    post,
    path = "/v1/topics/messages",
    tag = "topics",
    params(PublishQuery),
    request_body(
        content = Content,
        description = "The message, at most `pubsub.max_message_bytes` bytes.",
        content_type = "application/octet-stream",
    ),
    responses(
        (status = 200, description = "The message is sent: `published`.", body = Answer<Line>),
        (status = 400, description = "A parameter is missing or malformed.", body = Answer<Failure>),
        (status = 408, description = "The body did not arrive.", body = Answer<Failure>),
        (status = 409, description = "The message cannot be sent, as without a subscriber.", body = Answer<Failure>),
        (status = 413, description = "The message is too long.", body = Answer<Failure>),
    ),
)]
pub(super) async fn publish(
    state: State,
    Query(query): Query<PublishQuery>,
    Extension(pause): Extension<BodyPause>,
    body: Body,
) -> Result<Response, Refusal> {
    let limit = state.client.config().pubsub.max_message_bytes;
    let message = whole(body, pause, limit).await?;
    let message = message.ok_or(CommandError::TooLong { limit })?;
    let bytes = message.len();
    topics::publish(&state.client, &query.topic, message).await?;
    Ok(answer::record(&Line::Published {
        topic: query.topic.to_string(),
        bytes,
    }))
}

#[cfg(test)]
mod tests;
