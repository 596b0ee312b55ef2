//! Name resolution with a name server of the test, and hosts that accept or
//! never answer.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use calimero_network_primitives::addr::DialPolicy;
use futures::future;
use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use libp2p_core::{Endpoint, transport::PortUse};
use multiaddr::Protocol;
use tokio::net::UdpSocket;

use super::{
    attempts::{Addresses, with_server_name},
    resolver::{Files, Source, Stamp},
    *,
};

/// A deadline that exceeds the duration of every test on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("the test takes too long")
}

/// Types of DNS records (RFC 1035, RFC 3596).
const A: u8 = 1;
const TXT: u8 = 16;
const AAAA: u8 = 28;

/// Starts a name server that answers queries for A records with `ips` and other
/// queries with an empty response.
async fn name_server(ips: Vec<Ipv4Addr>) -> SocketAddr {
    let data: Vec<_> = ips.iter().map(|ip| ip.octets().to_vec()).collect();
    name_server_of(move |_, records| match records {
        A => Some(data.clone()),
        _ => Some(Vec::new()),
    })
    .await
}

/// Starts a name server that answers a query for a name and a type of records with the data of the
/// records that `data` returns, or not at all.
async fn name_server_of(
    data: impl Fn(&str, u8) -> Option<Vec<Vec<u8>>> + Send + 'static,
) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            if let Some(answer) = answer(&buffer[..length], &data) {
                socket.send_to(&answer, from).await.unwrap();
            }
        }
    });
    address
}

fn answer(question: &[u8], data: impl Fn(&str, u8) -> Option<Vec<Vec<u8>>>) -> Option<Vec<u8>> {
    let (mut name, mut at) = (String::new(), 12);
    while question[at] > 0 {
        let label = &question[at + 1..][..usize::from(question[at])];
        name.push_str(std::str::from_utf8(label).unwrap());
        name.push('.');
        at += 1 + label.len();
    }
    let end = at + 5;
    let records = question[end - 3];
    let data = data(&name, records)?;
    let mut answer = question[..2].to_vec();
    // A response without an error: one question, the given number of answers,
    // no other records.
    answer.extend([0x81, 0x80, 0, 1, 0, u8::try_from(data.len()).unwrap()]);
    answer.extend([0; 4]);
    answer.extend(&question[12..end]);
    for data in data {
        // Pointer to the name in the question, type, class IN, TTL 60 s, length of the data.
        answer.extend([0xc0, 12, 0, records, 0, 1, 0, 0, 0, 60, 0]);
        answer.push(u8::try_from(data.len()).unwrap());
        answer.extend(data);
    }
    Some(answer)
}

/// Configurations with one server each. The stamp selects the current one.
struct Servers {
    all: Vec<SocketAddr>,
    current: Arc<AtomicU64>,
    /// Number of times that a configuration was read.
    reads: Arc<AtomicU64>,
    /// Time for one lookup.
    timeout: Duration,
}

impl Source for Servers {
    fn stamp(&self) -> Stamp {
        let current = self.current.load(Ordering::Relaxed);
        [Some((SystemTime::UNIX_EPOCH, current)), None]
    }

    fn read(&self) -> (ResolverConfig, ResolverOpts) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let current = usize::try_from(self.current.load(Ordering::Relaxed)).unwrap();
        let server = self.all[current];
        let mut config = NameServerConfig::udp(server.ip());
        for connection in &mut config.connections {
            connection.port = server.port();
        }
        let mut options = ResolverOpts::default();
        options.timeout = self.timeout;
        options.attempts = 1;
        (ResolverConfig::from_name_servers(vec![config]), options)
    }
}

fn servers(all: Vec<SocketAddr>) -> (Servers, Arc<AtomicU64>, Arc<AtomicU64>) {
    let (current, reads) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let servers = Servers {
        all,
        current: Arc::clone(&current),
        reads: Arc::clone(&reads),
        timeout: Duration::from_millis(300),
    };
    (servers, current, reads)
}

/// A network in which only some hosts answer.
struct Hosts {
    live: HashSet<IpAddr>,
    dialled: Arc<Mutex<Vec<Multiaddr>>>,
}

impl Transport for Hosts {
    type Output = Multiaddr;
    type Error = io::Error;
    type ListenerUpgrade = future::Pending<io::Result<Multiaddr>>;
    type Dial = BoxFuture<'static, io::Result<Multiaddr>>;

