//! The search for a UPnP router, and the bounds on what it may answer.
//!
//! Any host of the local network can answer a search. `igd-next` 0.17 follows the URL of any answer to
//! any host, reads a body without a limit, and parses XML by recursion, so that an answer can make a
//! node send requests, take its memory or overflow its stack. The requests of SOAP are those of
//! `igd-next`; the search and each exchange over HTTP are done here:
//!
//! - Only an answer of the default gateway counts, or of a private address where the gateway is not
//!   known, and only a URL at the address that answered.
//! - Time, bytes and the depth of XML are bounded.

mod http;
#[cfg(test)]
mod tests;
mod xml;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

use hyper::Uri;
use igd_next::{
    RequestError,
    aio::{Gateway, Provider},
};
use tokio::{net::UdpSocket, time::timeout};

use self::{http::HttpError, xml::Element};

/// Address of a search (UPnP Device Architecture 1.1, section 1.3.2).
const MULTICAST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 255, 250), 1900);

/// Time in which a router has to answer a search and to describe itself, 6 s: the longest delay (`MX`)
/// that the search permits, 3 s, and the same again for the descriptions.
const SEARCH_TIME: Duration = Duration::from_secs(6);

/// Time for one exchange over HTTP, 3 s.
const EXCHANGE_TIME: Duration = Duration::from_secs(3);

/// Descriptions that are read in one search. A router answers once or, with several device types, a
/// few times.
const MAX_DESCRIBED: usize = 4;

/// Length of the longest answer to a search that is read, an Ethernet frame.
const MAX_ANSWER: usize = 1500;

/// Services that map ports. PPPoE routers have the second one.
const SERVICES: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
    "urn:schemas-upnp-org:service:WANIPConnection:2",
];

/// Arguments of the actions that map ports, which `igd-next` can fill in.
const ARGUMENTS: [&str; 8] = [
    "NewEnabled",
    "NewExternalPort",
    "NewInternalClient",
    "NewInternalPort",
    "NewLeaseDuration",
    "NewPortMappingDescription",
    "NewProtocol",
    "NewRemoteHost",
];

/// Actions whose arguments `igd-next` needs.
const ACTIONS: [&str; 3] = ["AddAnyPortMapping", "AddPortMapping", "DeletePortMapping"];

/// A router that was found.
pub(super) type Router = Gateway<Bounded>;

/// Why an answer to a search is not used.
#[derive(Debug, thiserror::Error)]
enum SearchError {
    #[error("the answer has no URL of the form http://IP:PORT/PATH")]
    Location,
    #[error("the URL is at {found}, not at {expected}, which answered")]
    OtherHost { found: Ipv4Addr, expected: Ipv4Addr },
    #[error("{found} is not the router of this host")]
    NotRouter { found: Ipv4Addr },
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Xml(#[from] xml::XmlError),
    #[error("the description has no service that maps ports")]
    NoService,
    #[error("a path of the description does not begin with a slash")]
    Path,
}

/// A search for the router of a local address.
pub(super) struct Search {
    /// The local address from which the router is reached.
    local: Ipv4Addr,
    /// The default gateway, if it is known.
    gateway: Option<Ipv4Addr>,
    /// Where the search is sent.
    target: SocketAddrV4,
    /// Whether a router may have an address, if the gateway is not known.
    may_route: fn(Ipv4Addr) -> bool,
}

impl Search {
    pub(super) fn new(local: Ipv4Addr, gateway: Option<Ipv4Addr>) -> Self {
        Self {
            local,
            gateway,
            target: MULTICAST,
            may_route: |ip| ip.is_private() || super::is_shared(ip),
        }
    }

    /// Searches the router. `None` if no usable one answers in time.
    pub(super) async fn run(&self) -> Option<Router> {
        match timeout(SEARCH_TIME, self.search()).await {
            Ok(Ok(router)) => router,
            Ok(Err(error)) => {
                tracing::debug!(%error, "cannot search a UPnP router");
                None
            }
            Err(_) => {
                tracing::debug!("no UPnP router found");
                None
            }
        }
    }

    async fn search(&self) -> io::Result<Option<Router>> {
        let socket = UdpSocket::bind((self.local, 0)).await?;
        let request = format!(
            "M-SEARCH * HTTP/1.1\r\nHOST: {MULTICAST}\r\nMAN: \"ssdp:discover\"\r\nMX: 3\r\n\
             ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n"
        );
        socket.send_to(request.as_bytes(), self.target).await?;
        let mut described = Vec::new();
        let mut answer = [0; MAX_ANSWER];
        while described.len() < MAX_DESCRIBED {
            let (len, from) = match socket.recv_from(&mut answer).await {
                Ok(received) => received,
                // An ICMP error of another host.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error),
            };
            let location = match self.location(&answer[..len], from.ip()) {
                Ok(location) if described.contains(&location) => continue,
                Ok(location) => location,
                Err(error) => {
                    tracing::debug!(%from, %error, "an answer to a search for a router is not used");
                    continue;
                }
            };
            match describe(&location).await {
                Ok(router) => return Ok(Some(router)),
                Err(error) => {
                    tracing::debug!(%from, %error, "a router is not used");
                }
            }
            described.push(location);
        }
        Ok(None)
    }

