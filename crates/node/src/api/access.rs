//! Which requests a listener accepts: by `Host`, `Origin` and token.

use std::time::Duration;

use axum::{
    extract::Request,
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{AUTHORIZATION, CONNECTION, WWW_AUTHENTICATE},
    },
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::{answer::Refusal, host::AllowedHosts, page, token::Token, unread::Unread};
use crate::error::Code;

/// Paths that load balancers and service managers probe, without a token.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// The rules of one listener.
#[derive(Clone)]
pub(super) enum Access {
    /// A socket whose file permissions are the authentication. Its host is checked as well, because
    /// a tunnel can lead to it from the port of another machine, which web pages reach.
    Owner,
    /// The token, under an allowed host. Probes and the files of the page need no token.
    Token { hosts: AllowedHosts, token: Token },
    /// Scrapers and probes, under an allowed host.
    Watch { hosts: AllowedHosts },
}

/// Longest pause between two parts of a request body, by listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyPause(pub(super) Duration);

/// Passes a request on, or refuses it and closes its connection.
pub(super) async fn check(
    (access, pause): (Access, BodyPause),
    request: Request,
    next: Next,
) -> Response {
    let (mut request, unread) = Unread::of(request);
    let response = match access.allows(&request) {
        Err(refusal) => {
            drop(request);
            let mut response = refusal.into_response();
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
            response
        }
        Ok(()) => {
            request.extensions_mut().insert(pause);
            next.run(request).await
        }
    };
    unread.drain(response.status()).await;
    response
}

impl Access {
    fn allows(&self, request: &Request) -> Result<(), Refusal> {
        let headers = request.headers();
        match self {
            Self::Owner => {
                let accepted = "localhost and IP addresses are";
                check_host(&AllowedHosts::default(), headers, accepted)
            }
            Self::Watch { hosts } => {
                let accepted = "localhost, IP addresses and names of --metrics-host are";
                check_host(hosts, headers, accepted)
            }
            Self::Token { hosts, token } => {
                let accepted = "localhost, IP addresses and names of --api-host are";
                check_host(hosts, headers, accepted)?;
                let path = request.uri().path();
                let is_open = PROBES.contains(&path) || page::is_file(path);
                match is_open || has_token(headers, token) {
                    true => Ok(()),
                    false => Err(unauthorized()),
                }
            }
        }
    }
}

fn check_host(hosts: &AllowedHosts, headers: &HeaderMap, accepted: &str) -> Result<(), Refusal> {
    match hosts.allow(headers) {
        true => Ok(()),
        false => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            Code::Refused,
            format!("this host or origin is not allowed; {accepted}"),
        )
        .with_fields(&["Host", "Origin"])),
    }
}

/// Returns `true` for one `Authorization` header with the token (RFC 6750).
fn has_token(headers: &HeaderMap, token: &Token) -> bool {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    let parts = value.to_str().ok().and_then(|text| text.split_once(' '));
    parts.is_some_and(|(scheme, presented)| {
        scheme.eq_ignore_ascii_case("bearer") && token.matches(presented.trim())
    })
}

fn unauthorized() -> Refusal {
    Refusal::new(
        StatusCode::UNAUTHORIZED,
        Code::Refused,
        "the token of the data folder is missing or wrong (Authorization: Bearer TOKEN)".to_owned(),
    )
    .with_fields(&["Authorization"])
    .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

#[cfg(test)]
mod tests;
