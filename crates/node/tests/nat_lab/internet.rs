//! The public segment: every site and every public host hangs on it by a link of its own, and
//! what goes from one to another takes the long way through the forwarder.

use std::{
    collections::BTreeSet,
    fmt,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, Ipv6Addr},
    process::{Child, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use crate::support::netns::Namespace;

/// The next hop of every site, in both families the same at every link.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// Numbers from this one on have IPv4 addresses outside of the ranges set aside.
const GLOBAL: u16 = 0x8000;

/// Public addresses of one site: out of the ranges set aside for benchmarks and documentation
/// (RFC 2544, RFC 3849), which nodes take for public and no packet outside of here is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Public {
    number: u16,
}

impl Public {
    pub(crate) fn v4(self) -> Ipv4Addr {
        let [high, low] = self.number.to_be_bytes();
        if self.number >= GLOBAL {
            return Ipv4Addr::new(25, 0, high, low);
        }
        Ipv4Addr::new(198, 18 + (high >> 7), high & 0x7f, low)
    }

    /// The address of the site's router, or of its only host.
    pub(crate) fn v6(self) -> Ipv6Addr {
        self.v6_in(0, 1)
    }

    /// The address of a host in a network behind the router.
    pub(crate) fn v6_in(self, network: u16, host: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, self.number, network, 0, 0, 0, host)
    }
}

/// Which families a site has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
    Both,
}

impl Family {
    pub(crate) fn has_v4(self) -> bool {
        self != Self::V6
    }

    pub(crate) fn has_v6(self) -> bool {
        self != Self::V4
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
            Self::Both => "IPv4 and IPv6",
        })
    }
}

/// What happens on the way to and from an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// Drops all packets, without an ICMP message.
    Cut,
    /// Drops all UDP packets, without an ICMP message.
    CutUdp,
    /// One packet in ten is lost, each way.
    Lossy,
}

pub(crate) struct Internet {
    namespace: Namespace,
    forwarder: Child,
    next: AtomicU16,
    troubles: Mutex<Troubles>,
}

/// What is the matter now.
#[derive(Debug, Default)]
struct Troubles {
    sites: BTreeSet<(Trouble, u16)>,
    /// Pairs of sites of which neither reaches the other.
    parted: BTreeSet<[u16; 2]>,
}

impl Internet {
    /// A public segment where every packet takes `delay` from one site to another, or why there
    /// can be none here.
    pub(crate) fn new(delay: Duration) -> Result<Self, String> {
        let namespace = Namespace::new("net")?;
        namespace.set(&[
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv4/conf/all/send_redirects", "0"),
        ])?;
        // What comes from the forwarder is delivered, everything else goes to it.
        namespace.ip(&format!(
            "tuntap add mode tun name delay\n\
             link set delay txqueuelen 1000 up\n\
             addr add {GATEWAY}/32 dev lo\n\
             route add default dev delay table 100\n\
             route add ::/0 dev delay table 100\n"
        ))?;
        let rules = "rule add pref 10 iif delay lookup main\nrule add pref 20 lookup 100\n";
        namespace.ip(rules)?;
        namespace.ip6(rules)?;
        let forwarder = start_forwarder(&namespace, delay)?;
        let internet = Self {
            namespace,
            forwarder,
            next: AtomicU16::new(1),
            troubles: Mutex::default(),
        };
        internet.apply_troubles(&Troubles::default())?;
        Ok(internet)
    }

    /// Public addresses that are not in use yet.
    pub(crate) fn allocate(&self) -> Public {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Public { number }
    }

    /// As [`allocate`](Self::allocate), with an IPv4 address of a range that is in use by others: only
    /// for programs that refuse the ranges set aside.
    pub(crate) fn allocate_global(&self) -> Public {
        let Public { number } = self.allocate();
        Public {
            number: number | GLOBAL,
        }
    }

    /// Links a namespace to the segment: an interface `device` with the public addresses and the
    /// default routes of the families.
    pub(crate) fn attach(
        &self,
        site: &Namespace,
        device: &str,
        public: Public,
        family: Family,
    ) -> Result<(), String> {
        let here = format!("s{}", public.number);
        self.namespace.join(&here, site, device)?;
        if family.has_v6() {
            self.namespace
                .ip(&format!("addr add fe80::1/64 dev {here} nodad\n"))?;
            site.ip(&format!("addr add fe80::2/64 dev {device} nodad\n"))?;
        }
        self.assign(site, device, public, family)
    }

