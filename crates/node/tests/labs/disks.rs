//! Data folders that cannot be written.

use std::{fs, path::Path};

use crate::{
    Case,
    host::{Disk, Host},
    support::run,
};

pub(crate) const CASES: &[Case] = &[
    ("read-only data folder", read_only),
    ("full data folder", full),
    ("no inodes left", no_inodes),
    ("data folder that fills up", fills_up),
    ("data folder that becomes read-only", becomes_read_only),
];

/// A node is refused with the path and the cause.
fn refused(host: &Host, cause: &str) -> String {
    let ended = run(host.node(&[], &["--listen", "/ip4/127.0.0.1/tcp/0"]));
    let log = host.log();
    let last = log.lines().last().unwrap_or_default().to_owned();
    assert!(!ended.success, "{log}");
    assert!(last.contains(cause), "{log}");
    assert!(last.contains("data"), "no path: {log}");
    let code = ended.code.expect("ended by a signal");
    format!("ends with status {code}: \"{cause}\" and the path")
}

fn read_only() -> String {
    let host = Host::new("ro");
    let _disk = Disk::mount(&host.data(), "ro");
    refused(&host, "Read-only file system")
}

fn full() -> String {
    let host = Host::new("full");
    let _disk = Disk::mount(&host.data(), "size=64k,mode=700");
    fill(&host.data());
    refused(&host, "No space left on device")
}

fn no_inodes() -> String {
    let host = Host::new("inodes");
    let _disk = Disk::mount(&host.data(), "nr_inodes=2,mode=700");
    fs::write(host.data().join("used"), b"").unwrap();
    refused(&host, "No space left on device")
}

/// Fills a disk to its last byte.
fn fill(path: &Path) {
    let piece = vec![1; 4096];
    let written = (0..).find(|at| fs::write(path.join(format!("fill{at}")), &piece).is_err());
    assert!(written.is_some());
}

fn fills_up() -> String {
    let host = Host::new("fills");
    let _disk = Disk::mount(&host.data(), "size=8m,mode=700");
    let node = host.start(&[], &["--listen", "/ip4/127.0.0.1/tcp/0"]);
    node.event("listening");
    fill(&host.data());
    let file = host.path("content");
    fs::write(&file, vec![7; 100_000]).unwrap();
    let data = host.data();
    let add = [
        "blob",
        "--data",
        data.to_str().unwrap(),
        "add",
        file.to_str().unwrap(),
    ];
    let added = host.run(&add);
    assert!(!added.success);
    let said = &added.stderr;
    assert!(said.contains("full") || said.contains("No space"), "{said}");
    let seen = host.works(node, "/ip4/127.0.0.1/tcp", &host);
    format!("`blob add` fails with the cause; the node {seen}")
}

fn becomes_read_only() -> String {
    let host = Host::new("becomes");
    let disk = Disk::mount(&host.data(), "size=8m,mode=700");
    let node = host.start(&[], &["--listen", "/ip4/127.0.0.1/tcp/0"]);
    node.event("listening");
    disk.remount("ro");
    host.works(node, "/ip4/127.0.0.1/tcp", &host)
}
