//! A host is a network namespace with a folder for the data of its nodes.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use tempfile::TempDir;

use crate::support::{Ended, LIMIT, Process, calnet, netns::Namespace, run};

/// Runs a program for which `socket()` refuses one address family with `EAFNOSUPPORT`, as
/// `RestrictAddressFamilies=` of systemd does. The first argument is the family.
const WITHOUT_FAMILY: &str = r#"
import ctypes, os, platform, struct, sys
SOCKET = {"x86_64": 41, "aarch64": 198}[platform.machine()]
LOAD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | 97
filter = [
    (LOAD, 0, 0, 0), (JUMP_EQUAL, 0, 3, SOCKET),
    (LOAD, 0, 0, 16), (JUMP_EQUAL, 0, 1, int(sys.argv[1])),
    (RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW),
]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in filter))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(filter), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program, 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[2], sys.argv[2:])
"#;

/// Returns an error with the reason if this host cannot run the labs.
pub(crate) fn is_possible() -> Result<(), String> {
    drop(Namespace::new("try")?);
    for program in ["python3", "mount", "unshare", "nsenter", "setpriv", "nice"] {
        let found = Command::new(program).arg("--version").output();
        found.map_err(|error| format!("{program}: {error}"))?;
    }
    // Containers often permit namespaces and no mounts.
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut mount = Command::new("unshare");
    mount.args(["--mount", "mount", "-t", "tmpfs", "tmpfs"]);
    let mounted = mount.arg(folder.path()).output();
    match mounted {
        Ok(mounted) if mounted.status.success() => Ok(()),
        Ok(mounted) => Err(String::from_utf8_lossy(&mounted.stderr).into_owned()),
        Err(error) => Err(format!("unshare: {error}")),
    }
}

/// A host with loopback alone and an empty folder.
pub(crate) struct Host {
    pub(crate) namespace: Namespace,
    pub(crate) folder: TempDir,
}

impl Host {
    pub(crate) fn new(role: &str) -> Self {
        Self {
            namespace: Namespace::new(role).unwrap(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// `calnet run` with the data folder of this host and its log in a file. `before` is a command
    /// line that runs the command line that follows it.
    pub(crate) fn node(&self, before: &[&str], arguments: &[&str]) -> Command {
        let mut words = before.to_vec();
        let program = calnet().get_program().to_str().unwrap().to_owned();
        words.push(&program);
        let mut command = self.namespace.command(words[0]);
        command.args(&words[1..]);
        command
            .args(["run", "--json", "--local", "--data"])
            .arg(self.data());
        command.args(arguments);
        command.stderr(File::create(self.path("log")).unwrap());
        command
    }

    pub(crate) fn start(&self, before: &[&str], arguments: &[&str]) -> Process {
        Process::start(self.node(before, arguments))
    }

    /// Makes a folder read-only for a running node: a read-only mount of the folder covers it. A file
    /// system that has files open for writing cannot be remounted.
    pub(crate) fn make_read_only(&self, node: &Process, folder: &Path) {
        let copy = self.path("read-only");
        fs::create_dir(&copy).unwrap();
        let script = "mount --bind \"$1\" \"$2\" && mount -o remount,bind,ro \"$2\" && \
                      mount --bind \"$2\" \"$1\"";
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", node.id()));
        command
            .args(["sh", "-c", script, "sh"])
            .arg(folder)
            .arg(&copy);
        assert!(command.status().unwrap().success());
    }

    /// Runs a command of `calnet` on this host to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = self.namespace.command(calnet().get_program());
        command.args(arguments);
        run(command)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    /// Checks that a node works: it listens at an address that begins with `begin`, identifies
    /// itself to a peer that connects there from `from`, answers its control socket, and ends on a
    /// signal. Returns the time in which a command connects and gets its answer.
    pub(crate) fn works(&self, mut node: Process, begin: &str, from: &Self) -> String {
        let peer = peer_of(&node);
        let listens = |line: &serde_json::Value| {
            let address = line["address"].as_str().unwrap_or_default();
            line["event"] == "listening" && address.starts_with(begin)
        };
        let Some((_, entry)) = node.find(0, LIMIT, listens) else {
            panic!("no {begin}: {:#?}\n{}", node.entries(), self.log());
        };
        let address = entry.line["address"].as_str().unwrap().to_owned();
        let before = Instant::now();
        let probed = from.run(&["probe", "--pings", "1", &format!("{address}/p2p/{peer}")]);
        assert!(probed.success, "{}\n{}", probed.stderr, self.log());
        let probed_ms = before.elapsed().as_millis();
        self.answers();
        assert!(node.end_by("-TERM").success(), "{}", self.log());
        format!("answers a peer in {probed_ms} ms")
    }

    /// Checks that the control socket of the running node answers.
    pub(crate) fn answers(&self) {
        let status = self.run(&["status", "--json", "--data", self.data().to_str().unwrap()]);
        assert!(status.success, "{}\n{}", status.stderr, self.log());
    }
}

/// Returns the peer id of a node.
pub(crate) fn peer_of(node: &Process) -> String {
    let started = node.find(0, LIMIT, |line| line["event"] == "started");
    let Some((_, entry)) = started else {
        panic!("not started: {:#?}", node.entries());
    };
    entry.line["peer"].as_str().unwrap().to_owned()
}

/// The command line that refuses an address family to the program that follows.
pub(crate) fn without_family(family: &str) -> [&str; 4] {
    ["python3", "-c", WITHOUT_FAMILY, family]
}

/// A file system in memory that is mounted on a folder. Unmounted when dropped.
pub(crate) struct Disk {
    path: PathBuf,
}

impl Disk {
    pub(crate) fn mount(path: &Path, options: &str) -> Self {
        fs::create_dir_all(path).unwrap();
        let mut command = Command::new("mount");
        command
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(path);
        assert!(command.status().unwrap().success());
        Self {
            path: path.to_owned(),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(&self.path)
            .status();
    }
}
