//! What a site does to packets, found out from outside with plain sockets: mapping and filtering
//! in the words of RFC 4787 (UDP) and RFC 5382 (TCP).

use std::{
    fmt,
    io::ErrorKind,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use crate::{
    site::{PORT, Site},
    support::netns::Namespace,
};

/// Long for packets that come, since the machine may be busy; it is also how long a probe waits
/// for one that must not come.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Packets sent before one is taken not to come: the first may wait for its neighbour's address.
const TRIES: u32 = 3;
/// How often a connection is tried from both sides.
const PUNCHES: u32 = 2;
/// Ports of the public hosts.
const SERVER_PORTS: [u16; 2] = [3478, 3479];

/// What decides about mapping or filtering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depends {
    /// Nothing leaves, or nothing comes in.
    Closed,
    /// There is no translation, or everything comes in.
    Nothing,
    /// What is inside decides alone.
    EndpointIndependent,
    /// The other's address matters.
    Address,
    /// The other's address and port matter.
    AddressAndPort,
}

impl fmt::Display for Depends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "nothing passes",
            Self::Nothing => "none",
            Self::EndpointIndependent => "endpoint-independent",
            Self::Address => "address-dependent",
            Self::AddressAndPort => "address and port-dependent",
        })
    }
}

/// What was found out about one transport of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Behaviour {
    pub(crate) mapping: Depends,
    pub(crate) filtering: Depends,
}

/// Two public hosts that probe, with two ports each.
pub(crate) struct Servers<'lab>(pub(crate) [&'lab Site; 2]);

impl Servers<'_> {
    fn at(&self, site: &Site, server: usize, port: usize) -> SocketAddr {
        at(self.0[server], site, SERVER_PORTS[port])
    }

    /// Probes UDP from the port that nodes use.
    pub(crate) fn udp(&self, site: &Site) -> Behaviour {
        let client = udp(site.host(), any(site, PORT));
        let servers = [0, 1].map(|server| {
            [0, 1].map(|port| udp(self.0[server].host(), self.at(site, server, port)))
        });
        let ask = |server: usize, port: usize| {
            client.send_to(b"?", self.at(site, server, port)).unwrap();
            receive(&servers[server][port])
        };
        // Knocks first: it is not let in, and it must not spoil what comes after it.
        let knocked = reaches(&servers[1][0], site.seen_at(), &client);
        let Some(first) = ask(0, 0) else {
            let (mapping, filtering) = (Depends::Closed, Depends::Closed);
            return Behaviour { mapping, filtering };
        };
        let filtering = match () {
            () if knocked && site.kind().is_open() => Depends::Nothing,
            () if reaches(&servers[1][1], first, &client) => Depends::EndpointIndependent,
            () if reaches(&servers[0][1], first, &client) => Depends::Address,
            () => Depends::AddressAndPort,
        };
        assert!(
            reaches(&servers[0][0], first, &client),
            "no answer comes in"
        );
        let mapping = mapping(site, first, || ask(0, 1), || ask(1, 0));
        Behaviour { mapping, filtering }
    }

    /// Probes TCP from the port that nodes use, next to a listener.
    pub(crate) fn tcp(&self, site: &Site) -> Behaviour {
        let inside = site.host().enter(|| listen(any(site, PORT)));
        let listeners = [0, 1].map(|server| {
            [0, 1].map(|port| {
                let addr = self.at(site, server, port);
                self.0[server].host().enter(|| listen(addr))
            })
        });
        let mut open = Vec::new();
        let mut ask = |server: usize, port: usize| {
            let (from, to) = (any(site, PORT), self.at(site, server, port));
            let stream = site.host().enter(|| connect(from, to)).ok()?;
            let (accepted, seen) = accept(&listeners[server][port])?;
            open.push((stream, accepted));
            Some(seen)
        };
        let knocks = |server: usize, to: SocketAddr| {
            let from = SocketAddr::new(self.at(site, server, 0).ip(), 0);
            match self.0[server].host().enter(|| connect(from, to)) {
                Ok(_) => accept(&inside).is_some(),
                Err(error) => {
                    assert!(is_silence(&error), "{}: {error}", site.kind());
                    false
                }
            }
        };
        let knocked = knocks(1, site.seen_at());
        let Some(first) = ask(0, 0) else {
            let (mapping, filtering) = (Depends::Closed, Depends::Closed);
            return Behaviour { mapping, filtering };
        };
        let filtering = match () {
            () if knocked && site.kind().is_open() => Depends::Nothing,
            () if knocks(1, first) => Depends::EndpointIndependent,
            () if knocks(0, first) => Depends::Address,
            () => Depends::AddressAndPort,
        };
        let mapping = {
            let other_port = ask(0, 1);
            let other_host = ask(1, 0);
            mapping(site, first, || other_port, || other_host)
        };
        Behaviour { mapping, filtering }
    }
}