    fn assign(
        &self,
        site: &Namespace,
        device: &str,
        public: Public,
        family: Family,
    ) -> Result<(), String> {
        let here = format!("s{}", public.number);
        let (v4, v6, prefix) = (public.v4(), public.v6(), public.v6_in(0, 0));
        let mut routes = String::new();
        let mut lines = String::new();
        if family.has_v4() {
            routes += &format!("route add {v4}/32 dev {here}\n");
            lines += &format!(
                "addr add {v4}/32 dev {device}\n\
                 route add {GATEWAY} dev {device}\n\
                 route add default via {GATEWAY} dev {device} onlink\n"
            );
        }
        if family.has_v6() {
            routes += &format!("route add {prefix}/48 via fe80::2 dev {here}\n");
            lines += &format!(
                "addr add {v6}/128 dev {device} nodad\n\
                 route add ::/0 via fe80::1 dev {device}\n"
            );
        }
        self.namespace.ip(&routes)?;
        site.ip(&lines)
    }

    /// Unlinks what was linked, so that the namespace can be linked with other addresses.
    pub(crate) fn detach(&self, public: Public) -> Result<(), String> {
        self.namespace.ip(&format!("link del s{}\n", public.number))
    }

    /// Starts or ends trouble on the way to and from a site.
    pub(crate) fn trouble(&self, public: Public, what: Trouble, on: bool) -> Result<(), String> {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = (what, public.number);
        if on {
            troubles.sites.insert(entry);
        } else {
            troubles.sites.remove(&entry);
        }
        self.apply_troubles(&troubles)
    }

    /// Lets nothing through between two sites, or everything again.
    pub(crate) fn part(&self, sites: [Public; 2], on: bool) -> Result<(), String> {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = sites.map(|site| site.number);
        if on {
            troubles.parted.insert(pair);
        } else {
            troubles.parted.remove(&pair);
        }
        self.apply_troubles(&troubles)
    }

    fn apply_troubles(&self, troubles: &Troubles) -> Result<(), String> {
        let mut rules = String::new();
        for [a, b] in &troubles.parted {
            for (from, to) in [(*a, *b), (*b, *a)] {
                let [from, to] = [from, to].map(|number| Public { number }.v4());
                rules += &format!("iifname delay ip saddr {from} ip daddr {to} drop\n");
            }
        }
        for (what, number) in &troubles.sites {
            let public = Public { number: *number };
            let verdict = match what {
                Trouble::Cut => "drop",
                Trouble::CutUdp => "meta l4proto udp drop",
                Trouble::Lossy => "numgen random mod 100 < 10 drop",
            };
            let (v4, v6) = (public.v4(), public.v6_in(0, 0));
            for side in ["saddr", "daddr"] {
                rules += &format!("iifname delay ip {side} {v4} {verdict}\n");
                rules += &format!("iifname delay ip6 {side} {v6}/48 {verdict}\n");
            }
        }
        self.namespace.nft(&format!(
            "table inet internet {{}}\n\
             delete table inet internet\n\
             table inet internet {{\n\
             chain way {{ type filter hook forward priority filter; policy accept;\n\
             {rules}}}\n}}\n"
        ))
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        let _ = self.forwarder.kill();
        let _ = self.forwarder.wait();
    }
}

fn start_forwarder(namespace: &Namespace, delay: Duration) -> Result<Child, String> {
    let mut command = namespace.command("python3");
    command.args(["-c", include_str!("forwarder.py"), "delay"]);
    command.arg(delay.as_millis().to_string());
    let mut forwarder = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("python3: {error}"))?;
    let stdout = forwarder.stdout.take().ok_or("no output")?;
    let mut line = String::new();
    let read = BufReader::new(stdout).read_line(&mut line);
    if read.is_ok() && line == "ready\n" {
        return Ok(forwarder);
    }
    let _ = forwarder.kill();
    let _ = forwarder.wait();
    Err("the forwarder did not start: no TUN device?".to_owned())
}
