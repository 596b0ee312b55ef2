//! A node behind a symmetric NAT whose router maps ports: miniupnpd, by PCP and by UPnP.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{
    at_once,
    site::{Kind, PORT, Site, Transport},
    world::{LIMIT, World},
};

/// The protocols that a router speaks in a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// PCP and NAT-PMP.
    Pcp,
    /// UPnP IGD.
    Upnp,
}

impl Speaks {
    /// The name of the protocol in events.
    fn name(self) -> &'static str {
        match self {
            Self::Pcp => "pcp",
            Self::Upnp => "upnp",
        }
    }
}

/// Why there can be no router that maps ports, if there can be none.
pub(crate) fn is_possible() -> Result<(), String> {
    let run = Command::new("miniupnpd").arg("--version").output();
    run.map(|_| ())
        .map_err(|error| format!("miniupnpd: {error}"))
}

/// A daemon that maps ports on the router of a site. It ends with the value.
struct Daemon(Child);

impl Daemon {
    fn start(site: &Site, speaks: Speaks, folder: &Path) -> Self {
        let router = site.router().unwrap();
        // The daemon writes its rules into chains that exist.
        let rules = "table inet mapped {\n\
             chain forwarded {}\n\
             chain inward_mapped {}\n\
             chain outward_mapped {}\n\
             chain inward { type nat hook prerouting priority dstnat - 1; jump inward_mapped; }\n\
             }\n";
        router.nft(rules).unwrap();
        let (pcp, upnp) = match speaks {
            Speaks::Pcp => ("yes", "no"),
            Speaks::Upnp => ("no", "yes"),
        };
        let config = format!(
            "ext_ifname=ext\nlistening_ip=lan\nenable_natpmp={pcp}\nenable_upnp={upnp}\n\
             secure_mode=yes\nuuid=6ad1f2c8-0000-4000-8000-000000000001\n\
             upnp_table_name=mapped\nupnp_nat_table_name=mapped\n\
             upnp_forward_chain=forwarded\nupnp_nat_chain=inward_mapped\n\
             upnp_nat_postrouting_chain=outward_mapped\n\
             allow 1024-65535 0.0.0.0/0 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n"
        );
        let path = folder.join("miniupnpd.conf");
        fs::write(&path, config).unwrap();
        let mut command = router.command("miniupnpd");
        command.arg("-d").arg("-f").arg(&path);
        command.arg("-P").arg(folder.join("miniupnpd.pid"));
        let log = fs::File::create(folder.join("miniupnpd.log")).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The rules by which the router forwards ports now.
fn forwarded(site: &Site) -> String {
    let mut list = site.router().unwrap().command("nft");
    list.args(["list", "chain", "inet", "mapped", "inward_mapped"]);
    let output = list.output().unwrap();
    assert!(output.status.success());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs cases.
pub(crate) fn run(cases: &[(Speaks, Transport)]) {
    at_once(cases.len(), cases, |case| connects_directly(*case));
}

/// Two nodes behind symmetric NATs connect directly, which no hole punch can do. The mapping is
/// withdrawn when the node stops.
fn connects_directly((speaks, transport): (Speaks, Transport)) {
    let mut world = World::new(2);
    let sites = [
        world.mapped_site(Kind::Symmetric),
        world.site(Kind::Symmetric),
    ];
    let folder = tempfile::tempdir().unwrap();
    let _daemon = Daemon::start(&sites[0], speaks, folder.path());
    world.configure("discovery.port_mapping = true\n");
    let mut a = world.node("a", &sites[0], &[transport]);
    let mapped = a.event(|line| line["event"] == "port_mapped");
    let outside = sites[0].outside(PORT);
    let external = format!("/ip4/{}{}", outside.ip(), transport.path(PORT));
    assert_eq!(mapped["external"], external, "{}", a.story());
    assert_eq!(mapped["protocol"], speaks.name(), "{}", a.story());
    // A boot node reached it before it is announced.
    a.event(|line| {
        line["event"] == "external" && line["address"] == external && line["confirmed"] == true
    });
    assert!(
        forwarded(&sites[0]).contains("dnat"),
        "{}",
        forwarded(&sites[0])
    );

    world.configure("");
    let b = world.node("b", &sites[1], &[transport]);
    let direct = b.direct(0, &a.peer, LIMIT);
    let direct = direct.unwrap_or_else(|| panic!("{speaks:?}: not direct:\n{}", b.story()));
    let dialled = direct.line["address"].as_str().unwrap();
    assert!(dialled.starts_with(&external), "{dialled}");

    a.stop();
    let left = forwarded(&sites[0]);
    assert!(!left.contains("dnat"), "{speaks:?}: not withdrawn: {left}");
}
