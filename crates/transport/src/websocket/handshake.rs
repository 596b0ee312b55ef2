//! The opening handshake of WebSocket (RFC 6455, section 4): one HTTP request and its response.

use std::io;

use aws_lc_rs::digest;
use data_encoding::BASE64;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest request or response with all its header fields, in bytes: 8 KiB, the limit of most HTTP
/// servers.
pub const MAX_HEAD_BYTES: usize = 8 * 1024;

/// Largest number of header fields, 64. Browsers send about 15, reverse proxies add some more.
const MAX_FIELDS: usize = 64;

/// Value that RFC 6455, section 1.3, appends to the key of a request.
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Number of random bytes in the key of a request.
const KEY_BYTES: usize = 16;

/// A failure of the opening handshake.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the HTTP header is longer than {MAX_HEAD_BYTES} bytes")]
    TooLarge,
    #[error("invalid HTTP: {0}")]
    Http(#[from] httparse::Error),
    #[error("the request does not open a WebSocket: {0}")]
    Request(&'static str),
    #[error("the server answered with status {0}; redirects are not followed")]
    Status(u16),
    #[error("the response does not open a WebSocket: {0}")]
    Response(&'static str),
}

/// Awaits the request of a client and accepts it. Any path and any origin is accepted, because peers
/// are authenticated afterwards.
pub(super) async fn accept<S>(io: &mut S) -> Result<(), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (status, error) = match read_head(io).await {
        Ok(head) => match key_of(&head) {
            Ok(key) => {
                let response = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
                    accept_value(key)
                );
                io.write_all(response.as_bytes()).await?;
                return Ok(io.flush().await?);
            }
            Err(error @ HandshakeError::Request(_)) => ("426 Upgrade Required", error),
            Err(error) => ("400 Bad Request", error),
        },
        Err(error @ HandshakeError::TooLarge) => ("431 Request Header Fields Too Large", error),
        Err(error) => return Err(error),
    };
    let response = format!(
        "HTTP/1.1 {status}\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Connection: close\r\nContent-Length: 0\r\n\r\n"
    );
    io.write_all(response.as_bytes()).await?;
    io.close().await?;
    Err(error)
}

/// Sends the request for `path` to `host` and checks the response.
///
/// `host` and `path` have no characters that end a line; the addresses are checked when parsed.
pub(super) async fn connect<S>(io: &mut S, host: &str, path: &str) -> Result<(), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let key = BASE64.encode(&rand::random::<[u8; KEY_BYTES]>());
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    io.write_all(request.as_bytes()).await?;
    io.flush().await?;
    check_response(&read_head(io).await?, &key)
}

/// Reads up to the empty line that ends a request or response. Bytes after it stay in `io`, which
/// buffers: the remote may already have sent frames.
async fn read_head<S: AsyncRead + Unpin>(io: &mut S) -> Result<Vec<u8>, HandshakeError> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_HEAD_BYTES {
            return Err(HandshakeError::TooLarge);
        }
        io.read_exact(&mut byte).await?;
        head.extend(byte);
    }
    Ok(head)
}

/// Returns the key of a request that opens a WebSocket.
fn key_of(head: &[u8]) -> Result<&str, HandshakeError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let _ = request.parse(head)?;
    let fields = Fields(request.headers);
    if request.method != Some("GET") || request.version != Some(1) {
        return Err(HandshakeError::Request("not GET with HTTP/1.1"));
    }
    if !fields.has("Upgrade", "websocket") || !fields.has("Connection", "upgrade") {
        return Err(HandshakeError::Request("no upgrade to websocket"));
    }
    if !fields.has("Sec-WebSocket-Version", "13") {
        return Err(HandshakeError::Request("the version is not 13"));
    }
    let key = fields.get("Sec-WebSocket-Key").unwrap_or_default();
    match BASE64.decode(key.as_bytes()) {
        Ok(bytes) if bytes.len() == KEY_BYTES => Ok(key),
        _ => Err(HandshakeError::Request("the key is not 16 bytes in base64")),
    }
}

