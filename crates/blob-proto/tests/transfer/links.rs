//! Two providers behind links of 100 Mbit/s each, in network namespaces of their own.
//!
//! Runs as root on Linux with `unshare`, `ip` and `tc`, and says that it is skipped elsewhere.
//! The rate is set by a token bucket, so time measures the plan and not the machine.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use calimero_network_blob::{BlobId, fetch::BlobFetchConfig, serve::Server, transfer::Version};
use calimero_network_primitives::{config::BlobServeConfig, limits::BLOB_CHUNK_BYTES};
use tokio::net::TcpListener;
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::net::{Net, fetch, folder, peer, requester};

/// Which provider a process is.
const NUMBER: &str = "CALIMERO_BLOB_TEST_LINK";

/// Four seconds of one link.
const SIZE_BYTES: usize = 48 << 20;

/// Time in which one link that is kept full brings it: 4.03 s, and an eighth for all else.
const FILLED: Duration = Duration::from_millis(4530);

/// What two links give, in links.
const LEAST_GAIN: f64 = 1.8;

const RATE: &str = "100mbit";

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let done = Command::new(program).args(args).output();
    match done {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

/// Runs one of the functions below as a process in a network namespace of its own.
fn in_namespace(test: &str, number: u8) -> Command {
    let mut command = Command::new("unshare");
    command
        .arg("--net")
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(NUMBER, number.to_string());
    command
}

#[test]
fn two_limited_providers_are_nearly_twice_as_fast() {
    let shaped =
        "ip link set lo up && tc qdisc add dev lo root tbf rate 1mbit burst 16kb latency 1s";
    if let Err(reason) = run("unshare", &["--net", "sh", "-c", shaped]) {
        eprintln!("skipped: no links can be made here: {reason}");
        return;
    }
    let status = in_namespace("links::fetch_over_links", 0).status().unwrap();
    assert!(status.success());
}

struct Provider {
    child: Child,
    /// The blob that the provider serves.
    id: BlobId,
}

impl Provider {
    /// Starts a provider, and lays a link to it from this namespace.
    fn start(number: u8) -> Self {
        let mut child = in_namespace("links::provide_over_a_link", number)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        await_line(&mut lines, "in its namespace");
        let (name, pid) = (format!("link{number}"), child.id().to_string());
        let address = format!("10.99.{number}.1/24");
        let peer = [
            "type",
            "veth",
            "peer",
            "name",
            "uplink",
            "netns",
            pid.as_str(),
        ];
        run("ip", &[&["link", "add", name.as_str()], &peer[..]].concat()).unwrap();
        run("ip", &["address", "add", &address, "dev", &name]).unwrap();
        run("ip", &["link", "set", &name, "up"]).unwrap();
        child.stdin.as_ref().unwrap().write_all(b"\n").unwrap();
        let id = await_line(&mut lines, "gives ").parse().unwrap();
        Self { child, id }
    }
}

/// What follows the words in the line that begins with them.
fn await_line(lines: &mut impl BufRead, words: &str) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "no {words}");
        if let Some(rest) = line.trim().strip_prefix(words) {
            return rest.to_owned();
        }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs as a child of the test above"]
async fn fetch_over_links() {
    env::var(NUMBER).expect("not a child");
    let providers = [1, 2].map(Provider::start);
    let net = Net::default();
    for number in [1, 2] {
        let address = format!("10.99.{number}.2:4001").parse().unwrap();
        net.add_at(peer(number), Version::V1, address);
    }
    let id = providers[0].id;
    // Again where the machine had something else to do.
    let (mut best, mut busy) = (0.0_f64, false);
    for _ in 0..2 {
        let one = time(&net, id, &[1]).await;
        let two = time(&net, id, &[1, 2]).await;
        let gain = one.as_secs_f64() / two.as_secs_f64();
        println!("one provider {one:.2?}, two {two:.2?}: {gain:.2} times as fast");
        best = best.max(gain);
        busy |= one > FILLED;
        if best >= LEAST_GAIN {
            return;
        }
    }
    // Who cannot fill one link learns nothing about two.
    assert!(busy, "two providers are {best:.2} times as fast as one");
    println!("skipped: the machine is too busy to fill a link");
}

async fn time(net: &Net, id: BlobId, numbers: &[u8]) -> Duration {
    let here = folder();
    let begun = Instant::now();
    let providers = numbers.iter().map(|number| peer(*number));
    let fetched = fetch(net, &BlobFetchConfig::default(), id, providers, &here.store).await;
    let took = begun.elapsed();
    assert_eq!(fetched.unwrap().providers.len(), numbers.len());
    took
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs as a child of the test above"]
async fn provide_over_a_link() {
    let number: u8 = env::var(NUMBER).expect("not a child").parse().unwrap();
    println!("in its namespace");
    std::io::stdin().read_exact(&mut [0]).unwrap();
    let (ip, link) = (format!("10.99.{number}.2"), "uplink");
    run("ip", &["address", "add", &format!("{ip}/24"), "dev", link]).unwrap();
    run("ip", &["link", "set", link, "up"]).unwrap();
    let shape = ["qdisc", "add", "dev", link, "root", "tbf", "rate", RATE];
    let bucket = ["burst", "64kb", "latency", "50ms"];
    run("tc", &[&shape[..], &bucket].concat()).unwrap();

    let there = folder();
    let mut writer = there.store.writer().unwrap();
    let chunks = u8::try_from(SIZE_BYTES / BLOB_CHUNK_BYTES).unwrap();
    (0..chunks).for_each(|byte| writer.write(&vec![byte; BLOB_CHUNK_BYTES]).unwrap());
    let id = writer.finish(None).unwrap().id;
    let store = Arc::new(there.store.clone());
    let server = Server::new(peer(number), store, &BlobServeConfig::default());
    let listener = TcpListener::bind(format!("{ip}:4001")).await.unwrap();
    println!("gives {id}");
    loop {
        // Until it is killed.
        let (socket, _) = listener.accept().await.unwrap();
        let serving = server.serve(requester(), Version::V1, socket.compat());
        tokio::spawn(serving);
    }
}
