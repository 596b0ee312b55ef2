//! A whole network of its own: a public segment, boot nodes, and nodes at their sites.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    internet::Internet,
    site::{Kind, PORT, Site, Transport},
    support::{Entry, Process, calnet},
};

/// What every packet takes from one site to another: a round trip of 40 ms.
pub(crate) const DELAY: Duration = Duration::from_millis(20);
/// How long anything may take that has to happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);
/// How much of the end of a log is shown, in bytes.
const MAX_LOG_BYTES: usize = 64 * 1024;

/// A network of its own. The first two sites are those of boot nodes.
pub(crate) struct World {
    pub(crate) internet: Internet,
    pub(crate) boots: Vec<Boot>,
    folder: tempfile::TempDir,
    config: Option<PathBuf>,
}

impl World {
    pub(crate) fn new(boots: usize) -> Self {
        let internet = Internet::new(DELAY).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let boots = (0..boots)
            .map(|n| Boot::start(&internet, folder.path().join(format!("boot{n}"))))
            .collect();
        Self {
            internet,
            boots,
            folder,
            config: None,
        }
    }

    pub(crate) fn site(&self, kind: Kind) -> Site {
        Site::new(&self.internet, kind).unwrap()
    }

    /// A site whose public address a daemon that maps ports takes for public.
    pub(crate) fn mapped_site(&self, kind: Kind) -> Site {
        Site::with_global_address(&self.internet, kind).unwrap()
    }

    /// Writes the configuration that nodes started from now on have.
    pub(crate) fn configure(&mut self, toml: &str) {
        let path = self.folder.path().join("node.toml");
        fs::write(&path, toml).unwrap();
        self.config = Some(path);
    }

    /// The boot nodes as arguments of a command.
    pub(crate) fn boot_arguments(&self, site: &Site, transports: &[Transport]) -> Vec<String> {
        let boots = self.boots.iter();
        boots
            .flat_map(|boot| transports.iter().map(move |over| boot.addr(site, *over)))
            .flat_map(|addr| ["--boot".to_owned(), addr])
            .collect()
    }

    /// The path of a file of this network.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command at a site. What it writes to standard error is in the file `name.log`.
    pub(crate) fn command(&self, name: &str, site: &Site, arguments: &[String]) -> Command {
        let mut calnet = site.host().command(calnet().get_program());
        calnet.arg("--json").args(arguments);
        let log = self.file(&format!("{name}.log"));
        calnet.stderr(File::create(log).unwrap());
        calnet
    }

    /// Starts a node that knows nothing but the boot nodes, and what it has in its folder.
    pub(crate) fn node(&self, name: &str, site: &Site, transports: &[Transport]) -> Node {
        let folder = self.folder.path().join(name);
        let mut arguments = self.boot_arguments(site, transports);
        if let Some(config) = &self.config {
            let config = config.to_str().unwrap().to_owned();
            arguments.extend(["--config".to_owned(), config]);
        }
        Node::start(site, "run", folder, transports, &arguments)
    }
}

/// All interfaces to listen on, as arguments of a command.
pub(crate) fn listen_arguments(transports: &[Transport], port: u16) -> Vec<String> {
    let hosts = ["/ip4/0.0.0.0", "/ip6/::"];
    let paths = transports.iter().map(|transport| transport.path(port));
    paths
        .flat_map(|path| hosts.map(|host| format!("{host}{path}")))
        .flat_map(|address| ["--listen".to_owned(), address])
        .collect()
}

/// A boot node on the public segment, with both families and transports.
pub(crate) struct Boot {
    site: Site,
    folder: PathBuf,
    pub(crate) node: Node,
}

impl Boot {
    fn start(internet: &Internet, folder: PathBuf) -> Self {
        let site = Site::public(internet).unwrap();
        let node = Self::start_at(&site, folder.clone());
        Self { site, folder, node }
    }

    fn start_at(site: &Site, folder: PathBuf) -> Node {
        let public = site.public_addresses();
        let hosts = [
            format!("/ip4/{}", public.v4()),
            format!("/ip6/{}", public.v6()),
        ];
        let mut arguments = Vec::new();
        for host in hosts {
            for transport in Transport::BOTH {
                let external = format!("{host}{}", transport.path(PORT));
                arguments.extend(["--external".to_owned(), external]);
            }
        }
        Node::start(site, "boot", folder, &Transport::BOTH, &arguments)
    }

    /// Where nodes of a site find it.
    fn addr(&self, site: &Site, transport: Transport) -> String {
        let public = self.site.public_addresses();
        let host = if site.kind().family().has_v4() {
            format!("/ip4/{}", public.v4())
        } else {
            format!("/ip6/{}", public.v6())
        };
        format!("{host}{}/p2p/{}", transport.path(PORT), self.node.peer)
    }

    /// Starts it again after it was killed, as who it was.
    pub(crate) fn restart(&mut self) {
        let peer = self.node.peer.clone();
        self.node = Self::start_at(&self.site, self.folder.clone());
        assert_eq!(self.node.peer, peer);
    }
}

/// A running node of the lab.
pub(crate) struct Node {
    process: Process,
    pub(crate) peer: String,
    pub(crate) started: Instant,
    /// What it has written besides, by `CALNET_LOG`.
    log: PathBuf,
}

