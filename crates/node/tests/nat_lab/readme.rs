//! The commands of README.md, in their order, on machines behind NATs.

use std::{collections::BTreeSet, fs};

use crate::{
    site::{Kind, Site},
    support::{Process, run_within},
    world::{LIMIT, World},
};

const README: &str = include_str!("../../../../README.md");

/// Heading of the section whose commands are executed.
const SECTION: &str = "\n## A network of your own\n";

/// The command that installs the program, which is built already.
const INSTALL: &str = "cargo install --locked --path crates/node";

/// How the comment above commands begins, and the machine that they are for.
const MACHINES: [(&str, usize); 4] = [
    ("# on a host with a public address", 0),
    ("# on a second machine", 1),
    ("# on a third machine", 2),
    ("# on the second machine", 1),
];

/// A command on one of the three machines.
struct Step {
    machine: usize,
    words: Vec<&'static str>,
}

/// The commands of the section.
fn steps() -> Vec<Step> {
    let (_, section) = README.split_once(SECTION).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1);
    let lines = blocks.flat_map(|block| block.split("```").next().unwrap().lines());
    let mut machine = None;
    let mut steps = Vec::new();
    for line in lines.filter(|line| !line.is_empty() && *line != INSTALL) {
        if line.starts_with('#') {
            let named = MACHINES.iter().find(|(start, _)| line.starts_with(start));
            machine = Some(named.unwrap_or_else(|| panic!("which machine? {line}")).1);
            continue;
        }
        let mut words = line.split_whitespace();
        assert_eq!(words.next(), Some("calnet"), "{line}");
        steps.push(Step {
            machine: machine.unwrap_or_else(|| panic!("which machine? {line}")),
            words: words.collect(),
        });
    }
    steps
}

/// Executes the commands as a reader does, who replaces what the section says is to be replaced. Of
/// commands that keep running, the output that the next commands need is awaited, and nothing else.
pub(crate) fn run() {
    let world = World::new(0);
    let sites = [
        Site::public(&world.internet).unwrap(),
        world.site(Kind::PortRestricted),
        world.site(Kind::PortRestricted),
    ];
    let folders = ["public", "second", "third"].map(|name| world.file(name));
    for folder in &folders {
        fs::create_dir(folder).unwrap();
    }
    let content: Vec<u8> = (0..2_000_000_u32).map(|at| (at / 7) as u8).collect();
    fs::write(folders[2].join("some.file"), &content).unwrap();
    let public = sites[0].public_addresses().v4().to_string();
    let mut replaced = vec![
        ("203.0.113.7", public),
        ("NAME", "my-network".to_owned()),
        ("FILE", "some.file".to_owned()),
    ];
    let mut running = Vec::new();
    let mut executed = BTreeSet::new();
    for (number, Step { machine, words }) in steps().into_iter().enumerate() {
        let replace = |word: &str| {
            let replacing = replaced.iter();
            replacing.fold(word.to_owned(), |word, (from, to)| word.replace(from, to))
        };
        let arguments: Vec<_> = words.iter().map(|word| replace(word)).collect();
        let name = format!("{number}-{}", words[0]);
        let mut command = world.command(&name, &sites[machine], &arguments);
        command.current_dir(&folders[machine]);
        // The event that a command which keeps running is awaited for, and what is known by it.
        let awaited = match words[0] {
            "boot" => Some(("boot_address", Some(("ADDR", "address")))),
            "run" => Some(("started", None)),
            "send" => Some(("ticket", Some(("TICKET", "ticket")))),
            _ => None,
        };
        if let Some((event, known)) = awaited {
            let process = Process::start(command);
            let record = process.event_within(event, LIMIT);
            if let Some((replaceable, field)) = known {
                replaced.push((replaceable, record[field].as_str().unwrap().to_owned()));
            }
            running.push((machine, words[0], process));
        } else {
            let ended = run_within(LIMIT, command);
            assert!(ended.success, "{arguments:?}: {}", ended.stderr);
        }
        executed.insert(words[0]);
    }
    let all = ["boot", "init", "publish", "receive", "run", "send"];
    assert_eq!(executed, BTreeSet::from(all));
    let on_second =
        |(machine, command, _): &&(usize, &str, Process)| (*machine, *command) == (1, "run");
    let (_, _, second) = running.iter().find(on_second).unwrap();
    assert_eq!(second.event_within("message", LIMIT)["text"], "hello");
    let received = fs::read(folders[1].join("some.file")).unwrap();
    assert!(received == content, "another content was received");
}
