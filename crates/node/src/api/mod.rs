//! The HTTP API of a running node.
//!
//! A node serves it on a Unix socket in its data folder, which its owner alone can open, and with
//! `--api` on a TCP address, where each request needs the token of the data folder. `--metrics`
//! serves the part for scrapers and probes, without a token. Other commands of `calnet` use the API
//! through [`Client`].
//!
//! Each handler describes itself by `utoipa::path`. The router and the OpenAPI description are made
//! of the same handlers in [`routes`](fn@routes), so that they cannot differ.

mod access;
mod answer;
mod blobs;
mod client;
mod connection;
mod events;
mod extract;
mod host;
mod log;
mod metrics;
mod netcheck;
mod node;
mod page;
mod peers;
mod ping;
mod schema;
mod server;
mod socket_path;
mod status;
mod tickets;
mod token;
mod topics;
mod unread;

use std::sync::Arc;

use calimero_network::NetworkClient;
use tokio::sync::Semaphore;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        Content, Ref, RefOr, Required, ResponseBuilder,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(crate) use self::{
    blobs::StorePage,
    client::{Client, Query, Wait, in_time},
    connection::ConnectionPage,
    events::Feed,
    node::Effective,
    peers::{PeerChange, PeersPage},
    ping::Pong,
    server::{Listener, UnixSocket, serve},
    status::StatusPage,
    token::{Token, TokenError},
    topics::TopicsPage,
};
use crate::{blob::Running, origins::Origins, output::json_line};

/// Streams of events that are open at one time, of all listeners. Connections are left for other
/// requests: each listener takes more of them.
const MAX_STREAMS: usize = 32;

/// What requests are carried out with.
pub(crate) struct Served {
    pub(crate) client: NetworkClient,
    /// `None` for a node without a store, such as a boot node.
    pub(crate) blobs: Option<Running>,
    pub(crate) feed: Feed,
    pub(crate) origins: Origins,
    streams: Arc<Semaphore>,
}

impl Served {
    pub(crate) fn new(
        client: NetworkClient,
        blobs: Option<Running>,
        feed: Feed,
        origins: Origins,
    ) -> Self {
        Self {
            client,
            blobs,
            feed,
            origins,
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        }
    }
}

/// The state of handlers.
type State = axum::extract::State<Arc<Served>>;

/// The head of the OpenAPI description.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "calnet",
        description = "The API of a running node. Each JSON object has `event`, the name of the \
            record, and `time`. Streams are server-sent events: the data of each is one such \
            object, and a reader that is too slow loses the oldest and receives `lagged` with \
            their number. Requests on the Unix socket in the data folder need no token.",
    ),
    components(schemas(
        schema::AddressText,
        schema::BlobIdText,
        schema::ContextIdText,
        schema::PeerIdText,
        schema::TicketText,
        schema::TopicText,
    )),
    modifiers(&Bearer),
    security(("token" = [])),
)]
struct Head;

/// Describes the token.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The content of `control/token` in the data folder."));
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(bearer.build()));
    }
}

/// The status of a request that no handler sees, so that its answer has no body.
const HEAD_TOO_LARGE: &str = "431";

/// Failures that every request can have, besides those that it describes itself.
pub(crate) const COMMON_FAILURES: [(&str, &str); 6] = [
    ("401", "Over TCP: the token is missing or wrong."),
    ("403", "Over TCP: the host or origin is not allowed."),
    ("405", "The path does not take this method."),
    (HEAD_TOO_LARGE, "The head of the request is too large."),
    ("500", "The node has a fault."),
    ("503", "The node is ending."),
];

/// Adds what holds for every request: its failures, and that an absent body is an empty one.
fn describe_common(openapi: &mut utoipa::openapi::OpenApi) {
    let body = Content::new(Some(Ref::from_schema_name("Answer_Failure")));
    for item in openapi.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            if let Some(RefOr::T(body)) = &mut operation.request_body {
                body.required = Some(Required::False);
            }
            for (status, description) in COMMON_FAILURES {
                let described = ResponseBuilder::new().description(description);
                let described = match status {
                    HEAD_TOO_LARGE => described,
                    _ => described.content("application/json", body.clone()),
                };
                let responses = &mut operation.responses.responses;
                let entry = responses.entry(status.to_owned());
                entry.or_insert_with(|| described.build().into());
            }
        }
    }
}

/// The routes for scrapers and probes.
fn watch_routes() -> OpenApiRouter<Arc<Served>> {
    OpenApiRouter::default()
        .routes(routes!(node::healthz))
        .routes(routes!(node::readyz))
        .routes(routes!(node::watched_status))
        .routes(routes!(metrics::scraped))
}

/// All routes, each with its description.
fn routes() -> OpenApiRouter<Arc<Served>> {
    OpenApiRouter::with_openapi(Head::openapi())
        .merge(watch_routes())
        .routes(routes!(node::status))
        .routes(routes!(node::config))
        .routes(routes!(netcheck::netcheck))
        .routes(routes!(node::openapi))
        .routes(routes!(log::log))
        .routes(routes!(metrics::metrics))
        .routes(routes!(peers::list, peers::connect))
        .routes(routes!(peers::disconnect))
        .routes(routes!(peers::block, peers::unblock))
        .routes(routes!(ping::ping))
        .routes(routes!(topics::list))
        .routes(routes!(topics::subscribe, topics::publish))
        .routes(routes!(blobs::list, blobs::add))
        .routes(routes!(blobs::content, blobs::remove))
        .routes(routes!(blobs::fetch))
        .routes(routes!(blobs::verify))
        .routes(routes!(tickets::make))
        .routes(routes!(tickets::fetch))
        .routes(routes!(events::events))
}

/// The OpenAPI description of all routes.
pub(crate) fn description() -> utoipa::openapi::OpenApi {
    let mut openapi = routes().into_openapi();
    describe_common(&mut openapi);
    openapi
}

/// A record as JSON text.
fn json_text(record: &impl serde::Serialize) -> String {
    // JSON is UTF-8.
    String::from_utf8(json_line(record)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    /// Collects the references of a document.
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                let reference = map.get("$ref").and_then(Value::as_str);
                found.extend(reference.map(str::to_owned));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn each_reference_and_name_of_the_description_has_one_meaning() {
        let description = serde_json::to_value(super::description()).unwrap();
        let mut found = BTreeSet::new();
        references(&description, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(description.pointer(pointer).is_some(), "{reference}");
        }
        let mut names = BTreeSet::new();
        for methods in description["paths"].as_object().unwrap().values() {
            for operation in methods.as_object().unwrap().values() {
                let name = operation["operationId"].as_str().unwrap();
                assert!(names.insert(name), "{name}");
            }
        }
    }
}