impl Node {
    fn start(
        site: &Site,
        command: &str,
        folder: PathBuf,
        transports: &[Transport],
        arguments: &[String],
    ) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let mut calnet = site.host().command(calnet().get_program());
        calnet.args([command, "--json"]);
        calnet.arg("--data").arg(&folder);
        calnet.args(listen_arguments(transports, PORT));
        calnet.args(arguments);
        let log = folder.join("log");
        let file = File::options().create(true).append(true).open(&log);
        calnet.stderr(file.unwrap());
        let started = Instant::now();
        let process = Process::start(calnet);
        let line = process.event_within("started", LIMIT);
        let peer = line["peer"].as_str().unwrap().to_owned();
        Self {
            process,
            peer,
            started,
            log,
        }
    }

    /// The first event that is looked for.
    pub(crate) fn event(&self, is_it: impl Fn(&Value) -> bool) -> Value {
        match self.find(0, LIMIT, is_it) {
            Some(entry) => entry.line,
            None => panic!("no such event within {LIMIT:?}:\n{}", self.story()),
        }
    }

    /// Stops it in order.
    pub(crate) fn stop(&mut self) {
        self.process.end_by("-TERM");
    }

    /// How many lines it has printed.
    pub(crate) fn now(&self) -> usize {
        self.process.entries().len()
    }

    /// The first line from the `from`th on that is what is looked for.
    fn find(&self, from: usize, limit: Duration, is_it: impl Fn(&Value) -> bool) -> Option<Entry> {
        self.process
            .find(from, limit, is_it)
            .map(|(_, entry)| entry)
    }

    /// Waits until others can find it: it is registered, or it has found a peer itself.
    pub(crate) fn wait_until_registered(&self) {
        let settled = |line: &Value| {
            let phase = line["phase"].as_str().unwrap_or_default();
            line["event"] == "phase" && ["discover", "connect", "joined"].contains(&phase)
        };
        if self.find(0, LIMIT, settled).is_none() {
            panic!("not registered within {LIMIT:?}:\n{}", self.story());
        }
    }

    /// The first connection with `peer` that is opened from the `from`th line on.
    pub(crate) fn connected(&self, from: usize, peer: &str, limit: Duration) -> Option<Entry> {
        self.find(from, limit, |line| {
            line["event"] == "connected" && line["peer"] == peer
        })
    }

    /// The first direct one.
    pub(crate) fn direct(&self, from: usize, peer: &str, limit: Duration) -> Option<Entry> {
        self.find(from, limit, |line| {
            line["event"] == "connected" && line["peer"] == peer && line["path"] == "direct"
        })
    }

    /// The end of a hole punch with `peer` that came to nothing.
    pub(crate) fn punched_in_vain(&self, peer: &str, limit: Duration) -> Option<Entry> {
        self.find(0, limit, |line| {
            line["event"] == "hole_punched" && line["peer"] == peer && line["direct"] == false
        })
    }

    /// The first word of `peer` about itself.
    pub(crate) fn identified(&self, peer: &str, limit: Duration) -> Option<Entry> {
        self.find(0, limit, |line| {
            line["event"] == "identified" && line["peer"] == peer
        })
    }

    /// When `peer` was last lost after `since`: no connection with it was left.
    pub(crate) fn lost_since(&self, since: Instant, peer: &str) -> Option<Instant> {
        let entries = self.process.entries();
        let lost = entries.iter().rev().find(|entry| {
            entry.line["event"] == "disconnected"
                && entry.line["peer"] == peer
                && entry.line["remaining"] == 0
        });
        lost.map(|entry| entry.at).filter(|at| *at > since)
    }

    /// Waits until a connection with `peer` is closed after `since`, the last one or not.
    pub(crate) fn closed_since(&self, since: Instant, peer: &str, limit: Duration) -> Option<()> {
        let from = self.process.entries();
        let from = from.iter().take_while(|entry| entry.at <= since).count();
        let closed = |line: &Value| line["event"] == "disconnected" && line["peer"] == peer;
        self.find(from, limit, closed).map(|_| ())
    }

    /// Waits until a relay holds a slot for it.
    pub(crate) fn wait_for_slot(&self) {
        let held = |line: &Value| line["event"] == "relay" && line["reserved"] == true;
        assert!(self.find(0, LIMIT, held).is_some(), "{}", self.story());
    }

    /// How long after `since` there was a connection with `peer` that lasted: it was never lost
    /// (zero), or opened again after it was lost for the last time. `None`: there is none now.
    pub(crate) fn recovered(&self, since: Instant, peer: &str) -> Option<Duration> {
        let entries = self.process.entries();
        let mut open_since = None;
        for entry in entries.iter().filter(|entry| entry.line["peer"] == peer) {
            match entry.line["event"].as_str() {
                Some("connected") => open_since = open_since.or(Some(entry.at)),
                Some("disconnected") if entry.line["remaining"] == 0 => open_since = None,
                _ => {}
            }
        }
        open_since.map(|at| at.saturating_duration_since(since))
    }

    /// The relay of the last connection with `peer`.
    pub(crate) fn relay_to(&self, peer: &str) -> Option<String> {
        let entries = self.process.entries();
        let last = entries.iter().rev().find(|entry| {
            entry.line["event"] == "connected"
                && entry.line["peer"] == peer
                && entry.line["path"] == "relayed"
        });
        let address = last?.line["address"].as_str()?.to_owned();
        let (relay, _) = address.split_once("/p2p-circuit")?;
        relay
            .rsplit_once("/p2p/")
            .map(|(_, relay)| relay.to_owned())
    }

    pub(crate) fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// Kills it, so that it sends no message to its peers.
    pub(crate) fn kill(&mut self) {
        self.process.end_by("-KILL");
    }

    pub(crate) fn story(&self) -> String {
        let entries = self.process.entries();
        let lines = entries.iter().map(|entry| {
            let at = entry.at.duration_since(self.started);
            format!("{:9.3} {}\n", at.as_secs_f64(), entry.line)
        });
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log[log.len().saturating_sub(MAX_LOG_BYTES)..]);
        lines.chain([log.into_owned()]).collect()
    }
}
