//! `calnet diag`: one archive for a bug report.
//!
//! It holds no secret: neither the identity, nor the token of the API, nor the secrets of tickets,
//! nor ids of blobs, which are all that a peer needs to fetch one. It does hold addresses and peer ids.

mod archive;
mod host;

use std::{
    fmt::{self, Write as _},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use self::archive::Part;
use crate::{
    api::Client,
    blob::blocking,
    cli::millis,
    data::DataFolder,
    error::{Chain, CommandError},
    origins::Origins,
    output::{Output, now, path_text},
    printable::Printable,
    text::bytes,
};

/// Time in which a node answers one request, 10 s, within the time for all of them. A node that hangs
/// is what an archive is for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct DiagArgs {
    /// Data folder of the node. If a node runs on it, the archive has its status, metrics and the last
    /// lines of its log. Without a folder, the archive describes this host alone.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Archive to write (gzipped tar), which may not exist yet. Without it,
    /// `calnet-diag-TIME.tar.gz` in the current folder, with a number behind the time if that exists.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Time for all answers of the node, in milliseconds; one answer has 10 s at most. The archive is
    /// written without the answers that are missing then, and names them.
    #[arg(long, default_value = "30000", value_name = "MS", value_parser = millis)]
    timeout_ms: Duration,
}

/// The archive is written.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "diag_written")]
struct DiagWritten {
    file: String,
    size_bytes: u64,
    /// Whether a node runs on the data folder.
    running: bool,
    /// Files in the archive.
    parts: Vec<String>,
    /// Parts that are missing, and why.
    missing: Vec<String>,
}

impl fmt::Display for DiagWritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, size) = (Printable(&self.file), bytes(self.size_bytes));
        writeln!(f, "written  {file}, {size}, {} files", self.parts.len())?;
        for missing in &self.missing {
            writeln!(f, "missing  {}", Printable(missing))?;
        }
        f.write_str(
            "It holds no key, token or blob, but addresses and peer ids: read it before you publish it.",
        )
    }
}

/// What is collected.
#[derive(Debug, Default)]
struct Collected {
    parts: Vec<Part>,
    missing: Vec<String>,
}

impl Collected {
    fn text(&mut self, name: &str, text: String) {
        self.parts.push(Part {
            name: name.to_owned(),
            content: text.into_bytes(),
        });
    }

    fn json(&mut self, name: &str, value: &impl Serialize) {
        // Values and records with text keys, so this does not fail.
        let text = serde_json::to_string_pretty(value).unwrap_or_default();
        self.text(name, text + "\n");
    }

    fn missing(&mut self, name: &str, why: impl fmt::Display) {
        self.missing.push(format!("{name}: {why}"));
    }
}

pub(crate) async fn execute(args: DiagArgs, output: &Output) -> Result<(), CommandError> {
    // Before anything is collected.
    if let Some(file) = &args.output
        && file.symlink_metadata().is_ok()
    {
        return Err(CommandError::Exists { path: file.clone() });
    }
    let deadline = Instant::now() + args.timeout_ms;
    let mut collected = Collected::default();
    let node = match &args.data {
        Some(data) => {
            let socket = DataFolder::existing(data)?.socket();
            let node = in_time(deadline, Client::connect(&socket)).await;
            node.unwrap_or_else(|why| {
                collected.missing("node", why);
                None
            })
        }
        None => None,
    };
    match (&node, &args.data) {
        (Some(node), _) => of_node(node, deadline, &mut collected).await,
        (None, Some(data)) => of_file(data, &mut collected),
        (None, None) => collected.missing("node", "no data folder is named (--data)"),
    }
    if let Some(data) = &args.data {
        match folder(data) {
            Ok(text) => collected.text("data-folder.txt", text),
            Err(error) => collected.missing("data-folder.txt", error),
        }
    }
    host::collect(&mut collected);
    let about = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "time": now(),
        "running": node.is_some(),
        "missing": collected.missing,
    });
    collected.json("about.json", &about);
    let Collected { parts, missing } = collected;
    let names = parts.iter().map(|part| part.name.clone()).collect();
    let running = node.is_some();
    let (file, size_bytes) = blocking(move || match args.output {
        Some(file) => archive::write(&file, &parts).map(|size_bytes| (file, size_bytes)),
        None => write_under_first_free_name(Path::new(""), &now(), &parts),
    })
    .await?;
    output.print_lines(&DiagWritten {
        file: path_text(&file),
        size_bytes,
        running,
        parts: names,
        missing,
    });
    Ok(())
}

/// Writes an archive that is named by the time, and by a number if another archive was written within
/// the same second. Returns its path and size in bytes.
fn write_under_first_free_name(
    folder: &Path,
    now: &str,
    parts: &[Part],
) -> Result<(PathBuf, u64), CommandError> {
    let digits = now.chars().filter(char::is_ascii_digit);
    let mut name: String = "calnet-diag-".chars().chain(digits.take(14)).collect();
    let stem = name.clone();
    let mut number = 1;
    loop {
        let path = folder.join(format!("{name}.tar.gz"));
        match archive::write(&path, parts) {
            Err(CommandError::Exists { .. }) => {
                number += 1;
                name = format!("{stem}-{number}");
            }
            written => return written.map(|size_bytes| (path, size_bytes)),
        }
    }
}

