//! The last lines of the log.

use axum::{http::HeaderValue, response::Response};

use super::answer;
use crate::log::recent;

/// The type of the answer.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The last lines of the log.
///
/// At most 1000 lines and 256 KiB, whatever the form of the log, from the start of the node.
#[utoipa::path(
    get,
    path = "/v1/log",
    operation_id = "read_log",
    tag = "node",
    responses(
        (status = 200, description = "Lines of text.", body = String, content_type = "text/plain; charset=utf-8"),
    ),
)]
pub(super) async fn log() -> Response {
    answer::of_type(TEXT, recent::text())
}
