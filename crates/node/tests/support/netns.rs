//! Network namespaces: hosts and routers of a network that exists only inside this machine.
//!
//! Names carry the process id, so that what a killed process left behind is found and removed by
//! the next one.

use std::{
    fs::{self, File},
    io::Write as _,
    os::fd::AsFd as _,
    path::Path,
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const PREFIX: &str = "calnet";

/// A namespace with its loopback up and nothing else. Removed when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A new one, or why there can be none here: no Linux, no root, no `ip`.
    pub fn new(role: &str) -> Result<Self, String> {
        static STALE: OnceLock<()> = OnceLock::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        STALE.get_or_init(remove_stale);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}-{}-{number}-{role}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]), "")?;
        let namespace = Self { name };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A program in here. It ends with the thread that starts it, however that ends.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]);
        command.args(["setpriv", "--pdeathsig", "KILL"]);
        command.arg(program);
        command
    }

    /// Lines of `ip`, carried out in here as one.
    pub fn ip(&self, lines: &str) -> Result<(), String> {
        let mut command = Command::new("ip");
        run(command.args(["-n", &self.name, "-batch", "-"]), lines)
    }

    /// Runs `ip -6`, for arguments from which `ip` cannot infer the family.
    pub fn ip6(&self, lines: &str) -> Result<(), String> {
        let mut command = Command::new("ip");
        run(command.args(["-6", "-n", &self.name, "-batch", "-"]), lines)
    }

    /// A script of `nft`, carried out in here as one.
    pub fn nft(&self, script: &str) -> Result<(), String> {
        run(self.command("nft").args(["-f", "-"]), script)
    }

    /// Sets what is at a path below `/proc/sys/net`.
    pub fn set(&self, settings: &[(&str, &str)]) -> Result<(), String> {
        self.enter(|| {
            settings.iter().try_for_each(|(name, value)| {
                fs::write(Path::new("/proc/sys/net").join(name), value)
                    .map_err(|error| format!("{name}: {error}"))
            })
        })
    }

    /// A pair of interfaces: `here` in this namespace and `there` in another, both up.
    pub fn join(&self, here: &str, other: &Self, there: &str) -> Result<(), String> {
        let name = &other.name;
        self.ip(&format!(
            "link add {here} type veth peer name {there} netns {name}\nlink set {here} up\n"
        ))?;
        other.ip(&format!("link set {there} up\n"))
    }

    /// Does something in here. Sockets opened by it stay in here wherever they are used.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            let file = File::open(Path::new("/run/netns").join(&self.name)).unwrap();
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            act()
        };
        thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = remove(&self.name);
    }
}

fn remove(name: &str) -> Result<(), String> {
    run(Command::new("ip").args(["netns", "del", name]), "")
}

/// Removes what processes left behind that are no more, with what still runs in there.
fn remove_stale() {
    let Ok(list) = Command::new("ip").args(["netns", "list"]).output() else {
        return;
    };
    for line in String::from_utf8_lossy(&list.stdout).lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let mut parts = name.split('-');
        let ours = parts.next() == Some(PREFIX);
        let Some(pid) = parts.next().and_then(|pid| pid.parse::<u32>().ok()) else {
            continue;
        };
        if !ours || Path::new(&format!("/proc/{pid}")).exists() {
            continue;
        }
        let left = Command::new("ip").args(["netns", "pids", name]).output();
        for pid in left
            .iter()
            .flat_map(|left| left.stdout.split(|b| *b == b'\n'))
        {
            if let Ok(pid) = std::str::from_utf8(pid)
                && !pid.is_empty()
            {
                let _ = Command::new("kill").args(["-9", pid]).status();
            }
        }
        let _ = remove(name);
    }
}

/// Runs a short command to its end and says what it said if it failed.
fn run(command: &mut Command, input: &str) -> Result<(), String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read its input reports the reason when it
        // exits.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output();
    let output = output.map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}\n{input}", said.trim()))
}