fn mapping(
    site: &Site,
    first: SocketAddr,
    other_port: impl FnOnce() -> Option<SocketAddr>,
    other_host: impl FnOnce() -> Option<SocketAddr>,
) -> Depends {
    let (other_port, other_host) = (other_port().unwrap(), other_host().unwrap());
    if site.kind().family().has_v4() {
        let outside = site.public_addresses().v4();
        for seen in [first, other_port, other_host] {
            assert_eq!(seen.ip(), outside, "{}", site.kind());
        }
    }
    match () {
        () if first == site.outside(PORT) && other_host == first => Depends::Nothing,
        () if first == other_port && first == other_host => Depends::EndpointIndependent,
        () if first == other_port => Depends::Address,
        () => Depends::AddressAndPort,
    }
}

/// Whether two sites that know each other's observed addresses reach each other
/// directly with UDP: both send at once, and to wherever something has come from since.
pub(crate) fn punches_udp(server: &Site, sites: [&Site; 2]) -> bool {
    let here = any(sites[0], SERVER_PORTS[0]);
    let there = at(server, sites[0], SERVER_PORTS[0]);
    let public = udp(server.host(), here);
    let sockets = sites.map(|site| udp(site.host(), any(site, PORT)));
    let seen = sockets.each_ref().map(|socket| {
        socket.send_to(b"?", there).unwrap();
        receive(&public)
    });
    let [Some(a), Some(b)] = seen else {
        return false;
    };
    let mut targets = [b, a];
    let mut heard = [false; 2];
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline && heard != [true; 2] {
        for n in [0, 1] {
            sockets[n].send_to(b"!", targets[n]).unwrap();
        }
        for n in [0, 1] {
            let short = Some(Duration::from_millis(100));
            sockets[n].set_read_timeout(short).unwrap();
            if let Ok((_, from)) = sockets[n].recv_from(&mut [0; 8]) {
                (targets[n], heard[n]) = (from, true);
            }
        }
    }
    heard == [true; 2]
}

/// The same with TCP: both connect at once from the port they listen on, some times over.
pub(crate) fn punches_tcp(server: &Site, sites: [&Site; 2]) -> bool {
    let there = at(server, sites[0], SERVER_PORTS[0]);
    let public = server
        .host()
        .enter(|| listen(any(sites[0], SERVER_PORTS[0])));
    let _inside = sites.map(|site| site.host().enter(|| listen(any(site, PORT))));
    let kept = sites.map(|site| {
        let stream = site.host().enter(|| connect(any(site, PORT), there)).ok()?;
        let (accepted, seen) = accept(&public)?;
        Some((stream, accepted, seen))
    });
    let [Some((_, _, a)), Some((_, _, b))] = &kept else {
        return false;
    };
    let attempt = |site: &Site, target: SocketAddr| {
        let connect = || connect(any(site, PORT), target).is_ok();
        site.host().enter(connect)
    };
    (0..PUNCHES).any(|_| {
        thread::scope(|scope| {
            let first = scope.spawn(|| attempt(sites[0], *b));
            let second = attempt(sites[1], *a);
            first.join().unwrap() || second
        })
    })
}

