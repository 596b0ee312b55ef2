//! Resources of this process, and the other process.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use calimero_network::{Multiaddr, PeerId, multiaddr::Protocol};

use crate::Failure;

/// Resources that a process has used since its start.
pub(crate) struct Usage {
    pub(crate) resident_kib: u64,
    pub(crate) peak_kib: u64,
    pub(crate) cpu: Duration,
}

/// Resources that a process has used since the start of a measurement.
#[derive(Clone, Copy, Default)]
pub(crate) struct Used {
    pub(crate) peak_kib: u64,
    pub(crate) cpu: Duration,
}

impl Usage {
    pub(crate) fn now() -> Result<Self, Failure> {
        let status = fs::read_to_string("/proc/self/status")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            number.and_then(|n| n.parse().ok()).unwrap_or(0)
        };
        let stat = fs::read_to_string("/proc/self/stat")?;
        let after = stat.rsplit(')').next().unwrap_or_default();
        let ticks = |at: usize| -> u64 {
            let field = after.split_whitespace().nth(at);
            field.and_then(|field| field.parse().ok()).unwrap_or(0)
        };
        Ok(Self {
            resident_kib: field("VmRSS:"),
            peak_kib: field("VmHWM:"),
            // In hundredths of a second, on every Linux.
            cpu: Duration::from_millis((ticks(11) + ticks(12)) * 10),
        })
    }

    /// Resets the peak of resident memory and records the resources used so far.
    pub(crate) fn begin() -> Result<Self, Failure> {
        fs::write("/proc/self/clear_refs", "5")?;
        Self::now()
    }

    /// Resources used since `begun`; memory above that of the idle process.
    pub(crate) fn since(begun: &Self, idle_kib: u64) -> Result<Used, Failure> {
        let now = Self::now()?;
        Ok(Used {
            peak_kib: now.peak_kib.saturating_sub(idle_kib),
            cpu: now.cpu - begun.cpu,
        })
    }
}

/// This program, started as a second process.
pub(crate) fn another(args: &[&str]) -> Result<Child, Failure> {
    let mut command = Command::new(env::current_exe()?);
    command.args(args);
    Ok(command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?)
}

/// The process that serves blobs.
pub(crate) struct Provider {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    pub(crate) address: Multiaddr,
    pub(crate) peer: PeerId,
}

impl Provider {
    pub(crate) fn start(over: &str, folder: &Path) -> Result<Self, Failure> {
        let folder = folder.to_str().ok_or("a path that is no text")?;
        let mut child = another(&["provide", over, folder])?;
        let to = child.stdin.take().ok_or("no stdin")?;
        let mut from = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut address = String::new();
        from.read_line(&mut address)?;
        let address: Multiaddr = address.trim().parse()?;
        let Some(Protocol::P2p(peer)) = address.iter().last() else {
            return Err("the provider did not start".into());
        };
        Ok(Self {
            child,
            to,
            from,
            address,
            peer,
        })
    }

    pub(crate) fn ask(&mut self, command: &str) -> Result<String, Failure> {
        writeln!(self.to, "{command}")?;
        let mut answer = String::new();
        self.from.read_line(&mut answer)?;
        Ok(answer.trim().to_owned())
    }

    /// Resources that it used since the last start of a measurement.
    pub(crate) fn used(&mut self) -> Result<Used, Failure> {
        let answer = self.ask("used")?;
        let (peak_kib, cpu_ms) = answer.split_once(' ').ok_or("no answer")?;
        Ok(Used {
            peak_kib: peak_kib.parse()?,
            cpu: Duration::from_millis(cpu_ms.parse()?),
        })
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
