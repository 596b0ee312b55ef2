//! Name resolution with a name server of the test, and hosts that accept or
//! never answer.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use calimero_network_primitives::addr::DialPolicy;
use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use libp2p_core::{Endpoint, transport::PortUse};
use tokio::net::UdpSocket;

use super::{
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

/// Starts a name server that answers queries for A records with `ips` and other
/// queries with an empty response.
async fn name_server(ips: Vec<Ipv4Addr>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let answer = answer(&buffer[..length], &ips);
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    address
}

fn answer(question: &[u8], ips: &[Ipv4Addr]) -> Vec<u8> {
    let name = question[12..].iter().position(|byte| *byte == 0).unwrap();
    let end = 12 + name + 5;
    let is_a = question[end - 4..end - 2] == [0, 1];
    let ips = if is_a { ips } else { &[] };
    let mut answer = question[..2].to_vec();
    // A response without an error: one question, the given number of answers,
    // no other records.
    answer.extend([0x81, 0x80, 0, 1, 0, u8::try_from(ips.len()).unwrap()]);
    answer.extend([0; 4]);
    answer.extend(&question[12..end]);
    for ip in ips {
        // Pointer to the name in the question, type A, class IN, TTL 60 s, 4
        // bytes of data.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(ip.octets());
    }
    answer
}

/// Configurations with one server each. The stamp selects the current one.
struct Servers {
    all: Vec<SocketAddr>,
    current: Arc<AtomicU64>,
    /// Number of times that a configuration was read.
    reads: Arc<AtomicU64>,
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
        options.timeout = Duration::from_millis(300);
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
    let all = ["1.1.1.1", "1.1.1.2", "2003::1"].map(|text| text.parse().unwrap());
    let ordered = alternate(all.to_vec());
    assert_eq!(ordered, [all[2], all[0], all[1]]);
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
