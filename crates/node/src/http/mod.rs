//! What a node serves to those who watch it: `/metrics` for Prometheus, `/status` as JSON.
//!
//! Both show the peers of the node, without authentication. They belong on loopback, or behind a
//! proxy that authenticates. Requests of web pages from elsewhere are refused.

mod host;
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

use self::{host::AllowedHosts, status::StatusPage};
use crate::{control::METRICS_TYPE, error::CommandError};

/// Connections served at one time: one scraper, a few people. Further ones wait in the backlog.
const MAX_CONNECTIONS: usize = 16;

/// Time for one connection, from its first byte to its last: a page of some 100 KB is slow only
/// for a reader that is stuck.
const CONNECTION_TIME: Duration = Duration::from_secs(10);

/// Pause after a connection could not be accepted: no descriptors are left, and there may be soon.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

const JSON_TYPE: HeaderValue = HeaderValue::from_static("application/json");
const TEXT_TYPE: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// A socket that HTTP is served on.
pub(crate) struct Page {
    /// Its address. The system chooses port 0.
    pub(crate) address: SocketAddr,
    listener: TcpListener,
    hosts: AllowedHosts,
}

/// Listens at an address, if there is one. The page may be asked for under the names `hosts`.
pub(crate) async fn listen(
    address: Option<SocketAddr>,
    hosts: Vec<String>,
) -> Result<Option<Page>, CommandError> {
    let Some(address) = address else {
        return Ok(None);
    };
    let listen = async {
        let listener = TcpListener::bind(address).await?;
        Ok(Page {
            address: listener.local_addr()?,
            listener,
            hosts: AllowedHosts::new(hosts),
        })
    };
    let page = listen.await;
    page.map(Some)
        .map_err(|source| CommandError::Metrics { address, source })
}

/// Serves the pages of `client` until it is dropped.
pub(crate) async fn serve(page: Page, client: NetworkClient) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        match page.listener.accept().await {
            Ok((stream, _)) => {
                let (client, hosts) = (client.clone(), page.hosts.clone());
                tokio::spawn(async move {
                    // The client of a connection sees for itself that it failed.
                    let _ = timeout(CONNECTION_TIME, connection(stream, client, hosts)).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection to the metrics page was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers one request and closes the connection.
async fn connection(
    stream: TcpStream,
    client: NetworkClient,
    hosts: AllowedHosts,
) -> Result<(), hyper::Error> {
    let service = service_fn(move |request: Request<Incoming>| {
        let (client, is_allowed) = (client.clone(), hosts.allow(request.headers()));
        async move {
            Ok::<_, Infallible>(match is_allowed {
                true => answer(&request, &client).await,
                false => page(
                    StatusCode::FORBIDDEN,
                    TEXT_TYPE,
                    "this host or origin is not allowed; see --metrics-host\n",
                ),
            })
        }
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
        let mut refused = page(StatusCode::METHOD_NOT_ALLOWED, TEXT_TYPE, "use GET\n");
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
