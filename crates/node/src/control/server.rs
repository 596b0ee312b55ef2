//! The server of the control interface.

use std::{
    convert::Infallible,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use calimero_network::{NetworkClient, Status, discovery::machine::Phase};
use hyper::{
    Method, Request, StatusCode, body::Incoming, header::HeaderValue, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{net::UnixListener, sync::Semaphore, task::JoinSet};

use super::{
    Feed,
    answer::{self, Answer},
    blobs, peers,
    target::Parameters,
    topics,
};
use crate::{blob::Running, error::CommandError};

/// Connections served at one time. Further ones wait in the backlog.
const MAX_CONNECTIONS: usize = 32;

/// Time for the head of a request to be read.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// Pause after a connection could not be accepted, as when all descriptors are in use.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// The text format of OpenMetrics.
pub(crate) const METRICS_TYPE: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// A socket that is listened on. Removed when dropped.
pub(crate) struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// Listens at `path`, in a folder of its own that its owner alone can enter. A socket that is
    /// there already belongs to a process that has ended: the caller holds the lock of the data
    /// folder.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        let path = path.to_owned();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// What requests are carried out with.
pub(crate) struct Served {
    pub(crate) client: NetworkClient,
    /// `None` for a node without a store, such as a boot node.
    pub(crate) blobs: Option<Running>,
    pub(crate) feed: Feed,
}

/// Serves the control interface until it is dropped, which ends all requests.
pub(crate) async fn serve(socket: ControlSocket, served: Served) {
    let served = Arc::new(served);
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        match socket.listener.accept().await {
            Ok((stream, _)) => {
                let served = served.clone();
                let service = service_fn(move |request| {
                    let served = served.clone();
                    async move {
                        let answered = route(&served, request).await;
                        Ok::<_, Infallible>(match answered {
                            Ok(answer) => answer,
                            Err(error) => answer::failure(&error),
                        })
                    }
                });
                connections.spawn(async move {
                    // The client of a connection sees for itself that it failed.
                    let _ = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEAD_TIME)
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a control connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Carries a request out.
async fn route(served: &Served, request: Request<Incoming>) -> Result<Answer, CommandError> {
    let (head, body) = request.into_parts();
    let parameters = Parameters::parse(head.uri.query())?;
    let segments: Vec<_> = head.uri.path().split('/').skip(1).collect();
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    match (&head.method, segments.as_slice()) {
        (method, ["healthz"]) if *method == get => {
            let text = HeaderValue::from_static("text/plain");
            Ok(answer::text(text, "ok\n"))
        }
        (method, ["readyz"]) if *method == get => ready(served).await,
        (method, ["v1", "status"]) if *method == get => peers::status(served).await,
        (method, ["v1", "peers"]) if *method == get => peers::list(served).await,
        (method, ["v1", "peers"]) if *method == post => peers::connect(served, &parameters).await,
        (method, ["v1", "peers", peer]) if *method == delete => {
            peers::disconnect(served, peer).await
        }
        (method, ["v1", "peers", peer, "block"]) if *method == post => {
            peers::block(served, peer).await
        }
        (method, ["v1", "peers", peer, "block"]) if *method == delete => {
            peers::unblock(served, peer).await
        }
        (method, ["v1", "topics"]) if *method == get => topics::list(served).await,
        (method, ["v1", "topics", "messages"]) if *method == get => {
            topics::subscribe(served, &parameters).await
        }
        (method, ["v1", "topics", "messages"]) if *method == post => {
            topics::publish(served, &parameters, body).await
        }
        (method, ["v1", "blobs"]) if *method == get => blobs::list(served).await,
        (method, ["v1", "blobs"]) if *method == post => blobs::add(served, &parameters, body).await,
        (method, ["v1", "blobs", id]) if *method == get => blobs::content(served, id).await,
        (method, ["v1", "blobs", id]) if *method == delete => blobs::remove(served, id).await,
        (method, ["v1", "blobs", id, "fetch"]) if *method == post => {
            blobs::fetch(served, id, &parameters)
        }
        (method, ["v1", "blobs", id, "verify"]) if *method == post => {
            blobs::verify(served, id).await
        }
        (method, ["v1", "events"]) if *method == get => Ok(topics::events(served)),
        (method, ["v1", "metrics"]) if *method == get => {
            Ok(answer::text(METRICS_TYPE, served.client.metrics().await?))
        }
        (method, ["v1", "config"]) if *method == get => Ok(config(served)),
        (method, _) => Err(CommandError::NoRequest {
            method: method.to_string(),
            path: head.uri.path().to_owned(),
        }),
    }
}

/// Whether the node can be used, and why not.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "readiness")]
struct Readiness {
    ready: bool,
    reason: &'static str,
}

impl Readiness {
    fn of(status: &Status, has_boot_nodes: bool) -> Self {
        let phase = status.discovery.discovery.phase;
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

async fn ready(served: &Served) -> Result<Answer, CommandError> {
    let status = served.client.status().await?;
    let has_boot_nodes = !served.client.config().discovery.boot.is_empty();
    let readiness = Readiness::of(&status, has_boot_nodes);
    let code = match readiness.ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    Ok(answer::with_status(code, &readiness))
}

fn config(served: &Served) -> Answer {
    #[derive(Serialize)]
    #[serde(tag = "event", rename = "config")]
    struct Effective<'a> {
        config: &'a calimero_network::NetworkConfig,
    }
    let config = served.client.config();
    answer::record(&Effective { config })
}