/// What a running node says of itself.
async fn of_node(node: &Client, deadline: Instant, collected: &mut Collected) {
    for (name, target) in [
        ("status.json", "/v1/status"),
        ("ready.json", "/readyz"),
        ("config.json", "/v1/config"),
        ("peers.json", "/v1/peers"),
        ("topics.json", "/v1/topics"),
    ] {
        // A node that is not ready answers 503 with the reason.
        let answer = node.get_of_any_status::<Value>(target);
        match in_time(deadline, answer).await {
            Ok(value) => collected.json(name, &value),
            Err(why) => collected.missing(name, why),
        }
    }
    // Its ids of blobs are left out.
    match in_time(deadline, node.get::<Value>("/v1/blobs")).await {
        Ok(page) => collected.json("store.json", &page["usage"]),
        Err(why) => collected.missing("store.json", why),
    }
    for (name, target) in [("metrics.txt", "/v1/metrics"), ("log.txt", "/v1/log")] {
        match in_time(deadline, node.text(target)).await {
            Ok(text) => collected.text(name, without_ids(&text)),
            Err(why) => collected.missing(name, why),
        }
    }
}

/// Waits for an answer of the node until `deadline`, at most [`ANSWER_TIMEOUT`].
async fn in_time<T, E: std::error::Error + 'static>(
    deadline: Instant,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err("not asked: the time for all answers has passed".to_owned());
    }
    let after = left.min(ANSWER_TIMEOUT);
    match timeout(after, answer).await {
        Ok(answer) => answer.map_err(|error| Chain(&error).to_string()),
        Err(_) => Err(format!("no answer within {} ms", after.as_millis())),
    }
}

/// Replaces what may be the id of a blob, in base58 or hexadecimal. An id is all that a peer needs
/// to fetch the blob, and the log and errors name ids.
fn without_ids(text: &str) -> String {
    let words = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    words
        .map(|word| {
            let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            match bare.len() {
                // 32 bytes in base58 have 43 or 44 characters, peer ids have more.
                43 | 44 | 64 => format!("[id]{}", &word[bare.len()..]),
                _ => word.to_owned(),
            }
        })
        .collect()
}

/// The configuration that a node on the folder would have.
fn of_file(data: &Path, collected: &mut Collected) {
    let why = "no node runs on the data folder";
    collected.missing("status, peers, topics, metrics, log", why);
    let data = DataFolder::of_running(data);
    let file = data.existing_config();
    match Origins::read(file.as_deref(), &data.defaults()) {
        Ok((config, origins)) => collected.json("config.json", &origins.effective(config)),
        Err(error) => collected.missing("config.json", Chain(&error)),
    }
}

/// Names, modes and sizes in the data folder. Of folders in it, the number of entries: their names
/// are ids of blobs.
fn folder(data: &Path) -> std::io::Result<String> {
    use std::os::unix::fs::MetadataExt as _;

    let mut lines = Vec::new();
    for entry in fs::read_dir(data)? {
        let entry = entry?;
        let about = entry.metadata()?;
        let mut line = String::new();
        let _ = write!(
            line,
            "{:06o} {:>5} {:>12} {}",
            about.mode(),
            about.uid(),
            about.len(),
            entry.file_name().to_string_lossy()
        );
        if about.is_dir() {
            let entries = fs::read_dir(entry.path()).map(Iterator::count);
            let _ = match entries {
                Ok(count) => write!(line, " ({count} entries)"),
                Err(error) => write!(line, " ({error})"),
            };
        }
        lines.push(line + "\n");
    }
    lines.sort_unstable();
    Ok(format!("mode, owner, bytes, name\n{}", lines.concat()))
}

#[cfg(test)]
mod tests {
    use calimero_network::{BlobId, PeerId};

    use super::*;

    #[test]
    fn archives_of_one_second_have_different_names() {
        let folder = tempfile::tempdir().unwrap();
        let write = || {
            let now = "2026-11-30T11:12:13.4Z";
            let written = write_under_first_free_name(folder.path(), now, &[]);
            let (path, _) = written.unwrap();
            path.file_name().unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(write(), "calnet-diag-20261130111213.tar.gz");
        assert_eq!(write(), "calnet-diag-20261130111213-2.tar.gz");
        assert_eq!(write(), "calnet-diag-20261130111213-3.tar.gz");
    }

    #[test]
    fn ids_of_blobs_are_masked_and_ids_of_peers_are_not() {
        let (id, peer) = (BlobId::from([7; 32]), PeerId::random());
        let hex = hex::encode(id.as_bytes());
        let log = format!("WARN cannot read blob {id}: /data/blobs/{hex}.part peer={peer}\n");
        let masked = format!("WARN cannot read blob [id]: /data/blobs/[id].part peer={peer}\n");
        assert_eq!(without_ids(&log), masked);
        assert_eq!(without_ids(&id.to_string()), "[id]");
    }
}
