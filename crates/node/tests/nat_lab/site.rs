//! Sites: a host and the router between it and the public segment.

use std::{fmt, net::SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    internet::{Family, Internet, Public},
    support::netns::Namespace,
};

/// Port that nodes listen on, TCP and UDP.
pub(crate) const PORT: u16 = 2428;
/// First of the ports that routers map [`PORT`] to: another one, so that a test which takes the port
/// it listens on for the one it is seen at is wrong here.
const MAPPED: u16 = 12428;

/// The router between a host and the public segment. Each drops packets that no host inside has
/// asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// No router: the host has public addresses.
    Open,
    /// Mapping and filtering independent of the endpoint.
    FullCone,
    /// Mapping independent of the endpoint, filtering by address.
    Restricted,
    /// Mapping independent of the endpoint, filtering by address and port.
    PortRestricted,
    /// Mapping (to random ports) and filtering by address and port.
    Symmetric,
    /// A port-restricted router behind the port-restricted router of a carrier.
    Double,
    /// A port-restricted router that lets nothing out but TCP.
    TcpOnly,
    /// Public IPv6 addresses behind a stateful firewall, no translation.
    Firewall6,
    /// Public IPv6 address and nothing between.
    Open6,
}

impl Kind {
    pub(crate) const ALL: [Self; 9] = [
        Self::Open,
        Self::FullCone,
        Self::Restricted,
        Self::PortRestricted,
        Self::Symmetric,
        Self::Double,
        Self::TcpOnly,
        Self::Firewall6,
        Self::Open6,
    ];

    pub(crate) fn family(self) -> Family {
        match self {
            Self::Firewall6 | Self::Open6 => Family::V6,
            _ => Family::V4,
        }
    }

    fn filters_by_port(self) -> bool {
        !matches!(
            self,
            Self::Open | Self::Open6 | Self::FullCone | Self::Restricted
        )
    }

    pub(crate) fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::Open6)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "no NAT",
            Self::FullCone => "full cone",
            Self::Restricted => "restricted",
            Self::PortRestricted => "port-restricted",
            Self::Symmetric => "symmetric",
            Self::Double => "double NAT",
            Self::TcpOnly => "TCP only",
            Self::Firewall6 => "IPv6 firewall",
            Self::Open6 => "no NAT, IPv6",
        })
    }
}

/// Every pair of kinds with a family in common, kinds with themselves included.
pub(crate) fn pairs() -> Vec<[Kind; 2]> {
    let all = Kind::ALL.into_iter().enumerate();
    all.flat_map(|(n, a)| Kind::ALL[n..].iter().map(move |b| [a, *b]))
        .filter(|[a, b]| a.family() == b.family())
        .collect()
}

/// Whether two kinds let a direct connection through when both sides try at once.
pub(crate) fn permit([a, b]: [Kind; 2], transport: Transport) -> bool {
    let pass = |kind: Kind| transport == Transport::Tcp || kind != Kind::TcpOnly;
    // A mapping that cannot be predicted meets a filter that checks the port.
    let meets = |a: Kind, b: Kind| a == Kind::Symmetric && b.filters_by_port();
    let common = a.family() == b.family();
    common && pass(a) && pass(b) && !meets(a, b) && !meets(b, a)
}

/// What nodes speak over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Transport {
    Tcp,
    Quic,
}

impl Transport {
    pub(crate) const BOTH: [Self; 2] = [Self::Tcp, Self::Quic];

    /// The part of an address behind the host.
    pub(crate) fn path(self, port: u16) -> String {
        match self {
            Self::Tcp => format!("/tcp/{port}"),
            Self::Quic => format!("/udp/{port}/quic-v1"),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Quic => "QUIC",
        })
    }
}

/// A host at its place. Its interface is `eth0`.
#[derive(Debug)]
pub(crate) struct Site {
    kind: Kind,
    family: Family,
    public: Public,
    /// The port that [`PORT`] is mapped to, where it is.
    mapped: u16,
    host: Namespace,
    /// From the host outwards.
    routers: Vec<Namespace>,
}

impl Site {
    pub(crate) fn new(internet: &Internet, kind: Kind) -> Result<Self, String> {
        Self::with_family(internet, kind, kind.family())
    }

    /// A site whose public address is outside of the ranges set aside, which miniupnpd takes for
    /// private ones.
    pub(crate) fn with_global_address(internet: &Internet, kind: Kind) -> Result<Self, String> {
        Self::at(internet, kind, kind.family(), internet.allocate_global())
    }

    /// A public host of both families.
    pub(crate) fn public(internet: &Internet) -> Result<Self, String> {
        Self::with_family(internet, Kind::Open, Family::Both)
    }

