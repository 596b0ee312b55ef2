//! The node as a whole: status, health, configuration, and the description of the API.

use std::{collections::BTreeMap, sync::LazyLock};

use axum::{
    body::Bytes,
    http::{HeaderValue, StatusCode},
    response::Response,
};
use calimero_network::{NetworkConfig, Status, discovery::machine::Phase};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    State, StatusPage,
    answer::{self, Refusal},
    schema::Answer,
};
use crate::origins::Origin;

/// The type of plain text.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The type of the description.
const OPENAPI: HeaderValue = HeaderValue::from_static("application/json");

/// The description of the API, which does not change.
static DESCRIPTION: LazyLock<Bytes> = LazyLock::new(|| {
    // Maps with text keys, so this does not fail.
    let text = super::description().to_pretty_json();
    Bytes::from(text.unwrap_or_default())
});

/// The process runs.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "health",
    security(()),
    responses(
        (status = 200, description = "`ok`.", body = String, content_type = "text/plain; charset=utf-8"),
    ),
)]
pub(super) async fn healthz() -> Response {
    answer::of_type(TEXT, "ok\n")
}

/// Whether the node can be used, and why not.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "event", rename = "readiness")]
pub(super) struct Readiness {
    ready: bool,
    reason: &'static str,
}

impl Readiness {
    fn of(status: &Status, has_boot_nodes: bool) -> Self {
        let phase = status.phase;
        let (ready, reason) = if status.listening.is_empty() {
            (false, "the node listens on no address")
        } else if phase == Phase::Stopped {
            (false, "the node has stopped")
        } else if has_boot_nodes && status.connections.is_empty() {
            (false, "no peer is connected")
        } else {
            (true, "the node listens and has found the network")
        };
        Self { ready, reason }
    }
}

/// The node listens and has found the network.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    security(()),
    responses(
        (status = 200, description = "The node can be used.", body = Answer<Readiness>),
        (status = 503, description = "The node cannot be used yet, and the reason.", body = Answer<Readiness>),
    ),
)]
pub(super) async fn readyz(state: State) -> Result<Response, Refusal> {
    let status = state.client.status().await?;
    let has_boot_nodes = !state.client.config().discovery.boot.is_empty();
    let readiness = Readiness::of(&status, has_boot_nodes);
    let code = match readiness.ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    Ok(answer::with_status(code, &readiness))
}

/// Addresses, discovery, resources, and the oldest 256 connections.
#[utoipa::path(
    get,
    path = "/v1/status",
    tag = "node",
    responses((status = 200, description = "The status.", body = Answer<StatusPage>)),
)]
pub(super) async fn status(state: State) -> Result<Response, Refusal> {
    let status = state.client.status().await?;
    Ok(answer::record(&StatusPage::of(&status)))
}

/// As `/v1/status`, also at `--metrics ADDR`.
#[utoipa::path(
    get,
    path = "/status",
    tag = "node",
    responses((status = 200, description = "The status.", body = Answer<StatusPage>)),
)]
pub(super) async fn watched_status(state: State) -> Result<Response, Refusal> {
    status(state).await
}

/// The configuration in effect.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename = "config")]
pub(crate) struct Effective {
    /// Each key with its value. The reference of the configuration describes them.
    #[schema(value_type = Object)]
    pub(crate) config: NetworkConfig,
    /// The source of the value of each key, by its path. A list that the file and the command line
    /// both add to has two.
    #[serde(default)]
    pub(crate) origins: BTreeMap<String, Vec<Origin>>,
    /// The configuration file.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(crate) file: Option<String>,
}

/// The configuration in effect, with the origin of each value.
///
/// It holds no secret: the identity and the token are files of their own.
#[utoipa::path(
    get,
    path = "/v1/config",
    tag = "node",
    responses((status = 200, description = "The configuration.", body = Answer<Effective>)),
)]
pub(super) async fn config(state: State) -> Response {
    answer::record(&state.origins.effective(state.client.config().clone()))
}

/// This description.
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    tag = "node",
    responses((status = 200, description = "An OpenAPI 3.1 document.", body = Object)),
)]
pub(super) async fn openapi() -> Response {
    answer::of_type(OPENAPI, DESCRIPTION.clone())
}
