//! WebSocket addresses.

use std::net::{IpAddr, SocketAddr};

use multiaddr::{Multiaddr, Protocol};
use rustls::pki_types::ServerName;

/// A WebSocket address to dial, without names that have to be resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) socket: SocketAddr,
    /// Name that the certificate must have; `None` without TLS.
    pub(super) server: Option<ServerName<'static>>,
    /// Value of the HTTP header field `Host`.
    pub(super) host: String,
    pub(super) path: String,
}

impl Address {
    /// Parses `/ip4|ip6/<ip>/tcp/<port>/…[/p2p/<peer>]`, where `…` is `ws`, `wss`, `tls/ws` or
    /// `tls/sni/<name>/ws`.
    pub(super) fn parse(addr: &Multiaddr) -> Option<Self> {
        let mut parts = addr.iter().peekable();
        let ip = match parts.next()? {
            Protocol::Ip4(ip) => IpAddr::V4(ip),
            Protocol::Ip6(ip) => IpAddr::V6(ip),
            _ => return None,
        };
        let Some(Protocol::Tcp(port)) = parts.next() else {
            return None;
        };
        let tls = parts.next_if_eq(&Protocol::Tls).is_some();
        let name = match parts.next_if(|part| tls && matches!(part, Protocol::Sni(_))) {
            Some(Protocol::Sni(name)) => Some(name.into_owned()),
            _ => None,
        };
        let (path, secure) = match parts.next()? {
            Protocol::Ws(path) => (path, tls),
            Protocol::Wss(path) if !tls => (path, true),
            _ => return None,
        };
        let _ = parts.next_if(|part| matches!(part, Protocol::P2p(_)));
        if parts.next().is_some() || !is_request_target(&path) {
            return None;
        }
        let socket = SocketAddr::new(ip, port);
        let host = match &name {
            Some(name) => format!("{name}:{port}"),
            None => socket.to_string(),
        };
        let server = match name {
            Some(name) => Some(ServerName::try_from(name).ok()?),
            None => secure.then(|| ServerName::from(ip)),
        };
        Some(Self {
            socket,
            server,
            host,
            path: path.into_owned(),
        })
    }
}

/// Returns whether `path` can be the target of an HTTP request. Other peers choose the path of an
/// address, which must not end the line and add header fields.
fn is_request_target(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The end of a listen address, which the TCP listener does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Suffix {
    /// `/ws`
    Plain,
    /// `/tls/ws`
    TlsWs,
    /// `/wss`, the older form of `/tls/ws`.
    Wss,
}

impl Suffix {
    /// Splits a listen address into the address of the TCP listener and its end.
    pub(super) fn split(addr: &Multiaddr) -> Option<(Multiaddr, Self)> {
        let mut tcp = addr.clone();
        let suffix = match tcp.pop()? {
            Protocol::Wss(path) if path == "/" => Self::Wss,
            Protocol::Ws(path) if path == "/" => {
                let is_secure = matches!(tcp.iter().last(), Some(Protocol::Tls));
                if is_secure {
                    let _ = tcp.pop();
                    Self::TlsWs
                } else {
                    Self::Plain
                }
            }
            _ => return None,
        };
        Some((tcp, suffix))
    }

    pub(super) fn append(self, tcp: Multiaddr) -> Multiaddr {
        match self {
            Self::Plain => tcp.with(Protocol::Ws("/".into())),
            Self::TlsWs => tcp.with(Protocol::Tls).with(Protocol::Ws("/".into())),
            Self::Wss => tcp.with(Protocol::Wss("/".into())),
        }
    }

    pub(super) const fn is_secure(self) -> bool {
        !matches!(self, Self::Plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(String, bool, String)> {
        let address = Address::parse(&text.parse().unwrap())?;
        Some((address.host, address.server.is_some(), address.path))
    }

    #[test]
    fn addresses_are_parsed_from_the_first_part_to_the_last() {
        let peer = libp2p_identity::PeerId::random();
        for (text, host, secure, path) in [
            ("/ip4/1.2.3.4/tcp/5/ws", "1.2.3.4:5", false, "/"),
            ("/ip6/::1/tcp/5/wss", "[::1]:5", true, "/"),
            ("/ip4/1.2.3.4/tcp/5/tls/ws", "1.2.3.4:5", true, "/"),
            ("/ip4/1.2.3.4/tcp/5/tls/sni/a.b/ws", "a.b:5", true, "/"),
            (
                "/ip4/1.2.3.4/tcp/5/x-parity-ws/%2Fx",
                "1.2.3.4:5",
                false,
                "/x",
            ),
        ] {
            let expected = Some((host.to_owned(), secure, path.to_owned()));
            assert_eq!(parsed(text), expected, "{text}");
            assert_eq!(parsed(&format!("{text}/p2p/{peer}")), expected, "{text}");
        }
        for text in [
            "/ip4/1.2.3.4/tcp/5",
            "/ip4/1.2.3.4/tcp/5/tls",
            "/ip4/1.2.3.4/tcp/5/tls/wss",
            "/ip4/1.2.3.4/tcp/5/ws/ip4/127.0.0.1/tcp/1",
            "/ip4/1.2.3.4/udp/5/ws",
            "/dns4/a.b/tcp/5/ws",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn a_path_cannot_add_header_fields() {
        for path in ["/%0d%0aX: y", "/a b", "%00", "x", "/\u{e4}"] {
            let address = Multiaddr::from(IpAddr::from([1, 2, 3, 4]))
                .with(Protocol::Tcp(5))
                .with(Protocol::Ws(
                    path.replace("%0d%0a", "\r\n").replace("%00", "\0").into(),
                ));
            assert_eq!(Address::parse(&address), None, "{path}");
        }
    }

    #[test]
    fn listen_addresses_keep_their_form() {
        for (text, secure) in [
            ("/ip4/0.0.0.0/tcp/0/ws", false),
            ("/ip4/0.0.0.0/tcp/0/tls/ws", true),
            ("/ip6/::/tcp/0/wss", true),
        ] {
            let address: Multiaddr = text.parse().unwrap();
            let (tcp, suffix) = Suffix::split(&address).unwrap();
            assert_eq!(suffix.is_secure(), secure);
            assert_eq!(suffix.append(tcp), address);
        }
        assert!(Suffix::split(&"/ip4/1.2.3.4/tcp/5".parse().unwrap()).is_none());
    }
}
