//! Files that are sent, received and fetched between two hosts behind NATs.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    at_once,
    pairs::Case,
    support::{Process, run_within},
    table,
    world::{LIMIT, World, listen_arguments},
};

/// Size of the file, in bytes: above what a relay carries.
const FILE_BYTES: usize = (3 << 20) + 5;

/// Worlds at a time.
const AT_A_TIME: usize = 4;

/// How the file gets from the first host to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// `calnet send` and `calnet receive`.
    Ticket,
    /// `calnet blob get` from a node that has announced it.
    Id,
}

/// One file from the first host of a case to the second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    pub(crate) by: By,
    pub(crate) case: Case,
    /// Port that both listen on. 0 lets the system choose.
    pub(crate) port: u16,
}

/// When the second host had a path, and the file.
struct Outcome {
    path: Option<String>,
    time: Option<Duration>,
    story: String,
}

fn content() -> Vec<u8> {
    (0..FILE_BYTES)
        .map(|at| (at / 251 + (at >> 20)) as u8)
        .collect()
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn arguments(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn measure(transfer: Transfer) -> Outcome {
    let world = World::new(2);
    let sites = transfer.case.kinds.map(|kind| world.site(kind));
    let [there, here] = [0, 1].map(|n| transfer.case.transports(sites[n].kind()));
    let (file, copy) = (world.file("file"), world.file("copy"));
    fs::write(&file, content()).unwrap();

    let (first, end, getting) = match transfer.by {
        By::Ticket => {
            let mut send = arguments(&["send", &text(&file)]);
            send.extend(world.boot_arguments(&sites[0], &there));
            send.extend(listen_arguments(&there, transfer.port));
            let sender = Process::start(world.command("first", &sites[0], &send));
            let ticket = sender.event_within("ticket", LIMIT);
            let ticket = ticket["ticket"].as_str().unwrap();
            // The ticket is all that the receiver knows.
            let mut receive = arguments(&["receive", ticket, "-o", &text(&copy)]);
            receive.extend(listen_arguments(&here, transfer.port));
            (sender, "received", receive)
        }
        By::Id => {
            let data = world.file("data");
            let add = ["blob", "--data", &text(&data), "add", &text(&file)];
            let added = run_within(LIMIT, world.command("add", &sites[0], &arguments(&add)));
            let id = added.json_lines()[0]["id"].as_str().unwrap().to_owned();
            let mut node = arguments(&["run", "--data", &text(&data)]);
            node.extend(world.boot_arguments(&sites[0], &there));
            node.extend(listen_arguments(&there, transfer.port));
            let node = Process::start(world.command("first", &sites[0], &node));
            node.event_within("blob_announced", LIMIT);
            let mut get = arguments(&["blob", "get", &id, "-o", &text(&copy)]);
            get.extend(world.boot_arguments(&sites[1], &here));
            (node, "fetched", get)
        }
    };
    let begun = Instant::now();
    let second = Process::start(world.command("second", &sites[1], &getting));
    let ended = second.find(0, LIMIT, |line| line["event"] == end);
    let entries = second.entries();
    let path = entries
        .iter()
        .rev()
        .find(|entry| entry.line["event"] == "path");
    let path = path.map(|entry| {
        let word = |key: &str| entry.line[key].as_str().unwrap_or_default().to_owned();
        format!("{} {}", word("path"), word("transport"))
            .trim()
            .to_owned()
    });
    let is_whole = ended.is_some() && fs::read(&copy).is_ok_and(|copied| copied == content());
    let lines = first.entries().into_iter().chain(second.entries());
    let lines = lines.map(|entry| format!("{}\n", entry.line));
    let logs = ["first", "second"]
        .map(|name| fs::read_to_string(world.file(&format!("{name}.log"))).unwrap_or_default());
    Outcome {
        path,
        time: ended
            .filter(|_| is_whole)
            .map(|(_, entry)| entry.at - begun),
        story: lines.chain(logs).collect(),
    }
}

/// Transfers files, prints the times and checks that all arrived.
pub(crate) fn run(transfers: &[Transfer]) {
    let outcomes = at_once(AT_A_TIME, transfers, |transfer| measure(*transfer));
    let mut table = table::new(["command", "from", "to", "over", "port", "path", "received"]);
    for (transfer, outcome) in transfers.iter().zip(&outcomes) {
        let [from, to] = transfer.case.kinds.map(|kind| kind.to_string());
        table.add_row([
            match transfer.by {
                By::Ticket => "send, receive".to_owned(),
                By::Id => "blob get".to_owned(),
            },
            from,
            to,
            transfer.case.transport.to_string(),
            match transfer.port {
                0 => "any".to_owned(),
                port => port.to_string(),
            },
            outcome.path.clone().unwrap_or("-".to_owned()),
            table::seconds(outcome.time),
        ]);
    }
    println!("{table}");
    let mut failed = Vec::new();
    for (transfer, outcome) in transfers.iter().zip(&outcomes) {
        if outcome.time.is_none() {
            eprintln!("{transfer:?}\n{}", outcome.story);
            failed.push(transfer);
        }
    }
    assert!(failed.is_empty(), "{} failed: {failed:#?}", failed.len());
}
