//! Bounded exchanges over HTTP/1.1 with a router: one connection for each, no redirects.

use std::net::SocketAddrV4;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, StatusCode, Uri,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::EXCHANGE_TIME;

/// Length of the longest body that is read, 128 KiB. Descriptions of routers have 2 to 30 KiB.
pub(super) const MAX_BODY: usize = 128 << 10;

/// Length of the longest header that is read, 16 KiB.
const MAX_HEAD: usize = 16 << 10;

/// Header fields that are read, at most.
const MAX_FIELDS: usize = 64;

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("no complete answer within {EXCHANGE_TIME:?}")]
    Timeout,
    #[error("cannot connect to the router: {0}")]
    Connect(#[source] std::io::Error),
    #[error("HTTP: {0}")]
    Protocol(#[from] hyper::Error),
    #[error("the URL is not valid: {0}")]
    Url(#[from] hyper::http::Error),
    #[error("the URL names no IPv4 address and port")]
    Host,
    #[error("the answer is longer than {MAX_BODY} bytes")]
    TooLong,
    #[error("the body ends early: {0}")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the answer is not UTF-8")]
    Encoding,
    #[error("the answer has the status {0}")]
    Status(StatusCode),
}

/// Returns the body at `path`.
pub(super) async fn get(router: SocketAddrV4, path: &str) -> Result<String, HttpError> {
    let request = Request::builder().method(Method::GET).uri(path);
    let request = request.header(HOST, router.to_string());
    match exchange(router, request.body(Full::default())?).await? {
        (StatusCode::OK, body) => Ok(body),
        (status, _) => Err(HttpError::Status(status)),
    }
}

/// Sends a request of SOAP and returns the body of its answer, whatever the status: errors of SOAP have
/// the status 500.
pub(super) async fn post(url: &str, action: &str, body: &str) -> Result<String, HttpError> {
    let url: Uri = url.parse().map_err(hyper::http::Error::from)?;
    let authority = url.authority().ok_or(HttpError::Host)?.as_str();
    let router: SocketAddrV4 = authority.parse().map_err(|_| HttpError::Host)?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(HOST, authority)
        .header(CONTENT_TYPE, "text/xml; charset=\"utf-8\"")
        .header("SOAPAction", action)
        .body(Full::from(body.to_owned()))?;
    let (_, body) = exchange(router, request).await?;
    Ok(body)
}

async fn exchange(
    router: SocketAddrV4,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, String), HttpError> {
    let exchanged = async {
        let stream = TcpStream::connect(router)
            .await
            .map_err(HttpError::Connect)?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_FIELDS)
            .handshake(TokioIo::new(stream))
            .await?;
        let received = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, MAX_BODY).collect().await;
            let body = body.map_err(|error| match error.is::<LengthLimitError>() {
                true => HttpError::TooLong,
                false => HttpError::Body(error),
            })?;
            let body = String::from_utf8(body.to_bytes().into());
            Ok((head.status, body.map_err(|_| HttpError::Encoding)?))
        };
        // The connection is driven until the answer is complete, and dropped then.
        tokio::pin!(received);
        tokio::select! {
            biased;
            received = &mut received => received,
            ended = connection => {
                ended?;
                received.await
            }
        }
    };
    timeout(EXCHANGE_TIME, exchanged)
        .await
        .unwrap_or(Err(HttpError::Timeout))
}
