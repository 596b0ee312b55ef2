//! Processes of `calnet`, and what they print.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "test support: each test file uses a part of it, and a surprise ends the test"
)]

#[cfg(target_os = "linux")]
pub mod netns;
pub mod schema;

use std::{
    fs::File,
    io::{BufRead, BufReader, PipeReader, Read as _, Write as _},
    net::SocketAddr,
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use serde_json::Value;
use tokio::net::TcpSocket;

/// How long anything may take: long for the machine under load, short for a hang.
pub const LIMIT: Duration = Duration::from_secs(60);

pub fn calnet() -> Command {
    Command::new(env!("CARGO_BIN_EXE_calnet"))
}

/// A line of output and when it was read.
#[derive(Clone, Debug)]
pub struct Entry {
    pub at: Instant,
    pub line: Value,
}

/// Every line that a process has printed so far, and whether it has ended.
#[derive(Default)]
struct Journal {
    entries: Mutex<(Vec<Entry>, bool)>,
    more: Condvar,
}

impl Journal {
    fn keep(&self, output: impl BufRead) {
        for line in output.lines() {
            let line = serde_json::from_str(&line.unwrap()).unwrap();
            schema::check(&line);
            let at = Instant::now();
            self.entries.lock().unwrap().0.push(Entry { at, line });
            self.more.notify_all();
        }
        self.entries.lock().unwrap().1 = true;
        self.more.notify_all();
    }

    /// The first entry from the `from`th on that is what is looked for, and its number.
    fn find(
        &self,
        from: usize,
        deadline: Instant,
        is_it: impl Fn(&Value) -> bool,
    ) -> Option<(usize, Entry)> {
        let mut next = from;
        let mut guard = self.entries.lock().unwrap();
        loop {
            let (entries, ended) = &*guard;
            while let Some(entry) = entries.get(next) {
                if is_it(&entry.line) {
                    return Some((next, entry.clone()));
                }
                next += 1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if *ended || left.is_zero() {
                return None;
            }
            guard = self.more.wait_timeout(guard, left).unwrap().0;
        }
    }
}

/// A running process whose output is read line by line as JSON. Killed when dropped.
pub struct Process {
    child: Child,
    journal: Arc<Journal>,
    /// How many lines [`event`](Self::event) has returned or skipped.
    past: AtomicUsize,
}

impl Process {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let journal = Arc::new(Journal::default());
        let keeper = journal.clone();
        std::thread::spawn(move || keeper.keep(stdout));
        Self {
            child,
            journal,
            past: AtomicUsize::new(0),
        }
    }

    /// A process whose standard output goes to a file.
    pub fn start_unread(mut command: Command, output: File) -> Self {
        let child = command.stdout(output).spawn().unwrap();
        Self {
            child,
            journal: Arc::default(),
            past: AtomicUsize::new(0),
        }
    }

    /// `calnet run` on loopback, on ports that the system chooses.
    pub fn node(arguments: &[&str]) -> Self {
        Self::start(Self::node_command(arguments))
    }

    fn node_command(arguments: &[&str]) -> Command {
        let mut command = calnet();
        command.args(["run", "--json", "--listen", "/ip4/127.0.0.1/tcp/0"]);
        command.args(["--listen", "/ip4/127.0.0.1/udp/0/quic-v1"]);
        command.args(arguments);
        command
    }

    /// As [`node`](Self::node), with a standard input that stays open.
    pub fn node_with_input(arguments: &[&str]) -> Self {
        let mut command = Self::node_command(arguments);
        command.stdin(Stdio::piped());
        Self::start(command)
    }

    pub fn write(&mut self, bytes: &[u8]) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(bytes).unwrap();
    }

    /// Ends the standard input.
    pub fn close_input(&mut self) {
        self.child.stdin = None;
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line of an event, within the limit.
    pub fn event(&self, name: &str) -> Value {
        self.event_within(name, LIMIT)
    }

    pub fn event_within(&self, name: &str, limit: Duration) -> Value {
        let from = self.past.load(Ordering::Relaxed);
        let found = self.find(from, limit, |line| line["event"] == name);
        let Some((number, entry)) = found else {
            panic!(
                "no {name} within {limit:?}; it printed {:#?}",
                self.entries()
            );
        };
        self.past.store(number + 1, Ordering::Relaxed);
        entry.line
    }

    /// The first line from the `from`th on that is what is looked for, with its number.
    pub fn find(
        &self,
        from: usize,
        limit: Duration,
        is_it: impl Fn(&Value) -> bool,
    ) -> Option<(usize, Entry)> {
        self.journal.find(from, Instant::now() + limit, is_it)
    }

    /// Everything printed so far.
    pub fn entries(&self) -> Vec<Entry> {
        self.journal.entries.lock().unwrap().0.clone()
    }

    /// The addresses of the first `count` listeners, with the peer id.
    pub fn addresses(&self, count: usize) -> Vec<String> {
        let started = self.event("started");
        let peer = started["peer"].as_str().unwrap();
        let listening = (0..count).map(|_| {
            let line = self.event("listening");
            format!("{}/p2p/{peer}", line["address"].as_str().unwrap())
        });
        listening.collect()
    }

    /// Everything on standard error, which was piped, up to the end of the process.
    pub fn stderr(&mut self) -> String {
        let mut text = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut text).unwrap();
        text
    }

    /// Sends a signal by name.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(status.success(), "{status}");
    }

    /// Sends a signal by name and waits for the end.
    pub fn end_by(&mut self, signal: &str) -> ExitStatus {
        let pid = self.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(status.success());
        self.wait()
    }

    /// Whether it ends by itself before `deadline`.
    pub fn ends_by(&mut self, deadline: Instant) -> bool {
        while self.child.try_wait().unwrap().is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            std::thread::park_timeout(left.min(Duration::from_millis(5)));
        }
        true
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.wait_within(LIMIT)
    }

    pub fn wait_within(&mut self, limit: Duration) -> ExitStatus {
        let ended = self.ends_by(Instant::now() + limit);
        assert!(ended, "the process did not end within {limit:?}");
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command printed and how it ended.
pub struct Ended {
    pub success: bool,
    /// The exit status, unless a signal ended the process.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn json_lines(&self) -> Vec<Value> {
        let lines = self.stdout.lines();
        let records = lines.map(|line| serde_json::from_str(line).unwrap());
        records.inspect(schema::check).collect()
    }
}

