//! The rest of a request body whose request is refused.
//!
//! A TCP socket that is closed with unread data resets its connection, and the client loses an
//! answer that it has not read yet.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Error,
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::{HeaderMap, StatusCode, header::EXPECT},
};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use tokio::{sync::oneshot, time::timeout};

/// Most bytes of a refused body that are read and dropped, 64 MiB. The connection of a client that
/// sends more may be reset before it has read its answer.
const MAX_UNREAD_BYTES: usize = 64 << 20;

/// Longest time in which they are read, 5 s. A client on the same host needs less.
const MAX_TIME: Duration = Duration::from_secs(5);

/// Longest pause between two parts of them, 1 s. A client that pauses for longer has its answer then.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// A body that returns what is left of it when it is dropped.
struct Returned {
    body: Body,
    to: Option<oneshot::Sender<Body>>,
    begun: Arc<AtomicBool>,
}

impl HttpBody for Returned {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.begun.store(true, Ordering::Relaxed);
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            // Nothing is left.
            self.to = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Returned {
    fn drop(&mut self) {
        if let Some(to) = self.to.take() {
            let _ = to.send(std::mem::take(&mut self.body));
        }
    }
}

/// The body of a request, of which the rest is read if the request is refused.
pub(super) struct Unread {
    left: oneshot::Receiver<Body>,
    begun: Arc<AtomicBool>,
    /// The client sends the body only once the node begins to read it.
    is_awaited: bool,
}

impl Unread {
    /// Wraps the body of a request, so that what the handler leaves of it can be read.
    pub(super) fn of(request: Request) -> (Request, Self) {
        let is_awaited = is_awaited(request.headers());
        let begun = Arc::new(AtomicBool::new(false));
        let (to, left) = oneshot::channel();
        let request = request.map(|body| match body.is_end_stream() {
            true => body,
            false => Body::new(Returned {
                body,
                to: Some(to),
                begun: begun.clone(),
            }),
        });
        let unread = Self {
            left,
            begun,
            is_awaited,
        };
        (request, unread)
    }

    /// Reads and drops what a refused request has left of its body, up to a limit. The handler of
    /// the request has ended with this status.
    pub(super) async fn drain(mut self, status: StatusCode) {
        let is_refused = !status.is_success();
        let is_sent = !self.is_awaited || self.begun.load(Ordering::Relaxed);
        let Ok(mut body) = self.left.try_recv() else {
            return;
        };
        if !is_refused || !is_sent {
            return;
        }
        let reading = async {
            let mut read_bytes = 0;
            while let Ok(Some(Ok(frame))) = timeout(MAX_PAUSE, body.frame()).await {
                read_bytes += frame.data_ref().map_or(0, Bytes::len);
                if read_bytes > MAX_UNREAD_BYTES {
                    return;
                }
            }
        };
        let _ = timeout(MAX_TIME, reading).await;
    }
}

/// Returns `true` if the client waits for `100 Continue`.
fn is_awaited(headers: &HeaderMap) -> bool {
    let expected = headers.get(EXPECT);
    expected.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
