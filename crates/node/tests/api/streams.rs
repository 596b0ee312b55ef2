//! Streams of records, and clients that do not read them or hold connections.

use std::time::Instant;

use crate::{
    node::{Node, connect},
    support::{LIMIT, calnet, run},
};

#[test]
fn a_client_that_does_not_read_stalls_nothing_and_learns_what_it_lost() {
    const MESSAGES: usize = 120;
    let node = Node::start(&["--subscribe", "weather"]);
    let publisher = Node::start(&[]);
    connect(&publisher, &node);
    publisher.process.event("subscribed");
    let mut messages = node.events("GET /v1/topics/messages?topic=weather");
    assert_eq!(messages.next()["event"], "following");
    let mut records = node.events("GET /v1/events");
    // Neither client reads what comes now. The node prints each message.
    for number in 0..MESSAGES {
        let mut text = format!("{number:06}");
        text.push_str(&"x".repeat(64 << 10));
        let sent = publisher.ask("POST /v1/topics/messages?topic=weather", text.as_bytes());
        assert_eq!(sent.status, 200, "{sent:?}");
        let message = node.process.event("message");
        let printed = message["text"].as_str().unwrap();
        assert_eq!(printed[..6], text[..6]);
    }
    assert_eq!(node.get("/v1/status").status, 200);
    let mut command = calnet();
    command.args(["status", "--data"]).arg(&node.data);
    assert!(run(command).success);
    // The oldest are lost, and counted.
    let (mut read, mut missed) = (0, 0);
    while read + missed < MESSAGES {
        let record = messages.next();
        match record["event"].as_str().unwrap() {
            "message" => {
                let number: usize = record["text"].as_str().unwrap()[..6].parse().unwrap();
                assert_eq!(number, read + missed);
                read += 1;
            }
            "lagged" => missed += record["missed"].as_u64().unwrap() as usize,
            other => panic!("{other}"),
        }
    }
    assert!(missed > 0 && read > 0, "{read} read, {missed} missed");
    let record = records.event("message");
    assert!(record["text"].is_string());
    // A subscription ends with its client.
    let listed = |node: &Node| node.get("/v1/topics").json()["topics"].clone();
    let mut other = node.events("GET /v1/topics/messages?topic=other");
    assert_eq!(other.next()["event"], "following");
    assert_eq!(listed(&node).as_array().unwrap().len(), 2);
    drop(other);
    let deadline = Instant::now() + LIMIT;
    while listed(&node).as_array().unwrap().len() != 1 {
        assert!(Instant::now() < deadline, "the subscription goes on");
    }
}

#[test]
fn a_stream_that_replaces_another_continues_its_numbers() {
    let node = Node::start(&["--subscribe", "weather"]);
    let publisher = Node::start(&[]);
    connect(&publisher, &node);
    publisher.process.event("subscribed");
    let publish = |text: &str| {
        let sent = publisher.ask("POST /v1/topics/messages?topic=weather", text.as_bytes());
        assert_eq!(sent.status, 200, "{sent:?}");
    };
    let mut old = node.events("GET /v1/topics/messages?topic=weather");
    let (id, following) = old.next_numbered();
    assert_eq!((id, &following["event"]), (Some(0), &"following".into()));
    for (number, text) in [(1, "one"), (2, "two")] {
        publish(text);
        let (id, message) = old.next_numbered();
        assert_eq!((id, &message["text"]), (Some(number), &text.into()));
    }
    let mut new = node.events("GET /v1/topics/messages?topic=other&topic=weather");
    let (id, following) = new.next_numbered();
    assert_eq!((id, &following["event"]), (Some(2), &"following".into()));
    publish("three");
    for stream in [&mut old, &mut new] {
        let (id, message) = stream.next_numbered();
        assert_eq!((id, &message["text"]), (Some(3), &"three".into()));
    }
}

#[test]
fn a_message_that_is_long_in_json_is_not_held_as_an_event() {
    let node = Node::start(&["--subscribe", "weather"]);
    let publisher = Node::start(&[]);
    connect(&publisher, &node);
    publisher.process.event("subscribed");
    let mut messages = node.events("GET /v1/topics/messages?topic=weather");
    assert_eq!(messages.next()["event"], "following");
    let mut records = node.events("GET /v1/events");
    // Six times as long in JSON.
    let text = "\u{1}".repeat(50_000);
    for text in [text.as_str(), "short"] {
        let sent = publisher.ask("POST /v1/topics/messages?topic=weather", text.as_bytes());
        assert_eq!(sent.status, 200, "{sent:?}");
        assert_eq!(messages.next()["text"], text);
    }
    assert_eq!(records.event("lagged")["missed"], 1);
    assert_eq!(records.event("message")["text"], "short");
}

#[test]
fn clients_that_hold_connections_leave_others_theirs() {
    let node = Node::start(&[]);
    // More than a listener takes, and none says anything.
    let silent: Vec<_> = (0..100).map(|_| node.tcp()).collect();
    assert_eq!(node.get("/v1/status").status, 200);
    drop(silent);
    let mut streams: Vec<_> = (0..32).map(|_| node.events("GET /v1/events")).collect();
    assert!(node.status_of_events().contains(" 429 "));
    assert_eq!(node.get("/v1/status").status, 200);
    streams.pop();
    let deadline = Instant::now() + LIMIT;
    while !node.status_of_events().contains(" 200 ") {
        assert!(Instant::now() < deadline, "the stream is still open");
    }
}