fn check_response(head: &[u8], key: &str) -> Result<(), HandshakeError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let _ = response.parse(head)?;
    let fields = Fields(response.headers);
    match response.code {
        Some(101) => {}
        code => return Err(HandshakeError::Status(code.unwrap_or_default())),
    }
    if !fields.has("Upgrade", "websocket") || !fields.has("Connection", "upgrade") {
        return Err(HandshakeError::Response("no upgrade to websocket"));
    }
    if fields.get("Sec-WebSocket-Accept") != Some(accept_value(key).as_str()) {
        return Err(HandshakeError::Response("it answers another request"));
    }
    let selects = |name| fields.get(name).is_some();
    if selects("Sec-WebSocket-Extensions") || selects("Sec-WebSocket-Protocol") {
        return Err(HandshakeError::Response(
            "it selects an extension that was not offered",
        ));
    }
    Ok(())
}

fn accept_value(key: &str) -> String {
    let whole = [key.as_bytes(), ACCEPT_SUFFIX].concat();
    // RFC 6455 uses SHA-1 to show that the server understood the request. It protects nothing.
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &whole);
    BASE64.encode(hash.as_ref())
}

/// The header fields of a request or response.
struct Fields<'f, 'b>(&'f [httparse::Header<'b>]);

impl<'b> Fields<'_, 'b> {
    fn get(&self, name: &str) -> Option<&'b str> {
        let mut fields = self.0.iter();
        let field = fields.find(|field| field.name.eq_ignore_ascii_case(name))?;
        str::from_utf8(field.value).ok().map(str::trim)
    }

    /// Returns whether one of the fields `name` has `token` in its list.
    fn has(&self, name: &str, token: &str) -> bool {
        let fields = self.0.iter();
        let mut fields = fields.filter(|field| field.name.eq_ignore_ascii_case(name));
        fields.any(|field| {
            let mut tokens = field.value.split(|byte| *byte == b',');
            tokens.any(|found| found.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn request(change: impl Fn(String) -> String) -> Vec<u8> {
        let request = format!(
            "GET /chat HTTP/1.1\r\nHost: a\r\nupgrade: WebSocket\r\n\
             connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: {KEY}\r\n\
             Sec-WebSocket-Version: 13\r\n\r\n"
        );
        change(request).into_bytes()
    }

    #[test]
    fn the_example_of_the_specification_is_accepted() {
        assert_eq!(key_of(&request(|text| text)).unwrap(), KEY);
        assert_eq!(accept_value(KEY), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn other_requests_are_refused() {
        for (from, to) in [
            ("GET", "POST"),
            ("HTTP/1.1", "HTTP/1.0"),
            ("WebSocket", "h2c"),
            ("keep-alive, Upgrade", "close"),
            ("13", "8"),
            (KEY, "c2hvcnQ="),
            ("Sec-WebSocket-Key", "Sec-WebSocket-Kex"),
        ] {
            let error = key_of(&request(|text| text.replace(from, to))).unwrap_err();
            assert!(matches!(error, HandshakeError::Request(_)), "{error:?}");
        }
        let many = |text: String| text.replace("Host: a", &"a: b\r\n".repeat(65));
        let error = key_of(&request(many)).unwrap_err();
        assert!(matches!(error, HandshakeError::Http(_)), "{error:?}");
    }

    #[test]
    fn responses_are_checked() {
        let response = |text: &str| {
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                 Connection: upgrade\r\n{text}\r\n\r\n"
            )
        };
        let right = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        check_response(response(right).as_bytes(), KEY).unwrap();
        for text in [
            "Sec-WebSocket-Accept: t3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned(),
            "X: y".to_owned(),
            format!("{right}\r\nSec-WebSocket-Extensions: permessage-deflate"),
        ] {
            let error = check_response(response(&text).as_bytes(), KEY).unwrap_err();
            assert!(matches!(error, HandshakeError::Response(_)), "{error:?}");
        }
        let moved = "HTTP/1.1 301 Moved\r\nLocation: ws://127.0.0.1/\r\n\r\n";
        let error = check_response(moved.as_bytes(), KEY).unwrap_err();
        assert!(matches!(error, HandshakeError::Status(301)), "{error:?}");
    }
}
