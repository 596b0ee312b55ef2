//! Answers of the API: records, streams of records, and failures.

use std::convert::Infallible;

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use calimero_network::{
    AcceptError, AnnounceBlobError, DialError, OpenError, PublishError, Stopped, SubscribeError,
    blob::store::StoreError,
};
use futures::{Stream, StreamExt as _};
use serde::Serialize;

use super::{Served, json_text};
use crate::error::{Code, CommandError, Failure};

/// Time between two comments in a stream without events. They keep proxies from closing it, and
/// show that its client has left.
const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(15);

/// The type of records.
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A request that is refused or has failed.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    failure: Failure,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: Code, message: String) -> Self {
        Self {
            status,
            failure: Failure::new(code, message),
            header: None,
        }
    }

    /// A parameter with a value that is not accepted.
    pub(super) fn of_parameter(name: &str, message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::Usage, message).with_fields(&[name])
    }

    /// Names the parameters or headers concerned.
    pub(super) fn with_fields(mut self, fields: &[&str]) -> Self {
        let fields = fields.iter().map(|&field| field.to_owned());
        self.failure = self.failure.with_fields(fields.collect());
        self
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }
}

impl<E: Into<CommandError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        let error = error.into();
        Self {
            status: status_of(&error),
            failure: Failure::from(&error),
            header: None,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = with_status(self.status, &self.failure);
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// The status of a failure. Only a fault of this node has a status of 500 or more: that a peer
/// cannot be reached is 424, because the address comes from the client.
fn status_of(error: &CommandError) -> StatusCode {
    match error {
        CommandError::Stopped(Stopped)
        | CommandError::Dial(DialError::Stopped(_))
        | CommandError::Open(OpenError::Stopped)
        | CommandError::Accept(AcceptError::Stopped)
        | CommandError::Announce(AnnounceBlobError::Stopped(_))
        | CommandError::Subscribe(SubscribeError::Stopped(_))
        | CommandError::Publish(PublishError::Stopped(_)) => StatusCode::SERVICE_UNAVAILABLE,
        CommandError::TooLong { .. } | CommandError::Store(StoreError::TooLarge(_)) => {
            StatusCode::PAYLOAD_TOO_LARGE
        }
        CommandError::Store(StoreError::Quota {
            limit_bytes,
            wanted_bytes,
            ..
        }) if wanted_bytes > limit_bytes => StatusCode::PAYLOAD_TOO_LARGE,
        CommandError::Store(StoreError::Quota { .. } | StoreError::DiskFull { .. }) => {
            StatusCode::INSUFFICIENT_STORAGE
        }
        CommandError::ClientLeft | CommandError::BodyPaused { .. } => StatusCode::REQUEST_TIMEOUT,
        CommandError::TooManyStreams { .. } => StatusCode::TOO_MANY_REQUESTS,
        _ => match error.code() {
            Code::Usage => StatusCode::BAD_REQUEST,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::Refused => StatusCode::CONFLICT,
            Code::CheckFailed => StatusCode::UNPROCESSABLE_ENTITY,
            Code::NotReachable | Code::TimedOut => StatusCode::FAILED_DEPENDENCY,
            Code::Other | Code::Interrupted | Code::OutputClosed => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        },
    }
}

/// A record as the whole answer.
pub(super) fn record(record: &impl Serialize) -> Response {
    with_status(StatusCode::OK, record)
}

/// A record with another status.
pub(super) fn with_status(status: StatusCode, record: &impl Serialize) -> Response {
    let mut line = json_text(record);
    line.push('\n');
    let mut response = of_type(JSON, line);
    *response.status_mut() = status;
    response
}

/// A body of another type.
pub(super) fn of_type(kind: HeaderValue, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// A stream of records, each already JSON, as server-sent events. Refused while too many streams
/// are open.
pub(super) fn events(
    served: &Served,
    records: impl Stream<Item = String> + Send + 'static,
) -> Result<Response, Refusal> {
    numbered_events(served, records.map(|record| (None, record)))
}

/// The same of records that may have a number, which is the `id` of the event.
pub(super) fn numbered_events(
    served: &Served,
    records: impl Stream<Item = (Option<u64>, String)> + Send + 'static,
) -> Result<Response, Refusal> {
    let permit = served.streams.clone().try_acquire_owned();
    let permit = permit.map_err(|_| CommandError::TooManyStreams {
        limit: super::MAX_STREAMS,
    })?;
    let events = records.map(move |(number, record)| {
        // The stream holds the permit until it ends.
        let _permit = &permit;
        let event = match number {
            Some(number) => Event::default().id(number.to_string()),
            None => Event::default(),
        };
        Ok::<_, Infallible>(event.data(record))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(events).keep_alive(keep_alive).into_response())
}
