//! Sockets that the API is served on, and their limits.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{Router, http::Method, http::StatusCode, http::Uri, middleware};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_io_timeout::TimeoutStream;

use super::{
    Served, Token,
    access::{self, Access, BodyPause},
    answer::Refusal,
    host::AllowedHosts,
    page, routes,
    socket_path::SocketPath,
    watch_routes,
};
use crate::error::{Code, CommandError};

/// Connections of one listener at one time. Further ones wait in the backlog.
const MAX_CONNECTIONS: usize = 64;

/// The same of the listener for scrapers and probes: one scraper, a few people.
const MAX_WATCHERS: usize = 16;

/// Time for a connection of a scraper, from its first byte to its last: an answer of some 100 KB is
/// slow only for a reader that is stuck.
const WATCH_TIME: Duration = Duration::from_secs(10);

/// Time for the head of a request to arrive, which is also the longest time that a connection is
/// kept between two requests.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// Largest head of a request in bytes, and size of the buffer for its body.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Headers of a request.
const MAX_HEADERS: usize = 64;

/// Longest time in which a client reads nothing of an answer. A stream of events that is not read
/// is closed then.
const WRITE_PAUSE: Duration = Duration::from_secs(60);

/// Longest pause between two parts of a request body that arrives over TCP.
const TCP_BODY_PAUSE: Duration = Duration::from_secs(60);

/// The same over the Unix socket. Its client is on this host, so the end of the client is noticed at
/// once; and `calnet blob add -` sends what another program writes, when it does.
const UNIX_BODY_PAUSE: Duration = Duration::from_secs(60 * 60);

/// Pause after a connection could not be accepted, as when all descriptors are in use.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// A Unix socket that is listened on. Removed when dropped.
pub(crate) struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl UnixSocket {
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
        let short = SocketPath::of(path)?;
        let listener = UnixListener::bind(&short)?;
        let path = path.to_owned();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A socket that the API or a part of it is served on.
pub(crate) struct Listener {
    socket: Socket,
    access: Access,
}

enum Socket {
    Unix(UnixSocket),
    Tcp(TcpListener, SocketAddr),
}

impl Listener {
    /// The Unix socket of a data folder.
    pub(crate) fn unix(socket: UnixSocket) -> Self {
        Self {
            socket: Socket::Unix(socket),
            access: Access::Owner,
        }
    }

    /// Listens at a TCP address for requests that present the token, under the names `hosts`.
    pub(crate) async fn tcp(
        address: SocketAddr,
        hosts: Vec<String>,
        token: Token,
    ) -> Result<Self, CommandError> {
        let hosts = AllowedHosts::new(hosts);
        Self::bind(address, Access::Token { hosts, token }).await
    }

    /// Listens at a TCP address for scrapers and probes, under the names `hosts`.
    pub(crate) async fn watch(
        address: SocketAddr,
        hosts: Vec<String>,
    ) -> Result<Self, CommandError> {
        let hosts = AllowedHosts::new(hosts);
        Self::bind(address, Access::Watch { hosts }).await
    }

    async fn bind(address: SocketAddr, access: Access) -> Result<Self, CommandError> {
        let failed = |source| CommandError::Http { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let socket = Socket::Tcp(listener, address);
        Ok(Self { socket, access })
    }

    /// The base of its URLs. The system chooses port 0.
    pub(crate) fn url(&self) -> String {
        match &self.socket {
            Socket::Unix(_) => "http://localhost".to_owned(),
            Socket::Tcp(_, address) => format!("http://{address}"),
        }
    }

    /// The routes of this listener, behind its checks.
    fn router(&self, served: Arc<Served>) -> Router {
        let (routes, page) = match self.access {
            Access::Watch { .. } => (watch_routes(), Router::new()),
            Access::Owner | Access::Token { .. } => (routes(), page::routes()),
        };
        let pause = match self.socket {
            Socket::Unix(_) => UNIX_BODY_PAUSE,
            Socket::Tcp(..) => TCP_BODY_PAUSE,
        };
        let checked = (self.access.clone(), BodyPause(pause));
        let (router, _) = routes.split_for_parts();
        router
            .merge(page)
            .fallback(no_route)
            .method_not_allowed_fallback(wrong_method)
            .layer(middleware::from_fn(move |request, next| {
                access::check(checked.clone(), request, next)
            }))
            .with_state(served)
    }
}

async fn no_route(method: Method, uri: Uri) -> Refusal {
    let path = uri.path().to_owned();
    CommandError::NoRoute { method, path }.into()
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    let message = format!("{} does not take {method}", uri.path());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Code::Usage, message)
}

/// Serves a listener until this is dropped, which ends all requests.
pub(crate) async fn serve(listener: Listener, served: Arc<Served>) {
    let router = listener.router(served);
    let is_watch = matches!(listener.access, Access::Watch { .. });
    let permits = Arc::new(Semaphore::new(match is_watch {
        true => MAX_WATCHERS,
        false => MAX_CONNECTIONS,
    }));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let accepted: io::Result<Box<dyn Stream>> = match &listener.socket {
            Socket::Unix(socket) => (socket.listener.accept().await)
                .map(|(stream, _)| Box::new(stream) as Box<dyn Stream>),
            Socket::Tcp(listener, _) => {
                (listener.accept().await).map(|(stream, _)| Box::new(stream) as Box<dyn Stream>)
            }
        };
        match accepted {
            Ok(stream) => {
                let router = router.clone();
                connections.spawn(async move {
                    // A connection of a scraper ends with its answer, so that others have theirs.
                    let serving = connection(stream, router, !is_watch);
                    match is_watch {
                        true => drop(timeout(WATCH_TIME, serving).await),
                        false => serving.await,
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection to the API was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connection(stream: Box<dyn Stream>, router: Router, keep_alive: bool) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_PAUSE));
    // The client of a connection sees for itself that it failed.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .keep_alive(keep_alive)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_header_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(
            TokioIo::new(Box::pin(stream)),
            TowerToHyperService::new(router),
        )
        .await;
}
