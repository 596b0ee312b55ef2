//! The page for whoever watches a node: `/metrics` for Prometheus, `/status` as JSON.
//!
//! It shows whom the node is connected with, to everybody who can reach it, so it belongs on
//! loopback or behind something that asks who is there.

pub(crate) mod status;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use calimero_network::NetworkClient;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

use self::status::StatusPage;
use crate::error::CommandError;

/// Connections served at one time: one scraper, a few people. Further ones wait in the backlog.
const MAX_CONNECTIONS: usize = 16;

/// Time for one connection, from its first byte to its last: a page of some 100 KB is slow only
/// for a reader that is stuck.
const CONNECTION_TIME: Duration = Duration::from_secs(10);

/// Pause after a connection could not be accepted: no descriptors are left, and there may be soon.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// The text format of OpenMetrics.
const METRICS_TYPE: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const JSON_TYPE: HeaderValue = HeaderValue::from_static("application/json");
const TEXT_TYPE: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Listens at `address`. Gives where that is: port 0 is chosen by the system.
pub(crate) async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), CommandError> {
    let listen = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    listen
        .await
        .map_err(|source| CommandError::Metrics { address, source })
}

/// Serves the pages of `client` until it is dropped.
pub(crate) async fn serve(listener: TcpListener, client: NetworkClient) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let client = client.clone();
                tokio::spawn(async move {
                    // What is wrong with a connection is its peer's business.
                    let _ = timeout(CONNECTION_TIME, connection(stream, client)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection to the metrics page was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers one request.
async fn connection(stream: TcpStream, client: NetworkClient) -> Result<(), hyper::Error> {
    let service = service_fn(move |request| {
        let client = client.clone();
        async move { Ok::<_, Infallible>(answer(&request, &client).await) }
    });
    http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION_TIME)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer(request: &Request<Incoming>, client: &NetworkClient) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = page(StatusCode::METHOD_NOT_ALLOWED, TEXT_TYPE, "GET it\n");
        let headers = refused.headers_mut();
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/metrics" => match client.metrics().await {
            Ok(text) => page(StatusCode::OK, METRICS_TYPE, text),
            Err(stopped) => unavailable(&stopped),
        },
        "/status" => match client.status().await {
            Ok(status) => match serde_json::to_vec(&StatusPage::of(&status)) {
                Ok(json) => page(StatusCode::OK, JSON_TYPE, json),
                Err(error) => unavailable(&error),
            },
            Err(stopped) => unavailable(&stopped),
        },
        _ => page(StatusCode::NOT_FOUND, TEXT_TYPE, "/metrics or /status\n"),
    }
}

fn unavailable(why: &dyn std::error::Error) -> Response<Full<Bytes>> {
    page(
        StatusCode::SERVICE_UNAVAILABLE,
        TEXT_TYPE,
        format!("{why}\n"),
    )
}

fn page(status: StatusCode, kind: HeaderValue, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