    fn with_family(internet: &Internet, kind: Kind, family: Family) -> Result<Self, String> {
        Self::at(internet, kind, family, internet.allocate())
    }

    fn at(internet: &Internet, kind: Kind, family: Family, public: Public) -> Result<Self, String> {
        let host = Namespace::new("host")?;
        let mut site = Self {
            kind,
            family,
            public,
            mapped: MAPPED,
            host,
            routers: Vec::new(),
        };
        let routers = match kind {
            Kind::Open | Kind::Open6 => 0,
            Kind::Double => 2,
            _ => 1,
        };
        for number in 0..routers {
            site.add_router(number)?;
        }
        let (outermost, device) = match site.routers.last() {
            Some(router) => (router, "ext"),
            None => (&site.host, "eth0"),
        };
        internet.attach(outermost, device, site.public, family)?;
        site.apply_rules()?;
        Ok(site)
    }

    /// Puts a router behind the last one, or behind the host.
    fn add_router(&mut self, number: u8) -> Result<(), String> {
        let router = Namespace::new("router")?;
        router.set(&[
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
        ])?;
        let (inside, device) = match self.routers.last() {
            Some(inner) => (inner, "ext"),
            None => (&self.host, "eth0"),
        };
        router.join("lan", inside, device)?;
        if self.family.has_v4() {
            // The same network in every home, and the one that carriers use behind it.
            let network = if number == 0 { "192.168.1" } else { "100.64.0" };
            router.ip(&format!("addr add {network}.1/24 dev lan\n"))?;
            inside.ip(&format!(
                "addr add {network}.2/24 dev {device}\n\
                 route add default via {network}.1 dev {device}\n"
            ))?;
        }
        if self.family.has_v6() {
            let (gateway, host) = (self.public.v6_in(1, 1), self.public.v6_in(1, 2));
            router.ip(&format!("addr add {gateway}/64 dev lan nodad\n"))?;
            inside.ip(&format!(
                "addr add {host}/64 dev {device} nodad\n\
                 route add ::/0 via {gateway} dev {device}\n"
            ))?;
        }
        self.routers.push(router);
        Ok(())
    }

    fn apply_rules(&self) -> Result<(), String> {
        for (number, router) in self.routers.iter().enumerate() {
            router.nft(&self.rules(number))?;
            // A router that has lost its state does not guess at connections from their middle.
            router.set(&[("netfilter/nf_conntrack_tcp_loose", "0")])?;
        }
        Ok(())
    }