/// Runs a command to its end, within the limit.
pub fn run(command: Command) -> Ended {
    run_within(LIMIT, command)
}

pub fn run_within(limit: Duration, mut command: Command) -> Ended {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let out = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let err = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).map(|_| text)
    });
    let mut process = Process {
        child,
        journal: Arc::default(),
        past: AtomicUsize::new(0),
    };
    let status = process.wait_within(limit);
    Ended {
        success: status.success(),
        code: status.code(),
        stdout: out.join().unwrap().unwrap(),
        stderr: err.join().unwrap().unwrap(),
    }
}

/// A TCP port of loopback that refuses connections for as long as this is kept: its socket is bound,
/// so that no other process gets the port, and does not listen.
pub struct ClosedPort {
    _socket: TcpSocket,
    address: SocketAddr,
}

impl ClosedPort {
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        Self {
            _socket: socket,
            address,
        }
    }

    /// Its multiaddress, without a peer id.
    pub fn address(&self) -> String {
        format!("/ip4/127.0.0.1/tcp/{}", self.address.port())
    }
}

/// A TCP port of loopback that a node can listen on, and that no other process gets for as long as this
/// is kept. Linux lets two sockets have a port if both allow it (`SO_REUSEADDR`, as a node does) and
/// only one listens, and gives such a port to no socket that takes any.
pub struct HeldPort {
    _socket: TcpSocket,
    number: u16,
}

impl HeldPort {
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let number = socket.local_addr().unwrap().port();
        Self {
            _socket: socket,
            number,
        }
    }

    pub fn number(&self) -> u16 {
        self.number
    }
}

/// The write end of a pipe that is full and that nothing reads, and its read end.
pub fn full_pipe() -> (File, PipeReader) {
    let (read, write) = std::io::pipe().unwrap();
    let flags = fcntl_getfl(&write).unwrap();
    fcntl_setfl(&write, flags | OFlags::NONBLOCK).unwrap();
    let mut write = File::from(OwnedFd::from(write));
    while write.write(&[b'\n'; 4096]).is_ok() {}
    fcntl_setfl(&write, flags).unwrap();
    (write, read)
}
