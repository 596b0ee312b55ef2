//! A node with an API, requests to it and its answers.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::PathBuf,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{LIMIT, Process};

/// An id that no blob has.
pub(crate) const MISSING: &str = "11111111111111111111111111111112";

/// A connection of either kind.
pub(crate) trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

/// An answer that was read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{}\n{text}", self.head))
    }
}

pub(crate) fn read_answer(stream: &mut dyn Stream) -> Answer {
    let mut bytes = Vec::new();
    // A node that closes the connection before it has read everything resets it.
    let _ = stream.read_to_end(&mut bytes);
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&bytes)));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = bytes[end + 4..].to_vec();
    Answer { status, head, body }
}

/// The records of a stream of server-sent events.
pub(crate) struct Events(BufReader<Box<dyn Stream>>);

impl Events {
    pub(crate) fn next(&mut self) -> Value {
        self.next_numbered().1
    }

    /// The next record, with the id of its event.
    pub(crate) fn next_numbered(&mut self) -> (Option<u64>, Value) {
        let mut line = String::new();
        let mut id = None;
        loop {
            line.clear();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream ended");
            if let Some(number) = line.strip_prefix("id: ") {
                id = Some(number.trim().parse().unwrap());
            } else if let Some(data) = line.strip_prefix("data: ") {
                return (id, serde_json::from_str(data).unwrap());
            }
        }
    }

    /// The next record of a name. Others are skipped.
    pub(crate) fn event(&mut self, name: &str) -> Value {
        loop {
            let record = self.next();
            if record["event"] == name {
                return record;
            }
        }
    }
}

/// A node with an API on its Unix socket and over TCP.
pub(crate) struct Node {
    pub(crate) process: Process,
    pub(crate) data: PathBuf,
    /// Address of its API.
    pub(crate) api: String,
    /// Multiaddress with its peer id.
    pub(crate) address: String,
    _folder: TempDir,
}

impl Node {
    pub(crate) fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let mut arguments = vec!["--data", data.to_str().unwrap(), "--api", "127.0.0.1:0"];
        arguments.extend(more);
        let process = Process::node(&arguments);
        let peer = process.event("started")["peer"].clone();
        let url = process.event("api")["url"].as_str().unwrap().to_owned();
        let api = url.strip_prefix("http://").unwrap();
        let api = api.strip_suffix("/v1").unwrap().to_owned();
        let listening = process.event("listening");
        let (listening, peer) = (listening["address"].as_str(), peer.as_str());
        let address = format!("{}/p2p/{}", listening.unwrap(), peer.unwrap());
        Self {
            process,
            data,
            api,
            address,
            _folder: folder,
        }
    }

    pub(crate) fn peer(&self) -> &str {
        self.address.rsplit_once('/').unwrap().1
    }

    pub(crate) fn token(&self) -> String {
        let text = fs::read_to_string(self.data.join("control").join("token"));
        text.unwrap().trim().to_owned()
    }

    pub(crate) fn unix(&self) -> Box<dyn Stream> {
        let path = self.data.join("control").join("socket");
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Box::new(stream)
    }

    pub(crate) fn tcp(&self) -> Box<dyn Stream> {
        let stream = TcpStream::connect(&self.api).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Box::new(stream)
    }

    /// One request on the Unix socket. `request` is its method and target, perhaps with headers.
    pub(crate) fn ask(&self, request: &str, body: &[u8]) -> Answer {
        let (line, headers) = request.split_once('\n').unwrap_or((request, ""));
        let length = body.len();
        let mut stream = self.unix();
        write!(
            stream,
            "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n"
        )
        .unwrap();
        for header in headers.lines() {
            write!(stream, "{header}\r\n").unwrap();
        }
        stream.write_all(b"\r\n").unwrap();
        // The node may refuse the body before it has read it.
        let _ = stream.write_all(body);
        read_answer(stream.as_mut())
    }

    pub(crate) fn get(&self, target: &str) -> Answer {
        self.ask(&format!("GET {target}"), b"")
    }

    /// One request over TCP with these headers and no others.
    pub(crate) fn over_tcp(&self, line: &str, headers: &[&str]) -> Answer {
        let mut stream = self.tcp();
        let headers = headers.join("\r\n");
        write!(
            stream,
            "{line} HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        read_answer(stream.as_mut())
    }

    /// The first line of the answer to a request for a stream, which is closed then.
    pub(crate) fn status_of_events(&self) -> String {
        let mut stream = self.unix();
        write!(stream, "GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut status = String::new();
        BufReader::new(stream).read_line(&mut status).unwrap();
        status
    }

    /// Begins a request on the Unix socket whose answer is a stream. It is read no further than its
    /// first record, if it has one at once.
    pub(crate) fn events(&self, line: &str) -> Events {
        let mut stream = self.unix();
        write!(stream, "{line} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut events = Events(BufReader::new(stream));
        let mut status = String::new();
        events.0.read_line(&mut status).unwrap();
        assert!(status.contains(" 200 "), "{status}");
        events
    }
}

/// Waits until two nodes are connected.
pub(crate) fn connect(from: &Node, to: &Node) {
    let target = format!("POST /v1/peers?address={}", to.address);
    let answer = from.ask(&target, b"");
    assert_eq!(answer.status, 200, "{:?}", answer.json());
    to.process.event("connected");
}