fn at(server: &Site, site: &Site, port: u16) -> SocketAddr {
    let public = server.public_addresses();
    if site.kind().family().has_v4() {
        (public.v4(), port).into()
    } else {
        (public.v6(), port).into()
    }
}

/// A UDP socket of a site and one of a public host that reports its observed address.
pub(crate) struct Mirror {
    inside: UdpSocket,
    outside: UdpSocket,
    addr: SocketAddr,
}

impl Mirror {
    pub(crate) fn new(server: &Site, site: &Site) -> Self {
        let addr = at(server, site, SERVER_PORTS[0]);
        Self {
            inside: udp(site.host(), any(site, PORT)),
            outside: udp(server.host(), addr),
            addr,
        }
    }

    /// Where the site is seen now, if anything gets through.
    pub(crate) fn look(&self) -> Option<SocketAddr> {
        self.inside.send_to(b"?", self.addr).ok()?;
        receive(&self.outside)
    }

    /// Whether the public host gets through to where the site was seen.
    pub(crate) fn answers(&self, seen: SocketAddr) -> bool {
        reaches(&self.outside, seen, &self.inside)
    }

    /// How long a packet takes there and back.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        let start = Instant::now();
        let seen = self.look()?;
        self.outside.send_to(b"!", seen).ok()?;
        receive(&self.inside).map(|_| start.elapsed())
    }

    /// How many of `count` packets come out.
    pub(crate) fn count_through(&self, count: u32) -> u32 {
        let short = Some(Duration::from_millis(500));
        self.outside.set_read_timeout(short).unwrap();
        thread::scope(|scope| {
            // Read while they come: a socket holds a few hundred.
            let reader = scope.spawn(|| (0..count).take_while(|_| self.hears()).count());
            for _ in 0..count {
                self.inside.send_to(b"?", self.addr).unwrap();
                thread::sleep(Duration::from_micros(500));
            }
            u32::try_from(reader.join().unwrap()).unwrap()
        })
    }

    fn hears(&self) -> bool {
        receive(&self.outside).is_some()
    }
}

fn any(site: &Site, port: u16) -> SocketAddr {
    if site.kind().family().has_v4() {
        (Ipv4Addr::UNSPECIFIED, port).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, port).into()
    }
}

fn udp(place: &Namespace, addr: SocketAddr) -> UdpSocket {
    let socket = place.enter(|| UdpSocket::bind(addr)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Where the next packet comes from.
fn receive(socket: &UdpSocket) -> Option<SocketAddr> {
    loop {
        match socket.recv_from(&mut [0; 8]) {
            Ok((_, from)) => return Some(from),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                assert!(is_silence(&error), "{error}");
                return None;
            }
        }
    }
}

/// Returns `true` if one of a few packets from `server` to `to` arrives at `client`. Loss is silent.
fn reaches(server: &UdpSocket, to: SocketAddr, client: &UdpSocket) -> bool {
    let from = server.local_addr().unwrap();
    client.set_read_timeout(Some(PATIENCE / TRIES)).unwrap();
    let came = (0..TRIES).any(|_| {
        server.send_to(b"!", to).unwrap();
        receive(client) == Some(from)
    });
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let said = server.take_error().unwrap();
    assert!(said.is_none(), "{to} does not stay silent: {said:?}");
    came
}

fn is_silence(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn reusable(addr: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

fn listen(addr: SocketAddr) -> TcpListener {
    let socket = reusable(addr).unwrap();
    socket.listen(8).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}

fn connect(from: SocketAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = reusable(from)?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    Ok(socket.into())
}

/// The next connection and where it comes from.
fn accept(listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    loop {
        match listener.accept() {
            Ok(accepted) => return Some(accepted),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                assert!(is_silence(&error), "{error}");
                return None;
            }
        }
    }
}
