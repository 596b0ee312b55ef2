//! Answers of the control interface.

use bytes::Bytes;
use calimero_network::Stopped;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Response, StatusCode,
    body::Frame,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue},
};
use serde::Serialize;

use crate::{
    error::{Code, CommandError, Failure},
    output::json_line,
};

/// A body of bytes that are at hand, or that come as they are made.
pub(super) type Body = UnsyncBoxBody<Bytes, CommandError>;

/// The answer to a request.
pub(super) type Answer = Response<Body>;

/// The answer to a failed request.
pub(super) fn failure(error: &CommandError) -> Answer {
    let status = match error.code() {
        _ if matches!(error, CommandError::Stopped(Stopped)) => StatusCode::SERVICE_UNAVAILABLE,
        Code::Usage => StatusCode::BAD_REQUEST,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Refused => StatusCode::CONFLICT,
        Code::CheckFailed => StatusCode::UNPROCESSABLE_ENTITY,
        Code::NotReachable => StatusCode::BAD_GATEWAY,
        Code::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        Code::Other | Code::Interrupted => StatusCode::INTERNAL_SERVER_ERROR,
    };
    with_status(status, &Failure::from(error))
}

/// A record as the whole answer.
pub(super) fn record(record: &impl Serialize) -> Answer {
    with_status(StatusCode::OK, record)
}

/// A record with another status.
pub(super) fn with_status(status: StatusCode, record: &impl Serialize) -> Answer {
    let mut line = json_line(record);
    line.push(b'\n');
    let mut answer = text(HeaderValue::from_static("application/json"), line);
    *answer.status_mut() = status;
    answer
}

/// Text of another type.
pub(super) fn text(kind: HeaderValue, text: impl Into<Bytes>) -> Answer {
    let full = Full::new(text.into());
    of_kind(kind, full.map_err(|never| match never {}).boxed_unsync())
}

fn of_kind(kind: HeaderValue, body: Body) -> Answer {
    let mut answer = Response::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

/// A stream of records, each already a line of JSON, as server-sent events.
pub(super) fn events(lines: impl Stream<Item = Bytes> + Send + 'static) -> Answer {
    let frames = lines.map(|line| {
        let event = [b"data: ", &line[..], b"\n\n"].concat();
        Ok(Frame::data(Bytes::from(event)))
    });
    let body = StreamBody::new(frames).boxed_unsync();
    of_kind(HeaderValue::from_static("text/event-stream"), body)
}

/// A stream of bytes whose length is known.
pub(super) fn bytes(
    size_bytes: u64,
    pieces: impl Stream<Item = Result<Bytes, CommandError>> + Send + 'static,
) -> Answer {
    let body = StreamBody::new(pieces.map_ok(Frame::data)).boxed_unsync();
    let mut answer = of_kind(HeaderValue::from_static("application/octet-stream"), body);
    answer
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(size_bytes));
    answer
}