    /// Returns the URL of the description in an answer, if it may be followed.
    fn location(&self, answer: &[u8], from: IpAddr) -> Result<Location, SearchError> {
        let location = Location::in_answer(answer).ok_or(SearchError::Location)?;
        let found = *location.socket.ip();
        let IpAddr::V4(expected) = from else {
            return Err(SearchError::Location);
        };
        if found != expected {
            return Err(SearchError::OtherHost { found, expected });
        }
        let is_router = match self.gateway {
            Some(gateway) => found == gateway,
            None => (self.may_route)(found),
        };
        match is_router {
            true => Ok(location),
            false => Err(SearchError::NotRouter { found }),
        }
    }
}

/// Where a router describes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Location {
    socket: SocketAddrV4,
    path: String,
}

impl Location {
    /// Reads the header field `LOCATION`. Names of hosts are not resolved.
    fn in_answer(answer: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(answer).ok()?.lines();
        let status = lines.next()?;
        if !status.starts_with("HTTP/1.1 200") && !status.starts_with("HTTP/1.0 200") {
            return None;
        }
        let url = lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("location").then(|| value.trim())
        })?;
        let url: Uri = url.parse().ok()?;
        if url.scheme_str() != Some("http") {
            return None;
        }
        let ip = url.host()?.parse().ok()?;
        let port = url.port_u16().unwrap_or(80);
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        Some(Self {
            socket: SocketAddrV4::new(ip, port),
            path: path.to_owned(),
        })
    }
}

/// Reads the descriptions of a router and of its service that maps ports.
async fn describe(location: &Location) -> Result<Router, SearchError> {
    let root = xml::parse(&http::get(location.socket, &location.path).await?)?;
    let device = root.child("device").ok_or(SearchError::NoService)?;
    let service = service_of(device).ok_or(SearchError::NoService)?;
    let path = |name| {
        let path = service.child(name).map_or("", |url| url.text.trim());
        // A path that begins otherwise would change the host of the URL.
        match path.starts_with('/') {
            true => Ok(path.to_owned()),
            false => Err(SearchError::Path),
        }
    };
    let (control_url, control_schema_url) = (path("controlURL")?, path("SCPDURL")?);
    let schema = xml::parse(&http::get(location.socket, &control_schema_url).await?)?;
    Ok(Router {
        addr: SocketAddr::V4(location.socket),
        root_url: location.path.clone(),
        control_url,
        control_schema_url,
        control_schema: arguments(&schema),
        provider: Bounded,
    })
}

/// Finds the service that maps ports, which a device below `device` has. The depth of XML is bounded,
/// and with it this recursion.
fn service_of(device: &Element) -> Option<&Element> {
    let services = device.children("serviceList", "service");
    let mut of_this = services.filter(|service| {
        let kind = service.child("serviceType");
        kind.is_some_and(|kind| SERVICES.contains(&kind.text.trim()))
    });
    let mut below = device.children("deviceList", "device");
    of_this.next().or_else(|| below.find_map(service_of))
}

/// Returns the inbound arguments of each action that maps ports, in the order of the router.
fn arguments(schema: &Element) -> HashMap<String, Vec<String>> {
    let text = |element: &Element, name: &str| {
        let child = element.child(name);
        child.map(|child| child.text.trim().to_owned())
    };
    let actions = schema.children("actionList", "action");
    let known = actions.filter_map(|action| {
        let name = text(action, "name").filter(|name| ACTIONS.contains(&name.as_str()))?;
        let inbound = action
            .children("argumentList", "argument")
            .filter(|argument| text(argument, "direction").as_deref() == Some("in"))
            .filter_map(|argument| text(argument, "name"))
            .filter(|name| ARGUMENTS.contains(&name.as_str()));
        Some((name, inbound.take(ARGUMENTS.len()).collect()))
    });
    known.collect()
}

/// Exchanges of SOAP with a router, whose answers are bounded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounded;

impl Provider for Bounded {
    async fn send_async(url: &str, action: &str, body: &str) -> Result<String, RequestError> {
        let answer = http::post(url, action, body).await;
        let answer = answer.map_err(|error| RequestError::IoError(io::Error::other(error)))?;
        // `igd-next` parses it by recursion.
        match xml::parse(&answer) {
            Ok(_) => Ok(answer),
            Err(error) => Err(RequestError::InvalidResponse(error.to_string())),
        }
    }
}
