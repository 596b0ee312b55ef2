//! The network of this host, as the kernel describes it.

use std::{fmt::Write as _, fs, io::Read as _};

use super::Collected;

/// Bytes of one file that are read, at most: a host with a full routing table has millions of routes.
const MAX_BYTES: u64 = 256 << 10;

/// Files of the kernel and of the system, by the name of the part.
const PARTS: [(&str, &[&str]); 5] = [
    (
        "host/system.txt",
        &[
            "/proc/sys/kernel/ostype",
            "/proc/sys/kernel/osrelease",
            "/proc/sys/kernel/version",
            "/etc/os-release",
            "/proc/loadavg",
            "/proc/meminfo",
        ],
    ),
    (
        "host/routes.txt",
        &["/proc/net/route", "/proc/net/ipv6_route", "/proc/net/dev"],
    ),
    (
        "host/resolver.txt",
        &["/etc/resolv.conf", "/etc/nsswitch.conf"],
    ),
    ("host/limits.txt", &["/proc/self/limits"]),
    (
        "host/sockets.txt",
        &[
            "/proc/net/sockstat",
            "/proc/net/sockstat6",
            "/proc/sys/net/core/rmem_max",
            "/proc/sys/net/core/wmem_max",
            "/proc/sys/net/core/somaxconn",
            "/proc/sys/net/ipv4/ip_local_port_range",
            "/proc/sys/net/ipv4/tcp_congestion_control",
            "/proc/sys/net/ipv6/conf/all/disable_ipv6",
            "/proc/sys/net/netfilter/nf_conntrack_count",
            "/proc/sys/net/netfilter/nf_conntrack_max",
        ],
    ),
];

/// Adds what describes the host. A file that does not exist is named with its error.
pub(super) fn collect(collected: &mut Collected) {
    for (name, files) in PARTS {
        let text = files.iter().map(|file| section(file)).collect();
        collected.text(name, text);
    }
    match if_addrs::get_if_addrs() {
        Ok(interfaces) => {
            let mut text = String::new();
            for one in interfaces {
                let _ = writeln!(text, "{} {:?}", one.name, one.addr);
            }
            collected.text("host/interfaces.txt", text);
        }
        Err(error) => collected.missing("host/interfaces.txt", error),
    }
}

fn section(file: &str) -> String {
    let mut content = Vec::new();
    let opened = fs::File::open(file);
    let read = opened.and_then(|file| file.take(MAX_BYTES).read_to_end(&mut content));
    let content = match read {
        Ok(_) => String::from_utf8_lossy(&content).into_owned(),
        Err(error) => format!("({error})\n"),
    };
    let end = if content.ends_with('\n') { "" } else { "\n" };
    format!("--- {file}\n{content}{end}")
}
