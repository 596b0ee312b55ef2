//! Data folders that cannot be written.

use std::{fs, path::Path};

use crate::{
    Case,
    host::{Disk, Host},
    support::{Process, run},
};

pub(crate) const CASES: &[Case] = &[
    ("read-only data folder", read_only),
    ("full data folder", full),
    ("no inodes left", no_inodes),
    ("data folder that fills up", fills_up),
    ("data folder that becomes read-only", becomes_read_only),
];

const LISTEN: [&str; 2] = ["--listen", "/ip4/127.0.0.1/tcp/0"];

/// The start of a node is refused with the path and the cause.
fn refused(host: &Host, cause: &str) -> String {
    let ended = run(host.node(&[], &LISTEN));
    let log = &ended.stderr;
    let last = log.lines().last().unwrap_or_default();
    assert!(!ended.success, "{log}");
    assert!(last.contains(cause), "{log}");
    assert!(last.contains(host.data().to_str().unwrap()), "{log}");
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

/// `blob add` fails with a cause, and the node works.
fn refuses_blobs(host: &Host, node: Process, cause: &str) -> String {
    let file = host.path("content");
    fs::write(&file, vec![7; 100_000]).unwrap();
    let (data, file) = (host.data(), file.to_str().unwrap().to_owned());
    let data = data.to_str().unwrap();
    let added = host.run(&["blob", "--data", data, "add", &file]);
    assert!(!added.success, "{}", added.stdout);
    assert!(added.stderr.contains(cause), "{}", added.stderr);
    let seen = host.works(node, "/ip4/127.0.0.1/tcp", host);
    format!("`blob add` fails: \"{cause}\"; the node {seen}")
}

fn fills_up() -> String {
    let host = Host::new("fills");
    let _disk = Disk::mount(&host.data(), "size=8m,mode=700");
    let node = host.start(&[], &LISTEN);
    node.event("listening");
    fill(&host.data());
    refuses_blobs(&host, node, "no space left")
}

fn becomes_read_only() -> String {
    let host = Host::new("becomes");
    let _disk = Disk::mount(&host.data(), "size=8m,mode=700");
    let node = host.start(&[], &LISTEN);
    node.event("listening");
    host.make_read_only(&node, &host.data());
    refuses_blobs(&host, node, "Read-only file system")
}