    /// The rules of one router. Whatever is dropped is dropped before it is tracked for good, so
    /// that a packet from outside never takes a mapping away from one inside.
    fn rules(&self, number: usize) -> String {
        let step = u16::try_from(number).unwrap_or(0) * 10_000;
        // The port inside of this router, and the one outside.
        let (inner, outer) = match step {
            0 => (PORT, self.mapped),
            step => (self.mapped + step - 10_000, self.mapped + step),
        };
        let inside = if number == 0 {
            "192.168.1.2"
        } else {
            "100.64.0.2"
        };
        let outward = match self.kind {
            Kind::TcpOnly => "iifname lan meta l4proto != tcp drop",
            _ => "",
        };
        // What is remembered of the inside's packets, and what of it a packet from outside needs.
        let (key, sent, wanted) = match self.kind {
            Kind::FullCone => ("inet_proto", "meta l4proto", "meta l4proto"),
            Kind::Restricted => (
                "inet_proto . ipv4_addr",
                "meta l4proto . ip daddr",
                "meta l4proto . ip saddr",
            ),
            _ => ("", "", ""),
        };
        let [mut known, mut remember, mut forwarded] = [const { String::new() }; 3];
        if !key.is_empty() {
            known = format!(
                "set known {{ type {key}; flags dynamic,timeout; timeout 2m; size 4096; }}\n"
            );
            for protocol in ["tcp", "udp"] {
                remember +=
                    &format!("iifname lan {protocol} sport {inner} update @known {{ {sent} }}\n");
                forwarded += &format!(
                    "iifname ext {protocol} dport {outer} {wanted} @known \
                     dnat ip to {inside}:{inner}\n"
                );
            }
        }
        let translate = match self.kind {
            Kind::Firewall6 => String::new(),
            Kind::Symmetric => "oifname ext masquerade random,fully-random\n".to_owned(),
            _ => format!(
                "oifname ext tcp sport {inner} masquerade to :{outer}\n\
                 oifname ext udp sport {inner} masquerade to :{outer}\n\
                 oifname ext masquerade\n"
            ),
        };
        format!(
            "table inet lab {{}}\n\
             delete table inet lab\n\
             table inet lab {{\n\
             {known}\
             chain to_router {{ type filter hook input priority filter; policy drop;\n\
               iifname lan accept\n\
               icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept\n\
             }}\n\
             chain through {{ type filter hook forward priority filter; policy drop;\n\
               ct state invalid drop\n\
               {outward}\n\
               {remember}\
               ct state established,related accept\n\
               iifname lan accept\n\
               ct status dnat accept\n\
             }}\n\
             chain inward {{ type nat hook prerouting priority dstnat; policy accept;\n\
             {forwarded}}}\n\
             chain outward {{ type nat hook postrouting priority srcnat; policy accept;\n\
             {translate}}}\n\
             }}\n"
        )
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn public_addresses(&self) -> Public {
        self.public
    }

    /// The router next to the host, where there is one.
    pub(crate) fn router(&self) -> Option<&Namespace> {
        self.routers.first()
    }

    pub(crate) fn host(&self) -> &Namespace {
        &self.host
    }

    /// Where packets go that are meant for a port of this host, as seen from outside.
    pub(crate) fn outside(&self, port: u16) -> SocketAddr {
        match (self.family.has_v4(), self.routers.is_empty()) {
            (true, _) => (self.public.v4(), port).into(),
            (false, true) => (self.public.v6(), port).into(),
            (false, false) => (self.public.v6_in(1, 2), port).into(),
        }
    }

    /// Where [`PORT`] of this host is seen by others, where that is the same for all.
    pub(crate) fn seen_at(&self) -> SocketAddr {
        match self.kind {
            Kind::Open | Kind::Open6 | Kind::Firewall6 => self.outside(PORT),
            Kind::Double => self.outside(self.mapped + 10_000),
            _ => self.outside(self.mapped),
        }
    }

    /// The router restarts: mappings and connection state are lost silently, and ports are mapped
    /// to other ports from now on.
    pub(crate) fn reboot_router(&mut self) -> Result<(), String> {
        self.mapped += 100;
        self.apply_rules()?;
        for router in &self.routers {
            router
                .enter(forget_connections)
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// The host's interface goes down, or comes up with its routes as its network manager would
    /// see to.
    pub(crate) fn set_link(&self, up: bool) -> Result<(), String> {
        if !up {
            return self.host.ip("link set eth0 down\n");
        }
        self.host.ip("link set eth0 up\n")?;
        match (self.routers.is_empty(), self.family) {
            (false, Family::V4) => self
                .host
                .ip("route replace default via 192.168.1.1 dev eth0\n"),
            (_, family) => Err(format!("links of {family} are not cut here")),
        }
    }

    /// The site gets other public addresses, and its routers have forgotten everything.
    pub(crate) fn renumber(&mut self, internet: &Internet) -> Result<(), String> {
        internet.detach(self.public)?;
        self.public = internet.allocate();
        let (outermost, device) = match self.routers.last() {
            Some(router) => (router, "ext"),
            None => (&self.host, "eth0"),
        };
        internet.attach(outermost, device, self.public, self.family)?;
        if self.routers.is_empty() {
            return Ok(());
        }
        self.reboot_router()
    }
}

/// Empties the connection tracker of the namespace it is called in: a request of
/// `nfnetlink_conntrack` to delete, without saying what.
fn forget_connections() -> std::io::Result<()> {
    const AF_NETLINK: i32 = 16;
    const NETLINK_NETFILTER: i32 = 12;
    const LENGTH: u32 = 20;
    const CONNTRACK_DELETE: u16 = 0x0102;
    const REQUEST_AND_ACKNOWLEDGE: u16 = 0x05;
    let socket = Socket::new(
        Domain::from(AF_NETLINK),
        Type::RAW,
        Some(Protocol::from(NETLINK_NETFILTER)),
    )?;
    let mut message = Vec::new();
    message.extend(LENGTH.to_ne_bytes());
    message.extend(CONNTRACK_DELETE.to_ne_bytes());
    message.extend(REQUEST_AND_ACKNOWLEDGE.to_ne_bytes());
    message.extend([0; 8]); // Sequence number and sender.
    message.extend([0; 4]); // Every family.
    socket.send(&message)?;
    let mut answer = [0; 64];
    let length = std::io::Read::read(&mut &socket, &mut answer)?;
    // An error message: a header of 16 bytes, then the error.
    match answer.get(16..20).filter(|_| length >= 20) {
        Some([0, 0, 0, 0]) => Ok(()),
        _ => Err(std::io::Error::other("the connection tracker refuses")),
    }
}
