//! Protection against DNS rebinding.
//!
//! A web page can name this host by a domain of its own and let a browser on this machine read what
//! the node serves. The browser says so: the `Host` header holds the domain, and `Origin` the page's.

use std::net::IpAddr;

use axum::http::{HeaderMap, header};

/// Names under which the node may be asked, besides `localhost` and IP addresses, which no DNS
/// server can redirect.
#[derive(Clone, Debug, Default)]
pub(super) struct AllowedHosts(Vec<String>);

impl AllowedHosts {
    pub(super) fn new(names: Vec<String>) -> Self {
        Self(names)
    }

    /// Returns `true` if a request with these headers may be answered: its `Host` is allowed, and
    /// its `Origin`, if it has one, is the same host.
    pub(super) fn allow(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return false;
        };
        let Ok(host) = host.to_str() else {
            return false;
        };
        let mut origins = headers.get_all(header::ORIGIN).iter();
        self.allows_name(host)
            && origins.all(|origin| {
                let origin = origin.to_str().unwrap_or_default();
                // A proxy with TLS keeps the host.
                let of_origin = origin
                    .strip_prefix("http://")
                    .or_else(|| origin.strip_prefix("https://"));
                of_origin == Some(host)
            })
    }

    fn allows_name(&self, authority: &str) -> bool {
        let name = without_port(authority);
        let address = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
            .unwrap_or(name);
        address.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.0.iter().any(|one| name.eq_ignore_ascii_case(one))
    }
}

/// The host of `host:port`, where the port may be missing and the host an IPv6 address in brackets.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn addresses_and_named_hosts_are_allowed_and_pages_of_strangers_are_not() {
        let hosts = AllowedHosts::new(vec!["boot1.example".to_owned()]);
        let cases = [
            (Some("127.0.0.1:9428"), None, true),
            (Some("192.0.2.7"), None, true),
            (Some("[::1]:9428"), None, true),
            (Some("localhost:9428"), None, true),
            (Some("LocalHost"), None, true),
            (Some("boot1.example:9428"), None, true),
            (Some("127.0.0.1:9428"), Some("http://127.0.0.1:9428"), true),
            (Some("boot1.example"), Some("https://boot1.example"), true),
            (Some("127.0.0.1:9428"), Some("http://127.0.0.1:80"), false),
            (Some("127.0.0.1:9428"), Some("ftp://127.0.0.1:9428"), false),
            (Some("127.0.0.1:9428"), Some("http://evil.example"), false),
            (Some("127.0.0.1:9428"), Some("null"), false),
            (Some("evil.example:9428"), None, false),
            (Some("evil.example"), Some("http://evil.example"), false),
            (Some("localhost.evil.example:9428"), None, false),
            (Some(""), None, false),
            (None, None, false),
        ];
        for (host, origin, allowed) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in [(header::HOST, host), (header::ORIGIN, origin)] {
                if let Some(value) = value {
                    headers.insert(name, HeaderValue::from_static(value));
                }
            }
            assert_eq!(hosts.allow(&headers), allowed, "{host:?} {origin:?}");
        }
    }
}
