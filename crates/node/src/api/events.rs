//! The events of a node, and the feed that clients read messages and events from.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::response::Response;
use calimero_network::{Message, Topic};
use futures::stream;
use serde::Serialize;
use tokio::sync::broadcast::{self, error::RecvError};

use super::{
    State,
    answer::{self, Refusal},
    json_text,
    schema::{Answer, StreamEvent},
};
use crate::{error::Failure, run::lines::Line};

/// Messages that wait for one client. Then the oldest are dropped and counted: 64 MiB at the largest
/// size of a message.
const MESSAGES_AHEAD: usize = 64;

/// Records that wait for one client. Then the oldest are dropped and counted: 64 MiB at the largest
/// size of a record.
const RECORDS_AHEAD: usize = 256;

/// Largest record of the events, 256 KiB. A message is up to six times as long in JSON, so that peers
/// could fill the memory of a node with a slow reader. A larger record counts as dropped.
const MAX_RECORD_BYTES: usize = 256 * 1024;

/// A message of a topic, with its place among all messages of the node.
#[derive(Clone, Debug)]
pub(super) struct Numbered {
    /// 1 for the first message since the start of the node.
    pub(super) number: u64,
    pub(super) message: Message,
}

struct Messages {
    sender: broadcast::Sender<Numbered>,
    /// Number of the last message, 0 before the first.
    last: u64,
}

/// What clients of the API read of a node: the messages of topics and the records that it prints.
#[derive(Clone)]
pub(crate) struct Feed {
    messages: Arc<Mutex<Messages>>,
    records: broadcast::Sender<Arc<str>>,
    /// Subscriptions of a topic: by the node itself and by each client.
    subscribed: Arc<Mutex<HashMap<Topic, usize>>>,
    /// Held while the node subscribes or unsubscribes, so that both happen in the order in which
    /// `subscribed` changed.
    pub(super) changing: Arc<tokio::sync::Mutex<()>>,
}

impl Feed {
    /// The feed of a node that subscribes to `topics` itself.
    pub(crate) fn new(topics: &[Topic]) -> Self {
        let subscribed = topics.iter().map(|topic| (topic.clone(), 1)).collect();
        Self {
            messages: Arc::new(Mutex::new(Messages {
                sender: broadcast::Sender::new(MESSAGES_AHEAD),
                last: 0,
            })),
            records: broadcast::Sender::new(RECORDS_AHEAD),
            subscribed: Arc::new(Mutex::new(subscribed)),
            changing: Arc::default(),
        }
    }

    /// Passes a message to the clients that subscribe.
    pub(crate) fn on_message(&self, message: &Message) {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.last += 1;
        if messages.sender.receiver_count() > 0 {
            let (number, message) = (messages.last, message.clone());
            let _ = messages.sender.send(Numbered { number, message });
        }
    }

    /// The messages of all topics from now on, and the number of the last one before.
    pub(super) fn messages(&self) -> (u64, broadcast::Receiver<Numbered>) {
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        (messages.last, messages.sender.subscribe())
    }

    /// Passes a record to the clients that read events.
    pub(crate) fn on_record(&self, record: &impl Serialize) {
        if self.records.receiver_count() > 0 {
            let mut text = json_text(record);
            if text.len() > MAX_RECORD_BYTES {
                text = json_text(&Line::Lagged { missed: 1 });
            }
            let _ = self.records.send(text.into());
        }
    }

    pub(super) fn subscribed(&self) -> MutexGuard<'_, HashMap<Topic, usize>> {
        self.subscribed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events of the node as they happen: the records that `calnet run --json` prints, and the progress
/// of downloads.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "events",
    responses(
        (
            status = 200,
            description = "A stream of records. Further events are listed in the reference of \
                records.",
            body = StreamEvent,
            content_type = "text/event-stream",
        ),
        (status = 429, description = "Too many streams are open.", body = Answer<Failure>),
    ),
)]
pub(super) async fn events(state: State) -> Result<Response, Refusal> {
    let records = state.feed.records.subscribe();
    let lines = stream::unfold(records, |mut records| async move {
        match records.recv().await {
            Ok(line) => Some((line.to_string(), records)),
            Err(RecvError::Lagged(missed)) => Some((json_text(&Line::Lagged { missed }), records)),
            Err(RecvError::Closed) => None,
        }
    });
    answer::events(&state, lines)
}