    fn listen_on(
        &mut self,
        _: ListenerId,
        addr: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        Err(TransportError::MultiaddrNotSupported(addr))
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(
        &mut self,
        addr: Multiaddr,
        _: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        self.dialled.lock().unwrap().push(addr.clone());
        let ip = match addr.iter().next() {
            Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
            other => panic!("{other:?} was not resolved"),
        };
        Ok(match self.live.contains(&ip) {
            true => future::ready(Ok(addr)).boxed(),
            false => future::pending().boxed(),
        })
    }

    fn poll(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Poll::Pending
    }
}

struct Net {
    dns: Dns<Multiaddr>,
    gate: DialGate,
    dialled: Arc<Mutex<Vec<Multiaddr>>>,
}

fn net(live: &[&str], source: impl Source) -> Net {
    let dialled = Arc::default();
    let hosts = Hosts {
        live: live.iter().map(|ip| ip.parse().unwrap()).collect(),
        dialled: Arc::clone(&dialled),
    };
    let gate = DialGate::from(DialPolicy::Private);
    let dns = Dns::new(hosts.boxed(), Resolver::new(source), gate.clone());
    Net { dns, gate, dialled }
}

impl Net {
    async fn dial(&mut self, addr: &str) -> Result<Multiaddr, AddressError> {
        let opts = DialOpts {
            role: Endpoint::Dialer,
            port_use: PortUse::Reuse,
        };
        let dial = self.dns.dial(addr.parse().unwrap(), opts);
        within(dial.map_err(AddressError::from)?).await
    }

