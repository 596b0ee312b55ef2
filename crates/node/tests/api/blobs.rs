//! Blobs that are uploaded, fetched and sent by tickets.

use std::{fs, io::Write as _, net::TcpStream, time::Instant};

use serde_json::Value;

use crate::{
    node::{MISSING, Node, connect},
    support::{ClosedPort, LIMIT},
};

#[test]
fn an_upload_whose_client_dies_leaves_nothing_behind() {
    let node = Node::start(&[]);
    let usage = || node.get("/v1/blobs").json()["usage"].clone();
    let deadline = Instant::now() + LIMIT;
    let until = |is_it: &dyn Fn(&Value) -> bool| {
        while !is_it(&usage()) {
            assert!(Instant::now() < deadline, "{}", usage());
        }
    };
    // With a length, and in chunks.
    for kind in ["Content-Length: 9000000", "Transfer-Encoding: chunked"] {
        let mut upload = TcpStream::connect(&node.api).unwrap();
        let token = node.token();
        let head = format!(
            "POST /v1/blobs HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n{kind}\r\n\r\n",
            node.api
        );
        upload.write_all(head.as_bytes()).unwrap();
        if kind.ends_with("chunked") {
            upload.write_all(b"2DC6C0\r\n").unwrap();
        }
        upload.write_all(&vec![1; 3_000_000]).unwrap();
        until(&|usage| usage["reserved_bytes"] != 0);
        drop(upload);
        until(&|usage| usage["reserved_bytes"] == 0);
        assert_eq!(usage()["blobs"], 0);
        assert_eq!(usage()["partials"], 0);
        let left = |name: &str| {
            let folder = fs::read_dir(node.data.join("blobs").join(name));
            folder.map_or(0, Iterator::count)
        };
        assert_eq!(left("blobs"), 0);
    }
}

#[test]
fn an_upload_whose_client_leaves_after_its_last_byte_is_announced() {
    let (node, other) = (Node::start(&["--local"]), Node::start(&["--local"]));
    connect(&node, &other);
    for number in 0..4 {
        let content = vec![number; 8_000_000];
        let mut upload = node.unix();
        let length = content.len();
        write!(
            upload,
            "POST /v1/blobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        )
        .unwrap();
        upload.write_all(&content).unwrap();
        drop(upload);
        let deadline = Instant::now() + LIMIT;
        let count = usize::from(number) + 1;
        while node.get("/v1/blobs").json()["usage"]["blobs"] != count {
            assert!(Instant::now() < deadline, "the blob is not stored");
        }
        node.process.event("blob_announced");
    }
}

#[test]
fn a_fetch_reports_its_progress() {
    let (here, there) = (Node::start(&[]), Node::start(&[]));
    let content: Vec<u8> = (0..3_000_000_u32).map(|at| (at / 7) as u8).collect();
    let added = there.ask("POST /v1/blobs", &content).json();
    let id = added["id"].as_str().unwrap();
    let mut fetch = here.events(&format!("POST /v1/blobs/{id}/fetch?dial={}", there.address));
    let fetched = fetch.event("fetched");
    assert_eq!(fetched["size_bytes"], content.len());
    assert_eq!(fetched["providers"][0], there.peer());
    assert!(here.get(&format!("/v1/blobs/{id}")).body == content);
    // A failure after the start of the stream is its last record.
    let closed = ClosedPort::new();
    let address = closed.address();
    let mut failed = here.events(&format!("POST /v1/blobs/{MISSING}/fetch?dial={address}"));
    let error = failed.next();
    assert_eq!(error["event"], "error", "{error}");
    assert_eq!(error["code"], "not_reachable", "{error}");
    // What is damaged is not sent as if it were the content.
    let blobs = here.data.join("blobs").join("blobs");
    let files = fs::read_dir(blobs).unwrap().map(Result::unwrap);
    let stored = files
        .max_by_key(|file| file.metadata().unwrap().len())
        .unwrap();
    let damage = |at: usize| {
        let mut bytes = fs::read(stored.path()).unwrap();
        bytes[at] ^= 1;
        fs::write(stored.path(), bytes).unwrap();
    };
    damage(2_900_000);
    let verified = here.ask(&format!("POST /v1/blobs/{id}/verify"), b"");
    assert_eq!(verified.json()["event"], "damaged");
    let read = here.get(&format!("/v1/blobs/{id}"));
    assert!(!read.body.is_empty(), "{}", read.head);
    assert!(content.starts_with(&read.body), "{}", read.head);
    assert!(read.body.len() < content.len(), "{}", read.head);
    damage(100);
    let read = here.get(&format!("/v1/blobs/{id}"));
    assert_eq!(read.status, 422);
    assert_eq!(read.json()["code"], "check_failed");
    let repaired = here.ask(&format!("POST /v1/blobs/{id}/verify?repair=true"), b"");
    assert_eq!(repaired.json()["withdrawn"], true);
    let listed = here.get("/v1/blobs").json();
    assert_eq!(listed["blobs"], serde_json::json!([]));
}

#[test]
fn a_blob_goes_from_node_to_node_by_a_ticket() {
    let nodes = [Node::start(&["--local"]), Node::start(&["--local"])];
    let [here, there] = &nodes;
    let content = vec![5; 1_000_000];
    let added = there.ask("POST /v1/blobs", &content).json();
    let id = added["id"].as_str().unwrap();
    let named = there.get(&format!("/v1/blobs/{id}/ticket?name=a%20file"));
    let ticket = named.json();
    assert_eq!(ticket["size_bytes"], content.len());
    assert_eq!(ticket["peer"], there.peer());
    assert!(!ticket["addresses"].as_array().unwrap().is_empty());
    let text = ticket["ticket"].as_str().unwrap();
    let answer = here.ask("POST /v1/tickets/fetch", text.as_bytes());
    let records = String::from_utf8(answer.body).unwrap();
    let last = records.lines().rfind(|line| line.starts_with("data: "));
    let last: Value = serde_json::from_str(&last.unwrap()[6..]).unwrap();
    assert_eq!(last["event"], "fetched", "{records}");
    assert_eq!(last["name"], "a file");
    assert!(here.get(&format!("/v1/blobs/{id}")).body == content);
    // A ticket of a wrong length, of other characters, and one that is changed.
    let other = if text.ends_with('a') { "b" } else { "a" };
    let wrong = format!("{}{other}", &text[..text.len() - 1]);
    for body in ["calnet", "ticket", &wrong, &"calnet".repeat(1000), "\u{ff}"] {
        let refused = here.ask("POST /v1/tickets/fetch", body.as_bytes());
        assert_eq!(refused.status, 400, "{body}: {refused:?}");
        assert_eq!(refused.json()["fields"][0], "body");
    }
    for name in ["..", ".hidden", "a%2Fb", ""] {
        let refused = there.get(&format!("/v1/blobs/{id}/ticket?name={name}"));
        assert_eq!(refused.status, 400, "{name}: {refused:?}");
        assert_eq!(refused.json()["fields"][0], "name");
    }
}