    fn dialled(&self) -> usize {
        self.dialled.lock().unwrap().len()
    }
}

fn ips(texts: &[&str]) -> Vec<Ipv4Addr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[tokio::test]
async fn unreachable_addresses_of_a_name_do_not_delay_a_reachable_one() {
    let all = ips(&["8.8.0.1", "8.8.0.2", "8.8.0.3", "8.8.0.4", "8.8.0.5"]);
    let (source, ..) = servers(vec![name_server(all).await]);
    let mut net = net(&["8.8.0.5"], source);
    let connected = net.dial("/dns/a.test/tcp/1").await.unwrap();
    assert_eq!(connected.to_string(), "/ip4/8.8.0.5/tcp/1");
    assert_eq!(net.dialled(), 5);
}

#[tokio::test]
async fn a_name_that_resolves_to_this_host_reaches_no_socket() {
    let (source, ..) = servers(vec![name_server(ips(&["127.0.0.1", "0.0.0.0"])).await]);
    let mut net = net(&["127.0.0.1"], source);
    let name = "/dns4/a.test/tcp/1";
    let error = net.dial(name).await.unwrap_err();
    let AddressError::Resolved { errors } = error else {
        panic!("{error:?}");
    };
    let refused = |error: &AddressError| matches!(error, AddressError::NotAllowed(_));
    assert!(errors.iter().all(refused), "{errors:?}");
    assert_eq!(net.dialled(), 0);

    // An operator may configure a host of the local network.
    net.gate.grant(&name.parse().unwrap()).unwrap();
    let connected = net.dial(name).await.unwrap();
    assert_eq!(connected.to_string(), "/ip4/127.0.0.1/tcp/1");
}

#[tokio::test]
async fn a_configuration_is_reloaded_after_a_change_or_a_failure() {
    // A bound socket that is never read: a name server without response.
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let empty = name_server(Vec::new()).await;
    let full = name_server(ips(&["8.8.0.1"])).await;
    let (source, current, reads) = servers(vec![silent.local_addr().unwrap(), empty, full]);
    let mut net = net(&["8.8.0.1"], source);
    let name = "/dns4/a.test/tcp/1";
    for times in 1..=2 {
        let error = net.dial(name).await.unwrap_err();
        assert!(matches!(error, AddressError::Resolve(_)), "{error:?}");
        assert_eq!(reads.load(Ordering::Relaxed), times);
    }
    current.store(1, Ordering::Relaxed);
    for _ in 0..2 {
        let error = net.dial(name).await.unwrap_err();
        assert!(matches!(error, AddressError::NoSuchName), "{error:?}");
    }
    assert_eq!(
        reads.load(Ordering::Relaxed),
        3,
        "a negative response is a response"
    );
    current.store(2, Ordering::Relaxed);
    net.dial(name).await.unwrap();
}

/// Configures one name server and lookups that take longer than a test if they have no response.
async fn patient_servers(
    data: impl Fn(&str, u8) -> Option<Vec<Vec<u8>>> + Send + 'static,
) -> (Servers, Arc<AtomicU64>) {
    let (mut source, _, reads) = servers(vec![name_server_of(data).await]);
    source.timeout = 10 * DEADLINE;
    (source, reads)
}

#[tokio::test]
async fn a_server_without_responses_for_ipv6_delays_no_ipv4_address() {
    let (source, _) =
        patient_servers(|_, records| (records == A).then(|| vec![vec![8, 8, 0, 1]])).await;
    let mut net = net(&["8.8.0.1"], source);
    for name in ["/dns4/a.test/tcp/1", "/dns/a.test/tcp/1"] {
        let connected = net.dial(name).await.unwrap();
        assert_eq!(connected.to_string(), "/ip4/8.8.0.1/tcp/1", "{name}");
    }
}

#[tokio::test]
async fn names_without_response_do_not_delay_the_others_of_a_list() {
    let (source, _) = patient_servers(|name, records| match (name, records) {
        ("_dnsaddr.list.test.", TXT) => {
            let names = ["dead1", "dead2", "dead3", "live"];
            let record = |name| format!("dnsaddr=/dns/{name}.test/tcp/1").into_bytes();
            let records = names.into_iter().map(record);
            Some(
                records
                    .map(|text| [vec![text.len() as u8], text].concat())
                    .collect(),
            )
        }
        ("live.test.", A) => Some(vec![vec![8, 8, 0, 1]]),
        ("live.test.", AAAA) => Some(Vec::new()),
        _ => None,
    })
    .await;
    let mut net = net(&["8.8.0.1"], source);
    let connected = net.dial("/dnsaddr/list.test").await.unwrap();
    assert_eq!(connected.to_string(), "/ip4/8.8.0.1/tcp/1");
}

#[tokio::test]
async fn a_server_that_responds_to_some_lookups_stays_configured() {
    let data = |_: &str, records| (records == A).then(|| vec![vec![127, 0, 0, 1]]);
    let (mut source, _, reads) = servers(vec![name_server_of(data).await]);
    source.timeout = Duration::from_secs(1);
    let mut net = net(&[], source);
    // The address is refused, so the dial ends with the last lookup.
    for _ in 0..2 {
        let error = net.dial("/dns/a.test/tcp/1").await.unwrap_err();
        assert!(matches!(
            error,
            AddressError::NotAllowed(_) | AddressError::Resolved { .. }
        ));
    }
    assert_eq!(reads.load(Ordering::Relaxed), 1);
}

#[test]
fn missing_or_empty_files_select_the_loopback_server() {
    let folder = std::env::temp_dir().join(format!("calimero-dns-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("resolv.conf");
    let files = Files::new(&path, folder.join("hosts"));
    let servers = || -> Vec<IpAddr> {
        let (config, _) = files.read();
        let servers = config.name_servers().iter();
        servers.map(|server| server.ip).collect()
    };
    let absent = files.stamp();
    assert_eq!(servers(), [Ipv4Addr::LOCALHOST]);
    std::fs::write(&path, "").unwrap();
    assert_ne!(files.stamp(), absent);
    assert_eq!(servers(), [Ipv4Addr::LOCALHOST]);
    std::fs::write(&path, "nameserver 9.9.9.9\n").unwrap();
    assert_eq!(servers(), [Ipv4Addr::new(9, 9, 9, 9)]);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn addresses_of_both_versions_alternate() {
    let mut addresses = Addresses::default();
    let [a, b, c] = ["/ip4/1.1.1.1", "/ip4/1.1.1.2", "/ip6/2003::1"].map(|a| a.parse().unwrap());
    for addr in [&a, &b, &c] {
        addresses.add(Multiaddr::clone(addr));
    }
    assert_eq!(addresses.next(), Some(c));
    assert_eq!(addresses.next(), Some(a));
    // An address that is found later is of the other version.
    let d: Multiaddr = "/ip6/2003::2".parse().unwrap();
    addresses.add(d.clone());
    assert_eq!(addresses.next(), Some(d));
    assert_eq!(addresses.next(), Some(b));
    assert_eq!(addresses.next(), None);
}

#[test]
fn the_name_of_a_certificate_survives_the_lookup() {
    let named = |text: &str| with_server_name(&text.parse().unwrap(), "a.b.").to_string();
    for (resolved, expected) in [
        (
            "/ip4/1.2.3.4/tcp/443/wss",
            "/ip4/1.2.3.4/tcp/443/tls/sni/a.b/ws",
        ),
        (
            "/ip4/1.2.3.4/tcp/443/tls/ws",
            "/ip4/1.2.3.4/tcp/443/tls/sni/a.b/ws",
        ),
        (
            "/ip4/1.2.3.4/tcp/443/tls/sni/c.d/ws",
            "/ip4/1.2.3.4/tcp/443/tls/sni/c.d/ws",
        ),
        ("/ip4/1.2.3.4/tcp/443/ws", "/ip4/1.2.3.4/tcp/443/ws"),
        ("/ip4/1.2.3.4/tcp/443", "/ip4/1.2.3.4/tcp/443"),
    ] {
        assert_eq!(named(resolved), expected);
    }
}
